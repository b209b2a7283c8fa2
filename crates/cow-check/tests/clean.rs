//! What the engine writes has no findings.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{GIB, MIB, assert_clean, close, image_now, lines, new_pool, report, run};
use cow_check::{Finding, OpenError, Structure, Value, What, dump};
use cow_engine::{AckMode, Engine, Op};
use cow_sim::PoolOptions;
use cow_sim::cmd::Cmd;
use cow_sim::disk::{Crash, Faults};
use cow_sim::history::Workload;
use cow_sim::oracle::Oracle;
use cow_sim::rng::Rng;
use cow_sim::run::for_seeds;
use cow_sim::scripts::{clone, create, delete, discard, flush, rollback, snapshot, write};
use cow_sim::sim::{Sim, Stop, Tolerance};

#[test]
fn an_empty_pool_is_clean() {
    let disk = cow_sim::format(&PoolOptions::default());
    let report = assert_clean(&common::Image::of(&disk));
    assert_eq!(report.stats.map_nodes, 0);
}

#[test]
fn a_pool_with_everything_is_clean() {
    let mut sim = new_pool();
    let (a, b) = ("a", "b");
    run(&mut sim, [create(a, 2 * GIB), create(b, 16 << 40), write(a, 0, 64, 1000)]);
    run(&mut sim, [write(a, 80_000, 30, 2000), write(b, 1 << 31, 5, 3000), Cmd::Checkpoint]);
    run(&mut sim, [snapshot(&["a@s1", "b@s1"]), write(a, 10, 20, 4000), discard(a, 80_000, 4)]);
    run(&mut sim, [Cmd::Checkpoint, snapshot(&["a@s2"]), write(a, 300, 20, 5000)]);
    run(&mut sim, [clone("a@s1", "c"), write("c", 5, 9, 6000), Cmd::Checkpoint]);
    run(&mut sim, [rollback(&["a@s1"]), write(a, 400_000, 9, 7000), Cmd::Checkpoint]);
    run(&mut sim, [delete(&["a@s2"]), Cmd::Checkpoint, Cmd::WaitReclaim]);
    run(&mut sim, [delete(&["c"]), discard(b, 0, 1 << 32), Cmd::Checkpoint]);
    run(&mut sim, [write(a, 7, 3, 8000), write(b, 1 << 31, 5, 9000), flush(a)]);
    run(&mut sim, [snapshot(&["a@s3"]), write(a, 8, 2, 8100), flush(a)]);
    let report = assert_clean(&image_now(&mut sim));
    assert!(report.stats.frames >= 3, "an unfolded journal: {:?}", report.stats);
    assert!(report.stats.map_nodes > 8 && report.stats.data_verified > 100);
    let report = assert_clean(&close(sim));
    assert_eq!(report.stats.frames, 0);
}

/// Random histories: the disk is checked as the crash leaves it (nothing may be corrupt), after
/// its recovery, and after an orderly end.
#[test]
fn histories_are_clean_after_crashes() {
    let none = Faults::default();
    let run = |seed| history(seed, &none, Tolerance { io: false, no_space: true, corrupt: false });
    let checks = for_seeds("histories_are_clean_after_crashes", 150, run);
    println!("{} pools checked", checks.iter().sum::<u64>());
}

/// The same on a disk whose writes fail now and then: data moves.
#[test]
fn histories_with_failing_writes_are_clean() {
    let faults = Faults { write_error_ppm: 15_000, ..Faults::default() };
    let run = |seed| history(seed, &faults, Tolerance { io: true, no_space: true, corrupt: false });
    let checks = for_seeds("histories_with_failing_writes_are_clean", 100, run);
    println!("{} pools checked", checks.iter().sum::<u64>());
}

/// How many pools were checked.
fn history(seed: u64, faults: &Faults, tolerance: Tolerance) -> Result<u64, String> {
    let mut checked = 0;
    let mut rng = Rng::new(seed ^ 0x00c0_ffee);
    let mut workload = Workload::new(rng.fork(), 0);
    let config = cow_sim::small_config(AckMode::Writethrough);
    let mut disk = cow_sim::format(&PoolOptions::default());
    let (mut oracle, mut kill) = (Oracle::new(config.ack), false);
    for life in 0..4 {
        let mut sim = Sim::<Engine>::new(disk, oracle, &config, rng.word());
        sim.tolerate(tolerance);
        // Whether clients got what they should is judged by cow-sim's own tests.
        if sim.open(kill).is_err() {
            return Ok(checked);
        }
        sim.world.run_until_idle()?;
        let opened = common::Image::of(sim.world.disk());
        corrupt(&opened, &format!("life {life}, recovered"), tolerance.io)?;
        sim.world.disk_mut().set_faults(faults.clone(), rng.word());
        if !rng.one_in(3) {
            sim.set_fuse(Some(rng.range(1, 400)));
        }
        match live(&mut sim, &mut workload, &mut rng, tolerance.io) {
            Ok(()) => {
                let closed = common::Image::of(sim.world.disk());
                corrupt(&closed, &format!("life {life}, closed"), tolerance.io)?;
            }
            Err(Stop::Crashed) => {}
            Err(Stop::Bug(_)) => return Ok(checked),
        }
        let how = Crash::random(&mut rng);
        kill = how.is_kill();
        (disk, oracle) = sim.crash(how);
        let when = format!("life {life}, after {how:?}");
        corrupt(&common::Image::of(&disk), &when, tolerance.io)?;
        checked += 2;
    }
    Ok(checked)
}

