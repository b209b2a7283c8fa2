//! Whatever a client may send, to a server on a socket: negotiation, and requests if it comes to that. The
//! server ends the connection or answers, and is there for the next.

use cow_nbd::{Limits, Server, ServerHandle};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

#[path = "../../crates/cow-nbd/tests/it/mem.rs"]
#[allow(dead_code, unused_imports, clippy::all, clippy::unwrap_used, clippy::expect_used)]
mod mem;

/// Longest input: what a client sends before it listens must fit the socket's buffer.
const MOST: usize = 64 << 10;

fn server() -> &'static (ServerHandle, PathBuf) {
    static SERVER: OnceLock<(ServerHandle, PathBuf)> = OnceLock::new();
    SERVER.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("cow-fuzz-{}.sock", std::process::id()));
        let exports = mem::MemExports::new(&[("v", &mem::MemVolume::new(1 << 20, false))]);
        let limits = Limits { drain_timeout: Duration::from_millis(200), ..Limits::default() };
        let server = Server::builder().unix(&path).limits(limits).start(exports);
        (server.unwrap_or_else(|error| panic!("no server: {error}")), path)
    })
}

/// See the module. The first byte tells a client that begins in good order from one that does not.
pub fn run(data: &[u8]) {
    let Some((&first, sent)) = data.split_first() else { return };
    let mut bytes = Vec::new();
    if first & 1 == 1 {
        bytes.extend([0, 0, 0, 3]);
    }
    if first & 2 == 2 {
        // NBD_OPT_GO for the volume, and then requests.
        bytes.extend(b"IHAVEOPT\0\0\0\x07\0\0\0\x07\0\0\0\x01v\0\0");
    }
    bytes.extend(&sent[..sent.len().min(MOST)]);
    let (_, path) = server();
    let Ok(mut stream) = UnixStream::connect(path) else { panic!("the server is gone") };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    // It may hang up before all is sent.
    let _ = stream.write_all(&bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let (mut answer, mut all) = ([0; 4096], 0);
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return,
            Ok(len) => all += len,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
            // The fuzzer's own alarm.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("no end after {all} bytes: {error}"),
        }
    }
}
