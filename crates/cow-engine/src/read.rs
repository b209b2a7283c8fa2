//! Reading: resolve each block through the layers and the map, read runs, verify every block.

use crate::api::{ExportId, Reply};
use crate::core::{Core, OpResult};
use crate::error::Error;
use crate::export::{Target, check_range};
use crate::info::Extent;
use crate::lookup::resolve;
use crate::mapping::Mapping;
use crate::task::{Cx, join_all};
use cow_format::{BLOCK_SIZE, Buf, Lba, NodeId, Phys, checksum, mutant};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Longest read in one piece; larger ones are answered by a longer buffer all the same.
const MAX_READ: u64 = 64 << 20;
/// Longest range of one extents answer.
const MAX_EXTENT_BLOCKS: u64 = 1 << 20;

/// A reader's pin: nothing it may have resolved is given out again before it is dropped.
pub(crate) struct Pin {
    cx: Cx,
    epoch: u64,
}

impl Pin {
    pub(crate) fn new(cx: &Cx) -> Self {
        let epoch = cx.core().pin();
        Self { cx: cx.clone(), epoch }
    }

    /// Takes one over that was made without.
    pub(crate) fn of(cx: &Cx, epoch: u64) -> Self {
        Self { cx: cx.clone(), epoch }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.cx.core().unpin(self.epoch);
    }
}

pub(crate) async fn read(cx: &Cx, export: ExportId, offset: u64, len: u64) -> OpResult {
    let target = cx.core().target(export, false)?;
    check_range(offset, len, target.size_bytes)?;
    if len > MAX_READ {
        return Err(Error::Invalid(format!("a read of {len} bytes is over {MAX_READ}")));
    }
    let first = offset / BLOCK;
    let blocks = (offset + len).div_ceil(BLOCK) - first;
    let buf = read_blocks(cx, &target, Lba(first), blocks as usize).await?;
    let stats = &mut cx.core().stats;
    stats.reads += 1;
    stats.read_bytes += len;
    Ok(Reply::Data { buf, skip: (offset % BLOCK) as usize })
}

/// The content of `blocks` blocks from `first` on, as of now.
pub(crate) async fn read_blocks(
    cx: &Cx,
    target: &Target,
    first: Lba,
    blocks: usize,
) -> Result<Buf, Error> {
    let _pin = Pin::new(cx);
    let mappings = resolve(cx, target.node, first, blocks).await?;
    read_mapped(cx, target.node, first, &mappings).await
}

/// The content of the blocks of `node` from `first` on that lie at `mappings`. The caller holds a
/// pin from before they were resolved.
pub(crate) async fn read_mapped(
    cx: &Cx,
    node: NodeId,
    first: Lba,
    mappings: &[Mapping],
) -> Result<Buf, Error> {
    let run = one_run(&cx.core(), mappings);
    match run {
        Some(at) => {
            let buf = cx.read(at, mappings.len(), false).await.ok();
            verify_run(cx, node, first, mappings, buf).await
        }
        None => read_runs(cx, node, first, mappings).await,
    }
}

/// Where the blocks lie, if they follow one another and are to be had from the device.
pub(crate) fn one_run(core: &Core, mappings: &[Mapping]) -> Option<Phys> {
    let &Mapping::At(at, _) = mappings.first()? else { return None };
    let follows = |(i, mapping): (u64, &Mapping)| matches!(*mapping, Mapping::At(phys, _) if phys.0 == at.0 + i);
    if !(0..).zip(mappings).all(follows) {
        return None;
    }
    let inflight = &core.pool.as_ref()?.inflight;
    let flies = |phys: Phys| inflight.block(phys).is_some() && !mutant::is("readbehind");
    let is_flying = !inflight.is_empty() && (0..mappings.len() as u64).any(|i| flies(at.offset(i)));
    (!is_flying).then_some(at)
}

/// The blocks of one run, of which `buf` was read: that is the answer, nothing of it is copied.
pub(crate) async fn verify_run(
    cx: &Cx,
    node: NodeId,
    first: Lba,
    mappings: &[Mapping],
    buf: Option<Buf>,
) -> Result<Buf, Error> {
    let (mut out, is_read) = match buf {
        Some(buf) => (buf, true),
        None => (cx.core().config.buffers.scratch(mappings.len()), false),
    };
    for (i, mapping) in mappings.iter().enumerate() {
        let Mapping::At(phys, crc) = *mapping else { continue };
        if !(is_read && (is_good(out.block(i), crc) || mutant::is("runblind"))) {
            let again = reread(cx, node, Lba(first.0 + i as u64), phys, crc).await?;
            out.block_mut(i).copy_from_slice(again.block(0));
        }
    }
    Ok(out)
}

pub(crate) fn is_good(block: &[u8], crc: u32) -> bool {
    checksum::data(block) == crc || mutant::is("anydata")
}

