//! The decision. Depth first over the order of the operations that change something; what only observes is
//! put as early as it can be, which never spoils anything: it changes no state, and all that had to come
//! before it has come. What was seen to lead nowhere (the set of operations that have happened, and the state)
//! is remembered.
//!
//! At every point only such operations come next as were asked before the first answer that is still due:
//! of a history with few clients there are few, so the time grows with its length and not with its permutations.

use super::op::{Call, Cell, Node, Op, Token, VolumeId};
use super::state::State;
use crate::rng::mix;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write;

/// States tried before the search gives up.
const BUDGET: usize = 1_000_000;

/// What a search came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is a linearization.
    Linearizable,
    /// There is none; how far it goes, in words.
    Not(String),
    /// Too many orders to try; how far it went, in words.
    Unknown(String),
}

/// Decides a history that begins with `initial`, in parts: volumes that nothing connects are objects of their own.
#[must_use]
pub fn check(initial: &State, ops: &[Op]) -> Verdict {
    let mut worst = Verdict::Linearizable;
    for part in parts(ops) {
        match Search::new(&part).decide(initial) {
            Verdict::Linearizable => {}
            unknown @ Verdict::Unknown(_) => worst = unknown,
            not @ Verdict::Not(_) => return not,
        }
    }
    worst
}

/// As a result, for tests of histories.
///
/// # Errors
/// What is wrong with the history, or that it could not be decided.
pub fn judge(initial: &State, ops: &[Op]) -> Result<(), String> {
    match check(initial, ops) {
        Verdict::Linearizable => Ok(()),
        Verdict::Not(text) => Err(text),
        Verdict::Unknown(text) => Err(format!("inconclusive: {text}")),
    }
}

/// The operations of volumes that clones connect, each part in the order in which they were asked.
fn parts(ops: &[Op]) -> Vec<Vec<Op>> {
    let mut leader: BTreeMap<VolumeId, VolumeId> = BTreeMap::new();
    fn find(leader: &BTreeMap<VolumeId, VolumeId>, mut id: VolumeId) -> VolumeId {
        while let Some(&above) = leader.get(&id).filter(|&&above| above != id) {
            id = above;
        }
        id
    }
    for op in ops {
        let [one, other] = op.call.volumes().map(|id| find(&leader, id));
        leader.insert(one.max(other), one.min(other));
    }
    let seen = ops.iter().filter_map(|op| op.call.seen()).collect();
    let mut parts: BTreeMap<VolumeId, Vec<Op>> = BTreeMap::new();
    for op in ops {
        let op = Op { call: without_unseen(op.call.clone(), &seen), ..op.clone() };
        parts.entry(find(&leader, op.call.volumes()[0])).or_default().push(op);
    }
    let mut parts: Vec<_> = parts.into_values().collect();
    parts.iter_mut().for_each(|part| part.sort_by_key(|op| op.asked));
    parts
}

/// What a rollback has replaced and nobody looks at distinguishes states that are the same to everybody.
fn without_unseen(call: Call, seen: &BTreeSet<Node>) -> Call {
    match call {
        Call::Rollback { volume, to, undo } => {
            let undo = undo.filter(|&undo| seen.contains(&Node::Snap(volume, undo)));
            Call::Rollback { volume, to, undo }
        }
        other => other,
    }
}

