//! What is said of a measurement: of each side what its rounds have in the middle, and the ratios of neighbours in time.

use super::ground::Ground;
use super::load::Tally;
use super::meter::Used;
use super::plain::Plain;
use super::spec::{Limit, Spec};
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::units::{human_duration, human_size};
use cowstore::{BLOCK_SIZE, Stats};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];
/// So many folds are within a figure that is called steady.
const STEADY_FOLDS: u64 = 4;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The volume.
    Pool,
    /// The plain file.
    Raw,
    /// The volume, right after a snapshot.
    Snapshot,
}

/// What one turn of a side came to.
pub struct Round {
    tally: Tally,
    used: Used,
    /// Of the time, how long its background work went on after it.
    settling: Option<Duration>,
    stats: Option<Stats>,
}

impl Round {
    /// Without counters of an engine.
    pub fn new(tally: Tally, used: Used) -> Self {
        Self { tally, used, settling: None, stats: None }
    }

    /// With what the engine counted meanwhile, and how long it went on after the load.
    pub fn with_pool(self, settling: Duration, before: &Stats, after: &Stats) -> Self {
        let stats = Stats {
            reads: after.reads.saturating_sub(before.reads),
            writes: after.writes.saturating_sub(before.writes),
            flushes: after.flushes.saturating_sub(before.flushes),
            frames: after.frames.saturating_sub(before.frames),
            frame_blocks: after.frame_blocks.saturating_sub(before.frame_blocks),
            device_flushes: after.device_flushes.saturating_sub(before.device_flushes),
            folds: after.folds.saturating_sub(before.folds),
            map_nodes_written: after.map_nodes_written.saturating_sub(before.map_nodes_written),
            map_nodes_read: after.map_nodes_read.saturating_sub(before.map_nodes_read),
            ..Stats::default()
        };
        Self { settling: Some(settling), stats: Some(stats), ..self }
    }

    fn iops(&self) -> f64 {
        self.tally.ops() as f64 / self.used.elapsed.as_secs_f64().max(1e-9)
    }

    fn per_op_us(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.tally.ops().max(1) as f64
    }

    fn cpu_us(&self) -> f64 {
        self.per_op_us(self.used.cpu)
    }

    fn per_user_byte(&self, bytes: Option<u64>, ops: u64, bs: u64) -> Option<f64> {
        (ops > 0).then(|| bytes.map(|bytes| bytes as f64 / (ops * bs) as f64)).flatten()
    }

    fn written(&self, bs: u64) -> Option<f64> {
        self.per_user_byte(self.used.device_written, self.tally.writes, bs)
    }

    fn read(&self, bs: u64) -> Option<f64> {
        self.per_user_byte(self.used.device_read, self.tally.reads, bs)
    }

    fn p99_ns(&self) -> Result<f64, Failure> {
        Ok(self.tally.all_ns()?.value_at_quantile(0.99) as f64)
    }

    fn json(&self, bs: u64) -> Result<Value, Failure> {
        let all = self.tally.all_ns()?;
        let user = self.used.user_share.map(|share| share * self.cpu_us());
        let engine = self.stats.as_ref().map(|stats| {
            json!({
                "reads": stats.reads,
                "writes": stats.writes,
                "flushes": stats.flushes,
                "folds": stats.folds,
                "frames": stats.frames,
                "frame_bytes": stats.frame_blocks * BLOCK_SIZE as u64,
                "map_bytes_written": stats.map_nodes_written * BLOCK_SIZE as u64,
                "map_nodes_read": stats.map_nodes_read,
                "device_flushes": stats.device_flushes,
            })
        });
        Ok(json!({
            "ops": self.tally.ops(),
            "reads": self.tally.reads,
            "writes": self.tally.writes,
            "flushes": self.tally.flushes,
            "elapsed_s": self.used.elapsed.as_secs_f64(),
            "settling_s": self.settling.map(|time| time.as_secs_f64()),
            "iops": self.iops(),
            "mib_per_s": self.iops() * bs as f64 / f64::from(1 << 20),
            "latency_us": latency(&all),
            "cpu_us_per_io": self.cpu_us(),
            "cpu_user_us_per_io": user,
            "cpu_system_us_per_io": user.map(|user| (self.cpu_us() - user).max(0.0)),
            "device_bytes_per_written_byte": self.written(bs),
            "device_bytes_per_read_byte": self.read(bs),
            "engine": engine,
        }))
    }
}

fn latency(ns: &Histogram<u64>) -> Value {
    let mut object = json!({
        "count": ns.len(),
        "mean": ns.mean() / 1e3,
        "max": ns.max() as f64 / 1e3,
    });
    for (name, quantile) in QUANTILES {
        object[name] = json!(ns.value_at_quantile(quantile) as f64 / 1e3);
    }
    object
}

