//! Differences against the bytes that the oracle knows: over random histories of writes, zeros,
//! snapshots, rollbacks, clones, resizes and crashes, between any two states of a family.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, DiffQuery, DiffSide, Engine, Error, Op, Reply};
use cow_format::mutant;
use cow_sim::cmd::Cmd;
use cow_sim::disk::Crash;
use cow_sim::history::Workload;
use cow_sim::model::{Snap, State};
use cow_sim::oracle::Oracle;
use cow_sim::rng::Rng;
use cow_sim::run::{caught, for_seeds, tail};
use cow_sim::sim::{Sim, Stop};
use cow_sim::{PoolOptions, format, small_config};
use std::collections::BTreeSet;

const BLOCK: u64 = 4096;

type Pool = Sim<Engine>;

fn names(state: &State) -> Vec<String> {
    let mut names = Vec::new();
    for (volume, all) in &state.volumes {
        names.push(volume.clone());
        names.extend(all.snap_names().map(|snap| format!("{volume}@{snap}")));
    }
    names
}

/// Blocks whose bytes differ. What lies beyond the end is zeros.
fn byte_diff(a: &Snap, b: &Snap) -> BTreeSet<u64> {
    let blocks = |snap: &Snap| snap.content.iter().map(|(lba, _)| lba).collect::<Vec<_>>();
    let both = blocks(a).into_iter().chain(blocks(b));
    both.filter(|&lba| a.content.get(lba) != b.content.get(lba)).collect()
}

/// All pages together, or nothing if the two have no common origin.
fn diff(pool: &mut Pool, query: &DiffQuery) -> Result<Option<BTreeSet<u64>>, Stop> {
    let mut found = BTreeSet::new();
    let (mut query, mut last) = (query.clone(), None);
    loop {
        let (extents, next) = match pool.aux(Op::Diff(query.clone()))? {
            Ok(Reply::Diff { extents, next }) => (extents, next),
            Err(Error::Invalid(text)) if text.contains("no common origin") => return Ok(None),
            other => return Err(Stop::Bug(format!("{query:?}: {other:?}"))),
        };
        if extents.len() > query.limit {
            return Err(Stop::Bug(format!("{query:?}: {} extents", extents.len())));
        }
        for (offset, len) in extents {
            let first = offset / BLOCK;
            let inside = offset >= query.offset && next.is_none_or(|next| offset + len <= next);
            if len == 0 || offset % BLOCK != 0 || !inside || last.is_some_and(|last| last > first) {
                return Err(Stop::Bug(format!("{query:?}: {offset}+{len}, next {next:?}")));
            }
            last = Some((offset + len).div_ceil(BLOCK));
            found.extend(first..(offset + len).div_ceil(BLOCK));
        }
        match next {
            Some(next) if next > query.offset => query.offset = next,
            Some(next) => return Err(Stop::Bug(format!("{query:?}: goes on at {next}"))),
            None => return Ok(Some(found)),
        }
    }
}

/// Compares a few pairs; how many had an answer that was not empty.
fn check(pool: &mut Pool, rng: &mut Rng) -> Result<u64, Stop> {
    pool.drain()?;
    if pool.oracle.is_ambiguous() {
        return Ok(0);
    }
    let state = pool.oracle.live().clone();
    let names = names(&state);
    let mut seen = 0;
    for _ in 0..6 {
        let (Some(a), Some(b)) = (rng.pick(&names).cloned(), rng.pick(&names).cloned()) else {
            return Ok(0);
        };
        let (Some(one), Some(other)) = (state.node(&a), state.node(&b)) else { continue };
        let changed = byte_diff(one, other);
        let limit = [1, 2, 7, 1000][rng.below(4) as usize];
        for exact in [false, true] {
            let query = DiffQuery { exact, ..DiffQuery::all(&a, &b, limit) };
            let Some(found) = diff(pool, &query)? else { continue };
            let complain = |what: &str, block| {
                Err(Stop::Bug(format!("{a} {b}, exact {exact}: block {block} {what}")))
            };
            if let Some(block) = changed.difference(&found).next() {
                return complain("differs and is not in it", block);
            }
            if exact && let Some(block) = found.difference(&changed).next() {
                return complain("is in it and does not differ", block);
            }
            seen += u64::from(!changed.is_empty());
        }
    }
    Ok(seen)
}

