//! A cancel that comes late finds nobody else's statement.

use std::io::{self, Write};
use std::time::Duration;

use mainstay_core::{Code, Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, Statement, sql};
use mainstay_telemetry::Metrics;
use tokio::time::Instant;

use crate::in_full;

/// Some milliseconds of work, so that there is a life to cut anywhere in.
const VICTIM: Statement = sql! {
    mysql: "SELECT SLEEP(0.002)",
    postgres: "SELECT pg_sleep(0.002)",
    sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT COUNT(*) FROM n",
};

/// Whoever is next. A statement that was hit fails, or, as a SLEEP on MySQL may, answers something else than 0.
const NEXT: Statement = sql! {
    mysql: "SELECT SLEEP(0.001)",
    postgres: "SELECT COUNT(*) FROM (SELECT pg_sleep(0.001) FROM generate_series(1, 1)) AS pause WHERE false",
    sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             SELECT COUNT(*) - 5000 FROM n",
};

#[derive(Clone, Copy)]
enum Way {
    Drop,
    Cancel,
}

pub(crate) async fn a_late_cancel_never_hits_the_next_user_of_a_connection(scene: Scene) -> Result<()> {
    let rounds = if in_full() { 1_000 } else { 200 };
    for connections in [1, 4_u32] {
        let mut settings = scene.settings.clone();
        (settings.max_connections, settings.sqlite_readers) = (connections, connections as usize);
        let db = Db::new(&settings, &Metrics::new())?;
        db.connect(&scene.ctx).await?;
        let life = how_long_it_lives(&db, &scene.ctx).await?;
        let callers = (0..connections).map(|caller| {
            let (db, ctx) = (db.clone(), scene.ctx.clone());
            tokio::spawn(async move {
                let mut cut = 0;
                for round in (caller..rounds).step_by(connections as usize) {
                    // From its first moment to half a life after its end.
                    let moment = life * 3 * round / (2 * rounds);
                    let way = if round / connections % 2 == 0 { Way::Drop } else { Way::Cancel };
                    cut += u32::from(cut_at(moment, way, &db, &ctx).await?);
                    let harm = db.query(NEXT).one::<i64>(&ctx).await;
                    let harm = harm.unwrap_or_else(|error| panic!("round {round} harmed the next: {error:?}"));
                    assert_eq!(harm, 0, "round {round} harmed the next");
                }
                Ok::<_, mainstay_core::Error>(cut)
            })
        });
        let mut cut = 0;
        for caller in callers.collect::<Vec<_>>() {
            cut += caller.await.unwrap()?;
        }
        assert!(cut > 0, "nothing was cut");
        if in_full() {
            writeln!(io::stdout(), "{}, pool of {connections}: {cut} of {rounds} cut, 0 harmed", db.dialect())?;
        }
        db.close(&scene.ctx).await;
    }
    Ok(())
}

/// Ends the victim at `moment` of its life. Whether it was still alive.
async fn cut_at(moment: Duration, way: Way, db: &Db, ctx: &Context) -> Result<bool> {
    let (own, canceler) = ctx.with_cancel();
    let start = Instant::now();
    let mut victim = Box::pin(db.query(VICTIM).execute(&own));
    // The runtime's timer knows milliseconds only.
    let its_time_has_come = async {
        while start.elapsed() < moment {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        ended = &mut victim => return ended.map(|_| false),
        () = its_time_has_come => {}
    }
    match way {
        Way::Drop => Ok(true), // as it leaves this function
        Way::Cancel => {
            canceler.cancel();
            match victim.await {
                Ok(_) => Ok(false),
                Err(error) if error.code() == Code::Cancelled => Ok(true),
                Err(error) => Err(error),
            }
        }
    }
}

async fn how_long_it_lives(db: &Db, ctx: &Context) -> Result<Duration> {
    let mut lives = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        db.query(VICTIM).execute(ctx).await?;
        lives.push(start.elapsed());
    }
    lives.sort_unstable();
    Ok(lives[lives.len() / 2])
}
