//! Memory does not grow with what is mapped: a pool whose map has a leaf for every MiB of 64 GiB
//! is opened and read at random, in a process of its own whose peak is measured.
//!
//! The leaves really exist. The helper makes them as map records over holes of a sparse file: a
//! hole reads as zeros, and zeros have a checksum like any other data. `COW_MEMORY_GIB=1024` does
//! the same with a million leaves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_engine::mkfs::mkfs;
use cow_format::geometry::LayoutOptions;
use cow_format::record::Record;
use cow_format::superblock::Superblock;
use cow_format::{Epoch, FrameSeq, Lba, Phys, VolumeId, checksum};
use cow_journal::{JournalWriter, Reserve, Ring};
use cowstore::{OpenOptions, Pool};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

const CHILD: &str = "COW_MEMORY_CHILD";
const MIB: u64 = 1 << 20;
const LIMIT_KIB: u64 = 192 << 10;

/// A sparse image whose journal maps `leaves` MiB of the volume `v`.
fn build(path: &Path, leaves: u64) {
    let blocks = (leaves * 256 + leaves / 64 + 65_536) * 33 / 32;
    let layout = LayoutOptions {
        blocks,
        journal_blocks: Some((leaves / 3).max(4096)),
        limit_blocks: Some(blocks),
        max_chunks: None,
        preallocated: false,
    };
    let plan = mkfs(*b"a pool of holes!", &layout, 1).unwrap();
    let file = File::create(path).unwrap();
    file.set_len(blocks * 4096).unwrap();
    let put = |phys: Phys, bytes: &[u8]| file.write_all_at(bytes, phys.byte_offset()).unwrap();
    plan.writes.iter().chain(&plan.superblocks).for_each(|(phys, buf)| put(*phys, buf));
    drop(file);
    let pool = Pool::open(path, &OpenOptions::default()).unwrap();
    pool.create_volume("v", leaves * MIB, &[]).unwrap();
    pool.close().unwrap();
    append_records(path, leaves, blocks);
}

/// Goes on where the closed pool's journal ends.
fn append_records(path: &Path, leaves: u64, blocks: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let read = |phys: u64, blocks: usize| {
        let mut bytes = vec![0; blocks * 4096];
        file.read_exact_at(&mut bytes, phys * 4096).unwrap();
        bytes
    };
    let copies = [0u64, 8192, 1024, 16_384];
    let sb = (0..4)
        .filter_map(|copy| Superblock::decode(&read(copies[copy], 1), copy).ok())
        .max_by_key(|sb| sb.sequence)
        .unwrap();
    let tag = sb.pool_tag();
    let cp = sb
        .geometry
        .cp_start
        .iter()
        .filter_map(|&start| {
            let bytes = read(start, sb.geometry.cp_blocks as usize);
            cow_format::checkpoint::Checkpoint::decode(&bytes, tag, Phys(start)).ok()
        })
        .max_by_key(|cp| cp.seq)
        .unwrap();
    let ring = Ring::of(&sb.geometry);
    let mut writer = JournalWriter::new(ring, tag, Epoch(sb.epoch.0), cp.tail, cp.tail);
    let zeros = checksum::data(&[0; 4096]);
    let mut data = (100_000..blocks).step_by(256).filter(|&first| {
        let fits = |i: u64| sb.geometry.is_data(Phys(first + i), blocks);
        first % 32_768 <= 32_768 - 256 && fits(0) && fits(255)
    });
    for leaf in 0..leaves {
        let phys = Phys(data.next().unwrap());
        let (volume, lba) = (VolumeId(1), Lba(leaf * 256));
        let record = Record::MapSet { volume, lba, phys, crcs: vec![zeros; 256] };
        writer.append(&[record], Reserve::Normal).unwrap();
        let last = writer.last_sealed();
        writer.set_durable(FrameSeq(last.0));
        for frame in writer.take_sealed() {
            file.write_all_at(&frame.buf, frame.at.byte_offset()).unwrap();
        }
    }
    writer.seal();
    for frame in writer.take_sealed() {
        file.write_all_at(&frame.buf, frame.at.byte_offset()).unwrap();
    }
}

/// Opens the pool, reads at random, and prints its peak resident size.
fn child(path: &Path) {
    let pool = Pool::open(path, &OpenOptions::default()).unwrap();
    let volume = pool.volume("v").unwrap();
    let blocks = volume.size_bytes() / 4096;
    let mut state = 1u64;
    let mut bytes = [1; 4096];
    for _ in 0..30_000 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        volume.read_at(&mut bytes, (state >> 20) % blocks * 4096).unwrap();
        assert!(bytes.iter().all(|&byte| byte == 0));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}

fn peak_kib(dir: &Path, leaves: u64) -> u64 {
    let path = dir.join(format!("{leaves}.cow"));
    build(&path, leaves);
    // The first opening replays the journal and folds it into the map.
    Pool::open(&path, &OpenOptions::default()).unwrap().close().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["memory_does_not_grow_with_what_is_mapped", "--exact", "--nocapture"])
        .env(CHILD, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(&path).unwrap();
    let line = text.lines().find(|line| line.contains("VmHWM")).unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

#[test]
fn memory_does_not_grow_with_what_is_mapped() {
    if let Some(path) = std::env::var_os(CHILD) {
        return child(Path::new(&path));
    }
    let gib: u64 = std::env::var("COW_MEMORY_GIB").ok().and_then(|g| g.parse().ok()).unwrap_or(64);
    let dir = tempfile::tempdir().unwrap();
    let small = peak_kib(dir.path(), gib * 1024 / 2);
    let large = peak_kib(dir.path(), gib * 1024);
    println!(
        "peak resident size: {small} KiB with {} GiB mapped, {large} KiB with {gib} GiB",
        gib / 2
    );
    assert!(large < LIMIT_KIB, "{large} KiB");
    assert!(large < small + (48 << 10), "{small} KiB grew to {large} KiB");
}
