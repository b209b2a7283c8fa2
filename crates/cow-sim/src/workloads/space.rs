//! Space: of the pool, of what lies below, and what is computed of what is stored.

use super::*;
use crate::scripts::{delete, discard, flush, rollback};

/// Blocks of the pools with [`Room::Plenty`].
const BLOCKS: u64 = cow_format::geometry::MIN_POOL_BLOCKS;

pub(super) fn all() -> Vec<Workload> {
    let mut all = below();
    all.extend(full());
    all.extend(computed());
    all
}

fn below() -> Vec<Workload> {
    let mut full_below = workload(
        "the file system below runs full",
        vec![create("a", GIB), write("a", 0, 2, 100), snapshot(&["a@one"]), Cmd::Checkpoint],
        vec![
            one(write("a", 0, 40, 200)),
            one(write("a", 300, 40, 300)),
            one(flush("a")),
            one(write("a", 600, 40, 400)),
            one(Cmd::Checkpoint),
            one(discard("a", 0, 200)),
            one(Cmd::Checkpoint),
        ],
    );
    full_below.room = Room::Below(600);
    vec![
        workload(
            "the pool grows",
            two_states(),
            vec![
                vec![write("a", 9, 1, 200).into(), Also::GrowPool(2 * BLOCKS).into()],
                one(write("a", 0, 2, 210)),
                one(Also::GrowPool(2 * BLOCKS + 5000)),
                one(Cmd::Checkpoint),
                one(write("b", 0, 2, 220)),
                one(flush("b")),
            ],
        ),
        workload(
            "the pool grows in a fold",
            two_states(),
            vec![
                vec![Cmd::Checkpoint.into(), Also::GrowPool(3 * BLOCKS).into()],
                vec![write("a", 0, 2, 200).into(), Also::GrowPool(4 * BLOCKS).into()],
                vec![Cmd::Checkpoint.into(), write("a", 1, 1, 210).into()],
            ],
        ),
        workload(
            "all free space goes below",
            two_states(),
            vec![
                one(delete(&["a@one"])),
                one(discard("a", 0, 8)),
                vec![write("b", 0, 1, 200).into(), Also::TrimPool.into()],
                one(write("a", 0, 4, 210)),
                one(Also::TrimPool),
                one(flush("a")),
            ],
        ),
        workload(
            "freed space goes below by itself",
            two_states(),
            vec![
                one(delete(&["a@one"])),
                one(Cmd::WaitReclaim),
                one(Cmd::Checkpoint),
                one(Also::Pass(120 * SECOND)),
                one(write("a", 0, 4, 200)),
                one(flush("a")),
            ],
        ),
        workload(
            "a fold by the clock",
            two_states(),
            vec![
                one(write("a", 0, 1, 200)),
                one(Also::Pass(40 * SECOND)),
                one(write("a", 0, 1, 210)),
                one(Also::Pass(SECOND)),
            ],
        ),
        full_below,
    ]
}

fn full() -> Vec<Workload> {
    let base = vec![create("a", GIB), write("a", 0, 40, 100), snapshot(&["a@one"])];
    let mut full = workload(
        "a full pool",
        base.clone(),
        vec![
            one(write("a", 0, 400, 1000)),
            one(write("a", 500, 400, 2000)),
            one(delete(&["a@one"])),
            one(write("a", 100, 200, 3000)),
            one(discard("a", 0, 300)),
            one(Cmd::Checkpoint),
            one(write("a", 0, 100, 4000)),
        ],
    );
    full.room = Room::Little;
    let mut base = base;
    for round in 0..3 {
        base.push(write("a", 0, 30, 1000 + 100 * round));
        base.push(rollback(&["a@one"]));
    }
    let mark = Some("80".to_owned());
    base.push(Cmd::SetProp { name: String::new(), key: "undo-for-space".into(), value: mark });
    let mut undo_goes = workload(
        "undo snapshots go for want of space",
        base,
        vec![
            one(write("a", 100, 200, 2000)),
            one(write("a", 400, 200, 3000)),
            one(write("a", 700, 200, 4000)),
            one(Also::Pass(60 * SECOND)),
            one(write("a", 0, 60, 5000)),
            one(flush("a")),
        ],
    );
    undo_goes.room = Room::Little;
    undo_goes.lets_go = true;
    vec![full, undo_goes]
}

fn computed() -> Vec<Workload> {
    vec![
        workload(
            "content roots",
            two_states(),
            vec![
                one(Also::Root("a@one")),
                one(write("a", 0, 1, 200)),
                one(snapshot(&["a@two"])),
                vec![write("a", 0, 1, 210).into(), Also::Root("a@two").into()],
                one(Cmd::Checkpoint),
                one(Also::Root("a")),
                one(delete(&["a@one"])),
                one(Also::Root("a@two")),
                one(Cmd::Checkpoint),
            ],
        ),
        workload(
            "roots and sizes of what is deleted",
            two_states(),
            vec![
                vec![delete(&["a@one"]).into(), Also::Root("a@one").into()],
                vec![Cmd::Checkpoint.into(), Also::Size("b@one").into()],
                vec![delete(&["b"]).into(), Also::Root("b").into()],
                one(Cmd::WaitReclaim),
            ],
        ),
        workload(
            "comparisons",
            two_states(),
            vec![
                vec![write("a", 0, 1, 200).into(), Also::Diff("a@one", "a").into()],
                vec![Cmd::Checkpoint.into(), Also::Diff("a", "a@one").into()],
                one(discard("a", 0, 100)),
                one(Also::Diff("a@one", "a")),
                one(Also::Size("a@one")),
            ],
        ),
    ]
}
