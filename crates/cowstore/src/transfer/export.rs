//! Volume or snapshot → raw image file.

mod target;

pub use target::ExportFile;

use super::{Reporter, Transferred, Watch};
use crate::completion::Inbox;
use crate::error::{Error, unexpected};
use crate::pieces::piece;
use crate::pool::Pool;
use crate::types::{DeleteOptions, EXPORT_PREFIX, IMPORTING, NodeKind, SnapshotOptions};
use crate::volume::Export;
use cow_engine::{Op, Reply};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use target::Sink;

/// How many reads are in flight together.
const WINDOW: usize = 16;
/// How much of the map is asked for at once: a hole may be as long.
const SPAN_BYTES: u64 = 1 << 30;

/// What is exported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExportOptions {
    /// `VOL` or `VOL@SNAP`.
    pub name: String,
}

/// Writes `VOL` or `VOL@SNAP` to `file`: in a new file holes stay holes; the length is exact.
/// Durable when it returns, where the file can be. Of a volume that somebody writes to, a
/// snapshot is taken for the time, so that the image is of one instant.
pub fn export(
    pool: &Pool,
    file: &File,
    options: &ExportOptions,
    watch: &mut Watch<'_>,
) -> Result<Transferred, Error> {
    let name = &options.name;
    let is_written = !name.contains('@')
        && !pool.is_read_only()
        && pool.list(false)?.iter().any(|node| node.name == *name && node.open_writers > 0);
    if !is_written {
        return copy(&pool.open_export(name, false)?, file, watch);
    }
    let snapshot =
        format!("{name}@{EXPORT_PREFIX}{}.{}", std::process::id(), crate::reactor::wall_ns());
    let options = SnapshotOptions {
        kind: NodeKind::Auto,
        // As with an unfinished import: nobody's after a crash.
        props: vec![(IMPORTING.into(), "1".into())],
        ..SnapshotOptions::default()
    };
    pool.snapshot(&[&snapshot], options)?;
    let result = pool.open_export(&snapshot, false).and_then(|export| copy(&export, file, watch));
    let deleted = pool.delete(&[&snapshot], DeleteOptions::default());
    result.and_then(|moved| deleted.map(|_| moved))
}

fn copy(export: &Export, file: &File, watch: &mut Watch<'_>) -> Result<Transferred, Error> {
    let size = export.size_bytes();
    let mut reporter = Reporter::new(watch, "export", Some(size));
    let mut sink = Sink::new(file, size)?;
    let mut reader = Reader::new(export, size);
    let mut moved = Transferred { bytes: size, data_bytes: 0 };
    while let Some((offset, data)) = reader.next()? {
        match data {
            Data::Hole(len) => sink.hole(offset, len)?,
            Data::Bytes { reply, len } => {
                let Reply::Data { buf, skip } = &reply else { return Err(unexpected(&reply)) };
                let bytes = skip.checked_add(len).and_then(|end| buf.get(*skip..end));
                sink.write(offset, bytes.ok_or_else(|| unexpected(&reply))?)?;
                moved.data_bytes += len as u64;
            }
        }
        reporter.at(offset)?;
    }
    sink.finish()?;
    reporter.end(size)?;
    Ok(moved)
}

/// A part of the volume, in order.
enum Data {
    Hole(u64),
    Bytes { reply: Reply, len: usize },
}

/// What is still to be read.
enum Plan {
    Hole(u64),
    Read { index: usize, len: usize },
}

/// Reads a volume in order, with a window of reads in flight.
struct Reader<'a> {
    export: &'a Export,
    size: u64,
    /// Up to here the map is known.
    mapped_until: u64,
    /// Runs of data and holes not yet planned: `(offset, length, is data)`.
    runs: VecDeque<(u64, u64, bool)>,
    plans: VecDeque<(u64, Plan)>,
    arrived: BTreeMap<usize, Reply>,
    inbox: Inbox,
    next_index: usize,
    in_flight: usize,
}

impl<'a> Reader<'a> {
    fn new(export: &'a Export, size: u64) -> Self {
        Self {
            export,
            size,
            mapped_until: 0,
            runs: VecDeque::new(),
            plans: VecDeque::new(),
            arrived: BTreeMap::new(),
            inbox: Inbox::default(),
            next_index: 0,
            in_flight: 0,
        }
    }

    /// The next part; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Data)>, Error> {
        self.plan()?;
        let Some((offset, plan)) = self.plans.pop_front() else { return Ok(None) };
        let (index, len) = match plan {
            Plan::Hole(len) => return Ok(Some((offset, Data::Hole(len)))),
            Plan::Read { index, len } => (index, len),
        };
        loop {
            if let Some(reply) = self.arrived.remove(&index) {
                return Ok(Some((offset, Data::Bytes { reply, len })));
            }
            let (arrived, outcome) = self.inbox.wait()?;
            self.in_flight -= 1;
            self.arrived.insert(arrived, outcome?);
        }
    }

    /// Submits reads while there is room in the window.
    fn plan(&mut self) -> Result<(), Error> {
        while self.plans.len() < WINDOW {
            let Some(&(offset, len, is_data)) = self.runs.front() else {
                if self.mapped_until == self.size {
                    return Ok(());
                }
                self.look_up()?;
                continue;
            };
            self.runs.pop_front();
            if !is_data {
                self.plans.push_back((offset, Plan::Hole(len)));
                continue;
            }
            let Some((_, part)) = piece(offset, len, 0) else { continue };
            if part < len {
                self.runs.push_front((offset + part, len - part, true));
            }
            let index = self.next_index;
            self.next_index += 1;
            self.in_flight += 1;
            let op = Op::Read { export: self.export.handle.id, offset, len: part };
            self.export.handle.core.queue.push(op, self.inbox.completion(index));
            self.plans.push_back((offset, Plan::Read { index, len: part as usize }));
        }
        Ok(())
    }

    fn look_up(&mut self) -> Result<(), Error> {
        let span = SPAN_BYTES.min(self.size - self.mapped_until);
        for extent in self.export.extents(self.mapped_until, span)? {
            self.runs.push_back((self.mapped_until, extent.len, extent.mapped));
            self.mapped_until += extent.len;
        }
        Ok(())
    }
}
