//! An NBD client, as small as damage needs: one export, writes and flushes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;

const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;

/// Fixed newstyle, and no zeroes after the handshake.
const CLIENT_FLAGS: u32 = 3;

/// A connection to one export.
pub struct Client {
    stream: UnixStream,
    cookie: u64,
}

impl Client {
    /// Connects to the server at `socket` and chooses `export`.
    pub fn connect(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        if &greeting[..8] != b"NBDMAGIC" || greeting[8..16] != IHAVEOPT.to_be_bytes() {
            return Err(odd("no NBD server of this age"));
        }
        stream.write_all(&CLIENT_FLAGS.to_be_bytes())?;
        let mut option = Vec::new();
        option.extend(IHAVEOPT.to_be_bytes());
        option.extend(OPT_GO.to_be_bytes());
        option.extend((export.len() as u32 + 6).to_be_bytes());
        option.extend((export.len() as u32).to_be_bytes());
        option.extend(export.as_bytes());
        option.extend(0_u16.to_be_bytes());
        stream.write_all(&option)?;
        loop {
            let mut head = [0; 20];
            stream.read_exact(&mut head)?;
            let word = |at: usize| {
                u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
            };
            if head[..8] != OPTION_REPLY.to_be_bytes() {
                return Err(odd("a strange answer to an option"));
            }
            let mut text = Vec::new();
            io::copy(&mut (&mut stream).take(word(16).into()), &mut text)?;
            match word(12) {
                REP_ACK => return Ok(Self { stream, cookie: 0 }),
                REP_INFO => {}
                _ => return Err(odd(&String::from_utf8_lossy(&text))),
            }
        }
    }

    /// Writes `data` at byte `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.request(CMD_WRITE, offset, data)
    }

    /// Makes all of it durable.
    pub fn flush(&mut self) -> io::Result<()> {
        self.request(CMD_FLUSH, 0, &[])
    }

    /// Says goodbye, and waits until the server has let go of the export.
    pub fn disconnect(mut self) -> io::Result<()> {
        self.send(CMD_DISC, 0, 0)?;
        self.stream.read_to_end(&mut Vec::new()).map(|_| ())
    }

    fn request(&mut self, command: u16, offset: u64, data: &[u8]) -> io::Result<()> {
        self.send(command, offset, data.len() as u32)?;
        self.stream.write_all(data)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        if reply[..4] != SIMPLE_REPLY.to_be_bytes() || reply[8..] != self.cookie.to_be_bytes() {
            return Err(odd("a strange reply"));
        }
        match u32::from_be_bytes([reply[4], reply[5], reply[6], reply[7]]) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno as i32)),
        }
    }

    fn send(&mut self, command: u16, offset: u64, len: u32) -> io::Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28);
        request.extend(REQUEST.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        self.stream.write_all(&request)
    }
}

fn odd(text: &str) -> io::Error {
    io::Error::other(text.to_owned())
}
