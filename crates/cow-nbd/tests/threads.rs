//! The queue of a connection under a model checker (shuttle): a reader that waits for room, storage that answers when and
//! in which order it likes, or drops requests, a writer, and an end that comes at any time. The file is compiled here once
//! more, as it is, with the checker's primitives. Every request that was let in leaves exactly once, nobody
//! sleeps for ever, and the budget is whole afterwards. The same where the storage's thread reads and answers by itself,
//! as long as nobody else answers and the socket takes what it is given.
//!
//! `COW_SHUTTLE_ITERATIONS` is how many orders are tried.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code, unused_imports)]

#[path = "../../cowstore/tests/threads/sync.rs"]
mod primitives;
#[path = "../src/queue.rs"]
mod queue;

mod export {
    pub(crate) use cow_nbd::{ExportError, Response};
}

mod wire {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum NbdError {
        NotPermitted,
        Io,
        Invalid,
        NoSpace,
        NotSupported,
        Shutdown,
    }
}

/// Of the conditions each can be made one that wakes nobody: a fault to plant.
mod sync {
    pub(crate) use crate::primitives::Mutex;
    pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub(crate) use shuttle::thread;
    use std::cell::Cell;
    use std::time::Duration;

    thread_local! {
        static DEAF: Cell<usize> = const { Cell::new(usize::MAX) };
        static MADE: Cell<usize> = const { Cell::new(0) };
    }

    /// The n-th condition that is made from now on wakes nobody.
    pub(crate) fn deafen(nth: usize) {
        MADE.set(0);
        DEAF.set(nth);
    }

    pub(crate) struct Condvar(crate::primitives::Condvar, bool);

    impl Condvar {
        pub(crate) fn new() -> Self {
            let nth = MADE.replace(MADE.get() + 1);
            Self(crate::primitives::Condvar::default(), nth == DEAF.get())
        }

        pub(crate) fn wait<T>(&self, guard: &mut crate::primitives::MutexGuard<'_, T>) {
            self.0.wait(guard);
        }

        pub(crate) fn wait_for<T>(
            &self,
            guard: &mut crate::primitives::MutexGuard<'_, T>,
            time: Duration,
        ) {
            self.0.wait_for(guard, time);
        }

        pub(crate) fn notify_one(&self) {
            if !self.1 {
                self.0.notify_one();
            }
        }

        pub(crate) fn notify_all(&self) {
            if !self.1 {
                self.0.notify_all();
            }
        }
    }
}

use cow_nbd::Response;
use queue::{About, Queue, Rest, Ticket, Work};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc::channel;
use shuttle::{Config, Runner, thread};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

const COST: usize = 60;

/// The stream to a client, which takes one after the other what is sent.
#[derive(Clone, Default)]
struct Stream(Arc<sync::AtomicBool>);

impl Stream {
    fn send(&self) {
        assert!(!self.0.swap(true, sync::Ordering::SeqCst), "two send at once");
        thread::yield_now();
        self.0.store(false, sync::Ordering::SeqCst);
    }
}

/// Sends what it is given; the cookies of that.
fn writer(queue: &Arc<Queue>, stream: &Stream) -> thread::JoinHandle<Vec<u64>> {
    let (queue, stream) = (queue.clone(), stream.clone());
    thread::spawn(move || {
        let (mut batch, mut written) = (Vec::new(), Vec::new());
        loop {
            match queue.take(&mut batch) {
                Work::End => return written,
                Work::Rest(rest) => {
                    stream.send();
                    written.extend(rest.bytes.into_iter().map(u64::from));
                    queue.written(rest.requests, rest.cost_bytes);
                }
                Work::Replies => {
                    stream.send();
                    let bytes = batch.iter().map(|reply| reply.cost_bytes).sum();
                    let count = batch.len();
                    written.extend(batch.drain(..).map(|reply| reply.cookie));
                    queue.written(count, bytes);
                }
            }
        }
    })
}

