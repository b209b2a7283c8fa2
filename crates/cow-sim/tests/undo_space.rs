//! Undo snapshots that go for want of space (decision 25): when, which, and which never.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Error, EventKind, ExportId, Op, Reply, SpaceKind};
use cow_sim::disk::Crash;
use cow_sim::rng::Rng;
use cow_sim::run::for_seeds;
use pool::{BLOCK, Pool, write};

/// Blocks that each undo snapshot holds alone.
const EACH: u64 = 1500;

/// Volumes with undo snapshots, made in another order than the volumes: what the rollbacks say is
/// older.
const BY_AGE: [&str; 6] = ["b@undo.1", "a@undo.1", "b@undo.2", "c@undo.1", "a@undo.2", "c@undo.2"];

struct Filled {
    pool: Pool,
    filler: ExportId,
    at: u64,
}

impl Filled {
    fn new(sparse: bool, mark: Option<&str>) -> Self {
        let mut pool = Pool::new(sparse);
        for name in ["a", "b", "c"] {
            pool.volume(name, 1 << 30, &[]);
            pool.snapshot(name, "s").unwrap();
        }
        for undo in BY_AGE {
            let volume = undo.split('@').next().unwrap();
            let export = pool.open(volume);
            for at in (0..EACH).step_by(250) {
                pool.write(export, at, 250).unwrap();
            }
            pool.rollback(volume, "s");
            pool.must(Op::CloseExport { export });
        }
        let filler = pool.volume("filler", 1 << 30, &[]);
        if mark.is_some() {
            pool.set("", "undo-for-space", mark).unwrap();
        }
        pool.must(Op::Checkpoint);
        pool.must(Op::Checkpoint);
        Self { pool, filler, at: 0 }
    }

    /// Until the pool is so full, or was.
    fn fill_to(&mut self, percent: u8) {
        let gone = self.gone().len();
        while self.pool.info().used_percent < percent && self.gone().len() == gone {
            self.pool.write(self.filler, self.at, 64).unwrap();
            self.at += 64;
        }
    }

    fn write_all(&mut self) -> u64 {
        let filled = self.pool.fill(self.filler, self.at);
        self.at += filled;
        filled
    }

    /// What went, by the events, and how full the pool was.
    fn gone(&mut self) -> Vec<(String, u8)> {
        let events = self.pool.info().events.into_iter();
        events
            .filter_map(|event| match event.kind {
                EventKind::MadeRoom { name, percent } => Some((name, percent)),
                _ => None,
            })
            .collect()
    }

    fn gone_names(&mut self) -> Vec<String> {
        self.gone().into_iter().map(|(name, _)| name).collect()
    }
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort();
    names
}

#[test]
fn never_unless_the_pool_says_so() {
    for sparse in [false, true] {
        for mark in [None, Some("off")] {
            println!("sparse: {sparse}, {mark:?}");
            let mut full = Filled::new(sparse, mark);
            full.write_all();
            full.pool.minutes(5);
            assert_eq!(full.pool.undos(), sorted(&BY_AGE));
            assert!(matches!(
                full.pool.write(full.filler, full.at, 64),
                Err(Error::NoSpace(SpaceKind::Pool))
            ));
            assert_eq!(full.gone(), []);
        }
    }
    let mut pool = Pool::new(false);
    for wrong in ["", "on", "85", "90%", "100", "090", "OFF"] {
        let refused = pool.set("", "undo-for-space", Some(wrong));
        let named =
            matches!(&refused, Err(Error::Invalid(text)) if text.contains("undo-for-space"));
        assert!(named, "{wrong}: {refused:?}");
    }
}

#[test]
fn the_oldest_goes_first_and_no_more_than_the_mark_wants() {
    for sparse in [false, true] {
        for (mark, least) in [("80", 80), ("90", 90), ("95", 95)] {
            println!("sparse: {sparse}, {mark}");
            let mut full = Filled::new(sparse, Some(mark));
            full.fill_to(least - 1);
            full.pool.minutes(5);
            assert_eq!(full.gone(), [], "below the mark");
            for count in 1..=2 {
                full.fill_to(least);
                full.pool.minutes(5);
                let gone = full.gone();
                let names: Vec<&str> = gone.iter().map(|(name, _)| name.as_str()).collect();
                assert_eq!(names, &BY_AGE[..count], "one was enough");
                assert!(gone.iter().all(|(_, percent)| *percent >= least), "{gone:?}");
                assert!(full.pool.info().used_percent < least);
                assert_eq!(full.pool.undos(), sorted(&BY_AGE[count..]));
            }
            full.pool.check();
        }
    }
}

#[test]
fn a_pool_that_is_set_so_when_it_is_full_comes_below_the_mark() {
    let mut full = Filled::new(false, None);
    full.write_all();
    full.pool.minutes(2);
    assert_eq!(full.gone(), []);
    full.pool.set("", "undo-for-space", Some("80")).unwrap();
    full.pool.minutes(5);
    assert_eq!(full.gone_names(), &BY_AGE[..4]);
    assert!(full.pool.info().used_percent < 80);
    full.pool.check();
}

