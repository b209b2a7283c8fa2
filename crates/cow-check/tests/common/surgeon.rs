//! Takes a pool apart and puts it together again, with valid checksums: for damage that no
//! checksum gives away.

use super::Image;
use cow_check::{What, dump};
use cow_format::checkpoint::Checkpoint;
use cow_format::entry::{ENTRY_LEN, NodeEntry, PAGE_ENTRIES, Root};
use cow_format::geometry::{CHUNK_PAGES, Geometry, ZONE_BLOCKS};
use cow_format::mapnode::{FANOUT_BITS, MapNode, NodePlace, Slot};
use cow_format::page::{bitmap_crc, table_crc};
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_format::table::{entries, is_overflow, overflow_of};
use cow_format::{Buf, Gen, Phys};

pub struct Surgeon {
    pub image: Image,
    pub sb: Superblock,
    pub cp: Checkpoint,
    pub tag: u64,
}

impl Surgeon {
    pub fn new(image: Image) -> Self {
        let copies =
            (0..4).filter_map(|copy| Superblock::decode(&image.page(COPY_BLOCKS[copy]), copy).ok());
        let sb = copies.max_by_key(|sb| sb.sequence).unwrap();
        let tag = sb.pool_tag();
        let areas = sb.geometry.cp_start.iter().filter_map(|&start| {
            let head = Buf::from_bytes(&image.page(start));
            let blocks = Checkpoint::decode_len(&head, tag, Phys(start)).ok()?;
            let mut whole = Buf::zeroed(blocks as usize);
            for i in 0..blocks {
                whole.block_mut(i as usize).copy_from_slice(&image.page(start + i));
            }
            Checkpoint::decode(&whole, tag, Phys(start)).ok()
        });
        let cp = areas.max_by_key(|cp| cp.seq).unwrap();
        Self { image, sb, cp, tag }
    }

    /// First block and length of the newest checkpoint.
    pub fn cp_area(&self) -> (u64, u64) {
        let start = self.sb.geometry.cp_start[Checkpoint::area(self.cp.seq)];
        (start, self.cp.encode(self.tag).block_count() as u64)
    }

    pub fn write_cp(&mut self) {
        let (start, _) = self.cp_area();
        self.image.put(Phys(start), &self.cp.encode(self.tag));
    }

    pub fn table_page(&self, page: usize) -> Phys {
        let chunk = self.cp.chunks[page / CHUNK_PAGES as usize];
        Geometry::table_home(chunk, page as u64 % CHUNK_PAGES, self.cp.pages[page].home)
    }

    /// Pages of the node table in use: index and block.
    pub fn table_pages(&self) -> Vec<(usize, Phys)> {
        let used = |page: &usize| self.cp.pages[*page].used > 0;
        (0..self.cp.pages.len()).filter(used).map(|p| (p, self.table_page(p))).collect()
    }

    pub fn entry(&self, id: u64) -> NodeEntry {
        self.find_entry(id).unwrap()
    }

    pub fn find_entry(&self, id: u64) -> Option<NodeEntry> {
        self.locate(id).map(|(_, _, entry)| entry)
    }

    /// The page of entries that a node is in, its place there, and its entry.
    pub fn locate(&self, id: u64) -> Option<(usize, usize, NodeEntry)> {
        let pages = self.table_pages().into_iter().filter(|(page, _)| !is_overflow(*page as u32));
        let mut all = pages.flat_map(|(page, at)| {
            let above = overflow_of(page as u32) as usize;
            let overflow = self.image.page(self.table_page(above).0);
            let overflow = Some(&overflow[..]).filter(|_| self.cp.pages[above].used > 0);
            let bytes = self.image.page(at.0);
            let found = entries(page as u32, &bytes, overflow, at);
            let found = found.map(|(slot, entry)| (page, slot as usize % PAGE_ENTRIES, entry));
            found.collect::<Vec<_>>()
        });
        let found = all.find(|(.., entry)| entry.as_ref().unwrap().id.0 == id);
        found.map(|(page, at, entry)| (page, at, entry.unwrap()))
    }

    /// Changes an entry, with page and checkpoint to match. It keeps what it has of overflow.
    pub fn edit_entry(&mut self, id: u64, edit: impl FnOnce(&mut NodeEntry)) {
        let (page, place, mut entry) = self.locate(id).unwrap();
        edit(&mut entry);
        self.put_entry(page, place, entry.encode());
    }

    /// Puts these bytes into the place of an entry or overflow entry, with page and checkpoint to match.
    pub fn put_entry(&mut self, page: usize, place: usize, entry: [u8; ENTRY_LEN]) {
        let at = self.table_page(page);
        let mut bytes = self.image.page(at.0);
        bytes[place * ENTRY_LEN..(place + 1) * ENTRY_LEN].copy_from_slice(&entry);
        self.image.pages.insert(at.0, bytes);
        self.cp.pages[page].crc = table_crc(&bytes, self.tag, at);
        self.write_cp();
    }

    /// The active bitmap page of a zone.
    pub fn bitmap_page(&self, zone: u64) -> Phys {
        self.sb.geometry.bitmap_home(zone, self.cp.zones[zone as usize].home)
    }

