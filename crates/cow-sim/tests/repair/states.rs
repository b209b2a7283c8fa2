//! Pools in states that are not those of every day.

use super::device::Device;
use super::pool::{Pool, busy, closed, with_journal};
use super::{
    assert_content, blocks_of, content, damaged, every_block, live_on, make_plan, map_node,
    repaired, report, seen, unsettled,
};
use cow_check::repair::{Action, RepairError, apply};
use cow_check::{Structure, What, dump};
use cow_engine::{AckMode, Engine, Op};
use cow_format::BLOCK_SIZE;
use cow_sim::PoolOptions;
use cow_sim::checked::View;
use cow_sim::disk::{Class, Crash, Faults, NthFault, SimDisk};
use cow_sim::lose::bitmap_blocks;
use cow_sim::rng::Rng;
use cow_sim::world::World;
use cow_sim::{format, small_config};

fn dumped(disk: &SimDisk, what: &What) -> String {
    format!("{:?}", dump(&mut View(disk), what))
}

/// Pools that died while deleted snapshots were reclaimed: one in the middle of a map, one with subtrees that
/// a discard has cut off.
fn reclaiming() -> Vec<SimDisk> {
    let mut pool = busy();
    for (at, name) in [(0, "g"), (1, "h")] {
        pool.create(name);
        for leaf in 0..6 {
            pool.write(name, leaf * 256 + at, 4, 30 + leaf as u8);
        }
        pool.snapshot(name, "s");
        pool.write(name, 1, 2, 40);
        pool.write(name, 600, 2, 41);
        pool.checkpoint();
    }
    pool.delete("g@s");
    let walking = until(&mut pool, |disk| dumped(disk, &What::Nodes).contains("\"walking\""));
    pool.must(Op::WaitReclaim);
    pool.discard("h", 0, 65_536);
    let has_lines =
        |disk: &SimDisk| dumped(disk, &What::Checkpoint).contains("(\"detached\", Array([O");
    let detached = until(&mut pool, has_lines);
    vec![walking, detached]
}

/// What is on the disk when a checkpoint has come to that.
fn until(pool: &mut Pool, is_it: impl Fn(&SimDisk) -> bool) -> SimDisk {
    pool.0.start_op(Op::Checkpoint);
    for _ in 0..3000 {
        let disk = pool.0.disk().crash(Crash::KeepAll);
        if is_it(&disk) {
            return disk;
        }
        pool.0.pump().unwrap();
    }
    panic!("it never comes to that")
}

#[test]
fn every_block_of_pools_that_reclaim() {
    // What is cut off is given back before anything is cut out.
    let first = ["cut_map_node", "give_back"];
    for (disk, first) in reclaiming().into_iter().zip(first) {
        assert!(report(&disk).is_clean(), "{:?}", report(&disk).findings);
        let outcomes = every_block(&disk, 0);
        println!("{outcomes:?}");
        assert!(outcomes.get(first).is_some_and(|&count| count > 0), "{outcomes:?}");
    }
}

/// A fold has met a damaged leaf and gone on without: what hangs below it is not freed, and the pool says so.
#[test]
fn what_folds_have_noted_is_settled() {
    let disk = closed();
    let leaf = map_node(&disk, 0, 0);
    let mut pool = Pool::on(damaged(&disk, leaf, 0));
    for name in ["a", "b", "c", "e", "f"] {
        pool.write(name, 2, 1, 50);
    }
    pool.checkpoint();
    let disk = pool.close();
    let noted = report(&disk);
    let text = format!("{:?}", noted.findings);
    assert!(text.contains("a fold could not read this map node"), "{text}");
    let before = content(&disk);
    let plan = make_plan(&disk).unwrap();
    let forgets = |action: &Action| matches!(action, Action::ForgetDamage { entries: 1.. });
    assert!(plan.actions.iter().any(forgets), "{:?}", plan.actions);
    let fixed = repaired(&disk, &plan);
    let after = report(&fixed);
    let text = format!("{:?}", after.findings);
    assert!(!text.contains("a fold") && after.stats.leaked_blocks == 0, "{text}");
    assert!(make_plan(&fixed).unwrap().is_empty());
    assert_content("noted", &plan, &content(&fixed), &before);
    live_on("noted", &fixed);
}

