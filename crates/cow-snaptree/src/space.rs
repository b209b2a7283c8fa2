//! How much space a volume may take, and how much is kept for it: the values of its properties
//! `budget` and `reserve`.

use cow_format::parse_size;
use std::fmt;

/// Most bytes of data that the volume and its snapshots may hold.
pub const BUDGET: &str = "budget";
/// Space that is kept for the volume, so that its writes find room in a full pool.
pub const RESERVE: &str = "reserve";

/// The word for a reserve of the volume's whole size, whatever that is.
const FULL: &str = "full";

/// How much of a volume is promised to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All of it.
    Full,
    /// So many bytes of it, whichever are written.
    Bytes(u64),
}

/// What the properties of a volume say about space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpacePolicy {
    /// In bytes.
    pub budget: Option<u64>,
    /// What is kept for it.
    pub reserve: Option<Reserve>,
}

impl SpacePolicy {
    /// Takes note of a property. What an older program let pass as a value says nothing.
    pub(crate) fn set(&mut self, key: &str, value: Option<&str>) {
        match key {
            BUDGET => self.budget = value.and_then(parse_budget),
            RESERVE => self.reserve = value.and_then(Reserve::parse),
            _ => {}
        }
    }
}

impl Reserve {
    pub(crate) fn parse(value: &str) -> Option<Self> {
        if value == FULL {
            return Some(Self::Full);
        }
        parse_budget(value).map(Self::Bytes)
    }
}

/// The size that a budget or a reserve has: not 0.
pub(crate) fn parse_budget(value: &str) -> Option<u64> {
    parse_size(value).ok().filter(|bytes| *bytes > 0)
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str(FULL),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_size_and_not_0() {
        for (text, bytes) in [
            ("1", 1),
            ("64K", 64 << 10),
            ("64k", 64 << 10),
            ("10G", 10 << 30),
            ("10GiB", 10 << 30),
            ("3T", 3 << 40),
        ] {
            assert_eq!(parse_budget(text), Some(bytes), "{text}");
        }
        for text in
            ["", "0", "0K", "K", "-1", "+1", "1 K", "1KK", "1iB", "10GB", "99999999P", "1.5G"]
        {
            assert_eq!(parse_budget(text), None, "{text}");
        }
        assert_eq!(Reserve::parse("full"), Some(Reserve::Full));
        assert_eq!(Reserve::parse("1M"), Some(Reserve::Bytes(1 << 20)));
        assert_eq!(Reserve::parse("all"), None);
    }
}
