//! Migrations on all databases, in this process and in several at once.

use std::env;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use mainstay_core::{Code, Context, Error, Result};
use mainstay_sql::migrate::{Migration, Migrations, Migrator, State};
use mainstay_sql::testing::{Harness, Needs, Scene};
use mainstay_sql::{DatabaseSettings, Db, Dialect};
use mainstay_telemetry::Metrics;

fn main() -> ExitCode {
    if let Ok(url) = env::var(CHILD_URL) {
        return child(url);
    }
    mainstay_sql::cases![Harness::new(); Sqlite, Postgres, Mysql;
        embedded_files_are_applied_once_and_taken_back,
        a_dry_run_and_status_change_nothing,
        an_edited_migration_is_refused,
        a_new_migration_below_an_applied_one_is_refused,
        a_failed_migration_is_described_and_a_rerun_repairs_it,
        what_failed_halfway_goes_on_behind_the_done_statements,
        a_failed_down_leaves_a_state_that_can_be_finished,
        down_refuses_what_it_can_not_take_back,
        up_stops_at_the_version_asked_for,
        without_a_transaction_every_statement_counts,
        a_cancelled_migration_leaves_nothing_locked,
        two_tables_of_records_do_not_meet,
        five_processes_migrate_once,
        a_killed_process_frees_the_lock,
        killed_again_and_again_no_statement_is_done_twice,
    ]
    .on_each(&[Dialect::Postgres], "an_index_is_built_concurrently", an_index_is_built_concurrently)
    .case(
        "a_missing_server_is_ignored_or_fails_as_asked",
        Needs::Nothing,
        a_missing_server_is_ignored_or_fails_as_asked,
    )
    .run()
}

const EMBEDDED: Migrations = mainstay_sql::migrations!("tests/migrations");

async fn embedded_files_are_applied_once_and_taken_back(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let migrator = Migrator::new(&db, EMBEDDED);
    let applied = migrator.up(&ctx).await?;
    assert_eq!(
        applied.iter().map(|one| (one.version, &*one.name)).collect::<Vec<_>>(),
        [(1, "create_stock"), (2, "add_note")]
    );
    assert_eq!(migrator.up(&ctx).await?, []);
    // The script of the database itself wins over the common one.
    let note: String = db.read("SELECT note FROM stock").one(&ctx).await?;
    let wanted = match db.dialect() {
        Dialect::Mysql => "mysql",
        Dialect::Postgres => "postgres",
        Dialect::Sqlite => "common",
    };
    assert_eq!(note, wanted);

    assert_eq!(versions(&migrator.down(&ctx, 1).await?), [2]);
    assert!(db.read("SELECT note FROM stock").one::<String>(&ctx).await.is_err());
    assert_eq!(versions(&migrator.down(&ctx, 9).await?), [1]);
    assert_eq!(migrator.down(&ctx, 1).await?, []);
    assert_eq!(versions(&migrator.up(&ctx).await?), [1, 2]);
    Ok(())
}

async fn a_dry_run_and_status_change_nothing(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let migrator = Migrator::new(&db, EMBEDDED);
    let plan = migrator.plan(&ctx).await?;
    assert_eq!(plan.migrations.len(), 2);
    assert!(plan.to_string().contains("INSERT INTO stock (sku, amount) VALUES ('tea', 5);\n"), "{plan}");
    assert!(states(&migrator, &ctx).await?.iter().all(|state| *state == State::Pending));
    assert_eq!(migrator.down(&ctx, 1).await?, []);
    for table in ["SELECT COUNT(*) FROM mainstay_migrations", "SELECT COUNT(*) FROM stock"] {
        assert!(db.read(table).one::<i64>(&ctx).await.is_err(), "{table}");
    }
    migrator.up(&ctx).await?;
    assert_eq!(migrator.plan(&ctx).await?.to_string(), "-- nothing to migrate\n");
    Ok(())
}

async fn an_edited_migration_is_refused(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let with = |text: &'static str| Migrations::new([Migration::new(1, "log", text), Migration::new(2, "more", ADD)]);
    Migrator::new(&db, with("CREATE TABLE log (\r\nnumber BIGINT)")?).up_to(&ctx, 1).await?;
    // A line ending is no edit.
    Migrator::new(&db, with("CREATE TABLE log (\nnumber BIGINT)")?).plan(&ctx).await?;

    let edited = Migrator::new(&db, with("CREATE TABLE log (number INTEGER)")?);
    for error in [edited.up(&ctx).await.err(), edited.plan(&ctx).await.err()] {
        let error = error.ok_or_else(|| Error::internal("it should be refused"))?;
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert!(error.message().starts_with("0001_log was edited after it was applied on "), "{error}");
        assert!(error.message().contains("restore it, or write a new migration"), "{error}");
    }
    assert!(matches!(states(&edited, &ctx).await?[..], [State::Edited { .. }, State::Pending]));
    assert_eq!(rows(&db, &ctx).await?, 0);
    Ok(())
}

