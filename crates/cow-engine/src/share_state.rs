//! What is counted for single volumes while their changes are on the way; see `share.rs`.

use cow_format::{IdMap, VolumeId};
use std::collections::BTreeMap;

/// What an operation was admitted with and is not sequenced yet.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    /// Blocks of data by which the volume's charge rises.
    charge: u64,
    /// Blocks that it may take in all.
    blocks: u64,
}

/// What is counted for each volume.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// Blocks of data by which the charge rises with what was written since the freeze of the last
    /// fold. There is an entry, if only of 0, where anything changed.
    unfolded: IdMap<VolumeId, u64>,
    /// The same of what the running fold has frozen.
    folding: IdMap<VolumeId, u64>,
    in_flight: IdMap<VolumeId, InFlight>,
    /// Of each volume with a reserve, in blocks, and their sum.
    guarantees: BTreeMap<VolumeId, u64>,
    guaranteed: u64,
}

impl Shares {
    /// A change of the map of `volume` was sequenced, with so many blocks of data.
    pub(crate) fn note_change(&mut self, volume: VolumeId, blocks: u64) {
        *self.unfolded.entry(volume).or_default() += blocks;
    }

    /// So many of the blocks that were just sequenced take the place of others of the volume.
    pub(crate) fn note_replaced(&mut self, volume: VolumeId, blocks: u64) {
        if let Some(count) = self.unfolded.get_mut(&volume) {
            *count = count.saturating_sub(blocks);
        }
    }

    pub(crate) fn freeze(&mut self) {
        self.folding = std::mem::take(&mut self.unfolded);
    }

    /// The frozen layers are in the map.
    pub(crate) fn thaw(&mut self) {
        self.folding.clear();
    }

    /// Blocks that are kept for volumes, of all of them.
    pub(crate) fn guaranteed(&self) -> u64 {
        self.guaranteed
    }

    /// Blocks that are kept for this one; nothing for one without a reserve.
    pub(crate) fn guarantee(&self, volume: VolumeId) -> Option<u64> {
        self.guarantees.get(&volume).copied()
    }

    pub(crate) fn set_guarantee(&mut self, volume: VolumeId, blocks: Option<u64>) {
        let old = match blocks {
            Some(blocks) => self.guarantees.insert(volume, blocks),
            None => self.guarantees.remove(&volume),
        };
        self.guaranteed = self.guaranteed - old.unwrap_or(0) + blocks.unwrap_or(0);
    }

    /// The volumes that have one.
    pub(crate) fn volumes(&self) -> Vec<VolumeId> {
        self.guarantees.keys().copied().collect()
    }

    pub(crate) fn has_guarantees(&self) -> bool {
        !self.guarantees.is_empty()
    }

    /// Blocks of data by which the charge of a volume is above that of the last fold.
    pub(crate) fn charge(&self, volume: VolumeId) -> u64 {
        let of = |counts: &IdMap<VolumeId, u64>| counts.get(&volume).copied().unwrap_or(0);
        let flight = self.in_flight.get(&volume).map_or(0, |flight| flight.charge);
        of(&self.unfolded) + of(&self.folding) + flight
    }

    /// Whether anything of a volume was changed since the last fold, or is being written.
    pub(crate) fn is_unsettled(&self, volume: VolumeId) -> bool {
        self.unfolded.contains_key(&volume)
            || self.folding.contains_key(&volume)
            || self.in_flight.contains_key(&volume)
    }

    /// Whether any operation was admitted and is not sequenced.
    pub(crate) fn has_flights(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// Blocks that operations on a volume were admitted with and have not sequenced.
    pub(crate) fn in_flight(&self, volume: VolumeId) -> u64 {
        self.in_flight.get(&volume).map_or(0, |flight| flight.blocks)
    }

    pub(crate) fn take_off(&mut self, volume: VolumeId, charge: u64, blocks: u64) {
        let flight = self.in_flight.entry(volume).or_default();
        flight.charge += charge;
        flight.blocks += blocks;
    }

    pub(crate) fn land(&mut self, volume: VolumeId, charge: u64, blocks: u64) {
        if let Some(flight) = self.in_flight.get_mut(&volume) {
            flight.charge = flight.charge.saturating_sub(charge);
            flight.blocks = flight.blocks.saturating_sub(blocks);
            if flight.blocks == 0 {
                self.in_flight.remove(&volume);
            }
        }
    }
}