/// Where writes fail, one of a checkpoint may leave what is none in its area. Nobody can tell that from
/// damage to a checkpoint that was once written, so that is no fault of the check.
fn corrupt(image: &common::Image, when: &str, io: bool) -> Result<(), String> {
    let report = report(image);
    let is_failed_write = |finding: &Finding| {
        finding.kind == Structure::Checkpoint
            && finding.what.ends_with("may be the newest checkpoint")
    };
    let excused = report.findings.iter().filter(|f| io && is_failed_write(f)).count() as u64;
    match report.corruptions == excused {
        true => Ok(()),
        false => Err(format!("{when}:\n{}", lines(&report))),
    }
}

fn live(
    sim: &mut Sim<Engine>,
    workload: &mut Workload,
    rng: &mut Rng,
    io: bool,
) -> Result<(), Stop> {
    for _ in 0..rng.range(1, 60) {
        while sim.in_progress() >= 4 {
            sim.step()?;
        }
        if sim.oracle.is_ambiguous() && rng.one_in(3) || sim.oracle.log_len() > 80 {
            if io {
                return Err(Stop::Crashed);
            }
            sim.reconcile()?;
        }
        if let Some(cmd) = workload.next(&sim.oracle) {
            sim.submit(cmd)?;
        }
        for _ in 0..rng.below(6) {
            sim.step()?;
        }
    }
    sim.drain()?;
    if io {
        return Err(Stop::Crashed);
    }
    if let Err(error) = sim.aux(Op::Close)? {
        return Err(Stop::Bug(format!("close: {error}")));
    }
    sim.world.run_until_idle()?;
    Ok(())
}

#[test]
fn a_pool_that_grows_is_clean() {
    let first = PoolOptions { limit_blocks: 200_000, ..PoolOptions::default() };
    let mut sim = common::new_pool_of(&first);
    run(&mut sim, [create("a", GIB), write("a", 0, 64, 10), Cmd::Checkpoint]);
    // Ends inside of a zone, then inside of the next.
    for blocks in [40_000, 90_000] {
        sim.aux(Op::GrowPool { blocks }).unwrap().unwrap();
        run(&mut sim, [write("a", 9, 50, blocks), flush("a")]);
        assert_clean(&image_now(&mut sim));
        run(&mut sim, [Cmd::Checkpoint]);
        assert_clean(&image_now(&mut sim));
    }
    assert_clean(&close(sim));
}

#[test]
fn a_dump_shows_what_is_there() {
    let mut sim = new_pool();
    run(&mut sim, [create("a", 2 * GIB), write("a", 5, 3, 10), write("a", 80_000, 1, 20)]);
    run(&mut sim, [snapshot(&["a@s"]), Cmd::Checkpoint, write("a", 6, 1, 30), flush("a")]);
    let mut image = image_now(&mut sim);
    let mut show = |what: What| dump(&mut image, &what).unwrap();
    let count = |value: &Value, key| value.get(key).unwrap().elements().len();
    let number = |value: &Value, key| value.get(key).unwrap().as_u64().unwrap();
    assert_eq!(count(&show(What::Superblock), "copies"), 4);
    let checkpoints = show(What::Checkpoint);
    assert_eq!((number(&checkpoints, "newest"), count(&checkpoints, "areas")), (2, 4));
    assert!(count(&show(What::Journal), "frames") >= 1);
    assert_eq!(count(&show(What::Nodes), "nodes"), 2);
    let map = show(What::Map("a@s".to_owned()));
    let extents = map.get("extents").unwrap().elements();
    let runs: Vec<_> = extents.iter().map(|e| (number(e, "lba"), number(e, "blocks"))).collect();
    assert_eq!(runs, [(5, 3), (80_000, 1)]);
    assert_eq!(count(&map, "nodes"), 5, "a root, two inner nodes, two leaves");
    let missing = dump(&mut image, &What::Map("a@nobody".to_owned()));
    assert_eq!(missing, Err(OpenError::NotFound("a@nobody".to_owned())));
}

#[test]
fn a_volume_of_one_block_and_names() {
    let mut sim = new_pool();
    run(&mut sim, [create("tiny", 4096), write("tiny", 0, 1, 7), create("odd", 8 * MIB + 512)]);
    run(&mut sim, [write("odd", 2047, 1, 9), snapshot(&["odd@x"]), Cmd::Checkpoint]);
    assert_clean(&close(sim));
}
