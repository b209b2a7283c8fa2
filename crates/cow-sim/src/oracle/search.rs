//! Looks for a set of operations, and an order of them, that explains an observed state.

use super::{Entry, Oracle};
use crate::model::{Kept, State};
use std::collections::HashSet;
use std::fmt::Write;

/// Sets tried before the search gives up.
const NODE_BUDGET: usize = 200_000;
/// Operations that it can tell apart.
const MOST: usize = 128;

struct Search<'a> {
    log: &'a [Entry],
    target: u64,
    required: u128,
    /// For each operation the set of those before it.
    before: Vec<u128>,
    seen: HashSet<(u128, u64)>,
    nodes: usize,
}

/// See [`Oracle::judge`].
pub(super) fn judge(oracle: &Oracle, observed: &State, required: &[bool]) -> Result<(), String> {
    let target = observed.digest();
    if walk(oracle, target, required) {
        return Ok(());
    }
    let log = &oracle.log;
    if log.len() > MOST {
        return Err(format!("{} operations since the last flush are too many to judge", log.len()));
    }
    let bits = |of: &dyn Fn(usize) -> bool| {
        (0..log.len()).filter(|&i| of(i)).fold(0u128, |set, i| set | 1 << i)
    };
    let before = log.iter().map(|entry| bits(&|i| log[i].before(entry, oracle.ack))).collect();
    let mut search = Search {
        log,
        target,
        required: bits(&|i| required[i]),
        before,
        seen: HashSet::new(),
        nodes: 0,
    };
    match search.explore(&oracle.base, 0) {
        Some(true) => Ok(()),
        None => Err("inconclusive: too many orders to try".to_owned()),
        Some(false) => Err(explain(oracle, observed, required)),
    }
}

/// The order of acknowledgement, which explains nearly everything: any cut of it that holds all
/// that is required.
fn walk(oracle: &Oracle, target: u64, required: &[bool]) -> bool {
    let mut missing = required.iter().filter(|&&required| required).count();
    let mut state = oracle.base.clone();
    if missing == 0 && state.digest() == target {
        return true;
    }
    for index in order_of(&oracle.log) {
        let entry = &oracle.log[index];
        if state.apply(&entry.cmd, &kept_of(entry)).is_err() && entry.acked_at().is_some() {
            return false;
        }
        missing -= usize::from(required[index]);
        if missing == 0 && state.digest() == target {
            return true;
        }
    }
    false
}

/// As acknowledged; then the others, as submitted.
fn order_of(log: &[Entry]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..log.len()).collect();
    order.sort_by_key(|&index| (log[index].acked_at().unwrap_or(u64::MAX), log[index].start));
    order
}

fn kept_of(entry: &Entry) -> Kept {
    entry.kept.clone().map_or(Kept::Guess(0), Kept::Known)
}

impl Search<'_> {
    /// `None` when the budget is spent.
    fn explore(&mut self, state: &State, applied: u128) -> Option<bool> {
        let digest = state.digest();
        if applied & self.required == self.required && digest == self.target {
            return Some(true);
        }
        if !self.seen.insert((applied, digest)) {
            return Some(false);
        }
        self.nodes += 1;
        if self.nodes > NODE_BUDGET {
            return None;
        }
        for index in 0..self.log.len() {
            let ready = self.before[index] & !applied == 0;
            if applied >> index & 1 == 1 || !ready {
                continue;
            }
            let entry = &self.log[index];
            let known = [kept_of(entry)];
            let guesses = [Kept::Guess(0), Kept::Guess(1), Kept::Guess(2), Kept::Guess(3)];
            let is_rollback = matches!(
                entry.cmd,
                crate::cmd::Cmd::Rollback { .. } | crate::cmd::Cmd::Undo { .. }
            );
            let choices = if is_rollback && entry.kept.is_none() { &guesses[..] } else { &known };
            for kept in choices {
                let mut next = state.clone();
                if next.apply(&entry.cmd, kept).is_ok()
                    && self.explore(&next, applied | 1 << index)?
                {
                    return Some(true);
                }
            }
        }
        Some(false)
    }
}

/// What is wrong, against the least and the most that could be there.
fn explain(oracle: &Oracle, observed: &State, required: &[bool]) -> String {
    let (mut least, mut most) = (oracle.base.clone(), oracle.base.clone());
    for index in order_of(&oracle.log) {
        let entry = &oracle.log[index];
        if required[index] {
            // What does not apply is not the first difference.
            least.apply(&entry.cmd, &kept_of(entry)).ok();
        }
        if entry.acked_at().is_some() {
            most.apply(&entry.cmd, &kept_of(entry)).ok();
        }
    }
    let mut whole = most.clone();
    for index in order_of(&oracle.log) {
        let entry = &oracle.log[index];
        if entry.acked_at().is_none() {
            whole.apply(&entry.cmd, &kept_of(entry)).ok();
        }
    }
    let mut text = String::from("no prefix of the operations explains what is there\n");
    let against = |state: &State| observed.difference(state).unwrap_or("nothing".to_owned());
    let _ = writeln!(text, "  found against all that is durable: {}", against(&least));
    let _ = writeln!(text, "  found against all that is acknowledged: {}", against(&most));
    let _ = writeln!(text, "  found against all that was asked: {}", against(&whole));
    let _ = writeln!(text, "  operations since the last durable state:");
    for (entry, required) in oracle.log.iter().zip(required) {
        let mark = if *required { "durable" } else { "may be cut" };
        let Entry { start, phase, cmd, .. } = entry;
        let _ = writeln!(text, "    [{start}..{phase:?}] {mark}: {cmd:?}");
    }
    text
}
