//! That the golden images of the newest version hold every structure, so that this is not just said.

use crate::packed;
use cow_format::superblock::VERSION;
use cow_sim::corruption::contents::contents;
use cow_sim::corruption::specimen::Specimen;
use cow_sim::disk::SimDisk;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What stands behind each row of the table of checksums in docs/format.md.
const STRUCTURES: [(&str, &[&str]); 9] = [
    ("superblock copy", &["superblock"]),
    ("checkpoint header", &["checkpoint"]),
    ("checkpoint body", &["checkpoint"]),
    ("bitmap page", &["bitmap", "second home of a bitmap page"]),
    ("node-table page", &["node table", "overflow entry", "second home of a table page"]),
    ("map node", &["leaf", "level 1", "level 2", "level 3", "level 4"]),
    ("frame header", &["frame"]),
    ("frame payload", &["frame"]),
    ("blob block", &["kill row", "properties"]),
];

/// What else a pool may hold that a reader has to understand.
const STATES: &[&str] = &[
    "fence",
    "fallback",
    "two epochs",
    "grown pool",
    "noted damage",
    "more damage than is listed",
    "withheld block",
    "no fallback",
    "detached subtree",
    "leaks",
    "inexact counts",
    "lost block",
    "hole",
    "data",
    "head",
    "user snapshot",
    "undo snapshot",
    "automatic snapshot",
    "properties of the pool",
    "live node",
    "deleted node",
    "half walked node",
    "branch point",
    "trimmed branch point",
    "stopped",
    "frozen",
    "quiesced",
    "freeze failed",
    "time of a freeze",
    "origin",
    "empty tree",
    "hold",
    "group",
    "expiry",
    "long name",
    "content root",
    "group over several frames",
    "policy",
    "pad",
];

fn all() -> BTreeSet<String> {
    let newest = format!("v{VERSION}-");
    let mut all = BTreeSet::new();
    for name in packed::names().iter().filter(|name| name.starts_with(&newest)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pool.cow");
        packed::unpack(name, &path);
        let file = File::open(&path).unwrap();
        let blocks = file.metadata().unwrap().len() / 4096;
        let (mut disk, mut page) = (SimDisk::new(blocks), [0; 4096]);
        for block in 0..blocks {
            file.read_exact_at(&mut page, block * 4096).unwrap();
            if page != [0; 4096] {
                disk.poke(block, page);
            }
        }
        all.extend(contents(&Specimen::found(disk).unwrap()));
    }
    all
}

#[test]
fn the_newest_images_hold_every_structure_that_the_format_names() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    // "**7 Clone**: type, ..."
    let records = docs.lines().filter_map(|line| {
        let (number, name) = line.strip_prefix("**")?.split_once("**")?.0.split_once(' ')?;
        number.parse::<u8>().ok().map(|_| name)
    });
    let records: Vec<&str> = records.collect();
    assert_eq!(records.len(), 14, "{records:?}");
    // "| 3 | checkpoint body | checkpoint seq | ... |"
    let rows = docs.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let (number, name) = (cells.next()?, cells.next()?);
        (cells.count() == 2 && number.parse::<u8>().is_ok()).then_some(name)
    });
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows, STRUCTURES.map(|(row, _)| row), "the table of checksums");

    let all = all();
    let structures = STRUCTURES.iter().flat_map(|(_, names)| names.iter());
    let needed = records.iter().chain(structures).chain(STATES);
    let missing: Vec<_> = needed.filter(|name| !all.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {all:?}");
}
