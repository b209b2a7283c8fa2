use crate::client::{Rig, counted, info, meta, option_bytes, rig};
use crate::mem::{MemExports, MemVolume};
use cow_nbd::wire::{self, cmd, flag, opt, rep};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MIB: usize = 1 << 20;

fn volumes() -> (Arc<MemVolume>, Arc<MemVolume>, Rig) {
    let volume = MemVolume::new(MIB, false);
    let snapshot = MemVolume::new(MIB, true);
    let rig = rig(MemExports::new(&[("vol", &volume), ("vol@snap", &snapshot)]));
    (volume, snapshot, rig)
}

fn info_export(flags: u16) -> Vec<u8> {
    let mut data = vec![0, 0];
    data.extend_from_slice(&(MIB as u64).to_be_bytes());
    data.extend_from_slice(&flags.to_be_bytes());
    data
}

#[test]
fn export_name_enters_transmission_with_and_without_padding() {
    let (_, _, rig) = volumes();
    for (flags, padding) in [(1_u32, 124), (3, 0)] {
        let mut client = rig.raw();
        let _greeting: [u8; 18] = client.bytes();
        client.send(&flags.to_be_bytes());
        client.send(&option_bytes(opt::EXPORT_NAME, b"vol"));
        assert_eq!(client.u64(), MIB as u64);
        assert_eq!(client.u16(), wire::transmission_flags(false, false));
        for _ in 0..padding {
            assert_eq!(client.bytes(), [0]);
        }
        client.assert_alive();
    }
}

#[test]
fn export_name_of_nothing_closes() {
    let (_, _, rig) = volumes();
    let mut client = rig.greeted();
    client.send(&option_bytes(opt::EXPORT_NAME, b"nothing"));
    client.assert_closed();
}

#[test]
fn info_tells_size_flags_and_block_size_and_go_the_same() {
    let (volume, _, rig) = volumes();
    let mut client = rig.greeted();
    client.option(opt::STRUCTURED_REPLY, &[]);
    let flags = wire::transmission_flags(false, true);
    assert_ne!(flags & flag::CAN_MULTI_CONN, 0);
    let mut sizes = vec![0, 3];
    for size in [1_u32, 4096, 32 << 20] {
        sizes.extend_from_slice(&size.to_be_bytes());
    }
    let mut name = vec![0, 1];
    name.extend_from_slice(b"vol");
    let expected = [
        (rep::INFO, info_export(flags)),
        (rep::INFO, name),
        (rep::INFO, sizes),
        (rep::ACK, vec![]),
    ];
    // The empty name stands for the only volume.
    assert_eq!(client.option(opt::INFO, &info("", &[3, 1, 77])), expected);
    assert_eq!(client.option(opt::GO, &info("", &[3, 1, 77])), expected);
    assert_eq!(volume.opens.load(Ordering::SeqCst), 1, "opened once");
    client.structured = true;
    client.assert_alive();
}

#[test]
fn a_snapshot_is_read_only_and_may_be_shared() {
    let (_, _, rig) = volumes();
    let mut client = rig.greeted();
    let flags = flag::HAS_FLAGS | flag::READ_ONLY | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
    assert_eq!(
        client.option(opt::INFO, &info("vol@snap", &[])),
        [(rep::INFO, info_export(flags)), (rep::ACK, vec![])]
    );
}

#[test]
fn unknown_exports_and_options_are_refused_and_negotiation_goes_on() {
    let (volume, _, rig) = volumes();
    let mut client = rig.greeted();
    let refused = |kind: u32| vec![(kind, vec![])];
    assert_eq!(client.option(opt::GO, &info("nothing", &[])), refused(rep::ERR_UNKNOWN));
    assert_eq!(client.option(opt::INFO, &info("nothing", &[])), refused(rep::ERR_UNKNOWN));
    assert_eq!(client.option(opt::STARTTLS, &[]), refused(rep::ERR_UNSUP));
    assert_eq!(client.option(opt::STARTTLS, b"data"), refused(rep::ERR_UNSUP));
    assert_eq!(client.option(4, &[]), refused(rep::ERR_UNSUP));
    assert_eq!(client.option(11, &[]), refused(rep::ERR_UNSUP));
    assert_eq!(client.option(u32::MAX, &[7; 1000]), refused(rep::ERR_UNSUP));
    assert_eq!(client.option(opt::LIST, b"data"), refused(rep::ERR_INVALID));
    assert_eq!(client.option(opt::STRUCTURED_REPLY, b"data"), refused(rep::ERR_INVALID));
    assert_eq!(client.option(opt::GO, b"xx"), refused(rep::ERR_INVALID));
    assert_eq!(volume.opens.load(Ordering::SeqCst), 0);
    client.go("vol");
    client.assert_alive();
}

