//! Short scripts, each about one thing.

use crate::cmd::{Cmd, SnapHow, Target};
use crate::explore::Script;

const BLOCK: u64 = 4096;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A write of `blocks` blocks at block `lba`, made of tokens from `token` on.
#[must_use]
pub fn write(volume: &str, lba: u64, blocks: u64, token: u64) -> Cmd {
    let (offset, len) = (lba * BLOCK, blocks * BLOCK);
    Cmd::Write { volume: volume.to_owned(), offset, len, token, fua: false }
}

/// A discard of `blocks` blocks at block `lba`.
#[must_use]
pub fn discard(volume: &str, lba: u64, blocks: u64) -> Cmd {
    let (offset, len) = (lba * BLOCK, blocks * BLOCK);
    Cmd::Zero { volume: volume.to_owned(), offset, len, discard: true, fua: false }
}

/// A flush.
#[must_use]
pub fn flush(volume: &str) -> Cmd {
    Cmd::Flush { volume: volume.to_owned() }
}

/// A new volume.
#[must_use]
pub fn create(name: &str, size: u64) -> Cmd {
    Cmd::Create { name: name.to_owned(), size }
}

fn targets(names: &[&str]) -> Vec<Target> {
    let split = names.iter().map(|name| name.split_once('@').unwrap_or_default());
    split.map(|(volume, snap)| (volume.to_owned(), snap.to_owned())).collect()
}

/// Snapshots `VOL@SNAP` at one instant.
#[must_use]
pub fn snapshot(names: &[&str]) -> Cmd {
    Cmd::Snapshot { targets: targets(names), tag: 7, how: SnapHow::default() }
}

/// Rolls back to `VOL@SNAP`, of several volumes at once.
#[must_use]
pub fn rollback(names: &[&str]) -> Cmd {
    Cmd::Rollback { targets: targets(names), discard_current: false, force: true }
}

/// Clones `VOL@SNAP`.
#[must_use]
pub fn clone(source: &str, name: &str) -> Cmd {
    let source = targets(&[source]).remove(0);
    Cmd::Clone { source, name: name.to_owned() }
}

/// Deletes `VOL@SNAP` or `VOL` with its snapshots.
#[must_use]
pub fn delete(names: &[&str]) -> Cmd {
    Cmd::Delete { names: names.iter().map(|&name| name.to_owned()).collect(), recursive: true }
}

fn script(name: &'static str, setup: Vec<Cmd>, groups: Vec<Vec<Cmd>>) -> Script {
    Script { name, setup, groups }
}

/// A volume with blocks on two levels of its map, one snapshot, folded.
fn two_states() -> Vec<Cmd> {
    vec![
        create("a", 2 * GIB),
        create("b", 64 * MIB),
        write("a", 0, 4, 100),
        write("a", 80_000, 4, 110),
        write("b", 0, 2, 120),
        snapshot(&["a@one"]),
        Cmd::Checkpoint,
        write("a", 0, 2, 130),
        write("a", 80_002, 4, 140),
        Cmd::Checkpoint,
    ]
}

/// All scripts.
#[must_use]
pub fn all() -> Vec<Script> {
    let mut scripts = data();
    scripts.extend(verbs());
    scripts.extend(folds());
    scripts
}

fn data() -> Vec<Script> {
    let (a, b) = ("a", "b");
    let sized = vec![create(a, GIB), create(b, 16 << 40)];
    vec![
        script(
            "write and flush",
            sized.clone(),
            vec![
                vec![write(a, 0, 1, 1)],
                vec![write(a, 1, 8, 10), write(b, 0, 1, 20)],
                vec![flush(a)],
                vec![write(a, 0, 1, 30), write(b, 1 << 31, 2, 40), write(a, 100, 2, 50)],
                vec![write(a, 0, 2, 60), flush(b)],
                vec![write(b, 0, 1, 70)],
            ],
        ),
        script(
            "fua and unaligned",
            sized.clone(),
            vec![
                vec![Cmd::Write { volume: a.into(), offset: 512, len: 9000, token: 1, fua: true }],
                vec![Cmd::Write { volume: a.into(), offset: 100, len: 50, token: 9, fua: false }],
                vec![write(b, 3, 1, 20), write(a, 50, 1, 30)],
                vec![Cmd::Write { volume: b.into(), offset: 0, len: 512, token: 40, fua: true }],
            ],
        ),
        script(
            "discard",
            two_states(),
            vec![
                vec![discard(a, 1, 2), write(a, 300, 1, 200)],
                vec![flush(a)],
                vec![discard(a, 0, 100_000)],
                vec![write(a, 80_001, 1, 210), discard(b, 0, 64)],
                vec![flush(a)],
                vec![Cmd::Checkpoint],
            ],
        ),
    ]
}