async fn a_new_migration_below_an_applied_one_is_refused(Scene { db, ctx, .. }: Scene) -> Result<()> {
    Migrator::new(&db, Migrations::new([Migration::new(5, "log", LOG)])?).up(&ctx).await?;
    let late = Migrations::new([Migration::new(5, "log", LOG), Migration::new(4, "late", ADD)])?;
    let error = refusal(Migrator::new(&db, late).up(&ctx).await)?;
    assert_eq!(error.message(), "0004_late is new, but 0005_log has been applied already: give it a number above 5");
    // A binary that knows less than the database has starts all the same.
    let older = Migrator::new(&db, Migrations::new([])?);
    assert_eq!(older.up(&ctx).await?, []);
    assert!(matches!(states(&older, &ctx).await?[..], [State::Unknown { .. }]));
    Ok(())
}

async fn a_failed_migration_is_described_and_a_rerun_repairs_it(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let with = |second: &'static str| {
        let second = Migration::new(2, "more", second);
        Migrations::new([Migration::new(1, "log", LOG), second, Migration::new(3, "last", ADD)])
    };
    let broken = Migrator::new(&db, with("INSERT INTO log VALUES (1); INSERT INTO nowhere VALUES (2);")?);
    let error = refusal(broken.up(&ctx).await)?;
    assert!(error.message().starts_with("migration 0002_more.up.sql failed at statement 2 of 2: "), "{error}");
    assert!(error.message().contains("nowhere"), "{error}");

    let states = states(&broken, &ctx).await?;
    let [State::Applied { .. }, State::Failed { statements_done, error, .. }, State::Pending] = &states[..] else {
        return Err(Error::internal(format!("{states:?}")));
    };
    assert!(error.starts_with("statement 2 of 2: ") && error.contains("nowhere"), "{error}");
    // Where DDL can't be rolled back, what is done stays done and isn't done again.
    let kept = if db.dialect() == Dialect::Mysql { 1 } else { 0 };
    assert_eq!((*statements_done, rows(&db, &ctx).await?), (kept, kept as i64));

    let repaired = Migrator::new(&db, with("INSERT INTO log VALUES (1); INSERT INTO log VALUES (2);")?);
    assert_eq!(versions(&repaired.up(&ctx).await?), [2, 3]);
    assert_eq!(rows(&db, &ctx).await?, 3);
    assert!(self::states(&repaired, &ctx).await?.iter().all(|state| matches!(state, State::Applied { .. })));
    Ok(())
}

async fn what_failed_halfway_goes_on_behind_the_done_statements(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let with =
        |text: &'static str| Ok::<_, Error>(Migrator::new(&db, Migrations::new([Migration::new(1, "log", text)])?));
    let head = "-- mainstay: no transaction\n";
    let broken = with(leak(format!("{head}{LOG}; CREATE TABLE a (x INTEGER); INSERT INTO nowhere VALUES (1)")))?;
    refusal(broken.up(&ctx).await)?;
    refusal(broken.up(&ctx).await)?; // it fails again at the same statement, not at a table that exists
    assert!(matches!(states(&broken, &ctx).await?[..], [State::Failed { statements_done: 2, .. }]));

    let changed = with(leak(format!("{head}{LOG}; CREATE TABLE b (x INTEGER); INSERT INTO log VALUES (1)")))?;
    let error = refusal(changed.up(&ctx).await)?;
    assert!(error.message().starts_with("the first 2 statements of 0001_log.up.sql were done"), "{error}");
    let error = refusal(changed.down(&ctx, 1).await)?;
    assert!(error.message().contains("half applied (2 statements)"), "{error}");

    let repaired = with(leak(format!("{head}{LOG}; CREATE TABLE a (x INTEGER); INSERT INTO log VALUES (1)")))?;
    assert_eq!(repaired.plan(&ctx).await?.migrations[0].statements, ["INSERT INTO log VALUES (1)"]);
    assert_eq!(versions(&repaired.up(&ctx).await?), [1]);
    assert_eq!(rows(&db, &ctx).await?, 1);
    assert_eq!(repaired.up(&ctx).await?, []);
    Ok(())
}

