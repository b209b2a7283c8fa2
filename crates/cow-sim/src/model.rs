//! What clients may see: volumes, their snapshots, and what every block holds.

mod apply;
mod content;

pub use apply::{Kept, Refusal};
pub use content::Content;

use crate::rng::mix;
use cow_format::BLOCK_SIZE;
use std::collections::BTreeMap;
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
}

/// A volume with its snapshots.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    /// The head.
    pub head: Snap,
    /// Snapshots that somebody took, by name.
    pub snaps: BTreeMap<String, Snap>,
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
}

fn text(words: &str) -> u64 {
    words.bytes().fold(words.len() as u64, |hash, byte| mix(hash ^ u64::from(byte)))
}

impl Snap {
    fn digest(&self, with_props: bool) -> u64 {
        let mut hash = mix(self.size) ^ self.content.digest();
        if with_props {
            for (key, value) in self.props.iter() {
                hash = hash.wrapping_add(mix(text(key) ^ text(value).rotate_left(17)));
            }
        }
        mix(hash)
    }
}

impl Volume {
    /// The snapshot of that name, of either kind.
    #[must_use]
    pub fn snap(&self, name: &str) -> Option<&Snap> {
        let undo = || self.undos.iter().find(|(own, _)| own == name).map(|(_, snap)| snap);
        self.snaps.get(name).or_else(undo)
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
        (with_props && self.props != other.props)
            .then(|| format!("has properties {:?}, not {:?}", self.props, other.props))
    }
}

impl State {
    /// A word that stands for all of it.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.volumes.iter().fold(0, |hash, (name, volume)| mix(hash ^ text(name)) ^ volume.digest())
    }

    /// The first difference, in words: how this state is and the other is not.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let names = |state: &Self| state.volumes.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(other) {
            return Some(format!("volumes {:?}, not {:?}", names(self), names(other)));
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
                volume.snaps.remove(snap);
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
