//! The device is a socket here that keeps messages apart, as the kernel's does.

use super::*;
use crate::wire::tests::transfer as request;
use cowstore::{CreateOptions, DriverChoice, OpenOptions, Pool};
use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

const READ: u32 = 15;
const WRITE: u32 = 16;
const FSYNC: u32 = 20;
const VOLUME_BYTES: u64 = 16 << 20;

struct Rig {
    _dir: TempDir,
    pool: Pool,
    /// The kernel's end.
    kernel: File,
    others: Receiver<Vec<u8>>,
    home: Receiver<Box<Device>>,
}

fn rig() -> (Rig, Device) {
    rig_with(DriverChoice::Auto)
}

fn rig_with(driver: DriverChoice) -> (Rig, Device) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.cow");
    let options = CreateOptions { size_bytes: Some(128 << 20), ..CreateOptions::default() };
    Pool::create(&path, &options).unwrap().close().unwrap();
    let pool = Pool::open(&path, &OpenOptions { driver, ..OpenOptions::default() }).unwrap();
    pool.create_volume("vm", VOLUME_BYTES, &[]).unwrap();
    let handles = Arc::new(Handles::default());
    let export = pool.open_export("vm", true).unwrap();
    assert_eq!(handles.add_file(crate::handles::File { export, ino: 2 }), 1);
    let (kernel, device) = sys::message_pair().unwrap();
    let device = File::from(device);
    sys::set_nonblocking(&device).unwrap();
    let (to_others, others) = channel();
    let (to_home, home) = channel();
    let buffers = pool.buffers();
    let new_body = Box::new(move || buffers.for_bytes(TRANSFER_MAX_BYTES));
    let device = Device::new(device, handles, to_others, to_home, new_body);
    (Rig { _dir: dir, pool, kernel, others, home }, device)
}

impl Rig {
    fn send(&self, code: u32, unique: u64, offset: u64, len: u32, data: &[u8]) {
        (&self.kernel).write_all(&request(code, unique, offset, len, data)).unwrap();
    }

    /// The number, the error and the data of the next answer.
    fn answer(&self) -> (u64, i32, Vec<u8>) {
        let mut bytes = vec![0; 64 << 10];
        let len = (&self.kernel).read(&mut bytes).unwrap();
        assert_eq!(bytes[..4], (len as u32).to_ne_bytes(), "the length is in the answer");
        let error = i32::from_ne_bytes(*bytes[4..].first_chunk().unwrap());
        let unique = u64::from_ne_bytes(*bytes[8..].first_chunk().unwrap());
        (unique, error, bytes[16..len].to_vec())
    }
}

