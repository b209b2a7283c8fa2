//! One wrong byte, or a torn write?
//!
//! A CRC is linear: the difference between the checksum that is stored and the one that the bytes
//! have is the checksum of the error alone. If the error is one byte, the difference is that
//! byte's table entry, stepped once for every byte after it. Stepping backwards from the
//! difference until a single byte is left finds its place. A write torn at sectors changes
//! hundreds of bytes and looks like that only by a chance of one in 2^24 for each byte covered.

const POLYNOMIAL: u32 = 0xedb8_8320;

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ if value & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

const TABLE: [u32; 256] = table();

/// The index of the table's entry with each top byte: these are all different.
const fn by_top_byte() -> [u8; 256] {
    let mut index = [0; 256];
    let mut i = 0;
    while i < 256 {
        index[(TABLE[i] >> 24) as usize] = i as u8;
        i += 1;
    }
    index
}

const BY_TOP_BYTE: [u8; 256] = by_top_byte();

/// The one byte that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flip {
    /// In the stored checksum.
    Stored,
    /// Among the bytes that it covers: so many before their end, by these bits.
    Covered { before_end: usize, bits: u8 },
}

/// The one wrong byte that explains why `stored` and `computed` differ: among the last `len` bytes
/// that the checksum covers, or in the stored checksum itself. Where much is torn, some byte
/// explains it by chance: then what the corrected bytes say has to be confirmed.
pub(crate) fn one_byte(stored: u32, computed: u32, len: usize) -> Option<Flip> {
    let difference = stored ^ computed;
    if difference == 0 {
        return None;
    }
    if difference.to_le_bytes().iter().filter(|&&byte| byte != 0).count() == 1 {
        return Some(Flip::Stored);
    }
    let mut state = difference;
    for before_end in 1..=len {
        let index = BY_TOP_BYTE[(state >> 24) as usize];
        state = (state ^ TABLE[usize::from(index)]) << 8 | u32::from(index);
        if state < 256 {
            return Some(Flip::Covered { before_end, bits: state as u8 });
        }
    }
    None
}

impl Flip {
    /// Corrects the byte in `covered`, all that the checksum covers.
    pub(crate) fn correct(self, covered: &mut [u8]) {
        if let Self::Covered { before_end, bits } = self
            && let Some(at) = covered.len().checked_sub(before_end)
        {
            covered[at] ^= bits;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flip, one_byte};
    use cow_format::checksum::data;

    #[test]
    fn one_byte_is_found_anywhere_and_a_torn_block_is_not() {
        let whole: Vec<u8> = (0..4096u32).map(|i| (i * 7 + i / 256) as u8).collect();
        let stored = data(&whole);
        for at in [0, 1, 511, 2048, 4094, 4095] {
            let mut bad = whole.clone();
            bad[at] ^= 0x41;
            let flip = one_byte(stored, data(&bad), bad.len()).unwrap();
            flip.correct(&mut bad);
            assert_eq!(bad, whole, "byte {at}");
        }
        assert_eq!(one_byte(stored ^ 0x00aa_0000, stored, whole.len()), Some(Flip::Stored));
        assert_eq!(one_byte(stored, stored, whole.len()), None);
        let mut torn = whole.clone();
        torn[512..1024].fill(0);
        assert_eq!(one_byte(stored, data(&torn), torn.len()), None);
        let mut two = whole;
        two[7] ^= 1;
        two[3000] ^= 1;
        assert_eq!(one_byte(stored, data(&two), two.len()), None);
    }
}
