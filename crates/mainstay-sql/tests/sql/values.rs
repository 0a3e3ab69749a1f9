//! What is written is what is read, for every type a value can have.

use std::fmt::Debug;

use jiff::Timestamp;
use jiff::civil::Date;
use mainstay_core::Result;
use mainstay_sql::testing::Scene;
use mainstay_sql::{Db, Dialect, FromValue, Statement, Value, sql, truncate_to_micros};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Uuid;

/// A table with a column of each type, as the table in the docs of `Value` maps them.
pub(crate) const EVERYTHING: Statement = sql! {
    mysql: "CREATE TABLE everything (id INTEGER PRIMARY KEY, flag TINYINT(1), small SMALLINT, medium INTEGER,
            big BIGINT, single FLOAT, double_ DOUBLE, words TEXT CHARACTER SET utf8mb4, raw LONGBLOB, uuid BINARY(16),
            at DATETIME(6), day DATE, price DECIMAL(20, 4), doc JSON, long_words LONGTEXT)",
    postgres: "CREATE TABLE everything (id INTEGER PRIMARY KEY, flag BOOLEAN, small SMALLINT, medium INTEGER,
            big BIGINT, single REAL, double_ DOUBLE PRECISION, words TEXT, raw BYTEA, uuid UUID,
            at TIMESTAMPTZ, day DATE, price NUMERIC(20, 4), doc JSONB, long_words TEXT)",
    sqlite: "CREATE TABLE everything (id INTEGER PRIMARY KEY, flag INTEGER, small INTEGER, medium INTEGER,
            big INTEGER, single REAL, double_ REAL, words TEXT, raw BLOB, uuid BLOB,
            at TEXT, day TEXT, price TEXT, doc TEXT, long_words TEXT)",
};

/// One writing and one reading statement for each column; text has to be `&'static str`.
macro_rules! column {
    ($name:literal) => {
        (
            concat!("INSERT INTO everything (id, ", $name, ") VALUES ($1, $2)"),
            concat!("SELECT ", $name, " FROM everything WHERE id = $1"),
            concat!("SELECT COUNT(*) FROM everything WHERE id = $1 AND ", $name, " IS NULL"),
        )
    };
}

