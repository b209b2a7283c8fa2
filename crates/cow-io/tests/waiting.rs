//! Waiting, waking and dropping, with all drivers.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{BLOCK, Reactor, Setup, new_image, pattern, read, write};
use cow_format::BufSlice;
use cow_io::{DriverOptions, IoOp, Notifier};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

for_all_setups! {
    a_timeout_is_kept,
    a_poll_returns_at_once,
    a_notification_wakes,
    a_notification_before_the_wait_is_not_lost,
    notifications_are_coalesced,
    no_notification_is_ever_lost,
    waiting_burns_no_time,
    completions_wake_a_wait_without_timeout,
    a_driver_dropped_in_flight_leaves_nothing_behind,
    memory_of_a_dropped_driver_is_left_alone,
    a_driver_dropped_before_its_first_kick,
    a_drop_begins_nothing_new,
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(150);

fn idle(setup: Setup) -> (tempfile::TempDir, Reactor) {
    let (dir, _, image) = new_image(64);
    (dir, Reactor::new(image, setup))
}

/// How long a wait takes.
fn timed_wait(reactor: &mut Reactor, timeout: Option<Duration>) -> Duration {
    let start = Instant::now();
    let mut done = Vec::new();
    reactor.driver.wait(&mut done, timeout);
    assert!(done.is_empty());
    start.elapsed()
}

fn a_timeout_is_kept(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    for _ in 0..3 {
        let took = timed_wait(&mut reactor, Some(SHORT));
        assert!(took >= SHORT && took < LONG, "{took:?}");
    }
    // One that is beyond the clock's range is as good as none.
    reactor.submit(read(0, 1));
    let mut done = Vec::new();
    reactor.driver.wait(&mut done, Some(Duration::MAX));
    assert_eq!(done.len(), 1);
}

fn a_poll_returns_at_once(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    let took: Duration = (0..100).map(|_| timed_wait(&mut reactor, Some(Duration::ZERO))).sum();
    assert!(took < LONG / 10, "{took:?}");
    // And yet it makes progress: nothing else pushes or takes here.
    reactor.submit(read(0, 1));
    let (start, mut done) = (Instant::now(), Vec::new());
    while done.is_empty() {
        assert!(start.elapsed() < LONG);
        reactor.driver.wait(&mut done, Some(Duration::ZERO));
        thread::sleep(Duration::from_millis(1));
    }
}

fn notify_after(notifier: Notifier, delay: Duration) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        thread::sleep(delay);
        notifier.notify();
    })
}

fn a_notification_wakes(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    for timeout in [Some(LONG), None, Some(LONG)] {
        let thread = notify_after(reactor.driver.notifier(), SHORT);
        let took = timed_wait(&mut reactor, timeout);
        assert!(took >= SHORT / 2 && took < SHORT + Duration::from_secs(2), "{took:?}");
        thread.join().unwrap();
    }
}

fn a_notification_before_the_wait_is_not_lost(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    for _ in 0..3 {
        reactor.driver.notifier().notify();
        assert!(timed_wait(&mut reactor, Some(LONG)) < LONG / 4);
    }
}

fn notifications_are_coalesced(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    let notifier = reactor.driver.notifier();
    for _ in 0..100_000 {
        notifier.notify();
    }
    assert!(timed_wait(&mut reactor, Some(LONG)) < LONG / 4);
    assert!(timed_wait(&mut reactor, Some(SHORT)) >= SHORT, "one wake-up for all");
}

