//! The offline checker over a simulated disk: I1 to I4 after every recovery.

use crate::disk::SimDisk;
use cow_check::{Blocks, Options, ReadError, Severity, Structure};
use cow_format::{Buf, Phys};

/// A disk as the offline checker reads it.
pub struct View<'a>(pub &'a SimDisk);

impl Blocks for View<'_> {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        let mut buf = Buf::zeroed(blocks);
        for i in 0..blocks {
            buf.block_mut(i).copy_from_slice(&self.0.peek(at.0 + i as u64));
        }
        Ok(buf)
    }

    fn block_count(&self) -> u64 {
        self.0.blocks()
    }
}

/// Checks the newest checkpoint on `disk` and the journal after it, as a reader sees them now.
/// A disk that was damaged on purpose is not checked.
///
/// # Errors
/// The first corruption.
pub fn check_disk(disk: &SimDisk) -> Result<(), String> {
    if disk.is_damaged() {
        return Ok(());
    }
    let report = cow_check::check(&mut View(disk), &Options::default())
        .map_err(|error| format!("the pool cannot be checked: {error}"))?;
    // A checkpoint or superblock that was torn while it was written may differ from a whole one in
    // a single byte, which is what damage looks like; recovery has passed over it.
    let torn = |kind| matches!(kind, Structure::Checkpoint | Structure::Superblock);
    let mut corrupt = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
    match corrupt.find(|f| !torn(f.kind)) {
        Some(finding) => Err(format!("check: {finding:?}")),
        None => Ok(()),
    }
}

/// Has the checker read a disk that may be damaged, whatever it says of it.
///
/// # Errors
/// Never; that it comes to its end is what is asked for.
pub fn survey(disk: &SimDisk) -> Result<(), String> {
    drop(cow_check::check(&mut View(disk), &Options::default()));
    Ok(())
}
