use crate::client::{Answer, Rig, eventually, rig};
use crate::mem::{MemExports, MemVolume};
use cow_nbd::wire::{cmd, cmd_flag};
use cow_nbd::{ExportError, Request};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MIB: usize = 1 << 20;
const EPERM: u32 = 1;
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;
const EOVERFLOW: u32 = 75;
const ENOTSUP: u32 = 95;
const ESHUTDOWN: u32 = 108;

fn one(size: usize) -> (Arc<MemVolume>, Rig) {
    let volume = MemVolume::new(size, false);
    let rig = rig(MemExports::new(&[("vol", &volume)]));
    (volume, rig)
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

#[test]
fn any_alignment_reads_back_what_was_written() {
    let (volume, rig) = one(MIB);
    for structured in [false, true] {
        let mut client = if structured { rig.open("vol") } else { rig.open_simple("vol") };
        for (offset, len) in [(0, 1), (511, 2), (4095, 4098), (12_345, 54_321), (MIB - 3, 3)] {
            let data = pattern(len, offset as u8);
            assert_eq!(client.write(offset as u64, &data), Answer::Ok);
            assert_eq!(client.read(offset as u64, len as u32), Answer::Data(data.clone()));
            assert_eq!(volume.bytes()[offset..offset + len], data);
        }
    }
}

#[test]
fn unmapped_reads_are_holes_or_zeroes() {
    let (_, rig) = one(MIB);
    assert_eq!(rig.open("vol").read(100, 200_000), Answer::Hole(100, 200_000));
    assert_eq!(rig.open_simple("vol").read(100, 200_000), Answer::Data(vec![0; 200_000]));
}

#[test]
fn a_new_size_counts_from_the_next_request() {
    let (volume, rig) = one(MIB);
    let mut client = rig.open("vol");
    let end = MIB as u64;
    assert_eq!(client.errno(cmd::WRITE, 0, end, 4096, &[1; 4096]), ENOSPC);
    // The server waits for the request already.
    volume.resize(2 * MIB);
    assert_eq!(client.write(end, &[1; 4096]), Answer::Ok);
    assert_eq!(client.read(end, 4096), Answer::Data(vec![1; 4096]));
    volume.resize(MIB);
    assert_eq!(client.errno(cmd::READ, 0, end, 4096, &[]), EINVAL);
}

#[test]
fn the_largest_payload_goes_both_ways() {
    let (volume, rig) = one(33 * MIB);
    let mut client = rig.open("vol");
    let data = pattern(32 * MIB, 3);
    assert_eq!(client.write(4096, &data), Answer::Ok);
    assert!(client.read(4096, 32 << 20) == Answer::Data(data), "read back");
    assert_eq!(volume.writes.load(Ordering::SeqCst), 1);
}

#[test]
fn oversized_payloads_are_refused_and_skipped() {
    let (volume, rig) = one(40 * MIB);
    let over = (32 << 20) + 1;
    let data = vec![1; over as usize];
    let mut client = rig.open("vol");
    assert_eq!(client.errno(cmd::READ, 0, 0, over, &[]), EOVERFLOW);
    assert_eq!(client.errno(cmd::WRITE, 0, 0, over, &data), EINVAL);
    client.assert_alive();
    let mut simple = rig.open_simple("vol");
    assert_eq!(simple.errno(cmd::READ, 0, 0, over, &[]), EINVAL);
    assert_eq!(simple.errno(cmd::WRITE, 0, 0, over, &data), EINVAL);
    simple.assert_alive();
    assert_eq!(volume.writes.load(Ordering::SeqCst), 0);

    // More than anybody would wait for: an answer, and the end.
    assert_eq!(client.errno(cmd::WRITE, 0, 0, u32::MAX, &[]), EINVAL);
    client.assert_closed();
    simple.assert_alive();
}

#[test]
fn out_of_range_requests_are_refused() {
    let (volume, rig) = one(MIB);
    let mut client = rig.open("vol");
    let end = MIB as u64;
    for (offset, len) in [(end, 1), (end - 1, 2), (u64::MAX, 1), (u64::MAX - 10, 100)] {
        let data = vec![9; len as usize];
        assert_eq!(client.errno(cmd::READ, 0, offset, len, &[]), EINVAL);
        assert_eq!(client.errno(cmd::WRITE, 0, offset, len, &data), ENOSPC);
        assert_eq!(client.errno(cmd::WRITE_ZEROES, 0, offset, len, &[]), ENOSPC);
        assert_eq!(client.errno(cmd::TRIM, 0, offset, len, &[]), EINVAL);
        assert_eq!(client.errno(cmd::CACHE, 0, offset, len, &[]), EINVAL);
        assert_eq!(client.errno(cmd::BLOCK_STATUS, 0, offset, len, &[]), EINVAL);
    }
    assert_eq!(volume.writes.load(Ordering::SeqCst), 0);
    client.assert_alive();
}

#[test]
fn a_read_only_export_refuses_writes_and_survives_them() {
    let snapshot = MemVolume::new(MIB, true);
    snapshot.write(0, &pattern(MIB, 5));
    let rig = rig(MemExports::new(&[("vol@snap", &snapshot)]));
    let mut client = rig.open("vol@snap");
    assert_eq!(client.errno(cmd::WRITE, 0, 0, 4096, &[1; 4096]), EPERM);
    assert_eq!(client.errno(cmd::TRIM, 0, 0, 4096, &[]), EPERM);
    assert_eq!(client.errno(cmd::WRITE_ZEROES, 0, 0, 4096, &[]), EPERM);
    assert_eq!(client.call(cmd::FLUSH, 0, 0, 0, &[]), Answer::Ok);
    assert_eq!(snapshot.flushes.load(Ordering::SeqCst), 0);
    assert_eq!(client.read(0, 4096), Answer::Data(pattern(MIB, 5)[..4096].to_vec()));
    assert_eq!(snapshot.bytes(), pattern(MIB, 5));
}

#[test]
fn unknown_commands_and_flags_are_refused() {
    let (_, rig) = one(MIB);
    let mut client = rig.open("vol");
    for kind in [8, 99, u16::MAX] {
        assert_eq!(client.errno(kind, 0, 0, 0, &[]), EINVAL);
    }
    assert_eq!(client.errno(cmd::READ, 1 << 9, 0, 512, &[]), EINVAL);
    assert_eq!(client.errno(cmd::WRITE, cmd_flag::DF, 0, 512, &[1; 512]), EINVAL);
    assert_eq!(client.errno(cmd::TRIM, cmd_flag::FAST_ZERO, 0, 512, &[]), EINVAL);
    client.assert_alive();
    let mut simple = rig.open_simple("vol");
    assert_eq!(simple.errno(cmd::READ, cmd_flag::DF, 0, 512, &[]), EINVAL);
    simple.assert_alive();
}

#[test]
fn nothing_is_a_range_too() {
    let (volume, rig) = one(MIB);
    for mut client in [rig.open("vol"), rig.open_simple("vol")] {
        for kind in [cmd::READ, cmd::WRITE, cmd::TRIM, cmd::WRITE_ZEROES, cmd::CACHE] {
            assert_eq!(client.call(kind, 0, MIB as u64, 0, &[]), Answer::Ok, "{kind}");
        }
        assert_eq!(client.errno(cmd::BLOCK_STATUS, 0, 0, 0, &[]), EINVAL);
    }
    assert_eq!(volume.writes.load(Ordering::SeqCst), 0);
}

#[test]
fn flush_fua_trim_zeroes_and_cache_reach_the_storage() {
    let (volume, rig) = one(MIB);
    volume.write(0, &pattern(MIB, 1));
    let mut client = rig.open("vol");
    let fua = cmd_flag::FUA;
    assert_eq!(client.call(cmd::FLUSH, 0, 0, 0, &[]), Answer::Ok);
    assert_eq!(volume.flushes.load(Ordering::SeqCst), 1);
    assert_eq!(client.call(cmd::WRITE, fua, 0, 512, &[7; 512]), Answer::Ok);
    assert_eq!(client.call(cmd::TRIM, fua, 4096, 4096, &[]), Answer::Ok);
    assert_eq!(client.call(cmd::WRITE_ZEROES, fua, 8192, 4096, &[]), Answer::Ok);
    assert_eq!(volume.forced.load(Ordering::SeqCst), 3);
    // Flags that clients put where they mean nothing.
    assert_eq!(client.call(cmd::CACHE, fua, 0, MIB as u32, &[]), Answer::Ok);
    assert_eq!(client.call(cmd::FLUSH, fua, 0, 0, &[]), Answer::Ok);
    let bytes = volume.bytes();
    assert_eq!(bytes[..512], [7; 512]);
    assert_eq!(bytes[4096..12_288], [0; 8192]);
}

#[test]
fn fast_zero_fails_fast_and_plain_zeroing_never_with_its_error() {
    let (volume, rig) = one(MIB);
    let mut client = rig.open("vol");
    let (fast, no_hole) = (cmd_flag::FAST_ZERO, cmd_flag::NO_HOLE);
    assert_eq!(client.call(cmd::WRITE_ZEROES, fast, 0, 4096, &[]), Answer::Ok);
    assert_eq!(client.errno(cmd::WRITE_ZEROES, fast | no_hole, 0, 4096, &[]), ENOTSUP);
    assert_eq!(client.call(cmd::WRITE_ZEROES, no_hole, 0, 4096, &[]), Answer::Ok);
    volume.fail_with(|_| Some(ExportError::NotSupported));
    assert_eq!(client.errno(cmd::WRITE_ZEROES, 0, 0, 4096, &[]), EINVAL);
    assert_eq!(client.errno(cmd::TRIM, 0, 0, 4096, &[]), EINVAL);
}

#[test]
fn block_status_joins_extents_and_obeys_req_one() {
    let (volume, rig) = one(MIB);
    volume.write(8192, &[1; 8192]);
    volume.write(32_768, &[1; 100]);
    let mut client = rig.open("vol");
    let all = client.call(cmd::BLOCK_STATUS, 0, 0, MIB as u32, &[]);
    assert_eq!(
        all,
        Answer::Status(vec![
            (8192, 3),
            (8192, 0),
            (16_384, 3),
            (4096, 0),
            (MIB as u32 - 36_864, 3)
        ])
    );
    let one = cmd_flag::REQ_ONE;
    assert_eq!(
        client.call(cmd::BLOCK_STATUS, one, 8192, MIB as u32 - 8192, &[]),
        Answer::Status(vec![(8192, 0)])
    );
    assert_eq!(
        client.call(cmd::BLOCK_STATUS, one, 10_000, 100, &[]),
        Answer::Status(vec![(100, 0)])
    );
    let mut simple = rig.open_simple("vol");
    assert_eq!(simple.errno(cmd::BLOCK_STATUS, 0, 0, 4096, &[]), EINVAL);
}

#[test]
fn df_reads_come_in_one_piece() {
    let (volume, rig) = one(MIB);
    volume.write(8192, &pattern(8192, 1));
    let mut client = rig.open("vol");
    let answer = client.call(cmd::READ, cmd_flag::DF, 0, MIB as u32, &[]);
    assert_eq!(answer, Answer::Data(volume.bytes()));
}

#[test]
fn errors_of_the_storage_are_translated() {
    for (error, errno) in [
        (ExportError::NoSpace, ENOSPC),
        (ExportError::ReadOnly, EPERM),
        (ExportError::Invalid, EINVAL),
        (ExportError::NotSupported, EINVAL),
        (ExportError::NotFound, EIO),
        (ExportError::Failed("bad checksum in block 7".into()), EIO),
    ] {
        let (volume, rig) = one(MIB);
        let text = error.to_string();
        volume.fail_with(move |_| Some(error.clone()));
        let mut client = rig.open("vol");
        assert_eq!(client.read(0, 512), Answer::Error(errno, text.clone()));
        assert_eq!(client.write(0, &[1; 512]), Answer::Error(errno, text));
        let mut simple = rig.open_simple("vol");
        assert_eq!(simple.read(0, 512), Answer::Error(errno, String::new()));
        assert_eq!(simple.write(0, &[1; 512]), Answer::Error(errno, String::new()));
    }
}

#[test]
fn stale_is_said_and_ends_the_connection() {
    let (volume, rig) = one(MIB);
    let mut other = rig.open("vol");
    let mut client = rig.open("vol");
    volume.fail_with(|request| {
        matches!(request, Request::Write { .. }).then_some(ExportError::Stale)
    });
    assert_eq!(client.errno(cmd::WRITE, 0, 0, 512, &[1; 512]), ESHUTDOWN);
    client.assert_closed();
    other.assert_alive();
    eventually("one client left", || volume.opens.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_dropped_callback_is_an_io_error() {
    let (volume, rig) = one(MIB);
    let mut client = rig.open("vol");
    volume.lossy.store(true, Ordering::SeqCst);
    assert_eq!(client.errno(cmd::READ, 0, 0, 512, &[]), EIO);
    volume.lossy.store(false, Ordering::SeqCst);
    client.assert_alive();
}

#[test]
fn many_requests_are_in_flight_and_answered_out_of_order() {
    let (volume, rig) = one(8 * MIB);
    volume.write(0, &pattern(8 * MIB, 1));
    let expected = volume.bytes();
    let mut client = rig.open("vol");
    volume.hold();
    let first = client.request(cmd::READ, 0, 0, 4096, &[]);
    for index in 1..500 {
        client.request(cmd::READ, 0, index * 4096, 4096, &[]);
    }
    eventually("all in flight", || volume.held_count() == 500);
    volume.release_reversed();
    let mut cookies = BTreeSet::new();
    for index in 0..500 {
        let (cookie, answer) = client.answer(4096);
        if index == 0 {
            assert_eq!(cookie, first + 499, "the last is answered first");
        }
        let offset = ((cookie - first) * 4096) as usize;
        assert_eq!(answer, Answer::Data(expected[offset..offset + 4096].to_vec()));
        assert!(cookies.insert(cookie));
    }
    client.assert_alive();
}

#[test]
fn a_flush_on_one_connection_and_reads_on_another() {
    let (volume, rig) = one(MIB);
    let (mut first, mut second) = (rig.open("vol"), rig.open("vol"));
    assert_eq!(first.write(0, &[7; 4096]), Answer::Ok);
    assert_eq!(second.call(cmd::FLUSH, 0, 0, 0, &[]), Answer::Ok);
    assert_eq!(volume.flushes.load(Ordering::SeqCst), 1);
    assert_eq!(second.read(0, 4096), Answer::Data(vec![7; 4096]));
}
