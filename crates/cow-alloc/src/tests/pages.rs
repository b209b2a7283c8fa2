//! Pages that are not what they should be.

use super::*;
use crate::{Stream, decode_page};
use cow_format::checkpoint::ZoneDesc;
use cow_format::page::bitmap_crc;
use cow_format::{BLOCK_SIZE, FormatError};

/// A page with the layout's blocks and `used` set, and its descriptor.
fn page(geometry: &Geometry, blocks: u64, used: &[u32]) -> (Buf, ZoneDesc) {
    let mut bits = crate::image::reserved(geometry, blocks, 0);
    used.iter().for_each(|bit| bits.set(*bit));
    let page = bits.to_page();
    let crc = bitmap_crc(&page, TAG, geometry.bitmap_home(0, 0));
    let free = bits.free();
    (page, ZoneDesc { crc, free, longest: 9, home: 0, fresh: false })
}

#[test]
fn every_flipped_bit_and_every_false_descriptor_is_refused() {
    let blocks = ZONE_BLOCKS;
    let geometry = layout(blocks, blocks);
    let (mut good, desc) = page(&geometry, blocks, &[30_000, 30_007]);
    let decode = |page: &[u8], desc: &ZoneDesc| decode_page(&geometry, blocks, TAG, 0, desc, page);
    assert!(decode(&good, &desc).unwrap().is_used(Phys(30_007)));
    for bit in (0..BLOCK_SIZE * 8).step_by(5) {
        good[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&good, &desc).is_err(), "bit {bit}");
        good[bit / 8] ^= 1 << (bit % 8);
    }
    for false_desc in [
        ZoneDesc { home: 1, ..desc },
        ZoneDesc { free: desc.free - 1, ..desc },
        ZoneDesc { free: desc.free + 1, ..desc },
        ZoneDesc { free: u16::MAX, ..desc },
        ZoneDesc { free: 0, ..desc },
    ] {
        assert!(decode(&good, &false_desc).is_err(), "{false_desc:?}");
        let mut alloc = Allocator::new(geometry.clone(), blocks, TAG, 1, vec![false_desc]);
        assert!(alloc.free_blocks() <= ZONE_BLOCKS && alloc.load_zone(0, &good).is_err());
        assert!(!alloc.is_resident(0));
    }
    assert!(decode(&good[..100], &desc).is_err() && decode(&[], &desc).is_err());
    // A superblock that is free, with a checksum that matches.
    good[0] &= !1;
    let crc = bitmap_crc(&good, TAG, geometry.bitmap_home(0, 0));
    let reserved = decode(&good, &ZoneDesc { crc, free: desc.free + 1, ..desc });
    assert!(matches!(reserved, Err(FormatError::Field { .. })));
}

#[test]
fn a_zone_is_asked_for_by_its_active_home() {
    let blocks = ZONE_BLOCKS;
    let geometry = layout(blocks, blocks);
    let (good, desc) = page(&geometry, blocks, &[30_000]);
    let mut alloc = Allocator::new(geometry.clone(), blocks, TAG, 1, vec![desc]);
    assert_eq!(alloc.free_blocks(), data_blocks(&geometry, blocks) - 1);
    assert_eq!(alloc.alloc(Stream::Meta, 1), Err(AllocError::NeedZone(0)));
    assert_eq!(alloc.load_fresh(0), Err(AllocError::NeedZone(0)));
    assert_eq!(alloc.page_to_load(0), Some(geometry.bitmap_home(0, 0)));
    assert_eq!((alloc.page_to_load(1), alloc.is_resident(7)), (None, false));
    assert!(alloc.load_zone(1, &good).is_err());
    alloc.load_zone(0, &good).unwrap();
    assert_eq!(alloc.descs()[0].longest, alloc.states[0].longest, "a bound became exact");
    let (a, _) = alloc.alloc(Stream::Meta, 1).unwrap();
    // Loading again must not forget what was handed out.
    alloc.load_zone(0, &good).unwrap();
    assert_eq!((alloc.page_to_load(0), alloc.mark_used(a, 1)), (None, Err(AllocError::InUse(a))));
    let staged = alloc.stage(0, &[a], &[Phys(30_000)]).unwrap();
    assert_eq!((staged.at, staged.desc.home), (geometry.bitmap_home(0, 1), 1));
    assert_eq!(alloc.descs()[0].home, 0);
    alloc.commit(2);
    assert_eq!(alloc.descs(), [staged.desc]);
    let mut next = Allocator::new(geometry.clone(), blocks, TAG, 2, vec![staged.desc]);
    assert!(next.load_zone(0, &good).is_err(), "the old home");
    next.load_zone(0, &staged.page).unwrap();
    assert_eq!(next.free_blocks(), alloc.free_blocks() + 1, "less the quarantine");
}
