use super::*;
use proptest::prelude::*;

const WRITABLE: Terms =
    Terms { size_bytes: 1 << 20, read_only: false, structured: true, block_status: true };

fn header(kind: u16, flags: u16, offset: u64, len: u32) -> RequestHeader {
    RequestHeader { flags, kind, cookie: 7, offset, len }
}

fn error_of(header: RequestHeader, terms: &Terms) -> Option<NbdError> {
    check_request(&header, terms).err().map(|refusal| refusal.error)
}

fn info_data(name: &[u8], requests: &[u16]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name);
    data.extend_from_slice(&(requests.len() as u16).to_be_bytes());
    for request in requests {
        data.extend_from_slice(&request.to_be_bytes());
    }
    data
}

fn meta_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = (name.len() as u32).to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&(query.len() as u32).to_be_bytes());
        data.extend_from_slice(query.as_bytes());
    }
    data
}

#[test]
fn a_request_header_is_taken_apart() {
    let mut bytes = [0; REQUEST_HEADER_BYTES];
    bytes[..4].copy_from_slice(&[0x25, 0x60, 0x95, 0x13]);
    bytes[4..8].copy_from_slice(&[0, 1, 0, 4]);
    bytes[8..16].copy_from_slice(&0x0102_0304_0506_0708_u64.to_be_bytes());
    bytes[16..24].copy_from_slice(&0x1000_u64.to_be_bytes());
    bytes[24..].copy_from_slice(&0x200_u32.to_be_bytes());
    let parsed = parse_request(&bytes).expect("valid");
    assert_eq!(
        parsed,
        RequestHeader {
            flags: 1,
            kind: cmd::TRIM,
            cookie: 0x0102_0304_0506_0708,
            offset: 0x1000,
            len: 0x200
        }
    );
    bytes[0] = 0;
    assert_eq!(parse_request(&bytes), Err(WireError::BadMagic { found: 0x0060_9513 }));
}

#[test]
fn unknown_client_flags_are_refused() {
    let flags = parse_client_flags([0, 0, 0, 3]).expect("known");
    assert!(flags.fixed_newstyle && flags.no_zeroes);
    assert_eq!(parse_client_flags([0, 0, 0, 7]), Err(WireError::UnknownClientFlags { flags: 7 }));
}

#[test]
fn options_are_understood() {
    assert_eq!(
        parse_option(opt::GO, &info_data(b"vol@s", &[3, 1])),
        Ok(ClientOption::Go { name: "vol@s".into(), requests: vec![3, 1] })
    );
    assert_eq!(parse_option(opt::EXPORT_NAME, b"vol"), Ok(ClientOption::ExportName("vol".into())));
    let Ok(ClientOption::SetMetaContext { name, queries }) = parse_option(
        opt::SET_META_CONTEXT,
        &meta_data("vol", &["base:allocation", "base:", "qemu:dirty-bitmap:s"]),
    ) else {
        panic!("not understood");
    };
    assert_eq!(name, "vol");
    assert_eq!(queries[0].selects(), Some(MetaContext::BaseAllocation));
    assert_eq!(queries[1].selects(), None);
    assert!(queries[1].lists(&MetaContext::BaseAllocation));
    assert_eq!(queries[2], MetaQuery { namespace: "qemu".into(), leaf: "dirty-bitmap:s".into() });
    assert!(!queries[2].lists(&MetaContext::BaseAllocation));
    let bitmap = |name: &str| MetaContext::DirtyBitmap(name.into());
    assert_eq!(queries[2].selects(), Some(bitmap("s")));
    assert_eq!(bitmap("a:b").name(), "qemu:dirty-bitmap:a:b");
    for (leaf, lists, selects) in [
        ("", true, None),
        ("dirty-bitmap:", true, None),
        ("dirty-bitmap:s", true, Some(bitmap("s"))),
        ("dirty-bitmap:s:t", false, Some(bitmap("s:t"))),
        ("dirty-bitmap", false, None),
        ("allocation-depth", false, None),
    ] {
        let query = MetaQuery { namespace: "qemu".into(), leaf: leaf.into() };
        assert_eq!((query.lists(&bitmap("s")), query.selects()), (lists, selects), "{leaf}");
        assert!(!query.lists(&MetaContext::BaseAllocation));
        let query = MetaQuery { namespace: "base".into(), ..query };
        assert!(!query.lists(&bitmap("s")) && query.selects().is_none());
    }
    assert_eq!(parse_option(99, b"whatever"), Ok(ClientOption::Unknown(99)));
    assert_eq!(parse_option(opt::ABORT, b"ignored"), Ok(ClientOption::Abort));
}

