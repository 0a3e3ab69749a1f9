//! `events`: what waits, what failed, and what to do about it.

use jiff::Timestamp;
use mainstay_core::{Context, Error, Result, SecretUrl};
use mainstay_events::{DeadLetter, Events};
use mainstay_sql::migrate::State;

use super::print::{out, table};
use super::{Dead, Group, Which, connected};
use crate::app::App;
use crate::brokers;

/// Dead letters that are asked for at a time.
const PAGE: u32 = 500;

pub(crate) async fn events<S>(app: &App<S>, command: super::Events) -> Result<()> {
    let (Some((db, _)), Some(events)) = (&app.database, &app.events) else {
        return Err(Error::failed_precondition("this service declares no events (`App::events`)"));
    };
    let work = async {
        let ctx = Context::background();
        check_tables(&ctx, events).await?;
        match command {
            super::Events::Lag => lag(&ctx, events).await,
            super::Events::Outbox => outbox(&ctx, events).await,
            super::Events::Dead(command) => dead(&ctx, events, command).await,
            super::Events::Group(Group::Pause { group }) => {
                events.pause(&ctx, &group).await?;
                out(&format!("paused {group}\n"))
            }
            super::Events::Group(Group::Resume { group }) => {
                events.resume(&ctx, &group).await?;
                out(&format!("resumed {group}\n"))
            }
            super::Events::Cutover { from, deadline } => {
                let from = from.map(|url| brokers::named(&SecretUrl::from(url))).transpose()?;
                // A reader of what is said that leaves is no reason to stop halfway.
                events.cut_over(&ctx.with_timeout(deadline), from, |said| drop(out(&format!("{said}\n")))).await
            }
        }
    };
    connected(app, db, work).await
}

/// A database that no service with events has used yet has no tables to look into.
async fn check_tables(ctx: &Context, events: &Events) -> Result<()> {
    let status = events.migrator().status(ctx).await?;
    if status.iter().any(|migration| !matches!(migration.state, State::Applied { .. })) {
        return Err(Error::failed_precondition(
            "the tables of events are missing or of an older version: run `migrate up`, or start the service once",
        ));
    }
    Ok(())
}

async fn lag(ctx: &Context, events: &Events) -> Result<()> {
    let mut rows = vec![["GROUP", "LAG", "RETRIES", "DEAD", "STATE"].map(str::to_owned)];
    for group in events.lag(ctx).await? {
        let state = if group.paused { "paused" } else { "active" };
        let [lag, retries, dead] = [group.lag, group.retries, group.dead].map(|count| count.to_string());
        rows.push([group.group, lag, retries, dead, state.to_owned()]);
    }
    out(&table(&rows))
}

async fn outbox(ctx: &Context, events: &Events) -> Result<()> {
    let outbox = events.outbox(ctx).await?;
    let oldest = outbox.oldest_age.map_or("-".to_owned(), |age| format!("{:.1} s", age.as_secs_f64()));
    let route = match events.route(ctx).await? {
        None => "-".to_owned(),
        Some((route, None)) => route,
        Some((route, Some(next))) => format!("{route}, closed on the way to {next}"),
    };
    let rows = [["DEPTH", "OLDEST", "ROUTE"].map(str::to_owned), [outbox.depth.to_string(), oldest, route]];
    out(&table(&rows))
}

async fn dead(ctx: &Context, events: &Events, command: Dead) -> Result<()> {
    match command {
        Dead::List { group, after, limit } => {
            let letters = events.dead_letters(ctx, group.as_deref(), after, limit).await?;
            let mut rows = vec![["ID", "GROUP", "TYPE", "KEY", "REASON", "ATTEMPTS", "AT", "ERROR"].map(str::to_owned)];
            rows.extend(letters.into_iter().map(row));
            out(&table(&rows))
        }
        Dead::Show { id } => {
            let (letter, event) = events.dead_letter(ctx, id).await?;
            let shown = serde_json::json!({ "letter": letter, "event": event });
            out(&format!("{shown:#}\n"))
        }
        Dead::Redrive(which) => {
            let (done, missing) = each(ctx, events, which, async |id| events.redrive(ctx, id).await).await?;
            told("redriven", done, &missing)
        }
        Dead::Discard(which) => {
            let (done, missing) = each(ctx, events, which, async |id| events.discard(ctx, id).await).await?;
            told("discarded", done, &missing)
        }
    }
}

fn row(letter: DeadLetter) -> [String; 8] {
    let at = Timestamp::from_millisecond(letter.at).map_or_else(|_| letter.at.to_string(), |at| at.to_string());
    let error: String = letter.error.lines().next().unwrap_or_default().chars().take(100).collect();
    [
        letter.id.to_string(),
        letter.group,
        letter.event_type,
        letter.event_key.unwrap_or_else(|| "-".to_owned()),
        letter.reason,
        letter.attempts.to_string(),
        at,
        error,
    ]
}

/// Does `work` for each dead letter that is meant; returns how many there were, and which of those named weren't there.
async fn each(
    ctx: &Context,
    events: &Events,
    which: Which,
    work: impl AsyncFn(i64) -> Result<bool>,
) -> Result<(u64, Vec<i64>)> {
    let (mut done, mut missing) = (0, Vec::new());
    if !which.all {
        for id in which.ids {
            if work(id).await? {
                done += 1;
            } else {
                missing.push(id);
            }
        }
        return Ok((done, missing));
    }
    let mut after = 0;
    loop {
        let letters = events.dead_letters(ctx, which.group.as_deref(), after, PAGE).await?;
        let Some(last) = letters.last() else { return Ok((done, missing)) };
        after = last.id;
        for letter in &letters {
            done += u64::from(work(letter.id).await?);
        }
    }
}

fn told(what: &str, done: u64, missing: &[i64]) -> Result<()> {
    out(&format!("{what} {done}\n"))?;
    if missing.is_empty() {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    Err(Error::not_found(format!("dead letter {}", missing.join(", "))))
}
