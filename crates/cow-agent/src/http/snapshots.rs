//! `/api/v1/snapshots/`.

use super::answers::{Busy, Common, Full, Missing};
use super::input::{Id, MAX_IDS, Query, preferred_wait};
use super::json::Body;
use super::problem::Problem;
use super::state::AppState;
use super::view::{CreatedSnapshot, ReclaimView, RestoreAnswer, SnapshotList, SnapshotView};
use crate::domain::{Agent, ID_LIMIT, MAX_DESCRIPTION, ServerId, SnapshotId, SnapshotRequest};
use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use utoipa::openapi::schema::ArrayBuilder;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Longest description, in characters: counted as JSON schemas count, and short enough for the
/// engine's limit in bytes whatever the characters are.
const MOST_CHARACTERS: usize = MAX_DESCRIPTION / 4;

const RESTORED: &str = "Server is being restored from snapshot. What this replaces is kept: \
    undo/ of the same snapshot brings it back.";
const UNDONE: &str = "Server is being taken back to what the restore replaced. What this replaces \
    is kept: undo/ once more brings it back.";

/// A snapshot that is to be taken.
#[derive(ToSchema)]
#[schema(example = json!({
    "server_id": 12345,
    "name": "before-update-snapshot",
    "description": "Snapshot before system update",
}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewSnapshot {
    /// Of which server.
    #[schema(maximum = 9007199254740991u64)]
    server_id: u64,
    /// Its name: letters, digits, hyphens, underscores.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-]+$")]
    name: String,
    /// What somebody wants to remember.
    #[schema(required = false, max_length = 512)]
    description: String,
}

impl NewSnapshot {
    fn read(body: Body) -> Result<Self, Problem> {
        body.read(|fields| {
            let server_id = fields.identity("server_id");
            let name = fields.text("name");
            let description = fields.text_or_empty("description");
            let count = description.as_ref().map_or(0, |text| text.chars().count());
            if count > MOST_CHARACTERS {
                let detail = format!("has {count} characters; at most {MOST_CHARACTERS} are kept");
                fields.refuse("description", detail);
            }
            Some(Self { server_id: server_id?, name: name?, description: description? })
        })
    }
}

/// List snapshots
///
/// Newest first, of all servers or of one. A server that does not exist has none.
#[utoipa::path(
    get,
    path = "/api/v1/snapshots/",
    operation_id = "listSnapshots",
    tag = "snapshots",
    params((
        "server_id" = Option<u64>, Query, description = "Only those of this server",
        maximum = 9007199254740991u64, example = 12345
    )),
    responses(
        (status = 200, description = "The snapshots", body = SnapshotList),
        Common,
    )
)]
pub(super) async fn list(
    State(state): State<AppState>,
    query: Query,
) -> Result<Json<SnapshotList>, Problem> {
    let server = query.id("server_id")?.map(ServerId);
    let snapshots = state.ask(move |agent| agent.snapshots(server)).await?;
    Ok(Json(snapshots.into()))
}

