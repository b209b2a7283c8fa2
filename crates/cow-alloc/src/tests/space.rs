//! Placement, filling to the last block, refusals, and what stays in memory.

use super::oracle::World;
use super::*;
use crate::Stream;

#[test]
fn a_fragmented_pool_is_filled_to_the_last_block() {
    let mut world = World::new(3 * ZONE_BLOCKS + 5, 3 * ZONE_BLOCKS + 5, 2);
    while world.allocate(Stream::Sequential, 256) {}
    assert_eq!(world.alloc.free_blocks(), 0);
    // Holes of one block, of two, of seventeen and of three hundred.
    let all = std::mem::take(&mut world.unfolded);
    let is_hole = |phys: &Phys| match phys.0 % 2000 {
        at @ 0..600 => at % 3 == 0,
        at @ 600..1200 => at % 40 < 17,
        at @ 1200..1600 => at < 1500,
        at => at % 50 < 2,
    };
    let (holes, rest): (Vec<Phys>, Vec<Phys>) = all.into_iter().partition(is_hole);
    world.unfolded = rest;
    for phys in &holes {
        world.alloc.give_back(*phys, 1);
    }
    world.clear_all(&holes);
    world.check();
    // The long runs first.
    let (first, blocks) =
        ask(&mut world.alloc, &Disk::new(), |alloc| alloc.alloc(Stream::Random, 1000)).unwrap();
    assert!(blocks == 300, "{blocks} blocks at {first}");
    world.alloc.give_back(first, blocks.into());
    let streams = [Stream::Random, Stream::Sequential, Stream::Meta];
    let mut turn = 0;
    while world.allocate(streams[turn % 3], 7) {
        turn += 1;
    }
    assert_eq!((world.alloc.free_blocks(), world.free()), (0, 0));
}

#[test]
fn streams_keep_apart_and_run_on() {
    let geometry = layout(8 * ZONE_BLOCKS, 8 * ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, 8 * ZONE_BLOCKS);
    let mut last: [Option<Phys>; 3] = [None; 3];
    let streams = [Stream::Random, Stream::Sequential, Stream::Meta];
    let mut breaks = 0;
    for turn in 0..20_000 {
        let (phys, blocks) = alloc.alloc(streams[turn % 3], 1).unwrap();
        assert_eq!(blocks, 1);
        let others = last.iter().enumerate().filter(|(other, _)| *other != turn % 3);
        for (_, other) in others {
            assert!(other.is_none_or(|other| zone_of(other) != zone_of(phys)));
        }
        breaks += u32::from(last[turn % 3].is_some_and(|last| last.offset(1) != phys));
        last[turn % 3] = Some(phys);
    }
    assert!(breaks < 10, "{breaks} breaks in what should run on");
    // A pool of one zone: they share it, each in runs of its own.
    let geometry = layout(ZONE_BLOCKS, ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS);
    let mut last: [Option<Phys>; 3] = [None; 3];
    let mut breaks = 0;
    for turn in 0..20_000 {
        let (phys, _) = alloc.alloc(streams[turn % 3], 1).unwrap();
        breaks += u32::from(last[turn % 3].is_some_and(|last| last.offset(1) != phys));
        last[turn % 3] = Some(phys);
    }
    assert!(breaks < 30, "{breaks} breaks in a shared zone");
}

#[test]
fn what_is_given_back_is_taken_next() {
    let geometry = layout(ZONE_BLOCKS, ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS);
    let (first, blocks) = alloc.alloc(Stream::Random, 10).unwrap();
    alloc.give_back(first.offset(4), u64::from(blocks) - 4);
    assert_eq!(alloc.alloc(Stream::Random, 10), Ok((first.offset(4), 10)));
}

#[test]
#[should_panic(expected = "given back without being allocated")]
fn giving_back_twice_is_a_fault() {
    let geometry = layout(ZONE_BLOCKS, ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS);
    let (first, _) = alloc.alloc(Stream::Random, 1).unwrap();
    alloc.give_back(first, 1);
    alloc.give_back(first, 1);
}

