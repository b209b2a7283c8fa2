//! What clients may see: volumes, their snapshots, and what every block holds.

mod apply;
mod content;
mod policy;

pub use apply::{Kept, Refusal};
pub use content::Content;
pub use policy::{FAR_AHEAD_NS, LONG_AGO_NS};

use crate::cmd::SnapHow;
use crate::rng::mix;
use cow_format::BLOCK_SIZE;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Snapshots that rollbacks leave behind: how many of a volume are kept.
pub const UNDO_KEPT: usize = 3;

/// User properties.
pub type Props = Arc<BTreeMap<String, String>>;

/// A frozen state.
#[derive(Clone, Debug, Default)]
pub struct Snap {
    /// Bytes.
    pub size: u64,
    /// What it holds.
    pub content: Content,
    /// Its properties.
    pub props: Props,
    /// How it was taken; the default for heads, and for what rollbacks replaced.
    pub how: SnapHow,
    /// Tags of its holds.
    pub holds: BTreeSet<String>,
}

/// A volume with its snapshots.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// The head.
    pub head: Snap,
    /// Snapshots that somebody took, by name.
    pub snaps: BTreeMap<String, Snap>,
    /// Their names in the order in which they were taken, oldest first.
    pub taken: Vec<String>,
    /// What rollbacks replaced, oldest first, with the names that the engine gave.
    pub undos: Vec<(String, Snap)>,
    /// Rollbacks so far, as far as known.
    pub rollbacks: u64,
}

/// All of a pool.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Properties of the pool.
    pub props: Props,
}

fn text(words: &str) -> u64 {
    words.bytes().fold(words.len() as u64, |hash, byte| mix(hash ^ u64::from(byte)))
}

impl Snap {
    fn digest(&self, with_props: bool) -> u64 {
        let mut hash = mix(self.size) ^ self.content.digest();
        if with_props {
            hash ^= digest_props(&self.props);
            hash ^= mix(self.how.expiry_ns.wrapping_add(u64::from(self.how.auto) << 63));
            for tag in &self.holds {
                hash = hash.wrapping_add(text(tag));
            }
        }
        mix(hash)
    }
}

fn digest_props(props: &Props) -> u64 {
    let one = |(key, value): (&String, &String)| mix(text(key) ^ text(value).rotate_left(17));
    props.iter().map(one).fold(0, u64::wrapping_add)
}

impl Volume {
    /// The snapshot of that name, of either kind.
    #[must_use]
    pub fn snap(&self, name: &str) -> Option<&Snap> {
        let undo = || self.undos.iter().find(|(own, _)| own == name).map(|(_, snap)| snap);
        self.snaps.get(name).or_else(undo)
    }

    /// Takes a snapshot away.
    pub(crate) fn remove_snap(&mut self, name: &str) {
        self.snaps.remove(name);
        self.taken.retain(|other| other != name);
    }

    /// Names of all snapshots.
    pub fn snap_names(&self) -> impl Iterator<Item = &String> {
        self.snaps.keys().chain(self.undos.iter().map(|(name, _)| name))
    }

    /// The undo snapshots that must be there. Which of those before them still are is up to
    /// the engine's housekeeping.
    fn kept_undos(&self) -> &[(String, Snap)] {
        &self.undos[self.undos.len().saturating_sub(UNDO_KEPT)..]
    }

    fn digest(&self) -> u64 {
        let mut hash = self.head.digest(true);
        for (name, snap) in &self.snaps {
            hash = mix(hash ^ text(name) ^ snap.digest(true).rotate_left(9));
        }
        for name in &self.taken {
            hash = mix(hash ^ text(name));
        }
        for (_, snap) in self.kept_undos() {
            hash = mix(hash ^ snap.digest(false).rotate_left(23));
        }
        hash
    }

    fn difference(&self, other: &Self) -> Option<String> {
        if let Some(text) = self.head.difference(&other.head, true) {
            return Some(text);
        }
        let names = |volume: &Self| volume.snaps.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(other) {
            return Some(format!("has snapshots {:?}, not {:?}", names(self), names(other)));
        }
        for (name, snap) in &self.snaps {
            if let Some(text) = snap.difference(&other.snaps[name], true) {
                return Some(format!("@{name}: {text}"));
            }
        }
        if self.taken != other.taken {
            return Some(format!("took {:?}, not {:?}", self.taken, other.taken));
        }
        let (own, others) = (self.kept_undos(), other.kept_undos());
        if own.len() != others.len() {
            return Some(format!("has {} undo snapshots, not {}", own.len(), others.len()));
        }
        own.iter().zip(others).find_map(|((name, snap), (_, other))| {
            Some(format!("@{name}: {}", snap.difference(other, false)?))
        })
    }
}

impl Snap {
    fn difference(&self, other: &Self, with_props: bool) -> Option<String> {
        if self.size != other.size {
            return Some(format!("is {} bytes long, not {}", self.size, other.size));
        }
        if let Some((lba, own, others)) = self.content.first_difference(&other.content) {
            return Some(format!("block {lba} holds {own:?}, not {others:?}"));
        }
        if !with_props {
            return None;
        }
        if self.props != other.props {
            return Some(format!("has properties {:?}, not {:?}", self.props, other.props));
        }
        let marks = |snap: &Self| (snap.how, snap.holds.clone());
        (marks(self) != marks(other))
            .then(|| format!("is {:?}, not {:?}", marks(self), marks(other)))
    }
}

impl State {
    /// A word that stands for all of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let one =
            |hash, (name, volume): (&String, &Volume)| mix(hash ^ text(name)) ^ volume.digest();
        self.volumes.iter().fold(mix(digest_props(&self.props)), one)
    }

    /// The first difference, in words: how this state is and the other is not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let names = |state: &Self| state.volumes.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(other) {
            return Some(format!("volumes {:?}, not {:?}", names(self), names(other)));
        }
        if self.props != other.props {
            return Some(format!("the pool has {:?}, not {:?}", self.props, other.props));
        }
        self.volumes.iter().find_map(|(name, volume)| {
            Some(format!("{name}: {}", volume.difference(&other.volumes[name])?))
        })
    }

    /// What `VOL` or `VOL@SNAP` holds.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Snap> {
        match name.split_once('@') {
            None => self.volumes.get(name).map(|volume| &volume.head),
            Some((volume, snap)) => self.volumes.get(volume)?.snap(snap),
        }
    }

    /// What is left without these snapshots, `VOL@SNAP`.
    #[must_use]
    pub fn without(&self, snaps: &[String]) -> Self {
        let mut left = self.clone();
        for name in snaps {
            let Some((volume, snap)) = name.split_once('@') else { continue };
            if let Some(volume) = left.volumes.get_mut(volume) {
                volume.remove_snap(snap);
            }
        }
        left
    }

    /// Bytes of data that a pool holding this needs at least, each distinct block counted once.
    /// Exact if no volume was ever cloned or rolled back; `None` if blocks are mixed, for those
    /// may be equal by chance.
    #[must_use]
    pub fn distinct_bytes(&self) -> Option<u64> {
        let mut tokens = Vec::new();
        for volume in self.volumes.values() {
            let undos = volume.undos.iter().map(|(_, snap)| snap);
            for snap in volume.snaps.values().chain(undos).chain([&volume.head]) {
                for (_, value) in snap.content.iter() {
                    match value {
                        crate::value::Value::Token(token) => tokens.push(*token),
                        _ => return None,
                    }
                }
            }
        }
        tokens.sort_unstable();
        tokens.dedup();
        Some(tokens.len() as u64 * BLOCK_SIZE as u64)
    }
}
