//! Pools made by the real engine on the simulated disk, and images of them to be damaged.
#![allow(dead_code)]

pub mod surgeon;

use cow_check::{Blocks, Finding, Options, ReadError, Report, Severity, Structure, check};
use cow_engine::{AckMode, Engine, Op};
use cow_format::{BLOCK_SIZE, Buf, Phys};
use cow_sim::PoolOptions;
use cow_sim::cmd::Cmd;
use cow_sim::disk::{Crash, SimDisk};
use cow_sim::oracle::Oracle;
use cow_sim::sim::{Sim, Tolerance};
use cow_sim::value::Page;
use std::collections::HashMap;

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;

/// An image in memory.
#[derive(Clone)]
pub struct Image {
    pub pages: HashMap<u64, Page>,
    pub blocks: u64,
}

impl Image {
    /// What a disk holds if nothing is lost.
    pub fn of(disk: &SimDisk) -> Self {
        let disk = disk.crash(Crash::KeepAll);
        let pages = disk.occupied().into_iter().map(|block| (block, disk.peek(block))).collect();
        Self { pages, blocks: disk.blocks() }
    }

    pub fn page(&self, block: u64) -> Page {
        self.pages.get(&block).copied().unwrap_or([0; BLOCK_SIZE])
    }

    pub fn put(&mut self, at: Phys, buf: &Buf) {
        for index in 0..buf.block_count() {
            self.pages.insert(at.0 + index as u64, *buf.block(index));
        }
    }

    pub fn flip(&mut self, block: u64, byte: usize) {
        let mut page = self.page(block);
        page[byte] ^= 0x41;
        self.pages.insert(block, page);
    }
}

impl Blocks for Image {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let mut buf = Buf::zeroed(blocks);
        for index in 0..blocks {
            if let Some(page) = self.pages.get(&(at.0 + index as u64)) {
                buf.block_mut(index).copy_from_slice(page);
            }
        }
        Ok(buf)
    }

    fn block_count(&self) -> u64 {
        self.blocks
    }
}

/// A disk with nothing in flight.
pub struct OnDisk(pub SimDisk);

impl Blocks for OnDisk {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let mut buf = Buf::zeroed(blocks);
        for index in 0..blocks {
            *buf.block_mut(index) = self.0.peek(at.0 + index as u64);
        }
        Ok(buf)
    }

    fn block_count(&self) -> u64 {
        self.0.blocks()
    }
}

/// Checks everything.
pub fn report(image: &Image) -> Report {
    check(&mut image.clone(), &Options::default()).expect("the pool opens")
}

pub fn lines(report: &Report) -> String {
    let line = |f: &Finding| format!("  {:?} {f}", f.severity);
    report.findings.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Nothing is found.
pub fn assert_clean(image: &Image) -> Report {
    let report = report(image);
    assert!(report.findings.is_empty(), "findings:\n{}", lines(&report));
    report
}

/// Corruption of this kind is found, and its place is told with this text.
pub fn assert_found(image: &Image, kind: Structure, place: &str) {
    let report = report(image);
    let fits = |f: &&Finding| {
        f.kind == kind && f.severity == Severity::Corruption && f.place.contains(place)
    };
    assert!(
        report.findings.iter().any(|f| fits(&f)),
        "no {kind} at {place:?} among the findings:\n{}",
        lines(&report)
    );
}

/// A machine with its clients, on an empty pool.
pub fn new_pool() -> Sim<Engine> {
    new_pool_of(&PoolOptions::default())
}

pub fn new_pool_of(options: &PoolOptions) -> Sim<Engine> {
    open(cow_sim::format(options), Oracle::new(AckMode::Writethrough))
}

pub fn open(disk: SimDisk, oracle: Oracle) -> Sim<Engine> {
    let config = cow_sim::small_config(AckMode::Writethrough);
    let mut sim = Sim::<Engine>::new(disk, oracle, &config, 1);
    sim.tolerate(Tolerance { io: false, no_space: true, corrupt: false });
    sim.open(false).expect("open");
    sim
}

pub fn run(sim: &mut Sim<Engine>, cmds: impl IntoIterator<Item = Cmd>) {
    for cmd in cmds {
        sim.run(cmd).expect("command");
    }
}

/// Ends in order.
pub fn close(mut sim: Sim<Engine>) -> Image {
    sim.aux(Op::Close).expect("close").expect("close");
    sim.world.run_until_idle().expect("idle");
    Image::of(sim.world.disk())
}

/// As it stands now, with all that is in flight through.
pub fn image_now(sim: &mut Sim<Engine>) -> Image {
    sim.world.run_until_idle().expect("idle");
    Image::of(sim.world.disk())
}
