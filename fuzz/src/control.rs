//! Frames on the control socket, and the requests in them.

use cowstore::control::{FrameReader, parse_verb};
use std::io::Write;
use std::os::unix::net::UnixStream;

/// What fits the socket's buffer.
const MOST: usize = 64 << 10;

/// See the module.
pub fn run(data: &[u8]) {
    request(data);
    let Ok((mut client, server)) = UnixStream::pair() else { return };
    let _ = client.write_all(&data[..data.len().min(MOST)]);
    drop(client);
    let mut reader = FrameReader::new(&server);
    while let Ok(Some(frame)) = reader.bytes() {
        request(&frame);
        let _ = reader.take_file();
    }
}

/// What is understood is understood again when it is said in our words.
fn request(bytes: &[u8]) {
    let Ok(verb) = parse_verb(bytes) else { return };
    let Ok(said) = serde_json::to_vec(&verb) else { panic!("{verb:?} cannot be said") };
    let Ok(again) = parse_verb(&said) else { panic!("{verb:?} is not understood") };
    assert_eq!(format!("{verb:?}"), format!("{again:?}"));
}
