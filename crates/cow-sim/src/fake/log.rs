//! The log of the fake: appending and recovering.

use super::{Fake, HONEST, LOG_START, RECOVERY_UNFLUSHED, REORDERS, UNCHAINED, UNVERIFIED};
use crate::cmd::Cmd;
use crate::model::Kept;
use crate::rng::mix;
use cow_engine::{Action, OpId, Reply};
use cow_format::{BLOCK_SIZE, Buf, BufSlice, Phys};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a record says.
#[derive(Clone)]
pub(super) enum Record {
    /// The bytes that follow the header, at this offset of the volume.
    Bytes { volume: String, offset: u64, len: u64 },
    /// What a command does, and for a rollback what was kept.
    Does(Cmd, Kept),
}

static RECORDS: Mutex<BTreeMap<u64, Record>> = Mutex::new(BTreeMap::new());
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// A record that is kept back, to come after its successor.
pub(super) struct Held {
    record: Record,
    bytes: Vec<u8>,
}

/// What recovery is reading.
pub(super) enum Scan {
    Header,
    Body(Header),
    Flush,
}

#[derive(Clone, Copy)]
pub(super) struct Header {
    seq: u64,
    key: u64,
    previous: u64,
    blocks: u64,
    digest: u64,
}

impl Header {
    fn words(&self) -> [u64; 5] {
        [self.seq, self.key, self.previous, self.blocks, self.digest]
    }

    fn check(&self) -> u64 {
        self.words().iter().fold(1, |hash, word| mix(hash ^ word))
    }

    fn encode(&self, block: &mut [u8; BLOCK_SIZE]) {
        let words = self.words().into_iter().chain([self.check()]);
        for (word, at) in words.zip(block.chunks_exact_mut(8)) {
            at.copy_from_slice(&word.to_le_bytes());
        }
    }

    fn decode(block: &[u8; BLOCK_SIZE]) -> Option<Self> {
        let mut words = block.chunks_exact(8).map(|bytes| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            u64::from_le_bytes(word)
        });
        let mut next = || words.next().unwrap_or_default();
        let (seq, key, previous, blocks, digest) = (next(), next(), next(), next(), next());
        let header = Self { seq, key, previous, blocks, digest };
        (next() == header.check() && key != 0).then_some(header)
    }
}

fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(3, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash ^ u64::from_le_bytes(word))
    })
}

fn lookup(key: u64) -> Option<Record> {
    let records = RECORDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    records.get(&key).cloned()
}

impl<const BUG: u8> Fake<BUG> {
    /// Logs a record; `ack` is answered when its device write is complete.
    pub(super) fn append(
        &mut self,
        record: Record,
        bytes: Vec<u8>,
        ack: Option<OpId>,
        actions: &mut Vec<Action>,
    ) {
        if BUG == REORDERS
            && self.held_back.is_none()
            && matches!(record, Record::Bytes { .. })
            && self.writes.is_multiple_of(3)
            && let Some(id) = ack
        {
            self.held_back = Some(Held { record, bytes });
            self.acks.push_back((self.seq, id));
            return;
        }
        self.log(&record, &bytes, actions);
        if let Some(id) = ack {
            self.acks.push_back((self.seq, id));
        }
        self.release(actions);
    }

    /// Logs what was kept back.
    pub(super) fn release(&mut self, actions: &mut Vec<Action>) {
        if let Some(Held { record, bytes }) = self.held_back.take() {
            self.log(&record, &bytes, actions);
        }
    }

    fn log(&mut self, record: &Record, bytes: &[u8], actions: &mut Vec<Action>) {
        let key = NEXT_KEY.fetch_add(1, Ordering::Relaxed);
        let mut records = RECORDS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        records.insert(key, record.clone());
        drop(records);
        self.seq += 1;
        let body = Buf::from_bytes(bytes);
        let (blocks, digest) = (body.block_count() as u64, digest(&body));
        let header = Header { seq: self.seq, key, previous: self.last_key, blocks, digest };
        self.last_key = key;
        let mut head = Buf::zeroed(1);
        header.encode(head.block_mut(0));
        let (id, at) = (self.io_id(), Phys(self.tail));
        self.tail += 1 + blocks;
        self.unwritten.insert(self.seq);
        self.io.insert(id, self.seq);
        let bufs = vec![BufSlice::whole(head), BufSlice::whole(body)];
        actions.push(Action::Write { id, at, bufs, lazy: false });
    }

    /// Begins to read the log.
    pub(super) fn recover(&mut self, op: OpId, actions: &mut Vec<Action>) {
        self.tail = LOG_START.0;
        self.read(op, 1, actions);
    }

    fn read(&mut self, op: OpId, blocks: u64, actions: &mut Vec<Action>) {
        let id = self.io_id();
        self.opening = Some((op, id));
        let (at, buf) = (Phys(self.tail), Buf::zeroed(blocks as usize));
        actions.push(Action::Read { id, at, buf, bypass_cache: false });
    }

    pub(super) fn recovery_step(&mut self, op: OpId, buf: Option<Buf>, actions: &mut Vec<Action>) {
        match (std::mem::replace(&mut self.scan, Scan::Header), buf) {
            (Scan::Header, Some(buf)) => {
                let header = Header::decode(buf.block(0)).filter(|header| {
                    let linked = header.previous == self.last_key || BUG == UNCHAINED;
                    header.seq == self.seq + 1 && linked
                });
                match header {
                    Some(header) if header.blocks > 0 => {
                        self.tail += 1;
                        self.scan = Scan::Body(header);
                        self.read(op, header.blocks, actions);
                    }
                    Some(header) if self.accept(header, &[]) => {
                        self.tail += 1;
                        self.read(op, 1, actions);
                    }
                    _ => self.recovered(op, actions),
                }
            }
            (Scan::Body(header), Some(buf)) => {
                let whole = digest(&buf) == header.digest || BUG == UNVERIFIED;
                if whole && self.accept(header, &buf) {
                    self.tail += header.blocks;
                    self.read(op, 1, actions);
                } else {
                    self.tail -= 1;
                    self.recovered(op, actions);
                }
            }
            _ => {
                self.opening = None;
                actions.push(Action::Reply { id: op, result: Ok(Reply::Done) });
            }
        }
    }

    fn accept(&mut self, header: Header, bytes: &[u8]) -> bool {
        match lookup(header.key) {
            Some(Record::Bytes { volume, offset, len }) => {
                let Some(volume) = self.state.volumes.get_mut(&volume) else { return false };
                volume.head.content.write_bytes(offset, &bytes[..len as usize]);
            }
            Some(Record::Does(cmd, kept)) => {
                debug_assert!(self.state.apply(&cmd, &kept).is_ok() || BUG != HONEST);
            }
            None => return false,
        }
        (self.seq, self.last_key) = (header.seq, header.key);
        true
    }

    fn recovered(&mut self, op: OpId, actions: &mut Vec<Action>) {
        if BUG == RECOVERY_UNFLUSHED {
            self.opening = None;
            actions.push(Action::Reply { id: op, result: Ok(Reply::Done) });
            return;
        }
        self.scan = Scan::Flush;
        let id = self.io_id();
        self.opening = Some((op, id));
        actions.push(Action::Flush { id });
    }
}
