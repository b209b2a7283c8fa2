//! `/api/v1/servers/`.

use super::answers::{Busy, Common, Full, Missing};
use super::input::Id;
use super::json::{Body, Fields};
use super::problem::{Problem, echo};
use super::state::AppState;
use super::view::{ServerList, ServerView};
use crate::domain::{DriverSpec, ServerId, ServerRequest, VolumeRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AdditionalProperties, OneOfBuilder};
use utoipa::openapi::{ObjectBuilder, Schema, Type};

/// A server that is to be made.
#[derive(ToSchema)]
#[schema(example = json!({
    "name": "web-server-01",
    "volumes": [{"name": "root", "size_bytes": 10737418240u64}],
    "driver": {"type": "none"},
}))]
#[serde(deny_unknown_fields)]
pub(super) struct NewServer {
    /// Its name: letters, digits, dots, hyphens, underscores.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    name: String,
    /// Its volumes, of different names.
    #[schema(value_type = HashSet<NewVolume>, min_items = 1, max_items = 16)]
    volumes: Vec<NewVolume>,
    #[schema(required = false, schema_with = driver_schema)]
    driver: NewDriver,
}

/// A volume that is to be made.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
struct NewVolume {
    /// Its name in the server: letters, digits, hyphens, underscores.
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9_-]+$")]
    name: String,
    /// Its size. It takes only what is written to it.
    #[schema(minimum = 512, maximum = 4503599627370496u64, multiple_of = 512)]
    size_bytes: u64,
}

/// How the server's machine is reached.
enum NewDriver {
    None,
    Command { hooks: String },
}

/// The schema of [`NewDriver`]: derived ones do not refuse fields of the other variant.
fn driver_schema() -> Schema {
    let variant = |kind: &str, text: &str| {
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([kind]));
        ObjectBuilder::new()
            .description(Some(text))
            .property("type", kind)
            .required("type")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
    };
    let hooks = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("Name of the section of the agent's configuration that holds them"));
    let command = variant("command", "By commands of the operator's");
    OneOfBuilder::new()
        .item(variant("none", "Not at all: started and stopped by somebody else"))
        .item(command.property("hooks", hooks).required("hooks"))
        .description(Some("How the server's machine is reached; not at all unless it is said"))
        .into()
}

impl NewServer {
    fn read(body: Body) -> Result<ServerRequest, Problem> {
        let request = body.read(|fields| {
            let name = fields.text("name");
            let volumes = fields.objects("volumes", |volume| {
                let name = volume.text("name");
                let size_bytes = volume.integer("size_bytes", 0..=u64::MAX);
                Some(NewVolume { name: name?, size_bytes: size_bytes? })
            });
            let driver = fields.object("driver", NewDriver::read);
            let driver = driver.map(|driver| driver.unwrap_or(NewDriver::None));
            Some(Self { name: name?, volumes: volumes?, driver: driver? })
        })?;
        let volume =
            |volume: NewVolume| VolumeRequest { name: volume.name, size_bytes: volume.size_bytes };
        Ok(ServerRequest {
            name: request.name,
            volumes: request.volumes.into_iter().map(volume).collect(),
            driver: match request.driver {
                NewDriver::None => DriverSpec::None,
                NewDriver::Command { hooks } => DriverSpec::Command { hooks },
            },
        })
    }
}

impl NewDriver {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        match fields.text("type")?.as_str() {
            "none" => Some(Self::None),
            "command" => Some(Self::Command { hooks: fields.text("hooks")? }),
            other => {
                let other = echo(other);
                fields.refuse("type", format!("must be none or command, not {other:?}"));
                None
            }
        }
    }
}

/// List servers
#[utoipa::path(
    get,
    path = "/api/v1/servers/",
    operation_id = "listServers",
    tag = "servers",
    responses(
        (status = 200, description = "The servers, by identity", body = ServerList),
        Common,
    )
)]
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<ServerList>, Problem> {
    let servers = state.ask(|agent| Ok(agent.servers())).await?;
    Ok(Json(ServerList::new(servers, &state)))
}

/// Make a server
///
/// With its volumes, which are empty. It is stopped.
#[utoipa::path(
    post,
    path = "/api/v1/servers/",
    operation_id = "createServer",
    tag = "servers",
    request_body = NewServer,
    responses(
        (
            status = 201, description = "The server is made", body = ServerView,
            headers(("Location" = String, description = "Its path"))
        ),
        Common, Busy, Full,
    )
)]
pub(super) async fn create(State(state): State<AppState>, body: Body) -> Result<Response, Problem> {
    let request = NewServer::read(body)?;
    let server = state.ask(move |agent| agent.create_server(&request)).await?;
    let server = ServerView::new(server, &state);
    let location = format!("/api/v1/servers/{}/", server.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(server)).into_response())
}

/// See a server
#[utoipa::path(
    get,
    path = "/api/v1/servers/{id}/",
    operation_id = "getServer",
    tag = "servers",
    params(("id" = u64, Path, description = "The server", maximum = 9007199254740991u64)),
    responses(
        (status = 200, description = "The server", body = ServerView),
        Common, Missing,
    )
)]
pub(super) async fn get(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<Json<ServerView>, Problem> {
    let server = state.ask(move |agent| agent.server(ServerId(id))).await?;
    Ok(Json(ServerView::new(server, &state)))
}

/// Delete a server
///
/// With its volumes and all its snapshots, for good. It must be stopped.
#[utoipa::path(
    delete,
    path = "/api/v1/servers/{id}/",
    operation_id = "deleteServer",
    tag = "servers",
    params(("id" = u64, Path, description = "The server", maximum = 9007199254740991u64)),
    responses(
        (status = 204, description = "It is deleted"),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn delete(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    state.ask(move |agent| agent.delete_server(ServerId(id))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a server
///
/// The answer comes when it has been started. One that runs is left alone.
#[utoipa::path(
    post,
    path = "/api/v1/servers/{id}/start/",
    operation_id = "startServer",
    tag = "servers",
    params(("id" = u64, Path, description = "The server", maximum = 9007199254740991u64)),
    responses(
        (status = 200, description = "The server, which runs", body = ServerView),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn start(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<Json<ServerView>, Problem> {
    let server = state.ask(move |agent| agent.start_server(ServerId(id))).await?;
    Ok(Json(ServerView::new(server, &state)))
}

/// Stop a server
///
/// The answer comes when it has been stopped. One that is stopped is left alone.
#[utoipa::path(
    post,
    path = "/api/v1/servers/{id}/stop/",
    operation_id = "stopServer",
    tag = "servers",
    params(("id" = u64, Path, description = "The server", maximum = 9007199254740991u64)),
    responses(
        (status = 200, description = "The server, which is stopped", body = ServerView),
        Common, Missing, Busy, Full,
    )
)]
pub(super) async fn stop(
    State(state): State<AppState>,
    Id(id): Id,
) -> Result<Json<ServerView>, Problem> {
    let server = state.ask(move |agent| agent.stop_server(ServerId(id))).await?;
    Ok(Json(ServerView::new(server, &state)))
}
