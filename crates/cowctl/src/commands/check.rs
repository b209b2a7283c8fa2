//! `check`.
//!
//! A pool that another process has open is checked under its feet: the newest checkpoint stays
//! as it is until the next but one, so what was read is of one moment if no further checkpoint
//! has come since. If one has, what looks wrong may be the change itself; then it is looked at
//! again, and what is wrong each time is wrong.

use crate::args::Check;
use crate::failure::Failure;
use crate::image::{PoolImage, refused};
use crate::output;
use crate::progress::Bar;
use cow_check::{Finding, OpenError, Options, Progress, Report, Severity, What, dump};
use cow_format::BLOCK_SIZE;
use cowstore::transfer;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

/// How often a live pool is looked at again.
const ATTEMPTS: usize = 5;

pub fn check(path: &Path, args: &Check) -> Result<(), Failure> {
    let mut image = PoolImage::open(path)?;
    let bar = RefCell::new(Bar::new());
    let tell = |told: Progress| show_progress(&bar, told);
    let options =
        Options { data: !args.metadata_only, progress: Some(&tell), ..Options::default() };
    let report = settled(&mut image, &options).map_err(refused(path))?;
    drop(bar);
    show(&report, image.is_live(), args.json.json)?;
    verdict(path, &report)
}

/// Shows how far a check has come.
pub fn show_progress(bar: &RefCell<Bar>, told: Progress) {
    let block = BLOCK_SIZE as u64;
    bar.borrow_mut().tell(&transfer::Progress {
        phase: "check".into(),
        done_bytes: told.done.saturating_mul(block),
        total_bytes: Some(told.total.saturating_mul(block)).filter(|total| *total > 0),
        is_last: false,
    });
}

/// What a command ends with that has reported this.
pub fn verdict(path: &Path, report: &Report) -> Result<(), Failure> {
    if report.is_clean() {
        return Ok(());
    }
    let first = report.findings.iter().find(|finding| finding.severity == Severity::Corruption);
    let first = first.map(|finding| format!(": {finding}")).unwrap_or_default();
    let count = report.corruptions;
    Err(Failure::Corrupt(format!("{}: {count} corruption(s) found{first}", path.display())))
}

/// A report that no change of the pool has had a part in.
fn settled(image: &mut PoolImage, options: &Options<'_>) -> Result<Report, OpenError> {
    let mut always: Option<BTreeSet<String>> = None;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let result = cow_check::check(image, options);
        let is_quiet = !image.is_live()
            || result.as_ref().is_ok_and(|report| {
                report.is_clean() || newest(image) == Some(report.stats.checkpoint_seq)
            });
        if is_quiet || (attempt >= ATTEMPTS && result.is_err()) {
            return result;
        }
        let Ok(mut report) = result else { continue };
        let wrong = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
        let wrong: BTreeSet<String> = wrong.map(subject).collect();
        let still = always.take().map_or(wrong.clone(), |old| &old & &wrong);
        if attempt >= ATTEMPTS || still.is_empty() {
            report.findings.retain(|finding| {
                finding.severity == Severity::Warning || still.contains(&subject(finding))
            });
            report.corruptions = still.len() as u64;
            return Ok(report);
        }
        always = Some(still);
    }
}

/// What a finding is about, whichever checkpoint it was met at.
fn subject(finding: &Finding) -> String {
    if finding.place.starts_with("checkpoint") {
        return finding.kind.to_string();
    }
    format!("{} {}", finding.kind, finding.place)
}

/// The number of the newest checkpoint.
fn newest(image: &mut PoolImage) -> Option<u64> {
    dump(image, &What::Checkpoint).ok()?.get("newest")?.as_u64()
}

fn show(report: &Report, live: bool, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json("check", json_of(report, live));
    }
    show_text(report)
}

/// The report as JSON.
pub fn json_of(report: &Report, live: bool) -> Value {
    let stats = &report.stats;
    json!({
        "clean": report.is_clean(),
        "live": live,
        "corruptions": report.corruptions,
        "warnings": report.warnings,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "omitted_findings": report.omitted(),
        "checkpoint_seq": stats.checkpoint_seq,
        "nodes": stats.nodes,
        "map_nodes": stats.map_nodes,
        "data_blocks": stats.data_blocks,
        "data_blocks_verified": stats.data_verified,
        "journal_frames": stats.frames,
        "journal_frames_cut": stats.frames_cut,
        "lost_blocks": stats.lost_blocks,
        "leaked_blocks": stats.leaked_blocks,
    })
}

/// The report for people.
pub fn show_text(report: &Report) -> Result<(), Failure> {
    let stats = &report.stats;
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Warning => "warning",
            Severity::Corruption => "corruption",
        };
        output::line(format!("{severity}: {finding}"))?;
    }
    if report.omitted() > 0 {
        output::line(format!("and {} findings more", report.omitted()))?;
    }
    output::line(format!(
        "{}: checkpoint {}, {} nodes, {} map nodes, {} data blocks ({} verified), {} journal frames",
        if report.is_clean() { "clean" } else { "CORRUPT" },
        stats.checkpoint_seq,
        stats.nodes,
        stats.map_nodes,
        stats.data_blocks,
        stats.data_verified,
        stats.frames
    ))
}

fn finding(finding: &Finding) -> Value {
    json!({
        "severity": match finding.severity {
            Severity::Warning => "warning",
            Severity::Corruption => "corruption",
        },
        "structure": finding.kind.name(),
        "place": finding.place,
        "what": finding.what,
    })
}
