//! What the process that takes a snapshot and its guard say to each other, a line each.

use serde::{Deserialize, Serialize};
use std::io::{self, Write};

/// To the guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// The snapshot is being asked for: if nothing more is heard, it may be on its way.
    Commit,
    /// Thaw.
    Thaw,
}

/// From the guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// What was dirty is written; now it freezes.
    Begin,
    /// All are frozen.
    Frozen,
    /// They were frozen until [`Word::Thaw`], and are thawed.
    Thawed,
    /// They were thawed before that, and why.
    Late(String),
    /// Nothing is frozen, and none of it can be.
    Refused(String),
    /// Nor may this user do it.
    Forbidden(String),
    /// The freeze has failed, or takes too long: what comes of it is thawed at once.
    Failed(String),
    /// Nothing is frozen any more that this guard has frozen. The last word.
    Ended,
}

/// Says one.
pub fn say<T: Serialize>(to: &mut dyn Write, what: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)?;
    to.flush()
}
