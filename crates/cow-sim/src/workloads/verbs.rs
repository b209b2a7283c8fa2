//! Verbs of the tree and the namespace.

use super::*;
use crate::cmd::SnapHow;
use crate::model::{FAR_AHEAD_NS, LONG_AGO_NS};
use crate::scripts::{delete, flush, rollback};

fn set(name: &str, key: &str, value: Option<&str>) -> Cmd {
    let value = value.map(str::to_owned);
    Cmd::SetProp { name: name.to_owned(), key: key.to_owned(), value }
}

fn resize(volume: &str, size: u64) -> Cmd {
    Cmd::Resize { volume: volume.to_owned(), size, shrink: true }
}

fn rename(name: &str, to: &str) -> Cmd {
    Cmd::Rename { name: name.to_owned(), to: to.to_owned() }
}

fn hold(name: &str, tag: &str, set: bool) -> Cmd {
    Cmd::Hold { name: name.to_owned(), tag: tag.to_owned(), set }
}

fn timed(volume: &str, snap: &str, expiry_ns: u64) -> Cmd {
    let targets = vec![(volume.to_owned(), snap.to_owned())];
    Cmd::Snapshot { targets, tag: 3, how: SnapHow { auto: true, expiry_ns } }
}

fn undo(volume: &str) -> Cmd {
    Cmd::Undo { volume: volume.to_owned(), force: true }
}

fn prune(volumes: &[&str]) -> Cmd {
    Cmd::Prune { volumes: volumes.iter().map(|&name| name.to_owned()).collect() }
}

/// Several groups of one.
fn in_turn(cmds: Vec<Cmd>) -> Vec<Vec<Step>> {
    cmds.into_iter().map(one).collect()
}

pub(super) fn all() -> Vec<Workload> {
    let mut all = names();
    all.extend(properties());
    all.extend(rollbacks());
    all
}

fn names() -> Vec<Workload> {
    // What a fold has frozen ends before all three that follow: of those it may have nothing.
    let mut late = workload(
        "delete during a checkpoint",
        two_states(),
        vec![
            all_at_once(vec![Cmd::Checkpoint, write("b", 5, 1, 200), delete(&["a@one"])]),
            one(write("a", 9, 1, 210)),
            one(Cmd::Checkpoint),
        ],
    );
    late.ack = AckMode::Writeback;
    vec![
        late,
        workload(
            "create and delete",
            two_states(),
            in_turn(vec![
                create("n", GIB),
                write("n", 0, 1, 200),
                delete(&["n"]),
                create("n", MIB),
                write("n", 0, 1, 210),
                flush("n"),
            ]),
        ),
        workload(
            "a volume grows",
            two_states(),
            in_turn(vec![
                resize("b", 80 * MIB + 512),
                write("b", 18_000, 1, 200),
                resize("b", 4 << 40),
                write("b", 1 << 29, 1, 210),
                Cmd::Checkpoint,
            ]),
        ),
        workload(
            "a volume shrinks and grows",
            two_states(),
            in_turn(vec![
                resize("a", 4096 + 512),
                resize("a", GIB),
                write("a", 2, 1, 200),
                resize("a", 512),
                Cmd::Checkpoint,
                resize("a", 2 * GIB),
            ]),
        ),
        workload(
            "rename",
            two_states(),
            in_turn(vec![
                rename("a", "z"),
                write("z", 0, 1, 200),
                rename("b@one", "uno"),
                rename("b", "a"),
                write("a", 0, 1, 210),
                rename("z", "b"),
            ]),
        ),
        workload(
            "group delete",
            two_states(),
            in_turn(vec![
                snapshot(&["a@two", "b@two"]),
                write("a", 0, 1, 200),
                delete(&["a@one", "b@one", "a@two"]),
                Cmd::Checkpoint,
                Cmd::WaitReclaim,
            ]),
        ),
        workload("delete all", two_states(), in_turn(vec![delete(&["a", "b"]), Cmd::WaitReclaim])),
    ]
}

