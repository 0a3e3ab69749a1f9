//! [`Describe`]: what an argument or a result of a handler says about itself, for OpenAPI.

use std::collections::BTreeMap;
use std::future::Future;

use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa::openapi::{RefOr, Schema};

mod types;

/// What a handler's argument or result adds to the description of its operation.
///
/// Both methods add nothing by default, which is right for whatever comes from the server itself (a state, a header).
/// A custom extractor opts in with one line:
///
/// ```
/// struct Tenant(String);
/// impl mainstay_http::Describe for Tenant {}
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` doesn't say what it adds to the OpenAPI description",
    label = "has no `Describe`",
    note = "for an extractor or response of your own write `impl mainstay_http::Describe for {Self} {{}}`",
    note = "`Json<T>` and `Query<T>` have it when `T` derives `utoipa::ToSchema`",
    note = "a handler that needs no description is routed by `Routes::route_axum` with axum's own method routers"
)]
pub trait Describe {
    /// What it takes from a request, as an argument of a handler.
    fn request(operation: &mut Operation) {
        let _ = operation;
    }

    /// What it answers, as the result of a handler.
    fn response(operation: &mut Operation) {
        let _ = operation;
    }
}

/// The description of one operation, as its handler's types fill it in.
#[derive(Debug, Default)]
pub struct Operation {
    pub(crate) body: Option<Value>,
    pub(crate) path_types: Vec<&'static str>,
    pub(crate) query: Vec<Value>,
    pub(crate) responses: BTreeMap<u16, Value>,
    pub(crate) schemas: BTreeMap<String, Value>,
}

impl Operation {
    /// The request has a body of the media type `kind`.
    pub fn takes<T: ToSchema>(&mut self, kind: &str) {
        let schema = self.schema::<T>();
        self.body = Some(json!({ "required": true, "content": { kind: { "schema": schema } } }));
    }

    /// The request has a body of the media type `kind` of which nothing else is known.
    pub fn takes_any(&mut self, kind: &str) {
        self.body = Some(json!({ "required": true, "content": { kind: {} } }));
    }

    /// The request has a query with the fields of `T`.
    pub fn takes_query<T: ToSchema>(&mut self) {
        let schema = self.whole_schema::<T>();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let required = required.iter().any(|required| required == name);
            self.query.push(json!({ "name": name, "in": "query", "required": required, "schema": field }));
        }
    }

    /// The operation answers `status` with a body of the media type `kind`.
    pub fn answers<T: ToSchema>(&mut self, status: u16, kind: &str) {
        let schema = self.schema::<T>();
        self.responses.insert(status, json!({ "content": { kind: { "schema": schema } } }));
    }

    /// The operation answers `status` with a body of the media type `kind` of which nothing else is known.
    pub fn answers_any(&mut self, status: u16, kind: &str) {
        self.responses.insert(status, json!({ "content": { kind: {} } }));
    }

    /// The operation answers `status` without a body.
    pub fn answers_empty(&mut self, status: u16) {
        self.responses.insert(status, json!({}));
    }

    /// All success responses described so far are answered with `status` instead.
    pub fn answers_with_status(&mut self, status: u16) {
        let body = self.responses.pop_first().map_or_else(|| json!({}), |(_, body)| body);
        self.responses.insert(status, body);
    }

    /// A reference to the schema of `T` if it has a name worth one, or the schema itself.
    fn schema<T: ToSchema>(&mut self) -> Value {
        let schema = self.whole_schema::<T>();
        let composite = ["properties", "oneOf", "allOf", "anyOf", "enum"];
        let name = T::name();
        let plain_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if !plain_name || !composite.iter().any(|part| schema.get(part).is_some()) {
            return schema;
        }
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.schemas.insert(name.into_owned(), schema);
        reference
    }

    fn whole_schema<T: ToSchema>(&mut self) -> Value {
        let mut referenced = Vec::new();
        T::schemas(&mut referenced);
        for (name, schema) in referenced {
            self.schemas.insert(name, value(&schema));
        }
        value(&T::schema())
    }
}

fn value(schema: &RefOr<Schema>) -> Value {
    // Schemas are made of strings, numbers and maps of them: they always serialise.
    serde_json::to_value(schema).unwrap_or_default()
}

/// A function that axum takes as a handler and whose arguments and result all [`Describe`] themselves. `T` is axum's
/// own marker: the tuple of the arguments.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler whose arguments and result describe themselves for OpenAPI",
    note = "each argument and the result must be `mainstay_http::Describe`; see its documentation for the ways out"
)]
pub trait DescribedHandler<T> {
    /// Fills in what the types of the handler say.
    fn describe(operation: &mut Operation);
}

impl<F, Fut, R> DescribedHandler<((),)> for F
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = R>,
    R: Describe,
{
    fn describe(operation: &mut Operation) {
        R::response(operation);
    }
}

macro_rules! described_handlers {
    ($(($($argument:ident),+);)*) => {$(
        impl<F, Fut, R, M, $($argument),+> DescribedHandler<(M, $($argument,)+)> for F
        where
            F: FnOnce($($argument),+) -> Fut,
            Fut: Future<Output = R>,
            R: Describe,
            $($argument: Describe,)+
        {
            fn describe(operation: &mut Operation) {
                $($argument::request(operation);)+
                R::response(operation);
            }
        }
    )*};
}

described_handlers! {
    (A1);
    (A1, A2);
    (A1, A2, A3);
    (A1, A2, A3, A4);
    (A1, A2, A3, A4, A5);
    (A1, A2, A3, A4, A5, A6);
    (A1, A2, A3, A4, A5, A6, A7);
    (A1, A2, A3, A4, A5, A6, A7, A8);
    (A1, A2, A3, A4, A5, A6, A7, A8, A9);
    (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10);
    (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11);
    (A1, A2, A3, A4, A5, A6, A7, A8, A9, A10, A11, A12);
}