/// In the first minute after opening nothing goes by itself, and in a pool that is opened read-only
/// nothing ever does. An idle pool asks to be woken for it.
#[test]
fn a_moment_after_opening_nothing_goes() {
    let mut full = Filled::new(false, None);
    full.fill_to(92);
    full.pool.set("", "undo-for-space", Some("90")).unwrap();
    full.pool.crash(Crash::KeepAll, true);
    full.pool.minutes(5);
    assert_eq!((full.gone(), full.pool.undos()), (vec![], sorted(&BY_AGE)));
    full.pool.restart();
    for _ in 0..50 {
        full.pool.world.pass(1_000_000_000);
        full.pool.world.run_until_idle().unwrap();
    }
    full.pool.must(Op::Checkpoint);
    assert_eq!((full.gone(), full.pool.undos()), (vec![], sorted(&BY_AGE)));
    let tick_ns = full.pool.world.idle_tick_ns().unwrap();
    assert!(tick_ns < 12_000_000_000, "{tick_ns}");
    full.pool.minutes(1);
    assert_eq!(full.gone_names(), &BY_AGE[..1]);
    full.pool.check();
}

#[test]
fn what_is_held_or_open_stays_and_so_do_ordinary_snapshots() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut full = Filled::new(sparse, Some("90"));
        let hold = |set| Op::Hold { name: "b@undo.1".into(), tag: "t".into(), set };
        full.pool.must(hold(true));
        let open = Op::OpenExport { name: "a@undo.1".into(), write: false };
        let Reply::Export { export, .. } = full.pool.must(open) else { panic!("no export") };
        full.write_all();
        full.pool.minutes(5);
        assert_eq!(full.gone_names(), &BY_AGE[2..]);
        assert_eq!(full.pool.undos(), sorted(&BY_AGE[..2]));
        for name in ["a@s", "b@s", "c@s"] {
            assert!(full.pool.describe(name).live);
        }
        // With nothing left that may go it is full, and at rest.
        assert!(full.write_all() < 64);
        full.pool.minutes(2);
        let folds = full.pool.info().stats.folds;
        for _ in 0..200 {
            full.pool.world.pass(40_000_000_000);
            full.pool.world.run_until_idle().unwrap();
        }
        assert!(!full.pool.world.wants_tick());
        // The answer itself takes one.
        assert!(full.pool.info().stats.folds <= folds + 2);
        full.pool.must(Op::CloseExport { export });
        full.pool.minutes(3);
        assert_eq!(full.gone_names().last().unwrap(), "a@undo.1");
        full.write_all();
        full.pool.must(hold(false));
        full.pool.minutes(3);
        assert_eq!(full.pool.undos(), [""; 0]);
        full.pool.check();
    }
}

/// Whoever writes into a full pool finds the room that undo snapshots hold, all of it, and also in
/// the first minute: ENOSPC comes when none is left.
#[test]
fn a_write_is_refused_only_when_none_is_left() {
    for sparse in [false, true] {
        for mark in ["80", "95"] {
            println!("sparse: {sparse}, {mark}");
            let mut off = Filled::new(sparse, None);
            let without = off.write_all();
            let mut full = Filled::new(sparse, Some(mark));
            full.pool.restart();
            full.filler = full.pool.open("filler");
            let with = full.write_all();
            assert_eq!(full.pool.undos(), [""; 0]);
            assert_eq!(full.gone_names(), BY_AGE);
            let gain = with - without;
            assert!((6 * EACH..6 * EACH + 300).contains(&gain), "{gain} of {}", 6 * EACH);
            full.pool.check();
        }
    }
}

/// Many that wait at once: each is answered, and none goes while there is room.
#[test]
fn many_writers_wait_for_one_that_goes() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut full = Filled::new(sparse, None);
        full.write_all();
        full.pool.set("", "undo-for-space", Some("95")).unwrap();
        let at = full.at;
        let ops = (0..30).map(|i| write(full.filler, at + i * 32, 32)).collect();
        full.pool.all(ops);
        full.pool.minutes(5);
        // 960 blocks of one that holds 1,500; below 95 % is another matter.
        let info = full.pool.info();
        assert!(info.used_percent < 95, "{info:?}");
        assert!((1..=2).contains(&full.gone().len()), "{:?}", full.gone());
        full.pool.check();
    }
}

