//! I13: what concurrent clients see is what one client after the other could have seen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::{AckMode, Engine, Op as EngineOp, Reply, SnapTarget};
use cow_format::mutant;
use cow_sim::disk::Faults;
use cow_sim::linear::clients::{Recorded, Setup, record};
use cow_sim::linear::state::State;
use cow_sim::linear::{Call, Node, Op, Verdict, brute, check, judge};
use cow_sim::rng::mix;
use cow_sim::run::{caught, for_seeds};
use cow_sim::world::World;
use cow_sim::{PoolOptions, format, small_config};
use proptest::prelude::*;

fn setup(seed: u64, clients: u32) -> Setup {
    let moving = seed % 4 == 3;
    let data_error_ppm = if moving { 200_000 } else { 0 };
    Setup {
        clients,
        // Some are long: folds, walks of what was deleted, and much that was rolled back.
        operations: if seed.is_multiple_of(40) { 1500 } else { 120 },
        ack: match seed % 8 {
            0 | 4 => AckMode::Journaled,
            1 | 5 => AckMode::Writethrough,
            _ => AckMode::Writeback,
        },
        layer_bytes: [64 << 10, 2000, 500][(seed / 8) as usize % 3],
        faults: Faults { data_error_ppm, ..Faults::default() },
        // Half of the seeds as they are woken, as in a program.
        task_order: if seed.is_multiple_of(2) { 0 } else { mix(seed) | 1 },
    }
}

fn run(seed: u64, clients: u32) -> Result<Recorded, String> {
    let recorded = record(seed, &setup(seed, clients))?;
    judge(&recorded.initial, &recorded.ops)?;
    Ok(recorded)
}

#[test]
fn histories_are_linearizable() {
    let all = for_seeds("histories_are_linearizable", 600, |seed| run(seed, 3 + seed as u32 % 6));
    let ops: usize = all.iter().map(|recorded| recorded.ops.len()).sum();
    let met: u64 = all.iter().map(|recorded| recorded.met).sum();
    let count = |which: fn(&Call) -> bool| {
        all.iter().flat_map(|recorded| &recorded.ops).filter(|op| which(&op.call)).count()
    };
    let rollbacks = count(|call| matches!(call, Call::Rollback { .. }));
    let fenced = count(|call| matches!(call, Call::Fenced { .. }));
    let snapshots = count(|call| matches!(call, Call::Snapshot(..)));
    println!(
        "{} histories, {ops} operations, {met} meetings, {snapshots} snapshots, \
         {rollbacks} rollbacks, {fenced} fenced",
        all.len()
    );
    let runs = all.len();
    assert!(ops > 60 * runs && met > 5 * runs as u64 && snapshots > runs && fenced > runs / 4);
}

/// Tasks really go on in other orders: the same clients on the same machine see another history, and with the
/// same order the same one.
#[test]
fn the_order_of_tasks_is_chosen() {
    let history = |seed, task_order| {
        let setup = Setup { task_order, operations: 200, ..setup(seed, 8) };
        record(seed, &setup).unwrap().ops
    };
    let mut others = 0;
    for seed in 0..8 {
        let as_woken = history(seed, 0);
        assert_eq!(history(seed, 0), as_woken);
        assert_eq!(history(seed, 7), history(seed, 7));
        let orders = (1..4).map(|order| history(seed, order));
        others += orders.filter(|ops| *ops != as_woken).count();
    }
    println!("{others} of 24 are others");
    assert!(others > 6, "{others} of 24 are others");
}

/// Name, and what it breaks.
const MUTANTS: &[(&str, &str)] = &[
    ("readbehind", "a block is read from the device while it is written"),
    ("moveblind", "a Move takes the place of a newer write"),
    ("foldblind", "a read beside a fold takes its view from before it"),
    ("latefence", "a write that waited is not fenced by the rollback that came meanwhile"),
    ("noturn", "a write of part of a block does not wait for another one of that block"),
    ("nowblind", "a write is accepted at once while one of part of its block is under way"),
];

#[test]
fn planted_faults_are_found() {
    let only = std::env::var("COW_SIM_MUTANT").ok();
    for &(name, what) in MUTANTS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let found = (0..2000).find_map(|seed| {
            mutant::plant(name);
            let result = caught(|| run(seed, 3 + seed as u32 % 6).map(drop));
            mutant::plant("");
            Some((seed, result.err()?))
        });
        let (seed, text) = found.unwrap_or_else(|| panic!("{name} is not found: {what}"));
        assert!(run(seed, 3 + seed as u32 % 6).is_ok(), "{name}, seed {seed}");
        let line: String = text.lines().next().unwrap_or_default().chars().take(120).collect();
        println!("{name:>13}: seed {seed:>4}: {what}: {line}");
    }
}