/// What comes together is taken together, a portion in each turn of the reactor.
#[test]
fn requests_that_come_together_are_taken_in_portions() {
    let (rig, mut device) = rig();
    for unique in 0..16 {
        rig.send(WRITE, unique, unique * 4096, 4096, &[unique as u8 + 1; 4096]);
    }
    for _ in 0..16 / BATCH {
        assert_eq!(device.take(), Taken::Some);
    }
    assert_eq!(device.take(), Taken::All);
    let mut answered: Vec<u64> = (0..16)
        .map(|_| {
            let (unique, error, data) = rig.answer();
            assert_eq!((error, &data[..4]), (0, &4096u32.to_ne_bytes()[..]));
            unique
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (0..16).collect::<Vec<_>>());
    let volume = rig.pool.volume("vm").unwrap();
    let mut buf = [0; 4096];
    for unique in 0..16u64 {
        volume.read_at(&mut buf, unique * 4096).unwrap();
        assert!(buf.iter().all(|&byte| byte == unique as u8 + 1));
    }
}

#[test]
fn reads_end_where_the_volume_does_and_what_is_wrong_is_refused() {
    let (rig, mut device) = rig();
    rig.send(READ, 1, VOLUME_BYTES - 512, 4096, &[]);
    device.take();
    assert_eq!(rig.answer(), (1, 0, vec![0; 512]));
    rig.send(READ, 2, VOLUME_BYTES, 4096, &[]);
    device.take();
    assert_eq!(rig.answer(), (2, 0, vec![]));
    rig.send(WRITE, 3, VOLUME_BYTES, 3, b"abc");
    device.take();
    assert_eq!(rig.answer(), (3, -libc::EFBIG, vec![]));
    rig.send(WRITE, 4, 0, 4, b"abc");
    device.take();
    assert_eq!(rig.answer(), (4, -libc::EIO, vec![]), "less data than it says");
    rig.send(WRITE, 5, 0, 0, &[]);
    device.take();
    assert_eq!(rig.answer().1, 0);
    let mut unknown = request(READ, 6, 0, 4096, &[]);
    unknown[40..48].copy_from_slice(&77u64.to_ne_bytes());
    (&rig.kernel).write_all(&unknown).unwrap();
    device.take();
    assert_eq!(rig.answer(), (6, -libc::EBADF, vec![]));
}

#[test]
fn a_long_write_arrives_as_it_was() {
    let (rig, mut device) = rig();
    // As long as the socket takes in one message.
    let data: Vec<u8> = (0..100_000u32).map(|at| at as u8).collect();
    rig.send(WRITE, 1, 777, data.len() as u32, &data);
    device.take();
    assert_eq!(rig.answer().1, 0);
    rig.send(FSYNC, 2, 0, 0, &[]);
    device.take();
    assert_eq!(rig.answer(), (2, 0, vec![]));
    let mut found = vec![0; data.len()];
    rig.pool.volume("vm").unwrap().read_at(&mut found, 777).unwrap();
    assert!(found == data);
}

/// Byte for byte, also what crosses from the head to the body of what was read.
#[test]
fn other_requests_are_passed_on() {
    let (rig, mut device) = rig();
    let sent = request(1, 9, 3, 4, &[5; 200]);
    (&rig.kernel).write_all(&sent).unwrap();
    device.take();
    assert_eq!(rig.others.try_recv().unwrap(), sent);
    drop(rig.others);
    (&rig.kernel).write_all(&sent).unwrap();
    device.take();
    let mut bytes = [0; 64];
    assert_eq!((&rig.kernel).read(&mut bytes).unwrap(), wire::ANSWER_BYTES, "nobody is there");
}

/// The reactor reads by itself, and a device outlives its pool: it then answers with errors.
#[test]
fn the_reactor_serves_it_until_the_pool_ends() {
    let (rig, device) = rig();
    rig.pool.serve(Box::new(device));
    for unique in 0..100 {
        rig.send(READ, unique, unique * 4096, 4096, &[]);
        assert_eq!(rig.answer(), (unique, 0, vec![0; 4096]));
        // Now and then it sleeps before the next one.
        if unique % 10 == 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
    rig.pool.shutdown().unwrap();
    let mut device = rig.home.recv().unwrap();
    assert!(!device.has_ended);
    rig.send(READ, 7, 0, 4096, &[]);
    device.wait().unwrap();
    device.take();
    let (unique, error, _) = rig.answer();
    assert!(unique == 7 && error < 0, "{error}");
}

/// Without io_uring nobody but the mount's own thread can read, and it does.
#[test]
fn a_reactor_that_cannot_watch_gives_it_back() {
    let (rig, device) = rig_with(DriverChoice::Threads);
    rig.pool.serve(Box::new(device));
    let mut device = rig.home.recv().unwrap();
    assert!(!device.has_ended);
    rig.send(READ, 1, 0, 4096, &[]);
    device.wait().unwrap();
    assert_eq!(device.take(), Taken::All);
    assert_eq!(rig.answer(), (1, 0, vec![0; 4096]));
}

/// The reactor's answers are not written one by one.
#[test]
fn answers_are_collected_for_the_reactor() {
    let (rig, mut device) = rig();
    let mut messages = Vec::new();
    device.answers(&mut messages);
    assert!(messages.is_empty());
    for unique in 0..5 {
        // Beyond the end, so that they are answered at once.
        rig.send(READ, unique, VOLUME_BYTES, 4096, &[]);
    }
    device.take();
    device.answers(&mut messages);
    assert_eq!(messages.len(), 5);
    // What nobody has collected is not lost.
    rig.send(READ, 7, VOLUME_BYTES, 4096, &[]);
    device.take();
    Box::new(device).leave();
    assert_eq!(rig.answer(), (7, 0, vec![]));
}
