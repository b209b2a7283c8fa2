//! Disk images to test with.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that look random and never are zero blocks; `seed` tells one from another.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// A file of `len` bytes with data in some places and holes between; returns its content.
pub fn sparse_image(path: &Path, seed: u64, len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    let file = File::create(path).expect("an image");
    file.set_len(len as u64).expect("its length");
    for (index, at) in (0..len).step_by(1 << 20).enumerate() {
        let size = (index * 37_000 % 300_000 + 5000).min(len - at);
        let data = pattern(seed + index as u64, size);
        file.write_all_at(&data, at as u64).expect("a write");
        content[at..at + size].copy_from_slice(&data);
    }
    content
}

/// The hash of some bytes.
pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_string()
}

/// The hash of a file.
pub fn file_hash(path: &Path) -> String {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    hasher.update_reader(file).expect("it can be read");
    hasher.finalize().to_string()
}
