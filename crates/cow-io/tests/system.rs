//! What needs mounts and loop devices, and so root. Without it these tests are skipped, and
//! print why. Mounts are made in a mount namespace of the test's own thread and go with it.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{BLOCK, Reactor, Setup, pattern, read, write};
use cow_format::BufSlice;
use cow_io::{
    CreateOptions, DirectMode, DriverChoice, DriverOptions, Image, ImageError, IoOp, OpenOptions,
    open_driver,
};
use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

for_all_setups! {
    no_space_below_is_an_error_and_passes,
    a_block_device,
    a_memory_file_system_does_what_it_can,
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A directory with something mounted on it.
struct Mount {
    dir: TempDir,
}

impl Mount {
    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = CString::new(self.path().as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is terminated and lives across the call.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Mounts a file system of this kind where only this thread sees it.
fn mount(kind: &str, options: &str) -> Option<Mount> {
    let dir = tempfile::tempdir().unwrap();
    let [kind_c, options] = [kind, options].map(|s| CString::new(s).unwrap());
    let target = CString::new(dir.path().as_os_str().as_bytes()).unwrap();
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: all strings are terminated and live across the calls.
    let result = unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))
            .and_then(|()| {
                let root = c"/".as_ptr();
                check(libc::mount(
                    c"none".as_ptr(),
                    root,
                    std::ptr::null(),
                    private,
                    std::ptr::null(),
                ))
            })
            .and_then(|()| {
                let (source, kind) = (c"none".as_ptr(), kind_c.as_ptr());
                check(libc::mount(source, target.as_ptr(), kind, 0, options.as_ptr().cast()))
            })
    };
    match result {
        Ok(()) => Some(Mount { dir }),
        Err(error) => {
            eprintln!("skipped: cannot mount a {kind}: {error}");
            None
        }
    }
}

/// A loop device on a file, detached when dropped.
struct Loop {
    device: PathBuf,
    _dir: TempDir,
}

