use super::*;
use proptest::prelude::*;

#[test]
fn writes_overlay_and_zeros_vanish() {
    let mut content = Content::default();
    content.write(4096, 8192, 10);
    assert_eq!(content.get(2), Value::Token(11));
    let aligned = content.clone();
    content.write(4096 + 512, 512, 20);
    assert!(matches!(content.get(1), Value::Mixed(..)));
    content.zero(4096, 4096);
    content.zero(8192, 4096);
    assert!(content.is_empty() && content.digest() == 0);
    assert_eq!(aligned.first_difference(&content).map(|difference| difference.0), Some(1));
}

const LEN: usize = 5 * BLOCK_SIZE;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The content of blocks is what a plain array of bytes holds.
    #[test]
    fn content_is_an_array_of_bytes(
        ops in prop::collection::vec((0..3, 0..LEN, 1..LEN), 1..20)
    ) {
        let (mut content, mut bytes) = (Content::default(), vec![0u8; LEN]);
        for (token, (kind, offset, len)) in (1u64..).step_by(10).zip(ops) {
            let len = len.min(LEN - offset);
            let (at, to, count) = (offset as u64, offset + len, len as u64);
            let payload = Content::payload(at, count, token);
            match kind {
                0 => content.write(at, count, token),
                1 => content.write_bytes(at, &payload),
                _ => content.zero(at, count),
            }
            match kind {
                2 => bytes[offset..to].fill(0),
                _ => bytes[offset..to].copy_from_slice(&payload),
            }
        }
        let mut again = Content::default();
        again.write_bytes(0, &bytes);
        prop_assert!(again.first_difference(&content).is_none());
        for (lba, block) in bytes.chunks(BLOCK_SIZE).enumerate() {
            prop_assert_eq!(&content.get(lba as u64).page()[..], block);
        }
    }
}
