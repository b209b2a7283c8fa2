//! A pool in a real file, through the library: 4 KiB requests. `COW_BENCH_DIR` is where the file is made
//! (the present directory). The pool is preallocated, and its volume was written all over.

use cow_benches::{Rng, block, criterion as configured};
use cow_format::BLOCK_SIZE;
use cowstore::{CreateOptions, Error, Pool, Request, Volume};
use criterion::{Criterion, criterion_group, criterion_main};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// 512 MiB in a pool of 4 GiB.
const AREA_BLOCKS: u64 = 1 << 17;
const POOL_BYTES: u64 = 4 << 30;
const DEPTH: u64 = 32;

/// Removes the file, also after a panic.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing can be done about it.
        let _ = fs::remove_file(&self.0);
    }
}

fn pool(file: &Scratch) -> Result<(Pool, Volume), Error> {
    let options = CreateOptions { preallocate: true, ..CreateOptions::with_size(POOL_BYTES) };
    let pool = Pool::create(&file.0, &options)?;
    pool.create_volume("vol", AREA_BLOCKS * BLOCK, &[])?;
    let volume = pool.volume("vol")?;
    let piece = block(1).repeat(256);
    for at in 0..AREA_BLOCKS / 256 {
        volume.write_at(&piece, at * piece.len() as u64)?;
    }
    pool.checkpoint()?;
    Ok((pool, volume))
}

/// `count` writes at random places, 32 at once.
fn writes(volume: &Volume, rng: &mut Rng, count: u64) -> Duration {
    let data = block(rng.0);
    let (sender, answers) = mpsc::channel();
    let start = Instant::now();
    let (mut begun, mut ended) = (0, 0);
    while ended < count {
        while begun < count && begun - ended < DEPTH {
            let mut buf = volume.buffer(BLOCK_SIZE);
            buf[..BLOCK_SIZE].copy_from_slice(&data);
            let (offset, sender) = (rng.below(AREA_BLOCKS) * BLOCK, sender.clone());
            let request = Request::Write { offset, len: BLOCK, data: buf, fua: false };
            volume.submit(request, move |result| {
                // Nobody hears it once another has failed.
                let _ = sender.send(result.is_ok());
            });
            begun += 1;
        }
        assert_eq!(answers.recv(), Ok(true), "a write failed");
        ended += 1;
    }
    start.elapsed()
}

fn files(c: &mut Criterion) {
    let dir = env::var_os("COW_BENCH_DIR").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let file = Scratch(dir.join(format!("cow-bench-file-{}", std::process::id())));
    let (pool, volume) = match pool(&file) {
        Ok(made) => made,
        Err(error) => panic!("no pool: {error}"),
    };
    let mut rng = Rng(7);
    c.bench_function("e2e_file_randwrite_qd32", |b| {
        b.iter_custom(|count| writes(&volume, &mut rng, count));
    });
    let data = block(2);
    c.bench_function("e2e_file_fdatasync_qd1", |b| {
        b.iter(|| {
            let offset = rng.below(AREA_BLOCKS) * BLOCK;
            let written = volume.write_at(&data, offset).and_then(|()| volume.flush());
            assert!(written.is_ok(), "{written:?}");
        });
    });
    drop(volume);
    let closed = pool.close();
    assert!(closed.is_ok(), "{closed:?}");
}

criterion_group! {
    name = file;
    config = configured();
    targets = files
}
criterion_main!(file);