#[test]
fn stage_refuses_what_cannot_be() {
    let geometry = layout(ZONE_BLOCKS + 100, ZONE_BLOCKS + 100);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS + 100);
    let (a, _) = alloc.alloc(Stream::Random, 1).unwrap();
    let (b, zone) = (a.offset(1), zone_of(a));
    let (end, other) = (Phys(ZONE_BLOCKS + 100), Phys((1 - zone) * ZONE_BLOCKS + 50));
    let mut refuse = |adds: &[Phys], frees: &[Phys], error: AllocError| {
        assert_eq!(alloc.stage(zone, adds, frees).map(|_| ()), Err(error));
        assert_eq!(alloc.staged_zones().count(), 0);
    };
    refuse(&[b], &[], AllocError::NotInUse(b));
    refuse(&[a, a], &[], AllocError::InUse(a));
    refuse(&[a], &[a, a], AllocError::NotInUse(a));
    refuse(&[], &[a], AllocError::NotInUse(a));
    refuse(&[a, other], &[], AllocError::NotData(other));
    assert!(alloc.stage(1, &[], &[end]).is_err() && alloc.stage(9, &[], &[]).is_err());
    let journal = Phys(geometry.journal_start);
    assert_eq!(alloc.stage(0, &[], &[journal]).map(|_| ()), Err(AllocError::NotData(journal)));
    assert_eq!(alloc.stage(0, &[journal], &[]).map(|_| ()), Err(AllocError::InUse(journal)));
    alloc.stage(zone, &[a], &[]).unwrap();
    assert_eq!(alloc.stage(zone, &[a], &[]).map(|_| ()), Err(AllocError::InUse(a)));
    alloc.commit(2);
    assert_eq!(alloc.stage(zone, &[a], &[]).map(|_| ()), Err(AllocError::InUse(a)));
    alloc.stage(zone, &[], &[a]).unwrap();
    assert_eq!(alloc.stage(zone, &[], &[a]).map(|_| ()), Err(AllocError::NotInUse(a)));
    alloc.commit(3);
    assert_eq!(alloc.mark_used(a, 1), Err(AllocError::InUse(a)), "it is in quarantine");
    assert_eq!(alloc.mark_used(Phys(u64::MAX), 2), Err(AllocError::NotData(Phys(u64::MAX))));
    assert_eq!(alloc.mark_used(end, 1), Err(AllocError::NotData(end)));
    assert!(AllocError::NotInUse(a).is_corruption() && !AllocError::NeedZone(1).is_corruption());
}

#[test]
fn runs_between_checkpoints_are_held() {
    let geometry = layout(ZONE_BLOCKS, ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS);
    let (a, _) = alloc.alloc(Stream::Random, 3).unwrap();
    let free = alloc.free_blocks();
    alloc.quarantine_run(a, 5).unwrap();
    assert_eq!((alloc.free_blocks(), alloc.pending_blocks()), (free - 2, 2));
    assert_eq!(alloc.release(0), []);
    assert_eq!(alloc.release(1), [(a.offset(3), 2)]);
    assert_eq!((alloc.free_blocks(), alloc.pending_blocks()), (free, 0));
    assert!(alloc.quarantine_run(Phys(ZONE_BLOCKS), 1).is_err());
}

#[test]
fn a_withheld_block_is_nobodys_and_pins_nothing() {
    let geometry = layout(ZONE_BLOCKS, ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS);
    let (a, _) = alloc.alloc(Stream::Random, 1).unwrap();
    let free = alloc.free_blocks();
    let unfolded = |alloc: &Allocator| {
        alloc.zones[0].as_ref().unwrap().is_unfolded((a.0 % ZONE_BLOCKS) as u32)
    };
    assert!(unfolded(&alloc));
    alloc.withhold(a).unwrap();
    alloc.withhold(a).unwrap();
    assert_eq!((unfolded(&alloc), alloc.free_blocks()), (false, free));
    // A record named it and another one moved its data: the fold adds and frees it.
    let desc = alloc.stage(0, &[a], &[a]).unwrap().desc;
    assert_eq!(u64::from(desc.free), free + 1);
    alloc.commit(2);
    assert_eq!((alloc.release(2), alloc.free_blocks()), (Vec::new(), free));
    assert_eq!((alloc.withheld().collect::<Vec<_>>(), alloc.pending_blocks()), (vec![a], 0));
    let journal = Phys(geometry.journal_start);
    assert_eq!(alloc.withhold(journal), Err(AllocError::NotData(journal)));
}

#[test]
fn the_budget_holds_but_for_pinned_zones() {
    let blocks = 12 * ZONE_BLOCKS;
    let geometry = layout(blocks, blocks);
    let mut alloc = fresh(&geometry, blocks);
    alloc.set_max_resident(4);
    for zone in 0..12 {
        alloc.load_fresh(zone).unwrap();
    }
    let resident = |alloc: &Allocator| (0..12).filter(|zone| alloc.is_resident(*zone)).count();
    assert!(resident(&alloc) <= 5, "{}", resident(&alloc));
    // One block in each zone pins them all.
    for zone in 0..12 {
        alloc.mark_used(Phys(zone * ZONE_BLOCKS + 32_000), 1).unwrap();
    }
    assert_eq!(resident(&alloc), 12);
    for zone in 0..12 {
        alloc.stage(zone, &[Phys(zone * ZONE_BLOCKS + 32_000)], &[]).unwrap();
    }
    assert_eq!(resident(&alloc), 12);
    alloc.commit(2);
    alloc.abort_staged();
    alloc.stage(0, &[], &[]).unwrap();
    assert!(resident(&alloc) <= 4, "{}", resident(&alloc));
}

