//! Who may look at what: off loopback, everything but health and metrics wants a token; on loopback, it wants to have been
//! addressed as loopback.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, header};
use mainstay_core::{Code, Error, Secret};
use sha2::{Digest, Sha256};

use crate::AdminSettings;

/// What orchestrators and Prometheus ask. They carry no token, and these answers hold nothing that is worth one.
const OPEN: [&str; 4] = ["/livez", "/readyz", "/startupz", "/metrics"];

/// What a request that isn't for one of [`OPEN`] has to show.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    token: Wanted,
    /// Whether the port listens on loopback only, where everybody who reaches it is on this machine: also a browser, whose
    /// pages come from elsewhere. A page that has its own name resolve to 127.0.0.1 (DNS rebinding) is told by that name.
    loopback: bool,
}

#[derive(Clone, Debug)]
enum Wanted {
    /// Nothing: it came over loopback, and no token is configured.
    Nothing,
    /// The configured token.
    Token(Secret),
    /// There is no token that it could show.
    Impossible,
}

impl Guard {
    pub(crate) fn of(settings: &AdminSettings) -> Self {
        let token = match (settings.has_token(), settings.is_exposed()) {
            (true, _) => Wanted::Token(settings.token.clone()),
            (false, true) => Wanted::Impossible,
            (false, false) => Wanted::Nothing,
        };
        Self { token, loopback: !settings.is_exposed() }
    }

    fn admits(&self, path: &str, headers: &HeaderMap) -> Result<(), Error> {
        if OPEN.contains(&path) {
            return Ok(());
        }
        if self.loopback {
            addressed_as_loopback(headers)?;
        }
        match &self.token {
            Wanted::Nothing => Ok(()),
            Wanted::Token(token) if bearer(headers).is_some_and(|shown| same(shown, token.expose())) => Ok(()),
            Wanted::Token(_) => {
                Err(Error::unauthenticated("send the admin token: Authorization: Bearer <admin.token>"))
            }
            Wanted::Impossible => Err(Error::unauthenticated(
                "off loopback only /livez, /readyz, /startupz and /metrics answer without a token, and none is \
                 configured: set admin.token",
            )),
        }
    }
}

/// The middleware in front of all routes of the admin port, known or not.
pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.admits(request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            let unauthenticated = error.code() == Code::Unauthenticated;
            let mut response = error.into_response();
            if !unauthenticated {
                return response;
            }
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            response
        }
    }
}

/// Whether the names that a browser can't be made to lie about are loopback's.
fn addressed_as_loopback(headers: &HeaderMap) -> Result<(), Error> {
    for (name, header) in [("Host", header::HOST), ("Origin", header::ORIGIN)] {
        let Some(value) = headers.get(header) else { continue };
        if !value.to_str().is_ok_and(is_loopback) {
            let message = format!(
                "on loopback the admin port answers to localhost, 127.0.0.1 and [::1], and the request's {name} names \
                 another host"
            );
            return Err(Error::new(Code::PermissionDenied, message));
        }
    }
    Ok(())
}

/// Whether `http://host:port` or `host:port` is this machine by loopback.
fn is_loopback(authority: &str) -> bool {
    let authority = authority.split_once("://").map_or(authority, |(_, authority)| authority);
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares digests: how long that takes tells nothing about how much of a guess was right.
fn same(shown: &str, token: &str) -> bool {
    Sha256::digest(shown) == Sha256::digest(token.trim())
}