fn verbs() -> Vec<Script> {
    vec![
        script(
            "snapshot",
            two_states(),
            vec![
                vec![write("a", 5, 1, 200)],
                vec![snapshot(&["a@two"])],
                vec![write("a", 5, 1, 210), write("a", 80_000, 1, 220)],
                vec![snapshot(&["a@three"]), write("b", 1, 1, 230)],
                vec![write("a", 6, 1, 240)],
            ],
        ),
        script(
            "group snapshot",
            two_states(),
            vec![
                vec![write("a", 9, 1, 200), write("b", 9, 1, 210)],
                vec![snapshot(&["a@both", "b@both"])],
                vec![write("a", 9, 1, 220), write("b", 9, 1, 230)],
                vec![snapshot(&["b@again", "a@again"]), write("a", 10, 1, 240)],
                vec![rollback(&["a@both", "b@both"])],
                vec![write("b", 9, 1, 250)],
            ],
        ),
        script(
            "rollback and undo",
            two_states(),
            vec![
                vec![write("a", 7, 1, 200)],
                vec![rollback(&["a@one"])],
                vec![write("a", 7, 1, 210), write("a", 1, 1, 220)],
                vec![Cmd::Undo { volume: "a".into(), force: true }],
                vec![write("a", 8, 1, 230)],
                vec![rollback(&["a@one"])],
            ],
        ),
        script(
            "clone",
            two_states(),
            vec![
                vec![clone("a@one", "c")],
                vec![write("c", 0, 1, 200), write("a", 3, 1, 210)],
                vec![snapshot(&["c@mine"])],
                vec![delete(&["a@one"])],
                vec![write("c", 80_000, 2, 220), Cmd::Checkpoint],
                vec![delete(&["a"])],
                vec![Cmd::WaitReclaim],
            ],
        ),
        script(
            "rename, resize, properties",
            two_states(),
            vec![
                vec![Cmd::Rename { name: "a@one".into(), to: "uno".repeat(20) }],
                vec![Cmd::Resize { volume: "a".into(), size: MIB, shrink: true }],
                vec![write("a", 200, 2, 200)],
                vec![Cmd::Resize { volume: "a".into(), size: 4 << 40, shrink: false }],
                vec![write("a", 1 << 29, 1, 210)],
                vec![Cmd::Rename { name: "a".into(), to: "z".into() }],
                vec![Cmd::SetProp { name: "z".into(), key: "k".into(), value: Some("v".into()) }],
                vec![write("z", 0, 1, 220), write("b", 0, 1, 230)],
                vec![Cmd::Checkpoint],
                vec![Cmd::Rename { name: format!("z@{}", "uno".repeat(20)), to: "uno".into() }],
                vec![Cmd::Checkpoint],
            ],
        ),
    ]
}

fn folds() -> Vec<Script> {
    let mut reuse = Vec::new();
    for round in 0..4 {
        let token = 1000 + 100 * round;
        reuse.push(vec![write("a", 0, 4, token), write("a", 80_000, 4, token + 10)]);
        reuse.push(vec![Cmd::Checkpoint]);
    }
    reuse.push(vec![write("a", 0, 8, 2000), flush("a")]);
    vec![
        script(
            "fold",
            two_states(),
            vec![
                vec![write("a", 3, 2, 200), write("b", 3, 1, 210)],
                vec![Cmd::Checkpoint, write("a", 4, 1, 220), write("b", 4, 1, 230)],
                vec![flush("a"), write("a", 9, 1, 240)],
                vec![Cmd::Checkpoint, snapshot(&["a@amid"]), write("a", 3, 1, 250)],
                vec![write("a", 0, 1, 260)],
            ],
        ),
        script(
            "delete and reclaim",
            two_states(),
            vec![
                vec![delete(&["a@one"])],
                vec![write("a", 0, 1, 200), Cmd::Checkpoint],
                vec![Cmd::WaitReclaim],
                vec![write("a", 20, 4, 210), flush("a")],
                vec![Cmd::Checkpoint],
                vec![delete(&["b"]), write("a", 30, 1, 220)],
                vec![Cmd::WaitReclaim],
            ],
        ),
        script("reuse of freed blocks", two_states(), reuse),
    ]
}