#[test]
fn a_chunk_needs_a_run_in_one_zone() {
    let blocks = 2 * ZONE_BLOCKS;
    let geometry = layout(blocks, blocks);
    let mut alloc = fresh(&geometry, blocks);
    let mut chunks = Vec::new();
    while let Ok(phys) = alloc.alloc_chunk(512) {
        assert_eq!(zone_of(phys), zone_of(phys.offset(511)));
        chunks.push(phys);
    }
    assert!(chunks.len() as u64 > alloc.free_blocks() / 512 && alloc.free_blocks() > 0);
    assert_eq!(alloc.alloc_chunk(0), Err(AllocError::NoSpace));
    assert_eq!(alloc.alloc_chunk(u32::MAX), Err(AllocError::NoSpace));
    alloc.give_back(chunks[3], 512);
    assert_eq!(alloc.alloc_chunk(512), Ok(chunks[3]));
}

#[test]
fn withheld_blocks_of_a_range_are_those_inside_of_it() {
    let geometry = layout(2 * ZONE_BLOCKS, 2 * ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, 2 * ZONE_BLOCKS);
    let bad = [30_000, 30_001, 30_009, ZONE_BLOCKS + 7].map(Phys);
    bad.iter().for_each(|phys| alloc.withhold(*phys).unwrap());
    let among = |from, blocks| alloc.withheld_in(Phys(from), blocks).collect::<Vec<_>>();
    assert_eq!(among(30_000, 9), bad[..2]);
    assert_eq!(among(30_001, 9), bad[1..3]);
    assert_eq!(among(30_001, ZONE_BLOCKS), bad[1..]);
    assert_eq!((among(30_002, 7), among(30_000, 0)), (vec![], vec![]));
}

/// What was allocated since is not in it, and what is freed stays in it up to the commit.
#[test]
fn the_image_has_what_the_newest_checkpoint_holds() {
    let geometry = layout(2 * ZONE_BLOCKS, 2 * ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, 2 * ZONE_BLOCKS);
    let (at, blocks) = alloc.alloc(Stream::Random, 4).unwrap();
    assert!(blocks == 4 && zone_of(at) == 0, "{blocks} at {at}");
    let inside = |alloc: &Allocator| [0, 1, 2, 3].map(|i| alloc.is_in_image(at.offset(i)));
    assert_eq!(inside(&alloc), [false; 4]);
    alloc.stage(0, &[at, at.offset(2)], &[]).unwrap();
    assert_eq!(inside(&alloc), [false; 4]);
    alloc.commit(2);
    assert_eq!(inside(&alloc), [true, false, true, false]);
    alloc.stage(0, &[], &[at]).unwrap();
    assert_eq!(inside(&alloc), [true, false, true, false]);
    alloc.commit(3);
    assert_eq!(inside(&alloc), [false, false, true, false]);
    // Neither of what is not resident, nor past the end.
    assert!(!alloc.is_in_image(Phys(ZONE_BLOCKS + 1)) && !alloc.is_in_image(Phys(u64::MAX)));
}

/// A stream that has come down to single blocks takes the long run first that a release has brought back.
#[test]
fn a_release_has_streams_look_for_long_runs_again() {
    let geometry = layout(ZONE_BLOCKS, ZONE_BLOCKS);
    let mut alloc = fresh(&geometry, ZONE_BLOCKS);
    let mut taken = Vec::new();
    while let Ok((phys, blocks)) = alloc.alloc(Stream::Random, 4096) {
        taken.extend((0..u64::from(blocks)).map(|i| phys.offset(i)));
    }
    // Every second block of some is free: they go one by one.
    let singles: Vec<Phys> = taken.iter().copied().filter(|at| at.0 % 2 == 0).take(20).collect();
    singles.iter().for_each(|at| alloc.give_back(*at, 1));
    for _ in 0..10 {
        assert_eq!(alloc.alloc(Stream::Random, 4096).unwrap().1, 1);
    }
    let (run, rest): (Vec<Phys>, Vec<Phys>) =
        taken.into_iter().filter(|at| !singles.contains(at)).partition(|at| at.0 >= 32_000);
    assert!(run.len() > 256);
    let adds: Vec<Phys> = rest.iter().chain(&run).copied().collect();
    alloc.stage(0, &adds, &[]).unwrap();
    alloc.commit(2);
    alloc.stage(0, &[], &run[..300]).unwrap();
    alloc.commit(3);
    assert_eq!(alloc.release(3), [(run[0], 300)]);
    assert_eq!(alloc.alloc(Stream::Random, 300), Ok((run[0], 300)));
}
