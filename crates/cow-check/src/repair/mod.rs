//! The repair of a pool that nobody else has open.
//!
//! ```text
//! check -> base -> survey <-> cut, count -> pages, checkpoint -> check of the image -> write
//!                     \___ all of it above the image, in memory ___/
//! ```
//!
//! 1. *Base*: the checkpoint that an open would start from. The journal after it must be whole: what was
//!    acknowledged since is in it, and is replayed by the next open as ever. Nothing of it is touched.
//! 2. *Survey*: all maps are walked as the check walks them. Map nodes that cannot be read are cut out, and
//!    the walk begins again, until all that is left can be read; then counters, kill rows and properties
//!    are made to say what was counted.
//! 3. What must be written is a checkpoint with its pages, new map nodes and chains, and copies of the superblock.
//!    It is checked as a whole before anything of it is written. If that finds more than what is lost,
//!    nothing is done.
//! 4. It is written as a fold writes: everything to blocks and homes that no intact checkpoint uses, a flush, the
//!    checkpoint, a flush. A crash leaves the pool as it was, or repaired.
//!
//! What cannot be done without guessing is refused: see [`RepairError`].

mod action;
mod base;
mod copies;
mod counts;
mod cut;
mod overlay;
mod pages;
mod space;
mod told;
mod work;
mod write;

pub use action::{Action, Lost};
pub use write::{BlocksMut, WriteError, apply};

use crate::blocks::Blocks;
use crate::check::check;
use crate::context::{Cx, Options};
use crate::report::{OpenError, Report, Severity, Structure};
use base::Base;
use cow_format::checkpoint::{Checkpoint, FLAG_LEAKS};
use cow_format::geometry::ZONE_BLOCKS;
use cow_format::mapnode::NodePlace;
use cow_format::{BLOCK_SIZE, Buf, Phys, mutant};
use overlay::{Overlay, Page};
use std::collections::BTreeMap;
use work::{Survey, Work};

/// How often the maps are walked, at most: each walk reads below what the one before has cut out.
const MAX_WALKS: usize = 64;

/// Why a pool is not repaired. Nothing has been written, but for `Write`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// There is nothing to begin with.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What is damaged cannot be made good without guessing.
    #[error("not repaired, nothing was written: {0}")]
    Refused(String),
    /// New metadata has no place.
    #[error(
        "not repaired, nothing was written: no block is sure to be free for new metadata; make the pool larger"
    )]
    NoSpace,
    /// What could not be read before can be read now.
    #[error(
        "not repaired, nothing was written: block {block} can be read again; look after the device, and try again"
    )]
    ReadsAgain {
        /// Where.
        block: u64,
    },
    /// The device refuses. The pool is as it was, or repaired.
    #[error("{op}: {cause}; the pool is as it was or repaired: check it again")]
    Write {
        /// What was done.
        op: &'static str,
        /// What the system said.
        cause: String,
    },
}

/// What a repair is going to do.
#[derive(Debug)]
pub struct Plan {
    /// What is wrong.
    pub before: Report,
    /// What is done about it, in order.
    pub actions: Vec<Action>,
    /// What cannot be brought back.
    pub lost: Vec<Lost>,
    /// What a check will find afterwards, of structure alone.
    pub after: Report,
    /// Superblock copies, and a checkpoint area that is wiped; then what the checkpoint refers to, by block.
    copies: BTreeMap<u64, Page>,
    body: BTreeMap<u64, Page>,
    checkpoint: Option<(Phys, Buf)>,
    believed: Vec<NodePlace>,
}

impl Plan {
    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty() && self.checkpoint.is_none()
    }
}

/// Looks at a pool that nobody writes to, and says what [`apply`] would do. Writes nothing.
///
/// # Errors
/// When there is no pool, or none that can be repaired without guessing.
pub fn plan(blocks: &mut dyn Blocks, options: &Options<'_>) -> Result<Plan, RepairError> {
    let mut overlay = Overlay::new(blocks);
    let before = check(&mut overlay, options)?;
    let base = Base::choose(&mut Cx::new(&mut overlay, options))?;
    let is_counted = !base.entries.values().any(|entry| entry.inexact);
    if before.is_clean() && base.cp.flags & FLAG_LEAKS == 0 && is_counted {
        return Ok(Plan::nothing(before));
    }
    let mut work = Work::new(overlay, base);
    let survey = settle(&mut work, options)?;
    let mut copies = copies::restore(&mut work);
    let checkpoint = finish(&mut work, &survey);
    if checkpoint.is_some() {
        copies.extend(wipe(&mut work));
    }
    let lost = told::lost(&work, &survey);
    if copies.is_empty() && checkpoint.is_none() {
        return Ok(Plan::nothing(before));
    }
    let quick = Options { data: false, ..*options };
    let after = check(&mut work.overlay, &quick)?;
    if let Some(kind) = after.by_kind.keys().find(|kind| !is_settled(**kind)) {
        let first = after
            .findings
            .iter()
            .find(|finding| finding.kind == *kind && finding.severity == Severity::Corruption);
        let what = first.map_or_else(|| kind.to_string(), ToString::to_string);
        return Err(RepairError::Refused(format!("a check would still find: {what}")));
    }
    let replaces_lost = matches!(work.base.reason, Some(Action::ReplaceCheckpoint { .. }));
    let Work { overlay, actions, believed, .. } = work;
    let mut body = overlay.into_pages();
    let mut copies: BTreeMap<u64, Page> =
        copies.iter().filter_map(|block| body.remove_entry(block)).collect();
    if let (Some((at, _)), true) = (&checkpoint, replaces_lost && !mutant::is("tornwhole")) {
        // Nothing has kept what the lost one refers to: a crash in the midst of the new one must not make it whole.
        // Zeros might, as they are what most of it is.
        copies.insert(at.0, Box::new([0xff; BLOCK_SIZE]));
    }
    for index in 0..checkpoint.as_ref().map_or(0, |(_, buf)| buf.block_count()) {
        let at = checkpoint.as_ref().map_or(0, |(at, _)| at.0);
        body.remove(&(at + index as u64));
    }
    Ok(Plan { before, actions, lost, after, copies, body, checkpoint, believed })
}