fn life(pool: &mut Pool, workload: &mut Workload, rng: &mut Rng) -> Result<u64, Stop> {
    pool.open(false)?;
    if rng.one_in(2) {
        pool.set_fuse(Some(rng.range(100, 600)));
    }
    let mut seen = check(pool, rng)?;
    for _ in 0..40 {
        if let Some(cmd) = workload.next(&pool.oracle) {
            pool.submit(cmd)?;
            pool.drain()?;
        }
        if rng.one_in(3) {
            // At rest, or with a fold under way.
            if rng.one_in(2) {
                pool.world.run_until_idle()?;
            }
            seen += check(pool, rng)?;
        }
        if rng.one_in(10) {
            pool.run(Cmd::Checkpoint)?;
        }
    }
    Ok(seen)
}

fn history(seed: u64) -> Result<u64, String> {
    let mut rng = Rng::new(seed);
    // Few contents, so that equal bytes are written over equal ones.
    let palette = [0, 2, 3][seed as usize % 3];
    let mut workload = Workload::new(rng.fork(), palette);
    let layer_bytes = [64 << 10, 2000, 1 << 20][seed as usize % 3];
    let config = cow_engine::Config { layer_bytes, ..small_config(AckMode::Writethrough) };
    let options = PoolOptions { journal_blocks: 512, ..PoolOptions::default() };
    let (mut disk, mut oracle) = (format(&options), Oracle::new(AckMode::Writethrough));
    let mut seen = 0;
    for round in 0..3 {
        let mut pool = Pool::new(disk, oracle, &config, rng.word());
        pool.tolerate(cow_sim::sim::Tolerance { no_space: true, ..Default::default() });
        match caught(|| life(&mut pool, &mut workload, &mut rng)) {
            Ok(more) => seen += more,
            Err(Stop::Crashed) => {}
            Err(Stop::Bug(text)) => {
                return Err(format!("life {round}: {text}{}", tail(pool.trace())));
            }
        }
        (disk, oracle) = pool.crash(Crash::random(&mut rng));
    }
    Ok(seen)
}

#[test]
fn a_diff_is_what_differs() {
    let seen: u64 = for_seeds("a_diff_is_what_differs", 60, history).into_iter().sum();
    println!("a_diff_is_what_differs: {seen} answers that were not empty");
    assert!(seen > 500 || std::env::var("COW_SIM_SEEDS").is_ok(), "only {seen} answers say much");
}

/// What it is worth: faults planted in the comparison are found.
#[test]
fn a_broken_comparison_is_noticed() {
    for (name, what) in [
        ("diffnext", "an answer that is full goes on one block too late"),
        ("difflayer", "what is not folded of the second state is not seen"),
        ("diffclear", "cleared ranges of one state leave the layers of both out"),
    ] {
        mutant::plant(name);
        let found = (0..200).find_map(|seed| Some((seed, history(seed).err()?)));
        mutant::plant("");
        let (seed, text) = found.unwrap_or_else(|| panic!("{name} survives: {what}"));
        println!("{name:>13}: seed {seed:>4}: {what}: {}", text.lines().next().unwrap());
        assert!(history(seed).is_ok(), "{name}: it is another fault that seed {seed} shows");
    }
}

fn must(pool: &mut Pool, op: Op) -> Reply {
    let what = format!("{op:?}");
    match pool.aux(op) {
        Ok(Ok(reply)) => reply,
        other => panic!("{what:.80}: {other:?}"),
    }
}

fn map_nodes_read(pool: &mut Pool) -> u64 {
    match must(pool, Op::Info { exact: false }) {
        Reply::Info(info) => info.stats.map_nodes_read,
        other => panic!("{other:?}"),
    }
}

