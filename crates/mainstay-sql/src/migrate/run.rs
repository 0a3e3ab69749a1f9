//! Running scripts, up and down, so that what was done is always known.

use jiff::Timestamp;
use mainstay_core::{Context, Error, Result};
use mainstay_telemetry::trace::{self, SpanKind};
use tokio::time::Instant;

use super::Applied;
use super::connection::Connection;
use super::lint;
use super::migration::{Direction, Migrations, checksum};
use super::plan::{self, Work};
use super::record::{Phase, Record};
use crate::driver::Dialect;
use crate::fault::DatabaseError;

/// The longest error that is recorded: enough to read, and less than any column holds.
const LONGEST_ERROR: usize = 4_000;

pub(super) async fn up(
    ctx: &Context,
    connection: &mut Connection,
    migrations: &Migrations,
    last: i64,
) -> Result<Vec<Applied>> {
    connection.create_table(ctx).await?;
    let mut applied = Vec::new();
    loop {
        // Read again each time: on SQLite another process may migrate between two of our transactions.
        let records = connection.records(ctx).await?;
        let pending = plan::pending(migrations, connection.dialect(), &records)?;
        let Some(work) = pending.into_iter().next().filter(|work| work.migration.version() <= last) else {
            warn_about_unknown(migrations, &records);
            return Ok(applied);
        };
        for warning in lint::warnings(connection.dialect(), work.remaining()) {
            tracing::warn!(migration = work.migration.label(), "{warning}");
        }
        applied.extend(run(ctx, connection, &work).await?);
    }
}

pub(super) async fn down(
    ctx: &Context,
    connection: &mut Connection,
    migrations: &Migrations,
    steps: usize,
) -> Result<Vec<Applied>> {
    let mut reverted = Vec::new();
    while reverted.len() < steps {
        let records = connection.records(ctx).await?;
        let Some(work) = plan::newest(migrations, connection.dialect(), &records)? else {
            break;
        };
        reverted.extend(run(ctx, connection, &work).await?);
    }
    Ok(reverted)
}

/// `None` when another process did it in the meantime.
async fn run(ctx: &Context, connection: &mut Connection, work: &Work<'_>) -> Result<Option<Applied>> {
    let start = Instant::now();
    let direction = work.direction.name();
    let mut span =
        trace::span(ctx, SpanKind::Internal, || format!("migrate {direction} {}", work.migration.label()).into());
    let result = match work.is_whole(connection.dialect()) {
        true => whole(ctx, connection, work).await,
        false => step_by_step(ctx, connection, work).await.map(|()| true),
    };
    if let Some(span) = &mut span {
        span.set("db.system.name", connection.dialect().system());
        span.outcome(&result);
    }
    let was_run = result?;
    let (version, name, took) = (work.migration.version(), work.migration.name().to_owned(), start.elapsed());
    if was_run {
        tracing::info!(migration = work.migration.label(), direction, ?took, "migrated the database");
    }
    Ok(was_run.then_some(Applied { version, name, took }))
}

/// The statements and the record in one transaction.
async fn whole(ctx: &Context, connection: &mut Connection, work: &Work<'_>) -> Result<bool> {
    connection.begin(ctx).await?;
    match whole_inside(ctx, connection, work).await {
        Ok(true) => Ok(true),
        Ok(false) => {
            connection.roll_back().await;
            Ok(false)
        }
        Err(Failure { statement, error }) => {
            connection.roll_back().await;
            // Taking back that failed leaves the migration applied, as it is recorded.
            if work.direction == Direction::Up {
                connection.save_failure(&failed(work, work.done, statement, &error)).await;
            }
            Err(describe(work, statement, error))
        }
    }
}

async fn whole_inside(ctx: &Context, connection: &mut Connection, work: &Work<'_>) -> Result<bool, Failure> {
    let version = work.migration.version();
    let records = connection.records(ctx).await?;
    let now = records.iter().find(|record| record.version == version).map(|record| record.phase);
    if now != work.record.as_ref().map(|record| record.phase) {
        return Ok(false); // SQLite: another process was first, and this transaction had to wait for it
    }
    for (statement, number) in work.remaining().iter().zip(work.done + 1..) {
        connection.execute(ctx, statement).await.map_err(|error| Failure { statement: Some(number), error })?;
    }
    finish(ctx, connection, work).await?;
    connection.commit(ctx).await?;
    Ok(true)
}

