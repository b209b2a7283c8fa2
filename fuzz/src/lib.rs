//! What each fuzz target does with its input, without the fuzzer, so that a test can run the kept
//! inputs too.

pub mod blob;
pub mod checkpoint;
pub mod control;
pub mod frame;
pub mod image;
pub mod import;
pub mod journal;
pub mod map_node;
pub mod nbd_request;
pub mod nbd_session;
pub mod node_table;
pub mod superblock;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("superblock", superblock::run),
    ("checkpoint", checkpoint::run),
    ("map_node", map_node::run),
    ("node_table", node_table::run),
    ("blob", blob::run),
    ("frame", frame::run),
    ("journal", journal::run),
    ("image", image::run),
    ("nbd_request", nbd_request::run),
    ("nbd_session", nbd_session::run),
    ("control", control::run),
    ("import", import::run),
];

/// Bytes `at .. at + 8` as a number, or zero.
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    if let Some(found) = bytes.get(at..at + 8) {
        word.copy_from_slice(found);
    }
    u64::from_le_bytes(word)
}

/// `data` as a block, with zeros where it ends early.
fn block(data: &[u8]) -> [u8; cow_format::BLOCK_SIZE] {
    let mut block = [0; cow_format::BLOCK_SIZE];
    let len = data.len().min(block.len());
    block[..len].copy_from_slice(&data[..len]);
    block
}

/// Puts the salted checksum of `bytes` into its place in them.
fn seal(
    bytes: &mut [u8],
    at: usize,
    salt: cow_format::checksum::Salt,
    tag: u64,
    address: u64,
) -> u32 {
    let parts = [&bytes[..at], &[0; 4], &bytes[at + 4..]];
    let crc = cow_format::checksum::salted(salt, tag, address, &parts);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    crc
}
