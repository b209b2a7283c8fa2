//! What the tree refuses, and why.

use cow_format::NodeId;

/// Why something was not done. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// No such volume, snapshot, node or hold.
    #[error("not found: {0}")]
    NotFound(String),
    /// The name or hold is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// Held, or has snapshots; the text names them.
    #[error("{0}")]
    Busy(String),
    /// A limit is reached.
    #[error("limit reached: {0}")]
    Limit(String),
    /// A parameter is wrong; the text begins with the name of the field.
    #[error("{0}")]
    Invalid(String),
    /// The node table has no free entry; a fold adds a chunk.
    #[error("no free entry in the node table")]
    NoSlots,
    /// The properties of this node must be loaded first: `load_props`, then try again.
    #[error("properties of node {0} are not loaded")]
    NotLoaded(NodeId),
    /// The journal, the node table or a blob says what cannot be.
    #[error("corrupt snapshot tree: {0}")]
    Corrupt(String),
}

/// The node table has fewer free entries than nodes without one: add a chunk and try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no free entry in the node table")]
pub struct NoSlots;

impl From<NoSlots> for TreeError {
    fn from(_: NoSlots) -> Self {
        Self::NoSlots
    }
}

pub(crate) fn corrupt<T>(what: impl Into<String>) -> Result<T, TreeError> {
    Err(TreeError::Corrupt(what.into()))
}

pub(crate) fn invalid<T>(what: impl Into<String>) -> Result<T, TreeError> {
    Err(TreeError::Invalid(what.into()))
}
