//! Noise against a live server: it never panics, never serves anybody wrongly, and lives on.

use crate::client::{Client, Rig, eventually, option_bytes, request_bytes, rig};
use crate::mem::{MemExports, MemVolume};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn one() -> (Arc<MemVolume>, Rig) {
    let volume = MemVolume::new(1 << 20, false);
    let rig = rig(MemExports::new(&[("vol", &volume)]));
    (volume, rig)
}

/// Says its piece, hears what comes, and leaves.
fn babble(client: &mut Client, bytes: &[u8]) -> usize {
    let _ = client.stream.write_all(bytes);
    let _ = client.stream.shutdown(Shutdown::Write);
    let mut heard = Vec::new();
    let _ = client.stream.read_to_end(&mut heard);
    heard.len()
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        Just(crate::client::info("vol", &[0, 1, 3])),
        Just(crate::client::meta("vol", &["base:allocation", "base:", "x:y"])),
        Just(b"vol".to_vec()),
        Just(Vec::new()),
    ];
    let option = (0_u32..13, data, any::<bool>()).prop_map(|(code, data, whole)| {
        let bytes = option_bytes(code, &data);
        let end = if whole { bytes.len() } else { bytes.len() - data.len() / 2 };
        bytes[..end].to_vec()
    });
    proptest::collection::vec(option, 0..12).prop_map(|options| options.concat())
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    let request = (
        0_u16..10,
        prop_oneof![3 => Just(0_u16), 1 => 0_u16..64],
        prop_oneof![9 => 0_u64..1 << 20, 1 => any::<u64>()],
        prop_oneof![9 => 0_u32..10_000, 1 => any::<u32>()],
        0_usize..10_000,
    );
    let bytes = request.prop_map(|(kind, flags, offset, len, payload)| {
        let mut bytes = request_bytes(kind, flags, 9, offset, len);
        if kind == 1 {
            // Mostly as much as was announced; sometimes the stream goes out of step.
            let payload = if payload % 8 == 0 { payload } else { len.min(1 << 20) as usize };
            bytes.resize(bytes.len() + payload, 0x77);
        }
        bytes
    });
    proptest::collection::vec(bytes, 0..20).prop_map(|requests| requests.concat())
}

#[test]
fn noise_instead_of_negotiation() {
    let (volume, rig) = one();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
    proptest!(config, |(noise in proptest::collection::vec(any::<u8>(), 0..200))| {
        babble(&mut rig.raw(), &noise);
        babble(&mut rig.greeted(), &noise);
    });
    lives_on(&volume, &rig);
}

#[test]
fn plausible_options_and_requests() {
    let (volume, rig) = one();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
    proptest!(config, |(options in options(), requests in requests())| {
        babble(&mut rig.greeted(), &[options.clone(), requests].concat());
    });
    lives_on(&volume, &rig);
}

#[test]
fn plausible_requests() {
    let (volume, rig) = one();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) };
    proptest!(config, |(requests in requests(), noise in proptest::collection::vec(any::<u8>(), 0..100))| {
        babble(&mut rig.open("vol"), &[requests.clone(), noise.clone()].concat());
        babble(&mut rig.open_simple("vol"), &[requests, noise].concat());
    });
    lives_on(&volume, &rig);
}

fn lives_on(volume: &MemVolume, rig: &Rig) {
    rig.open("vol").assert_alive();
    eventually("all exports closed", || volume.opens.load(Ordering::SeqCst) == 0);
    eventually("all connections gone", || rig.server.connections().is_empty());
}
