//! After the power cut: whether all records up to the last number that was seen are there.
//!
//! Which ones must be there: the writer has one record under way at a time, so when `highest` is
//! the highest number found anywhere (or the one that was seen, if that is higher), only the place of
//! `highest + 1` may be torn, and with it goes the record that it was being written over. Every
//! record up to `N` that is younger than that one must be in its place, or have been
//! overwritten there by the whole next one.

use super::record::{self, FILE_NAME, Header, Part, RECORD_BLOCKS, RunId};
use crate::failure::Failure;
use crate::output;
use cow_format::{BLOCK_SIZE, Buf};
use cow_io::{Image, ImageError, OpenOptions};
use serde_json::json;
use std::path::Path;

/// How many blocks are read at once.
const CHUNK_BLOCKS: u64 = 256;

/// Looks for the records up to `last` in `dir`.
pub fn run(dir: &Path, last: u64, run: Option<RunId>, as_json: bool) -> Result<(), Failure> {
    let path = dir.join(FILE_NAME);
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let image = Image::open(&path, &options).map_err(|error| failure(dir, &error))?;
    let mut block = Buf::zeroed(1);
    let header = image.read_at(0, &mut block).ok().and_then(|()| Header::decode(&block));
    let Some(header) = header else {
        return Err(Failure::Corrupt(format!(
            "{}: the header that was flushed before the first record is not there: this disk, or something above it, \
             acknowledges flushes of data that it has not made durable (or this file is not of `cowctl doctor`)",
            path.display()
        )));
    };
    if let Some(run) = run.filter(|run| *run != header.run) {
        return Err(Failure::Refused(format!(
            "{}: the records are of run {}, and number {last} is of run {run}: what became of that run cannot be told",
            path.display(),
            header.run
        )));
    }
    let restarted = header.boot != super::boot() || header.boot.is_empty();
    let found = Found::read(&image, &header);
    let first_missing = found.first_missing(last);
    let result = verdict(&path, &found, last, first_missing);
    if as_json {
        let body = json!({
            "run": header.run.to_string(),
            "asked_for": last,
            "highest_found": found.highest(),
            "first_missing": first_missing,
            "counter": found.counter,
            "lost": result.is_err(),
            "restarted": restarted,
        });
        output::json("doctor-after", body)?;
    }
    let text = result?;
    if !restarted {
        eprintln!(
            "cowctl: note: this machine has not been restarted since the records were written, so what is found may \
             come from its memory, and says something about the disk only if the power of that alone was cut"
        );
    }
    if as_json { Ok(()) } else { output::line(text) }
}

fn verdict(
    path: &Path,
    found: &Found,
    last: u64,
    first_missing: Option<u64>,
) -> Result<String, Failure> {
    let path = path.display();
    let liar = "this disk, or something above it, acknowledges flushes of data that it has not made durable, and what \
                a pool on it acknowledges can be lost in a power cut";
    if let Some(missing) = first_missing {
        let instead = match found.at(missing) {
            Place::Whole(number) => format!("its place still holds record {number}"),
            Place::Torn => "its place holds something torn or nothing of this run".into(),
            Place::Unreadable => "its place cannot be read".into(),
        };
        return Err(Failure::Corrupt(format!(
            "{path}: record {missing} is missing, though its flush was acknowledged: {instead}; {liar}"
        )));
    }
    match found.counter {
        Some(counter) if counter >= last => {}
        counter => {
            let counter = counter.map_or("nothing".into(), |number| format!("record {number}"));
            return Err(Failure::Corrupt(format!(
                "{path}: record {last} is missing from the counter, though its flush was acknowledged: the newest \
                 there is {counter}; {liar}"
            )));
        }
    }
    let (first, last_found) = (found.oldest_expected(last), found.highest());
    Ok(format!(
        "all records from {first} to {last} are there (the highest found is {last_found}): this power cut has lost \
         nothing whose flush was acknowledged"
    ))
}

/// What a place holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Whole(u64),
    /// Anything else.
    Torn,
    Unreadable,
}

/// What the file holds.
struct Found {
    places: Vec<Place>,
    /// The highest number in any block, whole record or not.
    highest_part: u64,
    /// The newest copy of the counter.
    counter: Option<u64>,
}