type Column = (&'static str, &'static str, &'static str);

const FLAG: Column = column!("flag");
const SMALL: Column = column!("small");
const MEDIUM: Column = column!("medium");
const BIG: Column = column!("big");
const SINGLE: Column = column!("single");
const DOUBLE: Column = column!("double_");
const WORDS: Column = column!("words");
const RAW: Column = column!("raw");
const UUID: Column = column!("uuid");
const AT: Column = column!("at");
const DAY: Column = column!("day");
const PRICE: Column = column!("price");
const DOC: Column = column!("doc");
const LONG_WORDS: Column = column!("long_words");

const COLUMNS: [Column; 13] = [FLAG, SMALL, MEDIUM, BIG, SINGLE, DOUBLE, WORDS, RAW, UUID, AT, DAY, PRICE, DOC];

pub(crate) async fn every_type_survives_a_round_trip(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(EVERYTHING).execute(&ctx).await?;
    let writer = Writer { db: &db, ctx: &ctx };
    writer.same(FLAG, [true, false]).await;
    writer.same(SMALL, [7_i16, -7]).await;
    writer.same(MEDIUM, [70_000_i32]).await;
    writer.same(BIG, [7_000_000_000_i64]).await;
    writer.same(SINGLE, [1.5_f32, -0.25]).await;
    writer.same(DOUBLE, [1.1_f64, -1e100, 0.1 + 0.2]).await;
    writer.same(WORDS, ["", "tea", "naïve ☕ 🫖", "it's \\ \"quoted\" `so`", "$1 ? :x"].map(String::from)).await;
    writer.same(RAW, [vec![], vec![0, 1, 255], b"text".to_vec()]).await;
    writer.same(UUID, [Uuid::nil(), Uuid::new_v4(), Uuid::now_v7()]).await;
    writer
        .same(AT, ["2026-02-28T23:59:59.999999Z", "1970-01-01T00:00:00Z"].map(|t| t.parse::<Timestamp>().unwrap()))
        .await;
    writer.same(DAY, ["2026-02-28", "2024-02-29"].map(|day| day.parse::<Date>().unwrap())).await;
    writer.same(PRICE, ["0.0000", "-12.3400", "9999999999999999.9999"].map(|n| n.parse::<Decimal>().unwrap())).await;
    writer.same(DOC, [json!({"a": [1, 2.5, null, true], "b": {"ü": "☕"}}), json!([]), json!("text"), json!(5)]).await;
    Ok(())
}

pub(crate) async fn extremes_survive_a_round_trip(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(EVERYTHING).execute(&ctx).await?;
    let writer = Writer { db: &db, ctx: &ctx };
    writer.same(SMALL, [i16::MIN, i16::MAX]).await;
    writer.same(MEDIUM, [i32::MIN, i32::MAX]).await;
    writer.same(BIG, [i64::MIN, i64::MAX, 0]).await;
    writer.same(BIG, [u32::MAX]).await;
    writer.same(DOUBLE, [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 0.0]).await;
    writer.same(UUID, [Uuid::max()]).await;
    writer
        .same(AT, ["1000-01-01T00:00:00Z", "9999-12-30T22:00:00.999999Z"].map(|t| t.parse::<Timestamp>().unwrap()))
        .await;
    writer.same(DAY, ["1000-01-01", "9999-12-31"].map(|day| day.parse::<Date>().unwrap())).await;
    writer.same(PRICE, ["-9999999999999999.9999"].map(|n| n.parse::<Decimal>().unwrap())).await;
    Ok(())
}

pub(crate) async fn every_type_binds_null(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(EVERYTHING).execute(&ctx).await?;
    for (id, (insert, select, is_null)) in (0_i32..).zip(COLUMNS) {
        db.query(insert).bind(id).bind(Value::Null).execute(&ctx).await?;
        assert_eq!(db.read(is_null).bind(id).one::<i64>(&ctx).await?, 1, "{insert}");
        assert_eq!(db.read(select).bind(id).one::<Option<String>>(&ctx).await?, None, "{select}");
        assert_eq!(db.read(select).bind(id).one::<Value>(&ctx).await?, Value::Null, "{select}");
    }
    Ok(())
}

pub(crate) async fn timestamps_are_cut_to_microseconds(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(EVERYTHING).execute(&ctx).await?;
    for (id, text) in (0_i32..).zip(["2026-01-01T00:00:00.123456789Z", "1969-12-31T23:59:59.999999999Z"]) {
        let at: Timestamp = text.parse().unwrap();
        db.query(AT.0).bind(id).bind(at).execute(&ctx).await?;
        assert_eq!(db.read(AT.1).bind(id).one::<Timestamp>(&ctx).await?, truncate_to_micros(at));
    }
    Ok(())
}

pub(crate) async fn large_values_survive(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(EVERYTHING).execute(&ctx).await?;
    let writer = Writer { db: &db, ctx: &ctx };
    writer.same(RAW, [(0..3_000_000_u32).map(|n| n as u8).collect::<Vec<u8>>()]).await;
    writer.same(LONG_WORDS, ["☕".repeat(1_000_000)]).await;
    Ok(())
}

pub(crate) async fn arrays_survive_a_round_trip(Scene { db, ctx, .. }: Scene) -> Result<()> {
    assert_eq!(db.dialect(), Dialect::Postgres);
    let numbers = vec![i64::MIN, 0, i64::MAX];
    assert_eq!(db.read("SELECT $1::bigint[]").bind(numbers.clone()).one::<Vec<i64>>(&ctx).await?, numbers);
    let words = vec![Some("a".to_owned()), None, Some(String::new()), Some("{,\"}".to_owned())];
    assert_eq!(db.read("SELECT $1::text[]").bind(words.clone()).one::<Vec<Option<String>>>(&ctx).await?, words);
    assert!(db.read("SELECT $1::uuid[]").bind(Vec::<Uuid>::new()).one::<Vec<Uuid>>(&ctx).await?.is_empty());
    let found: Vec<i32> =
        db.read("SELECT n FROM generate_series(1, 9) AS n WHERE n = ANY($1)").bind(vec![3, 5]).all(&ctx).await?;
    assert_eq!(found, [3, 5]);
    Ok(())
}

struct Writer<'a> {
    db: &'a Db,
    ctx: &'a mainstay_core::Context,
}

impl Writer<'_> {
    /// Writes each value, reads it back, and removes it.
    async fn same<T, const N: usize>(&self, (insert, select, _): Column, values: [T; N])
    where
        T: Clone + Debug + FromValue + Into<Value> + PartialEq,
    {
        for value in values {
            let (db, ctx) = (self.db, self.ctx);
            let written = db.query(insert).bind(1).bind(value.clone()).execute(ctx).await;
            assert_eq!(written.unwrap_or_else(|error| panic!("{insert} {value:?}: {error:?}")), 1);
            let read = db.read(select).bind(1).one::<T>(ctx).await;
            assert_eq!(read.unwrap_or_else(|error| panic!("{select} {value:?}: {error:?}")), value, "{select}");
            db.query("DELETE FROM everything WHERE id = $1").bind(1).execute(ctx).await.unwrap();
        }
    }
}
