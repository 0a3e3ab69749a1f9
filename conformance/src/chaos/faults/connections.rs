//! The way to the database and the database itself: cut, silent, restarted.

use mainstay::prelude::*;
use mainstay::sql::Dialect;

use super::failpoints::die_at;
use super::{Fault, On, Plan, everywhere, on_servers};
use crate::chaos::cell::Cell;
use crate::chaos::fleet::Role;
use crate::chaos::proxy::AtCommit;
use crate::chaos::server;

/// 4: the producer, or the worker, can't know.
pub(super) const CUT_AT_COMMIT: Fault = Fault {
    number: "4",
    name: "cut_at_commit",
    title: "connection cut at COMMIT, before the server hears it and after it has answered (SQLite: abort before and \
            after COMMIT)",
    on: everywhere,
    plan: |dialect, form| Plan { proxied: true, deadly: dialect == Dialect::Sqlite, ..Plan::new(form) },
    inflict: |cell| Box::pin(cut_at_commit(cell)),
};

/// 5: the server goes and comes back.
pub(super) const SERVER_RESTARTED: Fault = Fault {
    number: "5a",
    name: "server_restarted",
    title: "database server restarted, in order and by a crash",
    on: |dialect| match (
        on_servers(dialect, "it has no server; 1 kills the processes that embed it"),
        server::installed(dialect),
    ) {
        (On::Yes, Err(missing)) => On::Missing(missing),
        (on, _) => on,
    },
    plan: |_, form| Plan { private: true, ..Plan::new(form) },
    inflict: |cell| Box::pin(restart(cell)),
};

/// 5: an administrator, or a pooler, who ends sessions.
pub(super) const TERMINATED: Fault = Fault {
    number: "5b",
    name: "terminated",
    title: "pg_terminate_backend / KILL, ten connections a second",
    on: |dialect| on_servers(dialect, "it has no connections that somebody else could end"),
    plan: super::usual,
    inflict: |cell| Box::pin(terminate(cell)),
};

/// 7: packets are swallowed, and nobody is told.
pub(super) const SILENT: Fault = Fault {
    number: "7",
    name: "silent",
    title: "network to the database silent, slow, and reset in the middle of answers",
    on: |dialect| on_servers(dialect, "it has no network"),
    plan: |_, form| Plan { proxied: true, ..Plan::new(form) },
    inflict: |cell| Box::pin(silence(cell)),
};

async fn cut_at_commit(cell: &mut Cell) -> Result<()> {
    if cell.proxy.is_none() {
        let times = cell.form.of(6, 100);
        while cell.goes_on(times).await {
            let role = if cell.random.chance(50) { Role::Producer } else { Role::Worker };
            let point = if cell.random.chance(50) { "before-commit" } else { "after-commit" };
            die_at(cell, point, role).await;
        }
        return Ok(());
    }
    let times = cell.form.of(10, 200);
    // Rare enough for most transactions to come through.
    let every = cell.form.of(15, 25);
    loop {
        if let Some(proxy) = &cell.proxy {
            proxy.set(|weather| weather.at_commit = Some((AtCommit::ByTurns, every)));
            cell.injected = proxy.broken();
        }
        if !cell.goes_on(times).await {
            break;
        }
        cell.breathe(50..100).await;
    }
    if let Some(proxy) = &cell.proxy {
        proxy.heal();
    }
    Ok(())
}

async fn restart(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(2, 12);
    while cell.goes_on(times).await {
        cell.breathe(300..1_000).await;
        let crash = cell.random.chance(50);
        let pause = cell.random.millis(0..1_500);
        if let Some(server) = cell.store.server() {
            server.stop(crash).await;
            tokio::time::sleep(pause).await;
            server.start_again().await?;
            cell.inflicted();
        }
    }
    Ok(())
}

async fn terminate(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(15, 200);
    let ctx = Context::background();
    // Not the supervisor's own, which would be no fault of the service.
    let others = sql! {
        postgres: "SELECT pid::bigint FROM pg_stat_activity WHERE datname = current_database() \
                   AND pid <> pg_backend_pid() AND application_name <> 'supervisor' ORDER BY pid",
        mysql: "SELECT CAST(id AS SIGNED) FROM information_schema.processlist \
                WHERE db = DATABASE() AND id <> CONNECTION_ID() ORDER BY id",
        sqlite: "SELECT 0",
    };
    while cell.goes_on(times).await {
        cell.breathe(80..120).await;
        let ids: Vec<i64> = cell.db.query(others.clone()).all(&ctx).await.unwrap_or_default();
        if ids.is_empty() {
            continue;
        }
        let id = ids[cell.random.index(ids.len())];
        let ended = match cell.store.dialect {
            Dialect::Postgres => cell.db.query("SELECT pg_terminate_backend($1)").bind(i32::try_from(id).unwrap_or(0)),
            _ => cell.db.query("KILL $1").bind(id),
        };
        // It may have ended by itself, or be the supervisor's.
        if ended.execute(&ctx).await.is_ok() {
            cell.inflicted();
        }
    }
    Ok(())
}

async fn silence(cell: &mut Cell) -> Result<()> {
    let times = cell.form.of(3, 30);
    while cell.goes_on(times).await {
        cell.breathe(200..600).await;
        let (kind, pause) = (cell.injected % 4, cell.random.millis(500..2_000));
        let limit = cell.random.within(200..20_000);
        let Some(proxy) = &cell.proxy else { break };
        match kind {
            0 => proxy.set(|weather| weather.silent = true),
            1 => proxy.set(|weather| weather.reset_after = Some(limit)),
            2 => proxy.set(|weather| weather.delay = pause / 40),
            _ => proxy.cut(),
        }
        tokio::time::sleep(pause).await;
        if kind == 0 && pause.as_millis().is_multiple_of(2) {
            proxy.cut(); // as a router does that has forgotten its connections
        }
        proxy.heal();
        cell.inflicted();
    }
    Ok(())
}
