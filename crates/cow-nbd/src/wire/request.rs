//! Requests of the transmission phase, and the rules that they must obey.

use super::fields::Fields;
use super::{
    NbdError, PAYLOAD_MAX_BYTES, REQUEST_HEADER_BYTES, REQUEST_MAGIC, WireError, cmd, cmd_flag,
};

/// A request header as it came, understood but not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// Request flags; see [`cmd_flag`].
    pub flags: u16,
    /// Request type; see [`cmd`].
    pub kind: u16,
    /// The client's name for the request, returned in the reply.
    pub cookie: u64,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u32,
}

impl RequestHeader {
    /// Bytes of payload that follow the header on the wire, whatever becomes of the request.
    pub fn payload_bytes(&self) -> u32 {
        if self.kind == cmd::WRITE { self.len } else { 0 }
    }
}

/// Parses a request header.
pub fn parse_request(bytes: &[u8; REQUEST_HEADER_BYTES]) -> Result<RequestHeader, WireError> {
    let mut fields = Fields::new(bytes);
    let magic = fields.u32()?;
    if magic != REQUEST_MAGIC {
        return Err(WireError::BadMagic { found: magic.into() });
    }
    Ok(RequestHeader {
        flags: fields.u16()?,
        kind: fields.u16()?,
        cookie: fields.u64()?,
        offset: fields.u64()?,
        len: fields.u32()?,
    })
}

/// What was agreed upon for a connection: all that the rules for requests depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Size of the export.
    pub size_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether structured replies were negotiated.
    pub structured: bool,
    /// Whether a meta context was selected for this export.
    pub block_status: bool,
}

/// A request that obeys the rules. Ranges lie inside the export; `len` is at most
/// [`PAYLOAD_MAX_BYTES`] where a payload goes along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read `len` bytes at `offset`.
    Read {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
    },
    /// Write `len` bytes at `offset`.
    Write {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
        /// On stable storage before the reply.
        fua: bool,
    },
    /// Leave, after what is in flight.
    Disconnect,
    /// Bring all answered writes to stable storage.
    Flush,
    /// Forget `len` bytes at `offset`.
    Trim {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
        /// On stable storage before the reply.
        fua: bool,
    },
    /// Zero `len` bytes at `offset`.
    WriteZeroes {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
        /// Keep the range allocated.
        no_hole: bool,
        /// Fail rather than be as slow as writing.
        fast: bool,
        /// On stable storage before the reply.
        fua: bool,
    },
    /// Expect reads of `len` bytes at `offset`.
    Cache {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
    },
    /// Report the status of `len` bytes at `offset`.
    BlockStatus {
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u32,
        /// One extent only.
        req_one: bool,
    },
}

/// Why a request is answered with an error without the storage being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the client is told.
    pub error: NbdError,
    /// The same for a human.
    pub reason: &'static str,
}

/// Judges a request under the terms of its connection.
pub fn check_request(header: &RequestHeader, terms: &Terms) -> Result<Command, Refusal> {
    if header.kind == cmd::DISC {
        return Ok(Command::Disconnect);
    }
    check_flags(header, terms)?;
    let writes = matches!(header.kind, cmd::WRITE | cmd::TRIM | cmd::WRITE_ZEROES);
    if writes && terms.read_only {
        return refuse(NbdError::NotPermitted, "the export is read-only");
    }
    check_length(header, terms)?;
    check_range(header, terms)?;
    let RequestHeader { offset, len, flags, .. } = *header;
    let has = |bit: u16| flags & bit != 0;
    let fua = has(cmd_flag::FUA);
    match header.kind {
        cmd::READ => Ok(Command::Read { offset, len }),
        cmd::WRITE => Ok(Command::Write { offset, len, fua }),
        cmd::FLUSH => Ok(Command::Flush),
        cmd::TRIM => Ok(Command::Trim { offset, len, fua }),
        cmd::CACHE => Ok(Command::Cache { offset, len }),
        cmd::WRITE_ZEROES => Ok(Command::WriteZeroes {
            offset,
            len,
            no_hole: has(cmd_flag::NO_HOLE),
            fast: has(cmd_flag::FAST_ZERO),
            fua,
        }),
        cmd::BLOCK_STATUS => {
            Ok(Command::BlockStatus { offset, len, req_one: has(cmd_flag::REQ_ONE) })
        }
        _ => refuse(NbdError::Invalid, "unknown request"),
    }
}

fn refuse<T>(error: NbdError, reason: &'static str) -> Result<T, Refusal> {
    Err(Refusal { error, reason })
}

/// Flags are valid per request type, FUA with all of them. It is taken on read-only exports as
/// well, where it means nothing, because clients are known to send it.
fn check_flags(header: &RequestHeader, terms: &Terms) -> Result<(), Refusal> {
    let own = match header.kind {
        cmd::READ if terms.structured => cmd_flag::DF,
        cmd::WRITE_ZEROES => cmd_flag::NO_HOLE | cmd_flag::FAST_ZERO,
        cmd::BLOCK_STATUS => cmd_flag::REQ_ONE,
        cmd::READ | cmd::WRITE | cmd::FLUSH | cmd::TRIM | cmd::CACHE => 0,
        _ => return refuse(NbdError::Invalid, "unknown request"),
    };
    if header.flags & !(own | cmd_flag::FUA) != 0 {
        return refuse(NbdError::Invalid, "unknown flag for this request");
    }
    Ok(())
}

fn check_length(header: &RequestHeader, terms: &Terms) -> Result<(), Refusal> {
    match header.kind {
        cmd::READ if header.len > PAYLOAD_MAX_BYTES => {
            let error = if terms.structured { NbdError::Overflow } else { NbdError::Invalid };
            refuse(error, "read of more than 32 MiB")
        }
        cmd::WRITE if header.len > PAYLOAD_MAX_BYTES => {
            refuse(NbdError::Invalid, "write of more than 32 MiB")
        }
        cmd::FLUSH if header.offset != 0 || header.len != 0 => {
            refuse(NbdError::Invalid, "flush with an offset or a length")
        }
        cmd::BLOCK_STATUS if !terms.structured || !terms.block_status => {
            refuse(NbdError::Invalid, "no meta context was selected")
        }
        cmd::BLOCK_STATUS if header.len == 0 => {
            refuse(NbdError::Invalid, "block status of nothing")
        }
        _ => Ok(()),
    }
}

fn check_range(header: &RequestHeader, terms: &Terms) -> Result<(), Refusal> {
    let end = header.offset.checked_add(header.len.into());
    if end.is_some_and(|end| end <= terms.size_bytes) {
        return Ok(());
    }
    let error = match header.kind {
        cmd::WRITE | cmd::WRITE_ZEROES => NbdError::NoSpace,
        _ => NbdError::Invalid,
    };
    refuse(error, "beyond the end of the export")
}
