//! Opening: reading the catalog, and ending what a process that died had begun.

use super::agent::{Agent, Counters, FIRST_SERVER, Index};
use super::catalog::{self, INTENT, Intent, NEXT_SERVER, NEXT_SNAPSHOT, TOKEN, VOLUME};
use super::cell::{Activity, Busy, ServerCell};
use super::error::AgentError;
use super::model::{ServerId, ServerVolume};
use super::rest::afterwards;
use super::token::{TokenHash, Tokens};
use crate::config::Config;
use cowstore::{NodeInfo, Pool};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A guest whose file systems stand still for longer is noticed by its users.
const FROZEN_LIMIT: Duration = Duration::from_secs(9);

/// What was found under way.
type Found = (Arc<ServerCell>, Intent);

impl Agent {
    /// An agent on a pool that is open for writing. What an earlier process had begun with a server
    /// is brought to its end meanwhile: one that was being restored is started again, one that may
    /// be frozen is thawed.
    ///
    /// # Errors
    /// When the catalog cannot be read.
    pub fn open(pool: Arc<Pool>, config: Config) -> Result<Arc<Self>, AgentError> {
        let props = pool.props("")?.props;
        let of_pool = |key: &str| props.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
        let number = |key: &str| of_pool(key).and_then(|value| value.parse::<u64>().ok());
        let tokens = Tokens::default();
        tokens.set(of_pool(TOKEN).and_then(TokenHash::parse));
        let counters = Counters {
            snapshot: number(NEXT_SNAPSHOT).unwrap_or(config.agent.first_snapshot_id),
            server: number(NEXT_SERVER).unwrap_or(FIRST_SERVER),
        };
        let mut agent = Self {
            pool,
            config,
            tokens,
            counters: Mutex::new(counters),
            index: RwLock::default(),
            pending: Mutex::default(),
            completed: Condvar::new(),
            frozen_limit: FROZEN_LIMIT,
        };
        let nodes = agent.pool.list(false)?;
        let (index, found) = agent.read(&nodes)?;
        agent.index = RwLock::new(index);
        let agent = Arc::new(agent);
        for (cell, intent) in found {
            agent.end(&cell, intent)?;
        }
        Ok(agent)
    }

    /// Servers and snapshots from the properties of what is in the pool.
    fn read(&self, nodes: &[NodeInfo]) -> Result<(Index, Vec<Found>), AgentError> {
        let mut volumes: BTreeMap<ServerId, Vec<&NodeInfo>> = BTreeMap::new();
        let (mut index, mut found) = (Index::default(), Vec::new());
        for node in nodes.iter().filter(|node| node.live) {
            let Some(server) = catalog::server_of(node) else { continue };
            if node.is_volume() {
                volumes.entry(server).or_default().push(node);
            } else if let Some(id) = catalog::snapshot_of(node) {
                index.snapshots.insert(id, server);
            }
        }
        for (id, heads) in volumes {
            let Some((cell, intent)) = self.read_server(id, &heads)? else { continue };
            let cell = Arc::new(cell);
            index.servers.insert(id, cell.clone());
            found.extend(intent.map(|intent| (cell, intent)));
        }
        let servers = &index.servers;
        index.snapshots.retain(|_, server| servers.contains_key(server));
        Ok((index, found))
    }

    fn read_server(
        &self,
        id: ServerId,
        heads: &[&NodeInfo],
    ) -> Result<Option<(ServerCell, Option<Intent>)>, AgentError> {
        let mut first = None;
        for head in heads {
            if let Some(spec) = catalog::spec_of(head)? {
                first = Some((*head, spec));
            }
        }
        let Some((first, spec)) = first else {
            tracing::warn!(server = %id, "none of its volumes says what it is: left out");
            return Ok(None);
        };
        let volume = |name: &String| {
            let head = heads.iter().find(|head| head.prop(VOLUME) == Some(name))?;
            let export = head.name.clone();
            Some(ServerVolume { name: name.clone(), size_bytes: head.size_bytes, export })
        };
        let volumes: Vec<ServerVolume> = spec.volumes.iter().filter_map(volume).collect();
        if volumes.len() != spec.volumes.len() {
            tracing::warn!(server = %id, "some of its volumes are missing");
        }
        let hooks = self.hooks_of(&spec.driver).unwrap_or_else(|error| {
            tracing::warn!(server = %id, error, "it can be neither stopped nor started");
            None
        });
        let intent = first.prop(INTENT).and_then(Intent::parse);
        let is_running = ServerCell::was_running(first);
        let cell = ServerCell::new(id, spec, volumes, first.created_ns, is_running, hooks);
        Ok(Some((cell, intent)))
    }

    /// Brings to an end what was under way. Every hook may be run twice.
    fn end(self: &Arc<Self>, cell: &Arc<ServerCell>, intent: Intent) -> Result<(), AgentError> {
        tracing::warn!(server = %cell.id, %intent, "ending what was begun");
        let activity = match intent {
            Intent::Freeze => Activity::Freezing,
            Intent::Stop => Activity::Stopping,
            // Whether or not the rollback was committed, what is left to do is the start.
            Intent::Start | Intent::Restore => Activity::Starting,
        };
        let busy = cell.begin(activity)?;
        let agent = self.clone();
        afterwards(move || match intent {
            Intent::Freeze => agent.thaw(&busy),
            Intent::Stop => agent.bring_down(&busy),
            Intent::Start | Intent::Restore => agent.bring_up(&busy),
        });
        Ok(())
    }

    /// Stops a server, and notes what came of it.
    fn bring_down(&self, busy: &Busy) {
        let cell = &busy.cell;
        let result = cell.run_stop();
        if let Err(error) = &result {
            tracing::error!(server = %cell.id, error, "not stopped");
        }
        if let Err(error) = self.settle(cell, result.is_err()) {
            tracing::warn!(server = %cell.id, %error, "its state is not kept");
        }
    }
}
