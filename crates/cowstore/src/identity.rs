//! Which pool a file holds, read without its lock.
//!
//! A pool that another process has open may have its superblock written at any moment, but only
//! the older of two sets: the newest valid copy is always whole.

use crate::error::{Error, os_error};
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_format::{BLOCK_SIZE, FormatError};
use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;

/// Who a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The identity in the superblock. A copy of a pool's file has the same one.
    pub uuid: [u8; 16],
    /// Names this very file or device among all that are open on this machine: the uuid and the
    /// device and inode numbers of the file (of a block device, its own number). A copy has
    /// another key, the same file under another name has not.
    pub key: String,
    /// Size of the pool in bytes when it was made.
    pub created_bytes: u64,
}

impl Identity {
    /// Reads the identity of the pool at `path`.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `Unsupported` when it is no pool or one of an
    /// unknown version, `Corrupt` when no copy of the superblock is whole.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let name = path.display();
        let metadata = fs::metadata(path).map_err(|e| os_error(path.display(), &e))?;
        let kind = metadata.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(Error::Unsupported(format!("{name}: not a file or block device")));
        }
        let file = File::open(path).map_err(|e| os_error(path.display(), &e))?;
        let superblock = newest(&file).map_err(|e| describe(path, e))?;
        Ok(Self {
            uuid: superblock.uuid,
            key: key(&superblock.uuid, &metadata),
            created_bytes: superblock.geometry.mkfs_blocks.saturating_mul(BLOCK_SIZE as u64),
        })
    }

    /// The uuid in its usual spelling.
    pub fn uuid_text(&self) -> String {
        format_uuid(&self.uuid)
    }
}

fn key(uuid: &[u8; 16], metadata: &Metadata) -> String {
    let uuid = format_uuid(uuid);
    if metadata.file_type().is_block_device() {
        return format!("{uuid}-b{:x}", metadata.rdev());
    }
    format!("{uuid}-{:x}.{:x}", metadata.dev(), metadata.ino())
}

/// The newest superblock that is whole, or what is wrong with the first copy that has something
/// to say.
fn newest(file: &File) -> Result<Superblock, FormatError> {
    let mut best: Option<Superblock> = None;
    let mut complaint: Option<FormatError> = None;
    for (copy, &at) in COPY_BLOCKS.iter().enumerate() {
        let mut block = vec![0; BLOCK_SIZE];
        if file.read_exact_at(&mut block, at * BLOCK_SIZE as u64).is_err() {
            continue;
        }
        match Superblock::decode(&block, copy) {
            Ok(found) if best.as_ref().is_none_or(|b| b.sequence < found.sequence) => {
                best = Some(found);
            }
            Ok(_) => {}
            Err(error) if weight(&error) > complaint.as_ref().map_or(-1, weight) => {
                complaint = Some(error);
            }
            Err(_) => {}
        }
    }
    let foreign = || FormatError::Magic { what: "superblock", at: cow_format::Phys(0) };
    best.ok_or_else(|| complaint.unwrap_or_else(foreign))
}

/// How much an error says: that a version is unknown explains more than that a copy is damaged,
/// and that more than that there is none.
fn weight(error: &FormatError) -> i32 {
    match error {
        FormatError::Magic { .. } => 0,
        _ if error.is_unknown() => 2,
        _ => 1,
    }
}

fn describe(path: &Path, error: FormatError) -> Error {
    let name = path.display();
    match error {
        FormatError::Magic { .. } => Error::Unsupported(format!("{name}: not a cowstore pool")),
        _ if error.is_unknown() => Error::Unsupported(format!("{name}: {error}")),
        other => Error::Corrupt(format!("{name}: no copy of the superblock is whole: {other}")),
    }
}

/// `8-4-4-4-12` hexadecimal digits.
pub(crate) fn format_uuid(uuid: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A random identity for a new pool, from the operating system.
pub(crate) fn random_uuid() -> Result<[u8; 16], Error> {
    use std::io::Read;
    let mut uuid = [0; 16];
    let source = "/dev/urandom";
    let mut file = File::open(source).map_err(|e| os_error(source, &e))?;
    file.read_exact(&mut uuid).map_err(|e| os_error(source, &e))?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