/// New metadata must not be written where the journal says that data is: no bitmap knows of that yet.
#[test]
fn blocks_that_only_the_journal_names_are_left_alone() {
    let mut pool = Pool::on(format(&PoolOptions::default()));
    pool.create("a");
    pool.write("a", 0, 10, 1);
    // So that there is something above the leaf, to be written anew.
    pool.write("a", 70_000, 10, 1);
    pool.checkpoint();
    pool.checkpoint();
    for lba in 10..40 {
        pool.write("a", lba, 1, lba as u8);
    }
    let disk = pool.kill();
    let before = content(&disk);
    let broken = damaged(&disk, map_node(&disk, 0, 0), 0);
    let plan = make_plan(&broken).unwrap();
    let fixed = repaired(&broken, &plan);
    assert_content("journal", &plan, &content(&fixed), &before);
    assert_eq!(unsettled(&report(&fixed)), [""; 0]);
    live_on("journal", &fixed);
}

/// A process was killed when its last checkpoint was written and not flushed. A repair that builds upon it and
/// does not flush it first overwrites the pages of the one before, and then the power goes.
#[test]
fn what_is_built_upon_is_durable() {
    let mut states = 0;
    for seed in 0..6 {
        let mut pool = busy();
        pool.write("a", 30 + seed, 1, 60);
        pool.write("b", 90_000 + seed * 300, 1, 61);
        pool.0.start_op(Op::Checkpoint);
        let number = |disk: &SimDisk| report(disk).stats.checkpoint_seq;
        let old = number(pool.0.disk());
        let killed = loop {
            let killed = pool.0.disk().crash(Crash::Kill(seed));
            if number(&killed) > old {
                break killed;
            }
            pool.0.pump().unwrap();
        };
        assert_eq!(number(&killed.crash(Crash::LoseAll)), old, "it was flushed at once");
        let before = content(&killed.crash(Crash::KeepAll));
        let leaf = map_node(&killed.crash(Crash::KeepAll), 0, 0);
        let mut broken = killed;
        let mut page = broken.peek(leaf);
        page[100] ^= 1;
        broken.poke(leaf, page);
        let plan = make_plan(&broken).unwrap();
        assert!(!plan.is_empty());
        let as_was = seen(&broken.crash(Crash::KeepAll));
        let mut device = Device::probed(broken, |crashed| {
            states += 1;
            // From the checkpoint before, if that is what is left: with the journal it is the same pool.
            let now = seen(&crashed);
            let known = |now: &super::Content| {
                now.iter().all(|(key, byte)| byte.is_none() || *byte == before[key])
            };
            assert!(now.as_ref().is_some_and(known), "seed {seed}, state {states}");
            let fixed = repaired(&crashed, &make_plan(&crashed).unwrap());
            assert_eq!(unsettled(&report(&fixed)), [""; 0], "seed {seed}, state {states}");
            assert!(known(&content(&fixed)), "seed {seed}, state {states}");
        });
        apply(&plan, &mut device).unwrap();
        assert!(as_was.is_some());
        drop(device);
    }
    assert!(states > 500, "{states}");
}

/// Several blocks of metadata at once: what is read is right, or fails; what is told to be lost is lost.
#[test]
fn several_blocks_at_once() {
    let disk = closed();
    let before = content(&disk);
    let is_metadata = |block: &u64| {
        let plan = make_plan(&damaged(&disk, *block, 0));
        plan.is_ok_and(|plan| !plan.is_empty())
    };
    let blocks: Vec<u64> = blocks_of(&disk).into_iter().filter(is_metadata).collect();
    let (mut repairs, mut refusals) = (0, 0);
    for seed in 0..80 {
        let mut rng = Rng::new(seed);
        let count = 2 + rng.index(4);
        let mut broken = disk.crash(Crash::KeepAll);
        for _ in 0..count {
            broken = damaged(&broken, blocks[rng.index(blocks.len())], 0);
        }
        let digest = broken.digest();
        let plan = match make_plan(&broken) {
            Ok(plan) => plan,
            Err(error @ (RepairError::Refused(_) | RepairError::NoSpace)) => {
                println!("{seed}: {error}");
                refusals += 1;
                continue;
            }
            // Both copies of a set, or all: nothing to begin with.
            Err(RepairError::Open(_)) => continue,
            Err(other) => panic!("{seed}: {other}"),
        };
        let fixed = repaired(&broken, &plan);
        assert_eq!(broken.digest(), digest);
        assert_eq!(unsettled(&report(&fixed)), [""; 0], "{seed}: {:?}", plan.actions);
        assert!(!report(&fixed).by_kind.contains_key(&Structure::Data), "{seed}");
        assert!(make_plan(&fixed).unwrap().is_empty(), "{seed}");
        assert_content(&format!("seed {seed}"), &plan, &content(&fixed), &before);
        if seed % 4 == 0 {
            live_on(&format!("seed {seed}"), &fixed);
        }
        repairs += 1;
    }
    println!("{repairs} repairs, {refusals} refusals");
    assert!(repairs > 50, "{repairs} repairs, {refusals} refusals");
}

