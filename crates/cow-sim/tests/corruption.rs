//! Exhaustive corruption of small pools that hold every structure (I15). Whatever is wrong with one
//! sector or one bit: what is read is right or an error, nothing panics or hangs, the checker sees
//! it, and what does not depend on it is there.
//!
//! Of the bits of headers each run tries one in [`ONE_OF`], chosen by a seed that it prints
//! (`COW_SIM_START`); `COW_CORRUPTION=whole` tries all, and those of unused bytes too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_sim::corruption::contents::contents;
use cow_sim::corruption::exercise::exercise;
use cow_sim::corruption::forge::Forge;
use cow_sim::corruption::harm::{Harm, bits, sectors};
use cow_sim::corruption::mend::{Whole, mend};
use cow_sim::corruption::specimen::Specimen;
use cow_sim::corruption::verdict::{Depth, Outcome, judge, kind_of};
use cow_sim::rng::{Rng, mix};
use cow_sim::run::{caught, for_range, for_seeds, fresh_start};
use std::collections::BTreeMap;

/// Bits of headers of which a run tries one.
const ONE_OF: u64 = 8;
/// Forged pools of a run.
const FORGED: u64 = 1000;
/// Of so many bad sectors one is repaired.
const SECTORS: usize = 13;
/// Failures that are told of.
const TOLD: usize = 20;

/// How often each thing happened, of the damaged pools with the damage in one kind of structure.
#[derive(Default)]
struct Row {
    pools: u64,
    open: u64,
    open_read_only: u64,
    lossy: u64,
    cut: u64,
    reported: u64,
}

impl Row {
    fn count(&mut self, outcome: &Outcome) {
        self.pools += 1;
        self.open += u64::from(outcome.opens);
        self.open_read_only += u64::from(outcome.opens_read_only);
        self.lossy += u64::from(outcome.unreadable > 0);
        self.cut += u64::from(outcome.cut);
        self.reported += u64::from(outcome.reported);
    }
}

/// Judges all of them: damaged pools, and how many of them open.
fn judge_all(test: &str, specimen: &Specimen, harms: &[Harm], depth: Depth) -> (u64, u64) {
    let judged = for_range(test, 0..harms.len() as u64, |n| {
        let harm = &harms[n as usize];
        Ok((harm, judge(specimen, harm, depth)))
    });
    let (mut rows, mut failures) = (BTreeMap::<&str, Row>::new(), Vec::new());
    for (harm, outcome) in judged {
        let kind = kind_of(specimen, harm.block);
        match outcome {
            Ok(outcome) => rows.entry(kind).or_default().count(&outcome),
            Err(text) => failures.push(format!("{kind}, {harm:?}: {text}")),
        }
    }
    println!("{test}: pools with damage in ..., of them");
    println!("                  pools   open read-only  lossy    cut reported");
    for (kind, row) in &rows {
        let Row { pools, open, open_read_only, lossy, cut, reported } = row;
        println!("{kind:16} {pools:6} {open:6} {open_read_only:9} {lossy:6} {cut:6} {reported:8}");
    }
    let told = failures.iter().take(TOLD).cloned().collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{test}: {} failures\n{told}", failures.len());
    rows.values().fold((0, 0), |sum, row| (sum.0 + row.pools, sum.1 + row.open))
}

