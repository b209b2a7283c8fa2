//! Where a pool has flags, and which of their bits mean something. docs/format.md.

use super::forge::Forge;
use crate::lose::table_blocks;
use cow_format::BLOCK_SIZE;
use cow_format::checkpoint::Checkpoint;
use cow_format::entry::ENTRY_LEN;
use cow_format::superblock::COPY_BLOCKS;
use cow_format::table::is_overflow;

/// The flags of one structure.
#[derive(Clone, Debug)]
pub struct Flags {
    /// What it is called in an error, with its number.
    pub name: String,
    /// Block that it is in.
    pub block: u64,
    /// First byte of the flags in that block.
    pub byte: usize,
    /// How many bits they have.
    pub bits: u32,
    /// Those that mean something.
    pub known: u64,
}

/// The flags of every superblock copy, of the newest checkpoint, of every entry of its node table, and of
/// every frame that follows it.
#[must_use]
pub fn flags(forge: &Forge<'_>) -> Vec<Flags> {
    let mut all = Vec::new();
    for (copy, &block) in COPY_BLOCKS.iter().enumerate() {
        let name = format!("superblock copy {copy}");
        all.push(Flags { name, block, byte: 164, bits: 32, known: 1 });
    }
    let seq = forge.cp.seq;
    let block = forge.layout.cp_start[Checkpoint::area(seq)];
    all.push(Flags { name: format!("checkpoint {seq}"), block, byte: 96, bits: 64, known: 3 });
    let disk = &forge.specimen.disk;
    for (_, block) in table_blocks(disk).into_iter().filter(|(page, _)| !is_overflow(*page as u32))
    {
        let page = disk.peek(block);
        for at in (0..BLOCK_SIZE).step_by(ENTRY_LEN) {
            let id = word(&page[at..]);
            if id != 0 {
                let name = format!("entry of node {id}");
                all.push(Flags { name, block, byte: at + 47, bits: 8, known: 15 });
            }
        }
    }
    for &(block, _) in &forge.frames {
        let name = format!("journal frame {}", word(&disk.peek(block)[16..]));
        all.push(Flags { name, block, byte: 6, bits: 16, known: 3 });
    }
    all
}

fn word(bytes: &[u8]) -> u64 {
    bytes[..8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}
