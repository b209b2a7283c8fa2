//! Any bytes that a client may send, as options and as a request: understood or refused, never a
//! panic; and a request that is allowed obeys the limits that nobody checks again.

use cow_nbd::wire::{
    Command, OPTION_HEADER_BYTES, OPTION_MAGIC, PAYLOAD_MAX_BYTES, REQUEST_HEADER_BYTES,
    REQUEST_MAGIC, Terms, check_request, parse_client_flags, parse_option, parse_option_header,
    parse_request,
};

/// See the module.
pub fn run(data: &[u8]) {
    // The first byte says what the client's terms are, the rest is what it sends.
    let Some((&first, sent)) = data.split_first() else { return };
    request(first, sent);
    option(sent);
    if let Some(flags) = sent.first_chunk::<4>() {
        let _ = parse_client_flags(*flags);
    }
}

fn request(first: u8, sent: &[u8]) {
    let Some(&as_sent) = sent.first_chunk::<REQUEST_HEADER_BYTES>() else { return };
    let _ = parse_request(&as_sent);
    let mut right = as_sent;
    right[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    let Ok(header) = parse_request(&right) else { return };
    assert!(header.payload_bytes() == 0 || header.payload_bytes() == header.len);
    let sizes = [0, 512, 1 << 20, (1 << 40) + 512, 1 << 52, u64::MAX];
    let terms = Terms {
        size_bytes: sizes[usize::from(first >> 3) % sizes.len()],
        read_only: first & 1 != 0,
        structured: first & 2 != 0,
        block_status: first & 4 != 0,
    };
    let Ok(command) = check_request(&header, &terms) else { return };
    let (offset, len, most, writes) = match command {
        Command::Read { offset, len } => (offset, len, PAYLOAD_MAX_BYTES, false),
        Command::Write { offset, len, .. } => (offset, len, PAYLOAD_MAX_BYTES, true),
        Command::Trim { offset, len, .. } | Command::WriteZeroes { offset, len, .. } => {
            (offset, len, u32::MAX, true)
        }
        Command::Cache { offset, len } | Command::BlockStatus { offset, len, .. } => {
            (offset, len, u32::MAX, false)
        }
        Command::Disconnect | Command::Flush => (0, 0, 0, false),
    };
    assert!(len <= most);
    assert!(offset.checked_add(len.into()).is_some_and(|end| end <= terms.size_bytes));
    assert!(!(writes && terms.read_only));
}

fn option(sent: &[u8]) {
    let Some((&as_sent, data)) = sent.split_first_chunk::<OPTION_HEADER_BYTES>() else { return };
    let _ = parse_option_header(&as_sent);
    let mut right = as_sent;
    right[..8].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    let Ok(header) = parse_option_header(&right) else { return };
    let _ = parse_option(header.code, data);
}
