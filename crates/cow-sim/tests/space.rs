//! Budgets and reserves of volumes (decision 18), and the marks of a pool that fills up.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Error, EventKind, ExportId, Op, OpId, Reply, SpaceKind};
use cow_sim::rng::Rng;
use pool::{BLOCK, MIB, Pool, write};

fn over_budget(result: Result<Reply, Error>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::NoSpace(SpaceKind::Budget)) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_budget_is_what_a_volume_and_its_snapshots_may_hold() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 1 << 30, &[("budget", "1M")]);
        let other = pool.volume("other", 1 << 30, &[]);
        for block in 0..256 {
            assert!(!over_budget(pool.write(vm, block * 3, 1)), "block {block}");
        }
        assert!(over_budget(pool.write(vm, 5000, 1)), "the 257th");
        assert_eq!(pool.describe("vm").charged_bytes, MIB);
        // What it has alone it may write again, folded or not, as often as it likes.
        let mut rng = Rng::new(1);
        for _ in 0..2000 {
            assert!(!over_budget(pool.write(vm, rng.below(256) * 3, 1)));
        }
        assert!(over_budget(pool.write(vm, 0, 2)), "one of the two is new");
        assert!(!over_budget(pool.write(other, 0, 1000)), "others have nothing to do with it");
        // What a snapshot shares it pays for once more.
        pool.snapshot("vm", "s").unwrap();
        assert!(over_budget(pool.write(vm, 0, 1)), "the snapshot keeps the old one");
        let discard = Op::Discard { export: vm, offset: 0, len: 30 * BLOCK, fua: false };
        pool.must(discard);
        assert!(over_budget(pool.write(vm, 0, 1)), "the snapshot has it still");
        pool.delete("vm@s");
        for block in 0..10 {
            assert!(!over_budget(pool.write(vm, block * 3, 1)), "the discard has made room");
        }
        assert!(over_budget(pool.write(vm, 5000, 1)));
        // It is known again after a restart.
        pool.restart();
        let vm = pool.open("vm");
        assert!(over_budget(pool.write(vm, 5000, 1)));
        assert!(!over_budget(pool.write(vm, 0, 1)));
        // Less than it has: it can only let go.
        pool.set("vm", "budget", Some("64K")).unwrap();
        assert!(over_budget(pool.write(vm, 5000, 1)));
        assert!(!over_budget(pool.write(vm, 0, 1)), "it takes nothing more");
        pool.rollback_works_over_budget(vm);
        pool.set("vm", "budget", None).unwrap();
        let vm = pool.open("vm");
        assert!(!over_budget(pool.write(vm, 5000, 1)));
        for bad in ["", "0", "x", "-1", "1.5G", "10 G", "full"] {
            let refused = pool.set("vm", "budget", Some(bad));
            assert!(
                matches!(&refused, Err(Error::Invalid(text)) if text.contains("budget")),
                "{bad}"
            );
        }
        pool.check();
    }
}

impl Pool {
    fn rollback_works_over_budget(&mut self, export: ExportId) {
        self.snapshot("vm", "back").unwrap();
        assert!(over_budget(self.write(export, 0, 1)));
        self.must(Op::Discard { export, offset: 0, len: BLOCK, fua: false });
        self.rollback("vm", "back");
        self.must(Op::Undo { volume: "vm".into(), force: true });
        self.delete("vm@back");
    }
}

/// A free that is pending is waited for, and the budget holds in any order of writes.
#[test]
fn a_budget_holds_with_many_writes_at_once() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 1 << 30, &[("budget", "2M")]);
        let mut rng = Rng::new(7);
        for round in 0..40 {
            let ops = (0..16).map(|_| write(vm, rng.below(900), rng.range(1, 9)));
            let ids: Vec<OpId> = ops.map(|op| pool.world.start_op(op)).collect();
            let mut left = ids.len();
            while left > 0 {
                pool.world.pump().unwrap();
                while let Some((_, result)) = pool.world.take_reply() {
                    over_budget(result);
                    left -= 1;
                }
            }
            if round % 8 == 3 {
                pool.snapshot("vm", &format!("s{round}")).unwrap();
            }
            if round % 8 == 7 {
                pool.delete(&format!("vm@s{}", round - 4));
            }
            let charged = pool.describe("vm").charged_bytes;
            assert!(charged <= 2 * MIB, "round {round}: {charged}");
        }
        assert!(pool.describe("vm").charged_bytes > MIB, "it was not put to the test");
        pool.check();
    }
}

