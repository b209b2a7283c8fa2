//! A map from `u64` whose clones share what neither side changes: sorted chunks of up to 16
//! neighbouring keys behind `Arc`, shelves of up to 16 neighbouring chunks behind another, and racks
//! of up to 16 shelves. A clone costs one reference per rack, and the first change after it copies
//! the references of one rack, one shelf and one chunk: so that a verb costs the same among ten and
//! ten thousand nodes, and a fold can clone a tree of a million while the foreground goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

const CHUNK_BITS: u32 = 4;
const SHELF_BITS: u32 = CHUNK_BITS + 4;
const RACK_BITS: u32 = SHELF_BITS + 4;

/// Values by ascending key.
type Sorted<V> = Vec<(u64, V)>;
type Shelf<V> = Sorted<Arc<Sorted<V>>>;
type Rack<V> = Sorted<Arc<Shelf<V>>>;

#[derive(Clone, Debug)]
pub(crate) struct ChunkMap<V> {
    racks: BTreeMap<u64, Arc<Rack<V>>>,
    len: usize,
}

impl<V> Default for ChunkMap<V> {
    fn default() -> Self {
        Self { racks: BTreeMap::new(), len: 0 }
    }
}

impl<V: PartialEq + Clone> PartialEq for ChunkMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<V: Eq + Clone> Eq for ChunkMap<V> {}

fn find<V>(sorted: &Sorted<V>, key: u64) -> Result<usize, usize> {
    // Ids follow each other: most often there is no gap before it.
    let guess = sorted.first().map_or(0, |first| key.wrapping_sub(first.0)) as usize;
    if sorted.get(guess).is_some_and(|entry| entry.0 == key) {
        return Ok(guess);
    }
    sorted.binary_search_by_key(&key, |entry| entry.0)
}

fn below<V>(sorted: &Sorted<V>, key: u64) -> Option<&V> {
    Some(&sorted[find(sorted, key).ok()?].1)
}

/// What lies at `key`, for this map alone; something empty if there was nothing.
fn below_mut<T: Clone + Default>(sorted: &mut Sorted<Arc<T>>, key: u64) -> &mut T {
    let at = find(sorted, key).unwrap_or_else(|at| {
        sorted.insert(at, (key, Arc::default()));
        at
    });
    Arc::make_mut(&mut sorted[at].1)
}

/// Bundles of neighbours: those whose keys are the same but for the last four bits.
fn bundles<V>(sorted: Vec<(u64, V)>) -> Vec<(u64, Arc<Sorted<V>>)> {
    let mut all = sorted.into_iter();
    let mut bundles = Vec::with_capacity(all.len().div_ceil(1 << CHUNK_BITS));
    while let Some(&(first, _)) = all.as_slice().first() {
        let key = first >> CHUNK_BITS;
        let near = all.as_slice().iter().take(1 << CHUNK_BITS);
        let count = near.take_while(|entry| entry.0 >> CHUNK_BITS == key).count();
        bundles.push((key, Arc::new(all.by_ref().take(count).collect())));
    }
    bundles
}

impl<V: Clone> ChunkMap<V> {
    /// A map of these, which are in order of their keys, none twice.
    pub(crate) fn from_sorted(sorted: Vec<(u64, V)>) -> Self {
        debug_assert!(sorted.is_sorted_by(|a, b| a.0 < b.0), "keys out of order");
        let len = sorted.len();
        Self { racks: bundles(bundles(bundles(sorted))).into_iter().collect(), len }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        let shelf = below(self.racks.get(&(key >> RACK_BITS))?, key >> SHELF_BITS)?;
        below(below(shelf, key >> CHUNK_BITS)?, key)
    }

    /// The chunk of `key`, for this map alone.
    fn chunk_mut(&mut self, key: u64) -> &mut Sorted<V> {
        let rack = Arc::make_mut(self.racks.entry(key >> RACK_BITS).or_default());
        below_mut(below_mut(rack, key >> SHELF_BITS), key >> CHUNK_BITS)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        // Nothing is copied for what is not there.
        self.get(key)?;
        let chunk = self.chunk_mut(key);
        let at = find(chunk, key).ok()?;
        Some(&mut chunk[at].1)
    }

    pub(crate) fn contains_key(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    /// Returns what stood there before.
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let chunk = self.chunk_mut(key);
        match find(chunk, key) {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        self.get(key)?;
        let rack = Arc::make_mut(self.racks.get_mut(&(key >> RACK_BITS))?);
        let at_shelf = find(rack, key >> SHELF_BITS).ok()?;
        let shelf = Arc::make_mut(&mut rack[at_shelf].1);
        let at_chunk = find(shelf, key >> CHUNK_BITS).ok()?;
        let chunk = Arc::make_mut(&mut shelf[at_chunk].1);
        let at = find(chunk, key).ok()?;
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            shelf.remove(at_chunk);
        }
        if shelf.is_empty() {
            rack.remove(at_shelf);
        }
        if rack.is_empty() {
            self.racks.remove(&(key >> RACK_BITS));
        }
        self.len -= 1;
        Some(value)
    }

    /// By ascending key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let shelves = self.racks.values().flat_map(|rack| rack.iter());
        let chunks = shelves.flat_map(|(_, shelf)| shelf.iter());
        chunks.flat_map(|(_, chunk)| chunk.iter().map(|(key, value)| (*key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Rng;

    /// Chunks of `map` that `other` does not share.
    fn copied(map: &ChunkMap<u64>, other: &ChunkMap<u64>) -> usize {
        let chunks = |map: &ChunkMap<u64>| -> Vec<*const Sorted<u64>> {
            let shelves = map.racks.values().flat_map(|rack| rack.iter());
            let chunks = shelves.flat_map(|(_, shelf)| shelf.iter());
            chunks.map(|(_, chunk)| Arc::as_ptr(chunk)).collect()
        };
        let theirs = chunks(other);
        chunks(map).iter().filter(|chunk| !theirs.contains(chunk)).count()
    }

    #[test]
    fn a_change_copies_one_chunk_and_all_else_is_as_in_a_plain_map() {
        let (mut map, mut plain, mut rng) = (ChunkMap::default(), BTreeMap::new(), Rng(1));
        for round in 0..20_000 {
            let few = if round % 5000 < 2500 { 10_000 } else { 40 };
            let key = [rng.next() % few, u64::MAX - rng.next() % 100][rng.below(2)];
            let before = map.clone();
            match rng.below(3) {
                0 => assert_eq!(map.remove(key), plain.remove(&key)),
                1 => assert_eq!(map.insert(key, round), plain.insert(key, round)),
                _ => assert_eq!(map.get_mut(key), plain.get_mut(&key)),
            }
            if round % 100 == 0 {
                assert!(copied(&map, &before) <= 1);
                assert!(map.iter().eq(plain.iter().map(|(key, value)| (*key, value))));
                let sorted = plain.iter().map(|(key, value)| (*key, *value)).collect();
                let again = ChunkMap::from_sorted(sorted);
                assert_eq!(map, again);
                assert!(plain.keys().all(|key| again.get(*key) == plain.get(key)));
            }
            assert_eq!((map.len(), map.get(key)), (plain.len(), plain.get(&key)));
        }
        for key in plain.into_keys() {
            map.remove(key);
        }
        assert!(map.racks.is_empty() && map.len() == 0);
    }
}
