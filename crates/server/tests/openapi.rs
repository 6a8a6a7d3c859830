//! The checked-in description of the API is the one that this build gives.

use std::path::Path;

#[test]
#[expect(clippy::disallowed_methods, reason = "how a developer asks for the file to be written")]
fn openapi_file_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let now = server::openapi_json();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &now).unwrap();
        return;
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let first = kept.lines().zip(now.lines()).position(|(kept, now)| kept != now);
    assert!(
        kept == now,
        "docs/openapi.json is not what the code says (first difference in line {}); \
         run `UPDATE_OPENAPI=1 cargo test -p server --test openapi` and commit the file with your change",
        first.map_or_else(|| kept.lines().count().min(now.lines().count()), |line| line) + 1
    );
}

#[test]
fn every_route_describes_its_errors_as_problem_documents() {
    let api: serde_json::Value = serde_json::from_str(&server::openapi_json()).unwrap();
    let mut operations = 0;
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let responses = operation["responses"].as_object().unwrap();
            for status in ["401", "500"] {
                let schema = &responses[status]["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
            }
            let names_something = path.contains('{');
            assert_eq!(responses.contains_key("404"), names_something, "{method} {path}");
        }
    }
    assert_eq!(operations, 28);
}

#[test]
fn the_events_are_a_union_that_clients_have_by_name() {
    let api: serde_json::Value = serde_json::from_str(&server::openapi_json()).unwrap();
    let schemas = &api["components"]["schemas"];
    assert!(schemas["Event"]["oneOf"].as_array().unwrap().len() >= 17);
    assert_eq!(schemas["EventItem"]["properties"]["envelope"]["$ref"], "#/components/schemas/Envelope");
    assert!(schemas["LiveItem"]["oneOf"].is_array());
    let version = api["openapi"].as_str().unwrap();
    assert!(version.starts_with("3.1"), "{version}");
}
