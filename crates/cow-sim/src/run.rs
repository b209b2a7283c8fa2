//! Seeds, threads, and what is printed when a run fails.
//!
//! `COW_SIM_SEEDS` sets how many seeds a test runs, `COW_SIM_START` the first one and
//! `COW_SIM_THREADS` on how many threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds of a test that runs `count` of them unless told otherwise.
#[must_use]
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let start = variable("COW_SIM_START").unwrap_or(0);
    start..start + variable("COW_SIM_SEEDS").unwrap_or(count)
}

/// A first seed that nobody has seen: from `COW_SIM_START`, or else from the clock.
#[must_use]
pub fn fresh_start() -> u64 {
    let clock = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    };
    variable("COW_SIM_START").unwrap_or_else(clock)
}

/// Whether the environment says which seeds to run.
#[must_use]
pub fn is_told() -> bool {
    variable("COW_SIM_SEEDS").is_some()
}

/// How many threads run seeds side by side.
#[must_use]
pub fn threads() -> u64 {
    variable("COW_SIM_THREADS").unwrap_or(2).max(1)
}

/// Runs `job` for every seed, on several threads, and gives back what it returned.
///
/// # Panics
/// With the seed, what went wrong and how to run it again, when a job fails or panics.
pub fn for_seeds<T: Send>(
    test: &str,
    count: u64,
    job: impl Fn(u64) -> Result<T, String> + Sync,
) -> Vec<T> {
    for_range(test, seeds(count), job)
}

/// The same, for these seeds whatever the environment says.
///
/// # Panics
/// Likewise.
pub fn for_range<T: Send>(
    test: &str,
    range: std::ops::Range<u64>,
    job: impl Fn(u64) -> Result<T, String> + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(range.start);
    let stop = AtomicBool::new(false);
    let (results, failure) = (Mutex::new(Vec::new()), Mutex::new(None));
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= range.end {
                break;
            }
            match caught(|| job(seed)) {
                Ok(result) => lock(&results).push(result),
                Err(text) => {
                    stop.store(true, Ordering::Relaxed);
                    lock(&failure).get_or_insert((seed, text));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(worker);
        }
    });
    if let Some((seed, text)) = lock(&failure).take() {
        panic!(
            "{test}, seed {seed}: {text}\nto run it again: \
             COW_SIM_START={seed} COW_SIM_SEEDS=1 cargo test -p cow-sim {test}"
        );
    }
    results.into_inner().unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Runs `job`; a panic of the machine becomes an error, so that what led there can be told.
///
/// # Errors
/// What went wrong.
pub fn caught<T, E: From<String>>(job: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|panic| Err(E::from(format!("panicked: {}", message(&*panic)))))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// The last commands of a run, one a line.
#[must_use]
pub fn tail(trace: &[crate::cmd::Cmd]) -> String {
    let from = trace.len().saturating_sub(40);
    let lines: Vec<String> = trace[from..].iter().map(|cmd| format!("    {cmd:?}")).collect();
    format!("\n  last {} of {} commands:\n{}", lines.len(), trace.len(), lines.join("\n"))
}
