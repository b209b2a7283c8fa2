//! Bytes that say which write they come from, sector by sector, so that parts of blocks can be written, too.

use crate::rng::mix;

/// What a sector holds: the number of the write that it comes from, 0 for zeros.
pub type Token = u64;
/// Bytes of a sector.
pub const SECTOR: usize = 512;
/// What no write has ever put anywhere.
pub const GARBAGE: Token = Token::MAX;

fn word(token: Token, index: usize) -> u64 {
    if index == 0 { token } else { mix(token ^ (index as u64) << 56) }
}

/// Bytes of `count` sectors of a write.
#[must_use]
pub fn bytes_of(token: Token, count: usize) -> Vec<u8> {
    let sector: Vec<u8> = match token {
        0 => vec![0; SECTOR],
        token => (0..SECTOR / 8).flat_map(|index| word(token, index).to_le_bytes()).collect(),
    };
    sector.repeat(count)
}

/// The write that a sector comes from; [`GARBAGE`] if it is not one.
#[must_use]
pub fn token_of(sector: &[u8]) -> Token {
    let mut words = sector.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    });
    let token = words.next().unwrap_or(GARBAGE);
    let fits = |(index, found)| found == if token == 0 { 0 } else { word(token, index + 1) };
    if words.enumerate().all(fits) { token } else { GARBAGE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_tells_its_write_and_any_damage() {
        let bytes = bytes_of(77, 2);
        assert_eq!(bytes.len(), 2 * SECTOR);
        assert_eq!(token_of(&bytes[SECTOR..]), 77);
        assert_eq!(token_of(&bytes_of(0, 1)), 0);
        for at in [9, 300, 511] {
            let mut torn = bytes_of(77, 1);
            torn[at] ^= 1;
            assert_eq!(token_of(&torn), GARBAGE);
        }
    }
}
