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
    /// An intact frame of the journal that another version has written.
    #[error(
        "journal frame {number} at block {at}: version {found} is not supported (this program knows {known})"
    )]
    FrameVersion {
        /// Its sequence number.
        number: u64,
        /// Where it was read.
        at: Phys,
        /// What it says.
        found: u16,
        /// What we know.
        known: u16,
    },
    /// The pool uses features that this program does not know.
    #[error("the pool uses unknown incompatible features {mask:#x}")]
    Features {
        /// The unknown bits.
        mask: u64,
    },
    /// An intact structure with flags that this program does not know: they may say that it must be
    /// read otherwise.
    #[error("{what} {number} at block {at}: unknown flags {bits:#x}")]
    Flags {
        /// Name of the structure.
        what: &'static str,
        /// Which one: copy of the superblock, checkpoint, journal frame, id of the entry's node.
        number: u64,
        /// Where it was read.
        at: Phys,
        /// The unknown bits.
        bits: u64,
    },
}

impl FormatError {
    /// Whether this is an intact structure of another time, and no damage. Nothing may be put in its
    /// place: neither an older version of it, nor the end of the journal.
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Version { .. }
                | Self::FrameVersion { .. }
                | Self::Features { .. }
                | Self::Flags { .. }
        )
    }

    /// Refuses `flags` where they have bits other than `known`.
    pub(crate) fn refuse_flags(
        what: &'static str,
        number: u64,
        at: Phys,
        flags: u64,
        known: u64,
    ) -> Result<(), Self> {
        match flags & !known {
            0 => Ok(()),
            bits => Err(Self::Flags { what, number, at, bits }),
        }
    }
}
