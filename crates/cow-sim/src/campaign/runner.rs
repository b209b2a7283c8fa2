//! Runs seeds on several threads until the time is over, says how it goes, and keeps what it found.

use super::{Progress, Size, run};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a campaign is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long.
    pub time: Duration,
    /// The first seed of a new one.
    pub seed: u64,
    /// Where it goes on, and leaves what it has come to.
    pub file: Option<PathBuf>,
    /// How many threads.
    pub threads: u64,
    /// How much for each seed.
    pub size: Size,
}

/// How often something is said, and written.
const SAY_EVERY: Duration = Duration::from_secs(15);

struct Shared {
    progress: Progress,
    /// Seeds under way.
    open: BTreeSet<u64>,
    following: u64,
    said: Instant,
    before: u64,
}

/// Runs it and tells `say` how it goes; what it has come to, with what the file said before.
///
/// # Errors
/// When the file cannot be read or written.
pub fn run_for(options: &Options, say: impl Fn(&str) + Sync) -> Result<Progress, String> {
    let begun = Instant::now();
    let progress = load(options)?;
    let following = progress.next;
    say(&format!("campaign: from seed {following} on, {} threads", options.threads));
    let before = progress.seconds;
    let shared =
        Mutex::new(Shared { progress, open: BTreeSet::new(), following, said: begun, before });
    let lock = || shared.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || -> Result<(), String> {
        while begun.elapsed() < options.time {
            let seed = {
                let mut all = lock();
                let seed = all.following;
                all.following += 1;
                all.open.insert(seed);
                seed
            };
            let result = run(seed, options.size);
            let mut all = lock();
            all.open.remove(&seed);
            match result {
                Ok(tally) => all.progress.add(&tally),
                Err(text) => {
                    say(&format!("seed {seed} FAILED: {text}\nto run it again: {}", again(seed)));
                    all.progress.failed.push((seed, text));
                }
            }
            all.progress.next = all.open.first().copied().unwrap_or(all.following);
            all.progress.seconds = all.before + begun.elapsed().as_secs();
            if all.said.elapsed() > SAY_EVERY {
                all.said = Instant::now();
                say(&line_of(&all.progress));
                save(options, &all.progress)?;
            }
        }
        Ok(())
    };
    let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads).map(|_| scope.spawn(worker)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|end| end.unwrap_or_else(|_| Err("a thread panicked".into()))).collect()
    });
    results.into_iter().collect::<Result<(), String>>()?;
    let progress = lock().progress.clone();
    say(&line_of(&progress));
    save(options, &progress)?;
    Ok(progress)
}

fn again(seed: u64) -> String {
    format!("COW_SIM_START={seed} COW_SIM_SEEDS=1 cargo xtask campaign")
}

fn line_of(progress: &Progress) -> String {
    let Progress { next, seeds, states, judged, histories, seconds, failed } = progress;
    let rate = |count: &u64| count / (*seconds).max(1);
    format!(
        "{seconds} s: {seeds} seeds, next {next}; {states} crash states ({} a second), {judged} \
         verdicts; {histories} histories ({:.1} a second); {} failed",
        rate(states),
        *histories as f64 / (*seconds).max(1) as f64,
        failed.len()
    )
}

fn load(options: &Options) -> Result<Progress, String> {
    let Some(file) = &options.file else { return Ok(Progress::starting_at(options.seed)) };
    match std::fs::read_to_string(file) {
        Ok(text) => Progress::from_text(&text).map_err(|why| format!("{}: {why}", file.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Progress::starting_at(options.seed))
        }
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// Writes beside it and renames, so that a kill leaves the old file or the new one.
fn save(options: &Options, progress: &Progress) -> Result<(), String> {
    let Some(file) = &options.file else { return Ok(()) };
    let new = file.with_extension("new");
    let written =
        std::fs::write(&new, progress.to_text()).and_then(|()| std::fs::rename(&new, file));
    written.map_err(|error| format!("{}: {error}", file.display()))
}
