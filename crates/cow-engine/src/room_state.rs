//! What the engine knows of undo snapshots that go for want of space.

/// See the module.
#[derive(Default)]
pub(crate) struct RoomState {
    /// A task is at it.
    pub(crate) running: bool,
    /// An operation waits for it: it begins though it rests.
    pub(crate) asked: bool,
    /// Something was looked at since the pool was opened.
    pub(crate) looked: bool,
    /// Snapshots that were deleted.
    pub(crate) deleted: u64,
    /// Nothing begins before this monotonic time unless somebody asks.
    pub(crate) rest_until_ns: u64,
    /// Nothing does before this one, whoever asks: it has failed.
    pub(crate) failed_until_ns: u64,
}
