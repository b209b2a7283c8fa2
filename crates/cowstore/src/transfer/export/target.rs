//! The file that an export writes.

use crate::error::{Error, file_error, os_error};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const WRITE: &str = "write of the image file";
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Where the bytes go: a file that is sparse afterwards, a device, or a stream.
pub(crate) struct Sink<'a> {
    file: &'a File,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    /// New and empty: what is not written is a hole.
    File,
    /// Holds something already: holes must be written.
    Device,
    Stream,
}

impl<'a> Sink<'a> {
    pub(crate) fn new(file: &'a File, size: u64) -> Result<Self, Error> {
        let fail = |e: io::Error| file_error(WRITE, 0, &e);
        let file_type = file.metadata().map_err(fail)?.file_type();
        let kind = if file_type.is_file() {
            file.set_len(0).and_then(|()| file.set_len(size)).map_err(fail)?;
            Kind::File
        } else if file_type.is_block_device() {
            Kind::Device
        } else {
            Kind::Stream
        };
        Ok(Self { file, kind })
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let result = match self.kind {
            Kind::Stream => (&mut &*self.file).write_all(bytes),
            _ => self.file.write_all_at(bytes, offset),
        };
        result.map_err(|e| file_error(WRITE, offset, &e))
    }

    pub(crate) fn hole(&mut self, offset: u64, len: u64) -> Result<(), Error> {
        if self.kind == Kind::File {
            return Ok(());
        }
        let mut done = 0;
        while done < len {
            let count = (len - done).min(ZEROS.len() as u64);
            self.write(offset + done, &ZEROS[..count as usize])?;
            done += count;
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<(), Error> {
        let result = match self.kind {
            Kind::Stream => (&mut &*self.file).flush(),
            _ => self.file.sync_all(),
        };
        result.map_err(|e| file_error("sync of the image file", 0, &e))
    }
}

/// A file being written beside its final name, which it takes when it is whole
/// ([`ExportFile::commit`]). Dropped before that, it vanishes.
#[derive(Debug)]
pub struct ExportFile {
    file: Arc<File>,
    target: PathBuf,
    /// `None` for what has no temporary name: devices, pipes, standard output.
    temporary: Option<PathBuf>,
    force: bool,
}

impl ExportFile {
    /// Opens the file for an export to `path`; `-` is standard output.
    ///
    /// # Errors
    /// `Exists` when there is a file or block device already and `force` is not set.
    pub fn create(path: impl AsRef<Path>, force: bool) -> Result<Self, Error> {
        let path = path.as_ref();
        let fail = |e: io::Error| os_error(path.display(), &e);
        if path.as_os_str() == "-" {
            let stdout = io::stdout();
            let fd = std::os::fd::AsFd::as_fd(&stdout).try_clone_to_owned().map_err(fail)?;
            return Ok(Self::direct(File::from(fd), path, force));
        }
        let mut target = path.to_owned();
        match fs::metadata(path) {
            Ok(metadata) => {
                let kind = metadata.file_type();
                if kind.is_dir() {
                    return Err(Error::Invalid(format!("{}: is a directory", path.display())));
                }
                if !force && (kind.is_file() || kind.is_block_device()) {
                    return Err(Error::Exists(path.display().to_string()));
                }
                if !kind.is_file() {
                    let file = File::options().write(true).open(path).map_err(fail)?;
                    return Ok(Self::direct(file, path, force));
                }
                // A symbolic link stays, and what it points to is replaced.
                target = fs::canonicalize(path).map_err(fail)?;
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail(e)),
        }
        let (file, temporary) = create_beside(&target).map_err(fail)?;
        Ok(Self { file: Arc::new(file), target, temporary: Some(temporary), force })
    }

    fn direct(file: File, path: &Path, force: bool) -> Self {
        Self { file: Arc::new(file), target: path.into(), temporary: None, force }
    }

    /// The open file.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// Makes it durable under its name.
    ///
    /// # Errors
    /// `Exists` when somebody else has made a file of that name in the meantime.
    pub fn commit(mut self) -> Result<(), Error> {
        let Some(temporary) = self.temporary.take() else { return Ok(()) };
        let result = self.publish(&temporary);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result.map_err(|e| os_error(self.target.display(), &e))
    }

    fn publish(&self, temporary: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        if self.force {
            fs::rename(temporary, &self.target)?;
        } else {
            match fs::hard_link(temporary, &self.target) {
                Ok(()) => fs::remove_file(temporary)?,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Err(e),
                // A file system without hard links.
                Err(_) => fs::rename(temporary, &self.target)?,
            }
        }
        match directory(&self.target).and_then(|directory| directory.sync_all()) {
            // Some file systems cannot sync a directory, some users may not read theirs.
            Err(e) if !matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EACCES)) => Err(e),
            _ => Ok(()),
        }
    }
}