/// Every statement by itself, and after each the number of those done.
async fn step_by_step(ctx: &Context, connection: &mut Connection, work: &Work<'_>) -> Result<()> {
    connection.save(ctx, &unfinished(work, work.done, None)).await?;
    for (statement, done) in work.remaining().iter().zip(work.done..) {
        if let Err(error) = step(ctx, connection, work, statement, done).await {
            let failed = match &work.record {
                // The first statement down failed and left everything as it was: applied.
                Some(record) if work.direction == Direction::Down && done == 0 => record.clone(),
                _ => failed(work, done, Some(done + 1), &error),
            };
            connection.save_failure(&failed).await;
            return Err(describe(work, Some(done + 1), error));
        }
    }
    finish(ctx, connection, work).await
}

async fn step(ctx: &Context, connection: &mut Connection, work: &Work<'_>, statement: &str, done: usize) -> Result<()> {
    // MySQL commits at a DDL statement and the number is saved behind it; any other statement and its number are one
    // transaction.
    let together = connection.dialect() == Dialect::Mysql && work.steps.in_transaction;
    if !together {
        connection.execute(ctx, statement).await?;
        return connection.save(ctx, &unfinished(work, done + 1, None)).await;
    }
    connection.begin(ctx).await?;
    let result = async {
        connection.execute(ctx, statement).await?;
        connection.save(ctx, &unfinished(work, done + 1, None)).await?;
        connection.commit(ctx).await
    };
    let result = result.await;
    if result.is_err() {
        connection.roll_back().await;
    }
    result
}

async fn finish(ctx: &Context, connection: &mut Connection, work: &Work<'_>) -> Result<()> {
    match work.direction {
        Direction::Down => connection.delete(ctx, work.migration.version()).await,
        Direction::Up => {
            let text = work.migration.script(connection.dialect(), Direction::Up).unwrap_or_default();
            let statements = work.steps.statements.len();
            let record =
                Record { checksum: checksum([text]), phase: Phase::Applied, ..unfinished(work, statements, None) };
            connection.save(ctx, &record).await
        }
    }
}

struct Failure {
    /// Counted from 1; `None` for BEGIN, COMMIT and the record.
    statement: Option<usize>,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { statement: None, error }
    }
}

fn unfinished(work: &Work<'_>, done: usize, error: Option<String>) -> Record {
    let phase = match (work.direction, &error) {
        (Direction::Down, _) => Phase::Reverting,
        (Direction::Up, Some(_)) => Phase::Failed,
        (Direction::Up, None) => Phase::Running,
    };
    Record {
        version: work.migration.version(),
        name: work.migration.name().to_owned(),
        checksum: work.prefix_checksum(done),
        at: Timestamp::now(),
        phase,
        statements_done: done,
        error,
    }
}

fn failed(work: &Work<'_>, done: usize, statement: Option<usize>, error: &Error) -> Record {
    let text = format!("{}: {}", place(work, statement), error.report());
    unfinished(work, done, Some(text.chars().take(LONGEST_ERROR).collect()))
}

/// The error for whoever migrates: which migration, which statement, and the database's own words.
fn describe(work: &Work<'_>, statement: Option<usize>, error: Error) -> Error {
    let words = match error.downcast_ref::<DatabaseError>() {
        Some(refusal) => refusal.to_string(),
        None => error.message().to_owned(),
    };
    let (way, label, place) = (work.direction.name(), work.migration.label(), place(work, statement));
    let code = error.code();
    error.with_code(code, format!("migration {label}.{way}.sql failed at {place}: {words}"))
}

fn place(work: &Work<'_>, statement: Option<usize>) -> String {
    match statement {
        Some(number) => format!("statement {number} of {}", work.steps.statements.len()),
        None => "its end".to_owned(),
    }
}

fn warn_about_unknown(migrations: &Migrations, records: &[Record]) {
    for record in records.iter().filter(|record| migrations.find(record.version).is_none()) {
        let (version, name) = (record.version, &record.name);
        tracing::warn!(version, name, "the database has a migration that this binary doesn't know");
    }
}
