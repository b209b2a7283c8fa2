//! Names: what they may be, and the index from name to node.

use crate::chunkmap::ChunkMap;
use crate::error::{TreeError, invalid};
use cow_format::VolumeId;
use cow_format::entry::MAX_NAME;
use std::sync::Arc;

/// Names that begin so belong to the engine.
pub(crate) const UNDO_PREFIX: &str = "undo.";

/// Whether `name` is one that a volume or snapshot can have: 1 to 128 bytes of `[A-Za-z0-9_.-]`,
/// not beginning with `.` or `-`.
pub fn valid_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// Checks a name that a user chose; `field` is only for the error.
pub(crate) fn check_user_name(field: &str, name: &str) -> Result<(), TreeError> {
    if !valid_name(name) {
        return invalid(format!(
            "{field}: {name:?} is not 1 to 128 of [A-Za-z0-9_.-], not starting with . or -"
        ));
    }
    if name.starts_with(UNDO_PREFIX) {
        return invalid(format!("{field}: names that begin with {UNDO_PREFIX} are reserved"));
    }
    Ok(())
}

/// Names are spread over 2^11 shards, by the upper bits of their hash.
const SHARD_BITS: u32 = 11;

/// `(hash, id)`, by ascending hash.
type Shard = Arc<[(u64, u64)]>;

/// From the hash of a name to the ids of those that may have it: the names themselves stand in the
/// tree alone, where who asks compares them. Clones share what neither side changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct NameIndex {
    shards: ChunkMap<Shard>,
}

impl NameIndex {
    /// An index of `(hash, id)`.
    pub(crate) fn new(names: &[(u64, u64)]) -> Self {
        // Spread over the shards first, which takes less time than to sort all.
        let mut ends = vec![0; (1 << SHARD_BITS) + 1];
        names.iter().for_each(|name| ends[shard_of(name.0) as usize + 1] += 1);
        for shard in 1..ends.len() {
            ends[shard] += ends[shard - 1];
        }
        let mut spread = vec![(0, 0); names.len()];
        for name in names {
            let place = &mut ends[shard_of(name.0) as usize];
            spread[*place] = *name;
            *place += 1;
        }
        let shards = spread.chunk_by_mut(|a, b| shard_of(a.0) == shard_of(b.0)).map(|shard| {
            shard.sort_unstable();
            (shard_of(shard[0].0), Arc::from(&*shard))
        });
        Self { shards: ChunkMap::from_sorted(shards.collect()) }
    }

    /// Ids whose names have this hash.
    pub(crate) fn candidates(&self, hash: u64) -> impl Iterator<Item = u64> {
        let shard = self.shards.get(shard_of(hash)).map_or(&[][..], |shard| shard);
        let from = shard.partition_point(|entry| entry.0 < hash);
        shard[from..].iter().take_while(move |entry| entry.0 == hash).map(|entry| entry.1)
    }

    /// All of whose hashes there are two or more, each hash together.
    pub(crate) fn collisions(&self) -> impl Iterator<Item = &[(u64, u64)]> {
        let runs = self.shards.iter().flat_map(|(_, shard)| shard.chunk_by(|a, b| a.0 == b.0));
        runs.filter(|run| run.len() > 1)
    }

    /// `id` has a name with this hash from now on.
    pub(crate) fn insert(&mut self, hash: u64, id: u64) {
        let key = shard_of(hash);
        let old = self.shards.get(key).map_or(&[][..], |shard| shard);
        let (before, after) = old.split_at(old.partition_point(|entry| *entry < (hash, id)));
        let shard = [before, &[(hash, id)], after].concat();
        self.shards.insert(key, shard.into());
    }

    /// It has that no more.
    pub(crate) fn remove(&mut self, hash: u64, id: u64) {
        let key = shard_of(hash);
        let Some(shard) = self.shards.get_mut(key) else { return };
        *shard = shard.iter().copied().filter(|entry| *entry != (hash, id)).collect();
        if shard.is_empty() {
            self.shards.remove(key);
        }
    }
}

fn shard_of(hash: u64) -> u64 {
    hash >> (u64::BITS - SHARD_BITS)
}

/// Hash of the name of a volume.
pub(crate) fn volume_hash(name: &str) -> u64 {
    hash(VolumeId(0), name)
}

/// Hash of the name of a snapshot of `volume`.
pub(crate) fn snapshot_hash(volume: VolumeId, name: &str) -> u64 {
    hash(volume, name)
}

/// FNV-1a (Fowler, Noll, Vo), finished as MurmurHash3 does: any spread will do, but it must be the
/// same in every run.
fn hash(scope: VolumeId, name: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325_u64 ^ scope.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut hash = name
        .bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ hash >> 33).wrapping_mul(factor);
    }
    hash ^ hash >> 33
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Rng;
    use std::collections::BTreeSet;

    #[test]
    fn names_with_one_hash_are_all_found() {
        let (mut index, mut plain, mut rng) = (NameIndex::default(), BTreeSet::new(), Rng(1));
        for round in 0..4000 {
            // Few shards, and few hashes in each.
            let hash = [0, 1, 2, u64::MAX][rng.below(4)] ^ (rng.next() % 3) << 60;
            let entry = (hash, rng.next() % 5);
            if rng.chance(50) {
                index.remove(entry.0, entry.1);
                plain.remove(&entry);
            } else if plain.insert(entry) {
                index.insert(entry.0, entry.1);
            }
            let ids = plain.iter().filter(|entry| entry.0 == hash).map(|entry| entry.1);
            assert!(index.candidates(hash).eq(ids), "{round}");
            let mut names: Vec<(u64, u64)> = plain.iter().copied().collect();
            names.reverse();
            let again = NameIndex::new(&names);
            assert_eq!(again.shards, index.shards, "{round}");
            let same: usize = again.collisions().map(<[_]>::len).sum();
            let alone = |of: &[(u64, u64)]| usize::from(of.len() == 1);
            let sorted: Vec<(u64, u64)> = plain.iter().copied().collect();
            let alone: usize = sorted.chunk_by(|a, b| a.0 == b.0).map(alone).sum();
            assert_eq!(same + alone, plain.len(), "{round}");
        }
    }
}
