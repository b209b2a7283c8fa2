//! Reads that can be begun at once: most of them. All that says where their blocks are is in memory, and the
//! blocks follow one another on the device. Such a read is no task: what is left to do when its data has come
//! is to verify it. What is not so simple goes the long way (`read.rs`), from as far as it has come.

use crate::api::{Action, ExportId, Op, OpId, Reply};
use crate::core::{Core, OpResult};
use crate::error::Error;
use crate::export::{Target, check_range};
use crate::mapping::Mapping;
use crate::read::{Pin, is_good, one_run, read_mapped, verify_run};
use crate::task::Cx;
use crate::wait::{PlainRead, Waiter};
use cow_format::{BLOCK_SIZE, Buf, Lba};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Longer ones go the long way: there are few of them, and their blocks seldom follow one another.
const MAX_BLOCKS: u64 = 256;

/// Begins a read, or gives it back.
pub(crate) fn read_now(cx: &Cx, id: OpId, op: Op) -> Option<Op> {
    let Op::Read { export, offset, len } = op else { return Some(op) };
    let mut core = cx.core();
    let Some(read) = core.resolve_now(id, export, offset, len) else { return Some(op) };
    match one_run(&core, &read.mappings) {
        Some(at) => {
            let buf = core.config.buffers.scratch(read.mappings.len());
            let waiter = Waiter::Read(Box::new(read));
            core.io.issue(waiter, |id| Action::Read { id, at, buf, bypass_cache: false });
        }
        None => {
            drop(core);
            go_on(cx, read, async |cx, read| {
                read_mapped(cx, read.node, read.first, &read.mappings).await
            });
        }
    }
    None
}

impl Core {
    /// A read that is pinned, and in progress from here on, if what it takes is in memory.
    fn resolve_now(
        &mut self,
        id: OpId,
        export: ExportId,
        offset: u64,
        len: u64,
    ) -> Option<PlainRead> {
        if !self.serving || self.closing {
            return None;
        }
        let Target { node, size_bytes, .. } = self.target(export, false).ok()?;
        check_range(offset, len, size_bytes).ok()?;
        let first = Lba(offset / BLOCK);
        let blocks = (offset + len).div_ceil(BLOCK) - first.0;
        if blocks == 0 || blocks > MAX_BLOCKS {
            return None;
        }
        let mappings = self.pool.as_mut()?.resolve_cached(node, first, blocks as usize)?;
        let epoch = self.pin();
        self.ops_in_progress += 1;
        let skip = (offset % BLOCK) as usize;
        Some(PlainRead { id, epoch, node, first, mappings, skip, len })
    }

    fn end_read(&mut self, read: &PlainRead, result: OpResult) {
        if result.is_ok() {
            self.stats.reads += 1;
            self.stats.read_bytes += read.len;
        }
        self.finish(read.id, result);
    }
}

/// A read has its data, if there is a buffer.
pub(crate) fn ended(cx: &Cx, read: Box<PlainRead>, buf: Option<Buf>) {
    let blocks = read.mappings.len();
    let buf = buf.filter(|buf| buf.block_count() == blocks);
    let is_whole = |buf: &Buf| {
        let mut all = read.mappings.iter().enumerate();
        all.all(|(i, at)| matches!(*at, Mapping::At(_, crc) if is_good(buf.block(i), crc)))
    };
    match buf {
        Some(buf) if is_whole(&buf) => {
            let mut core = cx.core();
            core.unpin(read.epoch);
            core.end_read(&read, Ok(Reply::Data { buf, skip: read.skip }));
        }
        buf => go_on(cx, *read, async |cx, read| {
            verify_run(cx, read.node, read.first, &read.mappings, buf).await
        }),
    }
}

/// The rest of a read is a task after all.
fn go_on(
    cx: &Cx,
    read: PlainRead,
    rest: impl AsyncFnOnce(&Cx, &PlainRead) -> Result<Buf, Error> + 'static,
) {
    let task_cx = cx.clone();
    cx.spawn(async move {
        let pin = Pin::of(&task_cx, read.epoch);
        let found = rest(&task_cx, &read).await;
        drop(pin);
        let result = found.map(|buf| Reply::Data { buf, skip: read.skip });
        task_cx.core().end_read(&read, result);
    });
}
