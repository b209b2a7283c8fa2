//! What frames hold: records, and whole or cut groups of them.

use cow_format::frame::{FLAG_MORE, FLAG_PAD, Frame};
use cow_format::record::Record;
use cow_format::wire::Reader;
use cow_format::{FormatError, Phys};

/// The records of a frame.
///
/// # Errors
/// When its payload is not exactly the records that it counts. The error names no block, as a
/// frame does not know where it was read.
pub fn records_of(frame: &Frame) -> Result<Vec<Record>, FormatError> {
    let bad = |_| FormatError::Field { what: "journal frame", at: Phys::NONE, field: "records" };
    let mut reader = Reader::new(&frame.payload);
    let records: Vec<Record> = (0..frame.record_count)
        .map(|_| Record::decode(&mut reader))
        .collect::<Result<_, _>>()
        .map_err(bad)?;
    if reader.is_done() { Ok(records) } else { Err(bad(cow_format::wire::Malformed)) }
}

/// How many of `frames` form whole groups. Recovery accepts no more: a group whose last frame is
/// missing is cut before its first. Pads may be among the frames or not.
pub fn complete_prefix(frames: &[Frame]) -> usize {
    let mut whole = 0;
    let mut inside = false;
    for (index, frame) in frames.iter().enumerate() {
        // A pad between the frames of one group neither ends it nor begins another.
        if frame.flags & FLAG_PAD == 0 {
            inside = frame.flags & FLAG_MORE != 0;
        }
        if !inside {
            whole = index + 1;
        }
    }
    whole
}
