//! Carries out a plan.

use super::{Plan, RepairError};
use crate::blocks::Blocks;
use crate::repair::overlay::{Page, TRIES};
use cow_format::mapnode::{MapNode, NodePlace};
use cow_format::{BLOCK_SIZE, Buf, Phys, mutant};
use std::collections::BTreeMap;

/// Blocks that are written at once.
const MAX_RUN: usize = 256;

/// An image that can be written to.
pub trait BlocksMut: Blocks {
    /// Writes whole blocks from `at` on.
    ///
    /// # Errors
    /// When the device refuses; what stands there is then not known.
    fn write(&mut self, at: Phys, buf: &Buf) -> Result<(), WriteError>;

    /// Returns when everything that was written before is durable.
    ///
    /// # Errors
    /// When that is not so. Nothing may be written after that.
    fn flush(&mut self) -> Result<(), WriteError>;
}

/// A write or flush that failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct WriteError {
    /// What the system said.
    pub cause: String,
}

/// Writes what the plan says, in an order in which a crash leaves the pool as it was or repaired. Nobody may
/// have written to the pool since the plan was made. Whatever the plan is, what could be read when it was made is
/// durable afterwards.
///
/// # Errors
/// `ReadsAgain`, before anything is written, when damage was none; `Write` when the device refuses.
pub fn apply(plan: &Plan, device: &mut dyn BlocksMut) -> Result<(), RepairError> {
    for place in &plan.believed {
        if reads(device, place) && !mutant::is("noagain") {
            return Err(RepairError::ReadsAgain { block: place.phys.0 });
        }
    }
    // What a killed process wrote last may be in a cache only: the checkpoint that is built upon, or that of a
    // repair, after which there is nothing left to be done.
    let is_loose = match plan.is_empty() {
        true => mutant::is("cleanloose"),
        false => mutant::is("builtloose"),
    };
    if !is_loose {
        flush(device)?;
    }
    if !plan.copies.is_empty() {
        write_pages(device, &plan.copies, "write of a superblock copy or checkpoint area")?;
        flush(device)?;
    }
    let Some((at, checkpoint)) = &plan.checkpoint else { return Ok(()) };
    write_pages(device, &plan.body, "write of metadata")?;
    if !mutant::is("newloose") {
        flush(device)?;
    }
    write(device, *at, checkpoint, "write of the checkpoint")?;
    flush(device)
}

/// Whether a map node that was taken to be damaged is what it should be after all.
fn reads(device: &mut dyn BlocksMut, place: &NodePlace) -> bool {
    let good = |buf: &Buf| MapNode::decode(buf, place).is_ok();
    place.phys.0 < device.block_count()
        && (0..TRIES).any(|_| device.read(place.phys, 1).is_ok_and(|buf| good(&buf)))
}

fn write_pages(
    device: &mut dyn BlocksMut,
    pages: &BTreeMap<u64, Page>,
    op: &'static str,
) -> Result<(), RepairError> {
    let pages: Vec<(&u64, &Page)> = pages.iter().collect();
    let next = |a: &(&u64, &Page), b: &(&u64, &Page)| *a.0 + 1 == *b.0;
    for run in pages.chunk_by(next).flat_map(|run| run.chunks(MAX_RUN)) {
        let Some((first, _)) = run.first() else { continue };
        let mut buf = Buf::zeroed(run.len());
        for (bytes, (_, page)) in buf.chunks_exact_mut(BLOCK_SIZE).zip(run) {
            bytes.copy_from_slice(&page[..]);
        }
        write(device, Phys(**first), &buf, op)?;
    }
    Ok(())
}

fn write(
    device: &mut dyn BlocksMut,
    at: Phys,
    buf: &Buf,
    op: &'static str,
) -> Result<(), RepairError> {
    device.write(at, buf).map_err(|error| RepairError::Write { op, cause: error.cause })
}

fn flush(device: &mut dyn BlocksMut) -> Result<(), RepairError> {
    let op = "flush of a repair";
    device.flush().map_err(|error| RepairError::Write { op, cause: error.cause })
}
