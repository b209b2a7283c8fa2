//! Faults that a test plants in the code that upholds an invariant, to see that the suite finds
//! them. They exist only with the feature `mutants`, which the simulator's tests switch on and no
//! program does; without it [`is`] is constantly false and costs nothing.

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
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