impl Found {
    fn read(image: &Image, header: &Header) -> Self {
        let end = image.size_bytes() / BLOCK_SIZE as u64;
        let first = record::place_block(0, header.places);
        let wanted = record::file_bytes(header.places) / BLOCK_SIZE as u64;
        let mut parts: Vec<Option<Option<Part>>> = Vec::new();
        let mut at = 1;
        while at < wanted.min(end) {
            let blocks = CHUNK_BLOCKS.min(wanted.min(end) - at);
            read_parts(image, header.run, at, blocks, &mut parts);
            at += blocks;
        }
        let part = |block: u64| parts.get((block - 1) as usize).copied().unwrap_or(Some(None));
        let place = |place: u64| {
            let at = first + place * RECORD_BLOCKS;
            let of_place = |part: &Part| part.number % header.places == place;
            let mut number = None;
            for index in 0..RECORD_BLOCKS {
                let Some(found) = part(at + index) else { return Place::Unreadable };
                match found.filter(|part| part.part == index && of_place(part)) {
                    Some(found) if number.is_none_or(|number| number == found.number) => {
                        number = Some(found.number);
                    }
                    _ => return Place::Torn,
                }
            }
            number.map_or(Place::Torn, Place::Whole)
        };
        let counter = [0, 1].map(|turn| {
            let found = part(record::counter_block(turn)).flatten();
            found.filter(|found| found.part == RECORD_BLOCKS && found.number % 2 == turn)
        });
        let numbers = parts.iter().flatten().flatten().map(|part| part.number);
        Self {
            highest_part: numbers.max().unwrap_or(0),
            places: (0..header.places).map(place).collect(),
            counter: counter.into_iter().flatten().map(|part| part.number).max(),
        }
    }

    fn at(&self, number: u64) -> Place {
        let places = self.places.len().max(1) as u64;
        self.places.get((number % places) as usize).copied().unwrap_or(Place::Torn)
    }

    /// The highest whole record.
    fn highest(&self) -> u64 {
        let whole = self.places.iter().filter_map(|place| match place {
            Place::Whole(number) => Some(*number),
            _ => None,
        });
        whole.max().unwrap_or(0)
    }

    /// The oldest record that no later one may have taken the place of.
    fn oldest_expected(&self, last: u64) -> u64 {
        let under_way = self.highest_part.max(last) + 1;
        (under_way + 1).saturating_sub(self.places.len() as u64).max(1)
    }

    /// The first of the records up to `last` that must be there and is not.
    fn first_missing(&self, last: u64) -> Option<u64> {
        (self.oldest_expected(last)..=last).find(|&number| {
            // A whole later one stands there only if the writer had come round to it.
            !matches!(self.at(number), Place::Whole(found) if found >= number)
        })
    }
}

/// Reads blocks; of a run that cannot be read, one after the other. The outer `None`: unreadable.
fn read_parts(
    image: &Image,
    run: RunId,
    at: u64,
    blocks: u64,
    parts: &mut Vec<Option<Option<Part>>>,
) {
    let mut buf = Buf::zeroed(blocks as usize);
    if image.read_at(at * BLOCK_SIZE as u64, &mut buf).is_ok() {
        let decoded = (0..blocks).map(|i| record::decode(buf.block(i as usize), run, at + i));
        parts.extend(decoded.map(Some));
    } else if blocks == 1 {
        parts.push(None);
    } else {
        (0..blocks).for_each(|i| read_parts(image, run, at + i, 1, parts));
    }
}

fn failure(dir: &Path, error: &ImageError) -> Failure {
    match error {
        ImageError::Busy { .. } => {
            Failure::Refused(format!("{error}; records are still being written there"))
        }
        ImageError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Failure::NotFound(format!(
                "{}: no records there: either none were written (--before-power-cut), or the disk has lost the file, \
                 though it was flushed",
                dir.display()
            ))
        }
        _ => Failure::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four places; records 1 to `highest` written.
    fn written(highest: u64) -> Found {
        let whole = |place| (1..=highest).rev().find(|n| n % 4 == place).map(Place::Whole);
        let places = (0..4).map(|place| whole(place).unwrap_or(Place::Torn)).collect();
        Found { places, highest_part: highest, counter: Some(highest) }
    }

    #[test]
    fn what_was_flushed_is_found_in_any_round() {
        for highest in 1..20 {
            let found = written(highest);
            for last in 1..=highest {
                assert_eq!(found.first_missing(last), None, "{highest} written, {last} seen");
            }
        }
    }

    /// Whichever place is torn: it is missed unless it is the one that was being written.
    #[test]
    fn what_is_lost_is_missed() {
        for highest in 1..20_u64 {
            for lost in highest.saturating_sub(3).max(1)..=highest {
                let mut found = written(highest);
                found.places[(lost % 4) as usize] = Place::Torn;
                let may_be_under_way = lost + 3 == highest;
                let want = Some(lost).filter(|_| !may_be_under_way);
                assert_eq!(found.first_missing(highest), want, "{highest} written, {lost} lost");
            }
        }
    }

    #[test]
    fn an_older_record_in_its_place_is_no_replacement() {
        let mut found = written(10);
        found.places[1] = Place::Whole(5);
        assert_eq!(found.first_missing(10), Some(9));
        // The last is lost altogether: nothing of it was found.
        let found = Found { counter: Some(9), ..written(9) };
        assert_eq!(found.first_missing(10), Some(10));
        assert_eq!(found.first_missing(12), Some(10));
    }

    #[test]
    fn the_counter_alone_may_be_behind() {
        let found = Found { counter: Some(8), ..written(10) };
        let path = Path::new("records");
        let text = verdict(path, &found, 10, found.first_missing(10)).unwrap_err();
        assert_eq!(text.exit_code(), 5);
        assert!(text.to_string().contains("record 10 is missing from the counter"), "{text}");
        assert!(verdict(path, &found, 8, None).is_ok());
    }
}
