//! Content roots (I16): equal for equal content, whatever the history, and what they cost.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, NewVolume, Op, Reply, SnapOptions, SnapTarget};
use cow_format::{BLOCK_SIZE, Buf, mutant};
use cow_merkle::{Builder, Digest, Page, Pages, Side, compare, leaf_hash};
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::rng::Rng;
use cow_sim::run::for_seeds;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};
use std::collections::BTreeMap;
use std::panic::catch_unwind;

const BLOCK: u64 = BLOCK_SIZE as u64;
const MIB: u64 = 1 << 20;

type Content = BTreeMap<u64, Vec<u8>>;

/// The root straight from the bytes.
fn direct(size: u64, content: &Content) -> Digest {
    let mut builder = Builder::new(size).unwrap();
    for (&lba, bytes) in content {
        let bytes: &[u8; BLOCK_SIZE] = bytes.as_slice().try_into().unwrap();
        builder.push(lba, leaf_hash(lba, bytes)).unwrap();
    }
    builder.finish().unwrap()
}

struct Pool {
    world: World<Engine>,
    config: Config,
    seed: u64,
}

impl Pool {
    fn new(config: Config, seed: u64) -> Self {
        let disk = format(&PoolOptions { blocks: 1 << 16, ..PoolOptions::default() });
        Self::on(disk, config, seed)
    }

    fn on(disk: SimDisk, config: Config, seed: u64) -> Self {
        let mut pool = Self { world: World::new(disk, &config, seed), config, seed };
        pool.must(Op::Open { read_only: false });
        pool
    }

    fn ask(&mut self, op: Op) -> Result<Reply, Error> {
        self.world.run_op(op).expect("the machine answers")
    }

