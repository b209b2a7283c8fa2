//! The file that an import reads: chunk by chunk, without its holes.

use crate::error::{Error, file_error};
use crate::sys;
use cow_format::{BLOCK_SIZE, Buf, BufPool};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};

/// Bytes of a chunk; chunks begin at multiples of it.
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;

const READ: &str = "read of the image file";

/// A part of the image.
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// Its bytes, the rest of the last block zero; `None` for a hole.
    pub(crate) data: Option<Buf>,
}

/// An image file, read from its beginning (or, for a file that was opened elsewhere, from its
/// position) to its end.
pub(crate) struct Source<'a> {
    file: &'a File,
    /// For files and devices: where the image begins in them, and its length.
    seekable: Option<(u64, u64)>,
    /// The first bytes of a stream, read already.
    head: Vec<u8>,
    offset: u64,
    /// Up to here there is data; then look for the next.
    data_until: u64,
    buffers: BufPool,
}

impl<'a> Source<'a> {
    /// Its chunks are in memory of `buffers`.
    pub(crate) fn new(file: &'a File, buffers: BufPool) -> Result<Self, Error> {
        let fail = |e: io::Error| file_error(READ, 0, &e);
        let kind = file.metadata().map_err(fail)?.file_type();
        if kind.is_dir() {
            return Err(Error::Invalid("a directory is no disk image".into()));
        }
        let mut seekable = None;
        if kind.is_file() || kind.is_block_device() {
            let mut handle = file;
            let base = handle.stream_position().map_err(fail)?;
            let end = handle.seek(SeekFrom::End(0)).map_err(fail)?;
            handle.seek(SeekFrom::Start(base)).map_err(fail)?;
            seekable = Some((base, end.saturating_sub(base)));
        }
        Ok(Self { file, seekable, head: Vec::new(), offset: 0, data_until: 0, buffers })
    }

    /// The length, where it is known beforehand.
    pub(crate) fn len(&self) -> Option<u64> {
        self.seekable.map(|(_, len)| len)
    }

    /// The first bytes, at most `max`.
    pub(crate) fn head(&mut self, max: usize) -> Result<Vec<u8>, Error> {
        let mut head = vec![0; max];
        let count = match self.seekable {
            Some((base, _)) => fill(&mut head, |buf, at| self.file.read_at(buf, base + at)),
            None => fill(&mut head, |buf, _| (&mut &*self.file).read(buf)),
        };
        head.truncate(count.map_err(|e| file_error(READ, 0, &e))?);
        if self.seekable.is_none() {
            self.head.clone_from(&head);
        }
        Ok(head)
    }

    /// The last `max` bytes, where that can be known.
    pub(crate) fn tail(&self, max: usize) -> Result<Option<Vec<u8>>, Error> {
        let Some((base, len)) = self.seekable.filter(|&(_, len)| len >= max as u64) else {
            return Ok(None);
        };
        let mut tail = vec![0; max];
        let from = base + len - max as u64;
        let result = self.file.read_exact_at(&mut tail, from);
        result.map(|()| Some(tail)).map_err(|e| file_error(READ, from, &e))
    }

    /// The next chunk; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let offset = self.offset;
        let chunk = match self.seekable {
            Some((base, len)) => self.next_of_file(base, len),
            None => self.next_of_stream(),
        };
        let chunk = chunk.map_err(|e| file_error(READ, offset, &e))?;
        self.offset += chunk.as_ref().map_or(0, |chunk| chunk.len);
        Ok(chunk)
    }

    fn next_of_file(&mut self, base: u64, len: u64) -> io::Result<Option<Chunk>> {
        let offset = self.offset;
        if offset >= len {
            return Ok(None);
        }
        if offset >= self.data_until {
            let (data, until) = next_data(self.file, base + offset, base + len);
            self.data_until = until - base;
            if data - base > offset {
                return Ok(Some(Chunk { offset, len: data - base - offset, data: None }));
            }
        }
        let next = (offset / CHUNK_BYTES + 1) * CHUNK_BYTES;
        let wanted = next.min(len).min(self.data_until) - offset;
        let mut buf = self.buffers.for_bytes(wanted as usize);
        let bytes = &mut buf[..wanted as usize];
        let count = fill(bytes, |buf, at| self.file.read_at(buf, base + offset + at))?;
        if (count as u64) < wanted {
            // Cut short by somebody since its length was taken.
            return Err(io::Error::from_raw_os_error(libc::ENODATA));
        }
        Ok(Some(Chunk { offset, len: wanted, data: Some(buf) }))
    }

    fn next_of_stream(&mut self) -> io::Result<Option<Chunk>> {
        let mut buf = self.buffers.zeroed(CHUNK_BYTES as usize / BLOCK_SIZE);
        let head = std::mem::take(&mut self.head);
        buf[..head.len()].copy_from_slice(&head);
        let more = fill(&mut buf[head.len()..], |buf, _| (&mut &*self.file).read(buf))?;
        let len = (head.len() + more) as u64;
        if len == 0 {
            return Ok(None);
        }
        buf.truncate((len as usize).div_ceil(BLOCK_SIZE));
        Ok(Some(Chunk { offset: self.offset, len, data: Some(buf) }))
    }
}

