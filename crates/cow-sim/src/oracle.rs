//! The judge: which states may clients see, now and after a crash?
//!
//! Every operation is an interval from its submission to its reply; somewhere in between it
//! takes effect. Two operations are *ordered* if one was answered before the other was
//! submitted; writes, discards and zeroes are moreover ordered as they were answered where a record
//! is sequenced when the reply is given, which is so but in journaled mode: there a reply waits for
//! the frame, and those that one frame holds are given in any order. Design promise 3 then reads:
//! what a recovery brings back is the effect of a set of operations that
//!
//! * holds every one that an acknowledged flush or verb made durable,
//! * with any operation holds all that are ordered before it (a prefix, over all volumes),
//! * holds each operation wholly or not at all (groups are atomic),
//!
//! in some order that respects the ordering. [`Oracle::judge`] looks for such a set. Where the same
//! content was written more than once, several sets may explain what is there. One is enough, and
//! which it was does not matter: all goes on from the state that was seen.

mod reads;
mod search;
#[cfg(test)]
mod tests;

pub use reads::ReadTicket;

use crate::cmd::Cmd;
use crate::model::{Kept, State};
use cow_engine::{AckMode, Error, OpId, Reply};

/// What became of an operation, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Submitted, no answer yet.
    Pending,
    /// Answered: done.
    Acked {
        /// When.
        at: u64,
    },
    /// Answered with an error that says nothing: it may or may not have happened.
    Unknown,
}

/// An operation since the last state that is known to be durable.
#[derive(Clone, Debug)]
pub struct Entry {
    id: OpId,
    cmd: Cmd,
    start: u64,
    phase: Phase,
    kept: Option<Vec<Option<String>>>,
}

impl Entry {
    fn acked_at(&self) -> Option<u64> {
        match self.phase {
            Phase::Acked { at } => Some(at),
            Phase::Pending | Phase::Unknown => None,
        }
    }

    /// A data operation whose record is sequenced when it is answered.
    fn is_plain(&self) -> bool {
        self.cmd.changed_blocks().is_some()
            && !self.cmd.durable_when_acknowledged()
            && self.phase != Phase::Unknown
    }

    /// Whether this one takes effect before `other`, as replies are given in the mode `ack`.
    fn before(&self, other: &Self, ack: AckMode) -> bool {
        let Some(end) = self.acked_at() else { return false };
        let in_order = ack != AckMode::Journaled && self.is_plain() && other.is_plain();
        end < other.start || in_order && other.acked_at().is_none_or(|theirs| end < theirs)
    }

    fn is_durable(&self) -> bool {
        self.acked_at().is_some() && self.cmd.durable_when_acknowledged()
    }
}

/// See the module.
#[derive(Default)]
pub struct Oracle {
    base: State,
    live: State,
    log: Vec<Entry>,
    clock: u64,
    ambiguous: bool,
    ack: AckMode,
    tickets: Vec<ReadTicket>,
    pruned: u64,
}

impl Oracle {
    /// A judge of an empty pool.
    #[must_use]
    pub fn new(ack: AckMode) -> Self {
        Self { ack, ..Self::default() }
    }

    /// The state that clients see, if nothing in flight makes it ambiguous.
    #[must_use]
    pub fn live(&self) -> &State {
        &self.live
    }

    /// Whether operations that conflict were in flight together, so that only a look at the
    /// pool can tell its state; see [`Self::settle`].
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// A number that moves whenever the verdict may have become stricter.
    #[must_use]
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Snapshots that prunes have deleted, as acknowledged.
    #[must_use]
    pub fn pruned(&self) -> u64 {
        self.pruned
    }

    /// Operations that no durable state covers yet.
    #[must_use]
    pub fn log_len(&self) -> usize {
        self.log.len()
    }

    /// Whether an operation in flight changes any of these blocks, or the volume's tree.
    #[must_use]
    pub fn in_flight_conflict(&self, cmd: &Cmd) -> bool {
        self.in_flight().any(|other| other.conflicts(cmd))
    }

    /// What is in flight.
    pub fn in_flight(&self) -> impl Iterator<Item = &Cmd> {
        self.log.iter().filter(|entry| entry.phase == Phase::Pending).map(|entry| &entry.cmd)
    }

    /// An operation was handed to the machine.
    pub fn begin(&mut self, id: OpId, cmd: &Cmd) {
        self.clock += 1;
        self.ambiguous |= self.in_flight_conflict(cmd);
        self.note_for_reads(cmd);
        if cmd.mutates() || cmd.durable_when_acknowledged() {
            let (start, phase) = (self.clock, Phase::Pending);
            self.log.push(Entry { id, cmd: cmd.clone(), start, phase, kept: None });
        }
    }

