//! `#[derive(FromRow)]`, against a database in memory.

use mainstay_core::{Code, Context, Result};
use mainstay_sql::{Db, FromRow, FromValue};
use serde::Deserialize;

#[derive(Debug, PartialEq, FromRow)]
struct Order {
    id: i64,
    r#type: String,
    #[row(rename = "total_cents")]
    total: Option<i64>,
    #[row(json)]
    tags: Vec<String>,
    #[row(json)]
    address: Option<Address>,
    #[row(default)]
    note: String,
    #[row(default, rename = "not_selected")]
    count: u32,
    #[row(json, default)]
    more: Vec<i64>,
    #[row(flatten)]
    audit: Audit,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Address {
    city: String,
}

#[derive(Debug, PartialEq, FromRow)]
struct Audit {
    created_by: String,
}

#[derive(Debug, PartialEq, FromRow)]
struct Generic<T> {
    value: T,
}

/// A column of its own type.
#[derive(Debug, PartialEq)]
struct Sku(String);

impl FromValue for Sku {
    fn from_value(value: mainstay_sql::Value) -> Result<Self, mainstay_sql::Mismatch> {
        String::from_value(value).map(Sku)
    }
}

async fn read<T: FromRow + Send + 'static>(sql: &'static str) -> Result<T> {
    Db::memory().read(sql).one::<T>(&Context::background()).await
}

#[tokio::test]
async fn a_struct_is_read_by_the_names_of_its_fields() {
    let order: Order = read(
        r#"SELECT 'me' AS created_by, '[]' AS more, 7 AS id, 'gift' AS "type", NULL AS total_cents,
           '["a","b"]' AS tags, '{"city":"Ulm"}' AS address, NULL AS note, 1 AS unused"#,
    )
    .await
    .unwrap();
    let wanted = Order {
        id: 7,
        r#type: "gift".to_owned(),
        total: None,
        tags: vec!["a".to_owned(), "b".to_owned()],
        address: Some(Address { city: "Ulm".to_owned() }),
        note: String::new(),
        count: 0,
        more: vec![],
        audit: Audit { created_by: "me".to_owned() },
    };
    assert_eq!(order, wanted);
}

#[tokio::test]
async fn null_json_is_none_and_a_missing_one_may_have_a_default() {
    let order: Order = read(
        r#"SELECT 'me' AS created_by, 7 AS id, 'gift' AS "type", 3 AS total_cents, '[]' AS tags, NULL AS address"#,
    )
    .await
    .unwrap();
    assert_eq!((order.address, order.more, order.total), (None, vec![], Some(3)));
}

#[tokio::test]
async fn a_generic_struct_takes_what_its_parameter_reads() {
    assert_eq!(read::<Generic<Sku>>("SELECT 'tea' AS value").await.unwrap().value, Sku("tea".to_owned()));
    assert_eq!(read::<Generic<Option<i64>>>("SELECT NULL AS value").await.unwrap().value, None);
}

#[tokio::test]
async fn what_does_not_fit_names_the_column() {
    let report = |error: mainstay_core::Error| {
        assert_eq!(error.code(), Code::Internal);
        error.report().to_string()
    };
    let missing = report(read::<Audit>("SELECT 1 AS other").await.unwrap_err());
    assert!(missing.contains("no column `created_by`") && missing.contains("other"), "{missing}");
    let wrong = report(read::<Generic<i64>>("SELECT 'x' AS value").await.unwrap_err());
    assert!(wrong.contains("column `value`"), "{wrong}");

    #[derive(Debug, FromRow)]
    struct Json {
        #[row(json)]
        #[expect(dead_code, reason = "it can't be read")]
        value: Address,
    }
    let wrong = report(read::<Json>("SELECT '{\"town\": 1}' AS value").await.unwrap_err());
    assert!(wrong.contains("column `value`") && wrong.contains("city"), "{wrong}");
    let null = report(read::<Json>("SELECT NULL AS value").await.unwrap_err());
    assert!(null.contains("column `value`"), "{null}");
}