impl Drop for Source<'_> {
    fn drop(&mut self) {
        // Looking for holes moves the position, which whoever opened the file shares.
        if let Some((base, _)) = self.seekable {
            let _ = (&mut &*self.file).seek(SeekFrom::Start(base));
        }
    }
}

/// Calls `read` until `buf` is full or the end has come. Returns how much there was.
fn fill(
    buf: &mut [u8],
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match read(&mut buf[done..], done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Where data begins at or after `from`, and where it ends. Without holes, or without a file
/// system that knows them, everything is data.
fn next_data(file: &File, from: u64, end: u64) -> (u64, u64) {
    let data = match sys::seek_data(file, from) {
        Ok(data) => data.clamp(from, end),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return (end, end),
        Err(_) => return (from, end),
    };
    match sys::seek_hole(file, data) {
        Ok(hole) if hole > data => (data, hole.min(end)),
        _ => (data, end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The chunks put together again, and how many bytes of them were data.
    fn collect(file: &File, peek: usize) -> (Vec<u8>, u64) {
        let mut source = Source::new(file, BufPool::default()).unwrap();
        if peek > 0 {
            source.head(peek).unwrap();
        }
        let (mut bytes, mut data) = (Vec::new(), 0);
        while let Some(chunk) = source.next().unwrap() {
            assert_eq!(chunk.offset, bytes.len() as u64);
            assert!(chunk.len > 0);
            match chunk.data {
                Some(buf) => {
                    bytes.extend_from_slice(&buf[..chunk.len as usize]);
                    assert!(buf[chunk.len as usize..].iter().all(|&b| b == 0));
                    data += chunk.len;
                }
                None => bytes.resize(bytes.len() + chunk.len as usize, 0),
            }
        }
        (bytes, data)
    }

    #[test]
    fn a_sparse_file_comes_whole_and_its_holes_are_not_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len((9 << 20) + 777).unwrap();
        file.write_all_at(&[7; 100_000], 3 << 20).unwrap();
        file.write_all_at(&[9; 77], (9 << 20) + 700).unwrap();
        let (bytes, data) = collect(&file, 4096);
        let mut want = vec![0; (9 << 20) + 777];
        want[3 << 20..(3 << 20) + 100_000].fill(7);
        want[(9 << 20) + 700..].fill(9);
        assert!(bytes == want);
        assert!(data < 2 << 20, "{data} bytes of holes were read as data");
    }

    #[test]
    fn odd_lengths_and_nothing_at_all() {
        for len in [0usize, 1, 511, 4097, (1 << 20) + 1] {
            let file = tempfile::tempfile().unwrap();
            let want: Vec<u8> = (0..len).map(|i| i as u8 | 1).collect();
            file.write_all_at(&want, 0).unwrap();
            assert!(collect(&file, 0).0 == want);
        }
    }

    #[test]
    fn a_file_is_read_from_its_position() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"skipped, taken").unwrap();
        file.seek(SeekFrom::Start(9)).unwrap();
        assert_eq!(Source::new(&file, BufPool::default()).unwrap().len(), Some(5));
        assert_eq!(collect(&file, 3).0, b"taken");
        assert_eq!(collect(&file, 0).0, b"taken", "the position is as it was");
    }

    #[test]
    fn a_stream_keeps_what_was_peeked_at() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let want: Vec<u8> = (0..3_000_001u32).map(|i| (i / 7) as u8).collect();
        let sent = want.clone();
        let thread = std::thread::spawn(move || {
            for part in sent.chunks(70_001) {
                writer.write_all(part).unwrap();
            }
        });
        let file = File::from(std::os::fd::OwnedFd::from(reader));
        assert_eq!(Source::new(&file, BufPool::default()).unwrap().len(), None);
        assert!(collect(&file, 4096).0 == want);
        thread.join().unwrap();
    }
}