    /// What a client that has seen all replies expects of `cmd`: `None` for success.
    #[must_use]
    pub fn expected_refusal(&self, cmd: &Cmd) -> Option<crate::model::Refusal> {
        self.live.clone().apply(cmd, &Kept::Guess(0)).err()
    }

    /// An operation was answered.
    ///
    /// # Errors
    /// When the answer cannot be.
    pub fn finish(&mut self, id: OpId, result: &Result<Reply, Error>) -> Result<(), String> {
        self.clock += 1;
        let Some(index) = self.log.iter().position(|entry| entry.id == id) else { return Ok(()) };
        match result {
            Ok(reply) => self.acknowledge(index, reply),
            Err(Error::Io { .. } | Error::Poisoned(_) | Error::Corrupt(_)) => {
                self.log[index].phase = Phase::Unknown;
                self.ambiguous |= self.log[index].cmd.mutates();
                Ok(())
            }
            Err(_) => {
                self.log.remove(index);
                Ok(())
            }
        }
    }

    fn acknowledge(&mut self, index: usize, reply: &Reply) -> Result<(), String> {
        let entry = &mut self.log[index];
        entry.phase = Phase::Acked { at: self.clock };
        if let Reply::RolledBack(kept) = reply {
            let name = |kept: &Option<(String, _)>| {
                kept.as_ref().map(|(name, _)| match name.split_once('@') {
                    Some((_, snap)) => snap.to_owned(),
                    None => name.clone(),
                })
            };
            entry.kept = Some(kept.iter().map(name).collect());
        }
        let kept = entry.kept.clone().map_or(Kept::Guess(0), Kept::Known);
        let cmd = entry.cmd.clone();
        if let (Cmd::Prune { volumes }, Reply::Deleted(size)) = (&cmd, reply) {
            let (mut names, should) = (size.names.clone(), self.live.pruned(volumes));
            names.sort();
            if names != should && !self.ambiguous {
                return Err(format!("{cmd:?} deleted {names:?}, but should {should:?}"));
            }
            self.pruned += names.len() as u64;
            if names.is_empty() {
                // No record, and no flush: what came before is no more durable than it was.
                self.log.remove(index);
                return Ok(());
            }
        }
        if let Err(refusal) = self.live.apply(&cmd, &kept)
            && !self.ambiguous
        {
            return Err(format!("{cmd:?} was acknowledged, but cannot be: {refusal:?} ({kept:?})"));
        }
        if self.log[index].is_durable() && !self.ambiguous {
            self.compact();
        }
        Ok(())
    }

    /// Which operations must be there after a crash.
    fn required(&self, kill: bool) -> Vec<bool> {
        let all = kill && self.ack == AckMode::Journaled;
        let durable: Vec<&Entry> = self.log.iter().filter(|entry| entry.is_durable()).collect();
        let required = |entry: &Entry| {
            entry.is_durable()
                || all && entry.acked_at().is_some()
                || durable.iter().any(|other| entry.before(other, self.ack))
        };
        self.log.iter().map(required).collect()
    }

    /// Moves what is durable into the base. Sound where what is in flight together commutes.
    fn compact(&mut self) {
        let required = self.required(false);
        let mut order: Vec<usize> = (0..self.log.len()).filter(|&index| required[index]).collect();
        order.sort_by_key(|&index| self.log[index].acked_at());
        for &index in &order {
            let entry = &self.log[index];
            let kept = entry.kept.clone().map_or(Kept::Guess(0), Kept::Known);
            if self.base.apply(&entry.cmd, &kept).is_err() {
                debug_assert!(false, "the log does not apply to its base");
            }
        }
        let mut index = 0;
        self.log.retain(|_| {
            index += 1;
            !required[index - 1]
        });
    }

    /// Judges what a recovery brought back, `kill` saying whether only the process died.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    pub fn judge(&self, observed: &State, kill: bool) -> Result<(), String> {
        search::judge(self, observed, &self.required(kill))
    }

    /// Judges what clients see while nothing is in flight: all that was acknowledged, durable or
    /// not.
    ///
    /// # Errors
    /// Why it cannot be, in words.
    pub fn judge_live(&self, observed: &State) -> Result<(), String> {
        if self.ambiguous {
            let acked: Vec<bool> =
                self.log.iter().map(|entry| entry.acked_at().is_some()).collect();
            return search::judge(self, observed, &acked);
        }
        match observed.difference(&self.live) {
            Some(text) => Err(format!("found against all that is acknowledged: {text}")),
            None => Ok(()),
        }
    }

    /// Takes what was seen as the state that everything begins from: after a recovery, which
    /// made it durable, or when all is answered and flushed.
    pub fn settle(&mut self, observed: State) {
        self.live = observed.clone();
        self.base = observed;
        self.log.clear();
        self.tickets.clear();
        self.ambiguous = false;
        self.clock += 1;
    }
}