impl Loop {
    fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("backing");
        File::create(&backing).unwrap().set_len(bytes).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        match output {
            Ok(output) if output.status.success() => {
                let device = String::from_utf8(output.stdout).unwrap().trim().into();
                Some(Self { device, _dir: dir })
            }
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                eprintln!("skipped: no loop device: {reason}");
                None
            }
            Err(error) => {
                eprintln!("skipped: no losetup: {error}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("--detach").arg(&self.device).status();
        assert!(status.unwrap().success());
    }
}

/// A write that does not fit stops half-way, is taken up again, and then fails; once there is
/// room it succeeds.
fn no_space_below_is_an_error_and_passes(setup: Setup) {
    let Some(dir) = mount("tmpfs", "size=4m") else { return };
    let image = Image::create(dir.path().join("image"), 64 << 20, &CreateOptions::default());
    let image = image.unwrap();
    let mut reactor = Reactor::new(image.clone(), setup);
    let data = pattern(9, 2048);
    let error = reactor.run(write(0, &data)).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    let error = reactor.run(IoOp::Allocate { offset: 32 << 20, len: 8 << 20 }).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(image.zero_range(0, 8 << 20).unwrap_err().is_no_space());
    reactor.run(IoOp::Discard { offset: 0, len: 64 << 20 }).unwrap();
    reactor.run(write(0, &pattern(9, 512))).unwrap();
    assert_eq!(reactor.read(0, 512)[..], pattern(9, 512)[..]);
}

fn a_block_device(setup: Setup) {
    const BYTES: u64 = 16 << 20;
    let Some(device) = Loop::new(BYTES) else { return };
    let path = &device.device;
    let image = Image::create(path, BYTES, &CreateOptions::default()).unwrap();
    assert!(image.is_block_device() && image.is_direct(), "{:?}", image.io_notes());
    assert_eq!((image.size_bytes(), image.logical_block_bytes()), (BYTES, 512));
    for read_only in [false, true] {
        let options = OpenOptions { read_only, ..Default::default() };
        let error = Image::open(path, &options).unwrap_err();
        assert!(matches!(error, ImageError::Busy { .. }), "{error}");
    }
    let mut reactor = Reactor::new(image, setup);
    let data = pattern(1, 512);
    reactor.run(write(1 << 20, &data)).unwrap();
    reactor.run(IoOp::Flush).unwrap();
    assert_eq!(reactor.read(1 << 20, 512)[..], data[..]);
    // A loop device punches a hole for a discard.
    reactor.run(IoOp::Discard { offset: 1 << 20, len: 1 << 20 }).unwrap();
    assert!(reactor.read(1 << 20, 256).iter().all(|&byte| byte == 0));
    assert_eq!(reactor.read(2 << 20, 256)[..], data[1 << 20..]);
    reactor.run(IoOp::Allocate { offset: 0, len: BYTES }).unwrap();
    reactor.run(IoOp::Grow { len: BYTES }).unwrap();
    assert!(reactor.run(IoOp::Grow { len: BYTES + 1 }).unwrap_err().is_no_space());
    assert!(reactor.run(read(BYTES, 1)).unwrap_err().is_end_of_image());
    assert!(reactor.run(read(BYTES - BLOCK, 2)).unwrap_err().is_end_of_image());
    assert!(reactor.run(write(BYTES, &pattern(1, 1))).is_err());
    drop(reactor);
    // At once: neither the lock nor the kernel's claim may outlive the driver.
    Image::open(path, &OpenOptions::default()).unwrap();
    let options = OpenOptions { read_only: true, ..Default::default() };
    let readers = [Image::open(path, &options).unwrap(), Image::open(path, &options).unwrap()];
    let mut reactor = Reactor::new(readers[0].clone(), setup);
    assert_eq!(reactor.read(2 << 20, 256)[..], data[1 << 20..]);
    let discard = IoOp::Discard { offset: 0, len: BLOCK };
    assert_eq!(reactor.run(discard).unwrap_err().errno, libc::EBADF);
}

/// ramfs has neither direct I/O nor fallocate.
fn a_memory_file_system_does_what_it_can(setup: Setup) {
    let Some(dir) = mount("ramfs", "") else { return };
    let path = dir.path().join("image");
    let options = CreateOptions { preallocate: true, ..Default::default() };
    let image = Image::create(&path, 4 << 20, &options).unwrap();
    assert!(!image.is_direct());
    assert_eq!(image.io_notes().len(), 1, "{:?}", image.io_notes());
    assert!(image.io_notes()[0].contains("O_DIRECT"), "{:?}", image.io_notes());
    let mut reactor = Reactor::new(image, setup);
    reactor.run(write(0, &pattern(1, 1024))).unwrap();
    assert_eq!(reactor.read(0, 1024)[..], pattern(1, 1024)[..]);
    reactor.run(IoOp::Flush).unwrap();
    let error = reactor.run(IoOp::Discard { offset: 0, len: BLOCK }).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    drop(reactor);
    let on = OpenOptions { direct: DirectMode::On, ..Default::default() };
    let error = Image::open(&path, &on).unwrap_err();
    assert!(matches!(error, ImageError::NoDirectIo { .. }), "{error}");
}

fn refused(path: &Path, size: u64) -> ImageError {
    Image::create(path, size, &CreateOptions::default()).unwrap_err()
}

#[test]
fn create_looks_at_both_ends_of_a_device() {
    // The odd half kilobyte is an end that is no whole block.
    const BYTES: u64 = (8 << 20) + 512;
    let Some(device) = Loop::new(BYTES) else { return };
    let path = device.device.as_path();
    let error = refused(path, BYTES + 1);
    assert!(matches!(error, ImageError::TooSmall { size_bytes: BYTES, .. }), "{error}");
    for (at, is_found) in [
        (0, true),
        ((1 << 20) - 1, true),
        (1 << 20, false),
        (BYTES - (64 << 10) - BLOCK, false),
        (BYTES - (64 << 10), true),
        (BYTES - 1, true),
    ] {
        let raw = File::options().write(true).open(path).unwrap();
        raw.write_all_at(&[1], at).unwrap();
        raw.sync_all().unwrap();
        if is_found {
            let error = refused(path, BYTES);
            assert!(matches!(error, ImageError::NotEmpty { .. }), "{error}");
            assert!(error.to_string().ends_with(&format!("data at byte {at}")), "{error}");
            let force = CreateOptions { force: true, ..Default::default() };
            Image::create(path, BYTES, &force).unwrap();
        } else {
            Image::create(path, BYTES, &CreateOptions::default()).unwrap();
        }
        raw.write_all_at(&[0], at).unwrap();
        raw.sync_all().unwrap();
    }
    let status = Command::new("mkfs.ext4").arg("-q").arg(path).status();
    match status {
        Ok(status) if status.success() => {
            let error = refused(path, BYTES);
            assert!(error.to_string().contains("ext4"), "{error}");
        }
        other => eprintln!("skipped the file system on it: {other:?}"),
    }
}

/// A mounted device is not ours to write, whatever its lock says.
#[test]
fn a_mounted_device_is_busy() {
    let Some(device) = Loop::new(8 << 20) else { return };
    let made = Command::new("mkfs.ext4").arg("-q").arg(&device.device).status();
    let Some(dir) = mount("tmpfs", "size=1m") else { return };
    let mounted = Command::new("mount").arg(&device.device).arg(dir.path()).status();
    if !made.is_ok_and(|s| s.success()) || !mounted.is_ok_and(|s| s.success()) {
        eprintln!("skipped: no ext4 to mount");
        return;
    }
    let error = Image::open(&device.device, &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, ImageError::Busy { .. }), "{error}");
    let status = Command::new("umount").arg(dir.path()).status();
    assert!(status.unwrap().success());
    Image::open(&device.device, &OpenOptions::default()).unwrap();
}

/// udev holds a device's lock for moments; that is waited for.
#[test]
fn a_passing_lock_on_a_device_is_waited_for() {
    let Some(device) = Loop::new(1 << 20) else { return };
    let raw = File::open(&device.device).unwrap();
    raw.lock_shared().unwrap();
    let unlock = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(raw);
    });
    let image = Image::open(&device.device, &OpenOptions::default()).unwrap();
    image.write_at(0, &BufSlice::whole(pattern(1, 1))).unwrap();
    unlock.join().unwrap();
}