fn properties() -> Vec<Workload> {
    let mut expires = workload(
        "snapshots expire by themselves",
        vec![
            create("a", MIB),
            write("a", 0, 1, 100),
            timed("a", "soon", crate::world::WALL_START_NS + 900 * SECOND),
            write("a", 0, 1, 110),
            timed("a", "late", FAR_AHEAD_NS),
            write("a", 0, 1, 120),
        ],
        vec![one(Also::Pass(1200 * SECOND)), one(write("a", 1, 1, 130)), one(Cmd::Checkpoint)],
    );
    expires.lets_go = true;
    vec![
        workload(
            "properties",
            two_states(),
            in_turn(vec![
                set("a", "k", Some("v")),
                set("a@one", "long", Some(&"x".repeat(3000))),
                set("", "pool", Some("p")),
                set("a", "k", None),
                Cmd::Checkpoint,
                set("a@one", "long", None),
                set("", "pool", Some("q")),
            ]),
        ),
        workload(
            "holds",
            two_states(),
            in_turn(vec![
                hold("a@one", "backup", true),
                delete(&["a@one"]),
                hold("a@one", "other", true),
                hold("a@one", "backup", false),
                Cmd::Checkpoint,
                hold("a@one", "other", false),
                delete(&["a@one"]),
            ]),
        ),
        workload(
            "limits",
            two_states(),
            in_turn(vec![
                set("a", "limit", Some("2")),
                snapshot(&["a@two"]),
                snapshot(&["a@three"]),
                set("b", "group", Some("g")),
                set("", "limit:g", Some("1")),
                snapshot(&["b@two"]),
            ]),
        ),
        workload(
            "prune by rule",
            two_states(),
            in_turn(vec![
                snapshot(&["a@two"]),
                write("a", 0, 1, 200),
                snapshot(&["a@three"]),
                set("a", "keep", Some("last=1")),
                prune(&["a"]),
                Cmd::WaitReclaim,
            ]),
        ),
        workload(
            "prune of what has expired",
            two_states(),
            in_turn(vec![
                timed("a", "gone", LONG_AGO_NS),
                write("a", 0, 1, 200),
                timed("b", "stays", FAR_AHEAD_NS),
                timed("b", "gone", LONG_AGO_NS),
                prune(&[]),
                Cmd::Checkpoint,
            ]),
        ),
        expires,
        workload(
            "budget and reserve",
            two_states(),
            in_turn(vec![
                set("a", "budget", Some("64K")),
                write("a", 100, 4, 200),
                set("b", "reserve", Some("1M")),
                write("b", 5, 2, 210),
                Cmd::Checkpoint,
                set("a", "budget", None),
            ]),
        ),
    ]
}

fn rollbacks() -> Vec<Workload> {
    let mut chain = Vec::new();
    for round in 0..5 {
        chain.push(write("a", 0, 1, 1000 + round));
        chain.push(rollback(&["a@one"]));
    }
    let discarding = |volume: &str| Cmd::Rollback {
        targets: vec![(volume.to_owned(), "one".to_owned())],
        discard_current: true,
        force: true,
    };
    vec![
        workload("rollbacks until undo snapshots are thinned out", two_states(), in_turn(chain)),
        workload(
            "undo of undo",
            two_states(),
            in_turn(vec![
                rollback(&["a@one"]),
                undo("a"),
                undo("a"),
                write("a", 0, 1, 200),
                undo("a"),
                Cmd::Checkpoint,
            ]),
        ),
        workload(
            "rollback that keeps nothing",
            two_states(),
            in_turn(vec![
                discarding("a"),
                write("a", 0, 1, 200),
                discarding("a"),
                Cmd::Checkpoint,
                write("a", 0, 1, 210),
                Cmd::WaitReclaim,
            ]),
        ),
        workload(
            "group rollback under writes",
            two_states(),
            vec![
                all_at_once(vec![write("a", 9, 1, 200), write("b", 9, 1, 210)]),
                all_at_once(vec![rollback(&["a@one", "b@one"])]),
                one(write("b", 9, 1, 220)),
                one(rollback(&["b@one", "a@one"])),
                one(Cmd::Checkpoint),
            ],
        ),
    ]
}
