//! How far a campaign has come, in a file of words that a person can read.

use super::Tally;
use std::fmt::Write;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The first seed that is not done; all before it are.
    pub next: u64,
    /// Seeds that were done.
    pub seeds: u64,
    /// Crashed disks that were recovered and judged.
    pub states: u64,
    /// Verdicts on them.
    pub judged: u64,
    /// Histories.
    pub histories: u64,
    /// Seconds that it took.
    pub seconds: u64,
    /// Seeds that failed, with the first line of why.
    pub failed: Vec<(u64, String)>,
}

impl Progress {
    /// One that begins at `seed`.
    #[must_use]
    pub fn starting_at(seed: u64) -> Self {
        Self { next: seed, ..Self::default() }
    }

    /// Adds what a seed came to.
    pub fn add(&mut self, tally: &Tally) {
        self.seeds += tally.seeds;
        self.states += tally.states();
        self.judged += tally.crashes.judged;
        self.histories += tally.histories();
    }

    /// What is written to the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self { next, seeds, states, judged, histories, seconds, failed } = self;
        let mut text = format!(
            "next {next}\nseeds {seeds}\nstates {states}\njudged {judged}\n\
             histories {histories}\nseconds {seconds}\n"
        );
        for (seed, why) in failed {
            let _ = writeln!(text, "failed {seed} {}", why.lines().next().unwrap_or_default());
        }
        text
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// The line that makes no sense.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let mut progress = Self::default();
        for (number, line) in (1..).zip(text.lines()) {
            let wrong = || format!("line {number} makes no sense: {line}");
            let (key, rest) = line.split_once(' ').ok_or_else(wrong)?;
            let (word, why) = rest.split_once(' ').unwrap_or((rest, ""));
            let value: u64 = word.parse().map_err(|_| wrong())?;
            match key {
                "next" => progress.next = value,
                "seeds" => progress.seeds = value,
                "states" => progress.states = value,
                "judged" => progress.judged = value,
                "histories" => progress.histories = value,
                "seconds" => progress.seconds = value,
                "failed" => progress.failed.push((value, why.to_owned())),
                _ => return Err(wrong()),
            }
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let failed = vec![(7, "block 3 holds zeros".to_owned()), (9, String::new())];
        let progress = Progress {
            next: 12,
            seeds: 5,
            states: 900,
            judged: 2000,
            histories: 3,
            seconds: 60,
            failed,
        };
        assert_eq!(Progress::from_text(&progress.to_text()), Ok(progress));
        for wrong in ["next", "next x", "last 3"] {
            assert!(Progress::from_text(wrong).is_err_and(|text| text.contains("line 1")));
        }
    }
}
