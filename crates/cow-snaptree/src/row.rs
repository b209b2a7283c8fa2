//! Kill rows: for a node `x`, how many pointers of each birth its parent had and `x` has no more.
//!
//! ```text
//! payload of the blob: cells {birth u32, data u32, map u32}, by ascending birth
//! ```
//!
//! Rows are keyed by the raw birth and never relabelled: key `b` means the owner of `b`, whoever
//! that has become after splices.

use crate::error::{TreeError, corrupt};
use cow_format::Gen;
use cow_format::blob::CELL_LEN;
use cow_format::entry::Count;
use cow_format::wire::{Reader, Writer};
use std::collections::BTreeMap;

type Cells = BTreeMap<Gen, Count>;

/// A kill row. One whose blob was not read yet holds what was counted since, to be added to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// None where there is no cell: a pool with many snapshots has many rows, and few with cells.
    cells: Option<Box<Cells>>,
    loaded: bool,
}

impl Row {
    /// The row of a new node: empty, and known to be.
    pub(crate) fn empty() -> Self {
        Self { cells: None, loaded: true }
    }

    /// A row whose cells are in a blob.
    pub(crate) fn unloaded() -> Self {
        Self::default()
    }

    /// Whether the cells are all here.
    pub fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// Whether it has no cell, as far as it is loaded.
    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_none()
    }

    /// Cells by ascending birth: counts of data blocks and map nodes.
    pub fn cells(&self) -> impl Iterator<Item = (Gen, Count)> {
        self.cells.iter().flat_map(|cells| cells.iter()).map(|(&birth, &count)| (birth, count))
    }

    /// Sum of the cells with `above < birth <= to`.
    pub(crate) fn sum(&self, above: Gen, to: Gen) -> Count {
        let Some(cells) = self.cells.as_ref().filter(|_| above < to) else {
            return Count::default();
        };
        let bounds = (std::ops::Bound::Excluded(above), std::ops::Bound::Included(to));
        cells.range(bounds).fold(Count::default(), |sum, (_, &count)| add(sum, count))
    }

    pub(crate) fn add(&mut self, birth: Gen, count: Count) {
        let cell = self.cells.get_or_insert_default().entry(birth).or_default();
        *cell = add(*cell, count);
    }

    /// Takes `count` off a cell; false, and no change, if it holds less.
    pub(crate) fn take(&mut self, birth: Gen, count: Count) -> bool {
        let cell = self.cells.as_mut().and_then(|cells| cells.get_mut(&birth));
        let Some(cell) = cell else { return count == Count::default() };
        let (Some(data), Some(map)) =
            (cell.data.checked_sub(count.data), cell.map.checked_sub(count.map))
        else {
            return false;
        };
        *cell = Count { data, map };
        if *cell == Count::default() {
            if let Some(cells) = &mut self.cells {
                cells.remove(&birth);
            }
            self.cells.take_if(|cells| cells.is_empty());
        }
        true
    }

    /// Drops the cells with `above < birth <= to` and returns their sum.
    pub(crate) fn drop_range(&mut self, above: Gen, to: Gen) -> Count {
        let sum = self.sum(above, to);
        self.retain(|birth| birth <= above || birth > to);
        sum
    }

    fn retain(&mut self, stays: impl Fn(Gen) -> bool) {
        if let Some(cells) = &mut self.cells {
            cells.retain(|&birth, _| stays(birth));
        }
        self.cells.take_if(|cells| cells.is_empty());
    }

    /// Adds every cell of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        other.cells().for_each(|(birth, count)| self.add(birth, count));
    }

    /// Bytes of its payload, as far as it is loaded.
    pub(crate) fn encoded_len(&self) -> usize {
        let parts = |count: u64| count.div_ceil(u64::from(u32::MAX)) as usize;
        self.cells().map(|(_, c)| CELL_LEN * parts(c.data).max(parts(c.map))).sum()
    }

    /// The payload of its blob. A cell of more than 2^32 - 1 blocks (16 TiB killed of one birth)
    /// is written as several cells of that birth.
    pub fn encode(&self) -> Vec<u8> {
        debug_assert!(self.loaded, "an incomplete row is encoded");
        let mut w = Writer::default();
        for (birth, mut count) in self.cells() {
            while count != Count::default() {
                let data = count.data.min(u64::from(u32::MAX));
                let map = count.map.min(u64::from(u32::MAX));
                w.u32(birth.0);
                w.u32(data as u32);
                w.u32(map as u32);
                count = Count { data: count.data - data, map: count.map - map };
            }
        }
        w.bytes
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When it is not a whole number of cells by ascending birth.
    pub fn decode(payload: &[u8]) -> Result<Self, TreeError> {
        if !payload.len().is_multiple_of(CELL_LEN) {
            return corrupt("kill row: length");
        }
        let mut row = Self::empty();
        let (mut r, mut last) = (Reader::new(payload), Gen(0));
        while !r.is_done() {
            let (Ok(birth), Ok(data), Ok(map)) = (r.u32(), r.u32(), r.u32()) else {
                return corrupt("kill row: cell");
            };
            if Gen(birth) < last {
                return corrupt("kill row: births do not ascend");
            }
            last = Gen(birth);
            row.add(last, Count { data: u64::from(data), map: u64::from(map) });
        }
        Ok(row)
    }
}

pub(crate) fn add(a: Count, b: Count) -> Count {
    Count { data: a.data.saturating_add(b.data), map: a.map.saturating_add(b.map) }
}

/// Down to 0 and no further: a counter that came from a damaged table must not stop a fold.
pub(crate) fn sub(a: Count, b: Count) -> Count {
    Count { data: a.data.saturating_sub(b.data), map: a.map.saturating_sub(b.map) }
}

pub(crate) fn unit(is_map: bool, count: u64) -> Count {
    if is_map { Count { data: 0, map: count } } else { Count { data: count, map: 0 } }
}
