//! `cow_check::repair` on pools that the engine has made: each block damaged, one at a time; a crash at every
//! step; and the life of the pool after it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod device;
mod pool;
mod states;

use cow_check::repair::{Action, Plan, RepairError, apply, plan};
use cow_check::{Options, Report, Severity, Structure, check};
use cow_engine::Op;
use cow_format::BLOCK_SIZE;
use cow_sim::checked::View;
use cow_sim::disk::{Crash, SimDisk};
use device::Device;
use pool::{Content, Pool, VOLUME};
use std::collections::BTreeMap;

fn report(disk: &SimDisk) -> Report {
    check(&mut View(disk), &Options::default()).unwrap()
}

fn make_plan(disk: &SimDisk) -> Result<Plan, RepairError> {
    plan(&mut View(disk), &Options::default())
}

/// Repairs a copy of the disk.
fn repaired(disk: &SimDisk, plan: &Plan) -> SimDisk {
    let mut device = Device::new(disk.crash(Crash::KeepAll));
    apply(plan, &mut device).unwrap();
    device.disk.crash(Crash::LoseAll)
}

/// What is wrong that a repair does not leave.
fn unsettled(report: &Report) -> Vec<String> {
    let corrupt = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
    let open = corrupt.filter(|f| !matches!(f.kind, Structure::Data | Structure::KnownDamage));
    open.map(ToString::to_string).collect()
}

fn content(disk: &SimDisk) -> Content {
    seen(disk).unwrap()
}

/// None where the pool does not open.
fn seen(disk: &SimDisk) -> Option<Content> {
    Pool::look(disk).ok().map(|mut pool| pool.content())
}

fn is_lost(plan: &Plan, name: &str, lba: u64) -> bool {
    let covers = |lost: &&cow_check::repair::Lost| {
        lost.name == name && (lost.lba..lost.lba + lost.blocks).contains(&lba)
    };
    plan.lost.iter().any(|lost| covers(&lost))
}

/// What is read is what was there, but for exactly what the plan says is lost.
#[track_caller]
fn assert_content(what: &str, plan: &Plan, found: &Content, before: &Content) {
    assert_eq!(found.len(), before.len(), "{what}: volumes or snapshots came or went");
    for ((name, lba), was) in before {
        let now = found[&(name.clone(), *lba)];
        match is_lost(plan, name, *lba) {
            true => assert_eq!(now, None, "{what}: {name}, lba {lba} was told to be lost"),
            false => assert_eq!(now, *was, "{what}: {name}, lba {lba}; lost: {:?}", plan.lost),
        }
    }
    for lost in &plan.lost {
        assert!(lost.blocks > 0 && lost.lba + lost.blocks <= VOLUME, "{what}: {lost:?}");
    }
}

/// Everything is deleted; then nothing of it is in use any more.
fn live_on(what: &str, disk: &SimDisk) {
    let mut pool = Pool::on(disk.crash(Crash::KeepAll));
    let names = pool.names();
    for name in names.iter().filter(|name| !name.contains('@')) {
        pool.write(name, 1, 3, 99);
    }
    pool.checkpoint();
    for name in &names {
        for tag in ["backup", "damaged"] {
            let tag = tag.to_owned();
            let _ = pool.ask(Op::Hold { name: name.clone(), tag, set: false });
        }
    }
    pool.must(Op::Delete { names, recursive: true, dry_run: false });
    pool.must(Op::WaitReclaim);
    let mut disk = pool.close();
    // A walk that meets what is lost in a child leaves what it cannot compare, and says so.
    let plan = make_plan(&disk).unwrap();
    assert_eq!((unsettled(&plan.before), &plan.lost), (vec![], &vec![]), "{what}");
    disk = repaired(&disk, &plan);
    let report = report(&disk);
    assert!(report.is_clean(), "{what}: {:?}", report.findings);
    assert_eq!(report.stats.leaked_blocks, 0, "{what}");
    assert_eq!((report.stats.data_blocks, report.stats.map_nodes), (0, 0), "{what}");
}

fn damaged(disk: &SimDisk, block: u64, how: usize) -> SimDisk {
    let mut disk = disk.crash(Crash::KeepAll);
    let mut page = disk.peek(block);
    match how {
        0 => page.fill(0x77),
        1 => page[100] ^= 1,
        _ => page.fill(0),
    }
    disk.poke(block, page);
    disk
}

fn blocks_of(disk: &SimDisk) -> Vec<u64> {
    let mut blocks = disk.occupied();
    blocks.retain(|block| disk.peek(*block).iter().any(|byte| *byte != 0));
    blocks.sort_unstable();
    blocks
}

/// What became of each damaged block, by what was done about it.
type Outcomes = BTreeMap<&'static str, u64>;

