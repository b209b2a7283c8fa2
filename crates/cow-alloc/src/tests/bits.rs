//! The word-wise scans against bit-by-bit ones.

use super::Rng;
use crate::bits::{Bits, Run, ZONE};

/// Runs of random lengths of both kinds, short or long.
fn random(rng: &mut Rng, longest: u64) -> Box<Bits> {
    let mut bits = Bits::empty();
    let mut at = 0;
    while at < ZONE {
        let free = rng.below(longest) as u32;
        let used = 1 + rng.below(longest) as u32;
        at += free;
        if at < ZONE {
            bits.set_range(at, used.min(ZONE - at));
        }
        at += used;
    }
    bits
}

fn free_runs(bits: &Bits) -> Vec<(u32, u32)> {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for bit in (0..ZONE).filter(|bit| !bits.get(*bit)) {
        match runs.last_mut() {
            Some((start, len)) if *start + *len == bit => *len += 1,
            _ => runs.push((bit, 1)),
        }
    }
    runs
}

#[test]
fn scans_agree_with_single_bits() {
    let mut rng = Rng(1);
    for longest in [1, 2, 3, 10, 50, 64, 65, 130, 300, 1000, 40_000] {
        let bits = random(&mut rng, longest);
        let runs = free_runs(&bits);
        let free: u32 = runs.iter().map(|(_, len)| len).sum();
        assert_eq!(u32::from(bits.free()), free);
        assert_eq!(bits.longest_free(), runs.iter().map(|(_, len)| *len).max().unwrap_or(0) as u16);
        for min in [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 256, 512, 5000, ZONE] {
            for _ in 0..40 {
                let from = rng.below(u64::from(ZONE) + 1) as u32;
                // What is left of a run that begins before `from` counts.
                let expected = runs
                    .iter()
                    .map(|(start, len)| (*start.max(&from), start + len))
                    .find(|(start, end)| *end >= start + min)
                    .map(|(start, end)| (start, end - start));
                assert_eq!(bits.find_free(from, min), expected, "{longest} {from} {min}");
                let to = from + rng.below(u64::from(ZONE - from) + 1) as u32;
                let next = |used| (from..to).find(|bit| bits.get(*bit) == used).unwrap_or(to);
                assert_eq!(bits.next_set(from, to), next(true));
                assert_eq!(bits.next_clear(from, to), next(false));
            }
        }
        let set: Vec<Run> = bits.runs().collect();
        let mut again = Bits::empty();
        set.iter().for_each(|run| again.set_run(*run));
        assert!(again == bits && *Bits::from_page(&bits.to_page()) == *bits);
    }
}

#[test]
fn ranges_touch_exactly_their_bits() {
    let mut rng = Rng(2);
    for _ in 0..300 {
        let start = rng.below(u64::from(ZONE) + 1) as u32;
        let len = rng.below(u64::from(ZONE - start) + 1).min(1 + rng.below(200)) as u32;
        let mut bits = Bits::empty();
        bits.set_range(start, len);
        assert_eq!((bits.count(), bits.count_range(start, len)), (len, len));
        assert_eq!(bits.next_set(0, ZONE), if len == 0 { ZONE } else { start });
        bits.set_range(0, ZONE);
        bits.clear_range(start, len);
        assert_eq!((u32::from(bits.free()), bits.count_range(start, len)), (len, 0));
        assert_eq!(bits.longest_free(), len as u16);
    }
    let mut all = Bits::empty();
    assert_eq!((u32::from(all.free()), u32::from(all.longest_free())), (ZONE, ZONE));
    all.set_range(0, ZONE);
    assert_eq!(all.runs().collect::<Vec<_>>(), [Run { start: 0, len: ZONE as u16 }]);
    assert_eq!(all.find_free(0, 1), None);
}
