//! Random histories.

use super::oracle::{World, pick};
use super::*;
use crate::Stream;
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

const STREAMS: [Stream; 3] = [Stream::Random, Stream::Sequential, Stream::Meta];

fn step(world: &mut World, rng: &mut Rng, max_resident: usize) {
    let limit = world.geometry.limit_blocks;
    match rng.below(100) {
        0..=44 => {
            let want = [1, 1, 8, 100, 256, 3000][rng.below(6) as usize];
            let stream = STREAMS[rng.below(3) as usize];
            for _ in 0..rng.below(40) {
                world.allocate(stream, 1 + rng.below(want) as u32);
            }
        }
        45..=49 => world.allocate_chunk([1, 512, 600, 5000][rng.below(4) as usize]),
        50..=61 => (0..rng.below(30)).for_each(|_| world.give_back(rng)),
        62..=69 if world.fold.is_none() => world.begin_fold(rng),
        62..=79 => {
            world.stage_next();
        }
        80..=90 => world.commit(),
        91..=92 => world.abort(),
        93..=94 => {
            let phys = match pick(rng, world.unfolded.len()) {
                Some(index) if rng.chance(50) => world.unfolded[index],
                _ => Phys(rng.below(world.pool_blocks)),
            };
            world.withhold(phys);
        }
        95..=96 => {
            let most = [10, 3000, 50_000][rng.below(3) as usize];
            let by = rng.below(most);
            world.grow((world.pool_blocks + by).min(limit));
        }
        97 => world.reopen(rng, max_resident),
        _ => (0..6).for_each(|_| world.discard(rng)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// No block is handed out that anything refers to, free counts are exact, and pages say what
    /// the checkpoint refers to: whatever happens in whatever order, with hardly any zone
    /// resident.
    #[test]
    fn histories(seed: u64, max_resident in 1usize..4, small: bool) {
        let mut rng = Rng(seed);
        let zones = if small { 1 } else { 5 };
        let limit = (zones + 1) * ZONE_BLOCKS + if small { 9000 } else { ZONE_BLOCKS - 77 };
        let mut world = World::new(zones * ZONE_BLOCKS + 1000, limit, max_resident);
        for _ in 0..120 {
            step(&mut world, &mut rng, max_resident);
            world.check();
        }
        // To the last block.
        while world.allocate(STREAMS[rng.below(3) as usize], 1 + rng.below(5000) as u32) {}
        prop_assert_eq!(world.alloc.free_blocks(), 0);
        world.check();
    }
}
