//! Hash maps by ids and addresses that the engine itself has given out. The standard hasher is made
//! for keys that an adversary chooses, and takes longer than all else that such a lookup does.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A map by ids.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;
/// A set of ids.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Multiplicative hashing (Knuth, The Art of Computer Programming 3, section 6.4), with the upper
/// half of the product folded into the lower: so each bit of a key comes to the ends of the hash,
/// from which a table takes bucket and tag.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.write_u64(u64::from(id));
    }

    fn write_u64(&mut self, id: u64) {
        let product = u128::from(self.0.rotate_left(5) ^ id) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_usize(&mut self, id: usize) {
        self.write_u64(id as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(id: u64) -> u64 {
        let mut hasher = IdHasher::default();
        hasher.write_u64(id);
        hasher.finish()
    }

    /// Ids that count up, addresses far apart, and numbers with a level in their upper bits.
    #[test]
    fn keys_as_they_come_spread_over_buckets_and_tags() {
        let all: [fn(u64) -> u64; 4] =
            [|i| i, |i| i << 15, |i| i << 32, |i| ((i % 5) << 56) | (i / 5)];
        for of in all {
            let hashes: Vec<u64> = (0..4096).map(|i| hash(of(i))).collect();
            let buckets: HashSet<u64> = hashes.iter().map(|hash| hash & 0x1fff).collect();
            let tags: HashSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            // Of 4096 keys in 8192 buckets 3223 are taken where chance chooses.
            assert!(buckets.len() > 2800, "{} buckets of {}", buckets.len(), of(1));
            assert!(tags.len() > 100, "{} tags of {}", tags.len(), of(1));
        }
    }
}