impl Plan {
    fn nothing(before: Report) -> Self {
        Self {
            after: before.clone(),
            before,
            actions: Vec::new(),
            lost: Vec::new(),
            copies: BTreeMap::new(),
            body: BTreeMap::new(),
            checkpoint: None,
            believed: Vec::new(),
        }
    }
}

/// What a repair leaves: data that is not what was written, and what is known to be lost.
fn is_settled(kind: Structure) -> bool {
    matches!(kind, Structure::Data | Structure::KnownDamage)
}

/// Cuts and counts until a walk finds nothing more to be done.
fn settle(work: &mut Work<'_>, options: &Options<'_>) -> Result<Survey, RepairError> {
    for _ in 0..MAX_WALKS {
        let survey = work.survey(options)?;
        if give_back(work, &survey) {
            continue;
        }
        if !survey.unread.nodes.is_empty() {
            cut::cut(work, &survey)?;
        } else if !counts::correct(work, &survey)? {
            return match survey.whole {
                true => Ok(survey),
                false => Err(unsettled(&survey.report)),
            };
        }
    }
    Err(RepairError::Refused("the maps are damaged in too many ways".to_owned()))
}

/// What discards have cut off and no fold has given back yet is given back at once, where anything is not counted:
/// nothing has it any more, and until it is counted too nobody can say what its node should have; whether there was
/// any. So what is damaged in it need not be cut out.
fn give_back(work: &mut Work<'_>, survey: &Survey) -> bool {
    let unread = &survey.unread;
    let is_counted = unread.nodes.is_empty()
        && unread.rows.is_empty()
        && work.base.cp.flags & FLAG_LEAKS == 0
        && !work.entries.values().any(|entry| entry.inexact);
    let lines = work.cp.detached.len() as u64;
    if is_counted || lines == 0 {
        return false;
    }
    work.cp.detached.clear();
    work.actions.push(Action::GiveBack { lines });
    true
}

fn unsettled(report: &Report) -> RepairError {
    let kinds = [Structure::SharedBlock, Structure::Ownership];
    let is_cause = |kind| kinds.contains(&kind) || !is_settled(kind);
    let first =
        report.findings.iter().find(|f| f.severity == Severity::Corruption && is_cause(f.kind));
    RepairError::Refused(first.map_or_else(|| "the maps".to_owned(), ToString::to_string))
}

/// Empties the area after that of the new checkpoint, if one could take what stands there for a newer one: the
/// block that is written.
fn wipe(work: &mut Work<'_>) -> Option<u64> {
    let after = work.cp.seq.saturating_add(1);
    let (_, what) = work.base.doubtful.iter().find(|(seq, _)| *seq == after)?.clone();
    if mutant::is("areabeside") {
        return None;
    }
    let area = Checkpoint::area(after);
    work.actions.push(Action::WipeCheckpoint { area, what });
    let at = Phys(work.base.sb.geometry.cp_start[area]);
    work.overlay.put(at, &Buf::zeroed(1));
    Some(at.0)
}

/// Pages and checkpoint; `None` when they would say what the checkpoint that is there says.
fn finish(work: &mut Work<'_>, survey: &Survey) -> Option<(Phys, Buf)> {
    // What an earlier walk has written and a later one has replaced.
    let stale: Vec<u64> = work
        .space
        .taken()
        .iter()
        .map(|phys| phys.0)
        .filter(|block| {
            let bits = survey.reach.zone(block / ZONE_BLOCKS);
            !bits.is_some_and(|bits| bits.get((block % ZONE_BLOCKS) as u32))
        })
        .collect();
    work.overlay.retain(|block| !stale.contains(&block));
    counts::count_pool(work, survey);
    let base = &work.base.cp;
    let noted = base.damage.len() as u64 + base.damage_overflow;
    if noted > 0 || base.flags & FLAG_LEAKS != 0 {
        work.actions.push(Action::ForgetDamage { entries: noted });
    }
    pages::write_table(work);
    pages::write_bitmap(work, survey);
    let (new, old) = (&work.cp, &work.base.cp);
    let as_before = Checkpoint { seq: old.seq, epoch: old.epoch, ..new.clone() };
    if as_before == *old && work.base.reason.is_none() {
        return None;
    }
    let buf = new.encode(work.tag());
    debug_assert!(buf.len().is_multiple_of(BLOCK_SIZE));
    let at = Phys(work.base.sb.geometry.cp_start[Checkpoint::area(new.seq)]);
    work.overlay.put(at, &buf);
    Some((at, buf))
}