impl Drop for ExportFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::remove_file(temporary);
        }
    }
}

fn directory(path: &Path) -> io::Result<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))
}

/// A new file in the same directory.
fn create_beside(target: &Path) -> io::Result<(File, PathBuf)> {
    let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let name: String = name.chars().take(100).collect();
    for attempt in 0..100 {
        let temporary =
            target.with_file_name(format!(".{name}.{}-{attempt}.tmp", std::process::id()));
        match File::options().read(true).write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((file, temporary)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap();
        names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn an_export_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.raw");
        let export = ExportFile::create(&path, false).unwrap();
        export.file().write_all_at(b"x", 0).unwrap();
        assert!(!path.exists());
        drop(export);
        assert_eq!(names(dir.path()), [""; 0]);
        let export = ExportFile::create(&path, false).unwrap();
        let mut sink = Sink::new(&export.file, 1 << 20).unwrap();
        sink.hole(0, 500_000).unwrap();
        sink.write(500_000, b"data").unwrap();
        sink.finish().unwrap();
        export.commit().unwrap();
        assert_eq!(names(dir.path()), ["out.raw"]);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.len(), 1 << 20);
        assert!(metadata.blocks() * 512 < 1 << 19, "it is sparse");
        assert_eq!(&fs::read(&path).unwrap()[500_000..500_004], b"data");
    }

    #[test]
    fn nothing_is_replaced_without_force() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.raw");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(ExportFile::create(&path, false), Err(Error::Exists(_))));
        drop(ExportFile::create(&path, true).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"precious", "until it is whole");
        let export = ExportFile::create(&path, true).unwrap();
        export.file().write_all_at(b"new", 0).unwrap();
        export.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        let late = dir.path().join("late.raw");
        let export = ExportFile::create(&late, false).unwrap();
        fs::write(&late, "of somebody else").unwrap();
        assert!(matches!(export.commit(), Err(Error::Exists(_))));
        assert_eq!(fs::read(&late).unwrap(), b"of somebody else");
        assert_eq!(names(dir.path()).len(), 2, "no temporary file is left");
        assert!(ExportFile::create(dir.path(), true).is_err(), "a directory");
    }

    #[test]
    fn a_stream_gets_its_holes_as_zeros() {
        let (mut reader, writer) = io::pipe().unwrap();
        let file = File::from(std::os::fd::OwnedFd::from(writer));
        let thread = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
            bytes
        });
        let mut sink = Sink::new(&file, 200_002).unwrap();
        sink.write(0, b"a").unwrap();
        sink.hole(1, 200_000).unwrap();
        sink.write(200_001, b"z").unwrap();
        sink.finish().unwrap();
        drop(file);
        let bytes = thread.join().unwrap();
        assert_eq!((bytes.len(), bytes[0], bytes[200_001]), (200_002, b'a', b'z'));
        assert!(bytes[1..200_001].iter().all(|&b| b == 0));
    }
}