/// A pool that is nearly full, with six small undo snapshots, just opened.
fn nearly_full(sparse: bool) -> Filled {
    let mut full = Filled::new(sparse, None);
    for undo in BY_AGE {
        full.pool.delete(undo);
    }
    for volume in ["a", "b", "c", "a", "b", "c"] {
        let export = full.pool.open(volume);
        for leaf in 0..4 {
            full.pool.write(export, leaf * 256, 32).unwrap();
        }
        full.pool.rollback(volume, "s");
        full.pool.must(Op::CloseExport { export });
    }
    full.fill_to(98);
    full.pool.minutes(2);
    full.pool.restart();
    full.filler = full.pool.open("filler");
    full.pool.must(Op::Checkpoint);
    full.pool.must(Op::Checkpoint);
    assert_eq!(full.pool.undos().len(), 6);
    full
}

/// What one gives back comes in many folds, the last of it two checkpoints later, and when the pool
/// is below the mark already. A write waits for all of it, to the last block.
#[test]
fn a_write_waits_for_all_that_they_give_back() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut emptied = nearly_full(sparse);
        for undo in emptied.pool.undos() {
            emptied.pool.delete(&undo);
        }
        emptied.pool.set("", "undo-for-space", Some("95")).unwrap();
        emptied.pool.must(Op::Checkpoint);
        emptied.pool.must(Op::Checkpoint);
        let mut most = emptied.pool.info().free_bytes / BLOCK;
        while emptied.pool.write(emptied.filler, emptied.at, most).is_err() {
            most -= 1;
        }

        let mut full = nearly_full(sparse);
        // In the first minute it is only the write that asks.
        full.pool.set("", "undo-for-space", Some("95")).unwrap();
        full.pool.must(Op::Checkpoint);
        full.pool.must(Op::Checkpoint);
        assert!(full.pool.info().free_bytes / BLOCK + 700 < most);
        full.pool.write(full.filler, full.at, most).unwrap();
        assert_eq!(full.pool.undos(), [""; 0]);
        full.pool.check();
    }
}

/// A snapshot that shares everything with others frees nothing: it goes too, as it is the oldest,
/// and that is the end of it.
#[test]
fn one_that_frees_nothing_goes_once() {
    let mut pool = Pool::new(false);
    let vm = pool.volume("vm", 1 << 30, &[]);
    pool.snapshot("vm", "empty").unwrap();
    pool.write(vm, 0, 200).unwrap();
    pool.snapshot("vm", "s").unwrap();
    pool.write(vm, 0, 200).unwrap();
    // The head begins as the first undo snapshot, and the second one holds nothing.
    pool.rollback("vm", "empty");
    pool.must(Op::Undo { volume: "vm".into(), force: true });
    let filler = pool.volume("filler", 1 << 30, &[]);
    pool.set("", "undo-for-space", Some("90")).unwrap();
    pool.fill(filler, 0);
    pool.minutes(5);
    assert_eq!(pool.undos(), [""; 0]);
    assert!(pool.info().used_percent >= 90, "it has freed something");
    let folds = pool.info().stats.folds;
    pool.minutes(30);
    assert!(pool.info().stats.folds <= folds + 2);
    assert!(pool.describe("vm@s").live);
    pool.check();
}

/// A crash at any step of it: what is left are the newest ones, the events that were told held, and
/// it goes on.
#[test]
fn a_crash_in_the_middle_leaves_the_newest() {
    let job = |seed: u64| {
        let mut rng = Rng::new(seed);
        let mut full = Filled::new(seed.is_multiple_of(2), Some("90"));
        full.fill_to(88);
        let (mut told, mut open) = (0, 0);
        for _ in 0..6 {
            for _ in 0..rng.range(1, 12) {
                full.pool.world.start_op(write(full.filler, full.at, 256));
                full.at += 256;
                open += 1;
            }
            for _ in 0..rng.range(1, 600) {
                full.pool.world.pump()?;
                while full.pool.world.take_reply().is_some() {
                    open -= 1;
                }
                if open == 0 {
                    break;
                }
            }
            // What was told before the crash is durable.
            if rng.one_in(2) {
                told = told.max(BY_AGE.len() - full.pool.undos().len());
                full.pool.must(Op::Flush { export: full.filler });
            } else {
                told = told.max(full.gone().len());
            }
            full.pool.crash(Crash::random(&mut rng), false);
            full.filler = full.pool.open("filler");
            open = 0;
            let left = full.pool.undos();
            let gone = BY_AGE.len() - left.len();
            if gone < told || left != sorted(&BY_AGE[gone..]) {
                return Err(format!("{told} were told to be gone, {left:?} are left"));
            }
            told = gone;
            full.pool.check();
        }
        full.pool.minutes(5);
        if full.pool.info().used_percent >= 90 && !full.pool.undos().is_empty() {
            return Err("it did not go on".into());
        }
        for name in ["a@s", "b@s", "c@s"] {
            assert!(full.pool.describe(name).live);
        }
        full.pool.check();
        Ok(BY_AGE.len() - full.pool.undos().len())
    };
    let gone = for_seeds("a_crash_in_the_middle_leaves_the_newest", 24, job);
    assert!(gone.iter().filter(|gone| **gone > 1).count() > gone.len() / 2, "{gone:?}");
}