/// What the histories found first (seed 2): the answers of verbs were looked up by name once they were durable.
/// By then somebody may have deleted what was made, and "not found" was the answer to a snapshot that
/// had been taken; or made another of that name, and the answer named that.
#[test]
fn verbs_answer_with_what_they_made_whatever_became_of_it() {
    let config = small_config(AckMode::Writeback);
    let mut world = World::<Engine>::new(format(&PoolOptions::default()), &config, 1);
    let mut must = |op| world.run_op(op).unwrap().unwrap();
    must(EngineOp::Open { read_only: false });
    must(EngineOp::create_volume("v", 1 << 20, Vec::new()));
    let target = |name: &str| SnapTarget { volume: "v".into(), snapshot: name.into() };
    let snapshot = |name: &str| EngineOp::Snapshot {
        targets: vec![target(name)],
        options: cow_engine::SnapOptions::default(),
    };
    let delete =
        |name: &str| EngineOp::Delete { names: vec![name.into()], recursive: true, dry_run: false };
    must(snapshot("base"));
    let clone = EngineOp::Clone { source: target("base"), name: "c".into(), props: Vec::new() };
    let create = EngineOp::create_volume("n", 1 << 20, Vec::new());
    // None waits for another one's flush.
    let asked =
        [snapshot("s"), delete("v@s"), snapshot("s"), clone, delete("c"), create, delete("n")]
            .map(|op| world.start_op(op));
    let mut answers = std::collections::BTreeMap::new();
    while answers.len() < asked.len() {
        world.pump().unwrap();
        while let Some((id, result)) = world.take_reply() {
            answers.insert(id, result.unwrap());
        }
    }
    let made: Vec<u64> = asked
        .iter()
        .filter_map(|id| match &answers[id] {
            Reply::Nodes(nodes) => Some(nodes[0].0),
            Reply::Node(node) => Some(node.0),
            _ => None,
        })
        .collect();
    let distinct: std::collections::BTreeSet<&u64> = made.iter().collect();
    assert_eq!((made.len(), distinct.len()), (4, 4), "{made:?}");
}

fn op(client: u32, (asked, answered): (u64, u64), call: Call) -> Op {
    Op { client, call, asked, answered: Some(answered) }
}

fn write(cell: u32, token: u64) -> Call {
    Call::Write { volume: 1, fence: 0, cells: vec![(cell, token)] }
}

fn read(node: Node, cell: u32, token: u64) -> Call {
    Call::Read { node, fence: 0, cells: vec![(cell, token)] }
}

/// What a set of values that each read may see does not decide.
#[test]
fn a_write_that_was_seen_is_not_unseen() {
    let head = Node::Head(1);
    let seen = [
        op(0, (0, 100), write(0, 7)),
        op(1, (10, 20), read(head, 0, 7)),
        op(2, (30, 40), read(head, 0, 0)),
    ];
    assert!(matches!(check(&State::of([1]), &seen), Verdict::Not(_)));
    // Neither answer is wrong if the reads are in progress together.
    let mut together = seen.clone();
    together[2].asked = 15;
    assert_eq!(check(&State::of([1]), &together), Verdict::Linearizable);
}

/// What no look at single blocks decides: of each block the snapshot may have what it has.
#[test]
fn a_snapshot_is_one_moment_of_all_blocks() {
    let snap = Node::Snap(1, 5);
    let torn = [
        op(0, (0, 100), Call::Snapshot(1, 5)),
        op(1, (10, 20), write(0, 7)),
        op(1, (30, 40), write(1, 8)),
        op(2, (110, 120), read(snap, 0, 0)),
        op(2, (130, 140), read(snap, 1, 8)),
    ];
    assert!(matches!(check(&State::of([1]), &torn), Verdict::Not(_)));
    for (first, second) in [(0, 0), (7, 0), (7, 8)] {
        let mut whole = torn.clone();
        whole[3].call = read(snap, 0, first);
        whole[4].call = read(snap, 1, second);
        assert_eq!(check(&State::of([1]), &whole), Verdict::Linearizable, "{first} {second}");
    }
}

#[test]
fn what_was_not_answered_may_have_happened_or_not_but_not_both() {
    let pending = Op { client: 0, call: write(0, 7), asked: 10, answered: None };
    let head = Node::Head(1);
    let reads = |tokens: [u64; 2]| {
        let times = [(0, 5), (200, 210)].into_iter().zip(tokens);
        let reads = times.map(|(time, token)| op(1, time, read(head, 0, token)));
        [pending.clone()].into_iter().chain(reads).collect::<Vec<_>>()
    };
    for (tokens, is_right) in [([0, 0], true), ([0, 7], true), ([7, 7], false), ([7, 0], false)] {
        let verdict = check(&State::of([1]), &reads(tokens));
        assert_eq!(verdict == Verdict::Linearizable, is_right, "{tokens:?}");
    }
}

