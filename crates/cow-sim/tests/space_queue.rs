//! What still works in a pool that is full to the last block.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod pool;

use cow_engine::{Error, Op, SpaceKind};
use cow_sim::rng::Rng;
use pool::{BLOCK, Pool, write};

/// To write a block anew takes one and gives one back: many at once wait for each other, and none
/// is refused. Those that take a block for good are, once nothing is on its way back.
#[test]
fn overwrites_wait_for_each_other() {
    for sparse in [false, true] {
        println!("sparse: {sparse}");
        let mut pool = Pool::new(sparse);
        let vm = pool.volume("vm", 1 << 30, &[]);
        let filled = pool.fill(vm, 0);
        assert!(filled > 20_000);
        // Room for a few of them at a time.
        pool.must(Op::Discard { export: vm, offset: 0, len: 16 * BLOCK, fua: false });
        let mut rng = Rng::new(5);
        for _ in 0..6 {
            let at = |_| write(vm, rng.range(16, filled), 1);
            let ops: Vec<Op> = (0..64).map(at).collect();
            pool.all(ops);
        }
        let long = pool.write(vm, filled, 64);
        assert!(matches!(long, Err(Error::NoSpace(SpaceKind::Pool))), "{long:?}");
        // Those who wait behind one that is refused have their turn.
        let far = filled + 1000;
        let ops =
            (0..32).map(|i| if i % 4 == 0 { write(vm, far, 64) } else { write(vm, 16 + i, 1) });
        let mut left: Vec<_> = ops.map(|op| pool.world.start_op(op)).collect();
        let mut refused = 0;
        while !left.is_empty() {
            pool.world.pump().unwrap();
            while let Some((id, result)) = pool.world.take_reply() {
                left.retain(|other| *other != id);
                match result {
                    Ok(_) => {}
                    Err(Error::NoSpace(SpaceKind::Pool)) => refused += 1,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        assert_eq!(refused, 8);
        pool.check();
    }
}
