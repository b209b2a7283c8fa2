//! What can only be seen from inside: that nothing is freed under the kernel, and what becomes
//! of a ring that fails.

use super::*;
use crate::arena::CHUNK_BYTES;
use crate::create::CreateOptions;
use crate::error::ImageError;
use crate::image::OpenOptions;
use crate::request::IoOp;
use cow_format::{Buf, BufSlice};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use tempfile::TempDir;

const BLOCKS: usize = 256;
const SHORT: Duration = Duration::from_millis(50);

/// A driver, or none where the kernel does not have rings.
fn driver() -> Option<(TempDir, PathBuf, UringDriver)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let options = CreateOptions { preallocate: true, ..Default::default() };
    let image = Image::create(&path, 64 << 20, &options).unwrap();
    match UringDriver::open(image, 64) {
        Ok(driver) => Some((dir, path, driver)),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// The same, with an arena of `chunks` chunks, registered.
fn driver_with_arena(chunks: usize) -> Option<(TempDir, PathBuf, UringDriver, Arena)> {
    let (dir, path, mut driver) = driver()?;
    let arena = Arena::new(chunks * CHUNK_BYTES).unwrap().unwrap();
    driver.use_arena(&arena, true);
    if let Some(reason) = driver.fixed_refusal() {
        eprintln!("skipped: {reason}");
        return None;
    }
    Some((dir, path, driver, arena))
}

fn submit_reads(driver: &mut UringDriver, count: u64) {
    for tag in 0..count {
        let buf = driver.buffers.zeroed(BLOCKS);
        driver.submit(IoRequest { tag, op: IoOp::Read { offset: (tag % 64) << 20, buf } });
    }
}

fn take_all(driver: &mut UringDriver) -> Vec<IoDone> {
    let mut done = Vec::new();
    while driver.in_flight() > 0 {
        driver.wait(&mut done, None);
    }
    done
}

#[test]
fn never_more_under_way_than_the_ring_holds() {
    let Some((_dir, _, mut driver)) = driver() else { return };
    submit_reads(&mut driver, 500);
    driver.kick();
    let ring = driver.ring.as_ref().ok().unwrap();
    assert_eq!((ring.under_way(), ring.capacity()), (63, 63));
    assert!(take_all(&mut driver).iter().all(|done| done.result.is_ok()));
    assert_eq!(driver.ring.as_ref().ok().unwrap().under_way(), 0);
}

#[test]
fn draining_waits_for_the_kernel() {
    let Some((_dir, _, mut driver)) = driver() else { return };
    submit_reads(&mut driver, 500);
    driver.kick();
    let ring = driver.ring.as_mut().ok().unwrap();
    assert_eq!(ring.under_way(), 63);
    ring.drain().unwrap();
    assert_eq!(ring.under_way(), 0);
}

/// The kernel lets one thread use the ring. A second one must get errors: no hang, no panic, and
/// no memory back that the kernel may write to.
#[test]
fn a_second_thread_loses_the_ring() {
    let Some((_dir, _, driver)) = driver() else { return };
    lose_the_ring(driver);
}

/// What the kernel may still be at is never given out again.
#[test]
fn a_lost_ring_leaks_its_runs_of_the_arena() {
    // Room for all of the reads.
    let Some((_dir, _, driver, arena)) = driver_with_arena(56) else { return };
    let all = arena.free_blocks();
    let Some(leaked) = lose_the_ring(driver) else { return };
    assert_eq!(all - arena.free_blocks(), leaked * BLOCKS);
}

/// Returns how many requests kept their memory for ever, unless there was nothing to lose.
fn lose_the_ring(mut driver: UringDriver) -> Option<usize> {
    let mut driver = thread::spawn(move || {
        submit_reads(&mut driver, 10);
        driver.wait(&mut Vec::new(), None);
        submit_reads(&mut driver, 100);
        driver.kick();
        driver
    })
    .join()
    .unwrap();
    if driver.ring.as_ref().ok().unwrap().is_shareable() {
        eprintln!("skipped: this kernel's rings may be shared");
        return None;
    }
    let before = driver.in_flight();
    let done = take_all(&mut driver);
    assert_eq!(done.len(), before);
    let lost = done.iter().filter(|done| done.result.is_err()).count();
    assert!(lost > 0, "the ring went on working");
    assert!(driver.ring.is_err());
    let leaked = done.iter().filter(|done| done.buf.is_none()).count();
    drop(done);
    submit_reads(&mut driver, 3);
    driver.submit(IoRequest { tag: 9, op: IoOp::Grow { len: 0 } });
    let done = take_all(&mut driver);
    assert!(done.len() == 4 && done.iter().all(|done| done.result.is_err()));
    // It still waits, and wakes, as it should.
    let start = Instant::now();
    driver.wait(&mut Vec::new(), Some(SHORT));
    assert!(start.elapsed() >= SHORT);
    driver.notifier().notify();
    driver.wait(&mut Vec::new(), None);
    let start = Instant::now();
    driver.wait(&mut Vec::new(), Some(SHORT));
    assert!(start.elapsed() >= SHORT);
    Some(leaked)
}

/// Dropped by a thread that cannot wait for it: leaked, and the image stays locked.
#[test]
fn a_drop_that_cannot_wait_leaks() {
    let Some((_dir, path, driver)) = driver() else { return };
    drop_elsewhere(driver, &path);
}

#[test]
fn a_drop_that_cannot_wait_leaks_fixed_buffers() {
    let Some((_dir, path, driver, arena)) = driver_with_arena(4) else { return };
    let all = arena.free_blocks();
    if drop_elsewhere(driver, &path) {
        assert_eq!(all - arena.free_blocks(), BLOCKS, "all writes are of one buffer");
        return;
    }
    assert_eq!(arena.free_blocks(), all);
}

/// Returns whether it had to leak anything.
fn drop_elsewhere(mut driver: UringDriver, path: &Path) -> bool {
    let mut driver = thread::spawn(move || {
        let data = BufSlice::whole(driver.buffers.zeroed(BLOCKS));
        for tag in 0..60 {
            let bufs = vec![data.clone()];
            driver.submit(IoRequest { tag, op: IoOp::Write { offset: tag << 20, bufs } });
        }
        driver.kick();
        driver
    })
    .join()
    .unwrap();
    if driver.ring.as_ref().ok().unwrap().is_shareable() {
        eprintln!("skipped: this kernel's rings may be shared");
        return false;
    }
    // Completions that are there can be had by any thread; others only by the ring's own.
    let ring = driver.ring.as_mut().ok().unwrap();
    ring.reap(&mut Vec::new());
    if ring.under_way() == 0 {
        eprintln!("skipped: the writes were over at once");
        return false;
    }
    drop(driver);
    let error = Image::open(path, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, ImageError::Busy { .. }), "{error}");
    true
}