async fn a_failed_down_leaves_a_state_that_can_be_finished(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let with = |down: &'static str| {
        Migrations::new([Migration::new(1, "log", LOG), Migration::new(2, "more", ADD).down(down)])
    };
    let broken = Migrator::new(&db, with("DELETE FROM log; DROP TABLE nowhere")?);
    broken.up(&ctx).await?;
    let error = refusal(broken.down(&ctx, 1).await)?;
    assert!(error.message().starts_with("migration 0002_more.down.sql failed at statement 2 of 2"), "{error}");
    let last = states(&broken, &ctx).await?.pop();
    if db.dialect() == Dialect::Mysql {
        assert!(matches!(last, Some(State::Reverting { statements_done: 1, error: Some(_), .. })), "{last:?}");
        assert!(refusal(broken.up(&ctx).await)?.message().contains("half reverted"));
    } else {
        assert!(matches!(last, Some(State::Applied { .. })), "{last:?}");
        assert_eq!(rows(&db, &ctx).await?, 1);
    }
    let repaired = Migrator::new(&db, with("DELETE FROM log; DELETE FROM log")?);
    assert_eq!(versions(&repaired.down(&ctx, 1).await?), [2]);
    assert_eq!(rows(&db, &ctx).await?, 0);

    // One whose first statement fails has changed nothing, and stays applied.
    let broken = Migrator::new(&db, with("DROP TABLE nowhere")?);
    broken.up(&ctx).await?;
    refusal(broken.down(&ctx, 1).await)?;
    assert!(matches!(states(&broken, &ctx).await?[1], State::Applied { .. }));
    Ok(())
}

async fn down_refuses_what_it_can_not_take_back(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let migrator = Migrator::new(&db, Migrations::new([Migration::new(1, "log", LOG)])?);
    migrator.up(&ctx).await?;
    let error = refusal(migrator.down(&ctx, 1).await)?;
    assert!(error.message().contains("0001_log has no down script"), "{error}");
    let error = refusal(Migrator::new(&db, Migrations::new([])?).down(&ctx, 1).await)?;
    assert!(error.message().contains("unknown to this binary"), "{error}");
    assert_eq!(rows(&db, &ctx).await?, 0);
    Ok(())
}

async fn up_stops_at_the_version_asked_for(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let all = [Migration::new(1, "log", LOG), Migration::new(2, "a", ADD), Migration::new(3, "b", ADD)];
    let migrator = Migrator::new(&db, Migrations::new(all)?);
    assert_eq!(versions(&migrator.up_to(&ctx, 2).await?), [1, 2]);
    assert_eq!(migrator.up_to(&ctx, 2).await?, []);
    assert_eq!(versions(&migrator.up(&ctx).await?), [3]);
    Ok(())
}

async fn without_a_transaction_every_statement_counts(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let refused_inside = match db.dialect() {
        Dialect::Mysql => "OPTIMIZE TABLE log",
        Dialect::Postgres => "VACUUM log",
        Dialect::Sqlite => "VACUUM",
    };
    let inside = Migrations::new([Migration::new(1, "log", LOG), Migration::new(2, "vacuum", refused_inside)])?;
    if db.dialect() != Dialect::Mysql {
        refusal(Migrator::new(&db, inside).up(&ctx).await)?;
    }
    let outside = leak(format!("-- mainstay: no transaction\n{ADD}; {refused_inside}; {ADD};"));
    let outside = Migrations::new([Migration::new(1, "log", LOG), Migration::new(2, "vacuum", outside)])?;
    Migrator::new(&db, outside).up(&ctx).await?;
    assert_eq!(rows(&db, &ctx).await?, 2);
    Ok(())
}

async fn an_index_is_built_concurrently(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    let index = "-- mainstay: no transaction\nCREATE INDEX CONCURRENTLY log_number ON log (number)";
    let all = Migrations::new([Migration::new(1, "log", LOG), Migration::new(2, "index", index)])?;
    // Others wait for the lock meanwhile: with a statement that waits in the database this would be a deadlock.
    let migrators = (0..4).map(|_| {
        let (settings, all, ctx) = (settings.clone(), all.clone(), ctx.clone());
        tokio::spawn(async move { Migrator::new(&connect(&settings, &ctx).await?, all).up(&ctx).await })
    });
    let mut applied = 0;
    for migrator in migrators.collect::<Vec<_>>() {
        applied += migrator.await.map_err(Error::from_any)??.len();
    }
    assert_eq!(applied, 2);
    let indexes: i64 = db.read("SELECT COUNT(*) FROM pg_indexes WHERE indexname = 'log_number'").one(&ctx).await?;
    assert_eq!(indexes, 1);
    Ok(())
}

