//! Raw image file → volume.

use super::magic::{Format, HEAD_BYTES, TAIL_BYTES};
use super::source::{Chunk, Source};
use super::{Reporter, Transferred, Watch};
use crate::completion::{Inbox, Outcome};
use crate::error::{Error, unexpected};
use crate::pool::Pool;
use crate::types::{DeleteOptions, IMPORTING};
use crate::volume::Volume;
use cow_engine::{Op, Reply};
use cow_format::{BLOCK_SIZE, Buf};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::ops::Range;

/// How many writes are in flight together.
const WINDOW: usize = 16;
/// First size of a volume that is filled from a stream; doubled when it is full.
const STREAM_BYTES: u64 = 1 << 30;

const ZERO_BLOCK: [u8; BLOCK_SIZE] = [0; BLOCK_SIZE];

/// What is imported, and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportOptions {
    /// The volume.
    pub volume: String,
    /// Its size, if it shall be larger than the image.
    pub size_bytes: Option<u64>,
    /// Fill a volume that exists. What lies behind the image's end stays as it is.
    pub into: bool,
    /// Take the file as raw even if it begins as another format does.
    pub raw: bool,
    /// Properties of the new volume.
    pub props: Vec<(String, String)>,
    /// What messages call the file.
    pub label: String,
}

/// Imports a raw image. Holes and blocks of zeros take no space; the length is kept to the byte.
/// A new volume appears under its name at once, and is deleted again if the import fails.
///
/// # Errors
/// `Unsupported` for an image in another format, with the command that converts it; `Invalid`
/// for one that is larger than the volume to be filled, before anything is written.
pub fn import(
    pool: &Pool,
    file: &File,
    options: &ImportOptions,
    watch: &mut Watch<'_>,
) -> Result<Transferred, Error> {
    let mut source = Source::new(file, pool.core.buffers.clone())?;
    if !options.raw {
        refuse_container(&mut source, &options.label)?;
    }
    if options.into {
        let volume = pool.volume(&options.volume)?;
        check_room(&source, volume.size_bytes(), &options.volume)?;
        return fill(pool, volume, &mut source, options, watch).map(|(moved, _)| moved);
    }
    if let Some(size) = options.size_bytes {
        check_room(&source, size, &options.volume)?;
    }
    let size = options.size_bytes.or(source.len()).unwrap_or(STREAM_BYTES);
    let mut props = options.props.clone();
    props.push((IMPORTING.into(), "1".into()));
    pool.create_volume(&options.volume, size, &props)?;
    let result = fill_new(pool, &mut source, options, watch);
    if result.is_err() {
        let all = DeleteOptions { recursive: true, dry_run: false };
        if let Err(error) = pool.delete(&[&options.volume], all) {
            let volume = &options.volume;
            tracing::warn!(%volume, %error, "a failed import stays until the next opening");
        }
    }
    result
}

fn refuse_container(source: &mut Source<'_>, label: &str) -> Result<(), Error> {
    let head = source.head(HEAD_BYTES)?;
    let mut format = Format::of_head(&head);
    if format.is_none() {
        format = source.tail(TAIL_BYTES)?.as_deref().and_then(Format::of_tail);
    }
    let label = if label.is_empty() { "the file" } else { label };
    format.map_or(Ok(()), |format| Err(Error::Unsupported(format.advice(label))))
}

fn check_room(source: &Source<'_>, size: u64, volume: &str) -> Result<(), Error> {
    match source.len() {
        Some(len) if len > size => Err(too_large(len, size, volume)),
        _ => Ok(()),
    }
}

fn too_large(len: u64, size: u64, volume: &str) -> Error {
    Error::Invalid(format!("the image of {len} bytes is larger than {volume} of {size} bytes"))
}

fn fill_new(
    pool: &Pool,
    source: &mut Source<'_>,
    options: &ImportOptions,
    watch: &mut Watch<'_>,
) -> Result<Transferred, Error> {
    let volume = pool.volume(&options.volume)?;
    // The volume is closed when this returns.
    let (moved, size) = fill(pool, volume, source, options, watch)?;
    if options.size_bytes.is_none() && size != moved.bytes {
        pool.resize(&options.volume, moved.bytes, true)?;
    }
    pool.set_props(&options.volume, &[(IMPORTING.into(), None)])?;
    Ok(moved)
}

