//! The OpenAPI 3.1 document of [`Routes`].

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::Routes;
use crate::describe::Operation;
use crate::routing::MethodRoute;

impl<S> Routes<S>
where
    S: Clone + Send + Sync + 'static,
{
    /// The OpenAPI 3.1 document of the routes that describe themselves. The same routes give the same text.
    pub fn openapi(&self, title: &str, version: &str) -> Value {
        let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        let mut schemas = BTreeMap::from([("Problem".to_owned(), problem_schema())]);
        let ids = operation_ids(self.described());
        for ((path, route), id) in self.described().zip(ids) {
            let mut operation = Operation::default();
            (route.describe)(&mut operation);
            schemas.append(&mut operation.schemas);
            let methods = paths.entry(path.replace("{*", "{")).or_default();
            methods.insert(route.method.as_str().to_ascii_lowercase(), describe(path, route, id, operation));
        }
        json!({
            "openapi": "3.1.0",
            "info": { "title": title, "version": version },
            "paths": paths,
            "components": {
                "schemas": schemas,
                "responses": { "Problem": {
                    "description": "What went wrong, for a person and for a program",
                    "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
                } },
            },
        })
    }
}

fn describe<S>(path: &str, route: &MethodRoute<S>, id: String, operation: Operation) -> Value {
    let mut parameters = path_parameters(path, &operation.path_types);
    parameters.extend(operation.query);
    let problem = json!({ "$ref": "#/components/responses/Problem" });
    let mut responses = Map::new();
    for (status, mut response) in operation.responses {
        response["description"] = reason(status).into();
        responses.insert(status.to_string(), response);
    }
    if responses.is_empty() {
        responses.insert("2XX".to_owned(), json!({ "description": "Success" }));
    }
    responses.insert("4XX".to_owned(), problem.clone());
    responses.insert("5XX".to_owned(), problem);
    let mut described = json!({ "operationId": id, "responses": responses });
    let optional = [
        ("summary", route.summary.clone().map(Value::from)),
        ("tags", (!route.tags.is_empty()).then(|| route.tags.clone().into())),
        ("parameters", (!parameters.is_empty()).then(|| parameters.into())),
        ("requestBody", operation.body),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            described[key] = value;
        }
    }
    described
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Success")
}

/// The template's parameters in their order, with the types that `Path<…>` names for them.
fn path_parameters(path: &str, types: &[&str]) -> Vec<Value> {
    let types: Vec<&str> = types.iter().flat_map(|name| elements(name)).collect();
    let names = path.split('/').filter_map(|segment| segment.split_once('{')?.1.split_once('}').map(|(name, _)| name));
    let parameter = |(index, name): (usize, &str)| {
        let schema = types.get(index).map_or_else(|| json!({ "type": "string" }), |name| primitive(name));
        json!({ "name": name.trim_start_matches('*'), "in": "path", "required": true, "schema": schema })
    };
    names.enumerate().map(parameter).collect()
}

/// The element types of a tuple's name, or the name itself.
fn elements(name: &str) -> Vec<&str> {
    match name.strip_prefix('(').and_then(|name| name.strip_suffix(')')) {
        Some(tuple) => tuple.split(',').map(str::trim).filter(|name| !name.is_empty()).collect(),
        None => vec![name],
    }
}

/// The schema of a type that stands in a path, by its name: a struct or an unknown type is text, which all are there.
fn primitive(name: &str) -> Value {
    match name.rsplit("::").next().unwrap_or(name) {
        "i64" | "isize" => json!({ "type": "integer", "format": "int64" }),
        "u64" | "usize" => json!({ "type": "integer", "format": "int64", "minimum": 0 }),
        "i8" | "i16" | "i32" => json!({ "type": "integer", "format": "int32" }),
        "u8" | "u16" | "u32" => json!({ "type": "integer", "format": "int32", "minimum": 0 }),
        "bool" => json!({ "type": "boolean" }),
        "f32" | "f64" => json!({ "type": "number" }),
        "Uuid" => json!({ "type": "string", "format": "uuid" }),
        _ => json!({ "type": "string" }),
    }
}

/// The name of each handler's function; where two share one, the method and path set them apart.
fn operation_ids<'a, S: 'a>(routes: impl Iterator<Item = (&'a str, &'a MethodRoute<S>)>) -> Vec<String> {
    let long = |path: &str, route: &MethodRoute<S>| {
        let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.fold(route.method.as_str().to_ascii_lowercase(), |id, word| format!("{id}_{word}"))
    };
    let named = |(path, route): (&str, &MethodRoute<S>)| {
        let name = route.handler.rsplit("::").next().unwrap_or_default();
        let is_function = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let long = long(path, route);
        (if is_function { name.to_owned() } else { long.clone() }, long)
    };
    let ids: Vec<_> = routes.map(named).collect();
    let mut uses: HashMap<String, usize> = HashMap::new();
    for (short, _) in &ids {
        *uses.entry(short.clone()).or_default() += 1;
    }
    ids.into_iter().map(|(short, long)| if uses.get(&short) == Some(&1) { short } else { long }).collect()
}

fn problem_schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code"],
        "properties": {
            "type": text("always about:blank: `code` and `info` tell problems apart"),
            "title": text("the reason phrase of the status"),
            "status": { "type": "integer" },
            "detail": text("what went wrong with this request"),
            "code": text("the canonical gRPC code, as NOT_FOUND"),
            "request_id": text("the id to quote when asking for help"),
            "errors": {
                "type": "array",
                "description": "the fields of the request that were refused",
                "items": {
                    "type": "object",
                    "required": ["path", "message"],
                    "properties": {
                        "path": text("the field from the root of the request, as lines[0].quantity"),
                        "message": text("what is wrong with it"),
                    },
                },
            },
            "info": {
                "type": "object",
                "description": "the reason as a constant a program can act on",
                "required": ["reason", "domain"],
                "properties": {
                    "reason": text("in upper snake case, as STOCK_EXHAUSTED"),
                    "domain": text("who defines the reason"),
                    "metadata": { "type": "object", "additionalProperties": { "type": "string" } },
                },
            },
        },
    })
}
