//! [`Observer`]: someone else's look at what the database does.

use std::fs;

use futures_util::future::try_join_all;
use mainstay_core::{Context, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, Dialect, Statement, sql};
use mainstay_telemetry::Metrics;

/// A connection of its own to the same database. A server tells what its connections do; SQLite works in threads of this
/// process, and the kernel tells.
pub(crate) struct Observer {
    db: Db,
    ctx: Context,
}

/// A row for each connection, written outside of any transaction and slowly enough that each statement needs one.
const PROBE: Statement = sql! {
    mysql: "INSERT INTO probes SELECT CONNECTION_ID() FROM (SELECT SLEEP(0.05)) AS pause",
    postgres: "INSERT INTO probes SELECT pg_backend_pid() FROM pg_sleep(0.05)",
    sqlite: "INSERT INTO probes VALUES (1)",
};

const READ: &str =
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) SELECT COUNT(*) FROM n";

impl Observer {
    pub(crate) async fn new(scene: &Scene) -> Result<Self> {
        let mut settings = scene.settings.clone();
        (settings.max_connections, settings.sqlite_readers) = (1, 1);
        let db = Db::new(&settings, &Metrics::new())?;
        db.connect(&scene.ctx).await?;
        db.query("CREATE TABLE probes (connection BIGINT NOT NULL)").execute(&scene.ctx).await?;
        Ok(Self { db, ctx: scene.ctx.clone() })
    }

    /// How many connections to this database are not at rest: running, or in a transaction.
    pub(crate) async fn busy(&self) -> Result<i64> {
        let busy = match self.db.dialect() {
            Dialect::Mysql => {
                "SELECT COUNT(*) FROM information_schema.processlist
                 WHERE db = DATABASE() AND id <> CONNECTION_ID() AND command <> 'Sleep'"
            }
            Dialect::Postgres => {
                "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND state <> 'idle'"
            }
            _ => {
                tokio::task::yield_now().await;
                self.ctx.check()?;
                return Ok(sqlite_threads().iter().filter(|thread| thread.runs).count() as i64);
            }
        };
        self.db.query(busy).one(&self.ctx).await
    }

    /// Waits until something runs.
    pub(crate) async fn busy_at_last(&self) -> Result<()> {
        while self.busy().await? == 0 {}
        Ok(())
    }

    /// Waits until nothing runs.
    pub(crate) async fn quiet_at_last(&self) -> Result<()> {
        while self.busy().await? > 0 {}
        Ok(())
    }

    /// Has every one of the pool's `connections` write, outside of a transaction: another connection sees the rows at
    /// once. SQLite: the one that writes, and as many reads as there are threads for them.
    pub(crate) async fn every_connection_is_clean(&self, db: &Db, connections: usize) -> Result<()> {
        self.db.query("DELETE FROM probes").execute(&self.ctx).await?;
        let mut written = 0;
        loop {
            let probes = (0..connections).map(|_| db.query(PROBE).execute(&self.ctx));
            written += try_join_all(probes).await?.len();
            let seen = "SELECT COUNT(*), COUNT(DISTINCT connection) FROM probes";
            let (rows, distinct) = self.db.query(seen).one::<(i64, i64)>(&self.ctx).await?;
            assert_eq!(rows, written as i64, "a connection was left in a transaction: what it writes isn't seen");
            if db.dialect() == Dialect::Sqlite {
                try_join_all((0..connections).map(|_| db.read(READ).execute(&self.ctx))).await?;
                return Ok(());
            }
            // On a busy machine one connection may have done the work of two.
            if distinct >= connections as i64 {
                return Ok(());
            }
        }
    }

    /// CPU time that SQLite's threads have used, in the kernel's ticks of 10 ms.
    pub(crate) fn sqlite_ticks(&self) -> u64 {
        sqlite_threads().iter().map(|thread| thread.ticks).sum()
    }

    pub(crate) async fn close(self) {
        self.db.close(&self.ctx).await;
    }
}

struct Thread {
    runs: bool,
    ticks: u64,
}

fn sqlite_threads() -> Vec<Thread> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the list and the look.
    tasks.filter_map(|task| thread(&fs::read_to_string(task.ok()?.path().join("stat")).ok()?)).collect()
}

/// From a line of `proc(5)`: `17 (sqlite-reader) R …`, where user and system time are the fields 14 and 15.
fn thread(stat: &str) -> Option<Thread> {
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    name.starts_with("sqlite-").then_some(Thread { runs: matches!(*fields.first()?, "R" | "D"), ticks })
}