/// Take a snapshot
///
/// A copy of all volumes of a server at one instant. The answer comes when it is durable; its size
/// is not known then, unless the client prefers to wait for it. For best results stop the server
/// first, or give it a driver that freezes it.
#[utoipa::path(
    post,
    path = "/api/v1/snapshots/",
    operation_id = "createSnapshot",
    tag = "snapshots",
    params((
        "Prefer" = Option<String>, Header, nullable = false,
        description = "`wait=SECONDS` (RFC 7240): the answer comes when the snapshot is completed, \
            but no later than after so many seconds, at most 60",
        example = "wait=10"
    )),
    request_body = NewSnapshot,
    responses(
        (
            status = 201, description = "The snapshot is taken", body = CreatedSnapshot,
            headers(
                ("Location" = String, description = "Its path"),
                ("Preference-Applied" = String, description = "How long was waited at most")
            )
        ),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn create(
    State(state): State<AppState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let NewSnapshot { server_id, name, description } = NewSnapshot::read(body)?;
    let request = SnapshotRequest { server: ServerId(server_id), name, description };
    let wait = preferred_wait(&headers);
    let question = move |agent: &Arc<Agent>| {
        let snapshot = agent.create_snapshot(&request)?;
        match wait {
            // It is taken whatever becomes of it while this waits.
            Some(wait) => Ok(agent.wait_completed(snapshot.id, wait).unwrap_or(snapshot)),
            None => Ok(snapshot),
        }
    };
    let snapshot = state.ask(question).await?;
    let location = format!("/api/v1/snapshots/{}/", snapshot.id);
    let created = Json(CreatedSnapshot::from(snapshot));
    let mut response = (StatusCode::CREATED, [(LOCATION, location)], created).into_response();
    let applied = wait.map(|wait| HeaderValue::try_from(format!("wait={}", wait.as_secs())));
    if let Some(Ok(applied)) = applied {
        response.headers_mut().insert(HeaderName::from_static("preference-applied"), applied);
    }
    Ok(response)
}

/// See a snapshot
#[utoipa::path(
    get,
    path = "/api/v1/snapshots/{id}/",
    operation_id = "getSnapshot",
    tag = "snapshots",
    params(("id" = u64, Path, description = "The snapshot", maximum = 9007199254740991u64)),
    responses(
        (status = 200, description = "The snapshot", body = SnapshotView),
        Common, Missing,
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<Json<SnapshotView>, Problem> {
    let snapshot = state.ask(move |agent| agent.snapshot(SnapshotId(id))).await?;
    Ok(Json(snapshot.into()))
}

/// Delete a snapshot
///
/// For good. Its space comes back in the background.
#[utoipa::path(
    delete,
    path = "/api/v1/snapshots/{id}/",
    operation_id = "deleteSnapshot",
    tag = "snapshots",
    params(("id" = u64, Path, description = "The snapshot", maximum = 9007199254740991u64)),
    responses(
        (status = 204, description = "It is deleted"),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn delete(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    state.ask(move |agent| agent.delete_snapshot(SnapshotId(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Restore a server
///
/// Takes the server of the snapshot back to it: stops it if it runs, replaces the data of all its
/// volumes at one instant, and starts it again. The answer comes when the data is replaced, durably.
/// What it replaces is kept, so that it can be undone.
#[utoipa::path(
    post,
    path = "/api/v1/snapshots/{id}/restore/",
    operation_id = "restoreSnapshot",
    tag = "snapshots",
    params(("id" = u64, Path, description = "The snapshot", maximum = 9007199254740991u64)),
    responses(
        (status = 200, description = "The server is restored", body = RestoreAnswer),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn restore(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<Json<RestoreAnswer>, Problem> {
    let restored = state.ask(move |agent| agent.restore(SnapshotId(id))).await?;
    Ok(Json(RestoreAnswer::new(restored, RESTORED)))
}

/// Undo a restore
///
/// Brings back what the last restore of this snapshot replaced. A second undo undoes the first.
#[utoipa::path(
    post,
    path = "/api/v1/snapshots/{id}/undo/",
    operation_id = "undoRestore",
    tag = "snapshots",
    params(("id" = u64, Path, description = "The snapshot", maximum = 9007199254740991u64)),
    responses(
        (status = 200, description = "The restore is undone", body = RestoreAnswer),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn undo(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<Json<RestoreAnswer>, Problem> {
    let restored = state.ask(move |agent| agent.undo(SnapshotId(id))).await?;
    Ok(Json(RestoreAnswer::new(restored, UNDONE)))
}

/// The schema of a set of snapshots.
struct IdSet;

impl PartialSchema for IdSet {
    fn schema() -> RefOr<Schema> {
        let id = ObjectBuilder::new().schema_type(Type::Integer);
        let id = id.minimum(Some(0)).maximum(Some(ID_LIMIT as usize - 1));
        let ids = ArrayBuilder::new().items(id).unique_items(true);
        ids.min_items(Some(1)).max_items(Some(MAX_IDS)).into()
    }
}

impl ToSchema for IdSet {}

/// See what deleting snapshots would free
///
/// Of exactly this set together, which is more than the sum of what each of them would free alone.
#[utoipa::path(
    get,
    path = "/api/v1/snapshots/reclaim/",
    operation_id = "previewReclaim",
    tag = "snapshots",
    params((
        "ids" = inline(IdSet), Query, description = "The snapshots, with commas between",
        style = Form, explode = false, example = json!([801, 798])
    )),
    responses(
        (status = 200, description = "What they would free", body = ReclaimView),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn reclaim(
    State(state): State<AppState>,
    query: Query,
) -> Result<Json<ReclaimView>, Problem> {
    let ids: Vec<SnapshotId> = query.ids("ids")?.into_iter().map(SnapshotId).collect();
    let reclaim = state.ask(move |agent| agent.reclaim(&ids)).await?;
    Ok(Json(reclaim.into()))
}
