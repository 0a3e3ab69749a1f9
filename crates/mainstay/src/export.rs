//! How telemetry reaches a collector: OTLP over HTTP, by the framework's own client.

use std::sync::Arc;
use std::time::Duration;

use mainstay_core::{Context, Result};
use mainstay_http::Client;
use mainstay_telemetry::Send;
use mainstay_telemetry::trace::TraceSettings;

/// One request to the collector. It comes again if it has to; what takes longer is a collector that is lost.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn to_collector(settings: &TraceSettings) -> Send {
    let endpoint: Arc<str> = settings.endpoint.trim().trim_end_matches('/').into();
    let headers: Arc<[(String, String)]> = headers(settings.headers.expose()).collect();
    // A client that can't be made is told of like a collector that doesn't answer.
    let client = Client::new();
    Box::new(move |path, body| {
        let url = format!("{endpoint}{path}");
        let (client, headers) = (client.as_ref().map(Clone::clone), headers.clone());
        let client = client.map_err(|error| mainstay_core::Error::new(error.code(), error.message().to_owned()));
        Box::pin(async move { send(&client?, &url, &headers, body).await })
    })
}

async fn send(client: &Client, url: &str, headers: &[(String, String)], body: bytes::Bytes) -> Result<()> {
    let call = client.post(url).header("content-type", "application/x-protobuf").body(body);
    let call = headers.iter().fold(call, |call, (name, value)| call.header(name, value));
    call.send(&Context::background().with_timeout(TIMEOUT)).await.map(drop)
}

/// `name=value,name=value`, as the variable of OpenTelemetry has it.
fn headers(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_lowercase(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs() {
        let pairs: Vec<_> = headers("authorization=Bearer a=b, X-Tenant = 7,,x").collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(pairs, [pair("authorization", "Bearer a=b"), pair("x-tenant", "7")]);
    }
}
