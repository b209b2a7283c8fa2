//! Frames: a length, and that many bytes of JSON, perhaps with a descriptor.

use super::FRAME_MAX_BYTES;
use crate::sys;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Sends `message` as one frame.
///
/// # Errors
/// `InvalidInput` when it is too long; nothing was sent then.
pub(crate) fn write(
    stream: &UnixStream,
    message: &impl Serialize,
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - 4;
    if len > FRAME_MAX_BYTES {
        let text = format!("a request of {len} bytes is too long for the control socket");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    frame[..4].copy_from_slice(&(len as u32).to_le_bytes());
    let sent = loop {
        match sys::send(stream, &frame, file) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    (&mut &*stream).write_all(&frame[sent..])
}

/// Reads frames from a stream, and takes the descriptors that come with them.
pub struct Reader<'a> {
    stream: &'a UnixStream,
    files: Vec<OwnedFd>,
}

impl<'a> Reader<'a> {
    /// At the first frame of `stream`.
    pub fn new(stream: &'a UnixStream) -> Self {
        Self { stream, files: Vec::new() }
    }

    /// The next frame's JSON; `None` when the peer has ended between two frames.
    ///
    /// # Errors
    /// `InvalidData` for a frame that is too long, `UnexpectedEof` for one that is not whole, and what
    /// the system says.
    pub fn bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut head = [0; 4];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let len = u32::from_le_bytes(head) as usize;
        if len > FRAME_MAX_BYTES {
            let text = format!("a frame of {len} bytes is longer than {FRAME_MAX_BYTES}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut bytes = vec![0; len];
        if self.fill(&mut bytes)? < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(bytes))
    }

    /// The next frame.
    pub(crate) fn message<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(bytes) = self.bytes()? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// The descriptor that came with the last frame. If there were several, the first; the
    /// others are closed.
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        self.files.drain(..).next()
    }

    fn fill(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match sys::receive(self.stream, &mut buf[done..], &mut self.files) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            // Nobody needs more than one; nobody shall make us keep them.
            self.files.truncate(1);
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::os::fd::AsFd;
    use std::thread;

    #[test]
    fn frames_of_every_length_arrive() {
        let (one, two) = UnixStream::pair().unwrap();
        let lens = [0, 1, 1000, 65_536, FRAME_MAX_BYTES - 2];
        let thread = thread::spawn(move || {
            for len in lens {
                write(&one, &"x".repeat(len), None).unwrap();
            }
            let too_long = write(&one, &"x".repeat(FRAME_MAX_BYTES), None);
            assert_eq!(too_long.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        });
        let mut reader = Reader::new(&two);
        for len in lens {
            assert_eq!(reader.message::<String>().unwrap().unwrap().len(), len);
        }
        thread.join().unwrap();
        assert_eq!(reader.message::<Value>().unwrap(), None, "nothing of the long one was sent");
    }

    #[test]
    fn a_file_comes_with_its_frame() {
        let (one, two) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        write(&one, &json!({"n": 1}), None).unwrap();
        write(&one, &json!({"n": 2}), Some(file.as_fd())).unwrap();
        write(&one, &json!({"n": 3}), None).unwrap();
        let mut reader = Reader::new(&two);
        for (n, has_file) in [(1, false), (2, true), (3, false)] {
            assert_eq!(reader.message::<Value>().unwrap(), Some(json!({"n": n})));
            assert_eq!(reader.take_file().is_some(), has_file, "frame {n}");
        }
    }

    #[test]
    fn garbage_is_an_error() {
        for garbage in [&b"\xff\xff\xff\xff"[..], b"\x01\0\0", b"\x05\0\0\0{\"a\"", b"\x01\0\0\0{"]
        {
            let (one, two) = UnixStream::pair().unwrap();
            (&one).write_all(garbage).unwrap();
            drop(one);
            assert!(Reader::new(&two).message::<Value>().is_err(), "{garbage:?}");
        }
    }
}
