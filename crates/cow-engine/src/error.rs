//! The one error of the engine and of everything above it (design section 14).

use std::fmt;

/// Which space ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceKind {
    /// The pool.
    Pool,
    /// The volume's budget.
    Budget,
    /// The reserve that this operation may use.
    Slop,
    /// The file system below the pool.
    Below,
    /// What a reserve promises to a volume.
    Reserve {
        /// Bytes that are missing for it.
        missing_bytes: u64,
    },
}

impl fmt::Display for SpaceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool => f.write_str("in the pool"),
            Self::Budget => f.write_str("of the volume's budget"),
            Self::Slop => f.write_str("in the pool, its reserve included"),
            Self::Below => f.write_str("on the file system below the pool"),
            Self::Reserve { missing_bytes } => {
                write!(f, "to keep what a reserve promises: {missing_bytes} bytes are missing")
            }
        }
    }
}

/// Why an operation was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such volume or snapshot.
    #[error("not found: {0}")]
    NotFound(String),
    /// The name is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// In use, held, or has snapshots; the text says by whom.
    #[error("{0}")]
    Busy(String),
    /// A limit is reached.
    #[error("limit reached: {0}")]
    Limit(String),
    /// No room.
    #[error("no space left {0}")]
    NoSpace(SpaceKind),
    /// The volume was rolled back or deleted since this export was opened.
    #[error("stale export: {0} was rolled back or deleted")]
    Stale(String),
    /// Read-only pool, export or snapshot.
    #[error("{0} is read-only")]
    ReadOnly(String),
    /// A flush or journal write failed: nothing more is accepted.
    #[error("the pool stopped accepting writes: {0}")]
    Poisoned(String),
    /// What was read is not what was written.
    #[error("corruption: {0}")]
    Corrupt(String),
    /// Not a pool that this program can open.
    #[error("{0}")]
    Unsupported(String),
    /// A parameter is wrong; the text names it.
    #[error("{0}")]
    Invalid(String),
    /// The device failed.
    #[error("{op} at byte {offset} failed: os error {errno}")]
    Io {
        /// Error number.
        errno: i32,
        /// What was tried.
        op: &'static str,
        /// Where.
        offset: u64,
    },
}

impl From<cow_format::FormatError> for Error {
    fn from(error: cow_format::FormatError) -> Self {
        let text = error.to_string();
        if error.is_unknown() { Self::Unsupported(text) } else { Self::Corrupt(text) }
    }
}

impl From<cow_snaptree::TreeError> for Error {
    fn from(error: cow_snaptree::TreeError) -> Self {
        use cow_snaptree::TreeError as T;
        match error {
            T::NotFound(what) => Self::NotFound(what),
            T::Exists(what) => Self::Exists(what),
            T::Busy(what) => Self::Busy(what),
            T::Limit(what) => Self::Limit(what),
            T::Invalid(what) => Self::Invalid(what),
            T::NoSlots => Self::Limit("the node table is full".into()),
            error @ (T::NotLoaded(_) | T::Corrupt(_)) => Self::Corrupt(error.to_string()),
        }
    }
}
