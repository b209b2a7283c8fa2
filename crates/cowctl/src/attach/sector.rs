//! How large a logical block of a device may be.
//!
//! 4 KiB spare the pool reading before writing. But what was laid out on a disk with sectors of 512
//! bytes (a partition table, a file system with small blocks) cannot be used on a device with
//! larger ones, while the reverse works but for partition tables. So an empty volume gets 4096,
//! and one with something in it whatever that is known to need, or 512.

/// How much of the front of a volume tells.
pub const HEAD_BYTES: usize = 1 << 20;
const SMALL: u32 = 512;
const LARGE: u32 = 4096;

/// For a volume of `size_bytes` that begins with `head`.
pub fn choose(head: &[u8], size_bytes: u64) -> u32 {
    if !size_bytes.is_multiple_of(LARGE.into()) {
        return SMALL;
    }
    if head.iter().all(|byte| *byte == 0) || needs_large(head).unwrap_or(false) {
        LARGE
    } else {
        SMALL
    }
}

/// Whether what is there was laid out for blocks of 4 KiB; none if nothing is known of it.
fn needs_large(head: &[u8]) -> Option<bool> {
    let is_at = |at: usize, magic: &[u8]| head.get(at..at + magic.len()) == Some(magic);
    let number = |at: usize| {
        let bytes = head.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    if is_at(512, b"EFI PART") {
        return Some(false);
    }
    if is_at(4096, b"EFI PART") {
        return Some(true);
    }
    if is_at(0, b"XFSB") {
        let sector = head.get(102..104)?;
        return Some(u32::from(u16::from_be_bytes(sector.try_into().ok()?)) >= LARGE);
    }
    if is_at(1024 + 56, &[0x53, 0xef]) {
        // Its blocks are 1024 << n bytes.
        return Some(number(1024 + 24)? >= 2);
    }
    if is_at((64 << 10) + 64, b"_BHRfS_M") {
        return Some(number((64 << 10) + 0x90)? >= LARGE);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn with(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        for (at, bytes) in parts {
            head[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    #[test]
    fn what_is_there_decides() {
        assert_eq!(choose(&with(&[]), GIB), 4096);
        assert_eq!(choose(&with(&[]), GIB + 512), 512, "half a block at the end");
        assert_eq!(choose(&with(&[(446, &[1])]), GIB), 512, "a boot sector");
        assert_eq!(choose(&with(&[(510, &[0x55, 0xaa]), (512, b"EFI PART")]), GIB), 512);
        assert_eq!(choose(&with(&[(510, &[0x55, 0xaa]), (4096, b"EFI PART")]), GIB), 4096);
        assert_eq!(choose(&with(&[(0, b"XFSB"), (102, &[2, 0])]), GIB), 512);
        assert_eq!(choose(&with(&[(0, b"XFSB"), (102, &[16, 0])]), GIB), 4096);
        let ext = |log: u8| with(&[(1024 + 24, &[log]), (1024 + 56, &[0x53, 0xef])]);
        assert_eq!((choose(&ext(0), GIB), choose(&ext(2), GIB)), (512, 4096));
        let btrfs = with(&[(0x10040, b"_BHRfS_M"), (0x10090, &[0, 16])]);
        assert_eq!(choose(&btrfs, GIB), 4096);
        assert_eq!(choose(&[1, 2, 3], GIB), 512, "short and unknown");
    }
}
