//! Errors as the kernel knows them.

use cowstore::Error;
use fuser::Errno;

/// What a failed request is answered with. A client that was cut off by a rollback gets `ESTALE`:
/// what it has open is not what the name stands for any more.
pub(crate) fn of(error: &Error) -> Errno {
    match error {
        Error::NotFound(_) => Errno::ENOENT,
        Error::Exists(_) => Errno::EEXIST,
        Error::Busy(_) => Errno::EBUSY,
        Error::NoSpace(_) | Error::Limit(_) => Errno::ENOSPC,
        Error::Stale(_) => Errno::ESTALE,
        Error::ReadOnly(_) => Errno::EROFS,
        Error::Unsupported(_) => Errno::EOPNOTSUPP,
        Error::Invalid(_) => Errno::EINVAL,
        Error::Poisoned(_) | Error::Corrupt(_) | Error::Io { .. } => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cowstore::SpaceKind;

    #[test]
    fn what_a_file_system_above_goes_by_is_told_apart() {
        assert_eq!(of(&Error::NoSpace(SpaceKind::Below)), Errno::ENOSPC);
        assert_eq!(of(&Error::ReadOnly("x".into())), Errno::EROFS);
        assert_eq!(of(&Error::Corrupt("x".into())), Errno::EIO);
        assert_eq!(of(&Error::Stale("x".into())), Errno::ESTALE);
    }
}
