//! The repair of a pool that somebody has forged. It is refused, or it leaves nothing to be repaired; and
//! what could be read before reads the same after it: what it says is lost could not be read any more.

use crate::checked::View;
use crate::disk::SimDisk;
use crate::world::World;
use cow_check::repair::{Action, BlocksMut, Lost, WriteError, apply, plan};
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
/// Bytes of a volume that a leaf maps.
const LEAF: u64 = 256 * BLOCK;

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

/// A pool that was repaired, and what the repair has told.
pub struct Mended {
    /// The pool.
    pub disk: SimDisk,
    /// What it calls lost.
    pub lost: Vec<Lost>,
}

/// Repairs a copy of `disk`, if that is not refused; the copy, if anything was written.
///
/// # Errors
/// When the repair leaves something to be repaired, or changes what is read.
pub fn mend(disk: &SimDisk, config: &Config, seed: u64) -> Result<Option<Mended>, String> {
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
    if let Some(mut before) = seen(disk, config, seed)? {
        // What the newest checkpoint still shows may be damaged in the one before: that is told.
        if found.actions.iter().any(|action| matches!(action, Action::GoBack { .. })) {
            let covers = |lost: &Lost, name: &str, lba: u64| {
                lost.name == name && (lost.lba..lost.lba + lost.blocks).contains(&lba)
            };
            before.retain(|(name, lba), _| !found.lost.iter().any(|lost| covers(lost, name, *lba)));
        }
        let told = |text| format!("{text} after {:?}, lost {:?}", found.actions, found.lost);
        let after = again(&mended, config, seed, &before).map_err(told)?;
        compare(&before, &after).map_err(told)?;
    }
    Ok(Some(Mended { disk: mended, lost: found.lost }))
}

/// What can be read of a pool, to be compared with it after damage and repair.
pub struct Whole(Seen);

impl Whole {
    /// Reads it.
    ///
    /// # Errors
    /// When that fails.
    pub fn of(disk: &SimDisk, config: &Config, seed: u64) -> Result<Self, String> {
        let seen = seen(disk, config, seed)?.ok_or("it does not open")?;
        Ok(Self(seen))
    }

    /// A repair has brought back all but exactly what it calls lost. This is not what [`mend`] compares: it
    /// sees that a loss is not told, and that a repair gives up what could not be read, but is known.
    ///
    /// # Errors
    /// The first block of which that is not so.
    pub fn is_back(&self, mended: &Mended, config: &Config, seed: u64) -> Result<(), String> {
        let now = again(&mended.disk, config, seed, &self.0)?;
        let all_but_lost = without(&self.0, &mended.lost);
        match all_but_lost.iter().find(|(place, was)| now.get(*place) != Some(*was)) {
            None => Ok(()),
            Some((place, was)) => {
                let now = now.get(place);
                Err(format!("{place:?} should be {was:x?} and is {now:x?}; lost {:?}", mended.lost))
            }
        }
    }
}

/// The same, with what is lost not to be read.
fn without(seen: &Seen, lost: &[Lost]) -> Seen {
    let is_lost = |(name, lba): &(String, u64)| {
        let covers =
            |lost: &Lost| lost.name == *name && (lost.lba..lost.lba + lost.blocks).contains(lba);
        lost.iter().any(covers)
    };
    seen.iter().map(|(place, was)| (place.clone(), was.filter(|_| !is_lost(place)))).collect()
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

/// What there is now in the places of `before`.
fn again(disk: &SimDisk, config: &Config, seed: u64, before: &Seen) -> Result<Seen, String> {
    let mut world = World::<Engine>::new(disk.fork_durable(), config, seed);
    world
        .run_op(Op::Open { read_only: true })?
        .map_err(|error| format!("does not open: {error}"))?;
    let places: Vec<&(String, u64)> = before.keys().collect();
    let mut all = Seen::new();
    for places in places.chunk_by(|a, b| a.0 == b.0) {
        let Some((name, _)) = places.first() else { continue };
        let open = Op::OpenExport { name: name.clone(), write: false };
        let Ok(Reply::Export { export, size_bytes, .. }) = world.run_op(open)? else { continue };
        for place in places {
            let value = value(&mut world, export, place.1 * BLOCK, size_bytes)?;
            all.insert((*place).clone(), value);
        }
        world.run_op(Op::CloseExport { export })?.ok();
    }
    world.run_op(Op::Close)?.ok();
    Ok(all)
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

/// The mapped blocks, so many of them. Where the map cannot be read, what is beside that is.
fn read(
    world: &mut World<Engine>,
    (name, export): (&str, ExportId),
    size: u64,
    all: &mut Seen,
) -> Result<(), String> {
    let (mut ranges, mut rest) = (vec![(0, size)], BLOCKS);
    while let Some((offset, end)) = ranges.pop().filter(|_| rest > 0) {
        if offset >= end {
            continue;
        }
        let found = world.run_op(Op::Extents { export, offset, len: end - offset })?;
        let Ok(Reply::Extents(extents)) = found else {
            let half = ((end - offset) / 2).next_multiple_of(LEAF);
            if half < end - offset {
                ranges.extend([(offset + half, end), (offset, offset + half)]);
            }
            continue;
        };
        let mut at = offset;
        for extent in extents {
            rest = rest.saturating_sub(1);
            let mapped = if extent.mapped { extent.len.min(RUN * BLOCK).min(end - at) } else { 0 };
            for at in (at..at + mapped).step_by(BLOCK_SIZE) {
                rest = rest.saturating_sub(1);
                let value = value(world, export, at, size)?;
                all.insert((name.to_owned(), at / BLOCK), value);
            }
            at = at.saturating_add(extent.len.max(512)).min(end);
        }
        // The answer may end before what was asked for does.
        ranges.push((at.max(offset + 512), end));
    }
    Ok(())
}

/// The block at `offset` of a volume of `size` bytes.
fn value(
    world: &mut World<Engine>,
    export: ExportId,
    offset: u64,
    size: u64,
) -> Result<Option<u64>, String> {
    let len = BLOCK.min(size.saturating_sub(offset));
    Ok(match world.run_op(Op::Read { export, offset, len })? {
        Ok(Reply::Data { buf, skip }) => buf.get(skip..skip + len as usize).map(hash),
        _ => None,
    })
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
    use super::{Seen, compare, without};
    use cow_check::repair::Lost;

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

    #[test]
    fn exactly_what_is_lost_is_left_out() {
        let lost = |name: &str, lba, blocks| Lost { name: name.to_owned(), lba, blocks, block: 0 };
        for (lost, left) in [
            (lost("v", 7, 1), None),
            (lost("v", 0, 8), None),
            (lost("v", 0, 7), Some(1)),
            (lost("v", 8, 9), Some(1)),
            (lost("w", 7, 1), Some(1)),
        ] {
            assert_eq!(without(&seen(Some(1)), std::slice::from_ref(&lost)), seen(left), "{lost}");
        }
    }
}
