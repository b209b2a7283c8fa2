//! Frames to the device, and flushes over them.
//!
//! A flush is acknowledged when one device flush has succeeded that was *emitted after* the
//! completion of every frame up to the one asked for, and of all data that these name, wherever that
//! has landed (`inflight.rs`). One device flush is in progress at a time; all who wait for it are
//! acknowledged together. A failed flush or frame write poisons the pool: the kernel may
//! have dropped what it could not write, so a later success proves nothing.

use crate::core::{Core, Pool};
use crate::error::Error;
use crate::task::Cx;
use cow_format::{BufSlice, FrameSeq, mutant};

/// Frames with records are sealed after this long (write-back emission, design section 4).
const SEAL_AFTER_NS: u64 = 5_000_000;
/// The pool flushes by itself after so much time or data without a flush.
const SELF_FLUSH_NS: u64 = 1_000_000_000;
const SELF_FLUSH_BYTES: u64 = 128 << 20;
/// When idle for so long a marker tells the journal what is durable.
const MARKER_AFTER_NS: u64 = 100_000_000;

impl Pool {
    /// The last frame such that it and all before it are written, with the data that they name.
    /// One that was sealed and not yet handed to the device does not count.
    pub(crate) fn complete(&self) -> FrameSeq {
        let written = match self.writing_frames.first() {
            Some(first) => FrameSeq(first.0 - 1),
            None => self.emitted,
        };
        self.inflight.complete(written)
    }

    /// Seals the frame `seq`, and those that it is complete with.
    fn seal_to(&mut self, seq: FrameSeq) {
        if self.journal.last_sealed() < self.inflight.last_move(seq) {
            self.journal.seal();
        }
    }
}

/// Hands sealed frames to the device.
pub(crate) fn emit_frames(cx: &Cx) {
    let sealed = {
        let mut core = cx.core();
        let Some(pool) = &mut core.pool else { return };
        let sealed = pool.journal.take_sealed();
        if sealed.is_empty() {
            return;
        }
        pool.writing_frames.extend(sealed.iter().map(|frame| frame.seq));
        pool.open_since_ns = 0;
        pool.emitted = sealed.last().map_or(pool.emitted, |frame| frame.seq);
        core.stats.frames += sealed.len() as u64;
        core.stats.frame_blocks += sealed.iter().map(|f| f.buf.block_count() as u64).sum::<u64>();
        sealed
    };
    for frame in sealed {
        let (task_cx, seq) = (cx.clone(), frame.seq);
        let write = cx.write(frame.at, vec![BufSlice::whole(frame.buf)]);
        cx.spawn(async move {
            let result = write.await;
            let mut core = task_cx.core();
            if let Some(pool) = &mut core.pool {
                pool.writing_frames.remove(&seq);
            }
            if let Err(failure) = result {
                let at = frame.at.byte_offset();
                core.poison(format!(
                    "journal frame {seq} could not be written at byte {at}: os error {}",
                    failure.errno
                ));
            }
            core.notify(|core| &mut core.flush_wait);
        });
    }
}

/// Waits until every frame up to `seq`, and the data it names, is written (not: durable).
pub(crate) async fn written_to(cx: &Cx, seq: FrameSeq) -> Result<(), Error> {
    loop {
        {
            let mut core = cx.core();
            let pool = core.writable()?;
            pool.seal_to(seq);
            if pool.complete() >= seq {
                return Ok(());
            }
        }
        emit_frames(cx);
        cx.wait(|core| &mut core.flush_wait).await;
    }
}

/// Waits until every frame up to `seq`, and the data it names, is durable.
pub(crate) async fn flush_to(cx: &Cx, seq: FrameSeq) -> Result<(), Error> {
    loop {
        let covers = {
            let mut core = cx.core();
            let pool = core.writable()?;
            if pool.durable >= seq {
                return Ok(());
            }
            pool.seal_to(seq);
            drop(core);
            emit_frames(cx);
            let mut core = cx.core();
            let pool = core.writable()?;
            let complete = pool.complete();
            if pool.flushing || complete < seq {
                None
            } else {
                pool.flushing = true;
                Some(complete)
            }
        };
        match covers {
            Some(covers) => device_flush(cx, covers).await?,
            None => cx.wait(|core| &mut core.flush_wait).await,
        }
    }
}

/// One device flush; on success everything up to `covers` is durable.
async fn device_flush(cx: &Cx, covers: FrameSeq) -> Result<(), Error> {
    let result = if mutant::is("ackearly") { Ok(()) } else { cx.device_flush().await };
    let mut core = cx.core();
    let now_ns = core.now_ns;
    if let Some(pool) = &mut core.pool {
        pool.flushing = false;
        if result.is_ok() {
            pool.note_durable(covers, now_ns);
        }
    }
    if let Err(failure) = result
        && !mutant::is("flushforgiven")
    {
        core.poison(format!("a device flush failed: os error {}", failure.errno));
    }
    core.notify(|core| &mut core.flush_wait);
    core.writable().map(|_| ())
}

impl Pool {
    /// A device flush covered every frame up to `covers`.
    pub(crate) fn note_durable(&mut self, covers: FrameSeq, now_ns: u64) {
        if covers > self.durable {
            self.durable = covers;
            self.journal.set_durable(covers);
            self.inflight.note_durable(covers);
            self.unflushed_bytes = 0;
            self.unflushed_since_ns = now_ns;
        }
    }
}

/// Makes everything that was acknowledged before durable.
pub(crate) async fn flush(cx: &Cx) -> Result<(), Error> {
    let seq = {
        let mut core = cx.core();
        let pool = core.writable()?;
        pool.journal.seal();
        pool.last_record
    };
    flush_to(cx, seq).await
}

impl Core {
    /// What time asks for: seal an old frame, flush what lies long, tell the journal.
    pub(crate) fn journal_due(&mut self) -> Due {
        let now = self.now_ns;
        if self.poisoned.is_some() || !self.serving {
            return Due::Nothing;
        }
        let Some(pool) = self.pool.as_mut().filter(|pool| !pool.read_only) else {
            return Due::Nothing;
        };
        if pool.journal.open_records() > 0
            && now.saturating_sub(pool.open_since_ns) >= SEAL_AFTER_NS
        {
            pool.journal.seal();
        }
        let unflushed = pool.last_record > pool.durable;
        let old = now.saturating_sub(pool.unflushed_since_ns) >= SELF_FLUSH_NS;
        if unflushed && !pool.self_flushing && (old || pool.unflushed_bytes >= SELF_FLUSH_BYTES) {
            pool.self_flushing = true;
            return Due::Flush;
        }
        let idle = now.saturating_sub(pool.last_activity_ns) >= MARKER_AFTER_NS;
        if idle && pool.durable > pool.told_durable && pool.journal.open_records() == 0 {
            // One marker for each position told; it is no record, so nothing follows from it.
            if let Ok(seq) = pool.journal.seal_marker() {
                pool.told_durable = seq;
            }
        }
        Due::Nothing
    }
}

/// See [`Core::journal_due`].
#[derive(PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    Flush,
}
