//! Nothing is done to it, for long.

use std::env;
use std::time::Duration;

use mainstay::prelude::*;
use tokio::time::Instant;

use super::{Fault, everywhere, usual};
use crate::chaos::cell::Cell;
use crate::chaos::check::check;
use crate::chaos::fleet::{Role, TOOK, UNDONE, UNKNOWN};
use crate::chaos::ledger;

/// Of the memory of a process, besides what it had in the first chapters: an eighth, and this.
const MAY_GROW_BY: u64 = 16 * 1024 * 1024;

/// 23: a day of many chapters. Each ends with everything applied and checked, and with a new ledger; the workers are the
/// same from the first to the last.
pub const SOAK: Fault = Fault {
    number: "23",
    name: "soak",
    title: "for a day at half of what it can do",
    on: everywhere,
    plan: usual,
    inflict: |cell| Box::pin(soak(cell)),
};

async fn soak(cell: &mut Cell) -> Result<()> {
    let chapters = number("SOAK_CHAPTERS").unwrap_or(cell.form.of(2, 144));
    let length = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(cell.form.of(4, 600)));
    let most = chapter(cell, length.min(Duration::from_secs(60))).await;
    cell.notes.push(format!("at most {most:.0} transactions/s"));
    cell.fleet.set("RIG_PART__RATE", (most as u64 / 2).max(1).to_string());
    let mut resident = Vec::new();
    for number in 1..=chapters {
        begin_anew(cell).await?;
        chapter(cell, length).await;
        check_chapter(cell, number).await?;
        resident.push(largest(cell));
        cell.inflicted();
    }
    let early = resident.iter().take(resident.len().div_ceil(4)).max().copied().unwrap_or_default();
    let last = resident.last().copied().unwrap_or_default();
    cell.notes.push(format!(
        "a worker's memory: {} KiB after the first chapters, {} KiB at last",
        early >> 10,
        last >> 10
    ));
    if last > early + early / 8 + MAY_GROW_BY {
        cell.failures.push(format!("a worker grew from {early} to {last} bytes"));
    }
    Ok(())
}

/// Producers for so long, and then until all is applied: how many transactions a second that were in all.
async fn chapter(cell: &mut Cell, length: Duration) -> f64 {
    cell.plan.producers = 1;
    cell.populate().await;
    let began = Instant::now();
    tokio::time::sleep(length).await;
    cell.until_sent().await;
    cell.dismiss(Role::Producer).await;
    cell.plan.producers = 0;
    cell.until_quiet().await;
    count(&cell.fleet.lines(TOOK)) / began.elapsed().as_secs_f64()
}

#[expect(clippy::print_stdout, reason = "for who watches")]
async fn check_chapter(cell: &mut Cell, number: u64) -> Result<()> {
    let mut history = ledger::history(&cell.db, &Context::background()).await?;
    (history.undone, history.unknown) = (cell.fleet.events(UNDONE), cell.fleet.events(UNKNOWN));
    let verdict = check(&history, &cell.plan.rules);
    if !verdict.holds() {
        cell.failures.push(format!("chapter {number}: {verdict}"));
    }
    let took = cell.fleet.lines(TOOK).concat();
    let rows = cell.depths().await.map_or(0, |depths| depths.log);
    let told = format!("chapter {number}: {} sent, {rows} rows in the log; {took}", history.sent.len());
    if cell.form.long {
        println!("{told}"); // a day is long, and may be cut short
    }
    cell.notes.push(told);
    Ok(())
}

/// A ledger of a day would be larger than what it is about.
async fn begin_anew(cell: &mut Cell) -> Result<()> {
    let ctx = &Context::background();
    for table in ["DELETE FROM sent", "DELETE FROM applied"] {
        cell.db.query(table).execute(ctx).await?;
    }
    cell.fleet.forget_past(Role::Producer);
    Ok(())
}

fn largest(cell: &Cell) -> u64 {
    cell.fleet.names(Role::Worker).iter().map(|name| cell.fleet.resident(name)).max().unwrap_or_default()
}

/// How many transactions the producers say they have made.
fn count(lines: &[String]) -> f64 {
    let counts =
        lines.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["count"].as_f64());
    counts.sum()
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}