/// A write or flush of the repair fails: the pool is as it was or repaired, and another repair ends it.
#[test]
fn a_device_that_fails() {
    let disk = with_journal();
    let before = content(&disk);
    let broken = damaged(&damaged(&disk, map_node(&disk, 0, 0), 0), 0, 0);
    let plan = make_plan(&broken).unwrap();
    let as_was = seen(&broken);
    for class in [Class::Write, Class::Flush] {
        for nth in 0.. {
            let mut device = Device::new(broken.crash(Crash::KeepAll));
            let fault = NthFault { class, nth, sticky: true, errno: 5 };
            device.disk.set_faults(Faults { nth: vec![fault], ..Faults::default() }, nth);
            let outcome = apply(&plan, &mut device);
            if outcome.is_ok() {
                assert!(nth > 3, "{class:?}: {nth}");
                break;
            }
            assert!(matches!(outcome, Err(RepairError::Write { .. })), "{outcome:?}");
            for how in [Crash::LoseAll, Crash::KeepAll, Crash::Sectors(nth)] {
                let left = device.disk.crash(how);
                let now = seen(&left);
                let done = Some(super::content_after(&before, &plan));
                assert!(now == as_was || now == done, "{class:?} {nth}, {how:?}");
                let fixed = repaired(&left, &make_plan(&left).unwrap());
                assert_content("again", &plan, &content(&fixed), &before);
            }
        }
    }
}

/// What was taken to be damaged can be read when it comes to it: a cable was loose.
#[test]
fn what_reads_again_is_not_cut_out() {
    let disk = closed();
    let leaf = map_node(&disk, 0, 0);
    let plan = make_plan(&damaged(&disk, leaf, 0)).unwrap();
    let mut device = Device::new(disk.crash(Crash::KeepAll));
    assert_eq!(apply(&plan, &mut device), Err(RepairError::ReadsAgain { block: leaf }));
    assert_eq!((device.writes, device.disk.digest()), (0, disk.digest()));
}

/// The first block of a checkpoint.
fn header(disk: &SimDisk, seq: u64) -> u64 {
    let is_it = |block: &u64| {
        let page = disk.peek(*block);
        page[..8] == *b"COWCHKP1" && page[16..24] == seq.to_le_bytes()
    };
    blocks_of(disk).into_iter().find(is_it).unwrap()
}

/// The repair of a pool, killed when it asks for its last flush.
fn killed(broken: &SimDisk) -> SimDisk {
    let plan = make_plan(broken).unwrap();
    let mut whole = Device::new(broken.crash(Crash::KeepAll));
    apply(&plan, &mut whole).unwrap();
    let mut device = Device::new(broken.crash(Crash::KeepAll));
    device.killed_at_flush = Some(whole.flushes);
    apply(&plan, &mut device).unwrap_err();
    device.disk.crash(Crash::Kill(0))
}

/// What a repair that was killed before its last flush has written is in a cache only, and all that is to be done
/// then is to flush it.
#[test]
fn what_is_found_in_order_is_durable() {
    let disk = closed();
    let killed = killed(&damaged(&disk, map_node(&disk, 0, 0), 0));
    assert_ne!(unsettled(&report(&killed.crash(Crash::LoseAll))), [""; 0]);
    let plan = make_plan(&killed).unwrap();
    assert!(plan.is_empty(), "{:?}", plan.actions);
    let mut device = Device::new(killed);
    apply(&plan, &mut device).unwrap();
    assert_eq!((device.writes, device.flushes), (0, 1));
    assert_eq!(unsettled(&report(&device.disk.crash(Crash::LoseAll))), [""; 0]);
}

