//! The pages of bitmap and node table, each to the home that the checkpoint before does not use.

use super::action::Action;
use super::space::{image, quiet};
use super::work::{Survey, Work};
use crate::context::Cx;
use crate::reach::ZoneBits;
use cow_format::checkpoint::{PageDesc, ZoneDesc};
use cow_format::entry::{ENTRY_LEN, NodeEntry};
use cow_format::geometry::{CHUNK_PAGES, Geometry, ZONE_BLOCKS};
use cow_format::page::{bitmap_crc, table_crc};
use cow_format::table::{first_slot, is_overflow, overflow_of, page_of};
use cow_format::{Buf, mutant};
use std::collections::{BTreeMap, BTreeSet};

/// Every zone whose page does not say what is in use.
pub(super) fn write_bitmap(work: &mut Work<'_>, survey: &Survey) {
    let tag = work.tag();
    for zone in 0..work.cp.zones.len() as u64 {
        let geometry = &work.base.sb.geometry;
        let reserved = ZoneBits::reserved(geometry, zone, work.cp.pool_blocks);
        let mut wanted = survey.reach.zone(zone).cloned().unwrap_or_else(|| reserved.clone());
        let options = quiet();
        let mut cx = Cx::new(&mut work.overlay, &options);
        cx.tag = tag;
        let old = image(&mut cx, &work.base, &work.base.cp, zone);
        if let Some(old) = &old {
            // A block that is never given out may be marked or not.
            let withheld = work.base.cp.withheld.iter().filter(|phys| phys.0 / ZONE_BLOCKS == zone);
            let bits = withheld.map(|phys| (phys.0 % ZONE_BLOCKS) as u32);
            bits.filter(|bit| old.get(*bit)).for_each(|bit| wanted.set(bit));
        }
        let desc = &mut work.cp.zones[zone as usize];
        let (free, longest) = (wanted.free() as u16, wanted.longest_free() as u16);
        let count =
            |runs: Vec<(u32, u32)>| runs.iter().map(|(_, len)| u64::from(*len)).sum::<u64>();
        let freed = old.as_ref().map_or(0, |old| count(old.runs_without(&wanted)));
        let marked = old.as_ref().map_or(0, |old| count(wanted.runs_without(old)));
        let is_same = old.as_ref() == Some(&wanted);
        if is_same && desc.free == free && desc.longest <= longest {
            continue;
        }
        let home = other_home(desc.fresh, desc.home);
        let at = geometry.bitmap_home(zone, home);
        let page = wanted.to_page();
        *desc = ZoneDesc { crc: bitmap_crc(&page, tag, at), free, longest, home, fresh: false };
        work.overlay.put(at, &page);
        let unreadable = old.is_none();
        work.actions.push(Action::RebuildBitmap { zone, unreadable, freed, marked });
    }
}

/// Every page of the node table whose entries have changed.
pub(super) fn write_table(work: &mut Work<'_>) {
    let changed = |(slot, entry): &(&u32, &NodeEntry)| work.base.entries.get(slot) != Some(entry);
    let changed = work.entries.iter().filter(changed).map(|(slot, _)| page_of(*slot));
    let pages: BTreeSet<u32> = changed.collect();
    for page in pages.into_iter().flat_map(|page| [page, overflow_of(page)]) {
        let (old, _) = encode(&work.base.entries, page);
        let (buf, used) = encode(&work.entries, page);
        if old[..] == buf[..] {
            continue;
        }
        let (index, in_chunk) = (u64::from(page) / CHUNK_PAGES, u64::from(page) % CHUNK_PAGES);
        let desc = &mut work.cp.pages[page as usize];
        let home = other_home(desc.fresh, desc.home);
        let at = Geometry::table_home(work.cp.chunks[index as usize], in_chunk, home);
        let crc = table_crc(&buf, work.base.sb.pool_tag(), at);
        *desc = PageDesc { crc, home, fresh: false, used };
        work.overlay.put(at, &buf);
    }
}

/// The home of a page that the checkpoint before does not use.
fn other_home(fresh: bool, home: u8) -> u8 {
    match fresh {
        true => 0,
        false if mutant::is("homeused") => home,
        false => 1 - home,
    }
}

/// The bytes of a page, and how many entries are in it.
fn encode(entries: &BTreeMap<u32, NodeEntry>, page: u32) -> (Buf, u8) {
    let (mut buf, mut used) = (Buf::zeroed(1), 0);
    for (slot, place) in (first_slot(page)..).zip(buf.chunks_exact_mut(ENTRY_LEN)) {
        let bytes = entries.get(&slot).and_then(|entry| match is_overflow(page) {
            true => entry.encode_overflow(),
            false => Some(entry.encode()),
        });
        if let Some(bytes) = bytes {
            place.copy_from_slice(&bytes);
            used += 1;
        }
    }
    (buf, used)
}
