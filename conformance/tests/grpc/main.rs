//! gRPC from outside: what calls are answered, under load, at the end and across hand-overs.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint's allowance for tests does not reach")]

mod abuse;
mod answers;
mod ends;
mod goodbye;
mod memory;

use std::net::SocketAddr;
use std::time::Duration;

use conformance::calls::v1::CallsClient;
use mainstay::grpc::Channel;
use mainstay::prelude::*;

const FIXTURE: &str = env!("CARGO_BIN_EXE_fixture");

/// A client with a connection of its own that makes each call once.
fn client(addr: SocketAddr) -> CallsClient {
    CallsClient::new(Channel::new(&format!("http://{addr}")).unwrap().without_retries())
}

/// A net against tests that hang; nothing is measured with it.
fn patient() -> Context {
    Context::background().with_timeout(Duration::from_secs(180))
}
