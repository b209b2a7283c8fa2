//! Freed blocks that are not allocatable yet.
//!
//! A block that checkpoint n freed may be reused when n+1 is durable: until then n-1, with the
//! journal from its tail, is a fallback. The frees of each checkpoint are a batch; the engine
//! releases batches when checkpoint, readers and discards allow. After a crash the batch of the
//! newest checkpoint is what the previous one's image held and its own does not.

use crate::bits::{Bits, Run};
use std::collections::BTreeMap;

/// Runs by checkpoint and zone. Those of one batch and zone are disjoint, in no order.
#[derive(Default)]
pub(crate) struct Quarantine {
    batches: BTreeMap<u64, BTreeMap<u64, Vec<Run>>>,
    blocks: u64,
}

impl Quarantine {
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    pub fn put(&mut self, cp_seq: u64, zone: u64, runs: &[Run]) {
        if runs.is_empty() {
            return;
        }
        self.blocks += runs.iter().map(|run| u64::from(run.len)).sum::<u64>();
        self.batches.entry(cp_seq).or_default().entry(zone).or_default().extend_from_slice(runs);
    }

    /// Sets the bits of the zone's blocks.
    pub fn overlay(&self, zone: u64, used: &mut Bits) {
        for batch in self.batches.values() {
            for run in batch.get(&zone).into_iter().flatten() {
                used.set_run(*run);
            }
        }
    }

    pub fn up_to(&self, cp_seq: u64) -> impl Iterator<Item = (u64, Run)> + '_ {
        let zones = self.batches.range(..=cp_seq).flat_map(|(_, batch)| batch);
        zones.flat_map(|(zone, runs)| runs.iter().map(move |run| (*zone, *run)))
    }

    pub fn remove_up_to(&mut self, cp_seq: u64) {
        let kept = self.batches.split_off(&cp_seq.saturating_add(1));
        self.batches = kept;
        let runs = self.batches.values().flat_map(|batch| batch.values().flatten());
        self.blocks = runs.map(|run| u64::from(run.len)).sum();
    }
}