fn assert_holds(specimen: &Specimen, names: &[&str]) {
    let all = contents(specimen);
    let missing: Vec<_> = names.iter().filter(|name| !all.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {all:?}");
}

#[test]
fn every_sector_of_two_pools() {
    let whole = Specimen::whole().unwrap();
    assert_holds(
        &whole,
        &[
            "superblock",
            "checkpoint",
            "fallback",
            "bitmap",
            "node table",
            "overflow entry",
            "inner map node",
            "leaf",
            "data",
            "kill row",
            "properties",
            "undo snapshot",
            "deleted node",
            "half walked node",
            "detached subtree",
            "frame",
            "fence",
            "two epochs",
            "MapSet",
            "MapClear",
            "Move",
            "VolCreate",
            "SnapCreate",
            "Rollback",
            "Clone",
            "VolResize",
            "NodeDelete",
            "Rename",
            "SetProps",
            "Hold",
        ],
    );
    let scarred = Specimen::scarred().unwrap();
    assert_holds(
        &scarred,
        &["noted damage", "group over several frames", "SnapCreate", "SetProps"],
    );
    let test = "every_sector_of_two_pools";
    let (pools, open) = [whole, scarred].iter().fold((0, 0), |sum, specimen| {
        let (pools, open) = judge_all(test, specimen, &sectors(specimen), Depth::Fold);
        (sum.0 + pools, sum.1 + open)
    });
    println!("{open} of {pools} open, {:.2} %", open as f64 * 100.0 / pools.max(1) as f64);
    assert!(open * 100 >= pools * 95, "{open} of {pools} open");
}

#[test]
fn bits_of_headers() {
    let specimen = Specimen::whole().unwrap();
    let whole = std::env::var("COW_CORRUPTION").is_ok_and(|word| word == "whole");
    let mut harms = bits(&specimen, whole);
    let all = harms.len();
    if !whole {
        let seed = fresh_start();
        println!("one in {ONE_OF} of {all} bits, COW_SIM_START={seed}");
        let mut chances = (0..).map(|n: u64| mix(seed ^ mix(n)).is_multiple_of(ONE_OF));
        harms.retain(|_| chances.next().unwrap_or(true));
    }
    judge_all("bits_of_headers", &specimen, &harms, Depth::Look);
}

/// An engine that gives out what does not match its checksum is found out.
#[test]
fn a_planted_fault_is_found() {
    let specimen = Specimen::whole().unwrap();
    let harms = sectors(&specimen);
    let data = harms.iter().filter(|harm| kind_of(&specimen, harm.block) == "data");
    let data: Vec<_> = data.step_by(40).collect();
    let found = |name: &'static str| {
        cow_format::mutant::plant(name);
        let found = data.iter().any(|harm| judge(&specimen, harm, Depth::Look).is_err());
        cow_format::mutant::plant("");
        found
    };
    assert!(found("anydata"));
    assert!(!found(""));
}

/// Structures that say anything, with right checksums. `COW_SIM_SEEDS` asks for more.
#[test]
fn forged_pools() {
    let specimens = [Specimen::whole().unwrap(), Specimen::scarred().unwrap()];
    let judged = for_seeds("forged_pools", FORGED, |seed| {
        let mut rng = Rng::new(seed);
        let forge = Forge::new(&specimens[seed as usize % 2]).ok_or("no pool")?;
        let input: Vec<u8> = (0..12 * rng.range(1, 4)).map(|_| rng.word() as u8).collect();
        let disk = forge.forge(&input);
        let config = &specimens[seed as usize % 2].config;
        let ended = caught(|| {
            exercise(&disk, config, seed)?;
            mend(&disk, config, seed).map(|mended| mended.is_some())
        });
        if let Err(text) = &ended {
            println!("seed {seed}: {text:.300}");
        }
        Ok(ended)
    });
    let failures = judged.iter().filter(|ended| ended.is_err()).count();
    let mended = judged.iter().filter(|ended| **ended == Ok(true)).count();
    println!("{mended} of {} repaired", judged.len());
    assert!(mended > 0 || judged.len() < 100, "none was repaired");
    assert!(
        failures == 0,
        "{failures} failures; one of them again: COW_SIM_START=... COW_SIM_SEEDS=1"
    );
}

/// Pools with one bad sector: a repair changes nothing that could be read, and brings back all that there was
/// before the damage but for exactly what it calls lost. Cut map nodes are among them, which forged
/// pools seldom have.
#[test]
fn repair_of_bad_sectors() {
    let specimen = Specimen::whole().unwrap();
    let harms = sectors(&specimen);
    let is_data = |harm: &&Harm| kind_of(&specimen, harm.block) == "data";
    let config = &specimen.config;
    let whole = Whole::of(&specimen.disk, config, 0).unwrap();
    let (mut mended, mut lossy) = (BTreeMap::<&str, u64>::new(), 0);
    for harm in harms.iter().filter(|harm| !is_data(harm)).step_by(SECTORS) {
        let Some(page) = harm.page(&specimen) else { continue };
        let mut disk = specimen.disk.fork_durable();
        disk.poke(harm.block, page);
        let done = mend(&disk, config, mix(harm.block));
        let Some(done) = done.unwrap_or_else(|text| panic!("{harm:?}: {text}")) else { continue };
        let is_back = whole.is_back(&done, config, mix(harm.block));
        is_back.unwrap_or_else(|text| panic!("{harm:?}: {text}"));
        *mended.entry(kind_of(&specimen, harm.block)).or_default() += 1;
        lossy += u64::from(!done.lost.is_empty());
    }
    println!("{mended:?}, {lossy} with losses");
    assert!(lossy > 0);
    for kind in ["leaf", "inner map node"] {
        assert!(mended.contains_key(kind), "{kind}: {mended:?}");
    }
}
