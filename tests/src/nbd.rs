//! An NBD client that does one thing at a time, for tests that must know what was acknowledged.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// A connection to one export.
pub struct Client {
    stream: UnixStream,
    cookie: u64,
    /// Size of the export.
    pub size_bytes: u64,
    /// Whether it refuses writes.
    pub read_only: bool,
}

impl Client {
    /// Connects to the server at `socket` and chooses `export` (`NBD_OPT_EXPORT_NAME`).
    pub fn connect(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        // Fixed newstyle, no zeroes; then the option.
        let mut words = 3_u32.to_be_bytes().to_vec();
        words.extend(b"IHAVEOPT");
        words.extend(1_u32.to_be_bytes());
        words.extend((export.len() as u32).to_be_bytes());
        words.extend(export.as_bytes());
        stream.write_all(&words)?;
        let mut reply = [0; 10];
        stream.read_exact(&mut reply)?;
        let size_bytes = u64::from_be_bytes(reply[..8].try_into().expect("8 bytes"));
        Ok(Self { stream, cookie: 0, size_bytes, read_only: reply[9] & 2 != 0 })
    }

    /// Writes; returns when it is acknowledged.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.send(1, offset, data.len() as u32)?;
        self.stream.write_all(data)?;
        self.reply()
    }

    /// Asks for a write; [`Client::finish`] waits for it.
    pub fn start_write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.send(1, offset, data.len() as u32)?;
        self.stream.write_all(data)
    }

    /// Asks for a discard; [`Client::finish`] waits for it.
    pub fn start_trim(&mut self, offset: u64, len: u32) -> io::Result<()> {
        self.send(4, offset, len)
    }

    /// Waits for what was asked for.
    pub fn finish(&mut self) -> io::Result<()> {
        self.reply()
    }

    /// Flushes; returns when it is acknowledged.
    pub fn flush(&mut self) -> io::Result<()> {
        self.send(3, 0, 0)?;
        self.reply()
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        self.send(0, offset, len)?;
        self.reply()?;
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    /// Leaves, and waits until the server has noticed.
    pub fn leave(mut self) -> io::Result<()> {
        self.send(2, 0, 0)?;
        self.stream.read_to_end(&mut Vec::new()).map(|_| ())
    }

    fn send(&mut self, command: u16, offset: u64, len: u32) -> io::Result<()> {
        self.cookie += 1;
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend([0, 0]);
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        self.stream.write_all(&request)
    }

    fn reply(&mut self) -> io::Result<()> {
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        assert_eq!(reply[..4], 0x6744_6698_u32.to_be_bytes(), "a simple reply");
        assert_eq!(reply[8..], self.cookie.to_be_bytes(), "to this request");
        match u32::from_be_bytes(reply[4..8].try_into().expect("4 bytes")) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    }
}
