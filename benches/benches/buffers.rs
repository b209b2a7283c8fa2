//! What a transfer costs in CPU time, by where its buffer comes from: ordinary memory, the
//! driver's arena, the arena registered with the kernel. On a real file with direct I/O, so the
//! kernel's part is in the figures.
//!
//! Not criterion's: CPU time is wanted, not the disk's, and the kinds are compared in turns, since
//! a machine is faster in one second than in the next. Prints medians of `COW_BENCH_ROUNDS`
//! rounds (20), and of the ratios of each round. `COW_BENCH_DIR` is where the file is made (the
//! present directory).

use cow_benches::Rng;
use cow_format::{BLOCK_SIZE, BufPool, BufSlice};
use cow_io::{
    CreateOptions, Driver, DriverChoice, DriverOptions, Image, IoDone, IoOp, IoRequest, open_driver,
};
use std::path::{Path, PathBuf};
use std::{env, fs};

const FILE_BYTES: u64 = 256 << 20;
const DEPTH: u64 = 32;

/// Blocks of a transfer, and how many are done in a round.
const SIZES: [(usize, u64); 3] = [(1, 40_000), (16, 10_000), (256, 600)];

const KINDS: [(&str, usize, bool); 3] =
    [("ordinary", 0, false), ("arena", 32 << 20, false), ("fixed", 32 << 20, true)];

/// Removes the file, also after a panic.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Nanoseconds that this thread has run, in the kernel too.
fn cpu_ns() -> u64 {
    // The figure is brought up to date when the thread is scheduled.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Does `count` transfers, `DEPTH` at once; CPU nanoseconds for each.
fn run(driver: &mut dyn Driver, writes: bool, blocks: usize, count: u64) -> f64 {
    let pool = driver.buffers();
    let places = FILE_BYTES / (blocks * BLOCK_SIZE) as u64;
    let mut rng = Rng(7);
    let mut done: Vec<IoDone> = Vec::new();
    let (mut begun, mut ended) = (0, 0);
    let start = cpu_ns();
    while ended < count {
        while begun < count && begun - ended < DEPTH {
            let offset = rng.below(places) * (blocks * BLOCK_SIZE) as u64;
            driver.submit(IoRequest { tag: begun, op: op(&pool, writes, offset, blocks) });
            begun += 1;
        }
        driver.wait(&mut done, None);
        ended += done.len() as u64;
        for done in done.drain(..) {
            assert!(done.result.is_ok(), "{:?}", done.result);
        }
    }
    (cpu_ns() - start) as f64 / count as f64
}

/// As a request comes: with a buffer of its own.
fn op(pool: &BufPool, writes: bool, offset: u64, blocks: usize) -> IoOp {
    let mut buf = pool.scratch(blocks);
    if !writes {
        return IoOp::Read { offset, buf };
    }
    // What a payload would do to it, in part.
    (0..blocks).for_each(|block| buf.block_mut(block)[0] = 1);
    IoOp::Write { offset, bufs: vec![BufSlice::whole(buf)] }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(path: &Path, rounds: usize) -> std::io::Result<()> {
    let options = CreateOptions { preallocate: true, ..CreateOptions::default() };
    let image = Image::create(path, FILE_BYTES, &options).map_err(std::io::Error::other)?;
    image.zero_range(0, FILE_BYTES)?;
    let mut drivers = Vec::new();
    for (name, buffer_bytes, fixed_buffers) in KINDS {
        let options = DriverOptions { buffer_bytes, fixed_buffers, ..DriverOptions::default() };
        let driver = open_driver(image.clone(), DriverChoice::Uring, &options)?;
        assert_eq!(driver.fixed_transfers().is_some(), fixed_buffers, "{name}");
        drivers.push(driver);
    }
    println!("CPU ns for a transfer, direct: {}; {rounds} rounds", image.is_direct());
    for writes in [false, true] {
        for (blocks, count) in SIZES {
            let mut figures = vec![Vec::new(); KINDS.len()];
            for round in 0..=rounds {
                // In another order each time; the first round is for warming up.
                for turn in 0..KINDS.len() {
                    let kind = (round + turn) % KINDS.len();
                    let ns = run(&mut *drivers[kind], writes, blocks, count);
                    if round > 0 {
                        figures[kind].push(ns);
                    }
                }
            }
            let what = if writes { "write" } else { "read" };
            print!("{what:<5} {:>4} KiB:", blocks * 4);
            for ((name, ..), all) in KINDS.iter().zip(&figures) {
                print!("  {name} {:.0}", median(all.clone()));
            }
            let ratio = |a: usize, b: usize| {
                let pairs = figures[a].iter().zip(&figures[b]);
                median(pairs.map(|(a, b)| a / b).collect())
            };
            println!("  arena/ordinary {:.2}  fixed/arena {:.2}", ratio(1, 0), ratio(2, 1));
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let number = |text: String| text.parse().ok();
    let rounds = env::var("COW_BENCH_ROUNDS").ok().and_then(number).unwrap_or(20);
    let dir = env::var_os("COW_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let file = Scratch(dir.join(format!("cow-bench-{}", std::process::id())));
    measure(&file.0, rounds)
}
