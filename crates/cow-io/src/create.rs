//! Making a new image, without destroying what somebody may still want.

use crate::direct::{DirectMode, Opened};
use crate::error::ImageError;
use crate::image::Image;
use crate::sys;
use cow_format::{BLOCK_SIZE, Buf};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much of a device is searched for data: at its beginning, and at its end, where RAID and
/// partition tables keep copies.
const HEAD_BYTES: u64 = 1 << 20;
const TAIL_BYTES: u64 = 64 << 10;

/// How to create an image.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// Has the file system reserve all the space now.
    pub preallocate: bool,
    /// Goes over what is there.
    pub force: bool,
    /// Whether to bypass the page cache.
    pub direct: DirectMode,
}

impl Image {
    /// Creates an image of `size` bytes at `path`, or takes the file or block device there, and
    /// leaves it open for writing. A new file is readable by its owner only. A file is all
    /// zeros afterwards, and durably so; a device is left as it is.
    ///
    /// # Errors
    /// [`ImageError::NotEmpty`] when there is something already and `force` is not set;
    /// [`ImageError::TooSmall`] when the device does not hold `size` bytes.
    pub fn create(
        path: impl AsRef<Path>,
        size: u64,
        options: &CreateOptions,
    ) -> Result<Self, ImageError> {
        let path = path.as_ref();
        let is_new = make_file(path)?;
        let result = prepare(path, size, options, is_new);
        if is_new && result.is_err() {
            // Ours, and of no use to anybody. The first error is the one that matters.
            let _ = fs::remove_file(path);
        }
        result
    }
}

/// Creates an empty file unless there is something at `path`.
fn make_file(path: &Path) -> Result<bool, ImageError> {
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(ImageError::Io { path: path.into(), action: "create", source }),
    }
}

fn prepare(
    path: &Path,
    size: u64,
    options: &CreateOptions,
    is_new: bool,
) -> Result<Image, ImageError> {
    let mut opened = Opened::new(path, false, options.direct)?;
    if !options.force {
        refuse_data(&opened)?;
    }
    if opened.is_block_device {
        let (size_bytes, path) = (opened.size()?, opened.path.clone());
        if size_bytes < size {
            return Err(ImageError::TooSmall { path, size_bytes, wanted_bytes: size });
        }
        return Image::from_opened(opened);
    }
    opened.file.set_len(0).map_err(|e| opened.error("empty", e))?;
    opened.file.set_len(size).map_err(|e| opened.error("set the size", e))?;
    opened.settle()?;
    let mut fill = false;
    if options.preallocate && size > 0 {
        match sys::fallocate(&opened.file, 0, 0, size) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => fill = true,
            result => result.map_err(|e| opened.error("allocate", e))?,
        }
    }
    let image = Image::from_opened(opened)?;
    if fill {
        let whole_blocks = size / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let result = image.zero_range(0, whole_blocks);
        result.map_err(|e| failed(path, "allocate", e.into()))?;
    }
    image.file().sync_all().map_err(|e| failed(path, "sync", e))?;
    if is_new {
        sync_parent(path).map_err(|e| failed(path, "sync the directory of", e))?;
    }
    Ok(image)
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> ImageError {
    ImageError::Io { path: path.into(), action, source }
}

/// Makes the name durable, too.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    match File::open(parent.unwrap_or(Path::new(".")))?.sync_all() {
        // Some file systems cannot sync a directory.
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        result => result,
    }
}

fn refuse_data(opened: &Opened) -> Result<(), ImageError> {
    let found = find_data(opened).map_err(|e| opened.error("look for data", e))?;
    match found {
        Some(found) => Err(ImageError::NotEmpty { path: PathBuf::from(&opened.path), found }),
        None => Ok(()),
    }
}

/// Says what is there, if anything is.
fn find_data(opened: &Opened) -> io::Result<Option<String>> {
    let size = opened.size().map_err(io::Error::other)?;
    let head = read_some(&opened.file, 0, HEAD_BYTES)?;
    if !opened.is_block_device {
        let kind = known_kind(&head).map_or(String::new(), |kind| format!(", {kind}"));
        return Ok((size > 0).then(|| format!("a file of {size} bytes{kind}")));
    }
    if let Some(at) = head.iter().position(|&byte| byte != 0) {
        let fallback = format!("data at byte {at}");
        return Ok(Some(known_kind(&head).map_or(fallback, str::to_owned)));
    }
    let from = size.saturating_sub(TAIL_BYTES) / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
    let tail = read_some(&opened.file, from, size - from)?;
    let at = tail.iter().position(|&byte| byte != 0);
    Ok(at.map(|at| format!("data at byte {}", from + at as u64)))
}

/// Reads from an aligned offset up to `len` bytes, or to the end; the rest is zeros.
fn read_some(file: &File, offset: u64, len: u64) -> io::Result<Buf> {
    let mut buf = Buf::zeroed((len as usize).div_ceil(BLOCK_SIZE));
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(count) => {
                done += count;
                if count == 0 || count % BLOCK_SIZE != 0 {
                    break;
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(buf)
}

/// What the first megabyte of something looks like.
fn known_kind(head: &[u8]) -> Option<&'static str> {
    const KINDS: &[(usize, &[u8], &str)] = &[
        (0, b"XFSB", "an XFS file system"),
        (0, b"LUKS\xba\xbe", "a LUKS volume"),
        (0, b"QFI\xfb", "a qcow2 image"),
        (512, b"EFI PART", "a GPT partition table"),
        (512, b"LABELONE", "an LVM physical volume"),
        (1080, &[0x53, 0xef], "an ext2, ext3 or ext4 file system"),
        (4086, b"SWAPSPACE2", "swap space"),
        (65600, b"_BHRfS_M", "a btrfs file system"),
        (510, &[0x55, 0xaa], "a partition table or boot sector"),
    ];
    let matches = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    KINDS.iter().find(|(at, magic, _)| matches(*at, magic)).map(|(_, _, name)| *name)
}
