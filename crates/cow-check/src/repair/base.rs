//! What a repair starts from: the checkpoint that an open of the pool would start from.

use super::RepairError;
use super::action::Action;
use crate::checkpoint::{self, Area};
use crate::context::Cx;
use crate::journal::Journal;
use crate::report::{OpenError, Severity, Structure};
use crate::superblock::{self, Copy};
use crate::table;
use cow_format::checkpoint::{Checkpoint, FLAG_NO_FALLBACK};
use cow_format::entry::NodeEntry;
use cow_format::record::Record;
use cow_format::superblock::Superblock;
use cow_format::{Epoch, FrameSeq, Phys};
use cow_snaptree::Tree;
use std::collections::BTreeMap;

/// See the module.
pub(super) struct Base {
    pub(super) sb: Superblock,
    pub(super) copies: Vec<Copy>,
    pub(super) cp: Checkpoint,
    pub(super) entries: BTreeMap<u32, NodeEntry>,
    /// All other intact checkpoints.
    pub(super) others: Vec<Checkpoint>,
    /// Checkpoints of which nobody can say from their area that they never were, and why.
    pub(super) doubtful: Vec<(u64, String)>,
    /// Why there must be a new checkpoint, whatever else is found.
    pub(super) reason: Option<Action>,
    /// Blocks that records of the journal name, from the oldest tail that a recovery may start from.
    pub(super) named: Vec<(Phys, u64)>,
    /// Records that a recovery will apply, with their frames.
    pub(super) records: Vec<(FrameSeq, Record)>,
    /// The youngest epoch that was met.
    pub(super) epoch: Epoch,
}

impl Base {
    /// Chooses it.
    pub(super) fn choose(cx: &mut Cx<'_>) -> Result<Self, RepairError> {
        let (sb, copies) = superblock::read(cx)?;
        let (newest, areas) = checkpoint::read(cx, &sb)?;
        let lost = lost_successor(cx, &newest, &areas)?;
        let may_hold = |seq| areas[Checkpoint::area(seq)].may_hold(seq).map(str::to_owned);
        let doubtful = [1, 2].map(|ahead| newest.seq.saturating_add(ahead));
        let doubtful = doubtful.map(|seq| (seq, may_hold(seq)));
        let valid = areas.into_iter().filter_map(|area| match area {
            Area::Valid(cp) => Some(*cp),
            _ => None,
        });
        let valid: Vec<Checkpoint> = valid.collect();
        let (cp, entries, fallback) = with_table(cx, &sb, newest, &valid)?;
        if let (Some(back), Some(lost)) = (&fallback, &lost) {
            return Err(RepairError::Refused(format!(
                "two checkpoints are damaged, what the one before them describes may have been overwritten: \
                 {back}; {lost}"
            )));
        }
        let others: Vec<Checkpoint> =
            valid.into_iter().filter(|other| other.seq != cp.seq).collect();
        let epoch = sb.epoch.max(cp.epoch);
        let mut base = Self {
            sb,
            copies,
            reason: fallback.or(lost),
            cp,
            doubtful: doubtful.into_iter().filter_map(|(seq, what)| Some((seq, what?))).collect(),
            entries: entries.into_iter().collect(),
            others,
            named: Vec::new(),
            records: Vec::new(),
            epoch,
        };
        base.read_journal(cx)?;
        Ok(base)
    }

    /// The tree of the checkpoint.
    fn tree(&self, cx: &mut Cx<'_>) -> Result<Tree, RepairError> {
        let entries = self.entries.iter().map(|(slot, entry)| (*slot, entry.clone()));
        let tree = table::tree_of(cx, &self.cp, entries);
        tree.ok_or_else(|| refused(cx, Structure::SnapshotTree))
    }

