//! A real file system image, made of files of this machine.

use crate::failure::Failure;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Size of the image.
pub const IMAGE_BYTES: u64 = 256 << 20;
const FILES_WANTED: usize = 1500;
const FILES_MIN: usize = 1000;
const BYTES_MAX: u64 = 48 << 20;
const FILE_MAX: u64 = 1 << 20;
/// Directories looked at, at most: a demo is no search.
const DIRECTORIES_MAX: usize = 4000;

/// Where files come from: trees that most machines have and everybody may read.
const SOURCES: &[&str] = &["/usr/share/doc", "/usr/share", "/usr/include", "/etc"];

/// Tools of e2fsprogs, which ordinary users often do not have on their path.
const SBIN: &[&str] = &["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// A program, or which package brings it.
pub fn tool(name: &str, package: &str) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(SBIN.iter().map(PathBuf::from));
    let found = dirs.map(|dir| dir.join(name)).find(|program| program.is_file());
    found.ok_or_else(|| {
        Failure::Failed(format!(
            "the demo needs {name}, which the Debian package {package} brings: apt-get install {package}"
        ))
    })
}

/// Runs a program to its end.
pub fn output(command: &mut Command) -> Result<Output, Failure> {
    let shown = command.get_program().to_string_lossy().into_owned();
    command
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Failure::Failed(format!("{shown} cannot be started: {e}")))
}

/// How many files the image has, and their bytes.
pub struct Content {
    /// Regular files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes an ext4 image at `image`, of a tree that is gathered in `tree`.
pub fn make(mkfs: &Path, tree: &Path, image: &Path) -> Result<Content, Failure> {
    let content = gather(tree).map_err(Failure::file(tree))?;
    let file = File::create(image).and_then(|file| file.set_len(IMAGE_BYTES));
    file.map_err(Failure::file(image))?;
    let mut command = Command::new(mkfs);
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"]).arg(tree).arg(image);
    let made = output(&mut command)?;
    if !made.status.success() {
        let text = String::from_utf8_lossy(&made.stderr).into_owned();
        return Err(Failure::Failed(format!("mkfs.ext4: {}", text.trim())));
    }
    Ok(content)
}

/// Copies files of this machine, and makes up what is missing.
fn gather(tree: &Path) -> io::Result<Content> {
    let mut content = Content { files: 0, bytes: 0 };
    let mut pending: Vec<PathBuf> = SOURCES.iter().rev().map(PathBuf::from).collect();
    let mut looked_at = 0;
    while let Some(directory) = pending.pop() {
        looked_at += 1;
        if looked_at > DIRECTORIES_MAX || content.files >= FILES_WANTED {
            break;
        }
        // What we may not read is left out.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() && content.files < FILES_WANTED {
                copy(&entry.path(), tree, &mut content)?;
            }
        }
    }
    while content.files < FILES_MIN {
        let path = tree.join(format!("made/{:02}/{:04}.txt", content.files % 40, content.files));
        let text = format!("file {}\n", content.files).repeat(1 + content.files % 900);
        write(&path, text.as_bytes(), &mut content)?;
    }
    Ok(content)
}

fn copy(source: &Path, tree: &Path, content: &mut Content) -> io::Result<()> {
    let Ok(file) = File::open(source) else { return Ok(()) };
    let mut bytes = Vec::new();
    if file.take(FILE_MAX + 1).read_to_end(&mut bytes).is_err()
        || bytes.len() as u64 > FILE_MAX
        || content.bytes + bytes.len() as u64 > BYTES_MAX
    {
        return Ok(());
    }
    let target = tree.join(source.strip_prefix("/").unwrap_or(source));
    if target.exists() {
        return Ok(());
    }
    write(&target, &bytes, content)
}

fn write(path: &Path, bytes: &[u8], content: &mut Content) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, bytes)?;
    content.files += 1;
    content.bytes += bytes.len() as u64;
    Ok(())
}
