//! The fence, in one script for each thing that it is for. Every script passes with the engine as
//! it is and fails with the fault that it is about (`cow-format/src/mutant.rs`). The histories of
//! `mutants.rs` find the same faults by chance; here stands how they do harm.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, Op};
use cow_format::mutant;
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_sim::cmd::Cmd;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::lose::lose_newest_checkpoint;
use cow_sim::oracle::Oracle;
use cow_sim::run::caught;
use cow_sim::scripts::{create, flush, write};
use cow_sim::sim::{Sim, Stop};
use cow_sim::value::Value;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const GIB: u64 = 1 << 30;
/// Frames are sealed after 5 ms.
const SEAL_NS: u64 = 6_000_000;

/// What is left of a pool between two lives: the disk, and the judge.
struct Pool {
    disk: SimDisk,
    oracle: Oracle,
}

impl Pool {
    fn new() -> Self {
        let disk = format(&PoolOptions::default());
        Self { disk, oracle: Oracle::new(AckMode::Writethrough) }
    }

    /// Opens, which compares with the oracle; does `cmds`, one after the other; waits until what
    /// they wrote has reached the disk's cache; dies.
    fn live(self, cmds: &[Cmd], how: Crash) -> Result<Self, String> {
        let config = small_config(AckMode::Writethrough);
        let mut sim = Sim::<Engine>::new(self.disk, self.oracle, &config, 1);
        let ended: Result<(), Stop> = caught(|| {
            sim.open(false)?;
            for cmd in cmds {
                sim.run(cmd.clone())?;
            }
            sim.world.pass(SEAL_NS);
            Ok(sim.world.run_until_idle()?)
        });
        match ended {
            Ok(()) => {}
            Err(Stop::Bug(text)) => return Err(text),
            Err(Stop::Crashed) => return Err("there is no fuse".to_owned()),
        }
        let (disk, oracle) = sim.crash(how);
        Ok(Self { disk, oracle })
    }
}

/// Only the `n`-th of the writes that no flush covered survives.
fn only(n: u32) -> Crash {
    Crash::Writes(1 << n)
}

/// A frame is cut as its data is missing. A later life writes the same content, which the
/// allocator puts into the same block, and its own frame is lost: now the data that the old frame
/// names is there. It must stay cut all the same.
fn the_same_content_again() -> Result<(), String> {
    let pool = Pool::new().live(&[create("v", GIB)], Crash::LoseAll)?;
    let pool = pool.live(&[write("v", 0, 1, 7)], only(1))?;
    let before = blocks_with(&pool.disk, 7);
    let pool = pool.live(&[write("v", 5, 1, 7)], only(0))?;
    // The script is what it says: the data was lost, and then came to stand there.
    assert_eq!((before.len(), blocks_with(&pool.disk, 7).len()), (0, 1));
    pool.live(&[], Crash::LoseAll).map(drop)
}

/// Both copies of the superblock that an opening was writing are torn. The other set is current:
/// epoch and fences go on from there, and what a later life flushes is not taken for older than
/// what was before.
fn a_torn_superblock() -> Result<(), String> {
    let mut pool = Pool::new().live(&[create("v", GIB)], Crash::LoseAll)?;
    // A copy can be torn where its fences do not fit its first sector: from 15 on.
    for life in 0..20 {
        pool = pool.live(&[write("v", life, 1, 1 + life), flush("v")], Crash::LoseAll)?;
    }
    pool.disk = torn_in_opening(pool.disk);
    let pool = pool.live(&[write("v", 100, 1, 100), flush("v")], Crash::LoseAll)?;
    pool.live(&[], Crash::LoseAll).map(drop)
}

/// The disk after a crash in an opening that left two copies of the superblock torn.
fn torn_in_opening(disk: SimDisk) -> SimDisk {
    let mut world = World::<Engine>::new(disk, &small_config(AckMode::Writethrough), 1);
    world.start_op(Op::Open { read_only: false });
    let torn = |disk: &SimDisk| {
        let copies = COPY_BLOCKS.iter().enumerate();
        copies
            .filter(|(copy, block)| Superblock::decode(&disk.peek(**block), *copy).is_err())
            .count()
    };
    while world.take_reply().is_none() {
        let mut crashes = (0..200).map(|seed| world.disk().crash(Crash::Sectors(seed)));
        if let Some(disk) = crashes.find(|disk| torn(disk) == 2) {
            return disk;
        }
        world.pump().expect("the pool opens");
    }
    panic!("no crash has torn two copies");
}

/// An opening has vouched for frames, and the checkpoint that covered them is lost. A block that
/// they name, long written over, has gone bad. Nobody needs it: all that was acknowledged is there.
fn a_lost_checkpoint() -> Result<(), String> {
    let cmds = [
        create("v", GIB),
        Cmd::Checkpoint,
        write("v", 0, 1, 1),
        write("v", 0, 1, 2),
        write("v", 1, 1, 3),
        flush("v"),
        Cmd::Checkpoint,
    ];
    let pool = Pool::new().live(&cmds, Crash::LoseAll)?;
    let Pool { mut disk, oracle } = pool.live(&[], Crash::LoseAll)?;
    let [block] = blocks_with(&disk, 1)[..] else { panic!("token 1 is not in one block") };
    disk.poke(block, [0xa7; 4096]);
    assert!(lose_newest_checkpoint(&mut disk, &mut 0), "there is no fallback");
    Pool { disk, oracle }.live(&[], Crash::LoseAll).map(drop)
}

fn blocks_with(disk: &SimDisk, token: u64) -> Vec<u64> {
    let holds = |block: &u64| Value::of(&disk.peek(*block)) == Value::Token(token);
    disk.occupied().into_iter().filter(holds).collect()
}

/// The script passes as it is, and not with the fault planted.
fn shows(fault: &'static str, script: fn() -> Result<(), String>) {
    mutant::plant("");
    script().expect("the engine passes");
    mutant::plant(fault);
    let found = script();
    mutant::plant("");
    let text = found.expect_err("the fault was not found");
    println!("{fault}: {text}");
}

#[test]
fn cut_frames_do_not_return_with_the_same_content() {
    shows("nofence", the_same_content_again);
}

#[test]
fn a_torn_superblock_leaves_the_other_set() {
    shows("onesb", a_torn_superblock);
}

#[test]
fn a_fence_vouches_for_what_is_before_it() {
    shows("nofencedur", a_lost_checkpoint);
}
