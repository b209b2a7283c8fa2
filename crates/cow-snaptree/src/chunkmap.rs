//! A map from `u64` whose clones share what neither side changes: sorted chunks of up to 64
//! neighbouring keys behind `Arc`, and shelves of up to 64 neighbouring chunks behind another. A
//! clone costs one reference per shelf, and the first change after it copies the references of one
//! shelf and one chunk: so that a verb costs the same among ten and ten thousand nodes, and a fold
//! can clone a tree of a million while the foreground goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

const CHUNK_BITS: u32 = 6;
const SHELF_BITS: u32 = CHUNK_BITS + 6;

/// Values by ascending key.
type Sorted<V> = Vec<(u64, V)>;
type Shelf<V> = Sorted<Arc<Sorted<V>>>;

#[derive(Clone, Debug)]
pub(crate) struct ChunkMap<V> {
    shelves: BTreeMap<u64, Arc<Shelf<V>>>,
    len: usize,
}

impl<V> Default for ChunkMap<V> {
    fn default() -> Self {
        Self { shelves: BTreeMap::new(), len: 0 }
    }
}

impl<V: PartialEq + Clone> PartialEq for ChunkMap<V> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<V: Eq + Clone> Eq for ChunkMap<V> {}

fn find<V>(sorted: &Sorted<V>, key: u64) -> Result<usize, usize> {
    sorted.binary_search_by_key(&key, |entry| entry.0)
}

impl<V: Clone> ChunkMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        let shelf = self.shelves.get(&(key >> SHELF_BITS))?;
        let chunk = &shelf[find(shelf, key >> CHUNK_BITS).ok()?].1;
        Some(&chunk[find(chunk, key).ok()?].1)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let shelf = self.shelves.get_mut(&(key >> SHELF_BITS))?;
        let place = find(shelf, key >> CHUNK_BITS).ok()?;
        let at = find(&shelf[place].1, key).ok()?;
        let chunk = &mut Arc::make_mut(shelf)[place].1;
        Some(&mut Arc::make_mut(chunk)[at].1)
    }

    pub(crate) fn contains_key(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    /// Returns what stood there before.
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let shelf = Arc::make_mut(self.shelves.entry(key >> SHELF_BITS).or_default());
        let place = match find(shelf, key >> CHUNK_BITS) {
            Ok(place) => place,
            Err(place) => {
                shelf.insert(place, (key >> CHUNK_BITS, Arc::default()));
                place
            }
        };
        let chunk = Arc::make_mut(&mut shelf[place].1);
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
        let shelf = self.shelves.get_mut(&(key >> SHELF_BITS))?;
        let place = find(shelf, key >> CHUNK_BITS).ok()?;
        let at = find(&shelf[place].1, key).ok()?;
        let shelf = Arc::make_mut(shelf);
        let chunk = Arc::make_mut(&mut shelf[place].1);
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            shelf.remove(place);
        }
        if shelf.is_empty() {
            self.shelves.remove(&(key >> SHELF_BITS));
        }
        self.len -= 1;
        Some(value)
    }

    /// By ascending key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        let chunks = self.shelves.values().flat_map(|shelf| shelf.iter());
        chunks.flat_map(|(_, chunk)| chunk.iter().map(|(key, value)| (*key, value)))
    }
}
