//! A pool in a real file, through the library: what an opening and a size cost where there are many
//! snapshots, and whether those who write notice that snapshots are deleted.
//!
//! Not criterion's: two sides are compared in turns, since a machine is faster in one second than in
//! the next. `COW_BENCH_ROUNDS` pairs (20); `COW_BENCH_DIR` is where the file is made (the present
//! directory).

use cow_benches::{Rng, block, median};
use cow_format::BLOCK_SIZE;
use cowstore::{
    CreateOptions, DeleteOptions, Error, OpenOptions, Pool, Request, SnapshotOptions, Volume,
};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs};

const BLOCK: u64 = BLOCK_SIZE as u64;
const VOLUME: &str = "vol";
/// Snapshots of the two pools whose openings are compared.
const FEW_MANY: [u64; 2] = [1, 10_000];
/// Every so many of them something was written in between.
const WRITTEN: u64 = 10;

/// Snapshots that are deleted under load, and blocks written at random before each.
const DELETED: u64 = 100;
const SCATTERED: u64 = 500;
/// Writes in flight, and how long they are watched.
const DEPTH: usize = 8;
const WATCHED: Duration = Duration::from_secs(2);
/// Where they go: 1 GiB.
const AREA_BLOCKS: u64 = 1 << 18;

/// Removes the file, also after a panic.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about it.
        let _ = fs::remove_file(&self.0);
    }
}

