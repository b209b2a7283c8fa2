//! The repair of a pool that somebody has forged. It is refused, or it leaves nothing to be repaired; and
//! what could be read before reads the same after it: what it says is lost could not be read any more.

use crate::checked::View;
use crate::disk::SimDisk;
use crate::world::World;
use cow_check::repair::{BlocksMut, WriteError, apply, plan};
use cow_check::{Blocks, Options, ReadError, Report, Severity, Structure};
use cow_engine::{Config, Engine, ExportId, Op, Reply};
use cow_format::{BLOCK_SIZE, Buf, Phys};
use std::collections::BTreeMap;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Volumes and snapshots that are compared, and blocks of each.
const NODES: usize = 24;
const BLOCKS: usize = 256;
/// Blocks that are read at once.
const RUN: u64 = 16;

/// A disk that repair writes to. Each write is durable at once: crashes are for other tests.
struct Target(SimDisk);

impl Blocks for Target {
    fn read(&mut self, at: Phys, blocks: usize) -> Result<Buf, ReadError> {
        View(&self.0).read(at, blocks)
    }

    fn block_count(&self) -> u64 {
        self.0.blocks()
    }
}

impl BlocksMut for Target {
    fn write(&mut self, at: Phys, buf: &Buf) -> Result<(), WriteError> {
        for (block, bytes) in (at.0..).zip(buf.chunks_exact(BLOCK_SIZE)) {
            if block >= self.0.blocks() {
                return Err(WriteError { cause: format!("block {block} is behind the end") });
            }
            let mut page = [0; BLOCK_SIZE];
            page.copy_from_slice(bytes);
            self.0.poke(block, page);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        Ok(())
    }
}

/// What a client reads: a checksum of each block of each volume and snapshot, `None` for an error.
type Seen = BTreeMap<(String, u64), Option<u64>>;

/// Repairs a copy of `disk`, if that is not refused; the copy, if anything was written.
///
/// # Errors
/// When the repair leaves something to be repaired, or changes what is read.
pub fn mend(disk: &SimDisk, config: &Config, seed: u64) -> Result<Option<SimDisk>, String> {
    let options = Options { max_findings: 50, ..Options::default() };
    let Ok(found) = plan(&mut View(disk), &options) else { return Ok(None) };
    if found.is_empty() {
        return Ok(None);
    }
    let mut target = Target(disk.fork_durable());
    apply(&found, &mut target).map_err(|error| format!("the repair: {error}"))?;
    let mended = target.0;
    let after = cow_check::check(&mut View(&mended), &options)
        .map_err(|error| format!("check after the repair {:?}: {error}", found.actions))?;
    if let Some(text) = unsettled(&after) {
        return Err(format!("after the repair {:?}: {text}", found.actions));
    }
    match plan(&mut View(&mended), &options) {
        Ok(again) if again.is_empty() => {}
        Ok(again) => return Err(format!("a second repair does {:?}", again.actions)),
        Err(error) => return Err(format!("a second repair: {error}")),
    }
    if let Some(before) = seen(disk, config, seed)? {
        let after = seen(&mended, config, seed)?
            .ok_or_else(|| format!("does not open after {:?}", found.actions))?;
        compare(&before, &after)
            .map_err(|text| format!("{text} after {:?}, lost {:?}", found.actions, found.lost))?;
    }
    Ok(Some(mended))
}

/// The first finding that a repair must not leave.
fn unsettled(report: &Report) -> Option<String> {
    let is_settled = |kind| matches!(kind, Structure::Data | Structure::KnownDamage);
    let kind = report.by_kind.keys().find(|kind| !is_settled(**kind))?;
    let is_it = |f: &&cow_check::Finding| f.kind == *kind && f.severity == Severity::Corruption;
    Some(report.findings.iter().find(is_it).map_or_else(|| kind.to_string(), ToString::to_string))
}

/// The first block that could be read and reads otherwise now.
fn compare(before: &Seen, after: &Seen) -> Result<(), String> {
    for ((name, lba), was) in before.iter().filter(|(_, was)| was.is_some()) {
        let now = after.get(&(name.clone(), *lba)).copied().flatten();
        if now != *was {
            return Err(format!("{name}, lba {lba} read as {was:x?} and reads as {now:x?}"));
        }
    }
    Ok(())
}

/// What a reader sees; `None` where the pool does not open.
fn seen(disk: &SimDisk, config: &Config, seed: u64) -> Result<Option<Seen>, String> {
    let mut world = World::<Engine>::new(disk.fork_durable(), config, seed);
    if world.run_op(Op::Open { read_only: true })?.is_err() {
        return Ok(None);
    }
    let Ok(Reply::List(nodes)) = world.run_op(Op::List { exact: false })? else { return Ok(None) };
    let mut all = Seen::new();
    for node in nodes.iter().filter(|node| node.live).take(NODES) {
        let open = Op::OpenExport { name: node.name.clone(), write: false };
        if let Ok(Reply::Export { export, size_bytes, .. }) = world.run_op(open)? {
            read(&mut world, (&node.name, export), size_bytes, &mut all)?;
            world.run_op(Op::CloseExport { export })?.ok();
        }
    }
    world.run_op(Op::Close)?.ok();
    Ok(Some(all))
}

/// The mapped blocks, so many of them.
fn read(
    world: &mut World<Engine>,
    (name, export): (&str, ExportId),
    size: u64,
    all: &mut Seen,
) -> Result<(), String> {
    let (mut offset, mut rest) = (0, BLOCKS);
    while offset < size && rest > 0 {
        let found = world.run_op(Op::Extents { export, offset, len: size - offset })?;
        let Ok(Reply::Extents(extents)) = found else { return Ok(()) };
        for extent in extents {
            rest = rest.saturating_sub(1);
            let mapped =
                if extent.mapped { extent.len.min(RUN * BLOCK).min(size - offset) } else { 0 };
            for at in (offset..offset + mapped).step_by(BLOCK_SIZE) {
                rest = rest.saturating_sub(1);
                let len = BLOCK.min(size - at);
                let value = match world.run_op(Op::Read { export, offset: at, len })? {
                    Ok(Reply::Data { buf, skip }) => buf.get(skip..skip + len as usize).map(hash),
                    _ => None,
                };
                all.insert((name.to_owned(), at / BLOCK), value);
            }
            offset = offset.saturating_add(extent.len.max(512)).min(size);
        }
    }
    Ok(())
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hash = 0;
    for word in bytes.chunks(8) {
        let mut number = [0; 8];
        number[..word.len()].copy_from_slice(word);
        hash = crate::rng::mix(hash ^ u64::from_le_bytes(number));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::{Seen, compare};

    fn seen(value: Option<u64>) -> Seen {
        Seen::from([(("v".to_owned(), 7), value)])
    }

    #[test]
    fn what_could_be_read_must_read_the_same() {
        assert_eq!(compare(&seen(Some(1)), &seen(Some(1))), Ok(()));
        assert_eq!(compare(&seen(None), &seen(Some(1))), Ok(()));
        for after in [seen(Some(2)), seen(None), Seen::new()] {
            assert!(compare(&seen(Some(1)), &after).is_err(), "{after:?}");
        }
    }
}
