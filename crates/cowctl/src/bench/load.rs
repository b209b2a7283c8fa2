//! The load itself, of whatever is below: which request a lane makes next, and what was seen.
//!
//! A lane has one request under way at a time. What is below asks [`Load::turn`] for the first of each lane, and again
//! whenever one has completed, until the answer is `None`.

use super::spec::{Limit, Spec};
use crate::args::Workload;
use crate::failure::Failure;
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longer latencies count as this.
const MAX_NS: u64 = 3600 * 1_000_000_000;

/// What a lane does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read a block of the load, at this byte.
    Read(u64),
    /// Write one.
    Write(u64),
    /// Make the writes of before durable.
    Flush,
}

/// What was seen of a load while it counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Reads that completed.
    pub reads: u64,
    /// Writes that completed, those with their flush that had one.
    pub writes: u64,
    /// Flushes of the lanes.
    pub flushes: u64,
    /// Nanoseconds of reads.
    pub read_ns: Histogram<u64>,
    /// Nanoseconds of writes; where a flush came after, it is in it.
    pub write_ns: Histogram<u64>,
}

impl Tally {
    /// Nothing yet.
    pub fn new() -> Result<Self, Failure> {
        let histogram =
            || Histogram::new_with_bounds(1, MAX_NS, 3).map_err(|e| Failure::Failed(e.to_string()));
        Ok(Self { reads: 0, writes: 0, flushes: 0, read_ns: histogram()?, write_ns: histogram()? })
    }

    /// Reads and writes.
    pub fn ops(&self) -> u64 {
        self.reads + self.writes
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) -> Result<(), Failure> {
        self.reads += other.reads;
        self.writes += other.writes;
        self.flushes += other.flushes;
        let failed = |e: hdrhistogram::AdditionError| Failure::Failed(e.to_string());
        self.read_ns.add(&other.read_ns).map_err(failed)?;
        self.write_ns.add(&other.write_ns).map_err(failed)
    }

    /// Nanoseconds of both.
    pub fn all_ns(&self) -> Result<Histogram<u64>, Failure> {
        let mut all = self.read_ns.clone();
        all.add(&self.write_ns).map_err(|e| Failure::Failed(e.to_string()))?;
        Ok(all)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Read,
    Write,
    Flush,
}

struct Lane {
    doing: Doing,
    begun: Instant,
    /// Writes since its last flush.
    unflushed: u64,
}

/// A round of load on one side.
pub struct Load {
    spec: Spec,
    rng: Rng,
    lanes: Vec<Lane>,
    /// Of each job, how many blocks it has gone through.
    cursors: Vec<u64>,
    started: u64,
    counts: bool,
    until: Option<Instant>,
    stop: Arc<AtomicBool>,
    tally: Tally,
}

impl Load {
    /// A round that ends early when `stop` is set. `seed` chooses its places.
    pub fn new(spec: &Spec, seed: u64, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        let now = Instant::now();
        let lane = |_| Lane { doing: Doing::Nothing, begun: now, unflushed: 0 };
        Ok(Self {
            rng: Rng(seed),
            lanes: (0..spec.lanes()).map(lane).collect(),
            cursors: vec![0; spec.jobs as usize],
            started: 0,
            counts: matches!(spec.limit, Limit::Ops(_)),
            until: None,
            stop,
            tally: Tally::new()?,
            spec: spec.clone(),
        })
    }

    /// How long it runs before it counts.
    pub fn ramp(&self) -> Option<Duration> {
        match self.spec.limit {
            Limit::Time { ramp, .. } if !self.counts => Some(ramp),
            _ => None,
        }
    }

    /// From now on it counts.
    pub fn count_from(&mut self, now: Instant) {
        self.counts = true;
        if let Limit::Time { runtime, .. } = self.spec.limit {
            self.until = Some(now + runtime);
        }
    }

    /// No lane begins anything any more.
    pub fn stop_now(&mut self) {
        self.until = Some(Instant::now());
    }

    /// What was seen.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Lane `index` has nothing under way (any more): its next request.
    pub fn turn(&mut self, index: usize, now: Instant) -> Option<Ask> {
        let fdatasync = self.spec.fdatasync;
        let lane = self.lanes.get_mut(index)?;
        let took = now.saturating_duration_since(lane.begun);
        match std::mem::replace(&mut lane.doing, Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Read => self.record(took, false),
            Doing::Write => {
                lane.unflushed += 1;
                if lane.unflushed == fdatasync {
                    lane.unflushed = 0;
                    lane.doing = Doing::Flush;
                    return Some(Ask::Flush);
                }
                self.record(took, true);
            }
            Doing::Flush => {
                self.tally.flushes += u64::from(self.counts);
                self.record(took, true);
            }
        }
        if self.is_over(now) {
            return None;
        }
        let job = index / self.spec.qd as usize;
        let ask = self.choose(job)?;
        self.started += 1;
        let lane = self.lanes.get_mut(index)?;
        lane.begun = now;
        lane.doing = if matches!(ask, Ask::Read(_)) { Doing::Read } else { Doing::Write };
        Some(ask)
    }

    fn is_over(&self, now: Instant) -> bool {
        let enough = matches!(self.spec.limit, Limit::Ops(ops) if self.started >= ops);
        enough || self.until.is_some_and(|until| now >= until) || self.stop.load(Ordering::Relaxed)
    }

    fn record(&mut self, took: Duration, is_write: bool) {
        if !self.counts {
            return;
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(MAX_NS);
        let (count, histogram) = if is_write {
            (&mut self.tally.writes, &mut self.tally.write_ns)
        } else {
            (&mut self.tally.reads, &mut self.tally.read_ns)
        };
        *count += 1;
        histogram.saturating_record(ns);
    }

    fn choose(&mut self, job: usize) -> Option<Ask> {
        let Spec { bs, blocks, rw, rwmixread, jobs, fresh, .. } = self.spec;
        let is_write = match rw {
            Workload::Randwrite | Workload::Write => true,
            Workload::Randread | Workload::Read => false,
            Workload::Randrw => self.rng.below(100) >= u64::from(rwmixread),
        };
        let block = if matches!(rw, Workload::Write | Workload::Read) {
            let part = blocks / u64::from(jobs);
            let cursor = self.cursors.get_mut(job)?;
            if fresh && *cursor >= part {
                return None;
            }
            let at = *cursor % part;
            *cursor += 1;
            job as u64 * part + at
        } else {
            self.rng.below(blocks)
        };
        Some(if is_write { Ask::Write(block * bs) } else { Ask::Read(block * bs) })
    }
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What is written: no block of it is zeros, and no two blocks are equal.
pub struct Pattern {
    bytes: Vec<u8>,
    count: u64,
}

impl Pattern {
    /// For writes of `len` bytes, whole blocks.
    pub fn new(len: usize) -> Self {
        let mut rng = Rng(len as u64);
        let bytes = (0..len / 8).flat_map(|_| rng.next().to_le_bytes()).collect();
        Self { bytes, count: 0 }
    }

    /// Puts the next content at the front of `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        let front = buf.len().min(self.bytes.len());
        buf[..front].copy_from_slice(&self.bytes[..front]);
        for block in buf[..front].chunks_mut(cowstore::BLOCK_SIZE) {
            self.count += 1;
            for (byte, stamp) in block.iter_mut().zip(self.count.to_le_bytes()) {
                *byte = stamp;
            }
        }
    }
}
