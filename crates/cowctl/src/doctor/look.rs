//! What can be seen of the disk below a directory, in plain sentences.

use super::scratch::{Scratch, Works};
use crate::failure::Failure;
use crate::output;
use crate::units::{human_duration, human_size};
use cow_fuse::mountinfo::{self, MountEntry};
use rustix::fs::{AtFlags, StatxFlags};
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::path::Path;

/// A medium that has to be reached takes longer.
const QUICK_FLUSH_MICROS: u128 = 30;

/// How good it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Good,
    Note,
    Bad,
}

/// What has been found.
#[derive(Default)]
struct Findings {
    lines: Vec<(Mark, String)>,
    fields: Map<String, Value>,
}

impl Findings {
    fn tell(&mut self, key: &str, value: Value, mark: Mark, text: String) {
        self.fields.insert(key.into(), value);
        self.lines.push((mark, text));
    }

    /// Something that is there, or is not, and what follows from that.
    fn works(&mut self, key: &str, works: &Works, yes: &str, no: &str) {
        match works {
            Works::Yes => self.tell(key, json!(true), Mark::Good, yes.into()),
            Works::No(reason) => {
                self.tell(key, json!(false), Mark::Bad, format!("{no} ({reason})."));
            }
        }
    }
}

/// Looks at what is below `dir`.
pub fn run(dir: &Path, as_json: bool) -> Result<(), Failure> {
    let real = fs::canonicalize(dir).map_err(Failure::file(dir))?;
    let mut found = Findings::default();
    found.fields.insert("dir".into(), json!(real.display().to_string()));
    file_system(&real, &mut found)?;
    let mut scratch = Scratch::new(dir)?;
    driver(&scratch, &mut found);
    alignment(&scratch, &mut found);
    space_below(&mut scratch, &mut found)?;
    flushes(&mut scratch, &mut found)?;
    drop(scratch);
    this_machine(&mut found);
    found.tell(
        "flush_is_honest",
        Value::Null,
        Mark::Note,
        format!(
            "Whether a flush is honest, that is, whether what the disk says it has flushed survives a power cut, cannot \
             be seen from here. Only a power cut can tell: cowctl doctor {} --before-power-cut",
            dir.display()
        ),
    );
    if as_json {
        return output::json("doctor", Value::Object(found.fields));
    }
    for (mark, text) in &found.lines {
        let mark = match mark {
            Mark::Good => "ok  ",
            Mark::Note => "note",
            Mark::Bad => "bad ",
        };
        output::line(format!("{mark}  {text}"))?;
    }
    Ok(())
}

fn file_system(dir: &Path, found: &mut Findings) -> Result<(), Failure> {
    let mounts = mountinfo::mounts().unwrap_or_default();
    if let Some(mount) = mount_of(&mounts, dir) {
        let source = mount.source.to_string_lossy().into_owned();
        let memory = matches!(mount.kind.as_str(), "tmpfs" | "ramfs");
        let network = mount.kind.starts_with("nfs") || matches!(mount.kind.as_str(), "cifs" | "9p");
        let mut text = format!(
            "The file system is {} on {source}, mounted at {}",
            mount.kind,
            mount.dir.display()
        );
        let mark = match (memory, network) {
            (true, _) => {
                text.push_str(": it is in memory, and nothing in it survives a restart");
                Mark::Bad
            }
            (_, true) => {
                text.push_str(
                    ": it is on another machine, whose disk cannot be looked at from here",
                );
                Mark::Note
            }
            _ => Mark::Good,
        };
        text.push('.');
        found.fields.insert("file_system_source".into(), json!(source));
        found.tell("file_system", json!(mount.kind), mark, text);
    }
    let stat = rustix::fs::statvfs(dir).map_err(|e| Failure::file(dir)(e.into()))?;
    let (free, size) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    found.fields.insert("size_bytes".into(), json!(size));
    let text = format!("{} of {} are free.", human_size(free), human_size(size));
    let mark = if free < 64 << 20 { Mark::Note } else { Mark::Good };
    found.tell("free_bytes", json!(free), mark, text);
    Ok(())
}

/// What `dir` lies on: the deepest mount above it, and of several there the topmost.
fn mount_of<'a>(mounts: &'a [MountEntry], dir: &Path) -> Option<&'a MountEntry> {
    let above = mounts.iter().filter(|mount| dir.starts_with(&mount.dir));
    above.max_by_key(|mount| mount.dir.components().count())
}

