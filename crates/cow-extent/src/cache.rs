//! The cache of map nodes, by physical block. Second chance (Corbató's CLOCK): a hit sets a bit,
//! the hand clears it and takes what has none.

use cow_format::mapnode::MapNode;
use cow_format::{IdMap, Phys, mutant};
use std::sync::Arc;

/// Memory of a cached node: 256 slots of 16 bytes, and its bookkeeping.
const NODE_BYTES: usize = 4096 + 160;

struct Cell {
    phys: Phys,
    crc: u32,
    node: Arc<MapNode>,
    used: bool,
}

/// Map nodes that were read or written lately.
pub struct NodeCache {
    cells: Vec<Cell>,
    index: IdMap<Phys, usize>,
    hand: usize,
    capacity: usize,
}

impl NodeCache {
    /// A cache of about `bytes` bytes.
    pub fn new(bytes: usize) -> Self {
        let capacity = (bytes / NODE_BYTES).max(16);
        Self { cells: Vec::new(), index: IdMap::default(), hand: 0, capacity }
    }

    /// The node stored at `phys`, if it is the one with checksum `crc`: a block's address alone
    /// says nothing of whose node it was.
    pub fn get(&mut self, phys: Phys, crc: u32) -> Option<Arc<MapNode>> {
        let cell = &mut self.cells[*self.index.get(&phys)?];
        if cell.crc != crc && !mutant::is("cachestale") {
            return None;
        }
        cell.used = true;
        Some(Arc::clone(&cell.node))
    }

    /// Puts a node in; another one may go.
    pub fn insert(&mut self, phys: Phys, crc: u32, node: Arc<MapNode>) {
        let cell = Cell { phys, crc, node, used: false };
        if let Some(&at) = self.index.get(&phys) {
            if !mutant::is("cachestale") {
                self.cells[at] = cell;
            }
            return;
        }
        if self.cells.len() < self.capacity {
            self.index.insert(phys, self.cells.len());
            self.cells.push(cell);
            return;
        }
        while self.cells[self.hand].used {
            self.cells[self.hand].used = false;
            self.hand = (self.hand + 1) % self.capacity;
        }
        self.index.remove(&self.cells[self.hand].phys);
        self.index.insert(phys, self.hand);
        self.cells[self.hand] = cell;
        self.hand = (self.hand + 1) % self.capacity;
    }

    /// Forgets the node at `phys`: its block was freed.
    pub fn remove(&mut self, phys: Phys) {
        let Some(at) = self.index.remove(&phys) else { return };
        self.cells.swap_remove(at);
        if let Some(moved) = self.cells.get(at) {
            self.index.insert(moved.phys, at);
        }
        if self.hand >= self.cells.len() {
            self.hand = 0;
        }
    }
}
