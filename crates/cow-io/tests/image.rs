//! Opening, locking and creating images, and their synchronous helpers.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use common::{BLOCK, new_image, pattern};
use cow_format::{Buf, BufSlice};
use cow_io::{
    CreateOptions, DirectMode, DriverChoice, DriverOptions, Image, ImageError, OpKind, OpenOptions,
    open_driver,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn open(path: &Path, read_only: bool) -> Result<Image, ImageError> {
    Image::open(path, &OpenOptions { read_only, ..Default::default() })
}

fn assert_busy(result: Result<Image, ImageError>) {
    match result {
        Err(error @ ImageError::Busy { .. }) => assert!(error.to_string().contains("in use")),
        other => panic!("expected it to be busy: {other:?}"),
    }
}

#[test]
fn one_writer_or_many_readers() {
    let (_dir, path, writer) = new_image(16);
    assert_busy(open(&path, false));
    assert_busy(open(&path, true));
    assert_busy(Image::create(&path, BLOCK, &CreateOptions { force: true, ..Default::default() }));
    assert_eq!(fs::metadata(&path).unwrap().len(), 16 * BLOCK, "refused before it was touched");
    drop(writer);
    let readers = [open(&path, true).unwrap(), open(&path, true).unwrap()];
    assert!(readers.iter().all(Image::is_read_only));
    assert_busy(open(&path, false));
    drop(readers);
    open(&path, false).unwrap();
}

#[test]
fn a_driver_keeps_the_lock() {
    for choice in [DriverChoice::Uring, DriverChoice::Threads] {
        let (_dir, path, image) = new_image(16);
        let driver = open_driver(image, choice, &DriverOptions::default()).unwrap();
        assert_busy(open(&path, false));
        drop(driver);
        open(&path, false).unwrap();
    }
}

/// A child process has all that was open at its fork. That must not keep the image locked.
#[test]
fn a_forked_child_does_not_keep_the_lock() {
    let (_dir, path, image) = new_image(16);
    // SAFETY: the child calls nothing but sleep and _exit, which a fork among threads allows.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::sleep(30);
            libc::_exit(0);
        }
    }
    assert!(child > 0);
    drop(image);
    let result = open(&path, false);
    // SAFETY: the child is ours, and not waited for yet.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    result.unwrap();
}

#[test]
fn only_files_and_devices_are_images() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(status.success());
    for (path, what) in
        [(dir.path(), "directory"), (&pipe, "pipe"), (Path::new("/dev/null"), "character")]
    {
        let error = open(path, true).unwrap_err();
        assert!(matches!(error, ImageError::NotAnImage { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    let error = open(&dir.path().join("nothing"), false).unwrap_err();
    assert!(matches!(error, ImageError::Io { action: "open", .. }), "{error}");
}

#[test]
fn create_makes_a_private_sparse_file_of_zeros() {
    let (_dir, path, image) = new_image(1000);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.len(), image.size_bytes()), (1000 * BLOCK, 1000 * BLOCK));
    assert_eq!(meta.permissions().mode() & 0o777, 0o600);
    assert!(meta.blocks() < 64);
    assert_eq!(image.path(), path);
    assert!(!image.is_block_device() && !image.is_read_only());
    let mut buf = pattern(1, 4);
    image.read_at(996 * BLOCK, &mut buf).unwrap();
    assert!(buf.iter().all(|&byte| byte == 0));
}

#[test]
fn create_can_preallocate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let options = CreateOptions { preallocate: true, ..Default::default() };
    Image::create(&path, 1 << 20, &options).unwrap();
    let meta = fs::metadata(&path).unwrap();
    assert!(meta.len() == 1 << 20 && meta.blocks() * 512 >= 1 << 20);
}

#[test]
fn create_refuses_what_is_not_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let options = CreateOptions::default();
    let mut ext4 = vec![0; 4096];
    ext4[1080..1082].copy_from_slice(&[0x53, 0xef]);
    for (bytes, word) in [(vec![0; 1], "1 bytes"), (ext4, "ext4"), (vec![7; 9000], "9000 bytes")] {
        fs::write(&path, &bytes).unwrap();
        let error = Image::create(&path, 1 << 20, &options).unwrap_err();
        assert!(matches!(error, ImageError::NotEmpty { .. }), "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "what was refused is untouched");
    }
    let force = CreateOptions { force: true, ..Default::default() };
    Image::create(&path, 1 << 20, &force).unwrap();
    assert!(fs::read(&path).unwrap().iter().all(|&byte| byte == 0));
    fs::write(&path, b"").unwrap();
    Image::create(&path, 1 << 20, &options).unwrap();
}

#[test]
fn a_failed_create_leaves_no_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    // Longer than any file may be.
    let error = Image::create(&path, u64::MAX, &CreateOptions::default()).unwrap_err();
    assert!(matches!(error, ImageError::Io { .. }), "{error}");
    assert!(!path.exists());
    fs::write(&path, b"").unwrap();
    Image::create(&path, u64::MAX, &CreateOptions::default()).unwrap_err();
    assert!(path.exists(), "this one was not ours");
}

