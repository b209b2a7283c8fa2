//! Before the power cut: records are written and flushed, and each number is shown once its flush
//! is acknowledged.
//!
//! They are written as a pool writes: through the same driver, past the page cache where that works,
//! into a file that has all its space, several writes at once, and one `fdatasync` that is asked for
//! when all of them are complete.

use super::record::{self, FILE_NAME, Header, PLACES, Part, RECORD_BLOCKS, RunId};
use crate::failure::Failure;
use crate::output;
use cow_format::{BLOCK_SIZE, Buf, BufSlice};
use cow_io::{
    CreateOptions, Driver, DriverChoice, DriverOptions, Image, ImageError, IoDone, IoOp, IoRequest,
};
use serde_json::json;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// Writes records in `dir` until it is killed, or until there are `count`.
pub fn run(dir: &Path, count: Option<u64>, as_json: bool) -> Result<(), Failure> {
    let path = dir.join(FILE_NAME);
    let options = CreateOptions { preallocate: true, force: true, ..CreateOptions::default() };
    let image = Image::create(&path, record::file_bytes(PLACES), &options).map_err(failure)?;
    for note in image.io_notes() {
        eprintln!("cowctl: {}: {note}", path.display());
    }
    let driver = cow_io::open_driver(image, DriverChoice::Auto, &DriverOptions::default());
    let mut writer = Writer { driver: driver.map_err(Failure::file(&path))?, done: Vec::new() };

    let run = RunId(RandomState::new().hash_one(std::process::id()));
    let header = Header { run, places: PLACES, boot: super::boot() };
    let fail = |what: &str, error: cow_io::IoError| {
        Failure::Failed(format!("{}: {what}: {error}", path.display()))
    };
    writer.write(vec![(0, header.encode())]).map_err(|error| fail("the header", error))?;
    announce(dir, run, as_json)?;
    for number in 1..=count.unwrap_or(u64::MAX) {
        let written = writer.write(blocks_of(run, number));
        written.map_err(|error| fail(&format!("record {number}"), error))?;
        if as_json {
            output::line(json!({ "number": number }).to_string())?;
        } else {
            output::line(number.to_string())?;
        }
    }
    Ok(())
}

fn announce(dir: &Path, run: RunId, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let body = json!({ "run": run.to_string(), "dir": dir.display().to_string() });
        return output::line(output::with_schema("doctor-before", body).to_string());
    }
    eprintln!(
        "cowctl: each number below is of a record that the disk says it has flushed. Cut the power of this machine \
         while they come, not only of this program; then ask, with the last number that you have seen: \
         cowctl doctor {} --after-power-cut N --run {run}",
        dir.display()
    );
    output::line(format!("run {run}"))
}

/// The blocks of a record, and where they go.
fn blocks_of(run: RunId, number: u64) -> Vec<(u64, Buf)> {
    let place = record::place_block(number, PLACES);
    let mut own = Buf::zeroed(RECORD_BLOCKS as usize);
    for part in 0..RECORD_BLOCKS {
        let block = own.block_mut(part as usize);
        record::encode(block, run, place + part, Part { number, part });
    }
    let at = record::counter_block(number);
    let mut counter = Buf::zeroed(1);
    record::encode(&mut counter, run, at, Part { number, part: RECORD_BLOCKS });
    vec![(place, own), (at, counter)]
}

struct Writer {
    driver: Box<dyn Driver>,
    done: Vec<IoDone>,
}

impl Writer {
    /// Writes blocks, all at once, and flushes when all are complete.
    fn write(&mut self, blocks: Vec<(u64, Buf)>) -> Result<(), cow_io::IoError> {
        for (at, buf) in blocks {
            let offset = at * BLOCK_SIZE as u64;
            let op = IoOp::Write { offset, bufs: vec![BufSlice::whole(buf)] };
            self.driver.submit(IoRequest { tag: 0, op });
        }
        self.settle()?;
        self.driver.submit(IoRequest { tag: 0, op: IoOp::Flush });
        self.settle()
    }

    /// Waits for all that was asked for.
    fn settle(&mut self) -> Result<(), cow_io::IoError> {
        while self.driver.in_flight() > 0 {
            self.driver.wait(&mut self.done, None);
        }
        self.done.drain(..).try_for_each(|done| done.result)
    }
}

/// Why the file cannot be had.
fn failure(error: ImageError) -> Failure {
    match &error {
        ImageError::Busy { .. } => Failure::Refused(format!(
            "{error}; records are being written or looked at there already"
        )),
        ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Failure::NoSpace(format!(
                "{error}; the records take {} bytes",
                record::file_bytes(PLACES)
            ))
        }
        _ => Failure::Failed(error.to_string()),
    }
}