/// For each snapshot that is taken what those reads say of it that can be of no other one of its name. A snapshot
/// takes long, and much is written meanwhile; to find out only then that it came too late is to try
/// all orders of that.
fn kept(ops: &[Op]) -> BTreeMap<usize, Vec<(Cell, Token)>> {
    let mut kept: BTreeMap<usize, Vec<(Cell, Token)>> = BTreeMap::new();
    let makes = |op: &Op, node: Node| match op.call {
        Call::Snapshot(volume, snap) => node == Node::Snap(volume, snap),
        Call::Rollback { volume, undo, .. } => undo.is_some_and(|u| node == Node::Snap(volume, u)),
        _ => false,
    };
    let deletes = |op: &Op, node: Node| match op.call {
        Call::Delete(volume, snap) => node == Node::Snap(volume, snap),
        _ => false,
    };
    for read in ops.iter().filter(|op| op.answered.is_some()) {
        let Call::Read { node: node @ Node::Snap(..), cells, .. } = &read.call else { continue };
        let takes = (0..ops.len()).filter(|&i| makes(&ops[i], *node));
        let mut possible = takes.filter(|&take| {
            let is_gone = |delete: &Op| {
                ops[take].answered.is_some_and(|taken| delete.asked > taken)
                    && delete.answered.is_some_and(|deleted| deleted < read.asked)
            };
            read.answered.is_none_or(|answered| ops[take].asked <= answered)
                && !ops.iter().filter(|op| deletes(op, *node)).any(is_gone)
        });
        if let (Some(only), None) = (possible.next(), possible.next())
            && matches!(ops[only].call, Call::Snapshot(..))
        {
            kept.entry(only).or_default().extend(cells);
        }
    }
    kept
}

fn fits(state: &State, call: &Call, kept: Option<&Vec<(Cell, Token)>>) -> bool {
    let holds = |&(cell, token): &(Cell, Token)| {
        state.get(Node::Head(call.volumes()[0]), cell) == Some(token)
    };
    kept.is_none_or(|kept| kept.iter().all(holds))
}

/// A step of the search: what it made happen, and what may come next.
struct Step {
    happened: Vec<usize>,
    state: State,
    choices: Vec<usize>,
    tried: usize,
}

