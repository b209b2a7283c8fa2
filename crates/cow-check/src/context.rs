//! What every part of a check has at hand: the image, the options and the report.

use crate::blocks::Blocks;
use crate::report::{Finding, Report, Severity, Structure};
use crate::unread::Unread;
use cow_format::{Buf, FormatError, Phys};

/// Findings that are listed unless told otherwise.
const MAX_FINDINGS: usize = 1000;

/// What a check is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Superblock, checkpoint and node table.
    Tables,
    /// The maps of volumes and snapshots, and their data.
    Maps,
    /// The allocation bitmap.
    Bitmap,
    /// The journal.
    Journal,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What it is busy with.
    pub phase: Phase,
    /// Units done: blocks of maps and data, zones of the bitmap, frames of the journal.
    pub done: u64,
    /// Units in all, where that is known; else 0.
    pub total: u64,
}

/// How to check.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Read every data block and compare its checksum.
    pub data: bool,
    /// Findings that are listed; the others are only counted.
    pub max_findings: usize,
    /// Called now and then.
    pub progress: Option<&'a dyn Fn(Progress)>,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { data: true, max_findings: MAX_FINDINGS, progress: None }
    }
}

/// See the module.
pub(crate) struct Cx<'a> {
    blocks: &'a mut dyn Blocks,
    pub(crate) options: &'a Options<'a>,
    pub(crate) report: Report,
    /// Tag of the pool, as soon as it is known.
    pub(crate) tag: u64,
    /// Something could not be followed: what hangs below it was not seen.
    pub(crate) incomplete: bool,
    /// For a repair: what could not be read, one by one, and what a walk counts.
    pub(crate) unread: Option<Unread>,
    /// An intact structure of another time was met: a repair has nothing to put in its place.
    pub(crate) unknown: Option<FormatError>,
}

impl<'a> Cx<'a> {
    pub(crate) fn new(blocks: &'a mut dyn Blocks, options: &'a Options<'a>) -> Self {
        Self {
            blocks,
            options,
            report: Report::default(),
            tag: 0,
            incomplete: false,
            unread: None,
            unknown: None,
        }
    }

    pub(crate) fn block_count(&self) -> u64 {
        self.blocks.block_count()
    }

    /// Reads; what went wrong as a text.
    pub(crate) fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, String> {
        let end = at.0.checked_add(blocks as u64);
        if end.is_none_or(|end| end > self.blocks.block_count()) {
            return Err("lies past the end of the image".to_owned());
        }
        match self.blocks.read(at, blocks) {
            Ok(buf) if buf.block_count() >= blocks => Ok(buf),
            Ok(_) => Err("cannot be read: too few bytes".to_owned()),
            Err(error) => Err(format!("cannot be read: {error}")),
        }
    }

    pub(crate) fn corrupt(
        &mut self,
        kind: Structure,
        place: impl Into<String>,
        what: impl ToString,
    ) {
        self.find(kind, Severity::Corruption, place, what);
    }

    pub(crate) fn warn(&mut self, kind: Structure, place: impl Into<String>, what: impl ToString) {
        self.find(kind, Severity::Warning, place, what);
    }

    pub(crate) fn find(
        &mut self,
        kind: Structure,
        severity: Severity,
        place: impl Into<String>,
        what: impl ToString,
    ) {
        let finding = Finding { kind, severity, place: place.into(), what: what.to_string() };
        self.report.add(finding, self.options.max_findings);
    }

    pub(crate) fn progress(&self, phase: Phase, done: u64, total: u64) {
        if let Some(tell) = self.options.progress {
            tell(Progress { phase, done, total });
        }
    }
}
