//! What is mounted on this machine, as `/proc/self/mountinfo` says.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What the sources of our own mounts begin with; the path of the pool follows.
pub const SOURCE: &str = "cow:";

/// Something that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Where.
    pub dir: PathBuf,
    /// Type of the file system.
    pub kind: String,
    /// What.
    pub source: OsString,
    /// Cannot be written.
    pub read_only: bool,
}

impl MountEntry {
    /// Whether it is the mount of a pool.
    pub fn is_pool(&self) -> bool {
        self.kind.starts_with("fuse")
            && self.source.as_encoded_bytes().starts_with(SOURCE.as_bytes())
    }

    /// The pool, of a mount of one.
    pub fn pool(&self) -> Option<PathBuf> {
        let bytes = self.source.as_encoded_bytes().strip_prefix(SOURCE.as_bytes())?;
        Some(OsString::from_vec(bytes.to_vec()).into())
    }
}

/// All mounts that this process sees, in the order in which they were made.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounts() -> io::Result<Vec<MountEntry>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// What is mounted at `dir` itself: of several, the topmost.
///
/// # Errors
/// As [`mounts`].
pub fn at(dir: &Path) -> io::Result<Option<MountEntry>> {
    Ok(mounts()?.into_iter().rfind(|entry| entry.dir == dir))
}

fn parse(text: &[u8]) -> Vec<MountEntry> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let dash = words.iter().position(|word| *word == b"-")?;
    let (major, minor) = str::from_utf8(words.get(2)?).ok()?.split_once(':')?;
    let options = words.get(5)?;
    Some(MountEntry {
        device: (major.parse().ok()?, minor.parse().ok()?),
        dir: OsString::from_vec(unescape(words.get(4)?)).into(),
        kind: String::from_utf8_lossy(words.get(dash + 1)?).into_owned(),
        source: OsString::from_vec(unescape(words.get(dash + 2)?)),
        read_only: options.split(|byte| *byte == b',').any(|option| option == b"ro"),
    })
}

/// Blanks, tabs, line ends and backslashes stand there as `\` and three octal digits.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| byte == b'\\');
        let code = digits.and_then(|digits| str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                out.push(code);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_read() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
            40 35 0:52 / /a\\040b ro,nosuid - fuse cow:/p\\134q.cow rw,user_id=0\n\
            rubbish\n41 35 x:y / / rw - a b c\n";
        let found = parse(text);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!((found[0].device, found[0].is_pool()), ((98, 0), false));
        assert_eq!(found[1].dir, Path::new("/a b"));
        assert!(found[1].is_pool() && found[1].read_only);
        assert_eq!(found[1].pool(), Some("/p\\q.cow".into()));
    }

    #[test]
    fn the_mounts_of_this_machine_are_seen() {
        assert!(mounts().unwrap().iter().any(|entry| entry.dir == Path::new("/proc")));
        assert_eq!(at(Path::new("/no/such/mount")).unwrap(), None);
    }
}