/// One block of a volume of 1 TiB is written. Every slot on the way to it, on all levels, is taken:
/// whoever does not prune reads 255 nodes a level more.
#[test]
fn one_block_costs_its_path() {
    let options = PoolOptions { blocks: 1 << 18, limit_blocks: 1 << 18, ..PoolOptions::default() };
    let config = cow_engine::Config {
        layer_bytes: 4 << 20,
        cache_bytes: 0,
        ..small_config(AckMode::Writethrough)
    };
    let mut pool = Pool::new(format(&options), Oracle::new(AckMode::Writethrough), &config, 1);
    must(&mut pool, Op::Open { read_only: false });
    must(&mut pool, Op::create_volume("v", 1 << 40, vec![]));
    let open = |pool: &mut Pool, name: &str| match must(
        pool,
        Op::OpenExport { name: name.into(), write: name == "v" },
    ) {
        Reply::Export { export, .. } => export,
        other => panic!("{other:?}"),
    };
    let export = open(&mut pool, "v");
    let write = |pool: &mut Pool, export, lba: u64, byte: u8| {
        let data = cow_format::Buf::from_bytes(&[byte; 4096]);
        must(pool, Op::Write { export, offset: lba * BLOCK, len: BLOCK, data, fua: false });
    };
    // The 16 subtrees below the root (1 TiB is 2^28 blocks, a child of it 2^24), then all children
    // of the first node of level 2, of level 1, and a full leaf.
    for at in (0..16).map(|i| i << 24).chain((0..256).map(|i| i << 16)) {
        write(&mut pool, export, at, 1);
    }
    for at in (0..256).map(|i| i << 8).chain(0..256) {
        write(&mut pool, export, at, 1);
    }
    let snapshot = |pool: &mut Pool, name: &str| {
        let targets = vec![cow_engine::SnapTarget { volume: "v".into(), snapshot: name.into() }];
        must(pool, Op::Snapshot { targets, options: Default::default() });
    };
    snapshot(&mut pool, "a");
    write(&mut pool, export, 77, 2);
    snapshot(&mut pool, "b");
    // With a cold cache.
    must(&mut pool, Op::Close);
    let (disk, oracle) = pool.crash(Crash::random(&mut Rng::new(1)));
    let mut pool = Pool::new(disk, oracle, &config, 1);
    must(&mut pool, Op::Open { read_only: false });
    let (levels, mut total) = (4, 0);
    for (from, to) in [("v@a", "v@b"), ("v@b", "v@a"), ("v@a", "v"), ("v", "v@a")] {
        let before = map_nodes_read(&mut pool);
        let reply = must(&mut pool, Op::Diff(DiffQuery::all(from, to, 100)));
        let Reply::Diff { extents, next } = reply else { panic!("{reply:?}") };
        assert_eq!((extents.as_slice(), next), ([(77 * BLOCK, BLOCK)].as_slice(), None));
        let read = map_nodes_read(&mut pool) - before;
        println!(
            "{from} {to}: {read} map nodes read of {} that each has",
            1 + 16 + 255 + 256 + 255
        );
        assert!(read <= 2 * levels, "{read} nodes");
        total += read;
    }
    assert!(total >= 2 * levels, "something was read at all");
    let before = map_nodes_read(&mut pool);
    must(&mut pool, Op::Diff(DiffQuery::all("v@b", "v", 100)));
    assert_eq!(map_nodes_read(&mut pool), before, "equal roots need no look");

    // What is not folded yet is in the answer, and costs no fold.
    let export = open(&mut pool, "v");
    write(&mut pool, export, 5 << 24, 3);
    must(&mut pool, Op::Discard { export, offset: 1 << 28, len: 1 << 36, fua: false });
    let side = open(&mut pool, "v@b");
    let [from, to] = [side, export].map(DiffSide::Export);
    let query = DiffQuery { from, to, ..DiffQuery::all("", "", 1000) };
    let found = diff(&mut pool, &query).unwrap().expect("one family");
    let mut want: BTreeSet<u64> = (1..256).map(|i| i << 16).collect();
    want.extend([1 << 24, 5 << 24]);
    assert_eq!(found, want);
}
