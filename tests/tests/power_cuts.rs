//! The power of the disk below a real server goes: everything that was acknowledged as durable is there, and
//! the rest is a prefix. Beside the simulator this has the real driver, kernel and processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::numbered::{History, Image, read_numbers};
use cow_tests::shim::{Flushes, Rng, Shim};
use cow_tests::{Client, Place, have_fuse};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const VOLUMES: [&str; 3] = ["a", "b", "c"];
const BLOCKS: usize = 1024;

fn number_of(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}: {e}")))
}

/// A server, which may fail to start.
struct Served {
    child: Child,
    socket: PathBuf,
}

impl Served {
    /// `None` if it ends before it is ready; then the power must have gone.
    fn start(place: &Place) -> Option<Self> {
        let socket = place.path("nbd.sock");
        let listen = format!("unix:{}", socket.display());
        let mut command = place.command(&["serve", "--nbd", &listen]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut text = String::new();
            child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
            println!("the server does not start: {} {text}", child.wait().unwrap());
            return None;
        }
        Some(Self { child, socket })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is on the disk, as far as it is known.
struct Model {
    history: History,
    snapshots: BTreeMap<String, Image>,
    /// Those that may or may not be there.
    unsure: BTreeMap<String, Image>,
    count: u64,
}

impl Model {
    /// Writes, flushes and takes snapshots until the power goes.
    fn live(&mut self, place: &Place, served: &Served, rng: &mut Rng) -> std::io::Result<()> {
        let mut clients = Vec::new();
        for name in VOLUMES {
            clients.push((name.to_owned(), Client::connect(&served.socket, name)?));
        }
        // Some lives flush often, and some leave much in the cache.
        let flushes = [8, 2, 0][rng.below(3) as usize];
        loop {
            self.history.batch(&mut clients, rng)?;
            match rng.below(40) {
                turn if turn < flushes => {
                    clients[rng.below(3) as usize].1.flush()?;
                    self.history.was_flushed();
                }
                8 => {
                    // A fold, and a checkpoint.
                    let _ = place.run(&["list"]);
                }
                9 => self.snapshot(place),
                10 => self.delete(place, rng),
                _ => {}
            }
        }
    }

    /// A snapshot of all volumes at once.
    fn snapshot(&mut self, place: &Place) {
        self.count += 1;
        let names: Vec<String> = VOLUMES.iter().map(|v| format!("{v}@{}", self.count)).collect();
        let words: Vec<&str> = ["snapshot"].into_iter().chain(names.iter().map(|n| &**n)).collect();
        let key = self.count.to_string();
        if place.run(&words).code == 0 {
            self.history.was_flushed();
            self.snapshots.insert(key, self.history.now());
        } else {
            self.unsure.insert(key, self.history.now());
        }
    }

    fn delete(&mut self, place: &Place, rng: &mut Rng) {
        if self.snapshots.len() < 2 {
            return;
        }
        let at = rng.below(self.snapshots.len() as u64) as usize;
        let key = self.snapshots.keys().nth(at).unwrap().clone();
        let names: Vec<String> = VOLUMES.iter().map(|v| format!("{v}@{key}")).collect();
        let words: Vec<&str> = ["delete"].into_iter().chain(names.iter().map(|n| &**n)).collect();
        let image = self.snapshots.remove(&key).unwrap();
        if place.run(&words).code != 0 {
            self.unsure.insert(key, image);
        }
    }

    /// Compares with what is there after the cut. Returns how many batches are lost.
    fn verify(&mut self, place: &Place, socket: &Path) -> usize {
        let numbers = |suffix: &str| -> Image {
            let of = |name: &&str| {
                ((*name).to_owned(), read_numbers(socket, &format!("{name}{suffix}")))
            };
            VOLUMES.iter().map(of).collect()
        };
        let lost = self.history.survived(&numbers(""));
        let names = place.names();
        for (key, image) in std::mem::take(&mut self.unsure) {
            let there = VOLUMES.iter().filter(|v| names.contains(&format!("{v}@{key}"))).count();
            assert!(there == 0 || there == VOLUMES.len(), "{key}: a group is whole: {names:?}");
            if there > 0 {
                self.snapshots.insert(key, image);
            }
        }
        let count = names.iter().filter(|name| name.contains('@')).count();
        assert_eq!(count, self.snapshots.len() * VOLUMES.len(), "{names:?}");
        for (key, image) in &self.snapshots {
            assert!(&numbers(&format!("@{key}")) == image, "snapshot {key} has changed");
        }
        lost
    }
}

/// What a campaign has seen.
#[derive(Debug, Default)]
struct Seen {
    cuts: u64,
    in_recovery: u64,
    unflushed: usize,
    surviving_sectors: usize,
    lost_batches: usize,
    batches: usize,
}

fn pool_on(shim: &Shim) -> Place {
    let mut place = Place::new();
    place.set_pool(shim.dir().join("pool.cow"));
    place.ok(&["pool", "create", "--size", "128M"]);
    for name in VOLUMES {
        place.ok(&["create", name, "--size", "4M"]);
    }
    place
}

/// Lives of one pool, each of which ends with a cut.
fn lives(seed: u64, count: u64) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(seed);
    let mut shim = Shim::mount(&dir.path().join("disk"), &dir.path().join("mnt"), rng.number());
    let place = pool_on(&shim);
    let history = History::new(&VOLUMES, BLOCKS);
    let mut model =
        Model { history, snapshots: BTreeMap::new(), unsure: BTreeMap::new(), count: 0 };
    let mut seen = Seen::default();
    for life in 0..count {
        let served = Served::start(&place).expect("the pool opens");
        // Some cuts come soon, and meet the end of the recovery.
        let longest = if rng.eighths(1) { 8 } else { 500 };
        shim.cut_after(1 + rng.below(longest));
        let _ = model.live(&place, &served, &mut rng);
        let cut = shim.has_cut().expect("clients see no error before the cut");
        seen.batches += model.history.batches();
        drop(served);
        seen.cuts += 1;
        seen.unflushed += cut.unflushed;
        seen.surviving_sectors += cut.surviving_sectors;
        shim.boot(rng.number());
        // A second cut, in the recovery from the first.
        while rng.eighths(3) {
            shim.cut_after(1 + rng.below(12));
            let served = Served::start(&place);
            shim.cut();
            drop(served);
            seen.in_recovery += 1;
            shim.boot(rng.number());
        }
        assert_eq!(place.json("check", &["check"])["clean"], true, "life {life}, before recovery");
        let served = Served::start(&place).expect("the pool opens");
        seen.lost_batches += model.verify(&place, &served.socket);
        drop(served);
    }
    assert_eq!(place.json("check", &["check"])["clean"], true);
    seen
}

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    if !have_fuse() {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number_of("COW_SHIM_SEED").unwrap_or(now % 1_000_000);
    let count = number_of("COW_POWER_CUTS").unwrap_or(40);
    println!("COW_SHIM_SEED={seed} COW_POWER_CUTS={count}");
    let seen = lives(seed, count);
    println!("{seen:?}");
    assert!(seen.batches > 100 && seen.unflushed > 100, "{seen:?}");
    // Unless something is lost now and then, nothing has been tried.
    assert!(seen.lost_batches > 0 && seen.surviving_sectors > 0, "{seen:?}");
}

/// The test can fail: on a disk that lies, what was acknowledged is lost.
#[test]
fn on_a_disk_that_lies_it_does_not() {
    if !have_fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut shim = Shim::mount(&dir.path().join("disk"), &dir.path().join("mnt"), 7);
    let place = pool_on(&shim);
    let served = Served::start(&place).unwrap();
    let mut rng = Rng::new(7);
    let mut history = History::new(&VOLUMES, BLOCKS);
    let mut clients: Vec<(String, Client)> = VOLUMES
        .iter()
        .map(|name| ((*name).to_owned(), Client::connect(&served.socket, name).unwrap()))
        .collect();
    shim.set_flushes(Flushes::Lie);
    for _ in 0..40 {
        history.batch(&mut clients, &mut rng).unwrap();
        clients[0].1.flush().unwrap();
        history.was_flushed();
    }
    drop(clients);
    shim.cut();
    drop(served);
    shim.boot(8);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let served = Served::start(&place).expect("the pool opens");
        let of = |name: &&str| ((*name).to_owned(), read_numbers(&served.socket, name));
        history.survived(&VOLUMES.iter().map(of).collect())
    }));
    assert!(caught.is_err());
}
