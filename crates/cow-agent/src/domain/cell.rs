//! A server in memory: what it is, what it is doing, and who may do what with it at once.
//!
//! At most one *activity* at a time has a server: whatever runs its hooks, restores it or deletes
//! something of it. Snapshots that need no hook are no activity: the engine orders them.

use super::catalog::{self, INTENT, Intent, RUNNING, STATE, STOPPED, Spec};
use super::error::AgentError;
use super::model::{DriverSpec, Server, ServerId, ServerRef, ServerStatus, ServerVolume};
use crate::config::Hooks;
use cowstore::{NodeInfo, PropEdit};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long one activity waits for another.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is being done with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    /// It is frozen, snapshotted and thawed.
    Freezing,
    Starting,
    Stopping,
    Restoring,
    /// It, or a snapshot of it, is being deleted.
    Deleting,
}

struct State {
    is_running: bool,
    activity: Option<Activity>,
    is_deleted: bool,
}

/// See the module.
pub(super) struct ServerCell {
    pub(super) id: ServerId,
    pub(super) name: String,
    pub(super) driver: DriverSpec,
    pub(super) volumes: Vec<ServerVolume>,
    pub(super) created_ns: u64,
    /// The commands that reach it; `None` for a driver that has none, or that the configuration
    /// does not know (any more).
    pub(super) hooks: Option<Hooks>,
    state: Mutex<State>,
    ended: Condvar,
}

/// The right to an activity; ends with it.
pub(super) struct Busy {
    pub(super) cell: Arc<ServerCell>,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.cell.state.lock().activity = None;
        self.cell.ended.notify_all();
    }
}

impl ServerCell {
    pub(super) fn new(
        id: ServerId,
        spec: Spec,
        volumes: Vec<ServerVolume>,
        created_ns: u64,
        is_running: bool,
        hooks: Option<Hooks>,
    ) -> Self {
        let state = State { is_running, activity: None, is_deleted: false };
        Self {
            id,
            name: spec.name,
            driver: spec.driver,
            volumes,
            created_ns,
            hooks,
            state: Mutex::new(state),
            ended: Condvar::new(),
        }
    }

    /// Begins an activity, after the one that is under way.
    pub(super) fn begin(self: &Arc<Self>, activity: Activity) -> Result<Busy, AgentError> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        loop {
            if state.is_deleted {
                return Err(self.missing());
            }
            match state.activity {
                None => break,
                // A restore takes as long as the server needs to stop: nobody waits for that.
                Some(Activity::Restoring) => return Err(self.being_restored()),
                Some(_) => {}
            }
            if self.ended.wait_until(&mut state, deadline).timed_out() {
                let id = self.id;
                return Err(AgentError::Busy(format!("server {id} is busy")));
            }
        }
        state.activity = Some(activity);
        Ok(Busy { cell: self.clone() })
    }

    /// Refuses while it is being restored.
    pub(super) fn check_quiet(&self) -> Result<(), AgentError> {
        let state = self.state.lock();
        match state.activity {
            _ if state.is_deleted => Err(self.missing()),
            Some(Activity::Restoring) => Err(self.being_restored()),
            _ => Ok(()),
        }
    }

    pub(super) fn missing(&self) -> AgentError {
        AgentError::NotFound(format!("server {}", self.id))
    }

    fn being_restored(&self) -> AgentError {
        AgentError::State(format!("server {} is being restored", self.id))
    }

    /// Waits until nothing is being done with it; whether that came in time.
    pub(super) fn wait_idle(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.activity.is_some() {
            if self.ended.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }

    pub(super) fn is_running(&self) -> bool {
        self.state.lock().is_running
    }

    pub(super) fn set_running(&self, is_running: bool) {
        self.state.lock().is_running = is_running;
    }

    pub(super) fn set_deleted(&self) {
        self.state.lock().is_deleted = true;
    }

    pub(super) fn status(&self) -> ServerStatus {
        let state = self.state.lock();
        match state.activity {
            Some(Activity::Restoring) => ServerStatus::Restoring,
            Some(Activity::Starting) => ServerStatus::Starting,
            Some(Activity::Stopping) => ServerStatus::Stopping,
            _ if state.is_running => ServerStatus::Running,
            _ => ServerStatus::Stopped,
        }
    }

    pub(super) fn describe(&self) -> Server {
        Server {
            id: self.id,
            name: self.name.clone(),
            status: self.status(),
            driver: self.driver.clone(),
            volumes: self.volumes.clone(),
            created_ns: self.created_ns,
        }
    }

    pub(super) fn reference(&self) -> ServerRef {
        ServerRef { id: self.id, name: self.name.clone() }
    }

    /// The names in the pool of its volumes.
    pub(super) fn exports(&self) -> Vec<&str> {
        self.volumes.iter().map(|volume| volume.export.as_str()).collect()
    }

    /// The volume whose properties are the server's.
    pub(super) fn first(&self) -> &str {
        self.volumes.first().map_or("", |volume| volume.export.as_str())
    }

    /// The change that says what has begun, or that nothing has.
    pub(super) fn intent(&self, intent: Option<Intent>) -> PropEdit {
        let change = match intent {
            Some(intent) => catalog::set(INTENT, intent),
            None => catalog::clear(INTENT),
        };
        catalog::edit(self.first(), vec![change])
    }

    /// The change that says that it runs, or does not, and that nothing is under way.
    pub(super) fn settled(&self, is_running: bool) -> PropEdit {
        let word = if is_running { RUNNING } else { STOPPED };
        let changes = vec![catalog::set(STATE, word), catalog::clear(INTENT)];
        catalog::edit(self.first(), changes)
    }

    /// Whether the properties of its first volume say that it runs.
    pub(super) fn was_running(node: &NodeInfo) -> bool {
        node.prop(STATE) == Some(RUNNING)
    }
}
