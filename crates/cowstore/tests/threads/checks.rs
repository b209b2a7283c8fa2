//! The checks, and the faults that they find.

use crate::bypass::CacheBypass;
use crate::completion::{Completion, Inbox, Outcome};
use crate::driver::Driver;
use crate::error::Error;
use crate::queue::Queue;
use crate::reactor::{self, Parts};
use crate::source::{Source, Taken};
use crate::stand_ins::{Echo, End, Image};
use crate::threads::ThreadDriver;
use cow_engine::Op;
use cow_format::mutant;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::{Config, Runner, thread};
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Runs `body` in many orders: half of them at random, half with few changes of priority, which finds what needs one
/// thread to be held up for long (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of
/// finding bugs", 2010).
fn explore(body: impl Fn() + Send + Sync + Copy + 'static) {
    let told = std::env::var("COW_SHUTTLE_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let iterations: usize = told.unwrap_or(600);
    Runner::new(RandomScheduler::new(iterations), Config::new()).run(body);
    Runner::new(PctScheduler::new(3, iterations), Config::new()).run(body);
}

/// A reactor with one worker below it, and how to wait for its end.
fn start(end: End) -> (Arc<Queue>, thread::JoinHandle<()>) {
    let driver = ThreadDriver::open(Image, 1, None).unwrap();
    let queue = Arc::new(Queue::new(driver.notifier()));
    let parts = Parts {
        queue: queue.clone(),
        driver: Box::new(driver),
        bypass: CacheBypass,
        registration: None,
        path: "pool".into(),
    };
    (queue, thread::spawn(move || reactor::run(parts, move || Echo::new(end))))
}

fn is_an_end(outcome: &Outcome) -> bool {
    matches!(outcome, Err(Error::Poisoned(_)))
}

/// Callers that block, one that does not, and an end that comes at any time.
fn close_against_callers(end: End) {
    let (queue, reactor) = start(end);
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    let outcome = queue.call(Op::Checkpoint);
                    assert!(outcome.is_ok() || is_an_end(&outcome), "{outcome:?}");
                }
            })
        })
        .collect();
    let inbox = Inbox::default();
    (0..2).for_each(|index| queue.push(Op::Checkpoint, inbox.completion(index)));
    let closed = queue.call(Op::Close);
    assert_eq!(closed.is_ok(), end != End::Panic, "{closed:?}");
    queue.stop();
    reactor.join().unwrap();
    // Nothing is accepted any more, and that is said at once.
    assert!(is_an_end(&queue.call(Op::Checkpoint)));
    for caller in callers {
        caller.join().unwrap();
    }
    let mut seen: Vec<usize> = (0..2).map(|_| inbox.wait().unwrap().0).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);
    assert!(inbox.try_next().is_none(), "answered once more");
}

fn close_in_order() {
    close_against_callers(End::InOrder);
}

#[test]
fn every_request_is_answered_once_whenever_the_pool_is_closed() {
    explore(close_in_order);
    explore(|| close_against_callers(End::AtOnce));
}

#[test]
fn every_request_is_answered_once_when_the_engine_panics() {
    explore(|| close_against_callers(End::Panic));
}

/// What dropping a pool does: its reactor is told to end, whatever is in progress.
fn stop_against_callers() {
    let (queue, reactor) = start(End::InOrder);
    let answers = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (queue, answers) = (queue.clone(), answers.clone());
            thread::spawn(move || {
                let counted = answers.clone();
                queue.push(
                    Op::Checkpoint,
                    Completion::new(move |_| {
                        counted.fetch_add(1, Ordering::SeqCst);
                    }),
                );
                let outcome = queue.call(Op::Checkpoint);
                assert!(outcome.is_ok() || is_an_end(&outcome), "{outcome:?}");
            })
        })
        .collect();
    queue.stop();
    reactor.join().unwrap();
    for caller in callers {
        caller.join().unwrap();
    }
    assert_eq!(answers.load(Ordering::SeqCst), 2);
}

#[test]
fn every_request_is_answered_once_when_the_pool_is_dropped() {
    explore(stop_against_callers);
}

/// Futures: the waker that counts is that of the last poll.
fn awaited() {
    let (queue, reactor) = start(End::InOrder);
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let queue = queue.clone();
            thread::spawn(move || {
                let inbox = Inbox::default();
                queue.push(Op::Checkpoint, inbox.completion(7));
                let (index, outcome) =
                    shuttle::future::block_on(poll_fn(|context| inbox.poll_next(context)));
                assert!(index == 7 && outcome.is_ok());
            })
        })
        .collect();
    for task in tasks {
        task.join().unwrap();
    }
    assert!(queue.call(Op::Close).is_ok());
    reactor.join().unwrap();
}

#[test]
fn futures_are_woken() {
    explore(awaited);
}

struct Leaver(Arc<AtomicUsize>);

impl Source for Leaver {
    fn file(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn take(&mut self) -> Taken {
        Taken::All
    }

    fn answers(&mut self, _: &mut Vec<crate::Message>) {}

    fn leave(self: Box<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Sources that come while the pool ends.
fn sources_against_close() {
    let (queue, reactor) = start(End::InOrder);
    let left = Arc::new(AtomicUsize::new(0));
    let givers: Vec<_> = (0..2)
        .map(|_| {
            let (queue, left) = (queue.clone(), left.clone());
            thread::spawn(move || queue.add_source(Box::new(Leaver(left))))
        })
        .collect();
    assert!(queue.call(Op::Close).is_ok());
    reactor.join().unwrap();
    for giver in givers {
        giver.join().unwrap();
    }
    assert_eq!(left.load(Ordering::SeqCst), 2);
}

#[test]
fn a_source_leaves_once_whenever_the_pool_ends() {
    explore(sources_against_close);
}

/// Name, what it breaks, and the check that finds it.
const MUTANTS: &[(&str, &str, fn())] = &[
    ("nowake", "a request does not wake the reactor", close_in_order),
    ("sleepblind", "the reactor sleeps though a request has come since it looked", close_in_order),
    ("noclear", "a second notification is taken for one that is on its way", close_in_order),
    ("forgetful", "what waits when the reactor ends is not answered", stop_against_callers),
    ("answertwice", "an answer comes twice", close_in_order),
];

#[test]
fn planted_faults_are_found() {
    for &(name, what, check) in MUTANTS {
        mutant::plant(name);
        let found = catch_unwind(AssertUnwindSafe(|| {
            Runner::new(RandomScheduler::new(2000), Config::new()).run(check);
            Runner::new(PctScheduler::new(3, 2000), Config::new()).run(check);
        }));
        mutant::plant("");
        assert!(found.is_err(), "{name} is not found: {what}");
    }
}
