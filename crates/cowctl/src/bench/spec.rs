//! What load is wanted, checked.

use crate::args::{Bench, Workload};
use crate::failure::Failure;
use cowstore::BLOCK_SIZE;
use serde_json::{Value, json};
use std::time::Duration;

const MAX_BS_BYTES: u64 = 16 << 20;
const MAX_LANES: u32 = 4096;
/// Of buffers under way.
const MAX_FLYING_BYTES: u64 = 1 << 30;
const MAX_ROUNDS: u32 = 1000;
const MAX_SECONDS: u64 = 7 * 24 * 3600;

/// When a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After a time that counts, and one before that does not.
    Time {
        /// Does not count.
        ramp: Duration,
        /// Counts.
        runtime: Duration,
    },
    /// After so many reads and writes.
    Ops(u64),
}

/// The load.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its kind.
    pub rw: Workload,
    /// Bytes of a request.
    pub bs: u64,
    /// Lanes of each job.
    pub qd: u32,
    /// Jobs.
    pub jobs: u32,
    /// Writes of a lane between flushes; 0 for never.
    pub fdatasync: u64,
    /// Percent of reads in a mixed load.
    pub rwmixread: u8,
    /// Requests that the volume has room for.
    pub blocks: u64,
    /// When a round ends.
    pub limit: Limit,
    /// Rounds.
    pub rounds: u32,
    /// Each round has a new volume.
    pub fresh: bool,
    /// Each round has a turn after a snapshot.
    pub snapshot: bool,
    /// Each round has a turn on a plain file.
    pub vs_raw: bool,
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

impl Spec {
    /// Checks what the command line says.
    pub fn new(args: &Bench) -> Result<Self, Failure> {
        let block = BLOCK_SIZE as u64;
        if args.bs == 0 || !args.bs.is_multiple_of(block) || args.bs > MAX_BS_BYTES {
            let text = format!("--bs {}: it is a multiple of {block}, at most 16M", args.bs);
            return Err(usage(text));
        }
        let lanes = args.qd.checked_mul(args.jobs).filter(|lanes| (1..=MAX_LANES).contains(lanes));
        let Some(lanes) = lanes else {
            let text =
                format!("--qd {} times --jobs {}: it is 1 to {MAX_LANES}", args.qd, args.jobs);
            return Err(usage(text));
        };
        if u64::from(lanes) * args.bs > MAX_FLYING_BYTES {
            let text = format!("{lanes} requests of {} bytes: it is 1G at most at once", args.bs);
            return Err(usage(text));
        }
        let blocks = args.size / args.bs;
        if blocks < u64::from(args.jobs) {
            let text = format!("--size {}: there is no room for --bs for each job", args.size);
            return Err(usage(text));
        }
        let rounds = args.rounds.unwrap_or(if args.vs_raw || args.snapshot { 3 } else { 1 });
        if !(1..=MAX_ROUNDS).contains(&rounds) {
            return Err(usage(format!("--rounds {rounds}: it is 1 to {MAX_ROUNDS}")));
        }
        let spec = Self {
            rw: args.rw,
            bs: args.bs,
            qd: args.qd,
            jobs: args.jobs,
            fdatasync: args.fdatasync,
            rwmixread: args.rwmixread,
            blocks,
            limit: limit(args, blocks)?,
            rounds,
            fresh: args.fresh,
            snapshot: args.snapshot,
            vs_raw: args.vs_raw,
        };
        if spec.fdatasync > 0 && !spec.writes() {
            return Err(usage("--fdatasync: there are no writes in this load"));
        }
        if spec.fresh && spec.rw != Workload::Write {
            return Err(usage("--fresh: that is for --rw write"));
        }
        Ok(spec)
    }

    /// Whether it has writes.
    pub fn writes(&self) -> bool {
        !matches!(self.rw, Workload::Randread | Workload::Read)
    }

    /// Requests at once.
    pub fn lanes(&self) -> usize {
        self.qd as usize * self.jobs as usize
    }

    /// Size of the volume.
    pub fn size_bytes(&self) -> u64 {
        self.blocks * self.bs
    }

    /// What the load is called.
    pub fn name(&self) -> &'static str {
        match self.rw {
            Workload::Randwrite => "randwrite",
            Workload::Randread => "randread",
            Workload::Write => "write",
            Workload::Read => "read",
            Workload::Randrw => "randrw",
        }
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let (ramp_s, runtime_s, ops) = match self.limit {
            Limit::Time { ramp, runtime } => (Some(ramp.as_secs()), Some(runtime.as_secs()), None),
            Limit::Ops(ops) => (None, None, Some(ops)),
        };
        json!({
            "rw": self.name(),
            "bs_bytes": self.bs,
            "qd": self.qd,
            "jobs": self.jobs,
            "fdatasync": self.fdatasync,
            "rwmixread": (self.rw == Workload::Randrw).then_some(self.rwmixread),
            "size_bytes": self.size_bytes(),
            "ramp_s": ramp_s,
            "runtime_s": runtime_s,
            "ops": ops,
            "rounds": self.rounds,
            "fresh": self.fresh,
            "snapshot": self.snapshot,
            "vs_raw": self.vs_raw,
        })
    }
}

fn limit(args: &Bench, blocks: u64) -> Result<Limit, Failure> {
    if args.ops == Some(0) {
        return Err(usage("--ops 0: there is nothing to measure"));
    }
    if args.fresh {
        // A second time over it would not be fresh. Each job has an equal part.
        let all = blocks / u64::from(args.jobs.max(1)) * u64::from(args.jobs);
        return Ok(Limit::Ops(args.ops.unwrap_or(all).min(all)));
    }
    if let Some(ops) = args.ops {
        return Ok(Limit::Ops(ops));
    }
    if args.runtime == 0 || args.runtime > MAX_SECONDS || args.ramp > MAX_SECONDS {
        return Err(usage(format!(
            "--runtime and --ramp: they are 1 (0) to {MAX_SECONDS} seconds"
        )));
    }
    let (ramp, runtime) = (Duration::from_secs(args.ramp), Duration::from_secs(args.runtime));
    Ok(Limit::Time { ramp, runtime })
}