fn driver(scratch: &Scratch, found: &mut Findings) {
    let driver = scratch.driver();
    let uring = match driver.fallback_reason() {
        None => Works::Yes,
        Some(reason) => Works::No(reason.into()),
    };
    found.works(
        "io_uring",
        &uring,
        "io_uring works.",
        "io_uring is not to be had, and threads are used, which costs speed",
    );
    if matches!(uring, Works::Yes) {
        let fixed = match (driver.fixed_transfers(), driver.fixed_refusal()) {
            (Some(_), None) => Works::Yes,
            (_, reason) => Works::No(reason.unwrap_or("none are registered").into()),
        };
        found.works(
            "fixed_buffers",
            &fixed,
            "Buffers can be registered with the kernel.",
            "Buffers cannot be registered with the kernel, which costs a little speed",
        );
    }
    let direct = if scratch.image().is_direct() {
        Works::Yes
    } else {
        Works::No(scratch.image().io_notes().join("; "))
    };
    found.works(
        "direct_io",
        &direct,
        "Direct I/O works.",
        "Direct I/O does not work here, and the page cache is used, which costs memory and speed",
    );
}

fn alignment(scratch: &Scratch, found: &mut Findings) {
    let path = scratch.image().path();
    let Ok(stat) = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::DIOALIGN)
    else {
        return;
    };
    let (offset, memory) = (stat.stx_dio_offset_align, stat.stx_dio_mem_align);
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 || offset == 0 {
        return;
    }
    found.fields.insert("direct_memory_align_bytes".into(), json!(memory));
    let fits = offset <= 4096 && memory <= 4096;
    let text =
        format!("Direct I/O wants offsets in multiples of {offset} bytes, and memory of {memory}.");
    let mark = if fits { Mark::Good } else { Mark::Bad };
    found.tell("direct_offset_align_bytes", json!(offset), mark, text);
}

fn space_below(scratch: &mut Scratch, found: &mut Findings) -> Result<(), Failure> {
    let allocates = scratch.allocates();
    found.works(
        "fallocate",
        &allocates,
        "Space can be allocated ahead (fallocate).",
        "Space cannot be allocated ahead (fallocate): checkpoints of a sparse pool may meet a full disk",
    );
    let punches = scratch.punches()?;
    found.works(
        "hole_punching",
        &punches,
        "What a pool frees can be given back (holes are punched).",
        "What a pool frees cannot be given back: the pool reuses it, and its file does not shrink",
    );
    Ok(())
}

fn flushes(scratch: &mut Scratch, found: &mut Findings) -> Result<(), Failure> {
    let times = scratch.time_flushes()?;
    let micros = times.median.as_micros();
    found.fields.insert("flush_longest_us".into(), json!(times.longest.as_micros() as u64));
    let mut text = format!(
        "A flush (fdatasync of 4 KiB) takes {}, the longest of those tried {}",
        human_duration(times.median),
        human_duration(times.longest)
    );
    let quick = micros < QUICK_FLUSH_MICROS;
    if quick {
        text.push_str(
            ": no disk is that quick. A cache with a battery is, or memory, or something that does not flush",
        );
    }
    text.push('.');
    let mark = if quick { Mark::Note } else { Mark::Good };
    found.tell("flush_median_us", json!(micros as u64), mark, text);
    Ok(())
}

fn this_machine(found: &mut Findings) {
    let opens = |path: &str| match File::options().read(true).write(true).open(path) {
        Ok(_) => Works::Yes,
        Err(error) => Works::No(format!("{path}: {error}")),
    };
    found.works(
        "fuse",
        &opens("/dev/fuse"),
        "FUSE is there, for mount and attach.",
        "FUSE is not there for us, so mount and attach do not work",
    );
    found.works(
        "loop_devices",
        &opens("/dev/loop-control"),
        "Loop devices are there, for attach.",
        "Loop devices are not there for us, so attach does not work",
    );
    let limit = locked_memory();
    let text = match limit {
        None => "Memory can be locked without limit.".into(),
        Some(bytes) => {
            format!("At most {} of memory can be locked without privileges.", human_size(bytes))
        }
    };
    found.tell("locked_memory_bytes", json!(limit), Mark::Good, text);
}

/// How much memory this process may lock, in bytes; `None` for no limit.
fn locked_memory() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Memlock).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_topmost_mount_is_meant() {
        let mount = |dir: &str, kind: &str| MountEntry {
            device: (0, 1),
            dir: dir.into(),
            kind: kind.into(),
            source: "x".into(),
            read_only: false,
        };
        let mounts = [mount("/", "a"), mount("/b", "b"), mount("/b", "c"), mount("/bc", "d")];
        let kind = |dir: &str| mount_of(&mounts, Path::new(dir)).map(|mount| mount.kind.as_str());
        assert_eq!(kind("/x"), Some("a"));
        assert_eq!(kind("/b/c"), Some("c"));
        assert_eq!(kind("/bcd"), Some("a"));
        assert_eq!(kind("/bc"), Some("d"));
    }
}
