//! Discards and zeros in a pool whose discard tier is used up (design section 7): they work where
//! that takes no space in the end, else a hint is ignored and WRITE_ZEROES is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Config, Engine, Error, ExportId, Op, Reply, SnapTarget};
use cow_format::Buf;
use cow_sim::checked::check_disk;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

const BLOCK: u64 = 4096;
const LEAF: u64 = 256 * BLOCK;

struct Pool {
    world: World<Engine>,
    shared: ExportId,
    own: ExportId,
}

fn ask(world: &mut World<Engine>, op: Op) -> Result<Reply, Error> {
    world.run_op(op).expect("the machine answers")
}

fn must(world: &mut World<Engine>, op: Op) -> Reply {
    let what = format!("{op:?}");
    ask(world, op).unwrap_or_else(|error| panic!("{what:.80}: {error}"))
}

fn open(world: &mut World<Engine>, name: &str) -> ExportId {
    must(world, Op::create_volume(name, 4 << 30, vec![]));
    match must(world, Op::OpenExport { name: name.into(), write: true }) {
        Reply::Export { export, .. } => export,
        other => panic!("{other:?}"),
    }
}

fn write(world: &mut World<Engine>, export: ExportId, offset: u64, blocks: u64) -> bool {
    let mut data = Buf::zeroed(blocks as usize);
    data.fill(0x5a);
    match ask(world, Op::Write { export, offset, len: blocks * BLOCK, data, fua: false }) {
        Ok(_) => true,
        Err(Error::NoSpace(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn data_bytes(world: &mut World<Engine>) -> u64 {
    match must(world, Op::Info { exact: true }) {
        Reply::Info(info) => {
            assert_eq!(info.poisoned, None);
            info.data_bytes
        }
        other => panic!("{other:?}"),
    }
}

fn zeroes(world: &mut World<Engine>, export: ExportId, offset: u64, len: u64) -> bool {
    match ask(world, Op::WriteZeroes { export, offset, len, fua: false }) {
        Ok(_) => true,
        Err(Error::NoSpace(_)) => false,
        Err(error) => panic!("{error}"),
    }
}

fn discard(world: &mut World<Engine>, export: ExportId, offset: u64, len: u64) {
    must(world, Op::Discard { export, offset, len, fua: false });
}

fn is_hole(world: &mut World<Engine>, export: ExportId, offset: u64) -> bool {
    match must(world, Op::Extents { export, offset, len: BLOCK }) {
        Reply::Extents(extents) => !extents[0].mapped,
        other => panic!("{other:?}"),
    }
}

/// A volume in a snapshot, with a block in each of 3,000 leaves, and one that nothing shares; full
/// to the end of the discard tier.
fn exhausted() -> Pool {
    let config = Config { layer_bytes: 8 << 20, ..small_config(AckMode::Writethrough) };
    let mut world = World::<Engine>::new(format(&PoolOptions::default()), &config, 3);
    must(&mut world, Op::Open { read_only: false });
    let (shared, own) = (open(&mut world, "shared"), open(&mut world, "own"));
    for leaf in 0..3000 {
        assert!(write(&mut world, shared, leaf * LEAF, 2));
    }
    for leaf in 0..20 {
        assert!(write(&mut world, own, leaf * LEAF, 8));
    }
    let targets = vec![SnapTarget { volume: "shared".into(), snapshot: "s".into() }];
    must(&mut world, Op::Snapshot { targets, options: Default::default() });
    let (mut at, mut run) = (1000 * LEAF, 1024);
    while run > 0 {
        if write(&mut world, own, at, run) { at += run * BLOCK } else { run /= 2 }
    }
    must(&mut world, Op::Checkpoint);
    let cleared =
        (0..3000).take_while(|leaf| zeroes(&mut world, shared, leaf * LEAF, BLOCK)).count();
    assert!((500..2500).contains(&cleared), "{cleared} leaves were cleared in part");
    Pool { world, shared, own }
}

#[test]
fn a_discard_works_on_what_the_head_owns() {
    let Pool { mut world, shared, own } = exhausted();
    // As often as one likes, in part and as a whole; every block comes back.
    for round in 0..7 {
        for leaf in 0..20 {
            let before = data_bytes(&mut world);
            discard(&mut world, own, leaf * LEAF + round * BLOCK, BLOCK);
            assert_eq!(before - data_bytes(&mut world), BLOCK, "round {round}, leaf {leaf}");
        }
    }
    assert!(zeroes(&mut world, own, 0, 10 * LEAF), "over several leaves and holes");
    assert!(
        is_hole(&mut world, own, 7 * BLOCK) && !is_hole(&mut world, own, 12 * LEAF + 7 * BLOCK)
    );
    // A leaf that was written since the snapshot is the head's own, though not all that it has.
    let before = data_bytes(&mut world);
    discard(&mut world, shared, BLOCK, BLOCK);
    assert!(is_hole(&mut world, shared, BLOCK) && data_bytes(&mut world) == before);
    check_disk(world.disk()).unwrap();
}

#[test]
fn a_discard_of_what_a_snapshot_shares_is_ignored() {
    let Pool { mut world, shared, own } = exhausted();
    let before = data_bytes(&mut world);
    discard(&mut world, shared, 2900 * LEAF, BLOCK);
    assert!(!is_hole(&mut world, shared, 2900 * LEAF), "it took effect");
    assert!(!zeroes(&mut world, shared, 2900 * LEAF, BLOCK), "zeros were accepted");
    assert!(
        !zeroes(&mut world, shared, 0, 3000 * LEAF),
        "zeros were accepted, of which one is owned"
    );
    // Of a range that is shared in part the rest goes.
    discard(&mut world, shared, 0, 3000 * LEAF);
    assert!(is_hole(&mut world, shared, BLOCK) && !is_hole(&mut world, shared, 2900 * LEAF));
    assert_eq!(data_bytes(&mut world), before, "the snapshot has it all");
    // With the snapshot gone it is all the head's own.
    must(
        &mut world,
        Op::Delete { names: vec!["shared@s".into()], recursive: false, dry_run: false },
    );
    must(&mut world, Op::WaitReclaim);
    discard(&mut world, shared, 0, 3000 * LEAF);
    discard(&mut world, own, 0, 4 << 30);
    must(&mut world, Op::WaitReclaim);
    assert_eq!(data_bytes(&mut world), 0);
    check_disk(world.disk()).unwrap();
}
