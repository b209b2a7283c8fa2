//! Clients that break rules or stop in the middle. Each test ends with somebody else being served.

use crate::client::{
    Answer, Client, Rig, eventually, info, limits, meta, option_bytes, request_bytes, rig, rig_with,
};
use crate::mem::{MemExports, MemVolume};
use cow_nbd::Limits;
use cow_nbd::wire::{cmd, opt, rep};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn one() -> (Arc<MemVolume>, Rig) {
    one_with(limits())
}

fn one_with(limits: Limits) -> (Arc<MemVolume>, Rig) {
    let volume = MemVolume::new(4 * MIB, false);
    volume.write(0, &vec![0x5a; 4 * MIB]);
    let rig = rig_with(MemExports::new(&[("vol", &volume)]), limits);
    (volume, rig)
}

fn nobody_left(volume: &MemVolume, rig: &Rig) {
    eventually("all exports closed", || volume.opens.load(Ordering::SeqCst) == 0);
    eventually("all connections gone", || rig.server.connections().is_empty());
}

#[test]
fn garbage_at_every_stage_closes_that_connection_only() {
    let (volume, rig) = one();
    let mut witness = rig.open("vol");
    let garbage = [0xa5; 64];

    let mut client = rig.raw();
    let _greeting: [u8; 18] = client.bytes();
    client.send(&garbage);
    client.assert_closed();

    let mut client = rig.greeted();
    client.send(&garbage);
    client.assert_closed();

    let mut client = rig.open("vol");
    client.send(&garbage);
    client.assert_closed();

    // After a good request, in the place of the next one.
    let mut client = rig.open("vol");
    client.request(cmd::READ, 0, 0, 512, &[]);
    client.send(&garbage);
    assert_eq!(client.answer(512).1, Answer::Data(vec![0x5a; 512]));
    client.assert_closed();

    witness.assert_alive();
    drop(witness);
    nobody_left(&volume, &rig);
}

#[test]
fn vanishing_after_any_byte_leaves_nothing_behind() {
    let (volume, rig) = one();
    let before = volume.bytes();
    let mut witness = rig.open("vol");
    let mut talk = 3_u32.to_be_bytes().to_vec();
    talk.extend_from_slice(&option_bytes(opt::GO, &info("vol", &[3])));
    let negotiation = talk.len();
    talk.extend_from_slice(&request_bytes(cmd::WRITE, 0, 1, 0, 100));
    talk.extend_from_slice(&[1; 99]);
    for end in 0..talk.len() {
        let mut client = rig.raw();
        let (negotiated, rest) = talk[..end].split_at(end.min(negotiation));
        client.send(negotiated);
        // The server may have left already, which is its right.
        let _ = client.stream.write_all(rest);
    }
    witness.assert_alive();
    drop(witness);
    nobody_left(&volume, &rig);
    assert!(volume.bytes() == before, "half a write has been carried out");
}

#[test]
fn vanishing_with_requests_in_flight_waits_for_them_and_then_closes() {
    let (volume, rig) = one();
    let mut client = rig.open("vol");
    volume.hold();
    for index in 0..50 {
        client.request(cmd::READ, 0, index * 4096, 4096, &[]);
        client.request(cmd::WRITE, 0, index * 4096, 4096, &[2; 4096]);
    }
    eventually("all in flight", || volume.held_count() == 100);
    drop(client);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(volume.opens.load(Ordering::SeqCst), 1, "closed under its requests");
    volume.release_reversed();
    nobody_left(&volume, &rig);
    rig.open("vol").assert_alive();
}

#[test]
fn disconnect_answers_what_is_in_flight_first() {
    let (volume, rig) = one();
    let mut client = rig.open("vol");
    volume.hold();
    for index in 0..20 {
        client.request(cmd::READ, 0, index * 4096, 4096, &[]);
    }
    client.request(cmd::DISC, 0, 0, 0, &[]);
    eventually("all in flight", || volume.held_count() == 20);
    volume.release_reversed();
    for _ in 0..20 {
        assert_eq!(client.answer(4096).1, Answer::Data(vec![0x5a; 4096]));
    }
    client.assert_closed();
    nobody_left(&volume, &rig);
}

/// Sends reads until the server takes no more of them.
fn fill(client: &mut Client) {
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let request = request_bytes(cmd::READ, 0, 1, 0, MIB as u32);
    let mut sent = 0;
    while client.stream.write_all(&request).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "the server reads without end");
    }
}