/// Two volumes, one of which a clone may make of the other; few cells, values, names and moments.
fn any_call() -> impl Strategy<Value = Call> {
    let volume = 1..3u32;
    let cells = || prop::collection::vec((0..2u32, 0..3u64), 1..3);
    let node = (1..3u32, 0..3u32).prop_map(|(volume, snap)| match snap {
        0 => Node::Head(volume),
        snap => Node::Snap(volume, snap),
    });
    prop_oneof![
        4 => (volume.clone(), 0..2u64, cells())
            .prop_map(|(volume, fence, cells)| Call::Write { volume, fence, cells }),
        4 => (node.clone(), 0..2u64, cells())
            .prop_map(|(node, fence, cells)| Call::Read { node, fence, cells }),
        1 => (volume.clone(), 0..2u64).prop_map(|(volume, fence)| Call::Fenced { volume, fence }),
        1 => (node.clone(), 0..2u64).prop_map(|(node, fence)| Call::Opened { node, fence }),
        1 => node.prop_map(Call::Missing),
        2 => (volume.clone(), 1..3u32).prop_map(|(volume, snap)| Call::Snapshot(volume, snap)),
        1 => (volume.clone(), 1..3u32).prop_map(|(v, snap)| Call::SnapshotRefused(v, snap)),
        1 => (volume.clone(), 1..3u32, prop::option::of(1..3u32))
            .prop_map(|(volume, to, undo)| Call::Rollback { volume, to, undo }),
        1 => (1..3u32).prop_map(|snap| Call::Clone { from: 1, snap, to: 2 }),
        1 => (volume, 1..3u32).prop_map(|(volume, snap)| Call::Delete(volume, snap)),
    ]
}

/// A history that has a linearization, the moments of which are the even ones: each operation is stretched
/// around its own. Then one or none of it is changed.
fn near_miss() -> impl Strategy<Value = Vec<Op>> {
    let one = (any_call(), 0..9u64, 0..9u64, prop::bool::weighted(0.1));
    (prop::collection::vec(one, 1..7), prop::option::of((0..7usize, any_call()))).prop_map(
        |(calls, change)| {
            let (mut state, mut ops) = (State::of([1]), Vec::new());
            for (call, before, after, lost) in calls {
                let call = right(&state, call);
                let Some(next) = state.after(&call) else { continue };
                state = next;
                let at = 20 + 2 * ops.len() as u64;
                let answered = (!lost).then_some(at + after);
                ops.push(Op { client: 0, call, asked: at - before, answered });
            }
            if let Some((at, call)) = change
                && let Some(op) = ops.get_mut(at)
            {
                op.call = call;
            }
            ops
        },
    )
}

/// The call, with what it would see and the fences that there are.
fn right(state: &State, call: Call) -> Call {
    let fence_of = |volume| {
        let fences = 0..7;
        let is_valid =
            |&fence: &u64| state.agrees(&Call::Opened { node: Node::Head(volume), fence });
        fences.into_iter().find(is_valid).unwrap_or_default()
    };
    match call {
        Call::Write { volume, cells, .. } => Call::Write { volume, fence: fence_of(volume), cells },
        Call::Read { node, mut cells, .. } => {
            cells.iter_mut().for_each(|(cell, token)| {
                *token = state.get(node, *cell).unwrap_or_default();
            });
            Call::Read { node, fence: fence_of(node.volume()), cells }
        }
        other => other,
    }
}

fn any_history() -> impl Strategy<Value = Vec<Op>> {
    let op = (any_call(), 0..12u64, 0..6u64, prop::bool::weighted(0.1)).prop_map(
        |(call, asked, takes, lost)| {
            let answered = (!lost).then_some(asked + takes);
            Op { client: 0, call, asked, answered }
        },
    );
    prop_oneof![prop::collection::vec(op, 0..6), near_miss(), near_miss()]
}

#[test]
fn the_search_says_what_all_permutations_say() {
    let (mut yes, mut no) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(6000));
    let strategy = any_history();
    for _ in 0..6000 {
        use proptest::strategy::ValueTree;
        let ops = strategy.new_tree(&mut runner).unwrap().current();
        let expected = brute::is_linearizable(&State::of([1]), &ops);
        let found = check(&State::of([1]), &ops) == Verdict::Linearizable;
        assert_eq!(found, expected, "{ops:#?}");
        *(if expected { &mut yes } else { &mut no }) += 1;
    }
    println!("{yes} have a linearization, {no} have none");
    assert!(yes > 1000 && no > 1000);
}