struct Search<'a> {
    /// In the order in which they were asked.
    ops: &'a [Op],
    /// For each snapshot what later reads say that it has.
    kept: BTreeMap<usize, Vec<(Cell, Token)>>,
    /// What has not happened yet, as a ring; its beginning is `ops.len()`.
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Answered ones that have not happened yet.
    due: usize,
    /// A word that stands for the answered ones that have happened.
    happened: u64,
    /// Those that were not answered, and whether they have happened.
    unanswered: BTreeMap<usize, bool>,
    seen: HashSet<(u64, u64)>,
    /// The furthest that it came: how many were due, and why it went no further.
    furthest: (usize, String),
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op]) -> Self {
        let ring = ops.len() + 1;
        Self {
            ops,
            kept: kept(ops),
            next: (0..ring).map(|i| (i + 1) % ring).collect(),
            prev: (0..ring).map(|i| (i + ring - 1) % ring).collect(),
            due: ops.iter().filter(|op| op.answered.is_some()).count(),
            happened: 0,
            unanswered: (0..ops.len())
                .filter(|&op| ops[op].answered.is_none())
                .map(|op| (op, false))
                .collect(),
            seen: HashSet::new(),
            furthest: (usize::MAX, String::new()),
        }
    }

    fn decide(mut self, initial: &State) -> Verdict {
        let Some(first) = self.enter(None, initial.clone()) else { return Verdict::Linearizable };
        let mut steps = vec![first];
        while let Some(step) = steps.last_mut() {
            let Some(&choice) = step.choices.get(step.tried) else {
                let happened = std::mem::take(&mut step.happened);
                steps.pop();
                happened.into_iter().rev().for_each(|op| self.put_back(op));
                continue;
            };
            step.tried += 1;
            if !fits(&step.state, &self.ops[choice].call, self.kept.get(&choice)) {
                continue;
            }
            let Some(state) = step.state.after(&self.ops[choice].call) else { continue };
            match self.enter(Some(choice), state) {
                Some(step) => steps.push(step),
                None => return Verdict::Linearizable,
            }
            if self.seen.len() > BUDGET {
                return Verdict::Unknown(self.furthest.1);
            }
        }
        Verdict::Not(self.furthest.1)
    }

    /// `choice` happens, and with it all that observe `state` and may happen now. None: all has happened.
    fn enter(&mut self, choice: Option<usize>, state: State) -> Option<Step> {
        let mut happened: Vec<usize> = choice.into_iter().collect();
        happened.iter().for_each(|&op| self.take_out(op));
        let choices = loop {
            let candidates = self.candidates();
            let observers = candidates.iter().filter(|&&op| {
                let op = &self.ops[op];
                op.call.observes() && op.answered.is_some() && state.agrees(&op.call)
            });
            let observers: Vec<usize> = observers.copied().collect();
            if observers.is_empty() {
                break candidates;
            }
            observers.iter().for_each(|&op| self.take_out(op));
            happened.extend(observers);
        };
        if self.due == 0 {
            return None;
        }
        if self.due < self.furthest.0 {
            self.furthest = (self.due, self.explain(&choices, &state));
        }
        let is_new = self.seen.insert((self.happened ^ self.may_happen(&state), state.digest()));
        let mut choices: Vec<usize> = if is_new { choices } else { Vec::new() };
        choices.retain(|&op| !self.ops[op].call.observes());
        // As they were answered: mostly that is the order in which they happened. A snapshot of which is known
        // what it has comes as soon as that is there.
        choices.sort_by_key(|&op| {
            (!self.kept.contains_key(&op), self.ops[op].answered.unwrap_or(u64::MAX))
        });
        Some(Step { happened, state, choices, tried: 0 })
    }

    /// What may happen next: asked before the first answer that is still due.
    fn candidates(&self) -> Vec<usize> {
        let end = self.ops.len();
        let (mut found, mut limit, mut at) = (Vec::new(), u64::MAX, self.next[end]);
        while at != end && self.ops[at].asked <= limit {
            limit = limit.min(self.ops[at].answered.unwrap_or(u64::MAX));
            found.push(at);
            at = self.next[at];
        }
        found.retain(|&op| self.ops[op].asked <= limit);
        found
    }

    fn take_out(&mut self, op: usize) {
        let (prev, next) = (self.prev[op], self.next[op]);
        (self.next[prev], self.prev[next]) = (next, prev);
        self.count(op, false);
    }

    /// The reverse of the last [`Self::take_out`] that is not reversed.
    fn put_back(&mut self, op: usize) {
        let (prev, next) = (self.prev[op], self.next[op]);
        (self.next[prev], self.prev[next]) = (op, op);
        self.count(op, true);
    }

    fn count(&mut self, op: usize, due: bool) {
        match self.unanswered.get_mut(&op) {
            Some(has_happened) => *has_happened = !due,
            None => {
                self.happened ^= mix(op as u64);
                self.due = if due { self.due + 1 } else { self.due - 1 };
            }
        }
    }

    /// A word that stands for what was not answered and may still happen. What is fenced cannot: whether it
    /// has happened is then seen in the state, if anywhere.
    fn may_happen(&self, state: &State) -> u64 {
        let may = |&(&op, &has_happened): &(&usize, &bool)| {
            !has_happened && !state.is_fenced(&self.ops[op].call)
        };
        self.unanswered.iter().filter(may).fold(0, |word, (&op, _)| word ^ mix(!(op as u64)))
    }

    fn explain(&self, choices: &[usize], state: &State) -> String {
        let mut text = format!(
            "no linearization: {} of {} operations fit",
            self.ops.len() - self.due,
            self.ops.len()
        );
        for &op in choices {
            let Op { client, call, asked, answered } = &self.ops[op];
            let until = answered.map_or("?".to_owned(), |at| at.to_string());
            let _ = write!(text, "\n  client {client}, {asked}..{until}: {call:?}");
            let (node, cells) = match (call, self.kept.get(&op)) {
                (Call::Read { node, cells, .. }, _) => (*node, cells),
                (Call::Snapshot(volume, _), Some(kept)) => (Node::Head(*volume), kept),
                _ => continue,
            };
            for &(cell, token) in cells {
                let held = state.get(node, cell);
                if held != Some(token) {
                    let _ = write!(
                        text,
                        "\n    sector {cell}: {token} is seen, {held:?} would be right"
                    );
                }
            }
        }
        text
    }
}
