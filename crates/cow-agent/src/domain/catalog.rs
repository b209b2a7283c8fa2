//! How servers and snapshots stand in the properties of the pool.
//!
//! | whose | property | holds |
//! |---|---|---|
//! | the pool | `agent.next_snapshot`, `agent.next_server` | the identity that comes next |
//! | | `agent.token` | the hash of the token |
//! | each volume of a server | `agent.server`, `agent.volume` | identity of the server; name of the volume in it |
//! | | `agent.back` | what restores have replaced, see [`Back`] |
//! | | `limit` | the engine's own limit of snapshots |
//! | the first volume | `agent.spec` | name, driver and volumes of the server, as JSON |
//! | | `agent.state` | `running` or `stopped` |
//! | | `agent.intent` | what is being done, see [`Intent`] |
//! | each snapshot | `agent.snapshot`, `agent.server`, `agent.name`, `description` | what the API says of it |
//!
//! A server is a property of its volumes, not of the pool, whose properties have 4 KiB in all. What
//! belongs together changes in one commit: the volumes of a server come with the counter, a
//! snapshot with its name and the counter, a restore with what it replaced.

use super::error::AgentError;
use super::model::{DriverSpec, ServerId, SnapshotId};
use cowstore::{NodeInfo, PropEdit};
use serde::{Deserialize, Serialize};
use std::fmt;

pub(super) const NEXT_SNAPSHOT: &str = "agent.next_snapshot";
pub(super) const NEXT_SERVER: &str = "agent.next_server";
pub(super) const TOKEN: &str = "agent.token";
pub(super) const SERVER: &str = "agent.server";
pub(super) const VOLUME: &str = "agent.volume";
pub(super) const BACK: &str = "agent.back";
pub(super) const LIMIT: &str = "limit";
pub(super) const SPEC: &str = "agent.spec";
pub(super) const STATE: &str = "agent.state";
pub(super) const INTENT: &str = "agent.intent";
pub(super) const SNAPSHOT: &str = "agent.snapshot";
pub(super) const NAME: &str = "agent.name";
pub(super) const DESCRIPTION: &str = "description";

pub(super) const RUNNING: &str = "running";
pub(super) const STOPPED: &str = "stopped";

/// Restores that a volume remembers: one more than the engine keeps undo snapshots.
const MOST_BACK: usize = 4;

/// What a server is, beside its volumes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) name: String,
    pub(super) driver: DriverSpec,
    /// Names of its volumes, in order.
    pub(super) volumes: Vec<String>,
}

/// What has begun with a server's machine. It is durable before the first hook runs, and goes
/// after the last, so that a process that finds it knows what may have been left half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    /// Its file systems may be frozen.
    Freeze,
    /// It is being started.
    Start,
    /// It is being stopped.
    Stop,
    /// It runs, and was or will be stopped for a restore and started again.
    Restore,
}

impl Intent {
    const ALL: [Self; 4] = [Self::Freeze, Self::Start, Self::Stop, Self::Restore];

    fn word(self) -> &'static str {
        match self {
            Self::Freeze => "freeze",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restore => "restore",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|intent| intent.word() == word)
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One restore of a volume: which snapshot it went back to, the rollback generation that it got
/// (the engine names what it kept `undo.GENERATION`), and the parent of the head that it replaced
/// (which is equal to that head where the engine kept nothing, because nothing had changed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Back {
    pub(super) snapshot: SnapshotId,
    pub(super) generation: u64,
    pub(super) parent: u64,
}

impl Back {
    /// What a volume remembers, oldest first: `SNAPSHOT:GENERATION:PARENT`, with spaces between.
    pub(super) fn of(node: &NodeInfo) -> Vec<Self> {
        node.prop(BACK).unwrap_or_default().split(' ').filter_map(Self::parse).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(':').map(|word| word.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { snapshot: SnapshotId(next()?), generation: next()?, parent: next()? })
    }

    /// The property with this restore added to those of `node`.
    pub(super) fn added(self, node: &NodeInfo) -> (String, Option<String>) {
        let mut all = Self::of(node);
        all.push(self);
        let text: Vec<String> = all
            .iter()
            .skip(all.len().saturating_sub(MOST_BACK))
            .map(|back| format!("{}:{}:{}", back.snapshot, back.generation, back.parent))
            .collect();
        (BACK.to_owned(), Some(text.join(" ")))
    }
}

/// Sets a property.
pub(super) fn set(key: &str, value: impl fmt::Display) -> (String, Option<String>) {
    (key.to_owned(), Some(value.to_string()))
}

/// Removes a property.
pub(super) fn clear(key: &str) -> (String, Option<String>) {
    (key.to_owned(), None)
}

/// Changes of the properties of `name`; the empty name is the pool's.
pub(super) fn edit(name: &str, changes: Vec<(String, Option<String>)>) -> PropEdit {
    PropEdit { name: name.to_owned(), changes }
}

/// A number that a property holds.
pub(super) fn number(node: &NodeInfo, key: &str) -> Option<u64> {
    node.prop(key)?.parse().ok()
}

/// The server that a volume or snapshot belongs to.
pub(super) fn server_of(node: &NodeInfo) -> Option<ServerId> {
    number(node, SERVER).map(ServerId)
}

/// The snapshot of the API that a snapshot of a volume is part of.
pub(super) fn snapshot_of(node: &NodeInfo) -> Option<SnapshotId> {
    number(node, SNAPSHOT).map(SnapshotId)
}

/// A property that must be readable, since this program wrote it.
pub(super) fn spec_of(node: &NodeInfo) -> Result<Option<Spec>, AgentError> {
    let Some(text) = node.prop(SPEC) else { return Ok(None) };
    let spec = serde_json::from_str(text);
    spec.map(Some).map_err(|error| {
        let name = &node.name;
        AgentError::Internal(format!("volume {name}: property {SPEC}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_restores_are_remembered() {
        let mut node = NodeInfo::default();
        for n in 1..=6 {
            let back = Back { snapshot: SnapshotId(800 + n), generation: n, parent: 10 * n };
            let (key, value) = back.added(&node);
            node.props = vec![(key, value.unwrap())];
        }
        let all = Back::of(&node);
        assert_eq!(all.len(), MOST_BACK);
        assert_eq!(all[3], Back { snapshot: SnapshotId(806), generation: 6, parent: 60 });
        node.props = vec![(BACK.into(), "1:2 x:y:z  7:8:9".into())];
        assert_eq!(Back::of(&node).len(), 1, "what cannot be read is left out");
    }

    #[test]
    fn intents_are_words() {
        for intent in Intent::ALL {
            assert_eq!(Intent::parse(&intent.to_string()), Some(intent));
        }
        assert_eq!(Intent::parse("dance"), None);
    }
}
