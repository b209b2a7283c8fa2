//! A small machine that keeps every promise in the plainest way, and brothers of it that break
//! one each. They show that the harness works, and that it catches what it is for.
//!
//! All state is in memory; the disk holds a log. A record is a header block and, for a write,
//! its bytes, padded to blocks; recovery applies records as long as each is whole and names its
//! predecessor. What a record *says* is kept in a table of the process and found by the key in
//! the header: what is under test is which records survive a crash, not how they are coded.

mod log;
mod ops;

use crate::model::State;
use crate::world::Machine;
use cow_engine::{Action, Config, Event, IoId, OpId, Reply};
use cow_format::Phys;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Honest.
pub const HONEST: u8 = 0;
/// Answers a flush without flushing.
pub const FLUSH_WITHOUT_FLUSH: u8 = 1;
/// Does not log every fifth write.
pub const LOSES_A_WRITE: u8 = 2;
/// Logs a group snapshot as one record for each volume.
pub const HALF_A_GROUP: u8 = 3;
/// Logs a write after the one that follows it.
pub const REORDERS: u8 = 4;
/// Does not compare the bytes of a record with their checksum in recovery.
pub const UNVERIFIED: u8 = 5;
/// Lets a write through into the newest snapshot.
pub const LEAKS_INTO_SNAPSHOT: u8 = 6;
/// Answers verbs before they are durable.
pub const EARLY_VERB: u8 = 7;
/// Does not link records: what recovery cut comes back.
pub const UNCHAINED: u8 = 8;
/// Flushes before the writes that it covers are complete.
pub const EARLY_FLUSH: u8 = 9;
/// Reads give what was there before, now and then.
pub const STALE_READ: u8 = 10;
/// Skips the flush at the end of recovery.
pub const RECOVERY_UNFLUSHED: u8 = 11;
/// All the broken ones.
pub const BROKEN: std::ops::RangeInclusive<u8> = FLUSH_WITHOUT_FLUSH..=RECOVERY_UNFLUSHED;

/// Who waits for a flush, and up to which record.
struct Waiter {
    id: OpId,
    reply: Reply,
    upto: u64,
}

/// See the module.
pub struct Fake<const BUG: u8> {
    state: State,
    /// Before the newest write: for [`STALE_READ`].
    previous: State,
    exports: BTreeMap<u64, (String, bool)>,
    next_export: u64,
    next_io: u64,
    /// Next free block of the log, and the record that ends there.
    tail: u64,
    seq: u64,
    last_key: u64,
    writes: u64,
    /// Records whose device write is not complete, and who waits for it.
    unwritten: BTreeSet<u64>,
    io: BTreeMap<IoId, u64>,
    acks: VecDeque<(u64, OpId)>,
    held_back: Option<log::Held>,
    waiters: Vec<Waiter>,
    flushing: Option<(IoId, Vec<Waiter>)>,
    opening: Option<(OpId, IoId)>,
    scan: log::Scan,
}

impl<const BUG: u8> Machine for Fake<BUG> {
    fn start(_: Config) -> Self {
        Self {
            state: State::default(),
            previous: State::default(),
            exports: BTreeMap::new(),
            next_export: 0,
            next_io: 0,
            tail: 1,
            seq: 0,
            last_key: 0,
            writes: 0,
            unwritten: BTreeSet::new(),
            io: BTreeMap::new(),
            acks: VecDeque::new(),
            held_back: None,
            waiters: Vec::new(),
            flushing: None,
            opening: None,
            scan: log::Scan::Header,
        }
    }

    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Op { id, op } => self.take(id, op, actions),
            Event::IoDone { id, buf, .. } => self.io_done(id, buf, actions),
            Event::Resume => {}
            Event::Tick { .. } => self.release(actions),
        }
        self.turn(actions);
    }
}

impl<const BUG: u8> Fake<BUG> {
    fn io_id(&mut self) -> IoId {
        self.next_io += 1;
        IoId(self.next_io)
    }

    fn io_done(&mut self, id: IoId, buf: Option<cow_format::Buf>, actions: &mut Vec<Action>) {
        if let Some((op, _)) = self.opening.filter(|(_, io)| *io == id) {
            self.recovery_step(op, buf, actions);
        } else if let Some(seq) = self.io.remove(&id) {
            self.unwritten.remove(&seq);
        } else if self.flushing.as_ref().is_some_and(|(io, _)| *io == id)
            && let Some((_, waiters)) = self.flushing.take()
        {
            for Waiter { id, reply, .. } in waiters {
                actions.push(Action::Reply { id, result: Ok(reply) });
            }
        }
    }

    /// Acknowledges what can be, in the order of the log, and flushes for those who wait.
    fn turn(&mut self, actions: &mut Vec<Action>) {
        while let Some(&(seq, id)) = self.acks.front()
            && self.unwritten.first().is_none_or(|&first| seq < first)
        {
            self.acks.pop_front();
            actions.push(Action::Reply { id, result: Ok(Reply::Done) });
        }
        if self.flushing.is_some() || self.waiters.is_empty() {
            return;
        }
        self.release(actions);
        let written = self.unwritten.first().map_or(u64::MAX, |&first| first - 1);
        let (ready, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|waiter| waiter.upto <= written || BUG == EARLY_FLUSH);
        self.waiters = rest;
        if ready.is_empty() {
            return;
        }
        let id = self.io_id();
        self.flushing = Some((id, ready));
        actions.push(Action::Flush { id });
    }

    /// Answers once everything logged so far is durable.
    fn when_durable(&mut self, id: OpId, reply: Reply, actions: &mut Vec<Action>) {
        let is_verb = !matches!(reply, Reply::Done);
        if BUG == FLUSH_WITHOUT_FLUSH && !is_verb || BUG == EARLY_VERB && is_verb {
            actions.push(Action::Reply { id, result: Ok(reply) });
            return;
        }
        self.waiters.push(Waiter { id, reply, upto: self.seq });
    }
}

const LOG_START: Phys = Phys(1);
