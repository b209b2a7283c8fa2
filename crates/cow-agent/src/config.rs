//! What an operator sets. Everything has a default; unknown keys are refused.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The configuration of an agent: a TOML file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// See [`Settings`].
    pub agent: Settings,
    /// Sections of hooks, by the name that servers ask for them.
    pub hooks: BTreeMap<String, Hooks>,
}

/// What the agent itself obeys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Most snapshots of a new server.
    pub snapshot_limit: u32,
    /// Identity of the first snapshot that a pool gets.
    pub first_snapshot_id: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { snapshot_limit: 5, first_snapshot_id: 1 }
    }
}

/// Commands that stop, start, freeze and thaw a server: program and arguments, run without a
/// shell. They get `COW_SERVER_ID`, `COW_SERVER_NAME` and `COW_HOOK` in their environment, must
/// do no harm when run twice, and succeed with exit code 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Stops the server; returns when it has stopped.
    pub stop: Vec<String>,
    /// Starts the server.
    pub start: Vec<String>,
    /// Freezes its file systems; needs `thaw`.
    pub freeze: Vec<String>,
    /// Thaws them, also when they are not frozen.
    pub thaw: Vec<String>,
    /// Longest time of `stop`; 120 when it is not given.
    pub stop_timeout_seconds: Option<u32>,
    /// Longest time of `start`; 120 when it is not given.
    pub start_timeout_seconds: Option<u32>,
    /// Longest time of `freeze`; 5 when it is not given, and at most 8.
    pub freeze_timeout_seconds: Option<u32>,
    /// Longest time of `thaw`; 5 when it is not given.
    pub thaw_timeout_seconds: Option<u32>,
}

impl Hooks {
    /// Longest time of `stop`.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_timeout_seconds.unwrap_or(120).into())
    }

    /// Longest time of `start`.
    pub fn start_timeout(&self) -> Duration {
        Duration::from_secs(self.start_timeout_seconds.unwrap_or(120).into())
    }

    /// Longest time of `freeze`.
    pub fn freeze_timeout(&self) -> Duration {
        Duration::from_secs(self.freeze_timeout_seconds.unwrap_or(5).into())
    }

    /// Longest time of `thaw`.
    pub fn thaw_timeout(&self) -> Duration {
        Duration::from_secs(self.thaw_timeout_seconds.unwrap_or(5).into())
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    /// Reads the configuration at `path`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(path: &Path) -> Result<Self, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        Self::parse(&text).map_err(named)
    }

    fn check(&self) -> Result<(), String> {
        if self.agent.snapshot_limit == 0 {
            return Err("agent.snapshot_limit: must be at least 1".into());
        }
        if !(1..1 << 52).contains(&self.agent.first_snapshot_id) {
            return Err("agent.first_snapshot_id: must be from 1 to 2^52".into());
        }
        for (name, hooks) in &self.hooks {
            let commands = [&hooks.stop, &hooks.start, &hooks.freeze, &hooks.thaw];
            if commands.iter().any(|words| words.first().is_some_and(String::is_empty)) {
                return Err(format!("hooks.{name}: the program of a hook has no name"));
            }
            if hooks.freeze.is_empty() != hooks.thaw.is_empty() {
                return Err(format!("hooks.{name}: freeze and thaw come together"));
            }
            if hooks.freeze_timeout() > Duration::from_secs(8) {
                return Err(format!("hooks.{name}.freeze_timeout_seconds: at most 8"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_a_default_and_unknown_keys_are_refused() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        let config =
            Config::parse("[agent]\nfirst_snapshot_id = 798\n[hooks.x]\nstop = ['a', 'b']");
        let config = config.unwrap();
        assert_eq!((config.agent.first_snapshot_id, config.agent.snapshot_limit), (798, 5));
        assert_eq!(config.hooks["x"].stop, ["a", "b"]);
        for (bad, word) in [
            ("[agent]\nlimit = 1", "limit"),
            ("[agent]\nsnapshot_limit = 0", "snapshot_limit"),
            ("[agent]\nfirst_snapshot_id = 0", "first_snapshot_id"),
            ("[hooks.x]\nfreeze = ['f']", "thaw"),
            ("[hooks.x]\nstop = ['']", "no name"),
            ("[hooks.x]\nfreeze_timeout_seconds = 9", "at most 8"),
            ("agent = 3", "agent"),
        ] {
            assert!(Config::parse(bad).unwrap_err().contains(word), "{bad}");
        }
    }
}
