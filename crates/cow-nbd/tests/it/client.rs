//! A client that says exactly what the test wants, right or wrong.

use cow_nbd::wire::{self, cmd, opt, rep};
use cow_nbd::{Exports, Limits, Server, ServerHandle};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A server on a Unix socket in a directory of its own.
pub struct Rig {
    pub server: ServerHandle,
    pub socket: PathBuf,
    pub dir: tempfile::TempDir,
}

pub fn limits() -> Limits {
    Limits { drain_timeout: Duration::from_millis(300), ..Limits::default() }
}

pub fn rig(exports: Arc<dyn Exports>) -> Rig {
    rig_with(exports, limits())
}

pub fn rig_with(exports: Arc<dyn Exports>, limits: Limits) -> Rig {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("nbd.sock");
    let server = Server::builder().unix(&socket).limits(limits).start(exports).expect("start");
    Rig { server, socket, dir }
}

impl Rig {
    pub fn uri(&self, export: &str) -> String {
        self.server.uris(export).remove(0)
    }

    pub fn raw(&self) -> Client {
        Client::connect(&self.socket)
    }

    /// Past the greeting.
    pub fn greeted(&self) -> Client {
        let mut client = self.raw();
        client.greet();
        client
    }

    /// In the transmission phase with structured replies and `base:allocation`.
    pub fn open(&self, name: &str) -> Client {
        let mut client = self.greeted();
        assert_eq!(client.option(opt::STRUCTURED_REPLY, &[]), [(rep::ACK, vec![])]);
        client.structured = true;
        client.option(opt::SET_META_CONTEXT, &meta(name, &["base:allocation"]));
        client.go(name);
        client
    }

    /// In the transmission phase with nothing negotiated.
    pub fn open_simple(&self, name: &str) -> Client {
        let mut client = self.greeted();
        client.go(name);
        client
    }
}

/// Waits until something becomes true, which it must soon.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(15), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn counted(text: &str) -> Vec<u8> {
    let mut data = (text.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(text.as_bytes());
    data
}

pub fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&counted(query));
    }
    data
}

pub fn info(name: &str, requests: &[u16]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend_from_slice(&(requests.len() as u16).to_be_bytes());
    for request in requests {
        data.extend_from_slice(&request.to_be_bytes());
    }
    data
}

pub fn option_bytes(code: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire::OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&code.to_be_bytes());
    bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    bytes
}

pub fn request_bytes(kind: u16, flags: u16, cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    let mut bytes = wire::REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&cookie.to_be_bytes());
    bytes.extend_from_slice(&offset.to_be_bytes());
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

/// A reply of the transmission phase.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Data(Vec<u8>),
    Hole(u64, u32),
    Status(Vec<(u32, u32)>),
    /// Of several contexts, each with its number.
    Statuses(Vec<(u32, Vec<(u32, u32)>)>),
    Error(u32, String),
}

pub struct Client {
    pub stream: UnixStream,
    pub structured: bool,
    cookie: u64,
}