/// The area after that of the new checkpoint is damaged: it is of no use, and would be in the way if the new one
/// were torn.
#[test]
fn a_damaged_area_is_wiped_before_the_one_beside_it_is_written() {
    let disk = closed();
    let before = content(&disk);
    let newest = report(&disk).stats.checkpoint_seq;
    let (leaf, old) = (map_node(&disk, 0, 0), header(&disk, newest - 2));
    let broken = damaged(&damaged(&disk, leaf, 0), old, 0);
    let plan = make_plan(&broken).unwrap();
    let wipes = |action: &Action| matches!(action, Action::WipeCheckpoint { .. });
    assert!(plan.actions.iter().any(wipes), "{:?}", plan.actions);
    assert!(!make_plan(&damaged(&disk, leaf, 0)).unwrap().actions.iter().any(wipes));
    // What a torn write may leave.
    let killed = killed(&broken).crash(Crash::KeepAll);
    let torn = damaged(&killed, header(&killed, newest + 1), 0);
    let again = make_plan(&torn).unwrap();
    let fixed = repaired(&torn, &again);
    assert_eq!(unsettled(&report(&fixed)), [""; 0], "{:?}", again.actions);
    assert_content("torn", &again, &content(&fixed), &before);
    assert_eq!(again.lost, plan.lost);
}

/// With two areas damaged nobody can say whether what the third describes is still there.
#[test]
fn two_lost_checkpoints_are_refused() {
    let disk = closed();
    let number = report(&disk).stats.checkpoint_seq;
    let header = |seq| header(&disk, seq);
    // The second block of each alone, so that either could have been torn by a crash.
    let broken = damaged(&damaged(&disk, header(number) + 1, 0), header(number - 1) + 1, 0);
    let text = format!("{:?}", unsettled(&report(&broken)));
    assert!(text.contains("was complete"), "{text}");
    let refusal = make_plan(&broken).unwrap_err().to_string();
    assert!(refusal.contains("checkpoint areas"), "{refusal}");
    let broken = damaged(&damaged(&disk, header(number), 0), header(number - 1), 0);
    let refusal = make_plan(&broken).unwrap_err().to_string();
    assert!(refusal.contains("checkpoint areas"), "{refusal}");
    // One alone is another matter.
    let broken = damaged(&disk, header(number), 0);
    let plan = make_plan(&broken).unwrap();
    assert!(matches!(plan.actions[0], Action::ReplaceCheckpoint { .. }), "{:?}", plan.actions);
    assert_content("one lost", &plan, &content(&repaired(&broken, &plan)), &content(&disk));
}

/// What is in use says the map: whoever reads needs no bitmap, and whoever writes is told what makes it anew.
#[test]
fn a_bad_bitmap_page_keeps_nobody_from_reading() {
    let disk = with_journal();
    let before = content(&disk);
    let pages = bitmap_blocks(&disk);
    assert!(!pages.is_empty());
    for (zone, block) in pages {
        for is_readable in [false, true] {
            let opened = |read_only| {
                let mut bad = disk.crash(Crash::KeepAll);
                match is_readable {
                    true => bad.poke(block, [0x77; BLOCK_SIZE]),
                    false => {
                        let unreadable = block..block + 1;
                        bad.set_faults(Faults { unreadable, ..Faults::default() }, 1);
                    }
                }
                let mut world = World::<Engine>::new(bad, &small_config(AckMode::Writethrough), 1);
                (world.run_op(Op::Open { read_only }).unwrap(), world)
            };
            let (readers, world) = opened(true);
            assert!(readers.is_ok(), "{readers:?}");
            assert_eq!(Pool(world).content(), before, "zone {zone}");
            let text = opened(false).0.unwrap_err().to_string();
            let place = match is_readable {
                true => format!("block {block}: checksum mismatch (zone {zone})"),
                false => format!("at byte {}", block * BLOCK_SIZE as u64),
            };
            for says in ["bitmap page", "`cowctl check --repair`", &place] {
                assert!(text.contains(says), "{says}: {text}");
            }
        }
        let mut bad = disk.crash(Crash::KeepAll);
        bad.poke(block, [0x77; BLOCK_SIZE]);
        let plan = make_plan(&bad).unwrap();
        let made = Action::RebuildBitmap { zone, unreadable: true, freed: 0, marked: 0 };
        assert_eq!(plan.actions, [made]);
        let after = repaired(&bad, &plan);
        assert_content("a bitmap page", &plan, &content(&after), &before);
        live_on("a bitmap page", &after);
    }
}
