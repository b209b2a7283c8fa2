//! The handshake: client flags, options and the replies to them.

use super::fields::Fields;
use super::{
    NBD_MAGIC, OPTION_HEADER_BYTES, OPTION_MAGIC, OPTION_MAX_BYTES, OPTION_REPLY_MAGIC,
    PAYLOAD_MAX_BYTES, WireError, flag, info, opt, rep,
};

const FIXED_NEWSTYLE: u16 = 1 << 0;
const NO_ZEROES: u16 = 1 << 1;
const EXPORT_NAME_PADDING_BYTES: usize = 124;

/// The greeting: two magic numbers and the handshake flags.
pub fn greeting() -> [u8; 18] {
    let mut out = [0; 18];
    out[..8].copy_from_slice(&NBD_MAGIC.to_be_bytes());
    out[8..16].copy_from_slice(&OPTION_MAGIC.to_be_bytes());
    out[16..].copy_from_slice(&(FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
    out
}

/// What the client answered to the greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientFlags {
    /// It knows fixed newstyle negotiation.
    pub fixed_newstyle: bool,
    /// It does not want the padding after `NBD_OPT_EXPORT_NAME`.
    pub no_zeroes: bool,
}

/// Parses the client flags; unknown ones end the connection.
pub fn parse_client_flags(bytes: [u8; 4]) -> Result<ClientFlags, WireError> {
    let flags = u32::from_be_bytes(bytes);
    if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
        return Err(WireError::UnknownClientFlags { flags });
    }
    Ok(ClientFlags {
        fixed_newstyle: flags & u32::from(FIXED_NEWSTYLE) != 0,
        no_zeroes: flags & u32::from(NO_ZEROES) != 0,
    })
}

/// The fixed part of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionHeader {
    /// Which option; see [`opt`].
    pub code: u32,
    /// Length of the data that follow.
    pub len: u32,
}

/// Parses the fixed part of an option.
pub fn parse_option_header(bytes: &[u8; OPTION_HEADER_BYTES]) -> Result<OptionHeader, WireError> {
    let mut fields = Fields::new(bytes);
    let magic = fields.u64()?;
    if magic != OPTION_MAGIC {
        return Err(WireError::BadMagic { found: magic });
    }
    Ok(OptionHeader { code: fields.u32()?, len: fields.u32()? })
}

/// A meta context that this server can report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetaContext {
    /// `base:allocation`: holes and zeroes.
    BaseAllocation,
    /// `qemu:dirty-bitmap:SNAP`: what differs from that snapshot.
    DirtyBitmap(String),
}

const ALLOCATION: (&str, &str) = ("base", "allocation");
const BITMAP: (&str, &str) = ("qemu", "dirty-bitmap:");

impl MetaContext {
    /// Its full name.
    pub fn name(&self) -> String {
        match self {
            Self::BaseAllocation => format!("{}:{}", ALLOCATION.0, ALLOCATION.1),
            Self::DirtyBitmap(name) => format!("{}:{}{name}", BITMAP.0, BITMAP.1),
        }
    }
}

/// One query of a meta context option: `NAMESPACE:LEAF`. An empty leaf is a wildcard, and so is
/// `dirty-bitmap:` in the namespace `qemu`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetaQuery {
    /// What stands before the first colon.
    pub namespace: String,
    /// What stands after it; it may contain further colons.
    pub leaf: String,
}

impl MetaQuery {
    /// The context that a client selects with this query, which there may be or not: wildcards
    /// select nothing.
    pub fn selects(&self) -> Option<MetaContext> {
        if (self.namespace.as_str(), self.leaf.as_str()) == ALLOCATION {
            return Some(MetaContext::BaseAllocation);
        }
        let name = self.leaf.strip_prefix(BITMAP.1)?;
        let named = self.namespace == BITMAP.0 && !name.is_empty();
        named.then(|| MetaContext::DirtyBitmap(name.to_owned()))
    }

    /// Whether a listing with this query names `context`.
    pub fn lists(&self, context: &MetaContext) -> bool {
        let (namespace, bitmap) = match context {
            MetaContext::BaseAllocation => (ALLOCATION.0, false),
            MetaContext::DirtyBitmap(_) => (BITMAP.0, true),
        };
        let wildcard = self.leaf.is_empty() || bitmap && self.leaf == BITMAP.1;
        self.namespace == namespace && (wildcard || self.selects().as_ref() == Some(context))
    }
}

