//! Paths that stay: `/dev/cow/POOL/VOL` leads to whichever device the volume is behind.

use cow_fuse::loops;
use cow_nbd::device;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const ROOT: &str = "/dev/cow";

/// Where the links are; tests have them elsewhere.
fn root() -> PathBuf {
    std::env::var_os("COWCTL_DEVICE_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or(ROOT.into(), PathBuf::from)
}

/// What a pool is called in there: its label, or its file's name without the ending. A character
/// that a name may not have becomes `_`.
pub fn pool_name(label: Option<&str>, pool: &Path) -> String {
    let stem = pool.file_stem().unwrap_or_default().to_string_lossy();
    let name = label.filter(|label| !label.is_empty()).unwrap_or(&stem);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    let name: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
    if name.starts_with('.') { format!("_{name}") } else { name }
}

/// Where the link of a volume of a pool belongs.
pub fn path(pool: &str, name: &str) -> PathBuf {
    root().join(pool).join(name)
}

/// Makes the link; one to a device that is free, or to `device`, is replaced.
///
/// # Errors
/// `AlreadyExists` when it leads to a device that is in use: of a pool of the same name.
pub fn make(pool: &str, name: &str, device: &Path) -> io::Result<PathBuf> {
    let dir = root().join(pool);
    fs::create_dir_all(&dir)?;
    let link = dir.join(name);
    match fs::read_link(&link) {
        Ok(target) if target != device && is_used(&target) => {
            let text = format!(
                "{}: leads to {} of another pool; give this one a name: cowctl pool set label=NAME",
                link.display(),
                target.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) => fs::remove_file(&link)?,
        Err(_) => {}
    }
    symlink(device, &link)?;
    Ok(link)
}

fn is_used(device: &Path) -> bool {
    loops::list().iter().any(|used| used.path() == device)
        || device::list().iter().any(|used| used.path() == device)
}

/// The link that leads to `device`.
pub fn of(device: &Path) -> Option<PathBuf> {
    let pools = fs::read_dir(root()).into_iter().flatten().filter_map(Result::ok);
    let links = pools.flat_map(|pool| fs::read_dir(pool.path()).into_iter().flatten());
    let leads_there = |link: &PathBuf| fs::read_link(link).is_ok_and(|target| target == device);
    links.filter_map(Result::ok).map(|link| link.path()).find(leads_there)
}

/// Takes away the link to `device`, and its directory with the last one.
pub fn remove(device: &Path) {
    let Some(link) = of(device) else { return };
    // A link that stays is replaced by the next attach.
    let _ = fs::remove_file(&link);
    if let Some(dir) = link.parent() {
        let _ = fs::remove_dir(dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_called_by_its_label_or_its_file() {
        let path = Path::new("/a/my pool.cow");
        assert_eq!(pool_name(None, path), "my_pool");
        assert_eq!(pool_name(Some(""), path), "my_pool");
        assert_eq!(pool_name(Some("../x"), path), "_.._x");
        assert_eq!(pool_name(Some("prod"), path), "prod");
    }
}