async fn a_cancelled_migration_leaves_nothing_locked(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    let slow = Migrator::new(&db, Migrations::new([Migration::new(1, "log", LOG), slow(db.dialect())])?);
    slow.up_to(&ctx, 1).await?;
    let (short, cancel) = ctx.with_cancel();
    let running = tokio::spawn({
        let slow = slow.clone();
        async move { slow.up(&short).await }
    });
    is_migrating(&db, &ctx, &settings).await?;
    cancel.cancel();
    let error = refusal(running.await.map_err(Error::from_any)?)?;
    assert_eq!(error.code(), Code::Cancelled, "{error:?}");

    let quick = Migrations::new([Migration::new(1, "log", LOG), Migration::new(2, "slow", ADD)])?;
    assert_eq!(versions(&Migrator::new(&db, quick.clone()).up(&ctx).await?), [2]);

    // The same for a future that is dropped.
    let quick = Migrator::new(&db, quick);
    db.query("DELETE FROM mainstay_migrations WHERE version = 2").execute(&ctx).await?;
    let running = tokio::spawn({
        let (slow, ctx) = (slow, ctx.clone());
        async move { slow.up(&ctx).await }
    });
    is_migrating(&db, &ctx, &settings).await?;
    running.abort();
    assert!(running.await.is_err_and(|error| error.is_cancelled()));
    assert_eq!(versions(&quick.up(&ctx).await?), [2]);
    assert_eq!(rows(&db, &ctx).await?, 2);
    Ok(())
}

async fn two_tables_of_records_do_not_meet(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let ours = Migrator::new(&db, Migrations::new([Migration::new(1, "log", LOG)])?);
    let library = Migrations::new([Migration::new(1, "other", "CREATE TABLE other (x INTEGER)")])?;
    let library = Migrator::new(&db, library);
    assert_eq!(versions(&ours.up(&ctx).await?), [1]);
    assert_eq!(versions(&library.clone().in_table("library_migrations").up(&ctx).await?), [1]);
    assert_eq!(states(&ours, &ctx).await?.len(), 1);
    assert!(library.in_table("x; DROP TABLE log").up(&ctx).await.is_err());
    Ok(())
}

async fn five_processes_migrate_once(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    let children = (0..5).map(|_| spawn(&settings, "race")).collect::<Result<Vec<_>>>()?;
    for child in children {
        let output = child.wait_with_output()?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(rows(&db, &ctx).await?, 10, "each of ten migrations inserts one row");
    let records: i64 = db.read("SELECT COUNT(*) FROM mainstay_migrations WHERE state = 'applied'").one(&ctx).await?;
    assert_eq!(records, 11);
    Ok(())
}

async fn a_killed_process_frees_the_lock(Scene { db, ctx, settings, .. }: Scene) -> Result<()> {
    Migrator::new(&db, Migrations::new([Migration::new(1, "log", LOG)])?).up(&ctx).await?;
    let mut child = spawn(&settings, "slow")?;
    is_migrating(&db, &ctx, &settings).await?;
    child.kill()?;
    child.wait()?;
    let quick = Migrations::new([Migration::new(1, "log", LOG), Migration::new(2, "slow", ADD)])?;
    assert_eq!(versions(&Migrator::new(&db, quick).up(&ctx).await?), [2]);
    assert_eq!(rows(&db, &ctx).await?, 1);
    Ok(())
}

async fn killed_again_and_again_no_statement_is_done_twice(scene: Scene) -> Result<()> {
    let Scene { db, ctx, settings, .. } = scene;
    Migrator::new(&db, Migrations::new([Migration::new(1, "log", LOG)])?).up(&ctx).await?;
    for delay in [5, 20, 40, 60, 80, 100, 150, 200] {
        let mut child = spawn(&settings, "many")?;
        // Any moment will do: the later ones hit a statement, a record, a commit.
        ctx.run(tokio::time::sleep(Duration::from_millis(delay))).await?;
        child.kill()?;
        child.wait()?;
    }
    let migrator = Migrator::new(&db, Migrations::new([Migration::new(1, "log", LOG), many()])?);
    migrator.up(&ctx).await?;
    assert!(states(&migrator, &ctx).await?.iter().all(|state| matches!(state, State::Applied { .. })));
    assert_eq!(rows(&db, &ctx).await?, MANY as i64);
    Ok(())
}

async fn a_missing_server_is_ignored_or_fails_as_asked() -> Result<()> {
    let run = |require: &str| {
        let mut command = Command::new(env::current_exe()?);
        command.args(["--exact", "postgres::up_stops_at_the_version_asked_for"]);
        command.env("POSTGRES_TEST_URL", "postgres://postgres@127.0.0.1:1/postgres");
        command.env("MAINSTAY_REQUIRE_SERVICES", require).output()
    };
    let ignored = run("0")?;
    let told = String::from_utf8_lossy(&ignored.stderr);
    assert!(ignored.status.success());
    assert!(told.contains("ignored: postgres doesn't answer at POSTGRES_TEST_URL: "), "{told}");
    let failed = run("1")?;
    let told = String::from_utf8_lossy(&failed.stdout);
    assert!(!failed.status.success());
    assert!(told.contains("MAINSTAY_REQUIRE_SERVICES=1 wants it there"), "{told}");
    Ok(())
}

const LOG: &str = "CREATE TABLE log (number BIGINT)";
const ADD: &str = "INSERT INTO log VALUES (1)";

/// Runs for seconds, but not for ever: a server may notice only then that its client was killed.
fn slow(dialect: Dialect) -> Migration {
    let statement = match dialect {
        Dialect::Mysql => "DO SLEEP(3)",
        Dialect::Postgres => "SELECT pg_sleep(3)",
        Dialect::Sqlite => {
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000000) \
             INSERT INTO log SELECT MAX(i) FROM n"
        }
    };
    Migration::new(2, "slow", statement)
}

