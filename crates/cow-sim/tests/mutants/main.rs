//! The suite is worth what it catches: for each invariant and each promise of the design there are
//! faults, planted in the code that upholds it (`cow-format/src/mutant.rs`), and each must be found by
//! what the engine without it passes. `table.rs` and `faults.rs` say which there are and what finds them; `cargo xtask
//! invariants` tries all of them and writes docs/invariants.md.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod faults;
mod histories;
mod outside;
#[path = "../pool/mod.rs"]
mod pool;
mod report;
mod scripts;
mod sources;
mod table;

use cow_engine::Engine;
use cow_format::mutant;
use cow_sim::crashes::{Depth, explore};
use cow_sim::run::{caught, threads};
use cow_sim::workloads;
use faults::MUTANTS;
use report::{Found, Results};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use table::{Killer, Mutant};

/// Seeds that histories are given to find a fault.
const MOST_SEEDS: u64 = 2500;
/// The same for explorations of a workload.
const MOST_EXPLORATIONS: u64 = 40;

/// Runs what should find a fault, with `planted` in its place: a fault, or none.
fn attempt(planted: &'static str, killer: Killer, seed: u64) -> Result<(), String> {
    mutant::plant(planted);
    let ended = caught(|| match killer {
        Killer::Histories(how, _) => histories::run(planted, how, seed),
        Killer::Workload(name, _) => {
            let all = workloads::named();
            let workload = all.iter().find(|workload| workload.name == name).expect(name);
            let depth = Depth { subsets: 32, second: 8, check: 4, most: 800, ..Depth::slice() };
            explore::<Engine>(workload, depth, seed).map(drop)
        }
        Killer::Script(_, script) => script(),
        Killer::Test(..) | Killer::Planted(..) | Killer::Unit(..) | Killer::Threads(_) => Ok(()),
    });
    mutant::plant("");
    ended
}

/// Finds a fault in this process: the first seed that shows it, and that the same is passed without
/// it.
fn find(wanted: &Mutant) -> Result<Found, String> {
    let Mutant { name, killer, .. } = *wanted;
    let begun = Instant::now();
    let (hint, most) = match killer {
        Killer::Histories(_, hint) => (hint, MOST_SEEDS),
        Killer::Workload(_, hint) => (hint, MOST_EXPLORATIONS),
        _ => (0, 1),
    };
    let mut seeds = (hint..most).chain(0..hint);
    let Some((seed, text)) =
        seeds.find_map(|seed| Some((seed, attempt(name, killer, seed).err()?)))
    else {
        return Err(format!("{name} lives on: {}", wanted.breaks));
    };
    let seconds = begun.elapsed().as_secs_f64();
    if let Err(text) = attempt("", killer, seed) {
        return Err(format!("{name}: seed {seed} fails without the fault too: {text}"));
    }
    let line = text.lines().next().unwrap_or_default().chars().take(120).collect();
    let seed = killer.has_seeds().then_some(seed);
    Ok(Found { seed, seconds, line })
}

fn print(mutant: &Mutant, found: &Found) {
    let seed = found.seed.map_or_else(String::new, |seed| format!("seed {seed}: "));
    let (name, seconds) = (mutant.name, found.seconds);
    println!("{name:>13}: {seed}{seconds:.1} s: {}: {}", mutant.breaks, found.line);
}

/// Those that `COW_SIM_MUTANT` does not leave out.
fn wanted() -> impl Iterator<Item = &'static Mutant> {
    let only = std::env::var("COW_SIM_MUTANT").ok();
    MUTANTS.iter().filter(move |mutant| only.as_ref().is_none_or(|only| only == mutant.name))
}

#[test]
fn every_mutant_dies() {
    let (here, elsewhere): (Vec<_>, Vec<_>) = wanted().partition(|mutant| mutant.killer.is_here());
    let (next, survivors) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(mutant) = here.get(next.fetch_add(1, Ordering::Relaxed)) {
            match find(mutant) {
                Ok(found) => print(mutant, &found),
                Err(text) => survivors.lock().unwrap().push(text),
            }
        }
    };
    // A fault is planted in one thread, and the others know nothing of it.
    std::thread::scope(|scope| (0..threads()).for_each(|_| drop(scope.spawn(work))));
    for mutant in elsewhere.into_iter().filter(|mutant| !mutant.killer.plants_itself()) {
        println!("{:>13}: tried by `cargo xtask invariants`, with {}", mutant.name, mutant.killer);
    }
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "{survivors:#?}");
}

/// All of them, and docs/invariants.md anew: `cargo xtask invariants`.
#[test]
#[ignore = "minutes, and it writes into the tree"]
fn all_are_tried_and_written_down() {
    let mut results = Results::new();
    let mut survivors = outside::fail_unplanted(wanted().map(|mutant| mutant.killer));
    for mutant in wanted() {
        let found = if mutant.killer.is_here() { find(mutant) } else { outside::find(mutant) };
        match found {
            Ok(found) => {
                print(mutant, &found);
                results.insert(mutant.name, found);
            }
            Err(text) => {
                println!("{text}");
                survivors.push(text);
            }
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
    if results.len() == MUTANTS.len() {
        report::write(&results);
    }
}
