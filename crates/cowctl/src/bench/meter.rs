//! What this process has used so far: processor time, and bytes that it had the device move.

use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::time::{Duration, Instant};

/// A reading.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    at: Instant,
    cpu: Duration,
    /// In clock ticks, which are coarse: only what part of `cpu` is which.
    user: u64,
    system: u64,
    /// `None` where the kernel does not count.
    written: Option<u64>,
    read: Option<u64>,
}

/// What was used between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// Wall clock.
    pub elapsed: Duration,
    /// Processor time of all threads.
    pub cpu: Duration,
    /// Share of it that was not the kernel's, if that can be told.
    pub user_share: Option<f64>,
    /// Bytes that went to the device.
    pub device_written: Option<u64>,
    /// Bytes that came from it.
    pub device_read: Option<u64>,
}

impl Meter {
    /// Reads it.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let (user, system) = ticks(&stat).unwrap_or((0, 0));
        Self {
            at: Instant::now(),
            cpu: Duration::new(seconds, nanos),
            user,
            system,
            written: field(&io, "write_bytes"),
            read: field(&io, "read_bytes"),
        }
    }

    /// What was used since this reading.
    pub fn used(&self) -> Used {
        let now = Self::now();
        let since = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        let user = now.user.saturating_sub(self.user) as f64;
        let system = now.system.saturating_sub(self.system) as f64;
        Used {
            elapsed: now.at.saturating_duration_since(self.at),
            cpu: now.cpu.saturating_sub(self.cpu),
            user_share: (user + system > 0.0).then(|| user / (user + system)),
            device_written: since(now.written, self.written),
            device_read: since(now.read, self.read),
        }
    }
}

fn field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.trim().parse().ok()
}

/// User and system ticks of `/proc/self/stat`: fields 14 and 15, counted behind the name, which may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_understood() {
        let stat = "1 (a) b) S 2 3 4 5 6 7 8 9 10 11 77 88 0 0";
        assert_eq!(ticks(stat), Some((77, 88)));
        assert_eq!(ticks("1 (a) S 2"), None);
        let io = "rchar: 1\nread_bytes: 5\nwrite_bytes: 6\ncancelled_write_bytes: 7\n";
        assert_eq!((field(io, "write_bytes"), field(io, "read_bytes")), (Some(6), Some(5)));
        assert_eq!(field("", "write_bytes"), None);
    }
}