/// Copies everything and flushes. Returns the size of the volume, too.
fn fill(
    pool: &Pool,
    volume: Volume,
    source: &mut Source<'_>,
    options: &ImportOptions,
    watch: &mut Watch<'_>,
) -> Result<(Transferred, u64), Error> {
    let mut reporter = Reporter::new(watch, "import", source.len());
    let may_grow = !options.into && options.size_bytes.is_none();
    let mut writer = Writer::new(&volume, options.into);
    let mut moved = Transferred::default();
    while let Some(chunk) = source.next()? {
        let end = chunk.offset + chunk.len;
        let size = volume.size_bytes();
        if end > size {
            if !may_grow {
                return Err(too_large(end, size, &options.volume));
            }
            writer.finish()?;
            pool.resize(&options.volume, end.max(size.saturating_mul(2)), false)?;
        }
        moved.bytes = end;
        moved.data_bytes += writer.write(chunk)?;
        reporter.at(end)?;
    }
    writer.finish()?;
    volume.flush()?;
    // Last look: whoever asked may be gone, and a stream may have ended because of that.
    reporter.end(moved.bytes)?;
    Ok((moved, volume.size_bytes()))
}

/// Keeps a window of writes in flight.
struct Writer<'a> {
    volume: &'a Volume,
    inbox: Inbox,
    in_flight: usize,
    /// The volume may hold data already: zeros must be written, too.
    overwrite: bool,
}

impl<'a> Writer<'a> {
    fn new(volume: &'a Volume, overwrite: bool) -> Self {
        Self { volume, inbox: Inbox::default(), in_flight: 0, overwrite }
    }

    /// Writes what is not zero. Returns how many bytes that were.
    fn write(&mut self, chunk: Chunk) -> Result<u64, Error> {
        let Chunk { offset, len, data } = chunk;
        let Some(data) = data else {
            return self.zero(offset, len).map(|()| 0);
        };
        let runs = runs(&data, len as usize);
        if let [(run, false)] = runs.as_slice()
            && run.len() as u64 == len
        {
            return self.submit_write(offset, len, data).map(|()| len);
        }
        let mut written = 0;
        for (run, is_zero) in runs {
            let (at, run_len) = (offset + run.start as u64, run.len() as u64);
            if is_zero {
                self.zero(at, run_len)?;
            } else {
                let data = self.volume.handle.core.buffers.from_bytes(&data[run]);
                self.submit_write(at, run_len, data)?;
                written += run_len;
            }
        }
        Ok(written)
    }

    fn zero(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        if !self.overwrite {
            return Ok(());
        }
        let export = self.volume.handle.id;
        self.submit(Op::WriteZeroes { export, offset, len, fua: false })
    }

    fn submit_write(&mut self, offset: u64, len: u64, data: Buf) -> Result<(), Error> {
        let export = self.volume.handle.id;
        self.submit(Op::Write { export, offset, len, data, fua: false })
    }

    fn submit(&mut self, op: Op) -> Result<(), Error> {
        while let Some((_, outcome)) = self.inbox.try_next() {
            self.settle(outcome)?;
        }
        if self.in_flight >= WINDOW {
            let (_, outcome) = self.inbox.wait()?;
            self.settle(outcome)?;
        }
        self.in_flight += 1;
        self.volume.handle.core.queue.push(op, self.inbox.completion(0));
        Ok(())
    }

    fn settle(&mut self, outcome: Outcome) -> Result<(), Error> {
        self.in_flight -= 1;
        match outcome? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for all that is in flight.
    fn finish(&mut self) -> Result<(), Error> {
        while self.in_flight > 0 {
            let (_, outcome) = self.inbox.wait()?;
            self.settle(outcome)?;
        }
        Ok(())
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        // After an error: the volume is to be deleted, so nothing may be left in flight.
        while self.in_flight > 0 && self.inbox.wait().is_ok() {
            self.in_flight -= 1;
        }
    }
}

/// The first `len` bytes of `data` in runs of whole blocks (the last may be cut short) that are
/// zero (`true`) or not.
fn runs(data: &Buf, len: usize) -> Vec<(Range<usize>, bool)> {
    let mut runs: Vec<(Range<usize>, bool)> = Vec::new();
    for block in 0..len.div_ceil(BLOCK_SIZE) {
        let is_zero = data.block(block) == &ZERO_BLOCK;
        let end = len.min((block + 1) * BLOCK_SIZE);
        match runs.last_mut() {
            Some((run, kind)) if *kind == is_zero => run.end = end,
            _ => runs.push((block * BLOCK_SIZE..end, is_zero)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_tell_zeros_from_data() {
        let mut data = Buf::zeroed(6);
        assert_eq!(runs(&data, 6 * BLOCK_SIZE), [(0..6 * BLOCK_SIZE, true)]);
        data[BLOCK_SIZE + 5] = 1;
        data[3 * BLOCK_SIZE - 1] = 1;
        data[5 * BLOCK_SIZE] = 1;
        let b = BLOCK_SIZE;
        let want =
            [(0..b, true), (b..3 * b, false), (3 * b..5 * b, true), (5 * b..5 * b + 9, false)];
        assert_eq!(runs(&data, 5 * BLOCK_SIZE + 9), want);
        assert_eq!(runs(&data, 0), []);
    }
}