    fn must(&mut self, op: Op) -> Reply {
        let what = format!("{op:?}");
        self.ask(op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
    }

    fn create(&mut self, size: u64) {
        let new = NewVolume { name: "v".into(), size_bytes: size, props: Vec::new() };
        self.must(Op::CreateVolumes { volumes: vec![new], edits: Vec::new() });
    }

    fn through(&mut self, make: impl FnOnce(cow_engine::ExportId) -> Op) {
        let reply = self.must(Op::OpenExport { name: "v".into(), write: true });
        let Reply::Export { export, .. } = reply else { panic!("{reply:?}") };
        self.must(make(export));
        self.must(Op::CloseExport { export });
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (data, len) = (Buf::from_bytes(bytes), bytes.len() as u64);
        self.through(|export| Op::Write { export, offset, len, data, fua: false });
    }

    fn discard(&mut self, lba: u64, blocks: u64) {
        let (offset, len) = (lba * BLOCK, blocks * BLOCK);
        self.through(|export| Op::Discard { export, offset, len, fua: false });
    }

    fn snapshot(&mut self, name: &str) {
        let target = SnapTarget { volume: "v".into(), snapshot: name.into() };
        self.must(Op::Snapshot { targets: vec![target], options: SnapOptions::default() });
    }

    fn root(&mut self, name: &str) -> Digest {
        let reply = self.must(Op::Root { name: name.into() });
        let Reply::Root { root, .. } = reply else { panic!("{reply:?}") };
        Digest(root)
    }

    fn restart(self, how: Crash) -> Self {
        Self::on(self.world.disk().crash(how), self.config, self.seed + 1)
    }

    /// Blocks of data read by `work`.
    fn data_read<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> (T, u64) {
        let count = |pool: &mut Self| {
            let reply = pool.must(Op::Info { exact: false });
            let Reply::Info(info) = reply else { panic!("{reply:?}") };
            pool.world.disk().counts().read.blocks - info.stats.map_nodes_read
        };
        let before = count(self);
        let value = work(self);
        (value, count(self) - before)
    }

    /// Blocks that differ, found through pages.
    fn differing(&mut self, a: &str, b: &str, size: u64) -> Vec<u64> {
        let (root_a, root_b) = (self.root(a), self.root(b));
        let pool = std::cell::RefCell::new(self);
        let mut pages = (Side1 { pool: &pool, name: a }, Side1 { pool: &pool, name: b });
        let mut found = Vec::new();
        compare(
            Side { pages: &mut pages.0, size_bytes: size, root: root_a },
            Side { pages: &mut pages.1, size_bytes: size, root: root_b },
            |block| found.push(block),
        )
        .unwrap();
        found
    }
}

struct Side1<'a, 'b> {
    pool: &'a std::cell::RefCell<&'b mut Pool>,
    name: &'a str,
}

impl Pages for Side1<'_, '_> {
    type Error = String;

    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, String> {
        let op = Op::MerklePage { name: self.name.into(), level, index };
        let reply = self.pool.borrow_mut().must(op);
        let Reply::MerklePage(bytes) = reply else { return Err(format!("{reply:?}")) };
        let bytes: &[u8; BLOCK_SIZE] = bytes.as_slice().try_into().unwrap();
        Ok(Some(Page::from_bytes(level, index, bytes)))
    }
}

fn block(token: u64) -> Vec<u8> {
    let mut rng = Rng::new(token);
    (0..BLOCK_SIZE / 8).flat_map(|_| rng.word().to_le_bytes()).collect()
}

/// Some history of `v`, whose size is at most `size`.
fn wander(mut pool: Pool, size: u64, places: &[u64], rng: &mut Rng) -> Pool {
    let mut small = size.min(MIB);
    pool.create(small);
    let mut snaps: Vec<String> = Vec::new();
    for step in 0..rng.range(5, 40) {
        let fits: Vec<u64> =
            places.iter().copied().filter(|at| (at + 1) * BLOCK <= small).collect();
        let lba = rng.pick(&fits).copied();
        match (rng.below(12), lba) {
            (0..4, Some(lba)) => pool.write(lba * BLOCK, &block(rng.word())),
            (4, Some(lba)) => pool.write(lba * BLOCK, &[0; BLOCK_SIZE]),
            (5, Some(lba)) => pool.discard(lba, rng.range(1, 600).min(small / BLOCK - lba)),
            (6, _) => {
                snaps.push(format!("s{step}"));
                pool.snapshot(&format!("s{step}"));
            }
            (7, _) => {
                let name = rng.pick(&snaps).map_or("v".to_owned(), |snap| format!("v@{snap}"));
                pool.root(&name);
            }
            (8, _) => {
                let Some(snap) = rng.pick(&snaps).cloned() else { continue };
                let target = SnapTarget { volume: "v".into(), snapshot: snap };
                let (targets, edits) = (vec![target], Vec::new());
                let discard_current = rng.one_in(2);
                pool.must(Op::Rollback { targets, discard_current, force: false, edits });
            }
            (9, _) => {
                pool.must(Op::Checkpoint);
                pool = pool.restart(if rng.one_in(2) { Crash::KeepAll } else { Crash::LoseAll });
            }
            (10, _) => {
                pool.must(Op::Checkpoint);
            }
            _ => {}
        }
        // A rollback may have brought a smaller size back.
        if rng.one_in(4) {
            small = size;
        }
        pool.must(Op::Resize { volume: "v".into(), size_bytes: small, shrink: true });
    }
    pool.must(Op::Resize { volume: "v".into(), size_bytes: size, shrink: true });
    pool
}

/// One content, come to in two ways, and the same with one byte changed.
fn two_ways(seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let sizes = [3 * MIB + 512, 64 * MIB, 4096 * MIB, 1 << 40];
    let size = *rng.pick(&sizes).unwrap();
    let blocks = size / BLOCK;
    let mut places: Vec<u64> = (0..rng.range(1, 40)).map(|_| rng.below(blocks)).collect();
    places.extend((0..12).map(|_| rng.below(256)));
    let content: Content =
        places.iter().filter(|at| *at % 3 > 0).map(|&at| (at, block(seed ^ at))).collect();
    let want = direct(size, &content);
    for history in 0..2 {
        let page_bytes = *rng.pick(&[8 << 10, 64 << 10, 1 << 20]).unwrap();
        let config = Config { page_bytes, ..small_config(AckMode::Writethrough) };
        let mut pool = wander(Pool::new(config, seed), size, &places, &mut rng);
        let mut order: Vec<u64> = places.clone();
        order.sort_by_key(|at| cow_sim::rng::mix(at ^ history));
        if rng.one_in(2) {
            pool.discard(0, blocks);
        }
        // What a history has left anywhere but at these places.
        pool.discard(0, 1024.min(blocks));
        for at in &places {
            pool.discard(*at, 600.min(blocks - at));
        }
        for at in order {
            match content.get(&at) {
                Some(bytes) => pool.write(at * BLOCK, bytes),
                None if rng.one_in(2) => pool.write(at * BLOCK, &[0; BLOCK_SIZE]),
                None => pool.discard(at, 1),
            }
        }
        if rng.one_in(2) {
            assert_eq!(pool.root("v"), want, "the head, history {history}");
        }
        pool.snapshot("end");
        assert_eq!(pool.root("v@end"), want, "history {history}");
        let place = rng.below(size);
        let byte = content.get(&(place / BLOCK)).map_or(0, |b| b[(place % BLOCK) as usize]);
        pool.write(place, &[byte ^ (1 << rng.below(8))]);
        pool.snapshot("other");
        assert_ne!(pool.root("v@other"), want);
        assert_eq!(pool.differing("v@end", "v@other", size), [place / BLOCK]);
        pool.must(Op::Checkpoint);
        pool = pool.restart(Crash::LoseAll);
        // Reclaim reads too.
        pool.must(Op::WaitReclaim);
        pool.must(Op::Checkpoint);
        let (root, read) = pool.data_read(|pool| pool.root("v@end"));
        assert_eq!((root, read), (want, 0), "a stored root is read, not computed");
    }
    Ok(())
}

#[test]
fn equal_content_has_equal_roots() {
    for_seeds("equal_content_has_equal_roots", 60, two_ways);
}

/// A volume grows, to a higher tree of hashes too, and its root is made from that of before.
fn grown(seed: u64) -> Result<(), String> {
    let sizes = [MIB, 3 * MIB + 512, 4 * MIB, 64 * MIB, 4096 * MIB, 1 << 40];
    let mut rng = Rng::new(seed);
    let at = rng.index(sizes.len() - 1);
    let (from, to) = (sizes[at], sizes[rng.range(at as u64 + 1, sizes.len() as u64) as usize]);
    let mut pool = Pool::new(small_config(AckMode::Writethrough), seed);
    pool.create(from);
    let mut content = Content::new();
    for _ in 0..rng.range(1, 9) {
        let lba = rng.below(from / BLOCK);
        pool.write(lba * BLOCK, &block(seed ^ lba));
        content.insert(lba, block(seed ^ lba));
    }
    pool.snapshot("small");
    assert_eq!(pool.root("v@small"), direct(from, &content));
    pool.must(Op::Resize { volume: "v".into(), size_bytes: to, shrink: false });
    if rng.one_in(2) {
        let lba = rng.below(to / BLOCK);
        pool.write(lba * BLOCK, &block(lba));
        content.insert(lba, block(lba));
    }
    pool.snapshot("large");
    let (root, read) = pool.data_read(|pool| pool.root("v@large"));
    assert_eq!(root, direct(to, &content), "from {from} to {to} bytes");
    assert!(read <= 1, "{read} blocks read for what has changed");
    Ok(())
}

#[test]
fn a_volume_that_grew_has_the_root_of_its_content() {
    for_seeds("a_volume_that_grew_has_the_root_of_its_content", 60, grown);
}

/// What it is worth: faults planted in the hashing of what has changed are found.
#[test]
fn a_root_that_misses_a_change_is_noticed() {
    type History = fn(u64) -> Result<(), String>;
    let mutants: [(&str, &str, History); 3] = [
        (
            "rootsince",
            "what the first snapshot after an ancestor has written is passed over",
            two_ways,
        ),
        ("roothole", "what was discarded as a whole since an ancestor is passed over", two_ways),
        ("rootsize", "pages of an ancestor of another size are taken as they are", grown),
    ];
    for (name, what, history) in mutants {
        let fails = |seed, name| {
            mutant::plant(name);
            let result = catch_unwind(|| history(seed));
            mutant::plant("");
            !matches!(result, Ok(Ok(())))
        };
        let found = (0..100).find(|&seed| fails(seed, name));
        let seed = found.unwrap_or_else(|| panic!("{name} survives: {what}"));
        println!("{name:>13}: seed {seed:>4}: {what}");
        assert!(!fails(seed, ""), "{name}: it is another fault that seed {seed} shows");
    }
}

/// A volume of 64 MiB with 300 blocks of data, and one that differs in one block.
fn two_snapshots() -> Pool {
    let config = Config {
        layer_bytes: 1 << 20,
        cache_bytes: 16 << 20,
        ..small_config(AckMode::Writethrough)
    };
    let mut pool = Pool::new(config, 7);
    pool.create(64 * MIB);
    for at in 0..300 {
        pool.write(at * 50 * BLOCK, &block(at + 1));
    }
    pool.snapshot("a");
    pool.write(150 * 50 * BLOCK + 77, b"x");
    pool.snapshot("b");
    pool.must(Op::Checkpoint);
    pool
}

#[test]
fn only_what_changed_is_read() {
    let mut pool = two_snapshots();
    assert_eq!(pool.data_read(|pool| pool.root("v@a")).1, 300);
    assert_eq!(pool.data_read(|pool| pool.root("v@b")).1, 1, "of b what a does not have");
    let (found, read) = pool.data_read(|pool| pool.differing("v@a", "v@b", 64 * MIB));
    assert_eq!((found, read), (vec![150 * 50], 0), "pages in memory");
    pool.must(Op::Checkpoint);
    let mut pool = pool.restart(Crash::LoseAll);
    let (roots, read) = pool.data_read(|pool| (pool.root("v@a"), pool.root("v@b")));
    assert!(roots.0 != roots.1 && read == 0, "{read} blocks for two stored roots");
    let (found, read) = pool.data_read(|pool| pool.differing("v@a", "v@b", 64 * MIB));
    assert_eq!((found, read), (vec![150 * 50], 301), "pages made again, each block once");
    assert_eq!(pool.data_read(|pool| pool.root("v")).1, 0, "the head is what b is");
}

#[test]
fn without_room_for_level_one_a_change_costs_its_neighbours() {
    let mut pool = two_snapshots();
    pool.must(Op::Checkpoint);
    let disk = pool.world.disk().crash(Crash::LoseAll);
    // Two pages for each: those of the two upper levels.
    let config = Config { page_bytes: 16 << 10, ..pool.config };
    let mut pool = Pool::on(disk, config, 8);
    let root = pool.root("v@a");
    assert!(pool.data_read(|pool| pool.root("v@b")).1 <= 3, "a page of level 1 is 128 blocks");
    assert_ne!(root, pool.root("v@b"));
    let (found, read) = pool.data_read(|pool| pool.differing("v@a", "v@b", 64 * MIB));
    assert!(found == [150 * 50] && read <= 6, "{found:?}, {read} blocks");
}

#[test]
fn a_bad_block_gives_no_root() {
    let mut pool = two_snapshots();
    let want = block(10);
    let is_bad = |at: &u64| pool.world.disk().peek(*at)[..] == want[..];
    let bad = pool.world.disk().occupied().into_iter().find(is_bad).expect("the block");
    pool.world.disk_mut().poke(bad, [3; BLOCK_SIZE]);
    for _ in 0..2 {
        let error = pool.ask(Op::Root { name: "v@a".into() }).expect_err("a bad block");
        let Error::Corrupt(text) = &error else { panic!("{error}") };
        assert!(
            text.contains("v@a") && text.contains(&format!("byte {}", 9 * 50 * BLOCK)),
            "{text}"
        );
    }
}

#[test]
fn a_delete_does_not_wait_for_a_root() {
    let mut pool = two_snapshots();
    let root = pool.world.start_op(Op::Root { name: "v@a".into() });
    for _ in 0..5 {
        pool.world.pump().unwrap();
    }
    pool.must(Op::Delete { names: vec!["v@a".into()], recursive: false, dry_run: false });
    let answer = loop {
        match pool.world.take_reply() {
            Some((id, answer)) if id == root => break answer,
            Some(_) => {}
            None => pool.world.pump().unwrap(),
        }
    };
    assert!(matches!(answer, Err(Error::NotFound(_))), "{answer:?}");
}

#[test]
fn snapshots_are_sealed_unasked_where_that_is_wanted() {
    for wanted in [false, true] {
        let mut pool = two_snapshots();
        let value = Some(if wanted { "on" } else { "off" }.to_owned());
        pool.must(Op::SetProps { name: String::new(), changes: vec![("roots".into(), value)] });
        pool.must(Op::Checkpoint);
        for _ in 0..2_000 {
            pool.world.pass(5_000_000);
            pool.world.run_until_idle().unwrap();
        }
        pool.must(Op::Checkpoint);
        let mut pool = pool.restart(Crash::LoseAll);
        let read = pool.data_read(|pool| (pool.root("v@a"), pool.root("v@b"))).1;
        assert_eq!(read == 0, wanted, "{read} blocks read, roots wanted unasked: {wanted}");
    }
    let mut pool = two_snapshots();
    let changes = vec![("roots".into(), Some("yes".into()))];
    let error = pool.ask(Op::SetProps { name: "v".into(), changes }).expect_err("no value");
    assert!(matches!(&error, Error::Invalid(text) if text.contains("roots")), "{error}");
}