impl Client {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("connect");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
        Self { stream, structured: false, cookie: 0 }
    }

    pub fn greet(&mut self) {
        let mut greeting = [0; 18];
        self.stream.read_exact(&mut greeting).expect("greeting");
        assert_eq!(greeting, wire::greeting());
        self.send(&3_u32.to_be_bytes());
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send");
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).expect("receive");
        bytes
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.bytes())
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.bytes())
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.bytes())
    }

    fn vec(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("receive");
        bytes
    }

    /// The server has hung up, having said nothing more.
    pub fn assert_closed(&mut self) {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            other => panic!("not closed: {other:?}"),
        }
    }

    pub fn option_reply(&mut self, code: u32) -> (u32, Vec<u8>) {
        assert_eq!(self.u64(), wire::OPTION_REPLY_MAGIC);
        assert_eq!(self.u32(), code);
        let kind = self.u32();
        let len = self.u32() as usize;
        (kind, self.vec(len))
    }

    /// Sends an option and collects its replies; the text of an error is left out.
    pub fn option(&mut self, code: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send(&option_bytes(code, data));
        let mut replies = Vec::new();
        loop {
            let (kind, mut data) = self.option_reply(code);
            let error = kind & 0x8000_0000 != 0;
            if error {
                data.clear();
            }
            replies.push((kind, data));
            if error || kind == rep::ACK {
                return replies;
            }
        }
    }

    pub fn go(&mut self, name: &str) {
        let replies = self.option(opt::GO, &info(name, &[]));
        assert_eq!(replies.last(), Some(&(rep::ACK, vec![])), "{replies:?}");
    }

    /// Sends a request with a fresh cookie, which it returns.
    pub fn request(&mut self, kind: u16, flags: u16, offset: u64, len: u32, data: &[u8]) -> u64 {
        self.cookie += 1;
        let mut bytes = request_bytes(kind, flags, self.cookie, offset, len);
        bytes.extend_from_slice(data);
        self.send(&bytes);
        self.cookie
    }

    /// Receives one reply; `read_len` is what a simple reply to it brings along.
    pub fn answer(&mut self, read_len: usize) -> (u64, Answer) {
        match self.u32() {
            wire::SIMPLE_REPLY_MAGIC => {
                let error = self.u32();
                let cookie = self.u64();
                let answer = match error {
                    0 if read_len > 0 => Answer::Data(self.vec(read_len)),
                    0 => Answer::Ok,
                    _ => Answer::Error(error, String::new()),
                };
                (cookie, answer)
            }
            wire::STRUCTURED_REPLY_MAGIC => {
                assert!(self.structured, "not negotiated");
                let done = self.u16() == 1;
                let kind = self.u16();
                let cookie = self.u64();
                let len = self.u32() as usize;
                assert!(done || kind == 5, "every other reply is a single, final chunk");
                (
                    cookie,
                    if kind == 5 {
                        self.statuses(done, cookie, len)
                    } else {
                        self.chunk(kind, len)
                    },
                )
            }
            magic => panic!("reply with magic {magic:#x}"),
        }
    }

    /// Chunks of a block status, up to the last one.
    fn statuses(&mut self, mut done: bool, cookie: u64, mut len: usize) -> Answer {
        let mut all = Vec::new();
        loop {
            let id = self.u32();
            let extents: Vec<_> = (0..(len - 4) / 8).map(|_| (self.u32(), self.u32())).collect();
            all.push((id, extents));
            if done {
                break;
            }
            assert_eq!(self.u32(), wire::STRUCTURED_REPLY_MAGIC);
            done = self.u16() == 1;
            assert_eq!((self.u16(), self.u64()), (5, cookie));
            len = self.u32() as usize;
        }
        match all.len() {
            1 => Answer::Status(all.remove(0).1),
            _ => Answer::Statuses(all),
        }
    }

    fn chunk(&mut self, kind: u16, len: usize) -> Answer {
        match kind {
            0 => {
                assert_eq!(len, 0);
                Answer::Ok
            }
            1 => {
                assert!(len > 8);
                let _offset = self.u64();
                Answer::Data(self.vec(len - 8))
            }
            2 => {
                assert_eq!(len, 12);
                Answer::Hole(self.u64(), self.u32())
            }
            0x8001 => {
                let error = self.u32();
                let text_len = usize::from(self.u16());
                assert_eq!(len, text_len + 6);
                Answer::Error(error, String::from_utf8(self.vec(text_len)).expect("text"))
            }
            other => panic!("chunk of type {other}"),
        }
    }

    /// One request and its reply.
    pub fn call(&mut self, kind: u16, flags: u16, offset: u64, len: u32, data: &[u8]) -> Answer {
        let cookie = self.request(kind, flags, offset, len, data);
        let read_len = if kind == cmd::READ { len as usize } else { 0 };
        let (found, answer) = self.answer(read_len);
        assert_eq!(found, cookie);
        answer
    }

    pub fn read(&mut self, offset: u64, len: u32) -> Answer {
        self.call(cmd::READ, 0, offset, len, &[])
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> Answer {
        self.call(cmd::WRITE, 0, offset, data.len() as u32, data)
    }

    /// The error number of a request that must fail.
    pub fn errno(&mut self, kind: u16, flags: u16, offset: u64, len: u32, data: &[u8]) -> u32 {
        match self.call(kind, flags, offset, len, data) {
            Answer::Error(error, _) => error,
            other => panic!("succeeded: {other:?}"),
        }
    }

    /// The connection still works.
    pub fn assert_alive(&mut self) {
        assert!(matches!(self.read(0, 512), Answer::Data(_) | Answer::Hole(0, 512)));
    }
}
