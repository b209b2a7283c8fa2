//! What random clients ask next.

use crate::cmd::{Cmd, SnapHow, Target};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::value::blocks_of;
use std::collections::BTreeSet;

mod policy;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;
const BLOCK: u64 = 4096;

/// Sizes of volumes: one leaf, one level, two, three, and lengths that end inside of a block.
const SIZES: [u64; 8] =
    [MIB, 8 * MIB, 64 * MIB + 1536, 512 * MIB, GIB + 512, TIB, 16 * TIB, 70 * GIB + 5 * MIB];

/// Where volumes are hot, on several levels of the map.
const HOT: [u64; 6] = [0, MIB - 8 * BLOCK, 300 * MIB, 70 * GIB, 600 * GIB, 9 * TIB];

/// Volumes that exist at once, at most.
const MOST_VOLUMES: usize = 5;
/// Snapshots of a volume, at most, before some are deleted.
const MOST_SNAPS: usize = 8;

/// See the module.
pub struct Workload {
    rng: Rng,
    token: u64,
    palette: u64,
    names: u64,
    branched: bool,
    shares: bool,
    policies: bool,
    written: BTreeSet<u64>,
}

impl Workload {
    /// Clients that act by `rng` and choose from `palette` contents; from 0: never one twice.
    #[must_use]
    pub fn new(rng: Rng, palette: u64) -> Self {
        Self {
            rng,
            token: 1,
            palette,
            names: 0,
            branched: false,
            shares: false,
            policies: false,
            written: BTreeSet::new(),
        }
    }

    /// Whether volumes get budgets and reserves, and enough is written to fill a pool.
    pub fn set_shares(&mut self, on: bool) {
        self.shares = on;
    }

    /// Whether snapshots get limits, rules, holds and times, and prunes are asked for.
    pub fn set_policies(&mut self, on: bool) {
        self.policies = on;
    }

    /// What a write of `blocks` blocks is made from.
    fn token(&mut self, blocks: u64) -> u64 {
        if self.palette > 0 {
            return 1 + self.rng.below(self.palette);
        }
        self.token += blocks + 2;
        self.token - blocks - 2
    }

    /// Whether a volume was ever cloned or rolled back.
    #[must_use]
    pub fn branched(&self) -> bool {
        self.branched
    }

    /// Blocks that were ever written, of whatever volume.
    #[must_use]
    pub fn written(&self) -> &BTreeSet<u64> {
        &self.written
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        // Names come again: what is deleted gives its name back.
        let number = if self.rng.one_in(5) { self.rng.below(self.names) } else { self.names };
        // Some have more than an entry of the node table has room for.
        format!("{prefix}{number}{}", "_".repeat(if number.is_multiple_of(5) { 60 } else { 0 }))
    }

    /// What is asked next; nothing, when chance picked what cannot be asked now.
    pub fn next(&mut self, oracle: &Oracle) -> Option<Cmd> {
        let volumes: Vec<String> = oracle.live().volumes.keys().cloned().collect();
        let Some(volume) = self.rng.pick(&volumes).cloned() else { return Some(self.create()) };
        if self.shares
            && self.rng.one_in(10)
            && let Some(cmd) = self.share(oracle)
            && !oracle.in_flight_conflict(&cmd)
        {
            return Some(cmd);
        }
        if self.policies && self.rng.one_in(3) {
            let cmd = policy::next(self, oracle, &volumes, &volume);
            return cmd.filter(|cmd| !oracle.in_flight_conflict(cmd));
        }
        let cmd = match self.rng.below(100) {
            0..36 => self.write(oracle, &volume),
            36..46 => self.zero(oracle, &volume),
            46..56 => self.read(oracle, &volume),
            56..63 => Cmd::Flush { volume },
            63..66 => Cmd::Checkpoint,
            66 => Cmd::WaitReclaim,
            67..76 => self.snapshot(&volumes, &volume),
            76..81 => self.rollback(oracle, &volumes, &volume)?,
            81..83 => Cmd::Undo { volume, force: self.rng.one_in(2) },
            83..86 => self.clone_of(oracle, &volume)?,
            86..91 => self.delete(oracle, &volume)?,
            91..93 if volumes.len() < MOST_VOLUMES => self.create(),
            91..93 => Cmd::Delete { names: vec![volume], recursive: true },
            93..95 => self.rename(oracle, &volume),
            95..97 => self.resize(oracle, &volume),
            97..99 => self.set_prop(oracle, &volume),
            _ => self.nonsense(&volume),
        };
        let snaps = oracle.live().volumes.get(cmd.volumes().first().copied().unwrap_or_default());
        if matches!(cmd, Cmd::Snapshot { .. })
            && snaps.is_some_and(|volume| volume.snaps.len() >= MOST_SNAPS)
        {
            return None;
        }
        // Whether a prune finds a snapshot open would depend on who was first.
        if matches!(&cmd, Cmd::Read { name, .. } if name.contains('@'))
            && oracle.in_flight().any(|other| matches!(other, Cmd::Prune { .. }))
        {
            return None;
        }
        if oracle.in_flight_conflict(&cmd) && !self.may_meet(&cmd, oracle) {
            return None;
        }
        self.branched |= matches!(cmd, Cmd::Clone { .. } | Cmd::Rollback { .. } | Cmd::Undo { .. });
        Some(cmd)
    }

