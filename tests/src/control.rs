//! A client of a control socket that is not `cowctl`: what another program may ask for.

use crate::place::Place;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Has the process that has the pool of `place` open do `verb`; its answer.
#[track_caller]
pub fn ask(place: &Place, verb: &Value) -> Value {
    let mut entries = fs::read_dir(place.path("run/cow")).unwrap().map(|e| e.unwrap().path());
    let is_socket = |path: &std::path::PathBuf| {
        path.to_str().is_some_and(|path| path.ends_with(".sock") && !path.ends_with(".nbd.sock"))
    };
    let mut stream = UnixStream::connect(entries.find(is_socket).expect("a socket")).unwrap();
    let uuid = place.json("pool", &["pool", "info"])["uuid"].clone();
    exchange(&mut stream, &json!({"hello": {"protocol": 1, "uuid": uuid}}));
    let answer = exchange(&mut stream, verb);
    assert!(answer.get("ok").is_some(), "{answer}");
    answer
}

/// One frame there and one back.
fn exchange(stream: &mut UnixStream, message: &Value) -> Value {
    let text = message.to_string();
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut answer = vec![0; u32::from_le_bytes(len) as usize];
    stream.read_exact(&mut answer).unwrap();
    serde_json::from_slice(&answer).unwrap()
}