const MANY: usize = 300;

fn many() -> Migration {
    Migration::new(2, "many", format!("{ADD};\n").repeat(MANY))
}

/// Waits until the slow migration holds the lock and is in its statement.
async fn is_migrating(db: &Db, ctx: &Context, settings: &DatabaseSettings) -> Result<()> {
    let url = settings.url.expose().trim_start_matches("sqlite://").to_owned();
    loop {
        let migrating = match db.dialect() {
            Dialect::Mysql => count(db, ctx, "SELECT COUNT(*) FROM information_schema.processlist \
                                              WHERE db = DATABASE() AND info LIKE 'DO SLEEP%'").await? > 0,
            Dialect::Postgres => count(db, ctx, "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = \
                                                 current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'").await? > 0,
            Dialect::Sqlite => {
                let connection = rusqlite::Connection::open(&url).map_err(Error::from_any)?;
                connection.busy_timeout(Duration::ZERO).map_err(Error::from_any)?;
                connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err()
            }
        };
        if migrating {
            return Ok(());
        }
        ctx.run(tokio::time::sleep(Duration::from_millis(10))).await?;
    }
}

async fn count(db: &Db, ctx: &Context, sql: &'static str) -> Result<i64> {
    db.read(sql).one(ctx).await
}

async fn rows(db: &Db, ctx: &Context) -> Result<i64> {
    count(db, ctx, "SELECT COUNT(*) FROM log").await
}

async fn states(migrator: &Migrator, ctx: &Context) -> Result<Vec<State>> {
    Ok(migrator.status(ctx).await?.into_iter().map(|status| status.state).collect())
}

async fn connect(settings: &DatabaseSettings, ctx: &Context) -> Result<Db> {
    let db = Db::new(settings, &Metrics::new())?;
    db.connect(ctx).await?;
    Ok(db)
}

fn versions(applied: &[mainstay_sql::migrate::Applied]) -> Vec<i64> {
    applied.iter().map(|one| one.version).collect()
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> Result<Error> {
    match result {
        Ok(value) => Err(Error::internal(format!("it should be refused, and gave {value:?}"))),
        Err(error) => Ok(error),
    }
}

fn leak(text: String) -> &'static str {
    text.leak()
}

const CHILD_URL: &str = "MAINSTAY_MIGRATIONS_CHILD_URL";
const CHILD_TASK: &str = "MAINSTAY_MIGRATIONS_CHILD_TASK";

fn spawn(settings: &DatabaseSettings, task: &str) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command.env(CHILD_URL, settings.url.expose()).env(CHILD_TASK, task).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(command.spawn()?)
}

/// What this program does as a child of itself: it migrates.
fn child(url: String) -> ExitCode {
    let migrate = async {
        let ctx = Context::background().with_timeout(Duration::from_secs(60));
        let db = connect(&DatabaseSettings::from_url(url), &ctx).await?;
        let log = Migration::new(1, "log", LOG);
        let migrations = match env::var(CHILD_TASK).as_deref() {
            Ok("slow") => vec![log, slow(db.dialect())],
            Ok("many") => vec![log, many()],
            _ => [log].into_iter().chain((2..12).map(|version| Migration::new(version, "add", ADD))).collect(),
        };
        Migrator::new(&db, Migrations::new(migrations)?).up(&ctx).await
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = runtime.map_err(Error::from).and_then(|runtime| runtime.block_on(migrate));
    match result {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{error:?}");
            ExitCode::FAILURE
        }
    }
}