/// Damages each block of the disk in turn, and repairs it.
fn every_block(disk: &SimDisk, how: usize) -> Outcomes {
    let before = content(disk);
    let mut outcomes = Outcomes::new();
    for block in blocks_of(disk) {
        let what = format!("block {block}, damage {how}");
        let broken = damaged(disk, block, how);
        let plan = match make_plan(&broken) {
            Ok(plan) => plan,
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error, RepairError::Refused(_)), "{what}: {text}");
                let named = ["journal frame", "node table page"].iter().any(|k| text.contains(k));
                assert!(named, "{what}: {text}");
                *outcomes.entry("refused").or_default() += 1;
                continue;
            }
        };
        let fixed = repaired(&broken, &plan);
        let after = report(&fixed);
        assert_eq!(unsettled(&after), [""; 0], "{what}: {:?}", plan.actions);
        assert!(make_plan(&fixed).unwrap().is_empty(), "{what}: not once and for all");
        if plan.is_empty() {
            assert_eq!(fixed.digest(), broken.digest(), "{what}");
            let is_data = after.by_kind.contains_key(&Structure::Data);
            *outcomes.entry(if is_data { "data" } else { "nothing" }).or_default() += 1;
            if is_data {
                continue;
            }
        } else {
            assert_ne!(unsettled(&plan.before), [""; 0], "{what}: {:?}", plan.actions);
            let first = plan.actions.first().map_or("none", Action::name);
            *outcomes.entry(first).or_default() += 1;
        }
        // A frame at the end of the journal that nothing calls durable is cut, damaged or not.
        let was = if plan.is_empty() { content(&broken) } else { before.clone() };
        assert_content(&what, &plan, &content(&fixed), &was);
        if !plan.is_empty() && how == 0 {
            live_on(&what, &fixed);
        }
    }
    outcomes
}

#[test]
fn a_clean_pool_is_left_alone() {
    for disk in [pool::closed(), pool::with_journal()] {
        assert!(report(&disk).is_clean());
        let plan = make_plan(&disk).unwrap();
        assert!(plan.is_empty() && plan.actions.is_empty() && plan.lost.is_empty());
        let mut device = Device::new(disk.crash(Crash::KeepAll));
        apply(&plan, &mut device).unwrap();
        assert_eq!((device.writes, device.flushes, device.disk.digest()), (0, 1, disk.digest()));
    }
}

#[test]
fn every_block_of_a_closed_pool() {
    let disk = pool::closed();
    for how in 0..3 {
        let outcomes = every_block(&disk, how);
        println!("{outcomes:?}");
        for kind in [
            "cut_map_node",
            "restore_superblock",
            "rebuild_bitmap",
            "rebuild_kill_row",
            "drop_properties",
        ] {
            assert!(outcomes.contains_key(kind), "{kind}: {outcomes:?}");
        }
    }
}

#[test]
fn every_block_of_a_pool_with_a_journal() {
    let outcomes = every_block(&pool::with_journal(), 0);
    println!("{outcomes:?}");
    assert!(outcomes["refused"] > 0 && outcomes["cut_map_node"] > 0, "{outcomes:?}");
}

/// The block of a map node of this level and index that a checkpoint uses.
fn map_node(disk: &SimDisk, level: u8, index: u8) -> u64 {
    let is_it =
        |page: &[u8; BLOCK_SIZE]| page[..4] == *b"CMAP" && page[6] == level && page[24] == index;
    let broken = |block: &u64| {
        let plan = make_plan(&damaged(disk, *block, 0)).unwrap();
        plan.actions.iter().any(|action| matches!(action, Action::CutMapNode { .. }))
    };
    let nodes = blocks_of(disk).into_iter().filter(|block| is_it(&disk.peek(*block)));
    nodes.rev().find(broken).expect("there is one")
}

#[test]
fn a_crash_at_every_step() {
    for disk in [pool::closed(), pool::with_journal()] {
        let before = content(&disk);
        let bitmap = bitmap_page(&disk);
        for blocks in [
            vec![map_node(&disk, 0, 0)],
            vec![map_node(&disk, 1, 0)],
            vec![0, 8192],
            vec![1024, bitmap],
        ] {
            let broken =
                blocks.iter().fold(disk.crash(Crash::KeepAll), |disk, at| damaged(&disk, *at, 0));
            let as_was = seen(&broken);
            let plan = make_plan(&broken).unwrap();
            let (mut states, mut last) = (0, 0);
            let mut device = Device::probed(broken.crash(Crash::KeepAll), |crashed| {
                if std::mem::replace(&mut last, crashed.digest()) == crashed.digest() {
                    return;
                }
                states += 1;
                let what = format!("{blocks:?}, state {states}");
                let now = seen(&crashed);
                assert!(
                    now == as_was || now == Some(content_after(&before, &plan)),
                    "{what}: neither as it was nor repaired"
                );
                let again = make_plan(&crashed).unwrap();
                let fixed = repaired(&crashed, &again);
                assert_eq!(unsettled(&report(&fixed)), [""; 0], "{what}");
                assert_content(&what, &plan, &content(&fixed), &before);
            });
            apply(&plan, &mut device).unwrap();
            drop(device);
            println!("{blocks:?}: {states} states");
            assert!(states > 10, "{states}");
        }
    }
}

fn content_after(before: &Content, plan: &Plan) -> Content {
    let lost = |(name, lba): &(String, u64)| is_lost(plan, name, *lba);
    before.iter().map(|(key, was)| (key.clone(), was.filter(|_| !lost(key)))).collect()
}

/// The bitmap page of zone 0.
fn bitmap_page(disk: &SimDisk) -> u64 {
    let is_page = |block: &u64| {
        let plan = make_plan(&damaged(disk, *block, 0));
        plan.is_ok_and(|plan| matches!(plan.actions.first(), Some(Action::RebuildBitmap { .. })))
    };
    blocks_of(disk).into_iter().find(is_page).expect("there is one")
}