/// An option of the client, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientOption {
    /// Choose an export; a refusal can only be a closed connection.
    ExportName(String),
    /// Leave.
    Abort,
    /// List the exports.
    List,
    /// Describe an export.
    Info {
        /// Its name.
        name: String,
        /// What the client wants to know; see [`info`].
        requests: Vec<u16>,
    },
    /// Describe an export and enter transmission with it.
    Go {
        /// Its name.
        name: String,
        /// What the client wants to know; see [`info`].
        requests: Vec<u16>,
    },
    /// Use structured replies.
    StructuredReply,
    /// List the meta contexts of an export.
    ListMetaContext {
        /// Its name.
        name: String,
        /// What to list; nothing means all.
        queries: Vec<MetaQuery>,
    },
    /// Select the meta contexts of an export.
    SetMetaContext {
        /// Its name.
        name: String,
        /// What to select; nothing means none.
        queries: Vec<MetaQuery>,
    },
    /// Anything else, to be answered with `NBD_REP_ERR_UNSUP`.
    Unknown(u32),
}

/// Parses the data of option `code`.
pub fn parse_option(code: u32, data: &[u8]) -> Result<ClientOption, WireError> {
    if data.len() > OPTION_MAX_BYTES as usize {
        return Err(WireError::TooBig { what: "option data" });
    }
    let mut fields = Fields::new(data);
    let option = match code {
        opt::EXPORT_NAME => ClientOption::ExportName(fields.string(data.len())?),
        opt::ABORT => return Ok(ClientOption::Abort),
        opt::LIST => ClientOption::List,
        opt::INFO => {
            let (name, requests) = fields.info()?;
            ClientOption::Info { name, requests }
        }
        opt::GO => {
            let (name, requests) = fields.info()?;
            ClientOption::Go { name, requests }
        }
        opt::STRUCTURED_REPLY => ClientOption::StructuredReply,
        opt::LIST_META_CONTEXT => {
            let (name, queries) = fields.queries()?;
            ClientOption::ListMetaContext { name, queries }
        }
        opt::SET_META_CONTEXT => {
            let (name, queries) = fields.queries()?;
            ClientOption::SetMetaContext { name, queries }
        }
        other => return Ok(ClientOption::Unknown(other)),
    };
    if !fields.is_empty() {
        return Err(WireError::Malformed { what: "bytes left over" });
    }
    Ok(option)
}

/// The transmission flags of an export.
pub fn transmission_flags(read_only: bool, structured: bool) -> u16 {
    let mut flags = flag::HAS_FLAGS | flag::CAN_MULTI_CONN | flag::SEND_CACHE;
    if structured {
        flags |= flag::SEND_DF;
    }
    if read_only {
        return flags | flag::READ_ONLY;
    }
    flags
        | flag::SEND_FLUSH
        | flag::SEND_FUA
        | flag::SEND_TRIM
        | flag::SEND_WRITE_ZEROES
        | flag::SEND_FAST_ZERO
}

/// Appends one reply to option `code`.
pub fn option_reply(out: &mut Vec<u8>, code: u32, kind: u32, data: &[u8]) {
    out.extend_from_slice(&OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
}

/// Appends `NBD_REP_SERVER` for the export `name`.
pub fn server_reply(out: &mut Vec<u8>, name: &str) {
    let mut data = Vec::with_capacity(4 + name.len());
    data.extend_from_slice(&(name.len() as u32).to_be_bytes());
    data.extend_from_slice(name.as_bytes());
    option_reply(out, opt::LIST, rep::SERVER, &data);
}

/// Appends `NBD_REP_META_CONTEXT`; `id` is how replies name a selected context, and 0 in a listing.
pub fn meta_context_reply(out: &mut Vec<u8>, code: u32, id: u32, context: &MetaContext) {
    let mut data = id.to_be_bytes().to_vec();
    data.extend_from_slice(context.name().as_bytes());
    option_reply(out, code, rep::META_CONTEXT, &data);
}

/// Appends `NBD_INFO_EXPORT`.
pub fn info_export(out: &mut Vec<u8>, code: u32, size_bytes: u64, flags: u16) {
    let mut data = info::EXPORT.to_be_bytes().to_vec();
    data.extend_from_slice(&size_bytes.to_be_bytes());
    data.extend_from_slice(&flags.to_be_bytes());
    option_reply(out, code, rep::INFO, &data);
}

/// Appends `NBD_INFO_NAME`.
pub fn info_name(out: &mut Vec<u8>, code: u32, name: &str) {
    let mut data = info::NAME.to_be_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    option_reply(out, code, rep::INFO, &data);
}

/// Appends `NBD_INFO_BLOCK_SIZE`: any byte, better whole blocks, at most 32 MiB.
pub fn info_block_size(out: &mut Vec<u8>, code: u32) {
    let mut data = info::BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [1, cowstore::BLOCK_SIZE as u32, PAYLOAD_MAX_BYTES] {
        data.extend_from_slice(&size.to_be_bytes());
    }
    option_reply(out, code, rep::INFO, &data);
}

/// Appends the bare answer to `NBD_OPT_EXPORT_NAME`.
pub fn export_name_reply(out: &mut Vec<u8>, size_bytes: u64, flags: u16, no_zeroes: bool) {
    out.extend_from_slice(&size_bytes.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    if !no_zeroes {
        out.extend_from_slice(&[0; EXPORT_NAME_PADDING_BYTES]);
    }
}
