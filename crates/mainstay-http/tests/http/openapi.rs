//! The OpenAPI document.

use axum::extract::State;
use garde::Validate;
use mainstay_core::{Context, Result};
use mainstay_http::routing::{delete, get, post};
use mainstay_http::{Created, Json, NoContent, Path, Query, Routes};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema, Validate)]
#[garde(allow_unvalidated)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct NewOrder {
    customer: String,
    lines: Vec<Line>,
}

#[derive(Deserialize, Serialize, ToSchema, Validate)]
#[garde(allow_unvalidated)]
struct Line {
    sku: String,
    quantity: i64,
}

#[derive(Serialize, ToSchema)]
struct Order {
    id: String,
    lines: Vec<Line>,
}

#[derive(Deserialize, ToSchema, Validate)]
#[garde(allow_unvalidated)]
#[expect(dead_code, reason = "only its schema is of interest")]
struct Page {
    limit: Option<u32>,
    customer: String,
}

#[derive(Clone)]
struct Orders;

async fn place(_: Context, State(_): State<Orders>, Json(_): Json<NewOrder>) -> Result<Created<Json<Order>>> {
    Ok(Created::new(Json(Order { id: String::new(), lines: vec![] })))
}
async fn list(Query(_): Query<Page>) -> Result<Json<Vec<Order>>> {
    Ok(Json(vec![]))
}
async fn show(Path((_, _)): Path<(String, u64)>) -> Result<Json<Order>> {
    Ok(Json(Order { id: String::new(), lines: vec![] }))
}
async fn forget(Path(_): Path<u64>) -> NoContent {
    NoContent
}
async fn file(Path(path): Path<String>) -> String {
    path
}

fn routes() -> Routes {
    Routes::new()
        .route("/v1/orders", post(place).summary("Places an order").tag("orders").get(list))
        .route("/v1/shelves/{shelf}/orders/{number}", get(show))
        .route("/v1/orders/{id}", delete(forget))
        .route("/files/{*path}", get(file))
        .with_state(Orders)
        .merge_axum(axum::Router::new().route("/plain", axum::routing::get(|| async {})))
}

#[test]
fn operations_have_their_parameters_bodies_and_responses() {
    let document = routes().openapi("shop", "1.2.3");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"], serde_json::json!({ "title": "shop", "version": "1.2.3" }));
    let paths: Vec<_> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        ["/files/{path}", "/v1/orders", "/v1/orders/{id}", "/v1/shelves/{shelf}/orders/{number}"],
        "plain axum routes have no description"
    );

    let place = &document["paths"]["/v1/orders"]["post"];
    assert_eq!((place["operationId"].as_str(), place["summary"].as_str()), (Some("place"), Some("Places an order")));
    assert_eq!(place["tags"], serde_json::json!(["orders"]));
    let body = &place["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(body["$ref"], "#/components/schemas/NewOrder");
    let created = &place["responses"]["201"];
    assert_eq!(created["description"], "Created");
    assert_eq!(created["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Order");
    for family in ["4XX", "5XX"] {
        assert_eq!(place["responses"][family]["$ref"], "#/components/responses/Problem");
    }

    let list = &document["paths"]["/v1/orders"]["get"];
    let parameter = |name: &str| list["parameters"].as_array().unwrap().iter().find(|p| p["name"] == name).unwrap();
    assert_eq!((&parameter("limit")["in"], &parameter("limit")["required"]), (&"query".into(), &false.into()));
    assert_eq!(parameter("customer")["required"], true);
    assert_eq!(list["responses"]["200"]["content"]["application/json"]["schema"]["type"], "array");

    let show = &document["paths"]["/v1/shelves/{shelf}/orders/{number}"]["get"]["parameters"];
    assert_eq!((&show[0]["name"], &show[0]["schema"]["type"]), (&"shelf".into(), &"string".into()));
    assert_eq!((&show[1]["name"], &show[1]["schema"]["type"]), (&"number".into(), &"integer".into()));
    assert_eq!(document["paths"]["/v1/orders/{id}"]["delete"]["responses"]["204"]["description"], "No Content");
}

#[test]
fn every_reference_leads_somewhere_and_the_text_is_the_same_each_time() {
    let document = routes().openapi("shop", "1");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let pointer = reference.split('"').next().unwrap().trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    assert_eq!(text, routes().openapi("shop", "1").to_string());
    for name in ["Line", "NewOrder", "Order", "Problem"] {
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
}

#[test]
fn operation_ids_are_unique() {
    let routes: Routes =
        Routes::new().route("/a", get(file_like)).route("/b/c", get(file_like)).route("/d", get(|| async {}));
    let document = routes.openapi("x", "1");
    let id = |path: &str| document["paths"][path]["get"]["operationId"].as_str().unwrap().to_owned();
    assert_eq!([id("/a"), id("/b/c"), id("/d")], ["get_a", "get_b_c", "get_d"]);
}

async fn file_like() {}
