//! The copies of the superblock that are damaged: each from its twin, or a set from the other.

use super::action::Action;
use super::work::Work;
use crate::report::Severity;
use crate::superblock::{Copy, judge};
use cow_format::Phys;
use cow_format::superblock::{COPY_BLOCKS, Superblock};

/// The two sets.
const SETS: [[usize; 2]; 2] = [[0, 1], [2, 3]];

/// Puts them into the image. The blocks that are written.
pub(super) fn restore(work: &mut Work<'_>) -> Vec<u64> {
    let newest = work.base.sb.clone();
    let (mut writes, mut actions): (Vec<(usize, Superblock)>, Vec<Action>) = Default::default();
    for set in SETS {
        let wrong = set.map(|copy| judge(work.tag(), &newest, copy, &work.base.copies[copy]));
        let corrupt = wrong.clone().map(|wrong| {
            wrong.filter(|(severity, _)| *severity == Severity::Corruption).map(|(_, what)| what)
        });
        for (i, copy) in set.into_iter().enumerate() {
            let Some(what) = corrupt[i].clone() else { continue };
            let twin = match &work.base.copies[set[1 - i]] {
                Copy::Valid(twin) if wrong[1 - i].is_none() => Some(twin.clone()),
                _ => None,
            };
            // At creation all copies are of one sequence.
            let is_current = Superblock::copies_of(newest.sequence) == set;
            if let Some(twin) = twin.or_else(|| is_current.then(|| newest.clone())) {
                writes.push((copy, twin));
                actions.push(Action::RestoreSuperblock { copy, what });
                continue;
            }
            let sequence = newest.sequence + 1;
            let renewed = Superblock { sequence, epoch: work.base.epoch, ..newest.clone() };
            writes.extend(set.map(|copy| (copy, renewed.clone())));
            actions.push(Action::RenewSuperblocks { sequence, what });
            break;
        }
    }
    work.actions.splice(0..0, actions);
    for (copy, sb) in &writes {
        work.overlay.put(Phys(COPY_BLOCKS[*copy]), &sb.encode(*copy));
    }
    writes.iter().map(|(copy, _)| COPY_BLOCKS[*copy]).collect()
}
