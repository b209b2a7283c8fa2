//! All files of the shim, and when the power goes.

use super::cache::CachedFile;
use super::rng::Rng;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// `EIO`.
const EIO: i32 = 5;

/// What flushes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushes {
    /// What they say.
    Honest,
    /// Nothing, and they say that it is done.
    Lie,
}

/// What a cut has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Changes that no flush had covered.
    pub unflushed: usize,
    /// Sectors of them that are on the disk.
    pub surviving_sectors: usize,
}

/// The files, and whether there is power.
#[derive(Debug)]
pub struct State {
    backing: PathBuf,
    files: Vec<(String, Option<CachedFile>)>,
    flushes: Flushes,
    rng: Rng,
    operations: u64,
    cut_at: Option<u64>,
    cut: Option<Cut>,
}

impl State {
    /// Of the files in the directory `backing`.
    pub fn new(backing: &Path, seed: u64) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(backing)? {
            let entry = entry?;
            let file = File::options().read(true).write(true).open(entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push((name, Some(CachedFile::new(file)?)));
        }
        Ok(Self {
            backing: backing.into(),
            files,
            flushes: Flushes::Honest,
            rng: Rng::new(seed),
            operations: 0,
            cut_at: None,
            cut: None,
        })
    }

    /// What flushes do from now on.
    pub fn set_flushes(&mut self, flushes: Flushes) {
        self.flushes = flushes;
    }

    /// Has the power go during the `count`th change or flush from now on; 1 is the next.
    pub fn cut_after(&mut self, count: u64) {
        self.cut_at = Some(self.operations + count);
    }

    /// The cut, if there was one.
    pub fn has_cut(&self) -> Option<Cut> {
        self.cut
    }

    /// Has the power go now.
    pub fn cut(&mut self) -> Cut {
        let mut done = Cut::default();
        if let Some(cut) = self.cut {
            return cut;
        }
        for (_, file) in &mut self.files {
            let Some(file) = file else { continue };
            let (changes, sectors) = file.cut(&mut self.rng).expect("the file below is written");
            done.unflushed += changes;
            done.surviving_sectors += sectors;
        }
        self.cut = Some(done);
        done
    }

    /// An error if there is no power.
    pub fn powered(&self) -> io::Result<()> {
        if self.cut.is_some() { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
    }

    /// The names, with the index of each.
    pub fn names(&self) -> Vec<(usize, String)> {
        let there = self.files.iter().enumerate().filter(|(_, (_, file))| file.is_some());
        there.map(|(index, (name, _))| (index, name.clone())).collect()
    }

    /// The index of a file.
    pub fn find(&self, name: &OsStr) -> Option<usize> {
        self.names()
            .into_iter()
            .find(|(_, other)| OsStr::new(other) == name)
            .map(|(index, _)| index)
    }

    /// A file.
    pub fn file(&mut self, index: usize) -> io::Result<&mut CachedFile> {
        self.powered()?;
        let file = self.files.get_mut(index).and_then(|(_, file)| file.as_mut());
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes a file; its name is durable at once.
    pub fn create(&mut self, name: &str) -> io::Result<usize> {
        self.powered()?;
        let path = self.backing.join(name);
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        self.files.push((name.into(), Some(CachedFile::new(file)?)));
        Ok(self.files.len() - 1)
    }

    /// Takes a file away, durably.
    pub fn unlink(&mut self, name: &OsStr) -> io::Result<()> {
        self.powered()?;
        let index = self.find(name).ok_or(io::ErrorKind::NotFound)?;
        fs::remove_file(self.backing.join(name))?;
        self.files[index].1 = None;
        Ok(())
    }

    /// A change of a file. If the power goes at this one, it may have reached the cache before.
    pub fn change(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut CachedFile) -> io::Result<()>,
    ) -> io::Result<()> {
        self.powered()?;
        self.operations += 1;
        let is_last = self.cut_at == Some(self.operations);
        if !is_last || self.rng.eighths(4) {
            change(self.file(index)?)?;
        }
        if is_last {
            self.cut();
        }
        self.powered()
    }

    /// A flush of a file. If the power goes at this one, it is never answered.
    pub fn flush(&mut self, index: usize) -> io::Result<()> {
        self.powered()?;
        self.operations += 1;
        if self.cut_at == Some(self.operations) {
            self.cut();
            return self.powered();
        }
        let flushes = self.flushes;
        let file = self.file(index)?;
        if flushes == Flushes::Honest { file.flush() } else { Ok(()) }
    }
}