/// Where a ring is not permitted
/// the choice falls on threads, and the reason is kept.
#[test]
fn auto_falls_back_to_threads() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), [0; 4096]).unwrap();
    let image = Image::open(dir.path().join("image"), &OpenOptions::default()).unwrap();
    // A seccomp filter of this thread alone: io_uring_setup is not permitted.
    if let Err(error) = forbid(libc::SYS_io_uring_setup, None, libc::EPERM) {
        eprintln!("skipped: no seccomp: {error}");
        return;
    }
    let options = DriverOptions::default();
    let error = open_driver(image.clone(), DriverChoice::Uring, &options).err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
    let mut reactor = Reactor::of(open_driver(image, DriverChoice::Auto, &options).unwrap());
    assert_eq!(reactor.driver.name(), "threads");
    assert!(reactor.driver.fixed_transfers().is_none());
    let reason = reactor.driver.fallback_reason().unwrap();
    assert!(reason.contains("io_uring_setup"), "{reason}");
    assert_eq!(reactor.read(0, 1)[..], [0; 4096]);
}

/// Where memory cannot be registered, it is used unregistered, and the reason is kept.
#[test]
fn refused_registration_falls_back_to_plain_buffers() {
    const REGISTER_BUFFERS2: u32 = 15;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), [0; 1 << 20]).unwrap();
    let image = Image::open(dir.path().join("image"), &OpenOptions::default()).unwrap();
    let Some(unhindered) = fixed(&image) else { return };
    drop(unhindered);
    let opcode = Some(REGISTER_BUFFERS2);
    if let Err(error) = forbid(libc::SYS_io_uring_register, opcode, libc::ENOMEM) {
        eprintln!("skipped: no seccomp: {error}");
        return;
    }
    let options = DriverOptions::default();
    let driver = open_driver(image, DriverChoice::Uring, &options).unwrap();
    let reason = driver.fixed_refusal().unwrap();
    assert!(reason.contains("registering buffers: Cannot allocate memory"), "{reason}");
    assert!(driver.fixed_transfers().is_none());
    let mut reactor = Reactor::of(driver);
    reactor.buffers = Some(reactor.driver.buffers());
    reactor.run(write(0, &pattern(1, 200))).unwrap();
    assert_eq!(reactor.read(0, 200)[..], pattern(1, 200)[..]);
    assert_eq!(reactor.fixed(), 0);
}

/// Where only so much memory may be registered, that much is, and the rest goes without.
#[test]
fn registration_refused_later_leaves_what_there_is() {
    const REGISTER_BUFFERS_UPDATE: u32 = 16;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("image"), [0; 1 << 20]).unwrap();
    let image = Image::open(dir.path().join("image"), &OpenOptions::default()).unwrap();
    let Some(mut reactor) = fixed(&image) else { return };
    let opcode = Some(REGISTER_BUFFERS_UPDATE);
    if let Err(error) = forbid(libc::SYS_io_uring_register, opcode, libc::ENOMEM) {
        eprintln!("skipped: no seccomp: {error}");
        return;
    }
    reactor.run(write(0, &pattern(1, 200))).unwrap();
    assert_eq!(reactor.fixed(), 1);
    let held = reactor.driver.buffers().scratch(512 - 50);
    reactor.run(write(0, &pattern(2, 200))).unwrap();
    assert_eq!(reactor.read(0, 200)[..], pattern(2, 200)[..]);
    assert_eq!(reactor.fixed(), 1, "these lie in the second chunk");
    assert_eq!(reactor.read(0, 50)[..], pattern(2, 50)[..]);
    assert_eq!(reactor.fixed(), 2, "this has room in the first");
    drop(held);
    assert_eq!(reactor.read(0, 200)[..], pattern(2, 200)[..]);
    assert_eq!(reactor.fixed(), 3);
}

/// A driver with fixed buffers, or none where the kernel has no such thing.
fn fixed(image: &Image) -> Option<Reactor> {
    match open_driver(image.clone(), DriverChoice::Uring, &Setup::Fixed.options()) {
        Ok(driver) if driver.fixed_refusal().is_none() => Some(Reactor::of(driver)),
        Ok(driver) => {
            eprintln!("skipped: {:?}", driver.fixed_refusal());
            None
        }
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// Has the kernel refuse a system call of this thread with `errno`; only with `second` as its
/// second argument, if that is given.
fn forbid(call: libc::c_long, second: Option<u32>, errno: i32) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// Of `struct seccomp_data`, on a machine that is little-endian.
    const SECOND_ARGUMENT: u32 = 24;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD, 0, 0, 0),
        step(JUMP, call as u32, 0, 3),
        step(LOAD, SECOND_ARGUMENT, 0, 0),
        step(JUMP, second.unwrap_or_default(), 0, u8::from(second.is_some())),
        step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program and its filter live across the calls.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let mode = libc::SECCOMP_MODE_FILTER;
        check(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program))
    }
}
