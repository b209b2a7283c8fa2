//! Faults that a test plants in the code that upholds an invariant, to see that the suite finds
//! them. They exist only with the feature `mutants`, which the simulator's tests switch on and no
//! program does; without it [`is`] is constantly false and costs nothing.
//!
//! Which invariant each is about, and what finds it, stands in `cow-sim/tests/mutants`.

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<&'static str> = std::cell::Cell::new(from_outside());
}

/// What `COW_MUTANT` names is planted in every thread from the beginning: so a test that knows
/// nothing of faults can be run with one.
#[cfg(feature = "mutants")]
fn from_outside() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var("COW_MUTANT").unwrap_or_default())
}

/// Plants a fault in what this thread runs from now on; an empty name takes it out.
#[cfg(feature = "mutants")]
pub fn plant(name: &'static str) {
    PLANTED.set(name);
}

/// Whether the fault `name` is planted.
#[cfg(feature = "mutants")]
pub fn is(name: &str) -> bool {
    PLANTED.get() == name
}

/// Whether the fault `name` is planted: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is(_name: &str) -> bool {
    false
}
