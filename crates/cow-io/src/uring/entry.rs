//! From a request to the submission that takes it one step further. All opcodes are chosen
//! here. A transfer of one piece uses a registered buffer where its memory lies in one; there is
//! no such thing for vectors before 6.15, and a vector of several pieces is rare.

use crate::op::{Body, Op};
use io_uring::{opcode, squeue, types};

/// The image, in the ring's table of registered files.
const FILE: types::Fixed = types::Fixed(0);

/// The most that the kernel moves in one call (`MAX_RW_COUNT`); a whole number of blocks.
const MAX_TRANSFER: usize = 0x7fff_f000;

/// Describes the next step of `op`.
///
/// The entry points into memory that `op` owns. Until the kernel has completed it, `op` must
/// neither be dropped nor touched; it may be moved, since that memory is not inside of it.
/// `fixed` tells which registered buffer has a piece of memory.
pub(super) fn build(
    op: &mut Op,
    user_data: u64,
    fixed: impl FnOnce(*const u8, usize) -> Option<u16>,
) -> squeue::Entry {
    let position = op.position();
    let entry = match &mut op.body {
        Body::Read { buf, done } => {
            let rest = &mut buf[*done..];
            let len = rest.len().min(MAX_TRANSFER);
            let (base, len, index) = (rest.as_mut_ptr(), len as u32, fixed(rest.as_ptr(), len));
            match index {
                Some(index) => {
                    opcode::ReadFixed::new(FILE, base, len, index).offset(position).build()
                }
                None => opcode::Read::new(FILE, base, len).offset(position).build(),
            }
        }
        Body::Write { vector, .. } => match vector.chunk() {
            [one] => {
                let len = one.iov_len.min(MAX_TRANSFER);
                let base = one.iov_base.cast_const().cast::<u8>();
                let (index, len) = (fixed(base, len), len as u32);
                match index {
                    Some(index) => {
                        opcode::WriteFixed::new(FILE, base, len, index).offset(position).build()
                    }
                    None => opcode::Write::new(FILE, base, len).offset(position).build(),
                }
            }
            chunk => {
                let count = chunk.len() as u32;
                opcode::Writev::new(FILE, chunk.as_ptr(), count).offset(position).build()
            }
        },
        Body::Flush => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
        Body::Fallocate { mode, len } => {
            opcode::Fallocate::new(FILE, *len).offset(position).mode(*mode).build()
        }
        Body::DiscardDevice { .. } | Body::Grow | Body::Nothing => {
            unreachable!("blocking and empty requests do not come to the ring")
        }
    };
    // A refused request is done by a worker of the kernel, which may wait: some block layers
    // answer EAGAIN again and again to one that may not.
    let flags = if op.was_refused() { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
    entry.flags(flags).user_data(user_data)
}
