//! [`TestResponse`]: an answer, read to its end.

use mainstay::core::{Result, ResultExt};
use mainstay::http::client::Reply;
use serde::de::DeserializeOwned;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub struct TestResponse {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl TestResponse {
    pub(crate) async fn read(reply: Reply) -> Result<Self> {
        let status = reply.status().as_u16();
        let header = |(name, value): (&_, &_)| text_of(name, value);
        let headers = reply.headers().iter().map(header).collect();
        Ok(Self { status, headers, body: reply.text().await? })
    }

    /// The status, as a number.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The header `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body.
    pub fn text(&self) -> &str {
        &self.body
    }

    /// The body as a `T`.
    ///
    /// # Errors
    /// A body that is no `T`; the error holds the body.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.body).with_context(|| format!("status {}, body {}", self.status, self.body))
    }
}

fn text_of(
    name: &mainstay::http::axum::http::HeaderName,
    value: &mainstay::http::axum::http::HeaderValue,
) -> (String, String) {
    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
}