#[test]
fn malformed_options_are_refused() {
    let malformed = |code, data: &[u8]| {
        assert!(
            matches!(parse_option(code, data), Err(WireError::Malformed { .. })),
            "{code} {data:?}"
        );
    };
    malformed(opt::LIST, b"x");
    malformed(opt::STRUCTURED_REPLY, b"x");
    malformed(opt::GO, b"");
    malformed(opt::GO, &[0, 0, 0, 9, b'v']);
    malformed(opt::GO, &info_data(b"\xff\xfe", &[]));
    malformed(opt::GO, &info_data(b"a\0b", &[]));
    let mut one_more = info_data(b"v", &[1]);
    one_more.push(0);
    malformed(opt::GO, &one_more);
    let mut one_less = info_data(b"v", &[1, 3]);
    one_less.pop();
    malformed(opt::INFO, &one_less);
    malformed(opt::SET_META_CONTEXT, &meta_data("v", &["nocolon"]));

    let long = "n".repeat(STRING_MAX_BYTES + 1);
    let too_big = |code, data: &[u8]| {
        assert!(matches!(parse_option(code, data), Err(WireError::TooBig { .. })));
    };
    too_big(opt::EXPORT_NAME, long.as_bytes());
    too_big(opt::GO, &info_data(long.as_bytes(), &[]));
    let mut many = meta_data("v", &[]);
    let at = many.len() - 4;
    many[at..].copy_from_slice(&u32::MAX.to_be_bytes());
    too_big(opt::LIST_META_CONTEXT, &many);
}

#[test]
fn ranges_end_at_the_end_of_the_export() {
    let size = WRITABLE.size_bytes;
    for (kind, error) in [
        (cmd::READ, NbdError::Invalid),
        (cmd::WRITE, NbdError::NoSpace),
        (cmd::TRIM, NbdError::Invalid),
        (cmd::CACHE, NbdError::Invalid),
        (cmd::WRITE_ZEROES, NbdError::NoSpace),
        (cmd::BLOCK_STATUS, NbdError::Invalid),
    ] {
        assert_eq!(error_of(header(kind, 0, size - 512, 512), &WRITABLE), None, "{kind}");
        assert_eq!(error_of(header(kind, 0, size - 511, 512), &WRITABLE), Some(error), "{kind}");
        assert_eq!(error_of(header(kind, 0, size, 1), &WRITABLE), Some(error), "{kind}");
        assert_eq!(error_of(header(kind, 0, u64::MAX, 2), &WRITABLE), Some(error), "{kind}");
    }
}

#[test]
fn flags_are_valid_per_request() {
    let all = cmd_flag::NO_HOLE | cmd_flag::DF | cmd_flag::REQ_ONE | cmd_flag::FAST_ZERO | 1 << 5;
    for (kind, own) in [
        (cmd::READ, cmd_flag::DF),
        (cmd::WRITE, 0),
        (cmd::FLUSH, 0),
        (cmd::TRIM, 0),
        (cmd::CACHE, 0),
        (cmd::WRITE_ZEROES, cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO),
        (cmd::BLOCK_STATUS, cmd_flag::REQ_ONE),
    ] {
        let len = if kind == cmd::FLUSH { 0 } else { 512 };
        assert_eq!(error_of(header(kind, own | cmd_flag::FUA, 0, len), &WRITABLE), None, "{kind}");
        for bit in (0..16).map(|bit| 1 << bit).filter(|bit| all & !own & bit != 0) {
            let found = error_of(header(kind, bit, 0, len), &WRITABLE);
            assert_eq!(found, Some(NbdError::Invalid), "{kind} {bit:#x}");
        }
    }
    let simple = Terms { structured: false, ..WRITABLE };
    assert_eq!(error_of(header(cmd::READ, cmd_flag::DF, 0, 1), &simple), Some(NbdError::Invalid));
}

#[test]
fn what_writes_is_refused_on_read_only_exports() {
    let terms = Terms { read_only: true, ..WRITABLE };
    for kind in [cmd::WRITE, cmd::TRIM, cmd::WRITE_ZEROES] {
        assert_eq!(error_of(header(kind, 0, 0, 512), &terms), Some(NbdError::NotPermitted));
    }
    for kind in [cmd::READ, cmd::CACHE, cmd::BLOCK_STATUS] {
        assert_eq!(error_of(header(kind, 0, 0, 512), &terms), None);
    }
}

