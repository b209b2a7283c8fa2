//! All sequences of two verbs.

use super::*;
use crate::scripts::{clone, delete, discard, flush, rollback};

/// The verbs; `at` is 0 for the first of a pair and 1 for the second, so that what they write and
/// name differs.
fn verbs(at: u64) -> Vec<(&'static str, Step)> {
    let token = 1000 + 100 * at;
    let named = |prefix: &str| format!("{prefix}{at}");
    let zero =
        |discard| Cmd::Zero { volume: "a".into(), offset: 0, len: 8192, discard, fua: false };
    let resize = |size| Cmd::Resize { volume: "a".into(), size, shrink: true };
    let group = [format!("a@g{at}"), format!("b@g{at}")];
    let group: Vec<&str> = group.iter().map(String::as_str).collect();
    let set = |name: &str, key: &str, value: &str| Cmd::SetProp {
        name: name.into(),
        key: key.into(),
        value: Some(value.into()),
    };
    let ask = |name, cmd: Cmd| (name, Step::Ask(cmd));
    vec![
        ask("write", write("a", 1 + at, 1, token)),
        ask("overwrite far", write("a", 80_000, 2, token + 10)),
        ask(
            "fua",
            Cmd::Write { volume: "b".into(), offset: 512, len: 4096, token: token + 20, fua: true },
        ),
        ask("discard", discard("a", 0, 90_000)),
        ask("zeroes", zero(false)),
        ask("flush", flush("a")),
        ask("checkpoint", Cmd::Checkpoint),
        ask("reclaim", Cmd::WaitReclaim),
        ask("create", create(&named("n"), MIB)),
        ask("snapshot", snapshot(&[&format!("a@s{at}")])),
        ask("group snapshot", snapshot(&group)),
        ask("rollback", rollback(&["a@one"])),
        ask("group rollback", rollback(&["a@one", "b@one"])),
        ask("undo", Cmd::Undo { volume: "a".into(), force: true }),
        ask("clone", clone("a@one", &named("c"))),
        ask("delete snapshot", delete(&["a@one"])),
        ask("delete volume", delete(&["a"])),
        ask("rename volume", Cmd::Rename { name: "a".into(), to: named("z") }),
        ask("rename snapshot", Cmd::Rename { name: "a@one".into(), to: named("uno") }),
        ask("grow", resize((3 + at) * GIB)),
        ask("shrink", resize(4608 - 512 * at)),
        ask("property", set("a@one", "k", &named("v"))),
        ask("limit", set("a", "limit", "1")),
        ask("hold", Cmd::Hold { name: "a@one".into(), tag: named("t"), set: true }),
        ask("keep", set("b", "keep", "last=1")),
        ask("prune", Cmd::Prune { volumes: vec!["b".into()] }),
        ("grow pool", Also::GrowPool((2 + at) * cow_format::geometry::MIN_POOL_BLOCKS).into()),
        ("trim pool", Also::TrimPool.into()),
        ("root", Also::Root("a@one").into()),
    ]
}

/// Every ordered pair of verbs, on a pool that has two states.
#[must_use]
pub fn pairs() -> Vec<Workload> {
    let mut all = Vec::new();
    for (first, begin) in verbs(0) {
        for (second, then) in verbs(1) {
            let groups = vec![one(begin.clone()), one(then)];
            all.push(workload(&format!("{first}, {second}"), two_states(), groups));
        }
    }
    all
}
