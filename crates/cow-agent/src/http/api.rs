//! The routes, and the document that describes them: one list makes both.

use super::answers::Common;
use super::problem::{FieldError, Problem};
use super::state::AppState;
use super::{servers, snapshots};
use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The name of the security scheme in the document.
const BEARER: &str = "bearer";

/// All that there is.
pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(frame())
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::reclaim))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::restore))
        .routes(routes!(snapshots::undo))
        .routes(routes!(servers::list, servers::create))
        .routes(routes!(servers::get, servers::delete))
        .routes(routes!(servers::start))
        .routes(routes!(servers::stop))
        .routes(routes!(openapi))
}

/// The document but for what the routes say.
fn frame() -> OpenApi {
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new()
        .schema_from::<Problem>()
        .schema_from::<FieldError>()
        .security_scheme(BEARER, scheme)
        .build();
    let spdx = env!("CARGO_PKG_LICENSE");
    let license = LicenseBuilder::new().name(spdx).identifier(Some(spdx)).build();
    let tag = |name: &str, text: &str| TagBuilder::new().name(name).description(Some(text)).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Cowstore host agent")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("Snapshots of virtual servers."))
                .license(Some(license))
                .build(),
        )
        .servers(Some([Server::new("/")]))
        .components(Some(components))
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>(BEARER, [])]))
        .tags(Some([
            tag("snapshots", "Copies of a server at one instant, and the way back to them"),
            tag("servers", "What there is to be copied"),
            tag("document", "This document"),
        ]))
        .build()
}

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let text = routes().into_openapi().to_pretty_json();
    // Made of constants: this does not fail.
    text.unwrap_or_default().into()
});

/// See this document
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "getDocument",
    tag = "document",
    responses(
        (status = 200, description = "The document", body = serde_json::Value),
        Common,
    )
)]
async fn openapi() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], DOCUMENT.clone()).into_response()
}
