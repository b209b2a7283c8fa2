//! What the handlers work with.

use super::problem::Problem;
use crate::domain::{Agent, AgentError};
use axum::http::StatusCode;
use std::sync::Arc;

/// Gives the NBD URI of the export of this name, if it is served.
pub type ExportUri = dyn Fn(&str) -> Option<String> + Send + Sync;

/// What the REST interface is about.
#[derive(Clone)]
pub struct AppState {
    /// The agent that carries out what is asked.
    pub agent: Arc<Agent>,
    /// Where volumes are found.
    pub export_uri: Arc<ExportUri>,
}

impl AppState {
    /// Asks the agent, on a thread that may block. What was begun is brought to its end even if
    /// the client does not wait for it.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Arc<Agent>) -> Result<T, AgentError> + Send + 'static,
    ) -> Result<T, Problem> {
        let agent = self.agent.clone();
        let answer = tokio::task::spawn_blocking(move || question(&agent)).await;
        match answer {
            Ok(answer) => Ok(answer?),
            Err(error) => {
                tracing::error!(%error, "a request has ended without an answer");
                let detail = "the agent has failed in this request; its log may say why";
                Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
            }
        }
    }
}
