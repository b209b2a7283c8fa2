//! Making a pool: the engine's plan, carried out on a new image.
//!
//! The superblocks come last, after a flush of everything else, and whatever superblocks were
//! there are wiped first: a pool that was only half made is none.

use crate::error::{Error, image_error, os_error};
use crate::identity::random_uuid;
use crate::options::CreateOptions;
use crate::reactor::wall_ns;
use cow_engine::SpaceKind;
use cow_engine::mkfs::{Mkfs, mkfs};
use cow_format::geometry::LayoutOptions;
use cow_format::superblock::COPY_BLOCKS;
use cow_format::{BLOCK_SIZE, Buf, BufSlice, Phys};
use cow_io::{Image, IoError};
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Creates a pool at `path`; leaves it locked.
pub(crate) fn create(path: &Path, options: &CreateOptions) -> Result<Image, Error> {
    let size = match options.size_bytes {
        Some(size) => size,
        None => device_bytes(path)?,
    };
    let blocks = size / BLOCK_SIZE as u64;
    let layout = LayoutOptions {
        blocks,
        journal_blocks: options.journal_bytes.map(|bytes| bytes / BLOCK_SIZE as u64),
        limit_blocks: options.limit_bytes.map(|bytes| bytes / BLOCK_SIZE as u64),
        max_chunks: None,
        preallocated: options.preallocate,
    };
    // Before anything is touched: what cannot be laid out leaves no file behind.
    let plan = mkfs(random_uuid()?, &layout, wall_ns())
        .map_err(|field| Error::Invalid(refusal(field, size)))?;
    let is_new = !path.try_exists().map_err(|e| os_error(path.display(), &e))?;
    let io_options = cow_io::CreateOptions {
        preallocate: options.preallocate,
        force: options.force,
        direct: options.open.direct,
    };
    let bytes = blocks * BLOCK_SIZE as u64;
    let image = Image::create(path, bytes, &io_options).map_err(image_error)?;
    let result = write_plan(&image, plan);
    if let Err(error) = result {
        if is_new {
            // Ours, and of no use to anybody. The first error is the one that matters.
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(image)
}

fn refusal(field: &str, size: u64) -> String {
    if field == "size" {
        return format!("a pool cannot have {size} bytes: it has 128 MiB to 4 PiB");
    }
    format!("a pool of {size} bytes cannot have this {field}")
}

/// The size of a block device.
fn device_bytes(path: &Path) -> Result<u64, Error> {
    let fail = |e| os_error(path.display(), &e);
    let is_device = fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
    if !is_device {
        return Err(Error::Invalid("a pool in a file needs a size".into()));
    }
    File::open(path).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(fail)
}

fn write_plan(image: &Image, plan: Mkfs) -> Result<(), Error> {
    for at in COPY_BLOCKS {
        write(image, Phys(at), Buf::zeroed(1))?;
    }
    image.sync().map_err(io_error)?;
    for (at, blocks) in plan.zero {
        image.zero_range(at.byte_offset(), blocks * BLOCK_SIZE as u64).map_err(io_error)?;
    }
    for (at, buf) in plan.writes {
        write(image, at, buf)?;
    }
    image.sync().map_err(io_error)?;
    for (at, buf) in plan.superblocks {
        write(image, at, buf)?;
    }
    image.sync().map_err(io_error)
}

fn write(image: &Image, at: Phys, buf: Buf) -> Result<(), Error> {
    image.write_at(at.byte_offset(), &BufSlice::whole(buf)).map_err(io_error)
}

fn io_error(error: IoError) -> Error {
    if error.is_no_space() {
        return Error::NoSpace(SpaceKind::Below);
    }
    Error::Io { errno: error.errno, op: error.op.name(), offset: error.offset }
}