#[test]
fn a_reserved_volume_never_runs_out() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 32 * MIB, &[("reserve", "full")]);
        let promised = (32 + 16) * MIB + 33 * BLOCK;
        assert_eq!(pool.info().reserved_bytes, promised);
        let other = pool.volume("other", 1 << 30, &[]);
        let filled = pool.fill(other, 0);
        assert!((10_000..20_000).contains(&filled), "{filled}");
        let full = pool.info();
        assert!(full.free_bytes < 20 * BLOCK, "{full:?}");
        // Written once, and again and again: many at once, in a pool that others have filled.
        let mut rng = Rng::new(3);
        for round in 0..12 {
            let mut at = |i: u64| if round == 0 { i * 128 } else { rng.below(8192 - 128) };
            let ops: Vec<Op> = (0..64).map(&mut at).map(|block| write(vm, block, 128)).collect();
            pool.all(ops);
            let zeroes =
                |i| Op::WriteZeroes { export: vm, offset: i * MIB, len: BLOCK, fua: false };
            pool.all((0..16).map(zeroes).collect());
            assert!(matches!(
                pool.write(other, filled + 1, 64),
                Err(Error::NoSpace(SpaceKind::Pool))
            ));
        }
        pool.must(Op::Checkpoint);
        pool.must(Op::Checkpoint);
        // A snapshot shares all of it: it would have to be promised once more.
        let refused = pool.snapshot("vm", "s");
        assert!(
            matches!(refused, Err(Error::NoSpace(SpaceKind::Reserve { missing_bytes }))
            if (20 * MIB..40 * MIB).contains(&missing_bytes)),
            "{refused:?}"
        );
        let grow = Op::Resize { volume: "vm".into(), size_bytes: 40 * MIB, shrink: false };
        let refused = pool.ask(grow);
        assert!(matches!(refused, Err(Error::NoSpace(SpaceKind::Reserve { .. }))), "{refused:?}");
        let props = vec![("reserve".to_owned(), "1M".to_owned())];
        let refused = pool.ask(Op::create_volume("third", MIB, props));
        assert!(matches!(refused, Err(Error::NoSpace(SpaceKind::Reserve { .. }))), "{refused:?}");
        // With the other one gone there is room for the snapshot, and again none is refused.
        pool.must(Op::CloseExport { export: other });
        pool.delete("other");
        pool.snapshot("vm", "s").unwrap();
        assert_eq!(pool.info().reserved_bytes, promised);
        let other = pool.volume("other", 1 << 30, &[]);
        pool.fill(other, 0);
        for round in 0..8 {
            let mut at = |i: u64| if round == 0 { i * 128 } else { rng.below(8192 - 128) };
            let ops: Vec<Op> = (0..64).map(&mut at).map(|block| write(vm, block, 128)).collect();
            pool.all(ops);
        }
        // A restart knows of it before the first write.
        pool.restart();
        let (vm, other) = (pool.open("vm"), pool.open("other"));
        assert!(matches!(pool.write(other, 200_000, 64), Err(Error::NoSpace(SpaceKind::Pool))));
        pool.all((0..64).map(|i| write(vm, i * 128, 128)).collect());
        // Its end gives everything back.
        pool.must(Op::CloseExport { export: vm });
        pool.delete("vm@s");
        pool.delete("vm");
        assert_eq!(pool.info().reserved_bytes, 0);
        assert!(pool.fill(other, 200_000) > 10_000);
        pool.check();
    }
}

/// A rollback is never refused; what it keeps must then be paid for.
#[test]
fn a_rollback_of_a_reserved_volume_works_in_a_full_pool() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 16 * MIB, &[("reserve", "full")]);
        pool.all((0..32).map(|i| write(vm, i * 128, 128)).collect());
        pool.snapshot("vm", "s").unwrap();
        pool.all((0..32).map(|i| write(vm, i * 128, 128)).collect());
        let other = pool.volume("other", 1 << 30, &[]);
        pool.fill(other, 0);
        pool.rollback("vm", "s");
        pool.must(Op::Undo { volume: "vm".into(), force: true });
        pool.rollback("vm", "s");
        let vm = pool.open("vm");
        // It writes into what was kept as headroom; others have nothing before it is whole again.
        pool.all((0..16).map(|i| write(vm, i * 128, 128)).collect());
        assert_eq!(pool.info().free_bytes, 0);
        for undo in ["vm@undo.1", "vm@undo.2", "vm@undo.3"] {
            if pool
                .ask(Op::Describe { names: vec![undo.into()], exact: false })
                .is_ok_and(|reply| matches!(reply, Reply::List(list) if !list.is_empty()))
            {
                pool.delete(undo);
            }
        }
        pool.all((0..32).map(|i| write(vm, i * 128, 128)).collect());
        pool.check();
    }
}

