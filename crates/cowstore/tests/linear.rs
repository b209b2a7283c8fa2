//! I13 on a real file and a real driver: threads that write, read, zero and discard the same blocks through handles of
//! their own, while another snapshots, rolls back, clones and deletes. What they saw is what one after the other
//! could have seen; the decision is that of the simulator (`cow_sim::linear`). Which thread comes first is the
//! machine's affair, so a failure shows the history and no seed repeats it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_sim::linear::area::{Spot, everything};
use cow_sim::linear::state::State;
use cow_sim::linear::{Call, Node, Op, Verdict, check};
use cow_sim::rng::Rng;
use cow_sim::sector::bytes_of;
use cowstore::{
    AckMode, CreateOptions, DeleteOptions, DriverChoice, Error, Export, Memory, OpenOptions, Pool,
    RollbackOptions, SnapshotOptions, Volume,
};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

const WRITERS: u32 = 4;
const NAMES: u64 = 4;
/// Ids of undo snapshots begin here.
const UNDO: u32 = 1 << 30;

/// One order of all moments of all threads.
static CLOCK: AtomicU64 = AtomicU64::new(0);
static TOKENS: AtomicU64 = AtomicU64::new(1);

fn now() -> u64 {
    CLOCK.fetch_add(1, Ordering::SeqCst)
}

struct Recorder<'a> {
    pool: &'a Pool,
    client: u32,
    rng: Rng,
    ops: Vec<Op>,
}

impl<'a> Recorder<'a> {
    fn new(pool: &'a Pool, client: u32) -> Self {
        let seed = u64::from(client) + u64::from(std::process::id());
        Self { pool, client, rng: Rng::new(seed), ops: Vec::new() }
    }

    /// Notes what `act` came to, asked at `asked`.
    fn note(&mut self, asked: u64, calls: impl IntoIterator<Item = Call>) {
        let (client, answered) = (self.client, Some(now()));
        self.ops.extend(calls.into_iter().map(|call| Op { client, call, asked, answered }));
    }

    fn spot(&mut self) -> Spot {
        let first = self.rng.below(4);
        let blocks = first..first + self.rng.range(1, 4);
        let spot = Spot::blocks(self.rng.below(3), blocks);
        if self.rng.one_in(3) { spot.shrunk(self.rng.below(9), self.rng.below(9)) } else { spot }
    }

    fn open(&mut self) -> Volume {
        let asked = now();
        let volume = self.pool.volume("v0").unwrap();
        let fence = volume.rollback_generation();
        self.note(asked, [Call::Opened { node: Node::Head(0), fence }]);
        volume
    }

    fn read(&mut self, export: &Export, node: Node, spot: &Spot) -> Result<(), Error> {
        let (asked, fence) = (now(), export.rollback_generation());
        let mut bytes = vec![0; spot.len() as usize];
        match export.read_at(&mut bytes, spot.offset) {
            Ok(()) => {
                let seen = spot.seen(&bytes);
                self.note(asked, seen.into_iter().map(|cells| Call::Read { node, fence, cells }));
                Ok(())
            }
            Err(error) => {
                assert!(matches!(error, Error::Stale(_)), "{error}");
                self.note(asked, [Call::Fenced { volume: 0, fence }]);
                Err(error)
            }
        }
    }

    fn change(&mut self, volume: &Volume) -> Result<(), Error> {
        let (spot, fence) = (self.spot(), volume.rollback_generation());
        let (offset, len) = (spot.offset, spot.len());
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let data = bytes_of(token, spot.sectors as usize);
        let kind = self.rng.below(6);
        let asked = now();
        let (result, cells) = match kind {
            0 => (volume.write_zeroes(offset, len), spot.cells(0)),
            1 => (
                volume.discard(offset, len),
                spot.whole().map_or(Vec::new(), |whole| whole.cells(0)),
            ),
            _ => (volume.write_at(&data, offset), spot.cells(token)),
        };
        let write = |cells| Call::Write { volume: 0, fence, cells };
        // What crosses a multiple of 1 MiB is written in parts, side by side.
        let parts = spot.cut(1 << 20);
        let calls = match kind {
            0 | 1 => vec![write(cells)],
            _ => parts.iter().map(|part| write(part.cells(token))).collect(),
        };
        match &result {
            Ok(()) => self.note(asked, calls),
            Err(Error::Stale(_)) => {
                self.note(asked, [Call::Fenced { volume: 0, fence }]);
                // One of the parts was; the other may have been written before.
                if calls.len() > 1 {
                    let (client, answered) = (self.client, None);
                    self.ops.extend(calls.into_iter().map(|call| Op {
                        client,
                        call,
                        asked,
                        answered,
                    }));
                }
            }
            Err(error) => panic!("{error}"),
        }
        result
    }

    /// A thread that reads and writes.
    fn io(mut self, rounds: u32) -> Vec<Op> {
        let mut volume = self.open();
        for _ in 0..rounds {
            let result = match self.rng.below(20) {
                0 => volume.flush(),
                1..10 => {
                    let spot = self.spot();
                    self.read(&volume, Node::Head(0), &spot)
                }
                _ => self.change(&volume),
            };
            if result.is_err() {
                volume = self.open();
            }
        }
        self.ops
    }

