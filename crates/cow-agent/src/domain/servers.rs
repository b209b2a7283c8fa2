//! Making, deleting, starting and stopping servers.

use super::agent::Agent;
use super::catalog::{
    self, Intent, LIMIT, NEXT_SERVER, SERVER, SPEC, STATE, STOPPED, Spec, VOLUME,
};
use super::cell::{Activity, ServerCell};
use super::error::AgentError;
use super::model::{DriverSpec, ID_LIMIT, Server, ServerId, ServerRequest, ServerVolume};
use super::names;
use super::steps;
use crate::config::Hooks;
use cowstore::{DeleteOptions, NewVolume};
use std::sync::Arc;

impl Agent {
    /// Makes a server with its volumes. It is stopped.
    ///
    /// # Errors
    /// `Invalid`, `Limit`, `NoSpace`.
    pub fn create_server(&self, request: &ServerRequest) -> Result<Server, AgentError> {
        self.create_server_as(None, request)
    }

    /// The same, with an identity of the caller's choice, which must be new.
    ///
    /// # Errors
    /// `Invalid`, `Busy` when a server has it, `Limit`, `NoSpace`.
    pub fn create_server_as(
        &self,
        id: Option<ServerId>,
        request: &ServerRequest,
    ) -> Result<Server, AgentError> {
        names::check_server(request)?;
        let hooks = self.hooks_of(&request.driver).map_err(|text| {
            // The operator names what there is; clients may choose among that.
            AgentError::invalid("driver.hooks", text)
        })?;
        let mut counters = self.counters.lock();
        let id = id.unwrap_or(ServerId(counters.server));
        if id.0 >= ID_LIMIT - 1 {
            return Err(AgentError::Limit("no identity is left for a server".into()));
        }
        if self.index.read().servers.contains_key(&id) {
            return Err(AgentError::Busy(format!("server {id} exists already")));
        }
        let volumes: Vec<ServerVolume> = request
            .volumes
            .iter()
            .map(|volume| ServerVolume {
                name: volume.name.clone(),
                size_bytes: volume.size_bytes,
                export: format!("{id}-{}", volume.name),
            })
            .collect();
        let spec = Spec {
            name: request.name.clone(),
            driver: request.driver.clone(),
            volumes: volumes.iter().map(|volume| volume.name.clone()).collect(),
        };
        let next = counters.server.max(id.0 + 1);
        let edits = vec![catalog::edit("", vec![catalog::set(NEXT_SERVER, next)])];
        let new = self.new_volumes(id, &spec, &volumes)?;
        self.pool.create_volumes(new, edits)?;
        steps::reached("server.committed");
        counters.server = next;
        let heads = self.pool.describe(&[&volumes[0].export], false)?;
        let created_ns = heads.first().map_or(0, |head| head.created_ns);
        let cell = Arc::new(ServerCell::new(id, spec, volumes, created_ns, false, hooks));
        let server = cell.describe();
        self.index.write().servers.insert(id, cell);
        Ok(server)
    }

    /// The volumes of a server, with what the catalog says of them.
    fn new_volumes(
        &self,
        id: ServerId,
        spec: &Spec,
        volumes: &[ServerVolume],
    ) -> Result<Vec<NewVolume>, AgentError> {
        let spec = serde_json::to_string(spec).map_err(|e| AgentError::Internal(e.to_string()))?;
        let limit = self.config.agent.snapshot_limit.to_string();
        let prop = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let new = |(at, volume): (usize, &ServerVolume)| {
            let mut props = vec![
                prop(SERVER, &id.to_string()),
                prop(VOLUME, &volume.name),
                prop(LIMIT, &limit),
            ];
            if at == 0 {
                props.extend([prop(SPEC, &spec), prop(STATE, STOPPED)]);
            }
            NewVolume { name: volume.export.clone(), size_bytes: volume.size_bytes, props }
        };
        Ok(volumes.iter().enumerate().map(new).collect())
    }

    /// The commands of a driver; `None` for one that has none.
    pub(super) fn hooks_of(&self, driver: &DriverSpec) -> Result<Option<Hooks>, String> {
        let DriverSpec::Command { hooks } = driver else { return Ok(None) };
        let found = self.config.hooks.get(hooks);
        let missing = || format!("the configuration of this agent has no hooks named {hooks:?}");
        found.cloned().map(Some).ok_or_else(missing)
    }

    /// Deletes a server with its volumes and snapshots, for good.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while a client has a volume or snapshot open, or one is held; `State`
    /// while it runs or is being restored.
    pub fn delete_server(&self, id: ServerId) -> Result<(), AgentError> {
        let busy = self.cell(id)?.begin(Activity::Deleting)?;
        let cell = &busy.cell;
        if cell.is_running() && cell.has_machine() {
            return Err(AgentError::State(format!("server {id} is running: stop it first")));
        }
        let options = DeleteOptions { recursive: true, dry_run: false };
        self.pool.delete(&cell.exports(), options)?;
        cell.set_deleted();
        let mut index = self.index.write();
        index.servers.remove(&id);
        index.snapshots.retain(|_, server| *server != id);
        Ok(())
    }

    /// Starts a server; returns when its start hook has. One that runs already is left alone.
    ///
    /// # Errors
    /// `NotFound`; `State` when its hook fails, or it is being restored.
    pub fn start_server(&self, id: ServerId) -> Result<Server, AgentError> {
        self.switch(id, true)
    }

    /// Stops a server; returns when its stop hook has. One that is stopped already is left alone.
    ///
    /// # Errors
    /// `NotFound`; `State` when its hook fails, or it is being restored.
    pub fn stop_server(&self, id: ServerId) -> Result<Server, AgentError> {
        self.switch(id, false)
    }

    fn switch(&self, id: ServerId, run: bool) -> Result<Server, AgentError> {
        let activity = if run { Activity::Starting } else { Activity::Stopping };
        let busy = self.cell(id)?.begin(activity)?;
        let cell = busy.cell.clone();
        if cell.is_running() != run {
            let intent = if run { Intent::Start } else { Intent::Stop };
            if cell.has_machine() {
                self.pool.set_props(cell.first(), &cell.intent(Some(intent)).changes)?;
            }
            let result = if run { cell.run_start() } else { cell.run_stop() };
            // One that could not be switched is taken to be as it was.
            self.settle(&cell, if result.is_ok() { run } else { !run })?;
            result
                .map_err(|error| AgentError::State(format!("server {id}: no {intent}: {error}")))?;
        }
        drop(busy);
        Ok(cell.describe())
    }
}
