//! The OpenAPI document. That answers agree with it is checked wherever a test sends a request.

use super::*;
use crate::domain::{ID_LIMIT, MAX_DESCRIPTION, MAX_NAME, MAX_VOLUME_NAME, MAX_VOLUMES};
use std::collections::BTreeSet;

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |(path, item): (&String, &'_ Value)| -> Vec<(String, String)> {
        item.as_object().unwrap().keys().map(|method| (method.clone(), path.clone())).collect()
    };
    let all: Vec<(String, String)> = paths.flat_map(methods).collect();
    all.into_iter()
        .map(|(method, path)| {
            let operation = &document["paths"][&path][&method];
            (method.to_uppercase(), path, operation)
        })
        .collect()
}

#[tokio::test]
async fn it_is_served_and_lists_all_that_there_is() {
    let place = Place::new();
    let answer = place.get("/api/v1/openapi.json").await;
    let document = answer.json();
    assert_eq!(document, place.document);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    assert_eq!(document["security"][0], serde_json::json!({"bearer": []}));
    let all: BTreeSet<String> = operations(&document)
        .into_iter()
        .map(|(method, path, _)| format!("{method} {}", path.trim_start_matches("/api/v1/")))
        .collect();
    let expected = [
        "DELETE servers/{id}/",
        "DELETE snapshots/{id}/",
        "GET openapi.json",
        "GET servers/",
        "GET servers/{id}/",
        "GET snapshots/",
        "GET snapshots/reclaim/",
        "GET snapshots/{id}/",
        "POST servers/",
        "POST servers/{id}/start/",
        "POST servers/{id}/stop/",
        "POST snapshots/",
        "POST snapshots/{id}/restore/",
        "POST snapshots/{id}/undo/",
    ];
    assert_eq!(all, expected.map(String::from).into());
}

#[tokio::test]
async fn every_operation_answers_and_names_itself() {
    let place = Place::new();
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&place.document) {
        assert!(names.insert(operation["operationId"].as_str().unwrap()), "{path}");
        assert!(operation["summary"].is_string() && operation["tags"][0].is_string());
        let parameters = operation["parameters"].as_array();
        let has_id = parameters.into_iter().flatten().any(|of| of["in"] == "path");
        assert_eq!(has_id, path.contains("{id}"));
        for code in ["400", "401", "408", "413", "431", "500", "503"] {
            let content = &operation["responses"][code]["content"]["application/problem+json"];
            assert_eq!(content["schema"]["$ref"], "#/components/schemas/Problem", "{path} {code}");
        }
        let path = path.replace("{id}", "7");
        let answer = place.send(place.request(&method, &path).body(Body::empty()).unwrap()).await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
        let bare = Request::builder().method(method.as_str()).uri(&path);
        place.send(bare.body(Body::empty()).unwrap()).await.assert_problem(401, "token");
    }
}

#[test]
fn its_numbers_are_those_of_the_domain() {
    let document = api::routes().into_openapi().to_json().unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let schemas = &document["components"]["schemas"];
    let snapshot = &schemas["NewSnapshot"];
    let (server, volume) = (&schemas["NewServer"], &schemas["NewVolume"]);
    assert_eq!(snapshot["properties"]["name"]["maxLength"], MAX_NAME);
    assert_eq!(snapshot["properties"]["description"]["maxLength"], MAX_DESCRIPTION / 4);
    assert_eq!(server["properties"]["name"]["maxLength"], MAX_NAME);
    assert_eq!(server["properties"]["volumes"]["maxItems"], MAX_VOLUMES);
    assert_eq!(volume["properties"]["name"]["maxLength"], MAX_VOLUME_NAME);
    assert_eq!(server["required"], serde_json::json!(["name", "volumes"]));
    assert_eq!(snapshot["required"], serde_json::json!(["server_id", "name"]));
    let drivers = server["properties"]["driver"]["oneOf"].as_array().unwrap();
    for body in [snapshot, server, volume].into_iter().chain(drivers) {
        assert_eq!(body["additionalProperties"], false);
    }
    // Whatever is an identity says how large it may be.
    let text = document.to_string();
    let most = format!("\"maximum\":{}", ID_LIMIT - 1);
    assert_eq!(text.matches(&most).count(), text.matches("\"maximum\":9007").count());
    for name in ["Snapshot", "Server", "ServerName", "SnapshotName", "RestoringServer"] {
        assert_eq!(schemas[name]["properties"]["id"]["maximum"], ID_LIMIT - 1, "{name}");
    }
    for (_, path, operation) in operations(&document) {
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let schema = &parameter["schema"];
            let number = if schema["type"] == "array" { &schema["items"] } else { schema };
            if number["type"] == "integer" {
                assert_eq!(
                    (&number["minimum"], &number["maximum"]),
                    (&0.into(), &(ID_LIMIT - 1).into()),
                    "{path}"
                );
            }
        }
    }
    assert_eq!(
        schemas["Snapshot"]["properties"]["size_mb"]["type"],
        serde_json::json!(["integer", "null"])
    );
}
