//! The device in memory.

use crate::FILLER;
use cow_format::{BLOCK_SIZE, Buf, Phys};

/// Blocks of a piece of a thin device.
const PIECE: u64 = 256;

/// 1 MiB of a thin device, of which a block that is the filler is a bit.
#[derive(Default)]
pub struct Piece {
    memory: Option<Buf>,
    filler: [u64; PIECE as usize / 64],
}

impl Piece {
    fn is_filler(&self, block: usize) -> bool {
        self.filler[block / 64] & 1 << (block % 64) != 0
    }

    fn set_filler(&mut self, block: usize, is: bool) {
        let bit = 1 << (block % 64);
        self.filler[block / 64] = self.filler[block / 64] & !bit | if is { bit } else { 0 };
    }
}

/// Blocks that can be read and written.
pub enum Device {
    /// All of its memory is there from the beginning. It comes zeroed from the kernel, as a `Buf` of so
    /// many blocks would not: callgrind would be at that for most of its time.
    Whole(Vec<u8>),
    /// Blocks with the content of the filler take no memory.
    Thin(Vec<Piece>, Box<[u8; BLOCK_SIZE]>),
}

impl Device {
    /// All of whose memory has been touched: else the kernel's work at that would be most of the
    /// figures.
    pub fn whole(blocks: u64) -> Self {
        let mut memory = vec![0; blocks as usize * BLOCK_SIZE];
        memory.iter_mut().step_by(BLOCK_SIZE).for_each(|byte| *byte = std::hint::black_box(0));
        Self::Whole(memory)
    }

    /// Which keeps no data, provided that it is [`FILLER`]: as large as one likes.
    pub fn thin(blocks: u64) -> Self {
        let pieces = (0..blocks.div_ceil(PIECE)).map(|_| Piece::default()).collect();
        Self::Thin(pieces, Box::new(crate::block(FILLER)))
    }

    pub fn blocks(&self) -> u64 {
        match self {
            Self::Whole(memory) => (memory.len() / BLOCK_SIZE) as u64,
            Self::Thin(pieces, _) => pieces.len() as u64 * PIECE,
        }
    }

    pub fn write(&mut self, at: Phys, bytes: &[u8]) {
        match self {
            Self::Whole(memory) => {
                memory[at.byte_offset() as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            Self::Thin(pieces, filler) => {
                for (block, at) in bytes.chunks(BLOCK_SIZE).zip(at.0..) {
                    let (piece, at) = (&mut pieces[(at / PIECE) as usize], (at % PIECE) as usize);
                    put(piece, at, block, &filler[..]);
                }
            }
        }
    }

    pub fn read(&self, at: Phys, bytes: &mut [u8]) {
        match self {
            Self::Whole(memory) => {
                bytes.copy_from_slice(&memory[at.byte_offset() as usize..][..bytes.len()]);
            }
            Self::Thin(pieces, filler) => {
                for (block, at) in bytes.chunks_mut(BLOCK_SIZE).zip(at.0..) {
                    let (piece, at) = (&pieces[(at / PIECE) as usize], (at % PIECE) as usize);
                    match &piece.memory {
                        _ if piece.is_filler(at) => block.copy_from_slice(&filler[..]),
                        Some(memory) => block.copy_from_slice(memory.block(at)),
                        None => block.fill(0),
                    }
                }
            }
        }
    }
}

fn put(piece: &mut Piece, at: usize, block: &[u8], filler: &[u8]) {
    let is_filler = block == filler;
    piece.set_filler(at, is_filler);
    if !is_filler {
        let memory = piece.memory.get_or_insert_with(|| Buf::zeroed(PIECE as usize));
        memory.block_mut(at).copy_from_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block;

    #[test]
    fn both_kinds_read_what_was_written_last() {
        let filler = block(FILLER);
        for mut device in [Device::whole(1024), Device::thin(1024)] {
            let pieces = [filler, block(1), filler, block(2)].concat();
            // Over the seam between two pieces.
            device.write(Phys(PIECE - 2), &pieces);
            let mut read = vec![1; 6 * BLOCK_SIZE];
            device.read(Phys(PIECE - 3), &mut read);
            let zero = [0; BLOCK_SIZE];
            assert!(read == [&zero[..], &pieces, &zero].concat(), "read as it was written");
            device.write(Phys(PIECE - 2), &block(3));
            device.write(Phys(PIECE - 1), &filler);
            device.read(Phys(PIECE - 2), &mut read);
            assert!(read[..2 * BLOCK_SIZE] == [block(3), filler].concat(), "written over");
        }
    }
}
