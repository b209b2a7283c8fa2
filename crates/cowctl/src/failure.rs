//! Why a command failed, what it says, and its exit code.

use cowstore::{Error, SpaceKind};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The pool said no.
    Store {
        /// The pool's path.
        pool: PathBuf,
        /// Why.
        error: Error,
    },
    /// The command line makes no sense.
    Usage(String),
    /// There is no such pool, volume, snapshot.
    NotFound(String),
    /// Refused as things stand.
    Refused(String),
    /// Corruption was found, and has been reported.
    Corrupt(String),
    /// There is not so much space to be had.
    NoSpace(String),
    /// Anything else.
    Failed(String),
    /// A file that is not the pool.
    File {
        /// Its path.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// Standard output.
    Output(io::Error),
}

impl Failure {
    /// For [`Result::map_err`], with the pool that is meant.
    pub fn of(pool: &Path) -> impl Fn(Error) -> Self + use<> {
        let pool = pool.to_owned();
        move |error| Self::Store { pool: pool.clone(), error }
    }

    /// As [`Failure::of`], for what comes of opening the pool.
    pub fn opening(pool: &Path) -> impl Fn(Error) -> Self + use<> {
        let pool = pool.to_owned();
        move |error| match error {
            Error::NoSpace(SpaceKind::Below) => Self::NoSpace(format!(
                "{}: cannot be opened for writing: the file system below is full, and there is no room for what that \
                 has to write; nothing is lost: make room there and try again, or open it for reading (serve --read-only, \
                 mount --read-only)",
                pool.display()
            )),
            error => Self::Store { pool: pool.clone(), error },
        }
    }

    /// For [`Result::map_err`], with the file that is meant.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { path, error }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store { error, .. } => match error {
                Error::NotFound(_) => 3,
                Error::Busy(_) | Error::Exists(_) | Error::Limit(_) | Error::Stale(_) => 4,
                Error::NoSpace(_) => 6,
                Error::Corrupt(_) => 5,
                Error::Invalid(_) => 2,
                _ => 1,
            },
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::NoSpace(_) => 6,
            Self::Corrupt(_) => 5,
            Self::File { error, .. } if error.kind() == io::ErrorKind::StorageFull => 6,
            Self::Failed(_) | Self::File { .. } | Self::Output(_) => 1,
        }
    }

    /// Whoever read our output has seen enough.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { pool, error } => {
                let (pool, text) = (pool.display().to_string(), describe(error));
                if text.starts_with(&pool) {
                    return f.write_str(&text);
                }
                write!(f, "{pool}: {text}")
            }
            Self::Usage(text)
            | Self::NotFound(text)
            | Self::Refused(text)
            | Self::Corrupt(text)
            | Self::NoSpace(text)
            | Self::Failed(text) => f.write_str(text),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Output(error) => write!(f, "standard output: {error}"),
        }
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::NoSpace(SpaceKind::Pool) => {
            "no space left in the pool; delete snapshots or volumes, or `cowctl pool grow`".into()
        }
        Error::NoSpace(SpaceKind::Slop) => {
            "no space left in the pool, its reserve included; delete snapshots or volumes".into()
        }
        Error::NoSpace(SpaceKind::Budget) => "no space left: the volume's budget is used up".into(),
        Error::NoSpace(SpaceKind::Reserve { missing_bytes }) => {
            format!(
                "no space left to keep what a reserve promises: {missing_bytes} bytes are missing"
            )
        }
        Error::NoSpace(SpaceKind::Below) => {
            "no space left on the file system below; make room there and try again".into()
        }
        Error::Io { errno, op, offset } => {
            format!("{op} at byte {offset}: {}", io::Error::from_raw_os_error(*errno))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let text = || "x".to_owned();
        for (error, code) in [
            (Error::NotFound(text()), 3),
            (Error::Busy(text()), 4),
            (Error::Exists(text()), 4),
            (Error::Limit(text()), 4),
            (Error::Stale(text()), 4),
            (Error::NoSpace(SpaceKind::Below), 6),
            (Error::NoSpace(SpaceKind::Reserve { missing_bytes: 1 }), 6),
            (Error::Corrupt(text()), 5),
            (Error::Invalid(text()), 2),
            (Error::ReadOnly(text()), 1),
            (Error::Unsupported(text()), 1),
            (Error::Poisoned(text()), 1),
            (Error::Io { errno: 5, op: "read", offset: 0 }, 1),
        ] {
            assert_eq!(Failure::of(Path::new("p"))(error.clone()).exit_code(), code, "{error:?}");
        }
    }

    #[test]
    fn a_full_file_system_below_is_no_loss() {
        let failure = Failure::opening(Path::new("/a/pool"))(Error::NoSpace(SpaceKind::Below));
        let text = failure.to_string();
        assert!(text.contains("/a/pool") && text.contains("file system below is full"), "{text}");
        assert!(text.contains("nothing is lost"), "{text}");
        assert_eq!(failure.exit_code(), 6);
        let other = Failure::opening(Path::new("/a/pool"))(Error::Exists("x".into()));
        assert_eq!(other.to_string(), "/a/pool: x exists already");
    }

    #[test]
    fn the_pool_is_named_once() {
        let fail = Failure::of(Path::new("/a/pool"));
        assert_eq!(fail(Error::Busy("/a/pool: in use".into())).to_string(), "/a/pool: in use");
        let text = fail(Error::Exists("vm".into())).to_string();
        assert_eq!(text, "/a/pool: vm exists already");
    }
}
