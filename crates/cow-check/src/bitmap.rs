//! The allocation bitmap, and what is in use (I1).
//!
//! In the last zone of a pool a page may be older than a growth of the pool: the blocks that were
//! past the end when it was written are set in it, and free by rule. The descriptor's free count
//! says how many there are.

use crate::context::{Cx, Phase};
use crate::reach::{Reach, ZoneBits};
use crate::report::Structure;
use cow_format::Phys;
use cow_format::checkpoint::{Checkpoint, FLAG_LEAKS};
use cow_format::geometry::{Geometry, ZONE_BLOCKS};
use cow_format::page::bitmap_crc;
use cow_format::superblock::Superblock;
use std::collections::HashSet;

/// Compares the bitmap with what is in use. Without `reach` only the pages are checked.
pub(crate) fn check(cx: &mut Cx<'_>, sb: &Superblock, cp: &Checkpoint, reach: Option<&Reach>) {
    let withheld: HashSet<Phys> = cp.withheld.iter().copied().collect();
    let mut unseen = 0;
    for (zone, _) in (0..).zip(&cp.zones) {
        let Some(image) = read_zone(cx, &sb.geometry, cp, zone) else { continue };
        if zone % 64 == 0 {
            cx.progress(Phase::Bitmap, zone, cp.zones.len() as u64);
        }
        let Some(reach) = reach else { continue };
        let reserved;
        let used = match reach.zone(zone) {
            Some(used) => used,
            None => {
                reserved = ZoneBits::reserved(&sb.geometry, zone, cp.pool_blocks);
                &reserved
            }
        };
        let base = zone * ZONE_BLOCKS;
        for (start, len) in used.runs_without(&image) {
            let place = blocks(base + u64::from(start), len);
            cx.corrupt(Structure::Allocation, place, "in use, but free in the bitmap");
        }
        for (start, len) in image.runs_without(used) {
            let first = base + u64::from(start);
            let run = first..first + u64::from(len);
            let leaked = run.filter(|&block| !withheld.contains(&Phys(block))).count() as u64;
            if leaked == 0 {
                continue;
            }
            if cx.incomplete {
                unseen += leaked;
            } else if cp.flags & FLAG_LEAKS != 0 {
                cx.report.stats.leaked_blocks += leaked;
            } else {
                let what = "allocated in the bitmap, but nothing refers to it: leaked";
                cx.corrupt(Structure::Allocation, blocks(first, len), what);
            }
        }
    }
    if unseen > 0 {
        let what = format!("{unseen} blocks may be leaked, or hang below what is damaged");
        cx.warn(Structure::Allocation, "the bitmap", what);
    }
}

fn blocks(first: u64, len: u32) -> String {
    match len {
        1 => format!("block {first}"),
        _ => format!("blocks {first} to {}", first + u64::from(len) - 1),
    }
}

/// What the checkpoint says of the zone; `None` when its page cannot be read.
pub(crate) fn read_zone(
    cx: &mut Cx<'_>,
    geometry: &Geometry,
    cp: &Checkpoint,
    zone: u64,
) -> Option<ZoneBits> {
    let desc = &cp.zones[zone as usize];
    let reserved = ZoneBits::reserved(geometry, zone, cp.pool_blocks);
    let mut place = format!("zone {zone}");
    let image = if desc.fresh {
        reserved
    } else {
        let at = geometry.bitmap_home(zone, desc.home);
        place = format!("zone {zone}, block {at}");
        let page = match cx.read(at, 1) {
            Ok(page) => page,
            Err(cause) => {
                cx.corrupt(Structure::BitmapPage, place, cause);
                return None;
            }
        };
        cx.report.stats.bitmap_pages += 1;
        if bitmap_crc(&page, cx.tag, at) != desc.crc {
            cx.corrupt(Structure::BitmapPage, place, "checksum mismatch");
            return None;
        }
        let mut bits = ZoneBits::from_page(&page);
        let end = cp.pool_blocks.saturating_sub(zone * ZONE_BLOCKS).min(ZONE_BLOCKS) as u32;
        (end..ZONE_BLOCKS as u32).for_each(|bit| bits.set(bit));
        // Blocks that the pool has grown by since the page was written.
        let grown = u32::from(desc.free).saturating_sub(bits.free()).min(end);
        let old_end = end - grown;
        if (old_end..end).all(|bit| bits.get(bit)) {
            (old_end..end).for_each(|bit| bits.clear(bit));
        }
        if !bits.contains(&reserved) {
            cx.corrupt(Structure::BitmapPage, &place, "reserved blocks are free in it");
        }
        bits
    };
    let (free, longest) = (image.free(), image.longest_free());
    if u32::from(desc.free) != free {
        let what = format!("{} free blocks, the page has {free}", desc.free);
        cx.corrupt(Structure::ZoneDescriptor, &place, what);
    }
    if u32::from(desc.longest) > longest {
        let what = format!("a free run of {}, the longest has {longest}", desc.longest);
        cx.corrupt(Structure::ZoneDescriptor, &place, what);
    }
    Some(image)
}