fn scratch(name: &str) -> Scratch {
    let dir = env::var_os("COW_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    Scratch(dir.join(format!("cow-bench-{name}-{}", std::process::id())))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A closed pool whose volume has `count` snapshots.
fn many(path: &Path, count: u64) -> Result<(), Error> {
    let pool = Pool::create(path, &CreateOptions::with_size(2 << 30))?;
    pool.create_volume(VOLUME, 4 << 30, &[])?;
    let volume = pool.volume(VOLUME)?;
    for index in 0..count {
        if index % WRITTEN == 0 {
            volume.write_at(&block(5), index * 37 % AREA_BLOCKS * BLOCK)?;
        }
        pool.snapshot(&[format!("{VOLUME}@{index}")], SnapshotOptions::default())?;
    }
    drop(volume);
    pool.close()
}

fn opens(rounds: usize) -> Result<(), Error> {
    let files = FEW_MANY.map(|count| scratch(&format!("open-{count}")));
    for (file, count) in files.iter().zip(FEW_MANY) {
        many(&file.0, count)?;
    }
    let (mut times, mut sizes) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..=rounds {
        for turn in 0..2 {
            let side = (round + turn) % 2;
            let start = Instant::now();
            let pool = Pool::open(&files[side].0, &OpenOptions::default())?;
            let time = micros(start.elapsed());
            // The first round is for warming up.
            if round > 0 {
                times[side].push(time);
                sizes[side].extend(one_size(&pool, FEW_MANY[side])?);
            }
            pool.close()?;
        }
    }
    let ratios = times[1].iter().zip(&times[0]).map(|(many, few)| many / few).collect();
    let [few, many] = times.map(median);
    println!(
        "open at {} snapshots {few:.0} us, at {} {many:.0} us; ratio {:.2} of {rounds} pairs",
        FEW_MANY[0],
        FEW_MANY[1],
        median(ratios)
    );
    let [few, many] = sizes.map(median);
    println!(
        "size of one snapshot at {}: {few:.1} us, at {}: {many:.1} us",
        FEW_MANY[0], FEW_MANY[1]
    );
    Ok(())
}

/// Microseconds that single sizes take, once what they need is in memory.
fn one_size(pool: &Pool, count: u64) -> Result<Vec<f64>, Error> {
    let ask = |index: u64| {
        let name = format!("{VOLUME}@{}", index * 7 % count);
        pool.describe(&[&name], false)?;
        let start = Instant::now();
        pool.describe(&[&name], false).map(|_| micros(start.elapsed()))
    };
    (0..50).map(ask).collect()
}

/// Random writes, `DEPTH` at once, one after the other for `WATCHED`; microseconds of each.
fn load(volume: &Arc<Volume>, rng: &mut Rng) -> Vec<f64> {
    let state = Arc::new((Mutex::new((0, Vec::new())), Condvar::new()));
    let data = block(rng.0);
    let start = Instant::now();
    while start.elapsed() < WATCHED {
        let (lock, ended) = &*state;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |(flying, _): &mut (usize, Vec<f64>)| *flying >= DEPTH;
        let mut guard = ended.wait_while(guard, full).unwrap_or_else(PoisonError::into_inner);
        guard.0 += 1;
        drop(guard);
        let mut buf = volume.buffer(BLOCK_SIZE);
        buf[..BLOCK_SIZE].copy_from_slice(&data);
        let offset = rng.below(AREA_BLOCKS) * BLOCK;
        let (begun, state) = (Instant::now(), state.clone());
        volume.submit(
            Request::Write { offset, len: BLOCK, data: buf, fua: false },
            move |result| {
                let time = micros(begun.elapsed());
                assert!(result.is_ok(), "{result:?}");
                let mut guard = state.0.lock().unwrap_or_else(PoisonError::into_inner);
                guard.0 -= 1;
                guard.1.push(time);
                state.1.notify_one();
            },
        );
    }
    let (lock, ended) = &*state;
    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let busy = |(flying, _): &mut (usize, Vec<f64>)| *flying > 0;
    let mut guard = ended.wait_while(guard, busy).unwrap_or_else(PoisonError::into_inner);
    std::mem::take(&mut guard.1)
}

fn percentile(values: &mut [f64], of_hundred: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() * of_hundred / 100]
}

/// Writes of the same block to random places, all at once.
fn scatter(volume: &Volume, rng: &mut Rng, content: u64) -> Result<(), Error> {
    let (sender, answers) = mpsc::channel();
    for _ in 0..SCATTERED {
        let mut buf = volume.buffer(BLOCK_SIZE);
        buf[..BLOCK_SIZE].copy_from_slice(&block(content));
        let offset = rng.below(AREA_BLOCKS) * BLOCK;
        let sender = sender.clone();
        volume.submit(
            Request::Write { offset, len: BLOCK, data: buf, fua: false },
            move |result| {
                // Nobody hears it once another has failed.
                let _ = sender.send(result);
            },
        );
    }
    drop(sender);
    answers.iter().try_for_each(|result| result.map(drop))
}

/// One side of a pair: snapshots come, and are deleted while somebody writes, or afterwards.
fn side(
    pool: &Pool,
    volume: &Arc<Volume>,
    rng: &mut Rng,
    deletes: bool,
) -> Result<[f64; 4], Error> {
    for index in 0..DELETED {
        scatter(volume, rng, index)?;
        pool.snapshot(&[format!("{VOLUME}@{index}")], SnapshotOptions::default())?;
    }
    volume.flush()?;
    pool.checkpoint()?;
    let names: Vec<String> = (0..DELETED).map(|index| format!("{VOLUME}@{index}")).collect();
    let freed = || pool.info(false).map(|info| info.stats.blocks_freed);
    let before = freed()?;
    let mut times = std::thread::scope(|scope| {
        if deletes {
            let names = &names;
            scope.spawn(move || {
                let deleted = pool.delete(names, DeleteOptions::default());
                assert!(deleted.is_ok(), "{deleted:?}");
                let waited = pool.wait_reclaim();
                assert!(waited.is_ok(), "{waited:?}");
            });
        }
        load(volume, rng)
    });
    let given_back = freed()? - before;
    if !deletes {
        pool.delete(&names, DeleteOptions::default())?;
    }
    pool.wait_reclaim()?;
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    Ok([p50, p99, times.len() as f64, given_back as f64])
}

fn deletes_under_load(rounds: usize) -> Result<(), Error> {
    let file = scratch("load");
    let pool = Pool::create(&file.0, &CreateOptions::with_size(8 << 30))?;
    pool.create_volume(VOLUME, AREA_BLOCKS * BLOCK, &[])?;
    let volume = Arc::new(pool.volume(VOLUME)?);
    let mut rng = Rng(1);
    let piece = block(1).repeat(256);
    for at in 0..AREA_BLOCKS / 256 {
        volume.write_at(&piece, at * piece.len() as u64)?;
    }
    let (mut quiet, mut busy, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        let mut pair = [[0.0; 4]; 2];
        for turn in 0..2 {
            let deletes = (round + turn) % 2;
            pair[deletes] = side(&pool, &volume, &mut rng, deletes == 1)?;
        }
        if round > 0 {
            ratios.push(pair[1][1] / pair[0][1]);
            quiet.push(pair[0]);
            busy.push(pair[1]);
        }
    }
    drop(volume);
    pool.close()?;
    for (name, rows) in [("without", &quiet), ("with deletes", &busy)] {
        let of = |at: usize| median(rows.iter().map(|row| row[at]).collect());
        println!(
            "writes {name}: p50 {:.0} us, p99 {:.0} us, {:.0} writes, {:.0} blocks freed, {:.0} a second",
            of(0),
            of(1),
            of(2),
            of(3),
            of(3) / WATCHED.as_secs_f64()
        );
    }
    println!(
        "p99 with deletes / without: {:.2} of {rounds} pairs; {ratios:.2?}",
        median(ratios.clone())
    );
    Ok(())
}

fn main() -> Result<(), Error> {
    let number = |text: String| text.parse().ok();
    let rounds = env::var("COW_BENCH_ROUNDS").ok().and_then(number).unwrap_or(20);
    let wanted: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    if wants("open") {
        opens(rounds)?;
    }
    if wants("load") {
        deletes_under_load(rounds)?;
    }
    Ok(())
}
