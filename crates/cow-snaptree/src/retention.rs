//! Which snapshots a volume keeps: the rules in its property `keep`, and what they say.
//!
//! ```text
//! keep = last=7,hourly=24,daily=7,weekly=4,monthly=12,yearly=3
//! ```
//!
//! Any of the six, each once, in any order, each with a number from 1 on. A snapshot is kept if at
//! least one of the rules keeps it:
//!
//! * `last=N` keeps the newest N snapshots.
//! * `hourly=N` (and so on) goes from the newest to the oldest and keeps the newest one of each
//!   hour, until it has kept N. Hours without a snapshot do not count. A day begins at midnight
//!   UTC, a week on Monday.
//!
//! The newest snapshot is always kept, then, and a further rule never makes less be kept. What is
//! newer is decided by the order in which snapshots were taken, not by their times: a clock that
//! was wrong for a while cannot make a snapshot the newest for ever.

use crate::error::TreeError;
use crate::node::Node;
use crate::props::KEEP;
use crate::table::MAX_NODES;
use crate::tree::Tree;
use cow_format::entry::NodeKind;
use cow_format::{NodeId, VolumeId, mutant};
use std::collections::BTreeSet;

/// From nanoseconds since 1970 to the number of an hour, a day and so on.
type PeriodOf = fn(u64) -> u64;

const HOUR_NS: u64 = 3_600_000_000_000;
const DAY_NS: u64 = 24 * HOUR_NS;
/// The rules, by the names that they have in the property.
const RULES: [(&str, PeriodOf); 5] = [
    ("hourly", |ns| ns / HOUR_NS),
    ("daily", |ns| ns / DAY_NS),
    // 1 January 1970 was a Thursday.
    ("weekly", |ns| (ns / DAY_NS + 3) / 7),
    ("monthly", |ns| month(ns / DAY_NS)),
    ("yearly", |ns| month(ns / DAY_NS) / 12),
];

/// The rules of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many; 0 for no such rule.
    last: usize,
    /// How many of each rule in [`RULES`]; 0 for no such rule.
    periods: [usize; RULES.len()],
}

impl Keep {
    /// Reads the value of the property.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(value: &str) -> Result<Self, String> {
        let mut keep = Self::default();
        for rule in value.split(',') {
            let (name, count) =
                rule.split_once('=').ok_or_else(|| format!("{rule:?} is not RULE=NUMBER"))?;
            let plain = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
            let number =
                count.parse().ok().filter(|n| plain && (1..=MAX_NODES as usize).contains(n));
            let number = number.ok_or_else(|| {
                format!("{name}: {count:?} is not a number from 1 to {MAX_NODES}")
            })?;
            let at = RULES.iter().position(|(rule, _)| *rule == name);
            let field = match at {
                Some(at) => &mut keep.periods[at],
                None if name == "last" => &mut keep.last,
                None => {
                    let known = "last, hourly, daily, weekly, monthly and yearly";
                    return Err(format!("{name:?} is no rule; there are {known}"));
                }
            };
            if std::mem::replace(field, number) != 0 {
                return Err(format!("{name} twice"));
            }
        }
        Ok(keep)
    }

    /// Which of these are kept: times of creation in nanoseconds since 1970, in the order in which
    /// they were taken, the oldest first.
    #[must_use]
    pub fn kept(&self, created_ns: &[u64]) -> Vec<bool> {
        let mut kept = vec![false; created_ns.len()];
        let last = self.last.saturating_sub(usize::from(mutant::is("keepless")));
        let newest = created_ns.len().saturating_sub(last);
        kept[newest..].fill(true);
        for ((_, period_of), count) in RULES.iter().zip(self.periods) {
            let mut periods = BTreeSet::new();
            for (at, &ns) in created_ns.iter().enumerate().rev() {
                if periods.len() == count {
                    break;
                }
                kept[at] |= periods.insert(period_of(ns));
            }
        }
        kept
    }
}

/// Months since January of year 0, of a day since 1970.
fn month(day: u64) -> u64 {
    // Years that begin in March, so that the day that some of them lack is their last.
    let day = day + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    (era * 400 + year) * 12 + from_march + 2
}

impl Tree {
    /// The snapshots of a volume that no rule of its property `keep` keeps, oldest first; none
    /// without the property.
    ///
    /// The rules are about snapshots of kinds user and auto without an expiry. Those that are held
    /// count, and are left out of the answer.
    ///
    /// # Errors
    /// `NotLoaded` for the head.
    pub fn not_kept(&self, id: VolumeId) -> Result<Vec<NodeId>, TreeError> {
        let Some(volume) = self.volume(id) else { return Ok(Vec::new()) };
        let Some(head) = self.node(volume.head).filter(|head| head.entry.policy) else {
            return Ok(Vec::new());
        };
        let props = head.props.as_deref().ok_or(TreeError::NotLoaded(volume.head))?;
        // What an older program let pass as a value is no rule.
        let keep = props.map.get(KEEP).and_then(|value| Keep::parse(value).ok());
        let Some(keep) = keep else { return Ok(Vec::new()) };
        let ruled = |node: &&Node| {
            let timed = node.entry.expiry_ns != 0 && !mutant::is("keeptimed");
            node.is_snapshot() && node.entry.kind != NodeKind::Undo && !timed
        };
        let snapshots = volume.snapshots.iter().filter_map(|id| self.node(id)).filter(ruled);
        let snapshots: Vec<&Node> = snapshots.collect();
        let created: Vec<u64> = snapshots.iter().map(|node| node.entry.created_ns).collect();
        let kept = keep.kept(&created);
        let held = |node: &Node| node.entry.holds > 0 && !mutant::is("pruneheld");
        let goes = snapshots.iter().zip(kept).filter(|(node, kept)| !kept && !held(node));
        Ok(goes.map(|(node, _)| node.entry.id).collect())
    }
}
