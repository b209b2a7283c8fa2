//! Clients whose writes have numbers, and what may be there after a crash: everything up to the last
//! flush that was acknowledged, and of the rest a prefix, over all volumes.
//!
//! Writes are asked for in *batches*, one on each volume at most, all at once; a batch begins when
//! the one before it has been answered. So batches are in order, and of the last one that is
//! there any of its writes may be missing, each as a whole.

use crate::nbd::Client;
use crate::shim::Rng;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Bytes of a block.
pub const BLOCK: usize = 4096;
/// The longest write, in blocks.
const WRITE_MAX: u64 = 24;

/// What a volume holds: the number of the write that each block is of; 0 for zeros.
pub type Blocks = Vec<u64>;

/// What all volumes hold.
pub type Image = BTreeMap<String, Blocks>;

/// One write, or a discard (number 0).
#[derive(Clone, Debug)]
struct Write {
    volume: String,
    first: usize,
    blocks: usize,
    number: u64,
}

/// The bytes of a block.
fn content(number: u64, block: usize) -> Vec<u8> {
    if number == 0 {
        return vec![0; BLOCK];
    }
    let mut rng = Rng::new(number << 20 ^ block as u64);
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend((1..BLOCK / 8).flat_map(|_| rng.number().to_le_bytes()));
    bytes
}

/// What is written, and what of it must be there.
#[derive(Debug, Default)]
pub struct History {
    /// Before the first batch.
    base: Image,
    batches: Vec<Vec<Write>>,
    /// How many batches a flush has covered.
    flushed: usize,
    number: u64,
}

impl History {
    /// Of these volumes, all zeros, of so many blocks each.
    pub fn new(volumes: &[&str], blocks: usize) -> Self {
        let base = volumes.iter().map(|name| ((*name).to_owned(), vec![0; blocks])).collect();
        Self { base, ..Self::default() }
    }

    /// What all volumes hold when everything is there.
    pub fn now(&self) -> Image {
        let mut image = self.base.clone();
        self.batches.iter().flatten().for_each(|write| apply(&mut image, write));
        image
    }

    /// How many batches there are.
    pub fn batches(&self) -> usize {
        self.batches.len()
    }

    /// All batches until now are durable.
    pub fn was_flushed(&mut self) {
        self.flushed = self.batches.len();
    }

    /// A batch of random writes and discards.
    ///
    /// # Errors
    /// When a client gets one.
    pub fn batch(&mut self, clients: &mut [(String, Client)], rng: &mut Rng) -> io::Result<()> {
        let mut batch = Vec::new();
        for (volume, _) in clients.iter() {
            let len = self.base[volume].len() as u64;
            let longest = if rng.eighths(6) { 3 } else { WRITE_MAX };
            let blocks = 1 + rng.below(longest);
            let first = rng.below(len - blocks) as usize;
            self.number += 1;
            let number = if rng.eighths(1) { 0 } else { self.number };
            batch.push(Write { volume: volume.clone(), first, blocks: blocks as usize, number });
        }
        self.batches.push(batch.clone());
        // All are asked for before the first is waited for.
        for (write, (_, client)) in batch.iter().zip(clients.iter_mut()) {
            let offset = (write.first * BLOCK) as u64;
            if write.number == 0 {
                client.start_trim(offset, (write.blocks * BLOCK) as u32)?;
                continue;
            }
            let blocks = write.first..write.first + write.blocks;
            let data: Vec<u8> = blocks.flat_map(|block| content(write.number, block)).collect();
            client.start_write(offset, &data)?;
        }
        clients.iter_mut().try_for_each(|(_, client)| client.finish())
    }