    fn read_journal(&mut self, cx: &mut Cx<'_>) -> Result<(), RepairError> {
        let tree = self.tree(cx)?;
        let mut journal = Journal::scan(cx, &self.sb, &self.cp);
        journal.verify(cx, Some(&tree));
        for kind in [Structure::JournalFrame, Structure::JournalRecord] {
            if cx.report.by_kind.contains_key(&kind) {
                return Err(refused(cx, kind));
            }
        }
        let (mut named, mut records, mut epoch) = (Vec::new(), Vec::new(), self.epoch);
        journal.for_each(cx, |frame, record, is_accepted| {
            epoch = epoch.max(frame.epoch);
            named.extend(blocks_of(&record));
            if is_accepted {
                records.push((frame.seq, record));
            }
        });
        // What a fallback would replay.
        let before = self.others.iter().filter(|other| other.seq + 1 == self.cp.seq);
        for tail in before.map(|other| other.tail) {
            let older = Journal::between(&self.sb, tail, self.cp.tail);
            older.for_each(cx, |_, record, _| named.extend(blocks_of(&record)));
        }
        (self.named, self.records, self.epoch) = (named, records, epoch);
        Ok(())
    }
}

fn blocks_of(record: &Record) -> Vec<(Phys, u64)> {
    match record {
        Record::MapSet { phys, crcs, .. } => vec![(*phys, crcs.len() as u64)],
        Record::Move { old, new, crcs, .. } => {
            vec![(*old, crcs.len() as u64), (*new, crcs.len() as u64)]
        }
        _ => Vec::new(),
    }
}

/// The first finding of this kind, as a reason to refuse.
pub(super) fn refused(cx: &Cx<'_>, kind: Structure) -> RepairError {
    let finding = cx
        .report
        .findings
        .iter()
        .find(|finding| finding.kind == kind && finding.severity == Severity::Corruption);
    RepairError::Refused(finding.map_or_else(|| kind.to_string(), ToString::to_string))
}

/// The checkpoint after the newest intact one, if that was complete and is damaged.
fn lost_successor(
    cx: &Cx<'_>,
    newest: &Checkpoint,
    areas: &[Area],
) -> Result<Option<Action>, RepairError> {
    let (next, second) = (newest.seq.saturating_add(1), newest.seq.saturating_add(2));
    let lost = (0..areas.len()).find_map(|index| {
        let corrupt = checkpoint::judge(cx.tag, newest, index, areas)
            .filter(|(severity, _)| *severity == Severity::Corruption);
        corrupt.map(|(_, what)| (index, what))
    });
    let unclear = |index| {
        let two = format!(
            "checkpoint areas {} and {index} are damaged: checkpoint {} may not be the last or the \
             one before it, and what it describes may have been overwritten",
            Checkpoint::area(next),
            newest.seq
        );
        RepairError::Refused(two)
    };
    match lost {
        None => Ok(None),
        Some((index, _)) if index != Checkpoint::area(next) => Err(unclear(index)),
        Some(_) if areas[Checkpoint::area(second)].may_hold(second).is_some() => {
            Err(unclear(Checkpoint::area(second)))
        }
        Some((area, what)) => Ok(Some(Action::ReplaceCheckpoint { area, seq: newest.seq, what })),
    }
}

type WithTable = (Checkpoint, Vec<(u32, NodeEntry)>, Option<Action>);

/// The newest checkpoint, or the one before it where the node table of the newest is damaged.
fn with_table(
    cx: &mut Cx<'_>,
    sb: &Superblock,
    newest: Checkpoint,
    valid: &[Checkpoint],
) -> Result<WithTable, RepairError> {
    if let Some(entries) = table::read_entries(cx, &newest) {
        return Ok((newest, entries, None));
    }
    if let Some(cause) = cx.unknown.take() {
        return Err(OpenError::Unsupported(cause).into());
    }
    let kinds = [Structure::TablePage, Structure::NodeEntry];
    let found = cx.report.findings.iter().find(|finding| kinds.contains(&finding.kind));
    let what = found.map_or_else(|| "node table".to_owned(), ToString::to_string);
    let is_fallback =
        |cp: &&Checkpoint| cp.seq + 1 == newest.seq && newest.flags & FLAG_NO_FALLBACK == 0;
    let before = valid.iter().find(is_fallback).cloned();
    let reached = before.filter(|cp| Journal::between(sb, cp.tail, newest.tail).is_whole(cx));
    let read = reached.and_then(|cp| Some((table::read_entries(cx, &cp)?, cp)));
    let Some((entries, cp)) = read else {
        let alone =
            format!("{what}; there is no other intact version of it that the journal goes on from");
        return Err(RepairError::Refused(alone));
    };
    let action = Action::GoBack { from: newest.seq, to: cp.seq, what };
    Ok((cp, entries, Some(action)))
}