    /// One change of a block at a time, and one verb. But a snapshot or a forced rollback may
    /// meet writes to its volumes, and those may meet it.
    fn may_meet(&mut self, cmd: &Cmd, oracle: &Oracle) -> bool {
        let forced = |cmd: &Cmd| {
            matches!(
                cmd,
                Cmd::Snapshot { .. }
                    | Cmd::Rollback { force: true, .. }
                    | Cmd::Undo { force: true, .. }
            )
        };
        let others: Vec<&Cmd> = oracle.in_flight().filter(|other| other.conflicts(cmd)).collect();
        let fits = |other: &&Cmd| match (cmd.is_verb(), other.is_verb()) {
            (true, false) => forced(cmd),
            (false, true) => forced(other),
            _ => false,
        };
        others.iter().all(fits) && self.rng.one_in(2)
    }

    fn create(&mut self) -> Cmd {
        let size = *self.rng.pick(&SIZES).unwrap_or(&MIB);
        Cmd::Create { name: self.name("v"), size }
    }

    /// A range of the volume, most often a hot one.
    fn range(&mut self, oracle: &Oracle, volume: &str, most_blocks: u64) -> (u64, u64) {
        let size = oracle.live().node(volume).map_or(MIB, |node| node.size);
        let mut hot: Vec<u64> = HOT.into_iter().filter(|&at| at + MIB < size).collect();
        hot.push(size.saturating_sub(24 * BLOCK) / BLOCK * BLOCK);
        let base = self.rng.pick(&hot).copied().unwrap_or_default();
        let blocks = match self.rng.below(8) {
            0 => self.rng.range(1, most_blocks + 1),
            1..4 => self.rng.range(1, 9),
            _ => 1,
        };
        let jitter = self.rng.below(if blocks > 8 { 64 } else { 16 });
        let (mut offset, mut len) = (base + jitter * BLOCK, blocks * BLOCK);
        if self.rng.one_in(7) {
            offset += self.rng.below(8) * 512;
            len = self.rng.range(1, len / 512 + 1) * 512;
        }
        if self.rng.one_in(20) {
            (offset, len) = (offset + self.rng.below(500), self.rng.range(1, len + 1));
        }
        let offset = offset.min(size - size.min(512));
        (offset, len.min(size - offset))
    }

    fn write(&mut self, oracle: &Oracle, volume: &str) -> Cmd {
        // Now and then one whose records do not fit the rest of a frame or of the ring.
        let most = if self.rng.one_in(12) { 1400 } else { 64 };
        let (offset, len) = self.range(oracle, volume, most);
        let token = self.token(len / BLOCK);
        self.written.extend(blocks_of(offset, len));
        Cmd::Write { volume: volume.to_owned(), offset, len, token, fua: self.rng.one_in(16) }
    }

    fn zero(&mut self, oracle: &Oracle, volume: &str) -> Cmd {
        let size = oracle.live().node(volume).map_or(MIB, |node| node.size);
        let (offset, len) = match self.rng.below(12) {
            0 => (0, size),
            1 => (size / 2 / BLOCK * BLOCK, size - size / 2 / BLOCK * BLOCK),
            2 => (0, size.min(2 * MIB)),
            _ => self.range(oracle, volume, 64),
        };
        let (discard, fua) = (self.rng.one_in(2), self.rng.one_in(16));
        Cmd::Zero { volume: volume.to_owned(), offset, len, discard, fua }
    }

    fn read(&mut self, oracle: &Oracle, volume: &str) -> Cmd {
        let snap = self.any_snap(oracle, volume).filter(|_| self.rng.one_in(3));
        let name = snap.map_or(volume.to_owned(), |snap| format!("{volume}@{snap}"));
        let (offset, len) = self.range(oracle, &name, 64);
        Cmd::Read { name, offset, len }
    }

    fn any_snap(&mut self, oracle: &Oracle, volume: &str) -> Option<String> {
        let names: Vec<&String> = oracle.live().volumes.get(volume)?.snap_names().collect();
        self.rng.pick(&names).map(|name| (*name).clone())
    }

    fn two(&mut self, volumes: &[String], volume: &str) -> Vec<String> {
        let mut some = vec![volume.to_owned()];
        let other = self.rng.pick(volumes).filter(|other| *other != volume).cloned();
        some.extend(other.filter(|_| self.rng.one_in(2)));
        some
    }

    fn snapshot(&mut self, volumes: &[String], volume: &str) -> Cmd {
        let name = self.name("s");
        let named = |volume: String| -> Target { (volume, name.clone()) };
        let targets = self.two(volumes, volume).into_iter().map(named).collect();
        Cmd::Snapshot { targets, tag: self.rng.below(1000), how: SnapHow::default() }
    }