fn write_block(driver: &mut UringDriver, tag: u64, block: u64, content: u8) {
    let mut buf = driver.buffers.zeroed(1);
    buf.fill(content);
    let bufs = vec![BufSlice::whole(buf)];
    driver.submit(IoRequest { tag, op: IoOp::Write { offset: block * 4096, bufs } });
}

/// What the engine writes at its frontier comes block by block, and goes to the device as one write.
#[test]
fn writes_that_follow_one_another_are_one() {
    let Some((_dir, path, mut driver)) = driver() else { return };
    for tag in 0..32 {
        write_block(&mut driver, tag, 10 + tag, tag as u8 + 1);
    }
    write_block(&mut driver, 32, 50, 99);
    driver.kick();
    assert_eq!(driver.ring.as_ref().ok().unwrap().under_way(), 2);
    let mut done = take_all(&mut driver);
    done.sort_by_key(|done| done.tag);
    assert!(done.iter().map(|done| done.tag).eq(0..33));
    assert!(done.iter().all(|done| done.result.is_ok()));
    let bytes = std::fs::read(path).unwrap();
    for tag in 0..32 {
        let at = (10 + tag) * 4096;
        assert!(bytes[at..at + 4096].iter().all(|&byte| byte == tag as u8 + 1));
    }
    assert_eq!(bytes[50 * 4096], 99);
}

/// A write that fails together with others must not take them along.
#[test]
fn of_joined_writes_only_those_fail_that_cannot_be_done() {
    let Some((_dir, path, driver)) = driver() else { return };
    drop(driver);
    // A file may grow up to here, and no further.
    let limit = 64 << 20;
    let image = Image::open(&path, &OpenOptions::default()).unwrap();
    let mut driver = UringDriver::open(image, 64).unwrap();
    // Behind the largest offset that a file can have.
    let top = (i64::MAX as u64) / 4096;
    for (tag, block) in (top - 2..top).enumerate() {
        write_block(&mut driver, tag as u64, block, 1);
    }
    write_block(&mut driver, 7, limit / 4096 - 1, 3);
    let done = take_all(&mut driver);
    let result = |tag| done.iter().find(|done| done.tag == tag).unwrap().result;
    assert_eq!(done.len(), 3);
    assert!(result(7).is_ok());
    for tag in 0..2 {
        assert_eq!(result(tag).unwrap_err().offset, (top - 2 + tag) * 4096, "its own place");
    }
}

