//! A connection for the kernel: the negotiation that the kernel leaves to others, up to where requests
//! begin. Simple replies, which is all that the kernel understands.

use crate::wire::{cmd, flag, info, opt, rep};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

const IHAVEOPT: u64 = 0x4948_4156_454F_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const SIMPLE_REPLY: u32 = 0x6744_6698;
/// Fixed newstyle, and no zeroes after the handshake.
const CLIENT_FLAGS: u32 = 3;
/// More than any answer to an option has here.
const ANSWER_MAX_BYTES: u32 = 64 << 10;

pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    pub(super) fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buf),
            Self::Tcp(stream) => stream.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(buf),
            Self::Tcp(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection to one export, negotiated.
pub struct Client {
    pub(super) stream: Socket,
    /// Size of the export.
    pub size_bytes: u64,
    /// Transmission flags.
    pub flags: u16,
}

impl Client {
    /// Connects to a unix socket and chooses an export.
    ///
    /// # Errors
    /// `NotFound` when the server has no such export; what the server says to it otherwise.
    pub fn unix(socket: &Path, export: &str) -> io::Result<Self> {
        Self::negotiate(Socket::Unix(UnixStream::connect(socket)?), export)
    }

    /// Connects to a host and chooses an export.
    ///
    /// # Errors
    /// As [`Client::unix`].
    pub fn tcp(host: &str, port: u16, export: &str) -> io::Result<Self> {
        let stream = TcpStream::connect((host, port))?;
        stream.set_nodelay(true)?;
        Self::negotiate(Socket::Tcp(stream), export)
    }

    /// Whether a flush on one connection covers the writes of all.
    pub fn can_have_several(&self) -> bool {
        self.flags & flag::CAN_MULTI_CONN != 0
    }

    fn negotiate(mut stream: Socket, export: &str) -> io::Result<Self> {
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting)?;
        if &greeting[..8] != b"NBDMAGIC" || greeting[8..16] != IHAVEOPT.to_be_bytes() {
            return Err(odd("this is no NBD server of our time"));
        }
        let name_len = u32::try_from(export.len()).map_err(io::Error::other)?;
        let mut hello = Vec::new();
        hello.extend(CLIENT_FLAGS.to_be_bytes());
        hello.extend(IHAVEOPT.to_be_bytes());
        hello.extend(opt::GO.to_be_bytes());
        hello.extend((name_len + 6).to_be_bytes());
        hello.extend(name_len.to_be_bytes());
        hello.extend(export.as_bytes());
        hello.extend(0_u16.to_be_bytes());
        stream.write_all(&hello)?;
        let mut found = None;
        loop {
            let (kind, answer) = read_answer(&mut stream)?;
            match kind {
                rep::ACK => {
                    let (size_bytes, flags) =
                        found.ok_or_else(|| odd("the server does not say how large it is"))?;
                    return Ok(Self { stream, size_bytes, flags });
                }
                rep::INFO => found = export_info(&answer).or(found),
                _ => {
                    let text = String::from_utf8_lossy(&answer).into_owned();
                    let is_unknown = kind == rep::ERR_UNKNOWN;
                    let kind =
                        if is_unknown { io::ErrorKind::NotFound } else { io::ErrorKind::Other };
                    return Err(io::Error::new(kind, format!("{export}: {text}")));
                }
            }
        }
    }

    /// Reads `len` bytes at `offset`: before the connection is given away.
    ///
    /// # Errors
    /// What the server says.
    pub fn read(&mut self, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let mut request = Vec::new();
        request.extend(REQUEST.to_be_bytes());
        request.extend(0_u16.to_be_bytes());
        request.extend(cmd::READ.to_be_bytes());
        request.extend([0; 8]);
        request.extend(offset.to_be_bytes());
        request.extend(len.to_be_bytes());
        self.stream.write_all(&request)?;
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        let (magic, rest) = reply.split_at(4);
        if magic != SIMPLE_REPLY.to_be_bytes() || rest[4..] != [0; 8] {
            return Err(odd("a strange reply"));
        }
        let errno = rest.first_chunk().map_or(0, |errno| i32::from_be_bytes(*errno));
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let mut data = vec![0; len as usize];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }
}

/// An answer to an option: its type, and what comes with it.
fn read_answer(stream: &mut Socket) -> io::Result<(u32, Vec<u8>)> {
    let mut head = [0; 20];
    stream.read_exact(&mut head)?;
    let word = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (kind, len) = (word(12), word(16));
    if head[..8] != OPTION_REPLY.to_be_bytes() || len > ANSWER_MAX_BYTES {
        return Err(odd("a strange answer to an option"));
    }
    let mut answer = vec![0; len as usize];
    stream.read_exact(&mut answer)?;
    Ok((kind, answer))
}

/// Size and flags, if it is about these.
fn export_info(answer: &[u8]) -> Option<(u64, u16)> {
    let kind = u16::from_be_bytes(answer.get(..2)?.try_into().ok()?);
    let size = u64::from_be_bytes(answer.get(2..10)?.try_into().ok()?);
    let flags = u16::from_be_bytes(answer.get(10..12)?.try_into().ok()?);
    (kind == info::EXPORT).then_some((size, flags))
}

fn odd(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
