//! Databases of tests that nobody removed.

use mainstay_core::{Context, Result};
use mainstay_sql::testing::{Scene, TestDatabase};
use mainstay_sql::{DatabaseSettings, Db, Dialect, sql};
use mainstay_telemetry::Metrics;

pub(crate) async fn an_old_database_is_left_over_unless_somebody_is_connected(scene: Scene) -> Result<()> {
    let Scene { db, ctx, settings, .. } = scene;
    let name = sql! { postgres: "SELECT current_database()::text", _: "SELECT database()" };
    let name: String = db.query(name).one(&ctx).await?;
    // Made in 1970.
    let old = format!("mainstay_test_1_{}", name.rsplit('_').next().unwrap());
    let template = if db.dialect() == Dialect::Postgres { " TEMPLATE template0" } else { "" };
    // Text that is put together is for whoever promises that it lives as long as the program's own.
    db.query(&*format!("CREATE DATABASE {old}{template}").leak()).execute(&ctx).await?;
    let long_test = Db::new(&DatabaseSettings::from_url(settings.url.expose().replace(&name, &old)), &Metrics::new())?;
    long_test.connect(&ctx).await?;
    TestDatabase::remove_leftovers(db.dialect()).await?;
    assert!(exists(&db, &ctx, &old).await?);
    long_test.close(&ctx).await;
    // Its session ends a little later on the server.
    while exists(&db, &ctx, &old).await? {
        ctx.check()?;
        TestDatabase::remove_leftovers(db.dialect()).await?;
    }
    Ok(())
}

async fn exists(db: &Db, ctx: &Context, name: &str) -> Result<bool> {
    let count = sql! {
        postgres: "SELECT count(*) FROM pg_database WHERE datname = $1",
        _: "SELECT count(*) FROM information_schema.schemata WHERE schema_name = $1"
    };
    Ok(db.query(count).bind(name).one::<i64>(ctx).await? > 0)
}