#[test]
fn marks_are_told_as_the_pool_fills_and_empties() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 1 << 30, &[]);
        pool.write(vm, 0, 8).unwrap();
        pool.snapshot("vm", "s").unwrap();
        pool.write(vm, 0, 8).unwrap();
        pool.rollback("vm", "s");
        assert_eq!((pool.info().space_level, pool.info().events), (0, vec![]));
        let vm = pool.open("vm");
        pool.fill(vm, 0);
        let full = pool.info();
        assert!(full.space_level == 95 && full.used_percent >= 99, "{full:?}");
        let levels: Vec<u8> = full
            .events
            .iter()
            .map(|event| match &event.kind {
                EventKind::SpaceLow(found) => {
                    assert_eq!(found.undo_snapshots, ["vm@undo.1"]);
                    assert!(
                        found.percent >= found.level && found.free_bytes <= found.capacity_bytes
                    );
                    found.level
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(levels, [80, 90, 95]);
        // A larger pool ends it.
        let blocks = full.size_bytes / BLOCK;
        pool.must(Op::GrowPool { blocks: 2 * blocks });
        let grown = pool.info();
        let last = grown.events.last().unwrap();
        assert!(matches!(&last.kind, EventKind::SpaceBack(found) if found.level == 0), "{last:?}");
        assert_eq!((last.seq, grown.space_level), (4, 0));
        assert!(pool.fill(vm, 100_000) > 20_000);
        pool.check();
    }
}

/// What a fold takes was kept for it: until it frees something the pool is as full as before.
#[test]
fn a_pool_is_no_fuller_while_a_fold_runs() {
    let mut pool = Pool::new(false);
    let vm = pool.volume("vm", 2 << 30, &[]);
    pool.all((0..2048).map(|leaf| write(vm, leaf * 256, 1)).collect());
    let ask = || Op::Info { exact: false };
    let Reply::Info(before) = pool.must(ask()) else { panic!("no info") };
    let fold = pool.world.start_op(Op::Checkpoint);
    let (mut over, mut seen, mut most) = (false, 0, 0);
    while !over {
        pool.world.pump().unwrap();
        pool.world.start_op(ask());
        while let Some((id, result)) = pool.world.take_reply() {
            over |= id == fold;
            if let Reply::Info(info) = result.unwrap() {
                most = most.max(info.used_percent);
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "it was looked at {seen} times");
    assert!(most <= before.used_percent + 1, "{} %, then {most} %", before.used_percent);
}

/// Discards of shared leaves write map nodes and take what snapshots may not; the blocks that are
/// set aside for folds lie in the same part. What is kept for a volume is none of that.
#[test]
fn discards_of_others_leave_what_is_kept() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 1 << 30, &[("reserve", "1M")]);
        let other = pool.volume("other", 2 << 30, &[]);
        pool.all((0..2048).map(|leaf| write(other, leaf * 256, 2)).collect());
        pool.snapshot("other", "s").unwrap();
        // Nearly all that is promised is written, so that little is left of it.
        let mut at = 0;
        while pool.info().reserved_bytes > 600 * BLOCK {
            pool.write(vm, at, 256).unwrap();
            at += 256;
        }
        pool.must(Op::Checkpoint);
        pool.must(Op::Checkpoint);
        let filler = pool.volume("filler", 1 << 30, &[]);
        pool.fill(filler, 0);
        let mut refused = 0;
        for leaf in 0..2048 {
            let zero =
                Op::WriteZeroes { export: other, offset: leaf << 20, len: BLOCK, fua: false };
            refused += u64::from(pool.ask(zero).is_err());
        }
        assert!(refused > 0, "not put to the test");
        let left = pool.info().reserved_bytes / BLOCK;
        assert!(left > 50, "{left}");
        pool.write(vm, at, left - 20).unwrap();
        pool.check();
    }
}
