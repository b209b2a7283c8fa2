//! What a crash leaves behind.
//!
//! For each block the device may hold what was durable or any version written since, completed
//! or in flight, and each of its 512-byte sectors may come from a different one. Nothing is
//! promised about the order.

use super::{Image, Kind, SECTOR, SimDisk, Version, garbage};
use crate::rng::Rng;
use crate::value::Page;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the machine dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Power cut: nothing that no flush covered survives.
    LoseAll,
    /// Power cut: everything issued survives.
    KeepAll,
    /// Power cut: of the pending writes, in order, those whose bit is set survive whole (the
    /// 65th shares the bit of the first).
    Writes(u64),
    /// Power cut: the same, and one of those that survive does so in some of its sectors only, by
    /// seed: those before one of them, those after it, or any.
    Torn(u64, u64),
    /// Power cut: each block is old or any version written since, by seed.
    Blocks(u64),
    /// Power cut: so is each sector, by seed.
    Sectors(u64),
    /// The process dies (`kill -9`): what completed survives, in the cache below; what was in
    /// flight may, by seed.
    Kill(u64),
}

impl Crash {
    /// Whether the machine stays up and only the process dies.
    #[must_use]
    pub fn is_kill(self) -> bool {
        matches!(self, Self::Kill(_))
    }

    /// This one; a power cut in place of the death of a process.
    #[must_use]
    pub fn without_kill(self) -> Self {
        match self {
            Self::Kill(seed) => Self::Sectors(seed),
            power_cut => power_cut,
        }
    }

    /// One by chance.
    pub fn random(rng: &mut Rng) -> Self {
        match rng.below(8) {
            0 => Self::LoseAll,
            1 => Self::KeepAll,
            2 | 3 => Self::Writes(rng.word()),
            4 => Self::Blocks(rng.word()),
            5 | 6 => Self::Sectors(rng.word()),
            _ => Self::Kill(rng.word()),
        }
    }

    /// Ways to die with `pending` writes: every subset of them, whole and with one write torn, where
    /// that makes `most` subsets or fewer; else so many by chance. And some of every other kind.
    pub fn subsets(pending: usize, most: u64, rng: &mut Rng) -> Vec<Self> {
        let mut plan = vec![Self::LoseAll];
        if pending == 0 {
            return plan;
        }
        plan.extend([Self::Kill(rng.word()), Self::KeepAll]);
        plan.extend([Self::Blocks(rng.word()), Self::Sectors(rng.word())]);
        if pending < 64 && 1 << pending <= most {
            for mask in 1..1u64 << pending {
                plan.extend([Self::Writes(mask), Self::Torn(mask, rng.word())]);
            }
            return plan;
        }
        for _ in 0..most / 2 {
            plan.extend([Self::Writes(rng.word()), Self::Torn(rng.word(), rng.word())]);
        }
        plan
    }

    /// `count` ways to die with `pending` writes: every subset of the writes where those are
    /// few enough, the rest by chance.
    pub fn plan(pending: usize, count: usize, rng: &mut Rng) -> Vec<Self> {
        let mut plan = vec![Self::LoseAll];
        if pending == 0 {
            return plan;
        }
        plan.push(Self::Kill(rng.word()));
        let subsets = 1u64 << pending.min(16);
        if subsets <= count as u64 {
            plan.extend((1..subsets).map(Self::Writes));
        } else {
            plan.push(Self::KeepAll);
            // One write alone missing, one alone there: what protocols get wrong first.
            let one = 1u64 << rng.index(pending.min(64));
            plan.extend([Self::Writes(one), Self::Writes(!one)]);
        }
        while plan.len() < count {
            plan.push(match rng.below(5) {
                0 | 1 => Self::Sectors(rng.word()),
                2 => Self::Blocks(rng.word()),
                _ => Self::Writes(rng.word()),
            });
        }
        plan
    }
}

type Pending = BTreeMap<u64, Vec<(u64, Arc<Page>)>>;

impl SimDisk {
    /// How many writes no flush has covered yet, completed or not.
    #[must_use]
    pub fn pending_writes(&self) -> usize {
        let mut writes: Vec<u64> =
            self.cached.values().flatten().map(|version| version.write).collect();
        writes.extend(self.in_flight.iter().filter_map(|op| match op.kind {
            Kind::Write { write, .. } | Kind::Discard { write } => Some(write),
            _ => None,
        }));
        writes.sort_unstable();
        writes.dedup();
        writes.len()
    }

    /// What the next process finds when the machine dies now. Faults are off on it.
    #[must_use]
    pub fn crash(&self, how: Crash) -> SimDisk {
        let mut disk = self.fork_durable();
        let mut rng = Rng::new(match how {
            Crash::LoseAll | Crash::KeepAll => 0,
            Crash::Writes(seed) | Crash::Torn(_, seed) | Crash::Blocks(seed) => seed,
            Crash::Sectors(seed) | Crash::Kill(seed) => seed,
        });
        for op in &self.in_flight {
            let grown = match how {
                Crash::KeepAll => true,
                Crash::LoseAll => false,
                _ => rng.one_in(2),
            };
            if matches!(op.kind, Kind::Grow) && grown {
                disk.blocks = disk.blocks.max(op.blocks);
            }
        }
        match how {
            Crash::LoseAll => {}
            Crash::KeepAll => self.keep_some(&mut disk.durable, |_| true),
            Crash::Writes(mask) => {
                self.keep_some(&mut disk.durable, |bit| mask >> (bit % 64) & 1 == 1)
            }
            Crash::Torn(mask, _) => self.tear_one(&mut disk.durable, mask, &mut rng),
            Crash::Blocks(_) => self.keep_any(&mut disk.durable, &mut rng, 1, 1),
            Crash::Sectors(_) => {
                let torn_in = 1 + rng.below(3);
                self.keep_any(&mut disk.durable, &mut rng, SECTORS, torn_in);
            }
            Crash::Kill(_) => self.kill(&mut disk, &mut rng),
        }
        disk
    }

