//! Errors of everything below, as the one [`Error`] that callers see.

pub use cow_engine::{Error, SpaceKind};
use cow_io::ImageError;
use std::fmt::Display;
use std::io;

/// What the system says about a pool's file, or a file beside it.
pub(crate) fn os_error(what: impl Display, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace(SpaceKind::Below),
        Some(libc::ENOENT | libc::ENOTDIR) => Error::NotFound(format!("{what}: {error}")),
        Some(libc::EEXIST) => Error::Exists(what.to_string()),
        Some(libc::EROFS) => Error::ReadOnly(what.to_string()),
        _ => Error::Unsupported(format!("{what}: {error}")),
    }
}

/// A failed transfer to or from a file that is not the pool.
pub(crate) fn file_error(op: &'static str, offset: u64, error: &io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::NoSpace(SpaceKind::Below),
        errno => Error::Io { errno: errno.unwrap_or(libc::EIO), op, offset },
    }
}

/// Why an image could not be opened or created. The holder of a busy one is looked up by whoever
/// asked.
pub(crate) fn image_error(error: ImageError) -> Error {
    match error {
        ImageError::Busy { .. } => Error::Busy(error.to_string()),
        ImageError::NotEmpty { .. } => Error::Exists(error.to_string()),
        ImageError::TooSmall { .. } => Error::Invalid(error.to_string()),
        ImageError::Io { path, action, source } => {
            os_error(format_args!("{}: {action}", path.display()), &source)
        }
        other => Error::Unsupported(other.to_string()),
    }
}

/// The answer to everything after the end of a pool.
pub(crate) fn closed() -> Error {
    Error::Poisoned("it is closed".into())
}

/// An answer that does not fit its question: a fault of the engine.
pub(crate) fn unexpected(reply: &cow_engine::Reply) -> Error {
    Error::Poisoned(format!("the engine answered with {reply:?}"))
}
