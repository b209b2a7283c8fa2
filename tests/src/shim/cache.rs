//! One file of the shim: what lies on the disk below, and what is only in the cache of that disk.

use super::rng::Rng;
use rustix::fs::FallocateFlags;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;

/// A change that no flush has covered.
#[derive(Debug)]
struct Change {
    offset: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    Data(Vec<u8>),
    /// A hole of so many bytes.
    Hole(u64),
}

/// A file, and the cache above it.
#[derive(Debug)]
pub struct CachedFile {
    backing: File,
    size: u64,
    /// The size that a flush has covered.
    durable_size: u64,
    /// Changes in the order in which they came.
    changes: Vec<Change>,
    /// What the changes make of each block that they touch.
    blocks: BTreeMap<u64, Box<[u8; BLOCK as usize]>>,
}

impl CachedFile {
    /// With an empty cache.
    pub fn new(backing: File) -> io::Result<Self> {
        let size = backing.metadata()?.len();
        Ok(Self { backing, size, durable_size: size, changes: Vec::new(), blocks: BTreeMap::new() })
    }

    /// How large it is.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it takes below, in sectors.
    pub fn sectors(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(self.backing.metadata()?.blocks())
    }

    /// Reads, as if everything had been flushed. Short at the end of the file.
    pub fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = offset.saturating_add(len).min(self.size);
        let mut data = Vec::new();
        let mut at = offset;
        while at < end {
            let (block, inside) = (at / BLOCK, (at % BLOCK) as usize);
            let part = (BLOCK as usize - inside).min((end - at) as usize);
            data.extend_from_slice(&self.block(block)?[inside..inside + part]);
            at += part as u64;
        }
        Ok(data)
    }

    fn block(&self, block: u64) -> io::Result<Box<[u8; BLOCK as usize]>> {
        if let Some(cached) = self.blocks.get(&block) {
            return Ok(cached.clone());
        }
        let mut bytes = Box::new([0; BLOCK as usize]);
        let mut done = 0;
        while done < bytes.len() {
            match self.backing.read_at(&mut bytes[done..], block * BLOCK + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(bytes)
    }

    /// Writes into the cache.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut at = 0;
        while at < data.len() {
            let position = offset + at as u64;
            let inside = (position % BLOCK) as usize;
            let part = (BLOCK as usize - inside).min(data.len() - at);
            let mut block = self.block(position / BLOCK)?;
            block[inside..inside + part].copy_from_slice(&data[at..at + part]);
            self.blocks.insert(position / BLOCK, block);
            at += part;
        }
        self.size = self.size.max(offset + data.len() as u64);
        self.changes.push(Change { offset, what: What::Data(data.to_vec()) });
        Ok(())
    }

    /// Makes a hole in the cache.
    pub fn punch(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len).min(self.size);
        let mut at = offset;
        while at < end {
            let inside = (at % BLOCK) as usize;
            let part = (BLOCK - at % BLOCK).min(end - at) as usize;
            let mut block = self.block(at / BLOCK)?;
            block[inside..inside + part].fill(0);
            self.blocks.insert(at / BLOCK, block);
            at += part as u64;
        }
        self.changes.push(Change { offset, what: What::Hole(end.saturating_sub(offset)) });
        Ok(())
    }

    /// Allocates space below, at once: a read sees nothing of it.
    pub fn allocate(&mut self, offset: u64, len: u64, keep_size: bool) -> io::Result<()> {
        let flags = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        rustix::fs::fallocate(&self.backing, flags, offset, len)?;
        if !keep_size {
            self.size = self.size.max(offset + len);
        }
        Ok(())
    }

    /// Sets the size. Growth may be lost until it is flushed; a file that is made shorter is so at once.
    pub fn set_len(&mut self, size: u64) -> io::Result<()> {
        if size < self.size {
            self.flush()?;
            self.backing.set_len(size)?;
            self.durable_size = size;
        }
        self.size = size;
        Ok(())
    }

    /// Makes durable what is in the cache.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.backing.metadata()?.len() < self.size {
            self.backing.set_len(self.size)?;
        }
        for change in std::mem::take(&mut self.changes) {
            match change.what {
                What::Data(data) => self.backing.write_all_at(&data, change.offset)?,
                What::Hole(len) => self.hole_below(change.offset, len)?,
            }
        }
        self.blocks.clear();
        self.durable_size = self.size;
        Ok(())
    }

    fn hole_below(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.backing, flags, offset, len)?)
    }

    /// The power goes: of the changes that no flush has covered some are lost, some are on the disk,
    /// some of them in part (whole sectors), and in any order. So is the growth of the file.
    /// Returns how many changes there were, and how many sectors of them have survived.
    pub fn cut(&mut self, rng: &mut Rng) -> io::Result<(usize, usize)> {
        let count = self.changes.len();
        let lost = rng.below(9);
        let torn = rng.below(9);
        let mut pieces: Vec<(u64, Option<Vec<u8>>, u64)> = Vec::new();
        for change in std::mem::take(&mut self.changes) {
            if rng.eighths(lost) {
                continue;
            }
            let tear = rng.eighths(torn);
            let len = match &change.what {
                What::Data(data) => data.len() as u64,
                What::Hole(len) => *len,
            };
            // A hole is made of whole blocks, as file systems and devices make them.
            let unit = if matches!(change.what, What::Hole(_)) { BLOCK } else { SECTOR };
            let mut at = 0;
            while at < len {
                let part = if tear { unit.min(len - at) } else { len - at };
                if !tear || rng.eighths(4) {
                    let data = match &change.what {
                        What::Data(data) => Some(data[at as usize..(at + part) as usize].to_vec()),
                        What::Hole(_) => None,
                    };
                    pieces.push((change.offset + at, data, part));
                }
                at += part;
            }
        }
        rng.shuffle(&mut pieces);
        self.blocks.clear();
        let grows = rng.eighths(4);
        let end = if grows { self.size } else { self.durable_size };
        if self.backing.metadata()?.len() < end {
            self.backing.set_len(end)?;
        }
        let mut sectors = 0;
        for (offset, data, len) in pieces {
            if offset + len > end {
                continue;
            }
            sectors += len.div_ceil(SECTOR) as usize;
            match data {
                Some(data) => self.backing.write_all_at(&data, offset)?,
                None => self.hole_below(offset, len)?,
            }
        }
        Ok((count, sectors))
    }
}
