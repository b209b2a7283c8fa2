//! The bytes of the NBD protocol, and nothing else: slices in, values out, and back.
//!
//! No socket, clock, thread or storage is known here, so that a fuzzer can call every parser
//! directly and the server above can be read without bit positions in it. Names and numbers are
//! those of the protocol document (`doc/proto.md` of the NBD project).
//!
//! Rules that hold for the whole module:
//! * no input makes a function panic or allocate more than a small multiple of its own length;
//! * a value that came out of a parser obeys the limits below, so nobody checks them again;
//! * [`check_request`] is the only place that decides whether a request may reach the storage.

mod fields;
mod handshake;
mod reply;
mod request;
#[cfg(test)]
mod tests;

pub use handshake::{
    ClientFlags, ClientOption, MetaContext, MetaQuery, OptionHeader, export_name_reply, greeting,
    info_block_size, info_export, info_name, meta_context_reply, option_reply, parse_client_flags,
    parse_option, parse_option_header, server_reply, transmission_flags,
};
pub use reply::{
    DESCRIPTORS_MAX, Head, STATE_DIRTY, STATE_HOLE, STATE_ZERO, block_status_head, error_head,
    error_payload, offset_data_head, offset_hole_head, simple_head, status_payload,
    structured_none_head,
};
pub use request::{Command, Refusal, RequestHeader, Terms, check_request, parse_request};

use thiserror::Error;

/// First word of the server's greeting, `NBDMAGIC`.
pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second word of the greeting and first of every option, `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// First word of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// First word of every request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// First word of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// First word of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Longest payload of one request or reply, and what block-size information announces.
pub const PAYLOAD_MAX_BYTES: u32 = 32 << 20;
/// Longest string the protocol permits.
pub const STRING_MAX_BYTES: usize = 4096;
/// Longest option data that is looked at.
pub const OPTION_MAX_BYTES: u32 = 64 << 10;
/// Most meta context queries in one option.
pub const QUERIES_MAX: u32 = 256;
/// Most meta contexts of one connection.
pub const CONTEXTS_MAX: usize = 16;
/// Length of a request header.
pub const REQUEST_HEADER_BYTES: usize = 28;
/// Length of an option header.
pub const OPTION_HEADER_BYTES: usize = 16;

/// Option codes.
pub mod opt {
    /// Choose an export, without a way to refuse.
    pub const EXPORT_NAME: u32 = 1;
    /// Leave.
    pub const ABORT: u32 = 2;
    /// List the exports.
    pub const LIST: u32 = 3;
    /// Start TLS (not supported).
    pub const STARTTLS: u32 = 5;
    /// Ask about an export.
    pub const INFO: u32 = 6;
    /// Ask about an export and choose it.
    pub const GO: u32 = 7;
    /// Negotiate structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// List meta contexts.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Select meta contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Types of replies to options.
pub mod rep {
    /// Success, end of the replies.
    pub const ACK: u32 = 1;
    /// One export of a list.
    pub const SERVER: u32 = 2;
    /// One piece of information about an export.
    pub const INFO: u32 = 3;
    /// One meta context.
    pub const META_CONTEXT: u32 = 4;
    /// The option is not known.
    pub const ERR_UNSUP: u32 = 0x8000_0001;
    /// The option is known and not allowed.
    pub const ERR_POLICY: u32 = 0x8000_0002;
    /// The option makes no sense.
    pub const ERR_INVALID: u32 = 0x8000_0003;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = 0x8000_0006;
    /// The server is going away.
    pub const ERR_SHUTDOWN: u32 = 0x8000_0007;
    /// The option is too long.
    pub const ERR_TOO_BIG: u32 = 0x8000_0009;
}

/// Types of information about an export.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// Canonical name.
    pub const NAME: u16 = 1;
    /// Size constraints.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags.
pub mod flag {
    /// Always set.
    pub const HAS_FLAGS: u16 = 1 << 0;
    /// Writes are refused.
    pub const READ_ONLY: u16 = 1 << 1;
    /// Flush is understood.
    pub const SEND_FLUSH: u16 = 1 << 2;
    /// Force-unit-access is understood.
    pub const SEND_FUA: u16 = 1 << 3;
    /// Trim is understood.
    pub const SEND_TRIM: u16 = 1 << 5;
    /// Write-zeroes is understood.
    pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
    /// Do-not-fragment is understood.
    pub const SEND_DF: u16 = 1 << 7;
    /// A flush on one connection covers the writes of all.
    pub const CAN_MULTI_CONN: u16 = 1 << 8;
    /// Cache is understood.
    pub const SEND_CACHE: u16 = 1 << 10;
    /// Fast-zero is understood.
    pub const SEND_FAST_ZERO: u16 = 1 << 11;
}

/// Request types.
pub mod cmd {
    /// Read.
    pub const READ: u16 = 0;
    /// Write.
    pub const WRITE: u16 = 1;
    /// Disconnect.
    pub const DISC: u16 = 2;
    /// Flush.
    pub const FLUSH: u16 = 3;
    /// Trim.
    pub const TRIM: u16 = 4;
    /// Cache.
    pub const CACHE: u16 = 5;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 6;
    /// Block status.
    pub const BLOCK_STATUS: u16 = 7;
}

/// Request flags.
pub mod cmd_flag {
    /// On stable storage before the reply.
    pub const FUA: u16 = 1 << 0;
    /// Zero without making a hole.
    pub const NO_HOLE: u16 = 1 << 1;
    /// At most one content chunk.
    pub const DF: u16 = 1 << 2;
    /// Exactly one extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Zero quickly or fail quickly.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Error numbers of the protocol, whatever `errno` is on this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NbdError {
    /// `NBD_EPERM`.
    NotPermitted = 1,
    /// `NBD_EIO`.
    Io = 5,
    /// `NBD_EINVAL`.
    Invalid = 22,
    /// `NBD_ENOSPC`.
    NoSpace = 28,
    /// `NBD_EOVERFLOW`.
    Overflow = 75,
    /// `NBD_ENOTSUP`.
    NotSupported = 95,
    /// `NBD_ESHUTDOWN`.
    Shutdown = 108,
}

impl NbdError {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// Why bytes from a client cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The magic number is wrong: the two sides have lost each other.
    #[error("bad magic number {found:#x}")]
    BadMagic {
        /// What stood in its place.
        found: u64,
    },
    /// The client set flags that were never offered.
    #[error("unknown client flags {flags:#x}")]
    UnknownClientFlags {
        /// All its flags.
        flags: u32,
    },
    /// The data of an option does not have the form of that option.
    #[error("malformed option: {what}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
    },
    /// A part of an option is longer than the server takes.
    #[error("option too big: {what}")]
    TooBig {
        /// Which part.
        what: &'static str,
    },
}