    fn rollback(&mut self, oracle: &Oracle, volumes: &[String], volume: &str) -> Option<Cmd> {
        let mut targets = Vec::new();
        for volume in self.two(volumes, volume) {
            let snap = self.any_snap(oracle, &volume);
            targets.extend(snap.map(|snap| (volume, snap)));
        }
        let (discard_current, force) = (self.rng.one_in(4), self.rng.one_in(2));
        (!targets.is_empty()).then_some(Cmd::Rollback { targets, discard_current, force })
    }

    fn clone_of(&mut self, oracle: &Oracle, volume: &str) -> Option<Cmd> {
        if oracle.live().volumes.len() >= MOST_VOLUMES {
            return None;
        }
        let snap = self.any_snap(oracle, volume)?;
        Some(Cmd::Clone { source: (volume.to_owned(), snap), name: self.name("c") })
    }

    fn delete(&mut self, oracle: &Oracle, volume: &str) -> Option<Cmd> {
        let mut names = Vec::new();
        for _ in 0..self.rng.range(1, 4) {
            let name = format!("{volume}@{}", self.any_snap(oracle, volume)?);
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Some(Cmd::Delete { names, recursive: false })
    }

    fn rename(&mut self, oracle: &Oracle, volume: &str) -> Cmd {
        let snaps = oracle.live().volumes.get(volume).map(|volume| &volume.snaps);
        let snaps: Vec<&String> = snaps.into_iter().flat_map(|snaps| snaps.keys()).collect();
        let snap = self.rng.pick(&snaps).map(|snap| format!("{volume}@{snap}"));
        match snap.filter(|_| self.rng.one_in(2)) {
            Some(name) => Cmd::Rename { name, to: self.name("s") },
            None => Cmd::Rename { name: volume.to_owned(), to: self.name("v") },
        }
    }

    fn resize(&mut self, oracle: &Oracle, volume: &str) -> Cmd {
        let size = oracle.live().node(volume).map_or(MIB, |node| node.size);
        let size = match self.rng.below(4) {
            0 => size / 2 / 512 * 512 + 512,
            1 => (size + self.rng.range(1, 40) * 512).min(16 * TIB),
            2 => *self.rng.pick(&SIZES).unwrap_or(&MIB),
            _ => (size * 2).min(16 * TIB),
        };
        Cmd::Resize { volume: volume.to_owned(), size, shrink: !self.rng.one_in(5) }
    }

    fn set_prop(&mut self, oracle: &Oracle, volume: &str) -> Cmd {
        let snaps = oracle.live().volumes.get(volume).map(|volume| &volume.snaps);
        let snaps: Vec<&String> = snaps.into_iter().flat_map(|snaps| snaps.keys()).collect();
        let snap = self.rng.pick(&snaps).map(|snap| format!("{volume}@{snap}"));
        let name = snap.filter(|_| self.rng.one_in(2)).unwrap_or(volume.to_owned());
        let key = format!("k{}", self.rng.below(3));
        let value = (!self.rng.one_in(3)).then(|| "x".repeat(self.rng.below(60) as usize));
        Cmd::SetProp { name, key, value }
    }

    /// A volume gets, or loses, a budget or a reserve; or much is written at once.
    /// The small ones get a reserve, and the large ones fill the pool.
    fn share(&mut self, oracle: &Oracle) -> Option<Cmd> {
        let volumes = &oracle.live().volumes;
        let mut by_size: Vec<_> = volumes.iter().map(|(name, v)| (v.head.size, name)).collect();
        by_size.sort_unstable();
        let values = match self.rng.below(8) {
            0 => ("budget", ["64K", "1M", "8M", "1G"]),
            1 => ("reserve", ["full", "full", "1M", "8M"]),
            _ => {
                let &(size, volume) = by_size.last()?;
                let blocks = self.rng.range(200, 2000);
                let start = self.rng.below(80) * MIB;
                let offset = start.min(size.saturating_sub(blocks * BLOCK) / BLOCK * BLOCK);
                let len = (blocks * BLOCK).min(size - offset);
                let token = self.token(len / BLOCK);
                self.written.extend(blocks_of(offset, len));
                let volume = volume.to_owned();
                return Some(Cmd::Write { volume, offset, len, token, fua: false });
            }
        };
        let (key, values) = values;
        let &(_, volume) =
            if key == "reserve" { by_size.first()? } else { self.rng.pick(&by_size)? };
        let value = self.rng.pick(&values).filter(|_| !self.rng.clone().one_in(4));
        let value = value.map(|value| (*value).to_owned());
        Some(Cmd::SetProp { name: volume.to_owned(), key: key.to_owned(), value })
    }

    /// What must be refused.
    fn nonsense(&mut self, volume: &str) -> Cmd {
        let missing = "nobody".to_owned();
        match self.rng.below(4) {
            0 => Cmd::Delete { names: vec![format!("{volume}@{missing}")], recursive: true },
            1 => Cmd::Clone { source: (volume.to_owned(), missing), name: "x".to_owned() },
            2 => Cmd::Create { name: volume.to_owned(), size: MIB },
            _ => {
                let targets = vec![(missing, "s".to_owned())];
                Cmd::Snapshot { targets, tag: 0, how: SnapHow::default() }
            }
        }
    }
}
