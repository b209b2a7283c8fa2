//! Instructions of the steps of the hot path. `cargo xtask counts` runs `counted` below valgrind's
//! callgrind and compares with `counts.json`; a plain run of the tests sees that every step runs.

use cow_benches::ram::Ram;
use cow_benches::step::Step;
use cow_benches::steps::engine::{self, Pool};
use cow_benches::steps::{codec, state, tree};
use std::hint::black_box;

/// A name, calls that are counted together, and how to begin.
type Row = (&'static str, u64, fn() -> Box<dyn Step>);

/// Blocks that requests go to: 4 MiB, all mapped.
const AREA: u64 = 1024;

const STEPS: &[Row] = &[
    ("crc32_4k", 16, || Box::new(codec::crc32_4k())),
    ("copy_zero_crc_4k", 16, || Box::new(codec::copy_zero_crc_4k())),
    ("frame_seal_32", 16, || Box::new(codec::frame_seal_32())),
    ("frame_decode", 16, || Box::new(codec::frame_decode())),
    ("layer_insert_seq", 1000, || Box::new(state::layer_insert_seq())),
    ("layer_insert_rand", 1000, || Box::new(state::layer_insert_rand(2000))),
    ("lookup_active", 1000, || Box::new(state::lookup_active(1000))),
    ("lookup_frozen8", 1000, || Box::new(state::lookup_frozen(1000, 8))),
    ("lookup_leaf_hit", 1000, || Box::new(state::lookup_leaf_hit(64))),
    ("alloc_frontier", 1000, || Box::new(state::alloc_frontier())),
    ("alloc_hole", 1000, || Box::new(state::alloc_hole())),
    ("kill_classify_1_ancestor", 1000, || Box::new(tree::kill_classify(1))),
    ("kill_classify_100_ancestors", 1000, || Box::new(tree::kill_classify(100))),
    ("fold_300_rand", 2, || Box::new(engine::fold_rand(pool(), 300, 1 << 16))),
    ("snapshot", 16, || Box::new(engine::snapshot(pool()))),
    ("rollback", 16, || Box::new(engine::rollback(pool()))),
    ("setsize_50", 4, || Box::new(engine::set_size(pool(), 50))),
    ("delete_walk_sparse_100", 2, || Box::new(engine::delete_walk(pool(), 100, 256))),
    ("e2e_mem_r_qd1", 100, || Box::new(engine::read(pool(), AREA))),
    ("e2e_mem_w_qd1", 100, || Box::new(engine::write(pool(), AREA))),
    ("e2e_mem_w_qd32", 8, || Box::new(engine::writes(pool(), AREA, 32))),
];

fn pool() -> Pool {
    Pool::new(Ram::small(128), 1 << 40, AREA >> 8)
}

/// What callgrind counts.
#[inline(never)]
fn counted_call(step: &mut dyn Step, call: u64) {
    step.run(call);
    black_box(step);
}

/// Where callgrind writes down what it has counted, and begins anew.
#[inline(never)]
fn step_ends(name: &str) {
    black_box(name);
}

/// The first call is not counted: it fills caches and lazily made tables.
fn run(calls: u64, begin: fn() -> Box<dyn Step>) {
    let mut step = begin();
    step.prepare(0);
    step.run(0);
    for call in 1..=calls {
        step.prepare(call);
        counted_call(&mut *step, call);
    }
}

#[test]
#[ignore = "run below callgrind by `cargo xtask counts`"]
fn counted() {
    println!("cpu {}", cpu().join(" "));
    for (name, calls, begin) in STEPS {
        run(*calls, *begin);
        step_ends(name);
        println!("step {name} {calls}");
    }
}

/// What the processor has, below valgrind as valgrind tells it, of what code here and in libraries
/// chooses by.
#[cfg(target_arch = "x86_64")]
fn cpu() -> Vec<&'static str> {
    let all = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("vpclmulqdq", is_x86_feature_detected!("vpclmulqdq")),
        ("sha", is_x86_feature_detected!("sha")),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> Vec<&'static str> {
    vec![std::env::consts::ARCH]
}

#[test]
fn every_step_runs_and_has_a_recorded_count() {
    let recorded = include_str!("../counts.json");
    for (name, _, begin) in STEPS {
        run(1, *begin);
        assert!(recorded.contains(&format!("\"{name}\":")), "{name}: cargo xtask counts --record");
    }
    // Their own lines, between those of the environment and the end.
    let lines = recorded.lines().skip_while(|line| !line.contains("\"steps\"")).skip(1);
    let names = lines.filter(|line| line.contains("\": ")).count();
    assert_eq!(names, STEPS.len(), "a count of a step that is gone: cargo xtask counts --record");
}
