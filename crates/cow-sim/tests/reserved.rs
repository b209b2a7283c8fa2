//! Random clients in a full pool: a volume with a reserve is never refused, whatever the others do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Error, ExportId, Op, OpId, SpaceKind};
use cow_sim::rng::Rng;
use cow_sim::run::for_seeds;
use pool::{BLOCK, MIB, Pool, write};
use std::collections::BTreeMap;

/// Blocks of the volume with the reserve.
const OWN: u64 = 2048;
/// Blocks that others write to.
const OTHERS: u64 = 40_000;

struct Clients {
    pool: Pool,
    rng: Rng,
    vm: ExportId,
    other: ExportId,
    names: u64,
    refused: u64,
}

impl Clients {
    fn new(seed: u64) -> Self {
        let mut pool = Pool::new(seed.is_multiple_of(2));
        let vm = pool.volume("vm", OWN * BLOCK, &[("reserve", "full")]);
        let other = pool.volume("other", 1 << 30, &[]);
        pool.fill(other, 0);
        Self { pool, rng: Rng::new(seed), vm, other, names: 0, refused: 0 }
    }

    /// Requests of both at once; those of the first must all be done.
    fn burst(&mut self) -> Result<(), String> {
        let mut open: BTreeMap<OpId, (bool, String)> = BTreeMap::new();
        for _ in 0..self.rng.range(1, 40) {
            let reserved = self.rng.one_in(3);
            let (export, end) = if reserved { (self.vm, OWN) } else { (self.other, OTHERS) };
            let most = *self.rng.pick(&[1, 8, 256]).unwrap_or(&1);
            let blocks = self.rng.range(1, most + 1);
            let block = self.rng.below(end - blocks);
            let (offset, len) = (block * BLOCK, blocks * BLOCK);
            let op = match self.rng.below(12) {
                0 => Op::WriteZeroes { export, offset, len, fua: false },
                1 => Op::Discard { export, offset, len, fua: false },
                _ => write(export, block, blocks),
            };
            let what =
                format!("{} of {blocks} blocks at {block}", if reserved { "vm" } else { "other" });
            open.insert(self.pool.world.start_op(op), (reserved, what));
        }
        while !open.is_empty() {
            self.pool.world.pump().map_err(|stop| format!("{stop:?}"))?;
            while let Some((id, result)) = self.pool.world.take_reply() {
                let (reserved, what) = open.remove(&id).unwrap();
                match result {
                    Ok(_) => {}
                    Err(Error::NoSpace(SpaceKind::Pool)) if !reserved => self.refused += 1,
                    Err(error) => return Err(format!("{what}: {error}")),
                }
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, volume: &str) -> Result<(), String> {
        self.names += 1;
        match self.pool.snapshot(volume, &format!("s{}", self.names)) {
            Ok(_) | Err(Error::NoSpace(SpaceKind::Reserve { .. } | SpaceKind::Pool)) => Ok(()),
            Err(error) => Err(format!("a snapshot of {volume}: {error}")),
        }
    }

    /// Some snapshot goes; nobody waits for its blocks.
    fn delete(&mut self) -> Result<(), String> {
        let snapshot = self.rng.range(1, self.names + 2);
        let names = ["vm", "other"].map(|volume| format!("{volume}@s{snapshot}"));
        for name in names {
            let delete = Op::Delete { names: vec![name], recursive: false, dry_run: false };
            match self.pool.ask(delete) {
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(40) {
            0 => self.snapshot("vm"),
            1 | 2 => self.snapshot("other"),
            3..7 => self.delete(),
            7 => {
                self.pool.restart();
                (self.vm, self.other) = (self.pool.open("vm"), self.pool.open("other"));
                Ok(())
            }
            8 => {
                self.pool.must(Op::Checkpoint);
                Ok(())
            }
            _ => self.burst(),
        }
    }
}

#[test]
fn a_reserved_volume_is_never_refused() {
    let run = |seed| {
        let mut clients = Clients::new(seed);
        for step in 0..60 {
            clients.step().map_err(|error| format!("step {step}: {error}"))?;
        }
        clients.pool.check();
        Ok(clients.refused)
    };
    let refused: Vec<u64> = for_seeds("a_reserved_volume_is_never_refused", 24, run);
    let full = refused.iter().filter(|count| **count > 0).count();
    println!("{full} pools of {} were full; {} MiB are promised", refused.len(), OWN * BLOCK / MIB);
    assert!(full > refused.len() / 2, "{refused:?}");
}
