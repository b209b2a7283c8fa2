//! The scenarios of tests/, on the stand-in for the engine; and what only a stand-in can show.

#[path = "../tests/scenarios/mod.rs"]
mod scenarios;

use crate::fake::{Fake, Store};
use crate::reactor::Machine;
use crate::{CreateOptions, Error, OpenOptions, Pool, Request};
use cow_engine::{Action, Event, Op};
use parking_lot::Mutex;
use scenarios::Backend;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

struct Stand;

/// The content of the pool at `path`.
fn store(path: &Path) -> Store {
    static STORES: Mutex<Option<HashMap<PathBuf, Store>>> = Mutex::new(None);
    STORES.lock().get_or_insert_default().entry(path.into()).or_default().clone()
}

impl Backend for Stand {
    fn create(&self, path: &Path, options: &CreateOptions) -> Result<Pool, Error> {
        let store = store(path);
        Pool::create_with(path, options, move |_| Fake::new(store))
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<Pool, Error> {
        let store = store(path);
        Pool::open_with(path, options, move |_| Fake::new(store))
    }
}

scenarios::tests!(Stand);

fn pool() -> (tempfile::TempDir, Pool) {
    let dir = tempfile::tempdir().unwrap();
    let options = CreateOptions::with_size(128 << 20);
    let pool = Stand.create(&dir.path().join("pool.cow"), &options).unwrap();
    (dir, pool)
}

#[test]
fn a_panic_of_the_engine_fails_everything_and_hangs_nobody() {
    let (_dir, pool) = pool();
    let pool = Arc::new(pool);
    pool.create_volume("v", 1 << 20, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let (sender, answers) = mpsc::channel();
    for _ in 0..100 {
        let sender = sender.clone();
        // Late answers: these are in progress when it happens.
        volume.submit(Request::Read { offset: 0, len: 10 }, move |result| {
            sender.send(result.map(|_| ())).unwrap();
        });
    }
    let error = pool.create_volume("panic", 1 << 20, &[]).unwrap_err();
    assert_eq!(error, Error::Poisoned("internal error: asked to".into()));
    for _ in 0..100 {
        let answer = answers.recv().unwrap();
        assert!(answer.is_ok() || answer == Err(error.clone()), "{answer:?}");
    }
    assert_eq!(volume.read_at(&mut [0; 4], 0), Err(error.clone()), "and later, too");
    assert_eq!(pool.list(false).unwrap_err(), error);
    assert_eq!(pool.shutdown(), Err(error));
}

/// Notes what it is told, and wants to hear of time now and then.
struct Noting(Arc<Mutex<Vec<&'static str>>>, Fake);

impl Machine for Noting {
    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        let note = match &event {
            Event::Op { op: Op::Info { .. }, .. } => "info",
            Event::Tick { .. } => "tick",
            _ => "other",
        };
        self.0.lock().push(note);
        self.1.step(event, actions);
    }

    fn wants_tick(&self) -> bool {
        self.1.wants_tick()
    }

    fn idle_tick(&self) -> Option<Duration> {
        let ticks = self.0.lock().iter().filter(|note| **note == "tick").count();
        (ticks < 20).then_some(Duration::from_millis(10))
    }
}

#[test]
fn an_idle_pool_hears_of_time_and_what_comes_after_a_sleep_is_told_it_first() {
    let dir = tempfile::tempdir().unwrap();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let (taken, path) = (notes.clone(), dir.path().join("pool.cow"));
    let store = store(&path);
    let options = CreateOptions::with_size(128 << 20);
    let make = move |_| Noting(taken, Fake::new(store));
    let pool = Pool::create_with(&path, &options, make).unwrap();
    while notes.lock().iter().filter(|note| **note == "tick").count() < 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Now it sleeps for good.
    std::thread::sleep(Duration::from_millis(30));
    pool.info(false).unwrap();
    let notes = notes.lock().clone();
    let at = notes.iter().position(|note| *note == "info").unwrap();
    let ticks = notes[..at].iter().filter(|note| **note == "tick").count();
    assert_eq!((ticks, notes[at - 1]), (21, "tick"), "{notes:?}");
    pool.close().unwrap();
}

#[test]
fn a_panic_of_a_callback_stays_there() {
    let (_dir, pool) = pool();
    pool.create_volume("v", 1 << 20, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    volume.submit(Request::Flush, |_| panic!("in a callback"));
    volume.write_at(b"x", 0).unwrap();
    pool.close().unwrap();
}

#[test]
fn blocking_inside_a_callback_is_refused() {
    let (_dir, pool) = pool();
    let pool = Arc::new(pool);
    pool.create_volume("v", 1 << 20, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let (sender, answers) = mpsc::channel();
    let (inner, other) = (volume.clone(), pool.clone());
    volume.submit(Request::Flush, move |_| {
        sender.send(inner.write_at(b"x", 0)).unwrap();
        sender.send(other.checkpoint()).unwrap();
    });
    assert!(matches!(answers.recv().unwrap(), Err(Error::Invalid(_))));
    assert!(matches!(answers.recv().unwrap(), Err(Error::Invalid(_))));
}

#[test]
fn a_pool_may_be_dropped_in_a_callback() {
    let (_dir, pool) = pool();
    pool.create_volume("v", 1 << 20, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    let (sender, done) = mpsc::channel();
    volume.submit(Request::Flush, move |_| {
        drop(pool);
        sender.send(()).unwrap();
    });
    done.recv().unwrap();
    while volume.flush().is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn the_device_is_driven() {
    for driver in [crate::DriverChoice::Auto, crate::DriverChoice::Threads] {
        for direct in [crate::DirectMode::Auto, crate::DirectMode::Off] {
            let dir = tempfile::tempdir().unwrap();
            let open = OpenOptions { driver, direct, ..OpenOptions::default() };
            let options = CreateOptions { open, ..CreateOptions::with_size(256 << 20) };
            let pool = Stand.create(&dir.path().join("p"), &options).unwrap();
            // A write, a flush and a read that bypasses caches.
            pool.checkpoint().unwrap();
            pool.close().unwrap();
        }
    }
}
