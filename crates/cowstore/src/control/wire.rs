//! What is in the frames.

use super::PROTOCOL;
use crate::error::{Error, SpaceKind};
use crate::manage::{Answer, Verb};
use crate::transfer::Progress;
use serde::{Deserialize, Serialize};

/// The first frame in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    #[serde(default)]
    pub(crate) version: String,
    #[serde(default)]
    pub(crate) uuid: String,
    #[serde(default)]
    pub(crate) program: String,
    #[serde(default)]
    pub(crate) pid: u32,
}

impl Hello {
    pub(crate) fn new(uuid: String, program: String) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { protocol: PROTOCOL, version, uuid, program, pid: std::process::id() }
    }

    /// Whether the peer can be talked to, about this pool.
    pub(crate) fn check(&self, uuid: &str) -> Result<(), Error> {
        let Self { protocol, version, program, .. } = self;
        if *protocol != PROTOCOL {
            return Err(Error::Unsupported(format!(
                "{program} {version} speaks control protocol {protocol}, this program ({}) \
                 speaks {PROTOCOL}",
                env!("CARGO_PKG_VERSION"),
            )));
        }
        if self.uuid != uuid {
            let text = format!("{program} means pool {}, not {uuid}", self.uuid);
            return Err(Error::Unsupported(text));
        }
        Ok(())
    }
}

/// The client's first frame.
#[derive(Serialize, Deserialize)]
pub(crate) struct Greeting {
    pub(crate) hello: Hello,
}

/// The client's answer to the last progress: it still wants what it asked for. One that has been
/// killed a moment ago, and whose image ended for that reason, cannot say so.
#[derive(Serialize, Deserialize)]
pub(crate) struct GoOn {
    pub(crate) go_on: bool,
}

/// Every frame of the server.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerMessage {
    Hello(Hello),
    Progress(Progress),
    Part(String),
    /// `None` when the answer came in parts.
    Ok(Option<Answer>),
    Error(WireError),
}

/// Reads the JSON of a verb. One that is unknown is told from one that is malformed.
///
/// # Errors
/// `Unsupported` for an unknown verb, `Invalid` for anything else that is none.
pub fn parse_verb(bytes: &[u8]) -> Result<Verb, Error> {
    #[derive(Deserialize)]
    struct Name {
        verb: String,
    }
    let malformed = |e: serde_json::Error| Error::Invalid(format!("malformed request: {e}"));
    serde_json::from_slice(bytes).or_else(|error| {
        let Name { verb } = serde_json::from_slice(bytes).map_err(malformed)?;
        if error.to_string().starts_with("unknown variant") {
            let version = env!("CARGO_PKG_VERSION");
            return Err(Error::Unsupported(format!("version {version} knows no verb {verb:?}")));
        }
        Err(malformed(error))
    })
}

/// An [`Error`] in JSON: a kind that programs go by, and what belongs to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WireError {
    pub(crate) kind: String,
    pub(crate) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

/// What can fail with an error number; for the way back to a static name.
const OPERATIONS: &[&str] = &[
    "read",
    "write",
    "flush",
    "discard",
    "allocate",
    "grow",
    "import",
    "export",
    "reclaim",
    "hash",
    "read of the image file",
    "write of the image file",
    "sync of the image file",
    "talk over the control socket",
];

const SPACES: [(&str, SpaceKind); 4] = [
    ("pool", SpaceKind::Pool),
    ("budget", SpaceKind::Budget),
    ("slop", SpaceKind::Slop),
    ("below", SpaceKind::Below),
];

impl From<&Error> for WireError {
    fn from(error: &Error) -> Self {
        let (kind, message) = match error {
            Error::NotFound(text) => ("not_found", text.as_str()),
            Error::Exists(text) => ("exists", text.as_str()),
            Error::Busy(text) => ("busy", text.as_str()),
            Error::Limit(text) => ("limit", text.as_str()),
            Error::Stale(text) => ("stale", text.as_str()),
            Error::ReadOnly(text) => ("read_only", text.as_str()),
            Error::Poisoned(text) => ("poisoned", text.as_str()),
            Error::Corrupt(text) => ("corrupt", text.as_str()),
            Error::Unsupported(text) => ("unsupported", text.as_str()),
            Error::Invalid(text) => ("invalid", text.as_str()),
            Error::NoSpace(SpaceKind::Reserve { missing_bytes }) => {
                let (kind, message) = ("no_space".into(), "reserve".into());
                return Self { kind, message, errno: None, offset: Some(*missing_bytes) };
            }
            Error::NoSpace(space) => {
                let name = SPACES.iter().find(|(_, kind)| kind == space);
                ("no_space", name.map_or("pool", |(name, _)| *name))
            }
            Error::Io { errno, op, offset } => {
                let (errno, offset) = (Some(*errno), Some(*offset));
                return Self { kind: "io".into(), message: (*op).into(), errno, offset };
            }
        };
        Self { kind: kind.into(), message: message.into(), errno: None, offset: None }
    }
}

impl From<WireError> for Error {
    fn from(wire: WireError) -> Self {
        let WireError { kind, message, errno, offset } = wire;
        match kind.as_str() {
            "not_found" => Self::NotFound(message),
            "exists" => Self::Exists(message),
            "busy" => Self::Busy(message),
            "limit" => Self::Limit(message),
            "stale" => Self::Stale(message),
            "read_only" => Self::ReadOnly(message),
            "poisoned" => Self::Poisoned(message),
            "corrupt" => Self::Corrupt(message),
            "invalid" => Self::Invalid(message),
            "no_space" if message == "reserve" => {
                Self::NoSpace(SpaceKind::Reserve { missing_bytes: offset.unwrap_or(0) })
            }
            "no_space" => {
                let space = SPACES.iter().find(|(name, _)| *name == message);
                Self::NoSpace(space.map_or(SpaceKind::Pool, |(_, kind)| *kind))
            }
            "io" => Self::Io {
                errno: errno.unwrap_or(libc::EIO),
                op: OPERATIONS.iter().find(|op| **op == message).copied().unwrap_or("operation"),
                offset: offset.unwrap_or(0),
            },
            // Of a later version, or what it says.
            _ => Self::Unsupported(message),
        }
    }
}

#[cfg(test)]
mod tests;