#[test]
fn a_client_that_does_not_read_stalls_itself_only() {
    let (volume, rig) = one_with(Limits { bytes_in_flight: 8 * MIB, ..limits() });
    let mut staller = rig.open("vol");
    fill(&mut staller);
    let mut witness = rig.open("vol");
    let start = Instant::now();
    for _ in 0..100 {
        witness.assert_alive();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "slowed down by another client");
    drop((witness, staller));
    nobody_left(&volume, &rig);
}

#[test]
fn a_client_that_is_done_and_does_not_read_is_cut_off() {
    let (volume, rig) = one();
    let mut disconnected = rig.open("vol");
    let mut half_closed = rig.open("vol");
    for index in 0..4 {
        disconnected.request(cmd::READ, 0, index * MIB as u64, MIB as u32, &[]);
        half_closed.request(cmd::READ, 0, index * MIB as u64, MIB as u32, &[]);
    }
    disconnected.request(cmd::DISC, 0, 0, 0, &[]);
    // Half a request in front of the end.
    half_closed.send(&request_bytes(cmd::WRITE, 0, 1, 0, 4096));
    half_closed.stream.shutdown(Shutdown::Write).expect("shutdown");
    nobody_left(&volume, &rig);
}

#[test]
fn a_stalled_client_can_be_fenced() {
    let (volume, rig) = one_with(Limits { bytes_in_flight: 8 * MIB, ..limits() });
    let mut staller = rig.open("vol");
    fill(&mut staller);
    assert_eq!(rig.server.disconnect_export("vol"), 1);
    nobody_left(&volume, &rig);
}

#[test]
fn refused_requests_are_bounded_as_well() {
    let (_, rig) = one();
    let mut staller = rig.open("vol");
    staller.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("timeout");
    let request = request_bytes(999, 0, 1, 0, 0);
    let mut sent = 0;
    while staller.stream.write_all(&request).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "the server reads without end");
    }
    rig.open("vol").assert_alive();
}

#[test]
fn a_client_that_stalls_inside_a_request_stalls_itself_only() {
    let (volume, rig) = one();
    let mut stallers: Vec<Client> = Vec::new();
    for cut in [1, 27, 28, 5000] {
        let mut client = rig.open("vol");
        let mut bytes = request_bytes(cmd::WRITE, 0, 1, 0, MIB as u32);
        bytes.extend_from_slice(&[1; 8000]);
        client.send(&bytes[..cut]);
        stallers.push(client);
    }
    let mut witness = rig.open("vol");
    for _ in 0..100 {
        witness.assert_alive();
    }
    assert_eq!(volume.opens.load(Ordering::SeqCst), 5);
    drop((stallers, witness));
    nobody_left(&volume, &rig);
}

#[test]
fn silence_and_dripping_during_negotiation_are_cut_off() {
    let timeout = Duration::from_millis(400);
    let (volume, rig) = one_with(Limits { handshake_timeout: timeout, ..limits() });
    let mut patient = rig.open("vol");
    let start = Instant::now();
    let mut silent = rig.raw();
    let _greeting: [u8; 18] = silent.bytes();
    let mut looking = rig.greeted();
    looking.option(opt::INFO, &info("vol", &[]));
    let mut dripping = rig.greeted();
    let drip = std::thread::spawn(move || {
        let bytes = option_bytes(opt::LIST, &[0; 1000]);
        let cut = bytes.iter().position(|byte| {
            std::thread::sleep(Duration::from_millis(20));
            dripping.stream.write_all(&[*byte]).is_err()
        });
        assert!(cut.is_some(), "dripping was tolerated");
    });
    silent.assert_closed();
    looking.assert_closed();
    drip.join().expect("drip");
    assert!(start.elapsed() < timeout * 10);
    eventually("one left", || rig.server.connections().len() == 1);
    assert_eq!(volume.opens.load(Ordering::SeqCst), 1);
    // The one in the transmission phase may be silent as long as it likes.
    patient.assert_alive();
}

#[test]
fn too_many_connections_are_turned_away_until_one_leaves() {
    let (_, rig) = one_with(Limits { connections: 3, ..limits() });
    let mut clients: Vec<Client> = (0..3).map(|_| rig.open("vol")).collect();
    let mut fourth = rig.raw();
    fourth.assert_closed();
    clients.pop();
    eventually("a free slot", || rig.server.connections().len() == 2);
    rig.open("vol").assert_alive();
    clients.iter_mut().for_each(Client::assert_alive);
}