    /// Pending versions by block, in the order of completion, then of issue.
    fn pending(&self) -> Pending {
        let mut pending = Pending::new();
        for (&block, versions) in &self.cached {
            let list = versions.iter().map(|version| (version.write, version.page.clone()));
            pending.insert(block, list.collect());
        }
        for op in &self.in_flight {
            match &op.kind {
                Kind::Write { pages, write } => {
                    for (block, page) in (op.at..).zip(pages) {
                        pending.entry(block).or_default().push((*write, page.clone()));
                    }
                }
                Kind::Discard { write } => {
                    for block in self.durable.blocks_in(op.at, op.blocks) {
                        pending.entry(block).or_default().push((*write, garbage().clone()));
                    }
                }
                _ => {}
            }
        }
        pending
    }

    fn keep_some(&self, image: &mut Image, keep: impl Fn(usize) -> bool) {
        let pending = self.pending();
        let writes = writes_of(&pending);
        for (block, versions) in pending {
            let kept = versions
                .into_iter()
                .rev()
                .find(|(write, _)| keep(writes.binary_search(write).unwrap_or_default()));
            if let Some((_, page)) = kept {
                image.insert(block, page);
            }
        }
    }

    /// See [`Crash::Torn`].
    fn tear_one(&self, image: &mut Image, mask: u64, rng: &mut Rng) {
        let pending = self.pending();
        let writes = writes_of(&pending);
        let kept = |write: &u64| {
            let bit = writes.binary_search(write).unwrap_or_default();
            mask >> (bit % 64) & 1 == 1
        };
        let survivors: Vec<u64> = writes.iter().filter(|write| kept(write)).copied().collect();
        let Some(&victim) = rng.pick(&survivors) else { return };
        let blocks = pending.values().flatten().filter(|(write, _)| *write == victim).count();
        let (cut, shape) = (rng.index(blocks * SECTORS), rng.below(3));
        let mut sector = 0;
        for (block, versions) in pending {
            let mut page = None;
            for (write, new) in versions.into_iter().filter(|(write, _)| kept(write)) {
                if write != victim {
                    page = Some(new);
                    continue;
                }
                let old = page.or_else(|| image.get(block).cloned());
                let mut torn = old.map_or([0; PAGE], |old| *old);
                for at in (0..PAGE).step_by(SECTOR) {
                    let lands = [sector < cut, sector > cut, rng.one_in(2)][shape as usize];
                    if lands {
                        torn[at..at + SECTOR].copy_from_slice(&new[at..at + SECTOR]);
                    }
                    sector += 1;
                }
                page = Some(Arc::new(torn));
            }
            if let Some(page) = page {
                image.insert(block, page);
            }
        }
    }

    /// Each of `parts` equal parts of a block is of any version; only one block in `torn_in` is
    /// torn, the others are of one version.
    fn keep_any(&self, image: &mut Image, rng: &mut Rng, parts: usize, torn_in: u64) {
        for (block, versions) in self.pending() {
            let old = image.get(block).cloned().unwrap_or_else(|| Arc::new([0; PAGE]));
            let choose = |rng: &mut Rng| match rng.index(versions.len() + 1) {
                0 => old.clone(),
                index => versions[index - 1].1.clone(),
            };
            if parts == 1 || !rng.one_in(torn_in) {
                image.insert(block, choose(rng));
                continue;
            }
            let mut page = [0; PAGE];
            for sector in page.chunks_exact_mut(PAGE / parts).enumerate() {
                let at = sector.0 * (PAGE / parts);
                let from = choose(rng);
                sector.1.copy_from_slice(&from[at..at + PAGE / parts]);
            }
            image.insert(block, Arc::new(page));
        }
    }

    fn kill(&self, disk: &mut SimDisk, rng: &mut Rng) {
        disk.cached = self.cached.clone();
        // Pages that a failed flush left clean lie. A driver drops the page cache before recovery
        // reads (design section 4), so the next process sees what is on the medium.
        disk.cached.values_mut().for_each(|versions| versions.retain(|v| !v.doomed));
        disk.cached.retain(|_, versions| !versions.is_empty());
        disk.stamp = self.stamp;
        disk.writes = self.writes;
        for op in &self.in_flight {
            let Kind::Write { pages, write } = &op.kind else { continue };
            // What the kernel had taken of it: a prefix.
            let taken = rng.index(pages.len() + 1);
            for (block, page) in (op.at..).zip(&pages[..taken]) {
                disk.stamp += 1;
                let (stamp, page) = (disk.stamp, page.clone());
                let version = Version { stamp, write: *write, page, doomed: false };
                disk.cached.entry(block).or_default().push(version);
            }
        }
    }
}

/// The writes that the versions belong to, in order.
fn writes_of(pending: &Pending) -> Vec<u64> {
    let mut writes: Vec<u64> = pending.values().flatten().map(|(write, _)| *write).collect();
    writes.sort_unstable();
    writes.dedup();
    writes
}

const PAGE: usize = cow_format::BLOCK_SIZE;
const SECTORS: usize = PAGE / SECTOR;
