//! What can be wrong with bytes that came from a device.

use crate::Phys;

/// A structure on the device that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The structure does not begin with its magic number: something else is there.
    #[error("{what} at block {at}: wrong magic number")]
    Magic {
        /// Name of the structure.
        what: &'static str,
        /// Where it was read.
        at: Phys,
    },
    /// The checksum does not match.
    #[error("{what} at block {at}: checksum mismatch")]
    Checksum {
        /// Name of the structure.
        what: &'static str,
        /// Where it was read.
        at: Phys,
    },
    /// A valid structure, but not the one that belongs here: a lost, stale or misdirected write.
    #[error("{what} at block {at}: {field} does not match its place")]
    Identity {
        /// Name of the structure.
        what: &'static str,
        /// Where it was read.
        at: Phys,
        /// The field that disagrees.
        field: &'static str,
    },
    /// A field holds a value that is not allowed.
    #[error("{what} at block {at}: bad value in field {field}")]
    Field {
        /// Name of the structure.
        what: &'static str,
        /// Where it was read.
        at: Phys,
        /// The field.
        field: &'static str,
    },
    /// The format version is not one that this program knows.
    #[error("format version {found} is not supported (this program knows {known})")]
    Version {
        /// What the device says.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// The pool uses features that this program does not know.
    #[error("the pool uses unknown incompatible features {mask:#x}")]
    Features {
        /// The unknown bits.
        mask: u64,
    },
}