    pub fn is_allocated(&self, block: u64) -> bool {
        let page = self.image.page(self.bitmap_page(block / ZONE_BLOCKS).0);
        let bit = (block % ZONE_BLOCKS) as usize;
        page[bit / 8] >> (bit % 8) & 1 == 1
    }

    /// Sets or clears the bit of a block, with descriptor and checkpoint to match.
    pub fn set_bit(&mut self, block: u64, allocated: bool) {
        let zone = block / ZONE_BLOCKS;
        let at = self.bitmap_page(zone);
        let mut page = self.image.page(at.0);
        let bit = (block % ZONE_BLOCKS) as usize;
        assert_ne!(page[bit / 8] >> (bit % 8) & 1 == 1, allocated);
        page[bit / 8] ^= 1 << (bit % 8);
        self.image.pages.insert(at.0, page);
        let desc = &mut self.cp.zones[zone as usize];
        desc.crc = bitmap_crc(&page, self.tag, at);
        desc.free = if allocated { desc.free - 1 } else { desc.free + 1 };
        desc.longest = 0;
        self.write_cp();
    }

    /// Changes the slots of the leaf that maps `lba`, and every checksum above it.
    pub fn edit_leaf(&mut self, id: u64, lba: u64, edit: impl FnOnce(&mut MapNode)) {
        let entry = self.entry(id);
        let Root { phys, crc, birth, level } = entry.root;
        let slot = Slot { phys, birth, crc };
        let new = self.edit_below(&entry, level, lba, slot, edit);
        self.edit_entry(id, |entry| entry.root.crc = new.crc);
    }

    fn edit_below(
        &mut self,
        entry: &NodeEntry,
        level: u8,
        lba: u64,
        slot: Slot,
        edit: impl FnOnce(&mut MapNode),
    ) -> Slot {
        let index = lba >> (FANOUT_BITS * (u32::from(level) + 1));
        let mut node = self.map_node(entry, level, index, slot);
        if level == 0 {
            edit(&mut node);
        } else {
            let at = (lba >> (FANOUT_BITS * u32::from(level)) & 0xff) as usize;
            let below = node.slots()[at];
            node.slots_mut()[at] = self.edit_below(entry, level - 1, lba, below, edit);
        }
        let (buf, crc) = node.encode(self.tag, slot.phys);
        self.image.put(slot.phys, &buf);
        Slot { crc, ..slot }
    }

    pub fn map_node(&self, entry: &NodeEntry, level: u8, index: u64, slot: Slot) -> MapNode {
        let place = NodePlace {
            pool_tag: self.tag,
            family: entry.family,
            level,
            index,
            phys: slot.phys,
            birth: slot.birth,
            crc: slot.crc,
        };
        MapNode::decode(&self.image.page(slot.phys.0), &place).unwrap()
    }

    /// The id of `VOL` or `VOL@SNAP`.
    pub fn id_of(&self, name: &str) -> u64 {
        let map = dump(&mut self.image.clone(), &What::Map(name.to_owned())).unwrap();
        map.get("node").unwrap().as_u64().unwrap()
    }

    /// Map nodes of `VOL` or `VOL@SNAP`: level, index, block.
    pub fn map_nodes(&self, name: &str) -> Vec<(u64, u64, u64)> {
        let map = dump(&mut self.image.clone(), &What::Map(name.to_owned())).unwrap();
        let field = |v: &cow_check::Value, key| v.get(key).unwrap().as_u64().unwrap();
        let nodes = map.get("nodes").unwrap().elements().iter();
        nodes.map(|n| (field(n, "level"), field(n, "index"), field(n, "block"))).collect()
    }

    /// The pointer to a map node of `VOL` or `VOL@SNAP`.
    pub fn pointer(&self, name: &str, block: u64) -> Slot {
        let map = dump(&mut self.image.clone(), &What::Map(name.to_owned())).unwrap();
        let field = |v: &cow_check::Value, key| v.get(key).unwrap().as_u64().unwrap();
        let mut nodes = map.get("nodes").unwrap().elements().iter();
        let node = nodes.find(|node| field(node, "block") == block).unwrap();
        let (birth, crc) = (Gen(field(node, "birth") as u32), field(node, "crc") as u32);
        Slot { phys: Phys(block), birth, crc }
    }

    /// Data of `VOL` or `VOL@SNAP`: block number in the volume, block.
    pub fn data(&self, name: &str) -> Vec<(u64, u64)> {
        let map = dump(&mut self.image.clone(), &What::Map(name.to_owned())).unwrap();
        let field = |v: &cow_check::Value, key| v.get(key).unwrap().as_u64().unwrap();
        let mut all = Vec::new();
        for extent in map.get("extents").unwrap().elements() {
            let (lba, block) = (field(extent, "lba"), field(extent, "block"));
            all.extend((0..field(extent, "blocks")).map(|i| (lba + i, block + i)));
        }
        all
    }

    pub fn gen_of(&self, id: u64) -> Gen {
        self.entry(id).label_gen
    }
}