fn session() {
    sync_reset();
    let queue = Arc::new(Queue::new(2, 2 * COST));
    let (send, requests) = channel::<Ticket>();
    let storage = thread::spawn(move || {
        for (nth, ticket) in requests.iter().enumerate() {
            match nth {
                0 => drop(ticket),
                1 => ticket.abandon(),
                _ => ticket.complete(Ok(Response::Done)),
            }
        }
    });
    let writer = writer(&queue, &Stream::default());
    let reader = {
        let queue = queue.clone();
        thread::spawn(move || {
            let mut let_in = Vec::new();
            for cookie in 0..4 {
                if !queue.acquire(COST) {
                    break;
                }
                let_in.push(cookie);
                send.send(Ticket::new(&queue, cookie, About::Other, COST)).unwrap();
            }
            drop(send);
            queue.finish();
            assert!(queue.wait_idle(Duration::from_secs(3600)));
            let_in
        })
    };
    queue.close();
    let mut let_in = reader.join().unwrap();
    storage.join().unwrap();
    let mut written = writer.join().unwrap();
    written.sort_unstable();
    let_in.retain(|&cookie| cookie != 1);
    assert_eq!(written, let_in);
    assert!(!queue.acquire(COST), "closed");
}

/// The thread that reads and answers by itself: three requests, the second of which somebody else answers. The socket has
/// no room for every other answer.
fn direct() {
    sync_reset();
    let queue = Arc::new(Queue::new(4, 4 * COST));
    let (send, elsewhere) = channel::<Ticket>();
    let other = thread::spawn(move || {
        for ticket in elsewhere {
            ticket.complete(Ok(Response::Done));
        }
    });
    let stream = Stream::default();
    let writer = writer(&queue, &stream);
    let mut sent = Vec::new();
    let mut batch = Vec::new();
    let mut is_full = false;
    for cookie in 0..3 {
        assert!(queue.try_acquire(COST), "there is room for all");
        let ticket = Ticket::new(&queue, cookie, About::Other, COST);
        if cookie == 1 {
            send.send(ticket).unwrap();
        } else {
            ticket.complete(Ok(Response::Done));
        }
        while queue.take_direct(&mut batch) {
            let cost_bytes = batch.iter().map(|reply| reply.cost_bytes).sum();
            let requests = batch.len();
            let cookies = batch.drain(..).map(|reply| reply.cookie);
            stream.send();
            if is_full {
                let bytes = cookies.map(|cookie| cookie as u8).collect();
                queue.leave_rest(Rest { bytes, requests, cost_bytes, close: false });
            } else {
                sent.extend(cookies);
                queue.written(requests, cost_bytes);
            }
            is_full = !is_full;
        }
    }
    drop(send);
    // It sleeps, whoever else answers meanwhile.
    assert!(queue.wait_idle(Duration::from_secs(3600)));
    queue.end_direct();
    queue.finish();
    other.join().unwrap();
    sent.extend(writer.join().unwrap());
    sent.sort_unstable();
    assert_eq!(sent, [0, 1, 2]);
}

fn sync_reset() {
    sync::deafen(PLANTED.get());
}

thread_local! {
    static PLANTED: std::cell::Cell<usize> = const { std::cell::Cell::new(usize::MAX) };
}

fn explore() {
    let told = std::env::var("COW_SHUTTLE_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let iterations: usize = told.unwrap_or(1500);
    for run in [session, direct] {
        Runner::new(RandomScheduler::new(iterations), Config::new()).run(run);
        Runner::new(PctScheduler::new(3, iterations), Config::new()).run(run);
    }
}

#[test]
fn every_request_leaves_once_whenever_the_connection_ends() {
    explore();
}

/// A reply that takes long to copy is not sent by the thread that others wait for.
#[test]
fn a_large_reply_is_the_writers() {
    let large = || {
        sync_reset();
        let queue = Arc::new(Queue::new(4, 1 << 20));
        let writer = writer(&queue, &Stream::default());
        let mut batch = Vec::new();
        assert!(!queue.take_direct(&mut batch), "nothing is there, and the next is its own");
        for (cookie, cost) in [(0, COST), (1, 200 << 10)] {
            assert!(queue.try_acquire(cost));
            Ticket::new(&queue, cookie, About::Other, cost).complete(Ok(Response::Done));
        }
        assert!(!queue.take_direct(&mut batch));
        queue.end_direct();
        queue.finish();
        let mut sent = writer.join().unwrap();
        sent.sort_unstable();
        assert_eq!(sent, [0, 1]);
    };
    Runner::new(RandomScheduler::new(100), Config::new()).run(large);
}

#[test]
fn a_dropped_wake_up_is_found() {
    for (nth, name) in ["room", "work"].into_iter().enumerate() {
        PLANTED.set(nth);
        let found = catch_unwind(AssertUnwindSafe(explore));
        PLANTED.set(usize::MAX);
        assert!(found.is_err(), "{name}");
    }
}