/// The value in the middle, or between the two that are.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let low = values.get(values.len().checked_sub(1)? / 2)?;
    let high = values.get(values.len() / 2)?;
    Some((low + high) / 2.0)
}

/// Of all rounds.
pub struct Report {
    pool: Vec<Round>,
    raw: Vec<Round>,
    snapshot: Vec<Round>,
    ground: Value,
    raw_file: Value,
    journal_bytes: u64,
}

impl Report {
    /// Before the first round.
    pub fn new(ground: &Ground, raw: Option<&Plain>) -> Result<Self, Failure> {
        let info = ground.pool().info(false).map_err(Failure::of(ground.path()))?;
        let pool = json!({
            "path": ground.path().to_string_lossy(),
            "temporary": ground.is_temporary(),
            "driver": info.driver,
            "direct_io": info.direct_io,
            "size_bytes": info.size_bytes,
            "journal_bytes": info.journal_bytes,
        });
        let describe =
            |raw: &Plain| json!({ "driver": raw.driver_name(), "direct_io": raw.is_direct() });
        Ok(Self {
            pool: Vec::new(),
            raw: Vec::new(),
            snapshot: Vec::new(),
            ground: pool,
            raw_file: raw.map_or(Value::Null, describe),
            journal_bytes: info.journal_bytes,
        })
    }

    /// Adds a turn.
    pub fn add(&mut self, side: Side, round: Round) {
        match side {
            Side::Pool => self.pool.push(round),
            Side::Raw => self.raw.push(round),
            Side::Snapshot => self.snapshot.push(round),
        }
    }

