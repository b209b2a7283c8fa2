//! The part of the kernel's protocol that moves data (`linux/fuse.h`): all numbers are in the byte
//! order of the machine.

/// Before the arguments of a request.
pub(crate) const HEADER_BYTES: usize = 40;
/// The arguments of a read and of a write; the data of a write follows them.
const TRANSFER_BYTES: usize = 40;
/// What comes before the data of a write.
pub(crate) const HEAD_BYTES: usize = HEADER_BYTES + TRANSFER_BYTES;
/// Before the data of an answer.
pub(crate) const ANSWER_BYTES: usize = 16;

const READ: u32 = 15;
const WRITE: u32 = 16;
const FSYNC: u32 = 20;
const INIT: u32 = 26;
const DESTROY: u32 = 38;

/// A request, as far as it is looked at here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read {
        handle: u64,
        offset: u64,
        len: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        len: u32,
        flags: i32,
    },
    Flush {
        handle: u64,
    },
    /// For somebody else.
    Other,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Takes the first bytes of a request apart: its number, and what it asks. None if it is too short.
pub(crate) fn parse(head: &[u8]) -> Option<(u64, Request)> {
    let (code, unique) = (u32_at(head, 4)?, u64_at(head, 8)?);
    let args = head.get(HEADER_BYTES..)?;
    let request = match code {
        READ => Request::Read {
            handle: u64_at(args, 0)?,
            offset: u64_at(args, 8)?,
            len: u32_at(args, 16)?,
        },
        WRITE => Request::Write {
            handle: u64_at(args, 0)?,
            offset: u64_at(args, 8)?,
            len: u32_at(args, 16)?,
            flags: u32_at(args, 32)?.cast_signed(),
        },
        FSYNC => Request::Flush { handle: u64_at(args, 0)? },
        _ => Request::Other,
    };
    Some((unique, request))
}

/// What comes before `len` bytes of an answer; `errno` is 0 or positive.
pub(crate) fn answer(unique: u64, errno: i32, len: usize) -> [u8; ANSWER_BYTES] {
    let total = u32::try_from(ANSWER_BYTES + len).unwrap_or(u32::MAX);
    let mut bytes = [0; ANSWER_BYTES];
    bytes[..4].copy_from_slice(&total.to_ne_bytes());
    bytes[4..8].copy_from_slice(&errno.wrapping_neg().to_ne_bytes());
    bytes[8..].copy_from_slice(&unique.to_ne_bytes());
    bytes
}

/// The whole answer to a write of `len` bytes.
pub(crate) fn written(unique: u64, len: u32) -> [u8; ANSWER_BYTES + 8] {
    let mut bytes = [0; ANSWER_BYTES + 8];
    bytes[..ANSWER_BYTES].copy_from_slice(&answer(unique, 0, 8));
    bytes[ANSWER_BYTES..][..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

fn message(code: u32, args: &[u32]) -> Vec<u8> {
    let len = HEADER_BYTES + size_of_val(args);
    let mut bytes = vec![0; HEADER_BYTES];
    bytes[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
    bytes[4..8].copy_from_slice(&code.to_ne_bytes());
    bytes[8..16].copy_from_slice(&1u64.to_ne_bytes());
    bytes.extend(args.iter().flat_map(|arg| arg.to_ne_bytes()));
    bytes
}

/// The first message to a server, as a kernel would send it that can nothing in particular.
pub(crate) fn hello() -> Vec<u8> {
    let mut args = [0; 16];
    args[..3].copy_from_slice(&[7, 31, 1 << 17]);
    message(INIT, &args)
}

/// The last.
pub(crate) fn goodbye() -> Vec<u8> {
    message(DESTROY, &[])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A request with number `unique`; the arguments are zeros but for these.
    pub(crate) fn transfer(code: u32, unique: u64, offset: u64, len: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = message(code, &[0; 10]);
        bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        bytes[40..48].copy_from_slice(&1u64.to_ne_bytes());
        bytes[48..56].copy_from_slice(&offset.to_ne_bytes());
        bytes[56..60].copy_from_slice(&len.to_ne_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn requests_are_taken_apart() {
        let read = transfer(READ, 7, 4096, 512, &[]);
        let parsed = (7, Request::Read { handle: 1, offset: 4096, len: 512 });
        assert_eq!(parse(&read), Some(parsed));
        let mut write = transfer(WRITE, 9, 1 << 40, 3, b"abc");
        write[72..76].copy_from_slice(&libc::O_DSYNC.to_ne_bytes());
        let want = Request::Write { handle: 1, offset: 1 << 40, len: 3, flags: libc::O_DSYNC };
        assert_eq!(parse(&write), Some((9, want)));
        assert_eq!(parse(&transfer(FSYNC, 2, 0, 0, &[])), Some((2, Request::Flush { handle: 1 })));
        assert_eq!(parse(&transfer(3, 2, 0, 0, &[])), Some((2, Request::Other)));
        for len in [0, 15, 39, 47, 59] {
            assert_eq!(parse(&read[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn answers_are_as_the_kernel_wants_them() {
        let bytes = answer(5, libc::EIO, 0);
        assert_eq!(bytes[..4], 16u32.to_ne_bytes());
        assert_eq!(bytes[4..8], (-libc::EIO).to_ne_bytes());
        assert_eq!(bytes[8..], 5u64.to_ne_bytes());
        let bytes = written(5, 9);
        assert_eq!(
            (&bytes[..4], &bytes[16..20]),
            (&24u32.to_ne_bytes()[..], &9u32.to_ne_bytes()[..])
        );
    }
}
