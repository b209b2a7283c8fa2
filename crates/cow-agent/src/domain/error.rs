//! What can go wrong, in words that a person can use.

use cowstore::Error as StoreError;
use thiserror::Error;

/// Why the agent did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AgentError {
    /// There is no such server or snapshot.
    #[error("{0} does not exist")]
    NotFound(String),
    /// A value that cannot be.
    #[error("{field}: {detail}")]
    Invalid {
        /// Which field of the request.
        field: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
    /// Not possible in the state that the server is in.
    #[error("{0}")]
    State(String),
    /// Somebody has it open.
    #[error("{0}")]
    Busy(String),
    /// The pool, or the file system below it, is full.
    #[error("{0}")]
    NoSpace(String),
    /// The pool does nothing any more until it is opened again.
    #[error("{0}")]
    Unavailable(String),
    /// Anything else: a damaged pool, a fault of the agent.
    #[error("{0}")]
    Internal(String),
}

impl AgentError {
    /// A value that cannot be.
    pub fn invalid(field: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { field, detail: detail.into() }
    }
}

impl From<StoreError> for AgentError {
    fn from(error: StoreError) -> Self {
        let text = error.to_string();
        match error {
            StoreError::NotFound(what) => Self::NotFound(what),
            StoreError::Limit(_) => Self::Limit(text),
            StoreError::Busy(_) | StoreError::Exists(_) | StoreError::Stale(_) => Self::Busy(text),
            StoreError::NoSpace(_) => Self::NoSpace(text),
            StoreError::Poisoned(_) | StoreError::ReadOnly(_) => Self::Unavailable(text),
            StoreError::Corrupt(_)
            | StoreError::Unsupported(_)
            | StoreError::Invalid(_)
            | StoreError::Io { .. } => Self::Internal(text),
        }
    }
}
