//! A pool that is opened more often than its superblock has room for fences, and never gets to a
//! checkpoint in between.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, ExportId, Op, Reply};
use cow_format::Buf;
use cow_format::superblock::{COPY_BLOCKS, MAX_FENCES, Superblock};
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};

fn must(world: &mut World<Engine>, op: Op) -> Reply {
    let what = format!("{op:?}");
    world.run_op(op).unwrap().unwrap_or_else(|error| panic!("{what:.80}: {error}"))
}

fn fences(disk: &SimDisk) -> usize {
    let copies = COPY_BLOCKS.iter().enumerate();
    let read = copies.filter_map(|(i, &at)| Superblock::decode(&disk.peek(at), i).ok());
    read.max_by_key(|sb| sb.sequence).unwrap().fences.len()
}

const LIVES: u64 = MAX_FENCES as u64 + 20;

fn check(world: &mut World<Engine>, export: ExportId, life: u64) {
    for old in 0..life {
        let read = must(world, Op::Read { export, offset: old * 4096, len: 4096 });
        assert!(matches!(read, Reply::Data { buf, .. } if buf.block(0)[0] == old as u8 + 1));
    }
}

#[test]
fn more_openings_than_fences_fit() {
    let config = small_config(AckMode::Writethrough);
    let mut disk = format(&PoolOptions::default());
    let mut most = 0;
    for life in 0..LIVES {
        let mut world = World::<Engine>::new(disk, &config, life);
        must(&mut world, Op::Open { read_only: false });
        most = most.max(fences(world.disk()));
        if life == 0 {
            must(&mut world, Op::create_volume("v", 1 << 30, vec![]));
        }
        let opened = must(&mut world, Op::OpenExport { name: "v".into(), write: true });
        let Reply::Export { export, .. } = opened else { panic!("{opened:?}") };
        if life > LIVES - 3 {
            check(&mut world, export, life);
        }
        // Two frames, so that each fence has an end of its own; the second is lost.
        for (lba, fua) in [(life, true), (life + 1, false)] {
            let data = Buf::from_bytes(&[life as u8 + 1; 4096]);
            must(&mut world, Op::Write { export, offset: lba * 4096, len: 4096, data, fua });
        }
        disk = world.disk().crash(Crash::LoseAll);
    }
    assert_eq!(most, MAX_FENCES, "the list was never full");
}
