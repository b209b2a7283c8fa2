//! Transfers that fall short, and operations that take long.
//!
//! The engine sees none of the first: the drivers of cow-io go on at the first block that was not
//! wholly moved, and complete the operation when all of it is done or a part of it fails. So does
//! this disk, and between two parts everything else happens: other operations, flushes, crashes. Where there is
//! room for a part alone, or a block in the midst cannot be moved, that is what is moved first.

use super::{Class, Kind, SECTOR, SimDisk};
use cow_format::BLOCK_SIZE;
use std::sync::Arc;

/// Sectors of a block.
const SECTORS: u64 = (BLOCK_SIZE / SECTOR) as u64;

impl SimDisk {
    /// Tells the time, which only moves forward.
    pub fn at_time(&mut self, now_ns: u64) {
        self.now_ns = self.now_ns.max(now_ns);
    }

    /// Since the faults were set: transfers that fell short, and operations that took long.
    #[must_use]
    pub fn delayed(&self) -> (u64, u64) {
        self.faults.delayed
    }

    /// The operations in flight that may complete by now, as indices, oldest first.
    pub fn due(&self) -> impl Iterator<Item = usize> {
        let all = self.in_flight.iter().enumerate();
        all.filter(|(_, op)| op.due_ns <= self.now_ns).map(|(index, _)| index)
    }

    /// When the next operation may complete.
    #[must_use]
    pub fn next_due_ns(&self) -> Option<u64> {
        self.in_flight.iter().map(|op| op.due_ns).min()
    }

    /// Whether operation `index` of those in flight moves a part now, and remains in flight.
    ///
    /// At least one block of a read is moved: a kernel that moves less has come to the end of the
    /// image. A write may end inside of its first block; that one is written again.
    pub fn falls_short(&mut self, index: usize) -> bool {
        let op = &self.in_flight[index];
        let left = op.blocks.saturating_sub(op.moved);
        let class = op.kind.class();
        let can = match class {
            Class::Read => left > 1,
            Class::Write => left > 0,
            _ => false,
        };
        let in_range = op.at.checked_add(op.blocks).is_some_and(|end| end <= self.blocks);
        if !can || !in_range || !self.faults.shortens() {
            return false;
        }
        let (moved, first) = (op.moved, op.at + op.moved);
        // What is hidden, bad or full fails the operation when it is about to end, and what is before that has been moved
        // then or not.
        let most = match class {
            Class::Read => self.faults.before_hidden(first, left),
            _ => self.room_at(first, self.faults.before_refused(first, left)),
        };
        if most == 0 {
            return false;
        }
        self.done += 1;
        // All of it is no part.
        let whole = u64::from(most < left);
        if class == Class::Read {
            let part = self.faults.rng.range(1, most + whole);
            self.read_part(index, moved + part);
            return true;
        }
        let sectors = self.faults.rng.range(1, most * SECTORS + whole);
        if let Some(below) = &mut self.below {
            below.take(first, sectors.div_ceil(SECTORS));
        }
        self.write_part(index, sectors);
        true
    }

    /// How many of these blocks, from the first on, a write finds room for.
    fn room_at(&self, first: u64, blocks: u64) -> u64 {
        self.below.as_ref().map_or(blocks, |below| below.front(first, blocks))
    }

    fn read_part(&mut self, index: usize, until: u64) {
        let op = &mut self.in_flight[index];
        let (at, from) = (op.at, std::mem::replace(&mut op.moved, until));
        let Kind::Read { mut buf, bypass_cache } = std::mem::replace(&mut op.kind, Kind::Allocate)
        else {
            return;
        };
        for block in from..until {
            match self.newest(at + block) {
                Some(page) => buf.block_mut(block as usize).copy_from_slice(&page[..]),
                None => buf.block_mut(block as usize).fill(0),
            }
        }
        self.in_flight[index].kind = Kind::Read { buf, bypass_cache };
    }

    fn write_part(&mut self, index: usize, sectors: u64) {
        let op = &self.in_flight[index];
        let (first, whole) = (op.at + op.moved, sectors / SECTORS);
        let Kind::Write { pages, write } = &op.kind else { return };
        let (from, write) = (op.moved as usize, *write);
        let mut parts: Vec<_> = pages[from..from + whole as usize].to_vec();
        let torn = (sectors % SECTORS) as usize * SECTOR;
        if torn > 0 {
            let mut page = self.peek(first + whole);
            page[..torn].copy_from_slice(&pages[from + whole as usize][..torn]);
            parts.push(Arc::new(page));
        }
        self.in_flight[index].moved += whole;
        for (block, page) in (first..).zip(parts) {
            self.cache(block, page, write);
        }
    }
}
