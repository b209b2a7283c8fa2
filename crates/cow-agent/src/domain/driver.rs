//! What the hooks of a server are for.

use super::cell::ServerCell;
use super::hooks;
use std::thread;
use std::time::Duration;

/// How often thawing is tried: a server that stays frozen is dead to its users.
const THAW_TRIES: u32 = 3;

impl ServerCell {
    /// Whether stopping and starting it does anything.
    pub(super) fn has_machine(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| !hooks.stop.is_empty() || !hooks.start.is_empty())
    }

    /// Whether it can be frozen.
    pub(super) fn can_freeze(&self) -> bool {
        self.hooks.as_ref().is_some_and(|hooks| !hooks.freeze.is_empty())
    }

    pub(super) fn run_stop(&self) -> Result<(), String> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        self.run("stop", &hooks.stop, hooks.stop_timeout())
    }

    pub(super) fn run_start(&self) -> Result<(), String> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        self.run("start", &hooks.start, hooks.start_timeout())
    }

    pub(super) fn run_freeze(&self) -> Result<(), String> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        self.run("freeze", &hooks.freeze, hooks.freeze_timeout())
    }

    /// Thaws, whatever it takes.
    pub(super) fn run_thaw(&self) -> Result<(), String> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let mut tried = 0;
        loop {
            tried += 1;
            match self.run("thaw", &hooks.thaw, hooks.thaw_timeout()) {
                Err(error) if tried < THAW_TRIES => {
                    tracing::warn!(server = %self.id, error, "not thawed; trying again");
                    thread::sleep(Duration::from_millis(500));
                }
                result => return result,
            }
        }
    }

    fn run(&self, hook: &str, words: &[String], limit: Duration) -> Result<(), String> {
        let env = [
            ("COW_HOOK", hook.to_owned()),
            ("COW_SERVER_ID", self.id.to_string()),
            ("COW_SERVER_NAME", self.name.clone()),
            ("COW_VOLUMES", self.exports().join(" ")),
        ];
        hooks::run(words, &env, limit).map_err(|error| format!("hook {hook}: {error}"))
    }
}
