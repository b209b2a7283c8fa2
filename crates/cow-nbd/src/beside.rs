//! Where the socket of a pool is, when nobody says.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// Bytes that the address of a unix socket has room for.
pub const SOCKET_PATH_MAX: usize = 107;
/// The server binds under a hidden name of its own first, which may be so much longer.
const HIDDEN_EXTRA: usize = 24;

/// The socket that is used when none is named: beside the pool, or, where that cannot be, beside
/// the control socket, with a note.
pub fn socket_beside(pool: &Path, control: &Path, notes: &mut Vec<String>) -> PathBuf {
    let absolute = std::path::absolute(pool).unwrap_or_else(|_| pool.into());
    let is_device = fs::metadata(pool).is_ok_and(|m| m.file_type().is_block_device());
    let mut name = absolute.clone().into_os_string();
    name.push(".nbd.sock");
    let wanted = PathBuf::from(name);
    let parent_len = absolute.parent().map_or(0, |parent| parent.as_os_str().as_bytes().len());
    let reason = if is_device {
        "the pool is a device"
    } else if wanted.as_os_str().as_bytes().len() > SOCKET_PATH_MAX
        || parent_len + HIDDEN_EXTRA > SOCKET_PATH_MAX
    {
        "the path beside the pool is too long for a unix socket"
    } else if !may_create_beside(&absolute) {
        "no file can be made beside the pool"
    } else {
        return wanted;
    };
    let fallback = control.with_extension("nbd.sock");
    notes.push(format!("{reason}: the NBD socket is {}", fallback.display()));
    fallback
}

/// Tried, because permissions alone do not tell.
fn may_create_beside(pool: &Path) -> bool {
    let Some(parent) = pool.parent() else { return false };
    let probe = parent.join(format!(".cow-probe.{}", std::process::id()));
    let made = fs::File::options().write(true).create_new(true).open(&probe).is_ok();
    if made {
        let _ = fs::remove_file(&probe);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_beside_the_pool_if_it_fits() {
        let dir = tempfile::tempdir().unwrap();
        let control = Path::new("/run/x/key.sock");
        let mut notes = Vec::new();
        let pool = dir.path().join("pool.cow");
        assert_eq!(socket_beside(&pool, control, &mut notes), dir.path().join("pool.cow.nbd.sock"));
        assert!(notes.is_empty());
        let far = dir.path().join("x".repeat(120));
        assert_eq!(socket_beside(&far, control, &mut notes), Path::new("/run/x/key.nbd.sock"));
        assert_eq!(notes.len(), 1);
    }
}