    /// Compares with what is there after a crash, and goes on from that. Returns how many batches
    /// are lost.
    #[track_caller]
    pub fn survived(&mut self, found: &Image) -> usize {
        let mut before = self.base.clone();
        self.batches[..self.flushed].iter().flatten().for_each(|write| apply(&mut before, write));
        let mut kept = self.flushed;
        // The last batch of which something is there; its writes may be missing, and no others.
        for batch in &self.batches[self.flushed..] {
            if &before == found {
                break;
            }
            let mut after = before.clone();
            for write in batch {
                let range = write.first..write.first + write.blocks;
                let there = found[&write.volume][range].iter().all(|n| *n == write.number);
                if there {
                    apply(&mut after, write);
                }
            }
            if &after == found {
                before = after;
                kept += 1;
                break;
            }
            batch.iter().for_each(|write| apply(&mut before, write));
            kept += 1;
        }
        if &before != found {
            self.complain(found);
        }
        let lost = self.batches.len() - kept;
        self.base = before;
        self.batches.clear();
        self.flushed = 0;
        lost
    }

    #[track_caller]
    fn complain(&self, found: &Image) -> ! {
        let mut flushed = self.base.clone();
        self.batches[..self.flushed].iter().flatten().for_each(|write| apply(&mut flushed, write));
        let all = self.now();
        let mut text = String::new();
        for (volume, blocks) in found {
            for (block, number) in blocks.iter().enumerate() {
                let (old, new) = (flushed[volume][block], all[volume][block]);
                if ![old, new].contains(number) {
                    text += &format!("\n{volume} block {block}: {number}, not {old} or {new}");
                }
            }
        }
        let (batches, durable) = (self.batches.len(), self.flushed);
        panic!("no prefix of {batches} batches ({durable} of them flushed) is there:{text}");
    }
}

fn apply(image: &mut Image, write: &Write) {
    let blocks = image.get_mut(&write.volume).expect("a volume");
    blocks[write.first..write.first + write.blocks].fill(write.number);
}

/// Which writes an export holds. Every block must be whole, and in its place.
#[track_caller]
pub fn read_numbers(socket: &Path, export: &str) -> Blocks {
    let mut client = Client::connect(socket, export).expect("a connection");
    let mut numbers = Vec::new();
    let mut at = 0;
    while at < client.size_bytes {
        let len = (1 << 20).min(client.size_bytes - at);
        let data = client.read(at, len as u32).unwrap_or_else(|e| panic!("{export} at {at}: {e}"));
        for block in data.chunks(BLOCK) {
            let number = u64::from_le_bytes(block[..8].try_into().expect("8 bytes"));
            let place = numbers.len();
            assert!(block == content(number, place), "{export} block {place}: torn or misplaced");
            numbers.push(number);
        }
        at += len;
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(flushed: usize) -> History {
        let mut history = History::new(&["a", "b"], 8);
        for number in 1..=6_u64 {
            let write = |volume: &str, first| Write {
                volume: volume.into(),
                first,
                blocks: 2,
                number: 2 * number + u64::from(volume == "b"),
            };
            let first = (number % 4) as usize;
            history.batches.push(vec![write("a", first), write("b", first + 2)]);
        }
        history.flushed = flushed;
        history
    }

    fn up_to(history: &History, batches: usize) -> Image {
        let mut image = history.base.clone();
        history.batches[..batches].iter().flatten().for_each(|write| apply(&mut image, write));
        image
    }

    #[test]
    fn every_prefix_from_the_flush_on_passes() {
        for kept in 3..=6 {
            let found = up_to(&history(3), kept);
            assert_eq!(history(3).survived(&found), 6 - kept);
        }
        let refused =
            |found: Image| std::panic::catch_unwind(|| history(3).survived(&found)).is_err();
        assert!(refused(up_to(&history(3), 2)), "what was flushed is missing");
        let mut torn = up_to(&history(3), 5);
        torn.get_mut("a").unwrap()[1] = 0;
        assert!(refused(torn), "half a write is missing");
        // Batch 6 without batch 5.
        let mut hole = up_to(&history(3), 4);
        history(3).batches[5].iter().for_each(|write| apply(&mut hole, write));
        assert!(refused(hole), "a later batch without an earlier one");
        // One write of the last batch without the other.
        let mut part = up_to(&history(3), 4);
        apply(&mut part, &history(3).batches[4][1]);
        assert_eq!(history(3).survived(&part), 1);
    }
}