/// Three threads count up and notify; every count must be seen without a timeout's help.
fn no_notification_is_ever_lost(setup: Setup) {
    const EACH: u64 = 20_000;
    let (_dir, mut reactor) = idle(setup);
    let count = Arc::new(AtomicU64::new(0));
    let seen = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (count, seen) = (count.clone(), seen.clone());
            let notifier = reactor.driver.notifier();
            thread::spawn(move || {
                for i in 0..EACH {
                    let mine = count.fetch_add(1, Ordering::AcqRel) + 1;
                    notifier.notify();
                    // Now and then let the other side fall asleep.
                    let start = Instant::now();
                    while i % 16 == 0 && seen.load(Ordering::Acquire) < mine {
                        assert!(start.elapsed() < LONG, "lost: {mine} was never seen");
                        thread::yield_now();
                    }
                }
            })
        })
        .collect();
    let mut done = Vec::new();
    while seen.load(Ordering::Acquire) < 3 * EACH {
        let start = Instant::now();
        reactor.driver.wait(&mut done, Some(LONG));
        assert!(start.elapsed() < LONG / 2, "only the timeout woke it");
        seen.store(count.load(Ordering::Acquire), Ordering::Release);
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

fn thread_time() -> Duration {
    // SAFETY: both are plain old data, zeroed is a value of theirs, and the call writes one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    let time = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

fn waiting_burns_no_time(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    timed_wait(&mut reactor, Some(Duration::from_millis(1)));
    reactor.driver.notifier().notify();
    timed_wait(&mut reactor, Some(LONG));
    let before = thread_time();
    let took = timed_wait(&mut reactor, Some(Duration::from_secs(1)));
    assert!(took >= Duration::from_secs(1));
    let burnt = thread_time() - before;
    assert!(burnt < Duration::from_millis(100), "{burnt:?} of one second");
}

fn completions_wake_a_wait_without_timeout(setup: Setup) {
    let (_dir, mut reactor) = idle(setup);
    for i in 0..200 {
        let op = match i % 4 {
            0 => write(i % 64 * BLOCK, &pattern(i, 1)),
            1 => IoOp::Flush,
            2 => IoOp::Grow { len: (64 + i) * BLOCK },
            _ => read(i % 64 * BLOCK, 1),
        };
        reactor.submit(op);
        let mut done = Vec::new();
        while done.is_empty() {
            reactor.driver.wait(&mut done, None);
        }
        assert!(done[0].result.is_ok());
    }
}

/// After the drop the file may not change any more, and each write was done or was not.
fn a_driver_dropped_in_flight_leaves_nothing_behind(setup: Setup) {
    for round in 0..5 {
        let (_dir, path, image) = new_image(64 * 256);
        let mut reactor = Reactor::new(image, setup);
        let data = pattern(round, 256);
        for i in 0..64 {
            reactor.submit(write(i * 256 * BLOCK, &data));
            reactor.submit(IoOp::Grow { len: (64 * 256 + i) * BLOCK });
        }
        reactor.driver.kick();
        for i in 0..64 {
            reactor.submit(read(i * 256 * BLOCK, 256));
        }
        drop(reactor);
        let before = fs::read(&path).unwrap();
        for chunk in before.chunks(data.len()) {
            let zeros = chunk.iter().all(|&byte| byte == 0);
            assert!(zeros || *chunk == data[..], "a write was torn by the drop");
        }
        thread::sleep(Duration::from_millis(10));
        assert!(fs::read(&path).unwrap() == before, "written after the drop");
    }
}

/// The memory of reads goes back to the allocator at the drop, and then belongs to others. The
/// buffers are small and far apart, so that the device is slower than the drop, and the
/// allocator hands them out again instead of giving them back.
fn memory_of_a_dropped_driver_is_left_alone(setup: Setup) {
    const READS: u64 = 250;
    let (_dir, _, image) = new_image(READS * 16);
    image.write_at(0, &BufSlice::whole(pattern(1, READS as usize * 16))).unwrap();
    image.drop_page_cache().unwrap();
    for _ in 0..80 {
        let mut reactor = Reactor::new(image.clone(), setup);
        let mut between = Vec::new();
        for i in 0..READS {
            reactor.submit(read(i * 16 * BLOCK, 1));
            between.push(vec![1u8; 100]);
        }
        reactor.driver.kick();
        let pool = reactor.driver.buffers();
        drop(reactor);
        let reused: Vec<_> = (0..READS).map(|_| pool.zeroed(1)).collect();
        thread::sleep(Duration::from_millis(5));
        for buf in reused {
            assert!(buf.iter().all(|&byte| byte == 0), "read into after the drop");
        }
    }
}

fn a_driver_dropped_before_its_first_kick(setup: Setup) {
    let (_dir, path, image) = new_image(4);
    let mut reactor = Reactor::new(image, setup);
    reactor.submit(write(0, &pattern(1, 4)));
    drop(reactor);
    assert!(fs::read(path).unwrap().iter().all(|&byte| byte == 0));
}

/// Far more is queued than is under way at once: a drop may wait for this, but not for that.
fn a_drop_begins_nothing_new(setup: Setup) {
    const WRITES: u64 = 400;
    let (_dir, path, image) = new_image(WRITES * 64);
    let options = DriverOptions { ring_entries: 8, threads: 2, ..Default::default() };
    let mut reactor = Reactor::with(image, setup, options);
    let data = pattern(1, 64);
    for i in 0..WRITES {
        reactor.submit(write(i * 64 * BLOCK, &data));
    }
    reactor.driver.kick();
    drop(reactor);
    let file = fs::read(path).unwrap();
    let written = file.chunks(data.len()).filter(|chunk| chunk[0] != 0).count() as u64;
    assert!(written < WRITES / 2, "{written} of {WRITES} writes were done");
}
