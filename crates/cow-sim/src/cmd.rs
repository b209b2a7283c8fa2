//! What clients ask for, in terms that can be logged, replayed and judged.

use crate::value::blocks_of;
use std::ops::Range;

/// Volume and snapshot.
pub type Target = (String, String);

/// Of which kind a snapshot is, and when it expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapHow {
    /// Of kind auto, not user.
    pub auto: bool,
    /// Nanoseconds since 1970; 0 for never.
    pub expiry_ns: u64,
}

/// An operation of a client. Volumes by name; bytes by token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cmd {
    /// Blocks made from `token`, `token + 1`, ...
    Write {
        /// Where.
        volume: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Of the first block.
        token: u64,
        /// Durable before the reply.
        fua: bool,
    },
    /// Makes a range zeros: a write of zeroes, or a discard, which clears whole blocks only.
    Zero {
        /// Where.
        volume: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
        /// A discard.
        discard: bool,
        /// Durable before the reply.
        fua: bool,
    },
    /// Reads `VOL` or `VOL@SNAP` and compares.
    Read {
        /// From where.
        name: String,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// What was acknowledged is durable.
    Flush {
        /// Through which volume.
        volume: String,
    },
    /// Folds.
    Checkpoint,
    /// Waits for reclaim.
    WaitReclaim,
    /// A new volume.
    Create {
        /// Its name.
        name: String,
        /// Bytes.
        size: u64,
    },
    /// Snapshots at one instant.
    Snapshot {
        /// Their names.
        targets: Vec<Target>,
        /// The property `n` of each.
        tag: u64,
        /// Of which kind, and for how long.
        how: SnapHow,
    },
    /// Back to snapshots.
    Rollback {
        /// Their names.
        targets: Vec<Target>,
        /// Keep nothing.
        discard_current: bool,
        /// Fence writers.
        force: bool,
    },
    /// Back to what the last rollback replaced.
    Undo {
        /// The volume.
        volume: String,
        /// Fence writers.
        force: bool,
    },
    /// A volume that begins as a snapshot.
    Clone {
        /// The snapshot.
        source: Target,
        /// The volume.
        name: String,
    },
    /// Deletes volumes and snapshots.
    Delete {
        /// `VOL` or `VOL@SNAP`.
        names: Vec<String>,
        /// Snapshots of the volumes too.
        recursive: bool,
    },
    /// A new name, for a snapshot without its volume.
    Rename {
        /// `VOL` or `VOL@SNAP`.
        name: String,
        /// The new one.
        to: String,
    },
    /// A new size.
    Resize {
        /// The volume.
        volume: String,
        /// Bytes.
        size: u64,
        /// May be smaller.
        shrink: bool,
    },
    /// Deletes what has expired, and what no rule keeps.
    Prune {
        /// The volumes; all if empty.
        volumes: Vec<String>,
    },
    /// Sets or releases a hold.
    Hold {
        /// `VOL@SNAP`.
        name: String,
        /// Its tag.
        tag: String,
        /// Set, or release.
        set: bool,
    },
    /// Sets or removes property `key`.
    SetProp {
        /// `VOL` or `VOL@SNAP`; empty for the pool.
        name: String,
        /// Which.
        key: String,
        /// To what.
        value: Option<String>,
    },
}

fn volume_of(name: &str) -> &str {
    name.split_once('@').map_or(name, |(volume, _)| volume)
}

impl Cmd {
    /// The blocks that a data operation changes, and of which volume.
    #[must_use]
    pub fn changed_blocks(&self) -> Option<(&str, Range<u64>)> {
        match self {
            Self::Write { volume, offset, len, .. } | Self::Zero { volume, offset, len, .. } => {
                Some((volume, blocks_of(*offset, *len)))
            }
            _ => None,
        }
    }

    /// Whether it changes the snapshot tree or the namespace.
    #[must_use]
    pub fn is_verb(&self) -> bool {
        !matches!(
            self,
            Self::Write { .. }
                | Self::Zero { .. }
                | Self::Read { .. }
                | Self::Flush { .. }
                | Self::Checkpoint
                | Self::WaitReclaim
        )
    }

    /// Whether it changes anything that clients can see.
    #[must_use]
    pub fn mutates(&self) -> bool {
        self.is_verb() || self.changed_blocks().is_some()
    }

    /// Whether its effect is durable once it is acknowledged, and with it all that came before.
    #[must_use]
    pub fn durable_when_acknowledged(&self) -> bool {
        match self {
            Self::Write { fua, .. } | Self::Zero { fua, .. } => *fua,
            Self::Read { .. } | Self::WaitReclaim => false,
            _ => true,
        }
    }

    /// The volumes that it is about.
    #[must_use]
    pub fn volumes(&self) -> Vec<&str> {
        match self {
            Self::Write { volume, .. }
            | Self::Zero { volume, .. }
            | Self::Flush { volume }
            | Self::Undo { volume, .. }
            | Self::Resize { volume, .. } => vec![volume],
            Self::Read { name, .. } | Self::SetProp { name, .. } | Self::Hold { name, .. } => {
                vec![volume_of(name)]
            }
            Self::Prune { volumes } => volumes.iter().map(String::as_str).collect(),
            Self::Create { name, .. } => vec![name],
            Self::Snapshot { targets, .. } | Self::Rollback { targets, .. } => {
                targets.iter().map(|(volume, _)| volume.as_str()).collect()
            }
            Self::Clone { source, name } => vec![&source.0, name],
            Self::Delete { names, .. } => names.iter().map(|name| volume_of(name)).collect(),
            Self::Rename { name, to } => vec![volume_of(name), to],
            Self::Checkpoint | Self::WaitReclaim => Vec::new(),
        }
    }

    /// Whether the outcome depends on which of the two comes first.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        if !self.mutates() || !other.mutates() {
            return false;
        }
        match (self.changed_blocks(), other.changed_blocks()) {
            (Some((volume, range)), Some((others, theirs))) => {
                volume == others && range.start < theirs.end && theirs.start < range.end
            }
            (None, None) => true,
            _ => self.volumes().iter().any(|volume| other.volumes().contains(volume)),
        }
    }
}
