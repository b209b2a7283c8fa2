//! A map from `u64` whose clones share what neither side changes: sorted chunks of up to 64
//! neighbouring keys behind `Arc`. A clone costs one reference per chunk and the first change of
//! a chunk after it copies that chunk, so that a fold can clone a tree of a million nodes while
//! the foreground goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

const CHUNK_BITS: u32 = 6;

type Chunk<V> = Vec<(u64, V)>;

#[derive(Clone, Debug)]
pub(crate) struct ChunkMap<V> {
    chunks: BTreeMap<u64, Arc<Chunk<V>>>,
    len: usize,
}

impl<V> Default for ChunkMap<V> {
    fn default() -> Self {
        Self { chunks: BTreeMap::new(), len: 0 }
    }
}

impl<V: Clone> ChunkMap<V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: u64) -> Option<&V> {
        let chunk = self.chunks.get(&(key >> CHUNK_BITS))?;
        let at = chunk.binary_search_by_key(&key, |e| e.0).ok()?;
        Some(&chunk[at].1)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let chunk = self.chunks.get_mut(&(key >> CHUNK_BITS))?;
        let at = chunk.binary_search_by_key(&key, |e| e.0).ok()?;
        Some(&mut Arc::make_mut(chunk)[at].1)
    }

    pub(crate) fn contains_key(&self, key: u64) -> bool {
        self.get(key).is_some()
    }

    /// Returns what stood there before.
    pub(crate) fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let chunk = Arc::make_mut(self.chunks.entry(key >> CHUNK_BITS).or_default());
        match chunk.binary_search_by_key(&key, |e| e.0) {
            Ok(at) => Some(std::mem::replace(&mut chunk[at].1, value)),
            Err(at) => {
                chunk.insert(at, (key, value));
                self.len += 1;
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: u64) -> Option<V> {
        let index = key >> CHUNK_BITS;
        let chunk = self.chunks.get_mut(&index)?;
        let at = chunk.binary_search_by_key(&key, |e| e.0).ok()?;
        let chunk = Arc::make_mut(chunk);
        let (_, value) = chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(&index);
        }
        self.len -= 1;
        Some(value)
    }

    /// By ascending key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &V)> {
        self.chunks.values().flat_map(|chunk| chunk.iter().map(|(key, value)| (*key, value)))
    }
}
