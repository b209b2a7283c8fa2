//! What the numbered records look like on the disk.
//!
//! ```text
//!  block 0      header: run, number of places, boot
//!        1, 2   counter: record n goes to block 1 + n % 2
//!        3      not used
//!        4 ...  places of two blocks: record n goes to place n % places
//! ```
//!
//! A record is whole when both of its blocks carry its number. The places go round, so on the first
//! round each record is written where nothing was, later over an older one. The counter is
//! overwritten each time, in two copies by turns, as checkpoints and superblocks are: the other copy
//! survives whatever becomes of the one being written.

use cow_format::{BLOCK_SIZE, Buf, checksum};

/// The name of the file with the records.
pub const FILE_NAME: &str = "cowctl-doctor.records";
/// How many records have a place of their own at once.
pub const PLACES: u64 = 8190;
/// Blocks of a record.
pub const RECORD_BLOCKS: u64 = 2;
/// The first block of the places.
const FIRST_PLACE: u64 = 4;

const HEADER_MAGIC: &[u8; 8] = b"COWDOCHD";
const RECORD_MAGIC: &[u8; 8] = b"COWDOCRC";
const CHECKSUM_AT: usize = BLOCK_SIZE - 4;
const BOOT_AT: usize = 40;
const BOOT_BYTES: usize = 36;

/// What tells the runs apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u64);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Bytes of the file.
pub fn file_bytes(places: u64) -> u64 {
    (FIRST_PLACE + places * RECORD_BLOCKS) * BLOCK_SIZE as u64
}

/// The block of the counter that record `number` is written to.
pub fn counter_block(number: u64) -> u64 {
    1 + number % 2
}

/// The first block of the place of record `number`.
pub fn place_block(number: u64, places: u64) -> u64 {
    FIRST_PLACE + number % places * RECORD_BLOCKS
}

/// The first block of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which run wrote the records.
    pub run: RunId,
    /// How many places there are.
    pub places: u64,
    /// The kernel's name for the time from one start of the machine to the next; empty if it is not
    /// known.
    pub boot: String,
}

impl Header {
    /// As it stands on the disk.
    pub fn encode(&self) -> Buf {
        let mut buf = Buf::zeroed(1);
        buf[..8].copy_from_slice(HEADER_MAGIC);
        buf[8..16].copy_from_slice(&self.run.0.to_le_bytes());
        buf[16..24].copy_from_slice(&self.places.to_le_bytes());
        let boot = self.boot.as_bytes();
        let len = boot.len().min(BOOT_BYTES);
        buf[BOOT_AT..BOOT_AT + len].copy_from_slice(&boot[..len]);
        seal(&mut buf);
        buf
    }

    /// `None` when the block is no header, or a damaged one.
    pub fn decode(block: &[u8]) -> Option<Self> {
        if !is_sealed(block) || block.get(..8)? != HEADER_MAGIC {
            return None;
        }
        let boot: Vec<u8> = block.get(BOOT_AT..BOOT_AT + BOOT_BYTES)?.to_vec();
        let boot = String::from_utf8_lossy(&boot).trim_end_matches('\0').to_owned();
        let places = word(block, 16)?;
        // No version has written more, and so many are still read into memory.
        let sane = (1..=1 << 20).contains(&places);
        sane.then_some(Self { run: RunId(word(block, 8)?), places, boot })
    }
}

/// A block of a record that is as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The record.
    pub number: u64,
    /// Which of its blocks; that of the counter is 2.
    pub part: u64,
}

/// Fills `block`, to be written at `at`.
pub fn encode(block: &mut [u8], run: RunId, at: u64, part: Part) {
    block[..8].copy_from_slice(RECORD_MAGIC);
    block[8..16].copy_from_slice(&run.0.to_le_bytes());
    block[16..24].copy_from_slice(&part.number.to_le_bytes());
    block[24..32].copy_from_slice(&part.part.to_le_bytes());
    block[32..40].copy_from_slice(&at.to_le_bytes());
    // Each sector differs from what was there before, so that none of an older record fits.
    let mut state = run.0 ^ part.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ part.part;
    for word in block[40..CHECKSUM_AT].chunks_mut(8) {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    seal(block);
}

/// What `block`, read at `at`, holds of `run`. `None`: nothing, or something damaged.
pub fn decode(block: &[u8], run: RunId, at: u64) -> Option<Part> {
    let ours = is_sealed(block)
        && block.get(..8)? == RECORD_MAGIC
        && word(block, 8)? == run.0
        && word(block, 32)? == at;
    ours.then_some(Part { number: word(block, 16)?, part: word(block, 24)? })
}

fn word(block: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(block.get(at..at + 8)?.try_into().ok()?))
}

fn seal(block: &mut [u8]) {
    let sum = checksum::data(&block[..CHECKSUM_AT]);
    block[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(block: &[u8]) -> bool {
    block.len() == BLOCK_SIZE
        && block[CHECKSUM_AT..] == checksum::data(&block[..CHECKSUM_AT]).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flipped_byte_of_a_record_is_seen() {
        let (run, part) = (RunId(7), Part { number: 3, part: 1 });
        let mut buf = Buf::zeroed(1);
        encode(&mut buf, run, 9, part);
        assert_eq!(decode(&buf, run, 9), Some(part));
        assert_eq!(decode(&buf, RunId(8), 9), None, "of another run");
        assert_eq!(decode(&buf, run, 10), None, "at another place");
        for at in 0..BLOCK_SIZE {
            buf[at] ^= 1;
            assert_eq!(decode(&buf, run, 9), None, "byte {at}");
            buf[at] ^= 1;
        }
    }

    /// A record torn between two sectors must not pass for one of the two.
    #[test]
    fn each_sector_of_a_record_tells_it_from_the_one_before() {
        let run = RunId(7);
        let (mut old, mut new) = (Buf::zeroed(1), Buf::zeroed(1));
        encode(&mut old, run, 9, Part { number: 3, part: 1 });
        encode(&mut new, run, 9, Part { number: 3 + PLACES, part: 1 });
        for sector in 0..8 {
            let range = sector * 512..(sector + 1) * 512;
            assert_ne!(old[range.clone()], new[range.clone()]);
            let mut torn = old.clone();
            torn[range.clone()].copy_from_slice(&new[range]);
            assert_eq!(decode(&torn, run, 9), None, "sector {sector}");
        }
    }

    #[test]
    fn a_header_round_trips_and_names_its_run() {
        let boot = "0f2ad2c1-9dd6-4bd8-8f0d-000000000000".to_owned();
        let header = Header { run: RunId(0xabc), places: PLACES, boot };
        let mut buf = header.encode();
        assert_eq!(Header::decode(&buf), Some(header));
        for at in 0..BLOCK_SIZE {
            buf[at] ^= 0x80;
            assert_eq!(Header::decode(&buf), None, "byte {at}");
            buf[at] ^= 0x80;
        }
    }

    #[test]
    fn places_go_round_and_the_counter_by_turns() {
        let end = file_bytes(PLACES) / BLOCK_SIZE as u64;
        assert_eq!(file_bytes(PLACES), 64 << 20);
        for number in 1..3 * PLACES {
            let at = place_block(number, PLACES);
            assert!(at >= 4 && at + RECORD_BLOCKS <= end);
            assert_eq!(at, place_block(number + PLACES, PLACES));
            assert_ne!(counter_block(number), counter_block(number + 1));
        }
    }
}