#[test]
fn a_request_larger_than_the_budget_passes_alone() {
    let budget = Limits { bytes_in_flight: 4096, requests_in_flight: 1, ..limits() };
    let (_, rig) = one_with(budget);
    let mut client = rig.open("vol");
    for index in 0..4 {
        client.request(cmd::READ, 0, index * MIB as u64, MIB as u32, &[]);
    }
    for _ in 0..4 {
        assert_eq!(client.answer(MIB).1, Answer::Data(vec![0x5a; MIB]));
    }
}

#[test]
fn an_export_that_panics_costs_its_connection_only() {
    struct Panics;
    impl cow_nbd::Export for Panics {
        fn size_bytes(&self) -> u64 {
            1 << 20
        }
        fn read_only(&self) -> bool {
            false
        }
        fn submit(&self, _: cow_nbd::Request, _: cow_nbd::Completion) {
            panic!("on purpose");
        }
    }
    struct Only;
    impl cow_nbd::Exports for Only {
        fn list(&self) -> Vec<String> {
            vec!["vol".into()]
        }
        fn open(&self, _: &str) -> Result<Arc<dyn cow_nbd::Export>, cow_nbd::ExportError> {
            Ok(Arc::new(Panics))
        }
    }
    let rig = rig(Arc::new(Only));
    for _ in 0..3 {
        let mut client = rig.open("vol");
        assert_eq!(client.errno(cmd::READ, 0, 0, 512, &[]), 5);
        let mut rest = Vec::new();
        client.stream.read_to_end(&mut rest).expect("closed");
    }
    eventually("all connections gone", || rig.server.connections().is_empty());
}

#[test]
fn queries_of_any_kind_are_answered() {
    let volume = MemVolume::new(MIB, false);
    let names: Vec<String> = (0..20).map(|index| format!("vol@s{index}")).collect();
    let snapshots: Vec<_> = names.iter().map(|_| MemVolume::new(MIB, true)).collect();
    let mut exports = vec![("vol", &volume)];
    exports.extend(names.iter().map(String::as_str).zip(&snapshots));
    let rig = rig_with(MemExports::new(&exports), limits());
    let mut client = rig.greeted();
    client.option(opt::STRUCTURED_REPLY, &[]);
    client.structured = true;
    let long = format!("qemu:dirty-bitmap:{}", "s".repeat(4000));
    let odd = [
        ":",
        "::",
        "qemu:",
        "qemu::",
        "qemu:dirty-bitmap",
        "qemu:dirty-bitmap:",
        "QEMU:dirty-bitmap:s1",
        "qemu:dirty-bitmap::s1",
        "qemu:dirty-bitmap:s1:",
        "qemu:dirty-bitmap:vol@s1",
        "qemu: ",
        "qemu:dirty-bitmap:@",
        "qemu:dirty-bitmap:../s1",
        "qemu:dirty-bitmap:\u{fc}",
        "base:",
        "base::",
        &long,
    ];
    for code in [opt::SET_META_CONTEXT, opt::LIST_META_CONTEXT] {
        for query in odd {
            let replies = client.option(code, &meta("vol", &[query]));
            assert_eq!(replies.last(), Some(&(rep::ACK, vec![])), "{query}");
            assert!(code == opt::LIST_META_CONTEXT || replies.len() == 1, "{query} selects");
        }
        for query in ["", "qemu", "x\0:y"] {
            let replies = client.option(code, &meta("vol", &[query]));
            assert_eq!(replies, [(rep::ERR_INVALID, vec![])], "{query}");
        }
    }
    // Each costs an open snapshot: there is a limit, and nothing stays open behind a refusal.
    let queries: Vec<String> = (0..20).map(|index| format!("qemu:dirty-bitmap:s{index}")).collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let open = || snapshots.iter().map(|snap| snap.opens.load(Ordering::SeqCst)).sum::<usize>();
    let refused = client.option(opt::SET_META_CONTEXT, &meta("vol", &queries));
    assert_eq!(refused, [(rep::ERR_TOO_BIG, vec![])]);
    assert_eq!(open(), 0);
    let replies = client.option(opt::SET_META_CONTEXT, &meta("vol", &queries[..16]));
    assert_eq!((replies.len(), open()), (17, 16));
    // Garbage forgets them, and so does the choice of another export.
    client.option(opt::SET_META_CONTEXT, b"garbage");
    assert_eq!(open(), 0);
    client.option(opt::SET_META_CONTEXT, &meta("vol", &queries[..3]));
    client.go("vol@s9");
    assert_eq!(open(), 1, "only what it chose");
    assert_eq!(client.errno(cmd::BLOCK_STATUS, 0, 0, 4096, &[]), 22);
    drop(client);
    nobody_left(&volume, &rig);
}
