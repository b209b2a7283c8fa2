//! The file system below is full: a checkpoint waits for room in it, says so, and goes on by itself
//! (decision 10).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, Error, Op, PoolInfo, Reply, SpaceKind};
use cow_format::Buf;
use cow_format::geometry::MIN_POOL_BLOCKS;
use cow_sim::checked::check_disk;
use cow_sim::disk::Faults;
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

fn ask(world: &mut World<Engine>, op: Op) -> Result<Reply, Error> {
    world.run_op(op).expect("the machine answers")
}

fn info(world: &mut World<Engine>) -> PoolInfo {
    match ask(world, Op::Info { exact: false }) {
        Ok(Reply::Info(info)) => *info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_checkpoint_waits_for_room_below_and_says_so() {
    let config = small_config(AckMode::Writethrough);
    let mut world = World::<Engine>::new(format(&PoolOptions::default()), &config, 1);
    assert!(ask(&mut world, Op::Open { read_only: false }).is_ok());
    let create = Op::create_volume("v", 1 << 30, vec![]);
    assert!(ask(&mut world, create).is_ok());
    let opened = ask(&mut world, Op::OpenExport { name: "v".into(), write: true });
    let Ok(Reply::Export { export, .. }) = opened else { panic!("{opened:?}") };
    let data = Buf::from_bytes(&[7; 4096]);
    let write = Op::Write { export, offset: 0, len: 4096, data, fua: true };
    assert!(ask(&mut world, write).is_ok());
    assert_eq!(info(&mut world).stalled, None);

    // The fixed areas have their space since the pool was made.
    world.disk_mut().set_faults(Faults { full: 600..MIN_POOL_BLOCKS, ..Faults::default() }, 1);
    let folded = ask(&mut world, Op::Checkpoint);
    assert!(matches!(folded, Err(Error::NoSpace(SpaceKind::Below))), "{folded:?}");
    let now = info(&mut world);
    assert!(now.stalled.is_some_and(|why| why.contains("below")) && now.poisoned.is_none());
    // For as long as it takes, nothing is lost, and it can be read.
    for _ in 0..100 {
        world.pass(1_000_000_000);
        world.run_until_idle().unwrap();
        assert!(info(&mut world).stalled.is_some());
    }
    let read = ask(&mut world, Op::Read { export, offset: 0, len: 4096 });
    assert!(matches!(read, Ok(Reply::Data { buf, .. }) if buf.block(0)[0] == 7));

    // Somebody makes room.
    let before = info(&mut world).checkpoint_seq;
    world.disk_mut().set_faults(Faults::default(), 1);
    for _ in 0..100 {
        world.pass(10_000_000);
        world.run_until_idle().unwrap();
    }
    let now = info(&mut world);
    assert!(now.stalled.is_none() && now.poisoned.is_none());
    assert!(now.checkpoint_seq > before, "it did not go on");
    assert!(ask(&mut world, Op::Close).is_ok());
    check_disk(world.disk()).unwrap();
}