#[test]
fn direct_io_is_chosen_and_turned_off() {
    let (_dir, path, image) = new_image(16);
    // Where the temporary directory cannot do it, a note must say why.
    assert_eq!(image.is_direct(), image.io_notes().is_empty(), "{:?}", image.io_notes());
    let direct = image.is_direct();
    drop(image);
    let off = OpenOptions { direct: DirectMode::Off, ..Default::default() };
    let image = Image::open(&path, &off).unwrap();
    assert!(!image.is_direct() && image.io_notes().is_empty());
    drop(image);
    let on = OpenOptions { direct: DirectMode::On, ..Default::default() };
    match Image::open(&path, &on) {
        Ok(image) => assert!(direct && image.is_direct()),
        Err(error) => assert!(!direct && matches!(error, ImageError::NoDirectIo { .. })),
    }
}

#[test]
fn synchronous_helpers() {
    for direct in [DirectMode::Auto, DirectMode::Off] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let options = CreateOptions { direct, ..Default::default() };
        let image = Image::create(&path, 2000 * BLOCK, &options).unwrap();
        let data = pattern(1, 1000);
        image.write_at(500 * BLOCK, &BufSlice::whole(data.clone())).unwrap();
        image.sync().unwrap();
        let mut back = Buf::zeroed(1000);
        image.read_at(500 * BLOCK, &mut back).unwrap();
        assert_eq!(back[..], data[..]);
        // More than one chunk, and no multiple of one.
        image.zero_range(600 * BLOCK, 700 * BLOCK).unwrap();
        image.sync().unwrap();
        image.read_at(500 * BLOCK, &mut back).unwrap();
        let kept = 100 * BLOCK as usize;
        assert_eq!(back[..kept], data[..kept]);
        assert!(back[kept..kept + 700 * BLOCK as usize].iter().all(|&byte| byte == 0));
        assert_eq!(back[800 * BLOCK as usize..], data[800 * BLOCK as usize..]);
        // The zeros must be real ones.
        let used = fs::metadata(&path).unwrap().blocks() * 512;
        assert!(used >= 1000 * BLOCK, "{used}");
        image.drop_page_cache().unwrap();
        image.read_at(500 * BLOCK, &mut back).unwrap();
        assert_eq!(back[..kept], data[..kept]);
    }
}

#[test]
fn synchronous_helpers_fail_as_errors() {
    let (_dir, path, image) = new_image(16);
    let mut buf = Buf::zeroed(2);
    assert!(image.read_at(15 * BLOCK, &mut buf).unwrap_err().is_end_of_image());
    assert_eq!(buf.block_count(), 2, "the buffer is the caller's again");
    assert_eq!(image.read_at(1, &mut buf).unwrap_err().errno, libc::EINVAL);
    assert_eq!(image.zero_range(0, 5).unwrap_err().errno, libc::EINVAL);
    drop(image);
    let image = open(&path, true).unwrap();
    let error = image.write_at(0, &BufSlice::whole(buf)).unwrap_err();
    assert_eq!((error.op, error.errno), (OpKind::Write, libc::EBADF));
    let error = image.zero_range(0, BLOCK).unwrap_err();
    assert_eq!((error.op, error.errno), (OpKind::Write, libc::EBADF));
    image.drop_page_cache().unwrap();
}

/// With buffered I/O the page cache must really be dropped.
#[test]
fn dropping_the_page_cache_empties_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    let options = CreateOptions { direct: DirectMode::Off, ..Default::default() };
    let image = Image::create(&path, 256 * BLOCK, &options).unwrap();
    image.write_at(0, &BufSlice::whole(pattern(1, 256))).unwrap();
    assert_eq!(cached_pages(&path), 256);
    image.drop_page_cache().unwrap();
    let left = cached_pages(&path);
    if left == 256 {
        eprintln!("skipped: the temporary directory is in memory");
        return;
    }
    assert_eq!(left, 0);
}

fn cached_pages(path: &Path) -> usize {
    use std::os::fd::AsRawFd;
    let file = fs::File::open(path).unwrap();
    let len = file.metadata().unwrap().len() as usize;
    let mut pages = vec![0u8; len.div_ceil(BLOCK as usize)];
    // SAFETY: a fresh mapping that is unmapped again and never read; `pages` has a byte per page.
    unsafe {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        let at = libc::mmap(std::ptr::null_mut(), len, prot, flags, file.as_raw_fd(), 0);
        assert_ne!(at, libc::MAP_FAILED);
        assert_eq!(libc::mincore(at, len, pages.as_mut_ptr()), 0);
        libc::munmap(at, len);
    }
    pages.iter().filter(|&&page| page & 1 == 1).count()
}

/// Whether the kernel gives us a ring, found out without the crate's own code.
fn kernel_has_rings() -> bool {
    let mut params = [0u8; 120];
    // SAFETY: io_uring_params has 120 bytes; the descriptor that comes of it is closed.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr());
        fd >= 0 && libc::close(fd as i32) == 0
    }
}

#[test]
fn auto_takes_io_uring_where_there_is_one() {
    let (_dir, _, image) = new_image(16);
    let driver = open_driver(image, DriverChoice::Auto, &DriverOptions::default()).unwrap();
    if kernel_has_rings() {
        assert_eq!((driver.name(), driver.fallback_reason()), ("io_uring", None));
    } else {
        assert_eq!(driver.name(), "threads");
        assert!(driver.fallback_reason().is_some_and(|reason| !reason.is_empty()));
    }
}