    /// The thread that takes snapshots and goes back to them.
    fn verbs(mut self, rounds: u32) -> Vec<Op> {
        for round in 0..rounds {
            let snap = self.rng.below(NAMES) as u32;
            let (name, node) = (format!("v0@s{snap}"), Node::Snap(0, snap));
            let kind = self.rng.below(10);
            let asked = now();
            let call = match kind {
                0..4 => match self.pool.snapshot(&[&name], SnapshotOptions::default()) {
                    Ok(_) => Call::Snapshot(0, snap),
                    Err(Error::Exists(_)) => Call::SnapshotRefused(0, snap),
                    Err(error) => panic!("{error}"),
                },
                4..6 => {
                    let options = RollbackOptions { force: true, ..RollbackOptions::default() };
                    match self.pool.rollback(&[&name], options) {
                        Ok(kept) => {
                            let name = kept.into_iter().flatten().next().map(|kept| kept.name);
                            let number =
                                name.and_then(|name| name.rsplit_once("undo.")?.1.parse().ok());
                            let undo = number.map(|number: u32| UNDO + number);
                            Call::Rollback { volume: 0, to: snap, undo }
                        }
                        Err(Error::NotFound(_)) => Call::Missing(node),
                        Err(error) => panic!("{error}"),
                    }
                }
                6..8 => match self.pool.delete(&[&name], DeleteOptions::default()) {
                    Ok(_) => Call::Delete(0, snap),
                    Err(Error::NotFound(_)) => Call::Missing(node),
                    Err(error) => panic!("{error}"),
                },
                8 if round % 4 == 0 => {
                    self.pool.checkpoint().unwrap();
                    continue;
                }
                _ => {
                    self.look(&name, node);
                    continue;
                }
            };
            let is_new = matches!(call, Call::Snapshot(..));
            self.note(asked, [call]);
            if is_new {
                self.look(&name, node);
            }
        }
        self.ops
    }

    /// All of a snapshot.
    fn look(&mut self, name: &str, node: Node) {
        let asked = now();
        match self.pool.open_export(name, false) {
            Ok(export) => {
                everything().iter().for_each(|spot| self.read(&export, node, spot).unwrap())
            }
            Err(Error::NotFound(_)) => self.note(asked, [Call::Missing(node)]),
            Err(error) => panic!("{error}"),
        }
    }

    /// All that is there at the end.
    fn last_look(mut self) -> Vec<Op> {
        let volume = self.open();
        for spot in everything() {
            self.read(&volume, Node::Head(0), &spot).unwrap();
        }
        for snap in 0..NAMES as u32 {
            self.look(&format!("v0@s{snap}"), Node::Snap(0, snap));
        }
        self.ops
    }
}

/// A history of threads on a pool that is opened so.
fn history(open: OpenOptions, rounds: u32) -> Vec<Op> {
    let dir = tempfile::tempdir().unwrap();
    let options = CreateOptions { open, ..CreateOptions::with_size(256 << 20) };
    let pool = Pool::create(dir.path().join("pool.cow"), &options).unwrap();
    pool.create_volume("v0", 8 << 20, &[]).unwrap();
    let mut ops = thread::scope(|scope| {
        let pool = &pool;
        let verbs = scope.spawn(move || Recorder::new(pool, WRITERS).verbs(rounds / 4));
        let io =
            (0..WRITERS).map(|client| scope.spawn(move || Recorder::new(pool, client).io(rounds)));
        let io: Vec<_> = io.collect();
        let threads = io.into_iter().chain([verbs]);
        threads.flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    ops.extend(Recorder::new(&pool, 0).last_look());
    pool.close().unwrap();
    ops
}

/// A history that was decided. What threads leave unordered for long is now and then too much to try.
fn decided(driver: DriverChoice, ack: AckMode) -> Vec<Op> {
    let memory = Memory { layer_bytes: 4000, ..Memory::default() };
    for _ in 0..5 {
        let options = OpenOptions { driver, ack, memory, ..OpenOptions::default() };
        let ops = history(options, 400);
        match check(&State::of([0]), &ops) {
            Verdict::Linearizable => return ops,
            Verdict::Not(text) => panic!("{text}"),
            Verdict::Unknown(text) => println!("too many orders: {text}"),
        }
    }
    panic!("nothing was decided");
}

fn is_linearizable(driver: DriverChoice, ack: AckMode) {
    let ops = decided(driver, ack);
    let count = |which: fn(&Call) -> bool| ops.iter().filter(|op| which(&op.call)).count();
    let rollbacks = count(|call| matches!(call, Call::Rollback { .. }));
    let fenced = count(|call| matches!(call, Call::Fenced { .. }));
    println!("{} operations, {rollbacks} rollbacks, {fenced} fenced", ops.len());
    assert!(ops.len() > 1000);
    // A history that nobody could have seen is found out, too: the checker looks at all of it.
    let mut wrong = ops;
    let read = wrong.iter_mut().rev().find_map(|op| match &mut op.call {
        Call::Read { cells, .. } => cells.first_mut(),
        _ => None,
    });
    read.unwrap().1 ^= 1 << 40;
    assert!(matches!(check(&State::of([0]), &wrong), Verdict::Not(_)));
}

#[test]
fn threads_on_the_ring() {
    is_linearizable(DriverChoice::Auto, AckMode::Writeback);
    is_linearizable(DriverChoice::Auto, AckMode::Writethrough);
}

#[test]
fn threads_on_threads() {
    is_linearizable(DriverChoice::Threads, AckMode::Writeback);
    is_linearizable(DriverChoice::Threads, AckMode::Journaled);
}
