//! The blocks that clients write and read: a few, on both sides of the end of a leaf of the map, so that
//! they meet there.

use super::op::{Cell, Token};
use crate::sector::{SECTOR, token_of};
use std::ops::Range;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Sectors of a block.
const SECTORS: u64 = BLOCK / SECTOR as u64;

/// Where runs of neighbouring blocks begin, and how long they are.
const RUNS: [(u64, u64); 3] = [(0, 2), (254, 4), (1023, 2)];

/// A range of bytes, and the cells that it covers.
#[derive(Clone, Debug)]
pub struct Spot {
    /// First byte.
    pub offset: u64,
    /// The first of its sectors.
    pub first: Cell,
    /// How many they are.
    pub sectors: u64,
}

impl Spot {
    /// Blocks `blocks` of run `run`, `RUNS` being taken round and round; cut to what there is.
    #[must_use]
    pub fn blocks(run: u64, blocks: Range<u64>) -> Self {
        let run = (run % RUNS.len() as u64) as usize;
        let (start, len) = RUNS[run];
        let first = blocks.start.min(len - 1);
        let count = blocks.end.clamp(first + 1, len) - first;
        let before: u64 = RUNS[..run].iter().map(|&(_, len)| len).sum();
        Self {
            offset: (start + first) * BLOCK,
            first: ((before + first) * SECTORS) as Cell,
            sectors: count * SECTORS,
        }
    }

    /// Without so many sectors in front and at the end; at least one is left.
    #[must_use]
    pub fn shrunk(&self, front: u64, back: u64) -> Self {
        let front = front.min(self.sectors - 1);
        let sectors = self.sectors - front - back.min(self.sectors - front - 1);
        let offset = self.offset + front * SECTOR as u64;
        Self { offset, first: self.first + front as Cell, sectors }
    }

    /// The whole blocks in it, which a discard lets go.
    #[must_use]
    pub fn whole(&self) -> Option<Self> {
        let front =
            self.offset.next_multiple_of(BLOCK) / SECTOR as u64 - self.offset / SECTOR as u64;
        let left = self.sectors.checked_sub(front)?;
        let sectors = left / SECTORS * SECTORS;
        let offset = self.offset + front * SECTOR as u64;
        (sectors > 0).then_some(Self { offset, first: self.first + front as Cell, sectors })
    }

    /// In parts that do not cross a multiple of `bytes`.
    #[must_use]
    pub fn cut(&self, bytes: u64) -> Vec<Self> {
        let (mut parts, mut rest) = (Vec::new(), self.clone());
        while rest.sectors > 0 {
            let end = (rest.offset + 1).next_multiple_of(bytes);
            let sectors = rest.sectors.min((end - rest.offset) / SECTOR as u64);
            parts.push(Self { sectors, ..rest.clone() });
            rest.offset += sectors * SECTOR as u64;
            rest.first += sectors as Cell;
            rest.sectors -= sectors;
        }
        parts
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.sectors * SECTOR as u64
    }

    /// Never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sectors == 0
    }

    /// Its cells, each holding `token`.
    #[must_use]
    pub fn cells(&self, token: Token) -> Vec<(Cell, Token)> {
        (0..self.sectors).map(|i| (self.first + i as Cell, token)).collect()
    }

    /// What was read here, block by block.
    #[must_use]
    pub fn seen(&self, bytes: &[u8]) -> Vec<Vec<(Cell, Token)>> {
        let mut blocks: Vec<Vec<(Cell, Token)>> = Vec::new();
        for (i, sector) in bytes.chunks(SECTOR).take(self.sectors as usize).enumerate() {
            let cell = self.first + i as Cell;
            if i == 0 || u64::from(cell).is_multiple_of(SECTORS) {
                blocks.push(Vec::new());
            }
            if let Some(block) = blocks.last_mut() {
                block.push((cell, token_of(sector)));
            }
        }
        blocks
    }
}

/// All of the area.
#[must_use]
pub fn everything() -> Vec<Spot> {
    (0..RUNS.len() as u64).map(|run| Spot::blocks(run, 0..u64::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::bytes_of;

    #[test]
    fn spots_know_their_bytes_and_cells() {
        let spot = Spot::blocks(1, 1..3);
        assert_eq!((spot.offset, spot.first, spot.len()), (255 * BLOCK, 3 * 8, 2 * BLOCK));
        let part = spot.shrunk(3, 2);
        assert_eq!((part.offset, part.first, part.sectors), (255 * BLOCK + 1536, 27, 11));
        assert!(part.whole().is_none(), "5 sectors of one block and 6 of the next");
        assert_eq!(
            spot.shrunk(0, 2).whole().map(|whole| (whole.first, whole.sectors)),
            Some((24, 8))
        );
        assert_eq!(
            spot.shrunk(1, 0).whole().map(|whole| (whole.first, whole.sectors)),
            Some((32, 8))
        );
        assert_eq!(spot.shrunk(99, 99).sectors, 1);
        let cut: Vec<_> = part.cut(1 << 20).iter().map(|p| (p.first, p.sectors)).collect();
        assert_eq!(cut, [(27, 5), (32, 6)]);
        let seen = part.seen(&bytes_of(7, 11));
        assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [5, 6]);
        assert_eq!(seen[1][0], (32, 7));
        let cells: u64 = everything().iter().map(|spot| spot.sectors).sum();
        assert_eq!(cells, 64);
    }
}