#[test]
fn payloads_are_limited_and_other_lengths_are_not() {
    let terms = Terms { size_bytes: 1 << 40, ..WRITABLE };
    let simple = Terms { structured: false, block_status: false, ..terms };
    let over = PAYLOAD_MAX_BYTES + 1;
    assert_eq!(error_of(header(cmd::READ, 0, 0, PAYLOAD_MAX_BYTES), &terms), None);
    assert_eq!(error_of(header(cmd::READ, 0, 0, over), &terms), Some(NbdError::Overflow));
    assert_eq!(error_of(header(cmd::READ, 0, 0, over), &simple), Some(NbdError::Invalid));
    assert_eq!(error_of(header(cmd::WRITE, 0, 0, PAYLOAD_MAX_BYTES), &terms), None);
    assert_eq!(error_of(header(cmd::WRITE, 0, 0, over), &terms), Some(NbdError::Invalid));
    for kind in [cmd::TRIM, cmd::WRITE_ZEROES, cmd::CACHE, cmd::BLOCK_STATUS] {
        assert_eq!(error_of(header(kind, 0, 0, u32::MAX), &terms), None);
    }
    assert_eq!(error_of(header(cmd::FLUSH, 0, 0, 1), &terms), Some(NbdError::Invalid));
    assert_eq!(error_of(header(cmd::BLOCK_STATUS, 0, 0, 0), &terms), Some(NbdError::Invalid));
    assert_eq!(error_of(header(cmd::BLOCK_STATUS, 0, 0, 1), &simple), Some(NbdError::Invalid));
    assert_eq!(error_of(header(8, 0, 0, 0), &terms), Some(NbdError::Invalid));
    assert_eq!(error_of(header(u16::MAX, 0, 0, 0), &terms), Some(NbdError::Invalid));
}

#[test]
fn transmission_flags_match_the_export() {
    let writable = transmission_flags(false, true);
    assert_eq!(writable & flag::READ_ONLY, 0);
    assert_ne!(writable & flag::SEND_DF, 0);
    let snapshot = transmission_flags(true, false);
    assert_eq!(
        snapshot,
        flag::HAS_FLAGS | flag::READ_ONLY | flag::CAN_MULTI_CONN | flag::SEND_CACHE
    );
}

fn descriptors(payload: &[u8]) -> Vec<(u32, u32)> {
    let word = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    payload.chunks(8).map(|pair| (word(&pair[..4]), word(&pair[4..]))).collect()
}

#[test]
fn extents_are_joined_and_cut() {
    let extents = [(4096, 3), (0, 0), (4096, 3), (1 << 40, 0)];
    let full = status_payload(extents.into_iter(), 20_000, false);
    assert_eq!(descriptors(&full), [(8192, 3), (11_808, 0)]);
    let one = status_payload(extents.into_iter(), 20_000, true);
    assert_eq!(descriptors(&one), [(8192, 3)]);
    let short = status_payload(extents.into_iter(), 100, true);
    assert_eq!(descriptors(&short), [(100, 3)]);
    assert!(status_payload(std::iter::empty(), 100, false).is_empty());
    let stripes = (0..200_000).map(|index| (1, index % 2));
    let many = status_payload(stripes, 200_000, false);
    assert_eq!(many.len(), DESCRIPTORS_MAX * 8);
}

#[test]
fn error_chunks_carry_a_bounded_message() {
    let long = "ü".repeat(STRING_MAX_BYTES);
    assert_eq!(error_payload(&long).len(), STRING_MAX_BYTES);
    let odd = format!("a{long}");
    assert_eq!(error_payload(&odd).len(), STRING_MAX_BYTES - 1);
    let head = error_head(7, NbdError::NoSpace, "full");
    assert_eq!(head.as_bytes().len(), 26);
    assert_eq!(head.as_bytes()[16..], [0, 0, 0, 10, 0, 0, 0, 28, 0, 4]);
}

proptest! {
    #[test]
    fn no_option_data_makes_the_parser_panic(
        code in 0_u32..12,
        data in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let _ = parse_option(code, &data);
    }

    /// Lengths that are nearly right reach further into the parsers than noise does.
    #[test]
    fn no_plausible_option_data_makes_the_parser_panic(
        code in 6_u32..11,
        words in proptest::collection::vec((0_u32..12, proptest::collection::vec(any::<u8>(), 0..12)), 0..6),
    ) {
        let mut data = Vec::new();
        for (word, bytes) in words {
            data.extend_from_slice(&word.to_be_bytes());
            data.extend_from_slice(&bytes);
        }
        let _ = parse_option(code, &data);
    }

    /// Whatever passes the check obeys what `Command` promises.
    #[test]
    fn commands_keep_their_promises(
        kind in 0_u16..10,
        flags in prop_oneof![0_u16..32, any::<u16>()],
        offset in prop_oneof![0_u64..2_000_000, any::<u64>()],
        len in prop_oneof![0_u32..2_000_000, any::<u32>()],
        read_only: bool,
        structured: bool,
        block_status: bool,
    ) {
        let terms = Terms { size_bytes: 1 << 20, read_only, structured, block_status };
        let checked = check_request(&header(kind, flags, offset, len), &terms);
        match checked {
            Ok(Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }) => {
                prop_assert!(!read_only && offset + u64::from(len) <= terms.size_bytes);
            }
            Ok(Command::BlockStatus { .. }) => prop_assert!(structured && block_status && len > 0),
            Ok(Command::Read { .. } | Command::Cache { .. }) => {
                prop_assert!(offset + u64::from(len) <= terms.size_bytes);
            }
            Ok(Command::Flush | Command::Disconnect) | Err(_) => {}
        }
    }
}