/// A file system of 1 MiB of its own, unmounted when dropped; none where that may not be made.
struct Small(TempDir);

impl Small {
    fn new() -> Option<Self> {
        let small = Self(tempfile::tempdir().unwrap());
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m,huge=never", "cow-io-test"]).arg(small.0.path());
        let output = mount.output().unwrap();
        if output.status.success() {
            return Some(small);
        }
        eprintln!("skipped: no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // It is not mounted where that was refused.
        let _ = Command::new("umount").arg(self.0.path()).output();
    }
}

/// In the middle of what is one write there is no room for one block of a file: the others, before it
/// and behind it, are written, and only that one is told so.
#[test]
fn of_joined_writes_the_one_fails_that_finds_no_room() {
    let Some(small) = Small::new() else { return };
    let path = small.0.path().join("image");
    let image = Image::create(&path, 64 << 20, &CreateOptions::default()).unwrap();
    let Ok(mut driver) = UringDriver::open(image, 64) else {
        return eprintln!("skipped: no rings");
    };
    let (all, bad) = (10..18, 13);
    for block in all.clone().filter(|block| *block != bad) {
        write_block(&mut driver, block, block, 1);
        assert!(take_all(&mut driver)[0].result.is_ok());
    }
    let ballast = small.0.path().join("ballast");
    assert!(std::fs::write(&ballast, vec![7; 2 << 20]).is_err(), "it is full");
    let again = |driver: &mut UringDriver, content: u8| {
        for block in all.clone() {
            write_block(driver, block, block, content + block as u8);
        }
        driver.kick();
        assert_eq!(driver.ring.as_ref().ok().unwrap().under_way(), 1, "they are one");
        let mut done = take_all(driver);
        done.sort_by_key(|done| done.tag);
        assert!(done.iter().map(|done| done.tag).eq(all.clone()), "each once");
        let bytes = std::fs::read(&path).unwrap();
        for done in &done {
            let at = done.tag as usize * 4096;
            let wanted = if done.result.is_ok() { content + done.tag as u8 } else { 0 };
            assert!(bytes[at..at + 4096].iter().all(|byte| *byte == wanted), "block {}", done.tag);
        }
        let failed = done.into_iter().filter_map(|done| Some((done.tag, done.result.err()?)));
        failed.map(|(tag, error)| (tag, error.offset, error.errno)).collect::<Vec<_>>()
    };
    assert_eq!(again(&mut driver, 100), [(bad, bad * 4096, libc::ENOSPC)]);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(again(&mut driver, 200), [], "there is room again");
}

/// A watched file ends a wait, as often as there is something to read.
#[test]
fn a_watched_file_ends_a_wait() {
    use std::io::{Read, Write};
    let Some((_dir, _, mut driver)) = driver() else { return };
    let (mut theirs, mut ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let id = driver.watch(ours.try_clone().unwrap().into()).unwrap();
    let mut done = Vec::new();
    for round in 0..3 {
        driver.wait(&mut done, Some(SHORT));
        assert!(!driver.may_be_readable(id), "round {round}: the kernel is to tell");
        theirs.write_all(&[1]).unwrap();
        driver.wait(&mut done, None);
        assert!(driver.may_be_readable(id));
        assert_eq!(ours.read(&mut [0; 8]).unwrap(), 1);
    }
    drop(ours);
    driver.wait(&mut done, Some(SHORT));
    driver.unwatch(id);
    driver.wait(&mut done, Some(SHORT));
    assert!(theirs.write_all(&[1]).is_err(), "nobody has it open any more");
}

/// Whoever watches hears at once that the kernel tells nothing any more.
#[test]
fn a_lost_ring_watches_nothing_and_does_not_sleep() {
    let Some((_dir, _, mut driver)) = driver() else { return };
    let (_theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    let id = driver.watch(ours.into()).unwrap();
    assert!(driver.watches() && driver.may_be_readable(id));
    driver.lose(&io::Error::from_raw_os_error(libc::EBADF));
    driver.wait(&mut Vec::new(), None);
    assert!(!driver.watches());
}

/// Messages wait for the next submission, and go with it, whole and in their order.
#[test]
fn messages_go_together() {
    use std::io::Read;
    let Some((_dir, _, mut driver)) = driver() else { return };
    let (mut theirs, ours) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let id = driver.watch(ours.into()).unwrap();
    let mut want = Vec::new();
    for number in 0..100u8 {
        let mut buf = Buf::zeroed(1);
        buf[5..10].fill(number);
        driver.send(id, Message::new(&[number, 255], Some((buf, 5..10))).unwrap());
        want.extend([number, 255, number, number, number, number, number]);
    }
    let under_way = driver.ring.as_ref().ok().unwrap().under_way();
    assert_eq!(under_way, 100);
    driver.kick();
    let mut done = Vec::new();
    driver.wait(&mut done, Some(Duration::ZERO));
    let mut got = vec![0; want.len() + 1];
    let len = theirs.read(&mut got).unwrap();
    assert_eq!(got[..len], want);
    assert!(done.is_empty(), "nobody is told");
    driver.wait(&mut done, Some(Duration::ZERO));
    assert_eq!(driver.ring.as_ref().ok().unwrap().under_way(), 0);
    assert!(Message::new(&[0; 33], None).is_none());
    assert!(Message::new(&[0], Some((Buf::zeroed(1), 4000..4097))).is_none());
}

fn write_lazily(driver: &mut UringDriver, tag: u64, block: u64) {
    let bufs = vec![BufSlice::whole(Buf::zeroed(1))];
    driver.submit_lazily(IoRequest { tag, op: IoOp::Write { offset: block * 4096, bufs } });
}

/// Takes what is over, and does not wait; how many requests the kernel has.
fn look(driver: &mut UringDriver) -> usize {
    driver.kick();
    let under_way = driver.ring.as_ref().ok().unwrap().under_way();
    driver.wait(&mut Vec::new(), Some(Duration::ZERO));
    under_way
}

/// Writes that nobody waits for are one write, which a read does not bring forward; a flush, a wait
/// and time do.
#[test]
fn lazy_writes_wait_for_others() {
    let Some((_dir, _, mut driver)) = driver() else { return };
    let set = |driver: &mut UringDriver, moment| {
        driver.ring.as_mut().ok().unwrap().held().set_moment(moment);
    };
    set(&mut driver, Duration::from_secs(3600));
    (0..20).for_each(|i| write_lazily(&mut driver, i, i));
    assert_eq!(look(&mut driver), 0);
    let buf = driver.buffers.zeroed(1);
    driver.submit(IoRequest { tag: 100, op: IoOp::Read { offset: 0, buf } });
    assert_eq!(look(&mut driver), 1, "the read alone");
    driver.submit(IoRequest { tag: 101, op: IoOp::Flush });
    assert_eq!(look(&mut driver), 2, "the flush, and all writes as one");
    assert!(take_all(&mut driver).iter().all(|done| done.result.is_ok()));

    // The last of these does not follow. A wait that may sleep.
    (0..20).for_each(|i| write_lazily(&mut driver, i, i));
    write_lazily(&mut driver, 20, 1000);
    assert_eq!(look(&mut driver), 0);
    let done = take_all(&mut driver);
    assert_eq!(done.iter().filter(|done| done.result.is_ok()).count(), done.len());
    assert_eq!(driver.in_flight(), 0);

    // Enough of them.
    (0..63).for_each(|i| write_lazily(&mut driver, i, i * 3));
    assert_eq!(look(&mut driver), 0);
    write_lazily(&mut driver, 63, 63 * 3);
    let ring = driver.ring.as_mut().ok().unwrap();
    ring.submit().unwrap();
    assert_eq!(ring.under_way(), 63, "as many as the ring holds");
    assert_eq!(take_all(&mut driver).len(), 64);

    write_lazily(&mut driver, 1, 1);
    set(&mut driver, Duration::ZERO);
    assert_eq!(look(&mut driver), 1, "its time is over");
    take_all(&mut driver);

    // None of a ring that ends is forgotten.
    set(&mut driver, Duration::from_secs(3600));
    write_lazily(&mut driver, 7, 7);
    driver.lose(&io::Error::from_raw_os_error(libc::EBADF));
    let done = take_all(&mut driver);
    assert_eq!((done.len(), done[0].tag, done[0].result.is_err()), (1, 7, true));
}