/// The blocks of several runs, holes and data in flight among them.
async fn read_runs(cx: &Cx, node: NodeId, first: Lba, mappings: &[Mapping]) -> Result<Buf, Error> {
    // Of what is left over in it every block is overwritten below, or there is no answer.
    let mut out = cx.core().config.buffers.scratch(mappings.len());
    let runs = match copy_flying(cx, mappings, &mut out) {
        Some(rest) => runs_of(&rest),
        None => runs_of(mappings),
    };
    let reads = runs.iter().map(|run| cx.read(run.phys, run.blocks, false));
    let results = join_all(reads).await;
    for (run, result) in runs.iter().zip(results) {
        let data = result.ok();
        for i in 0..run.blocks {
            let at = run.first + i;
            let Some(Mapping::At(phys, crc)) = mappings.get(at).copied() else { continue };
            match data.as_ref().filter(|data| is_good(data.block(i), crc)) {
                Some(data) => out.block_mut(at).copy_from_slice(data.block(i)),
                None => {
                    let lba = Lba(first.0 + at as u64);
                    let again = reread(cx, node, lba, phys, crc).await?;
                    out.block_mut(at).copy_from_slice(again.block(0));
                }
            }
        }
    }
    for (i, mapping) in mappings.iter().enumerate() {
        match mapping {
            Mapping::Hole if mutant::is("holestale") => {}
            Mapping::Hole => out.block_mut(i).fill(0),
            Mapping::Lost => {
                return Err(corrupt(cx, node, Lba(first.0 + i as u64), "the block was lost"));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// Copies the blocks whose writes are under way. If there are any: the mappings, without theirs.
fn copy_flying(cx: &Cx, mappings: &[Mapping], out: &mut Buf) -> Option<Vec<Mapping>> {
    let core = cx.core();
    let inflight = &core.pool.as_ref()?.inflight;
    if inflight.is_empty() || mutant::is("readbehind") {
        return None;
    }
    let mut rest: Option<Vec<Mapping>> = None;
    for (i, mapping) in mappings.iter().enumerate() {
        let Mapping::At(phys, crc) = *mapping else { continue };
        let Some(block) = inflight.block(phys) else { continue };
        if checksum::data(block) == crc {
            out.block_mut(i).copy_from_slice(block);
            rest.get_or_insert_with(|| mappings.to_vec())[i] = Mapping::Hole;
        }
    }
    rest
}

struct Run {
    first: usize,
    phys: Phys,
    blocks: usize,
}

/// Runs that are contiguous in both address spaces.
fn runs_of(mappings: &[Mapping]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (i, mapping) in mappings.iter().enumerate() {
        let Mapping::At(phys, _) = *mapping else { continue };
        match runs.last_mut() {
            Some(run)
                if run.first + run.blocks == i && run.phys.0 + run.blocks as u64 == phys.0 =>
            {
                run.blocks += 1;
            }
            _ => runs.push(Run { first: i, phys, blocks: 1 }),
        }
    }
    runs
}

/// A block failed: once more, past every cache; then it is an error and never data. At the same
/// address, as the caller's pin keeps it valid: resolving it anew could find no other place of what
/// this read is to see.
///
/// Unless the data has moved since it was resolved: then where it is now.
async fn reread(cx: &Cx, node: NodeId, lba: Lba, phys: Phys, crc: u32) -> Result<Buf, Error> {
    let moved = cx.core().pool.as_ref().and_then(|pool| pool.inflight.moved_to(phys));
    let phys = moved.unwrap_or(phys);
    match cx.read(phys, 1, true).await {
        Ok(buf) if checksum::data(buf.block(0)) == crc => Ok(buf),
        Ok(_) => Err(corrupt(cx, node, lba, &format!("checksum mismatch at block {phys}"))),
        Err(failure) => Err(Error::Io {
            errno: failure.errno,
            op: "read of a data block",
            offset: phys.byte_offset(),
        }),
    }
}

fn corrupt(cx: &Cx, node: NodeId, lba: Lba, what: &str) -> Error {
    let mut core = cx.core();
    core.stats.checksum_failures += 1;
    let name = core.pool.as_ref().and_then(|pool| pool.tree.full_name(node)).unwrap_or_default();
    Error::Corrupt(format!("{name}, block {lba} (byte {}): {what}", lba.0 * BLOCK))
}

pub(crate) async fn extents(cx: &Cx, export: ExportId, offset: u64, len: u64) -> OpResult {
    let target = cx.core().target(export, false)?;
    check_range(offset, len, target.size_bytes)?;
    let _pin = Pin::new(cx);
    let end = offset + len;
    let last = end.div_ceil(BLOCK).min(offset / BLOCK + MAX_EXTENT_BLOCKS);
    let mut out: Vec<Extent> = Vec::new();
    let mut at = offset;
    let mut push = |at: &mut u64, blocks: u64, mapped: bool| {
        let stop = (*at / BLOCK).saturating_add(blocks).saturating_mul(BLOCK).min(end);
        let len = stop - *at;
        *at = stop;
        match out.last_mut() {
            Some(extent) if extent.mapped == mapped => extent.len += len,
            _ if len > 0 => out.push(Extent { len, mapped }),
            _ => {}
        }
    };
    while at < end && at / BLOCK < last {
        let lba = Lba(at / BLOCK);
        let empty = crate::lookup::empty_run(cx, target.node, lba).await?;
        if empty > 0 {
            push(&mut at, empty, false);
            continue;
        }
        let blocks = (256 - u64::from(lba.slot())).min(end.div_ceil(BLOCK) - lba.0);
        for mapping in resolve(cx, target.node, lba, blocks as usize).await?.iter() {
            push(&mut at, 1, *mapping != Mapping::Hole);
        }
    }
    Ok(Reply::Extents(out))
}