    fn sides(&self) -> [(&'static str, &[Round]); 3] {
        [("pool", &self.pool), ("raw", &self.raw), ("snapshot", &self.snapshot)]
    }

    /// Of the rounds' ratios.
    fn ratio(above: &[Round], below: &[Round]) -> Option<f64> {
        median(above.iter().zip(below).map(|(a, b)| a.iops() / b.iops().max(1e-9)).collect())
    }

    fn p99_ratio(above: &[Round], below: &[Round]) -> Result<Option<f64>, Failure> {
        let ratio = |(a, b): (&Round, &Round)| Ok(a.p99_ns()? / b.p99_ns()?.max(1.0));
        Ok(median(above.iter().zip(below).map(ratio).collect::<Result<_, Failure>>()?))
    }

    fn journal_lengths(&self, rounds: &[Round]) -> f64 {
        let blocks: u64 =
            rounds.iter().flat_map(|r| r.stats.as_ref()).map(|s| s.frame_blocks).sum();
        (blocks * BLOCK_SIZE as u64) as f64 / self.journal_bytes.max(1) as f64
    }

    fn folds(rounds: &[Round]) -> u64 {
        rounds.iter().flat_map(|round| round.stats.as_ref()).map(|stats| stats.folds).sum()
    }

    fn summary(rounds: &[Round], bs: u64) -> Result<Value, Failure> {
        let Some(first) = rounds.first() else { return Ok(Value::Null) };
        let mut tally = first.tally.clone();
        for round in rounds.iter().skip(1) {
            tally.add(&round.tally)?;
        }
        let all = tally.all_ns()?;
        let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        let known = |of: &dyn Fn(&Round) -> Option<f64>| {
            rounds.iter().map(of).collect::<Option<Vec<_>>>().and_then(median)
        };
        let user = |round: &Round| round.used.user_share.map(|share| share * round.cpu_us());
        Ok(json!({
            "ops": tally.ops(),
            "reads": tally.reads,
            "writes": tally.writes,
            "flushes": tally.flushes,
            "settling_s": known(&|round| round.settling.map(|time| time.as_secs_f64())),
            "iops": middle(&Round::iops),
            "mib_per_s": middle(&|round| round.iops() * bs as f64 / f64::from(1 << 20)),
            "latency_us": latency(&all),
            "read_latency_us": (tally.reads > 0).then(|| latency(&tally.read_ns)),
            "write_latency_us": (tally.writes > 0).then(|| latency(&tally.write_ns)),
            "cpu_us_per_io": middle(&Round::cpu_us),
            "cpu_user_us_per_io": known(&user),
            "cpu_system_us_per_io": known(&|round| Some((round.cpu_us() - user(round)?).max(0.0))),
            "device_bytes_per_written_byte": known(&|round| round.written(bs)),
            "device_bytes_per_read_byte": known(&|round| round.read(bs)),
        }))
    }

    fn body(&self, spec: &Spec) -> Result<Value, Failure> {
        let mut body = json!({
            "parameters": spec.json(),
            "pool": self.ground,
            "raw_file": self.raw_file,
            "folds": Self::folds(&self.pool),
            "journal_lengths": self.journal_lengths(&self.pool),
            "ratio": Self::ratio(&self.pool, &self.raw),
            "p99_ratio": Self::p99_ratio(&self.pool, &self.raw)?,
            "snapshot_ratio": Self::ratio(&self.snapshot, &self.pool),
            "snapshot_p99_ratio": Self::p99_ratio(&self.snapshot, &self.pool)?,
            "raw_iops": median(self.raw.iter().map(Round::iops).collect()),
        });
        for (name, rounds) in self.sides() {
            let summary = Self::summary(rounds, spec.bs)?;
            if name == "pool" {
                for key in ["iops", "mib_per_s", "latency_us", "cpu_us_per_io"] {
                    body[key] = summary[key].clone();
                }
            }
            body["sides"][name] = summary;
            let each: Result<Vec<_>, _> = rounds.iter().map(|round| round.json(spec.bs)).collect();
            body["rounds"][name] = Value::Array(each?);
        }
        Ok(body)
    }

    /// For programs.
    pub fn print_json(&self, spec: &Spec) -> Result<(), Failure> {
        output::json("bench", self.body(spec)?)
    }

    /// For people.
    pub fn print_table(&self, spec: &Spec) -> Result<(), Failure> {
        let body = self.body(spec)?;
        output::line(head(spec))?;
        let titles =
            "|IOPS|MiB/s|p50|p99|p99.9|max|CPU us/IO|user|system|device/written|device/read";
        let heads: Vec<String> = titles.split('|').map(str::to_owned).collect();
        let right = (0..heads.len()).map(|column| column > 0).collect();
        let mut table = Table { heads, right, rows: Vec::new() };
        for (name, rounds) in self.sides() {
            let title = if name == "snapshot" { "after a snapshot" } else { name };
            if !rounds.is_empty() {
                table.rows.push(row(title, &body["sides"][name]));
            }
        }
        table.print(false)?;
        let ratio = |key: &str| body[key].as_f64().map(|ratio| format!("{ratio:.2}"));
        if let (Some(all), Some(p99)) = (ratio("ratio"), ratio("p99_ratio")) {
            output::line(format!("pool / raw: {all} (p99 latency {p99})"))?;
        }
        if let (Some(all), Some(p99)) = (ratio("snapshot_ratio"), ratio("snapshot_p99_ratio")) {
            output::line(format!("after a snapshot / without: {all} (p99 latency {p99})"))?;
        }
        if spec.writes() {
            let (folds, lengths) = (Self::folds(&self.pool), self.journal_lengths(&self.pool));
            let word = if folds < STEADY_FOLDS { "; too few for a steady state" } else { "" };
            let settling = body["sides"]["pool"]["settling_s"].as_f64().unwrap_or(0.0);
            let settling = human_duration(Duration::from_secs_f64(settling.clamp(0.0, 1e9)));
            output::line(format!(
                "{folds} folds, {lengths:.1} journal lengths{word}; the time counts until the last is done ({settling})"
            ))?;
        }
        Ok(())
    }
}

fn head(spec: &Spec) -> String {
    let limit = match spec.limit {
        Limit::Time { runtime, ramp } => {
            format!("{} s after {} s of ramp", runtime.as_secs(), ramp.as_secs())
        }
        Limit::Ops(ops) => format!("{ops} requests"),
    };
    format!(
        "{} bs {} qd {} jobs {} fdatasync {} size {}{}: medians of {} rounds of {limit}",
        spec.name(),
        human_size(spec.bs),
        spec.qd,
        spec.jobs,
        spec.fdatasync,
        human_size(spec.size_bytes()),
        if spec.fresh { " fresh" } else { "" },
        spec.rounds
    )
}

fn row(title: &str, side: &Value) -> Vec<String> {
    let number = |value: &Value, digits: usize| {
        value.as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let time = |key: &str| {
        let micros = side["latency_us"][key].as_f64().unwrap_or(0.0);
        human_duration(Duration::from_nanos((micros * 1e3) as u64))
    };
    let mut cells = vec![title.to_owned(), number(&side["iops"], 0), number(&side["mib_per_s"], 0)];
    cells.extend(["p50", "p99", "p999", "max"].map(time));
    for key in ["cpu_us_per_io", "cpu_user_us_per_io", "cpu_system_us_per_io"] {
        cells.push(number(&side[key], 2));
    }
    for key in ["device_bytes_per_written_byte", "device_bytes_per_read_byte"] {
        cells.push(number(&side[key], 2));
    }
    cells
}
