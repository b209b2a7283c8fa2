//! Totals the test runner's own words while they pass through.

/// What the lines so far add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
    /// Test binaries that announced tests.
    started: u64,
    /// Test binaries that printed a result.
    ended: u64,
    /// The unfinished last line.
    line: Vec<u8>,
}

impl Summary {
    /// Takes the next piece of output, cut anywhere.
    pub fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take_line(String::from_utf8_lossy(&line).trim_end());
            }
        }
    }

    /// Binaries that were killed or aborted amid their tests: they print no result.
    pub fn died(&self) -> u64 {
        self.started.saturating_sub(self.ended)
    }

    fn take_line(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.ended += 1;
            let words: Vec<&str> = result.split_whitespace().collect();
            for pair in words.windows(2) {
                let Ok(count) = pair[0].parse::<u64>() else { continue };
                match pair[1] {
                    "passed;" => self.passed += count,
                    "failed;" => self.failed += count,
                    "ignored;" => self.ignored += count,
                    _ => {}
                }
            }
        } else if is_announcement(line) {
            self.started += 1;
        }
    }
}

/// `running 3 tests`
fn is_announcement(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    matches!(words[..], ["running", count, "test" | "tests"] if count.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\nrunning 2 tests\ntest a ... ok\ntest b ... ok\n\n\
        test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
        \nrunning 1 test\ntest c ... FAILED\n\
        test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn totals_over_all_binaries_however_the_stream_is_cut() {
        for size in [1, 7, OUTPUT.len()] {
            let mut summary = Summary::default();
            OUTPUT.as_bytes().chunks(size).for_each(|piece| summary.feed(piece));
            assert_eq!((summary.passed, summary.failed, summary.ignored), (2, 1, 1));
            assert_eq!(summary.died(), 0);
        }
    }

    #[test]
    fn a_binary_that_never_reports_is_seen() {
        let mut summary = Summary::default();
        summary.feed(OUTPUT.as_bytes());
        summary.feed(b"\nrunning 4 tests\ntest d ... ");
        assert_eq!(summary.died(), 1);
    }
}
