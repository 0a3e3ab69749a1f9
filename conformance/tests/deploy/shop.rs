//! The shop as processes at places of their own, and the load on it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use conformance::load::{Load, PRODUCTS, Plan, Wire, Work, sku};
use conformance::process::Place;
use tokio::process::Command;

/// The shop's program; if it isn't built, how to.
pub(crate) fn program() -> Result<PathBuf, String> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_fixture")).with_file_name("shop");
    let program = std::env::var_os("SHOP_PROGRAM").map_or(program, PathBuf::from);
    if program.exists() { Ok(program) } else { Err(format!("{} is not built: cargo build -p shop", program.display())) }
}

/// The command that runs the shop at `place` on `database`.
pub(crate) fn command(place: &Place, database: &str) -> Command {
    let mut command = place.command(program().unwrap());
    command
        .env("DATABASE_URL", database)
        .env("SHOP_HTTP__ADDR", place.http.to_string())
        .env("SHOP_ADMIN__ADDR", place.admin.to_string())
        .env("SHOP_SHUTDOWN__SETTLE", "0s");
    command
}

/// Puts what customers order on the shelves, more of it than any load asks for.
pub(crate) async fn fill(addr: SocketAddr) {
    let mut wire = Wire::connect(addr).await.unwrap();
    for id in (0..PRODUCTS).map(|product| product * 4) {
        let product = r#"{"name": "Tea", "price_cents": 450, "stock": 1000000}"#;
        let answer = wire.ask_with("PUT", &format!("/v1/products/{}", sku(id)), product, true).await.unwrap();
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    }
}

/// Customers without mercy: half keep their connection, half open one per request.
pub(crate) fn load(addr: SocketAddr, first_id: i64) -> Load {
    Load::start(Plan { addr, keep_alive: 20, one_per_request: 20, work: Work::Orders, first_id })
}

/// Customers who open a connection per request.
pub(crate) fn load_of_passers_by(addr: SocketAddr) -> Load {
    Load::start(Plan { addr, keep_alive: 0, one_per_request: 40, work: Work::Orders, first_id: 1 })
}

/// Waits until `answers` more requests were answered.
pub(crate) async fn answers(load: &Load, answers: u64) {
    let before = load.answered();
    while load.answered() < before + answers {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