#[test]
fn too_long_options_are_skipped_and_absurd_ones_end_it() {
    let (_, _, rig) = volumes();
    let mut client = rig.greeted();
    let refused = vec![(rep::ERR_TOO_BIG, vec![])];
    assert_eq!(client.option(opt::GO, &info(&"n".repeat(4097), &[])), refused);
    assert_eq!(client.option(opt::LIST, &vec![0; 100_000]), refused);
    client.go("vol");

    let mut client = rig.greeted();
    let mut header = option_bytes(opt::GO, &[]);
    header[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    client.send(&header);
    assert_eq!(client.option_reply(opt::GO).0, rep::ERR_TOO_BIG);
    client.assert_closed();

    let mut client = rig.greeted();
    client.send(&option_bytes(opt::EXPORT_NAME, &[b'n'; 4097]));
    client.assert_closed();
}

#[test]
fn list_names_every_export() {
    let (_, _, rig) = volumes();
    let replies = rig.greeted().option(opt::LIST, &[]);
    assert_eq!(
        replies,
        [(rep::SERVER, counted("vol")), (rep::SERVER, counted("vol@snap")), (rep::ACK, vec![])]
    );
}

#[test]
fn abort_is_answered() {
    let (_, _, rig) = volumes();
    let mut client = rig.greeted();
    assert_eq!(client.option(opt::ABORT, b"bye"), [(rep::ACK, vec![])]);
    client.assert_closed();
}

fn context(id: u32) -> (u32, Vec<u8>) {
    named(id, "base:allocation")
}

fn named(id: u32, name: &str) -> (u32, Vec<u8>) {
    let mut data = id.to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    (rep::META_CONTEXT, data)
}

#[test]
fn meta_contexts_are_listed_and_selected() {
    let (_, _, rig) = volumes();
    let mut client = rig.greeted();
    let ack = (rep::ACK, vec![]);
    let refused = [(rep::ERR_INVALID, vec![])];
    let all = meta("vol", &["base:allocation"]);
    assert_eq!(client.option(opt::LIST_META_CONTEXT, &all), refused);
    assert_eq!(client.option(opt::SET_META_CONTEXT, &all), refused);
    client.option(opt::STRUCTURED_REPLY, &[]);
    let bitmap = |id| named(id, "qemu:dirty-bitmap:snap");
    for queries in [&[][..], &["qemu:", "base:allocation"], &["base:", "qemu:dirty-bitmap:"]] {
        let found = client.option(opt::LIST_META_CONTEXT, &meta("vol", queries));
        assert_eq!(found, [context(0), bitmap(0), ack.clone()], "{queries:?}");
    }
    let found = client.option(opt::LIST_META_CONTEXT, &meta("vol", &["base:"]));
    assert_eq!(found, [context(0), ack.clone()]);
    for queries in [&["qemu:"][..], &["qemu:dirty-bitmap:"], &["qemu:dirty-bitmap:snap"]] {
        let found = client.option(opt::LIST_META_CONTEXT, &meta("vol", queries));
        assert_eq!(found, [bitmap(0), ack.clone()], "{queries:?}");
        // A snapshot is not compared with itself.
        let found = client.option(opt::LIST_META_CONTEXT, &meta("vol@snap", queries));
        assert_eq!(found, std::slice::from_ref(&ack), "{queries:?}");
    }
    for queries in [&["base:other"][..], &["qemu:dirty-bitmap:s"], &["qemu:allocation-depth"]] {
        let found = client.option(opt::LIST_META_CONTEXT, &meta("vol", queries));
        assert_eq!(found, std::slice::from_ref(&ack), "{queries:?}");
    }
    for queries in
        [&[][..], &["base:"], &["qemu:dirty-bitmap:s"], &["qemu:"], &["qemu:dirty-bitmap:"]]
    {
        let found = client.option(opt::SET_META_CONTEXT, &meta("vol", queries));
        assert_eq!(found, std::slice::from_ref(&ack), "{queries:?}");
    }
    let twice = meta("vol", &["base:allocation", "base:allocation"]);
    assert_eq!(client.option(opt::SET_META_CONTEXT, &twice), [context(1), ack.clone()]);
    let unknown = client.option(opt::SET_META_CONTEXT, &meta("nothing", &["base:allocation"]));
    assert_eq!(unknown, [(rep::ERR_UNKNOWN, vec![])]);
}

#[test]
fn several_contexts_have_numbers_of_their_own_and_a_chunk_each() {
    let (volume, snapshot, rig) = volumes();
    volume.write(8192, &[1; 4096]);
    let mut client = rig.greeted();
    client.option(opt::STRUCTURED_REPLY, &[]);
    client.structured = true;
    let queries = ["qemu:dirty-bitmap:none", "qemu:dirty-bitmap:snap", "base:allocation", "base:"];
    let found = client.option(opt::SET_META_CONTEXT, &meta("vol", &queries));
    let bitmap = named(1, "qemu:dirty-bitmap:snap");
    assert_eq!(found, [bitmap, context(2), (rep::ACK, vec![])]);
    client.go("vol");
    assert_eq!(rig.server.connections()[0].bases, ["vol@snap"]);
    assert_eq!(snapshot.opens.load(Ordering::SeqCst), 1, "the snapshot is held");
    let mut status = |flags, offset, len| client.call(cmd::BLOCK_STATUS, flags, offset, len, &[]);
    let statuses = |dirty: &[(u32, u32)], allocated: &[(u32, u32)]| {
        crate::client::Answer::Statuses(vec![(1, dirty.to_vec()), (2, allocated.to_vec())])
    };
    let rest = MIB as u32 - 12_288;
    assert_eq!(
        status(0, 0, MIB as u32),
        statuses(&[(8192, 0), (4096, 1), (rest, 0)], &[(8192, 3), (4096, 0), (rest, 3)])
    );
    let one = wire::cmd_flag::REQ_ONE;
    assert_eq!(status(one, 0, MIB as u32), statuses(&[(8192, 0)], &[(8192, 3)]));
    assert_eq!(status(one, 9000, 1000), statuses(&[(1000, 1)], &[(1000, 0)]));
    // One context that fails is an error of the whole request.
    snapshot.fail_with(|_| Some(cow_nbd::ExportError::Failed("gone".into())));
    assert_eq!(client.errno(cmd::BLOCK_STATUS, 0, 0, 4096, &[]), 5);
    snapshot.lossy.store(true, Ordering::SeqCst);
    assert_eq!(client.errno(cmd::BLOCK_STATUS, 0, 0, 4096, &[]), 5);
    client.assert_alive();
    drop(client);
    crate::client::eventually("the snapshot is let go", || {
        snapshot.opens.load(Ordering::SeqCst) == 0
    });
}

#[test]
fn a_selection_holds_for_its_export_until_the_next_one() {
    let (_, _, rig) = volumes();
    let open = |first: &[u8], second: Option<&[u8]>| {
        let mut client = rig.greeted();
        client.option(opt::STRUCTURED_REPLY, &[]);
        client.structured = true;
        client.option(opt::SET_META_CONTEXT, first);
        if let Some(second) = second {
            client.option(opt::SET_META_CONTEXT, second);
        }
        client.go("vol");
        client
    };
    let good = meta("vol", &["base:allocation"]);
    let status =
        |client: &mut crate::client::Client| client.call(cmd::BLOCK_STATUS, 0, 0, 4096, &[]);
    assert_eq!(status(&mut open(&good, None)), crate::client::Answer::Status(vec![(4096, 3)]));
    for (first, second) in [
        (meta("vol@snap", &["base:allocation"]), None),
        (good.clone(), Some(meta("vol", &[]))),
        (good.clone(), Some(meta("nothing", &["base:allocation"]))),
        (good, Some(b"garbage".to_vec())),
    ] {
        let mut client = open(&first, second.as_deref());
        assert_eq!(client.errno(cmd::BLOCK_STATUS, 0, 0, 4096, &[]), 22);
        client.assert_alive();
    }
}
