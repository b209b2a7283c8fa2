//! Clones, branch points and what a walk takes apart.

use super::*;
use crate::scripts::{clone, delete, discard, flush, rollback};

/// Blocks below a map node of level 1.
const SPAN: u64 = 256 * 256;

/// A volume of 16 TiB with one block in each of some leaves, spread over subtrees of level 1.
fn scattered() -> Vec<Cmd> {
    let mut all = vec![create("v", 16 << 40)];
    all.extend((0..6).map(|i| write("v", i % 3 * SPAN + i / 3 * 256, 1, 100 + 3 * i)));
    all.extend([snapshot(&["v@one"]), write("v", 0, 1, 190), Cmd::Checkpoint]);
    all
}

/// A golden image with two clones that have each let go of a part, and no snapshot any more.
fn image() -> Vec<Cmd> {
    vec![
        create("gold", GIB),
        write("gold", 0, 6, 100),
        snapshot(&["gold@v1"]),
        clone("gold@v1", "c"),
        clone("gold@v1", "d"),
        discard("c", 0, 3),
        Cmd::Checkpoint,
    ]
}

pub(super) fn all() -> Vec<Workload> {
    let one_each = |cmds: Vec<Cmd>| cmds.into_iter().map(one).collect::<Vec<_>>();
    vec![
        workload(
            "a clone of a clone",
            two_states(),
            one_each(vec![
                clone("a@one", "c"),
                write("c", 0, 1, 200),
                snapshot(&["c@mine"]),
                clone("c@mine", "d"),
                write("d", 0, 1, 210),
                Cmd::Checkpoint,
                delete(&["c"]),
                write("d", 1, 1, 220),
            ]),
        ),
        workload(
            "a clean clone",
            two_states(),
            one_each(vec![
                clone("a@one", "c"),
                Cmd::Checkpoint,
                write("c", 80_000, 1, 200),
                Cmd::Checkpoint,
            ]),
        ),
        workload(
            "trim of a branch point",
            image(),
            one_each(vec![
                delete(&["gold"]),
                Cmd::Checkpoint,
                discard("d", 1, 4),
                Cmd::Checkpoint,
                Cmd::WaitReclaim,
                write("c", 4, 1, 200),
                Cmd::Checkpoint,
            ]),
        ),
        workload(
            "the last branch goes",
            image(),
            one_each(vec![
                delete(&["gold"]),
                Cmd::WaitReclaim,
                delete(&["c"]),
                Cmd::Checkpoint,
                write("d", 2, 1, 200),
                Cmd::WaitReclaim,
            ]),
        ),
        workload(
            "a snapshot between two goes",
            two_states(),
            one_each(vec![
                snapshot(&["a@two"]),
                write("a", 0, 2, 200),
                snapshot(&["a@three"]),
                Cmd::Checkpoint,
                delete(&["a@two"]),
                write("a", 1, 1, 210),
                Cmd::Checkpoint,
                Cmd::WaitReclaim,
            ]),
        ),
        workload(
            "a discard is cut off and given back",
            scattered(),
            one_each(vec![
                delete(&["v@one"]),
                discard("v", 0, 4 * SPAN),
                Cmd::Checkpoint,
                write("v", 7, 1, 200),
                Cmd::Checkpoint,
                Cmd::WaitReclaim,
            ]),
        ),
        workload(
            "what is cut off is snapshotted",
            scattered(),
            one_each(vec![
                discard("v", 0, 4 * SPAN),
                snapshot(&["v@two"]),
                Cmd::Checkpoint,
                clone("v@one", "c"),
                delete(&["v@two"]),
                Cmd::Checkpoint,
                rollback(&["v@one"]),
                Cmd::WaitReclaim,
            ]),
        ),
        workload(
            "writes while deleted snapshots are walked",
            scattered(),
            vec![
                one(delete(&["v@one"])),
                all_at_once(vec![Cmd::Checkpoint, write("v", 0, 1, 200), write("v", 256, 1, 210)]),
                all_at_once(vec![Cmd::WaitReclaim, write("v", SPAN, 1, 220), flush("v")]),
            ],
        ),
    ]
}
