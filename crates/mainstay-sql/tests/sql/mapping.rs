//! From rows to Rust, and the counts of what changed nothing into rows.

use mainstay_core::{Code, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{FromRow, values};

const TABLE: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(50) NOT NULL UNIQUE, stock BIGINT)";

#[derive(Debug, FromRow, PartialEq)]
struct Item {
    id: i32,
    name: String,
    #[row(rename = "stock")]
    amount: Option<i64>,
}

pub(crate) async fn rows_become_structs_tuples_and_options(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let rows = [values![1, "tea", 5], values![2, "cup", None::<i64>]];
    db.query("INSERT INTO items (id, name, stock) VALUES ($1, $2, $3)").batch(&ctx, rows).await?;

    let items: Vec<Item> = db.read("SELECT stock, name, id FROM items ORDER BY id").all(&ctx).await?;
    let item = |id, name: &str, amount| Item { id, name: name.to_owned(), amount };
    assert_eq!(items, [item(1, "tea", Some(5)), item(2, "cup", None)]);

    let pairs: Vec<(i64, Option<i64>)> = db.read("SELECT id, stock FROM items ORDER BY id").all(&ctx).await?;
    assert_eq!(pairs, [(1, Some(5)), (2, None)]);
    // An alias is the column's name, on every database.
    let item: Item = db.read("SELECT 9 AS id, 'x' AS name, NULL AS stock").one(&ctx).await?;
    assert_eq!(item.id, 9);
    Ok(())
}

pub(crate) async fn one_optional_and_all_differ_in_what_they_expect(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let select = "SELECT id FROM items ORDER BY id";
    assert_eq!(db.read(select).one::<i64>(&ctx).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(db.read(select).optional::<i64>(&ctx).await?, None);
    assert!(db.read(select).all::<i64>(&ctx).await?.is_empty());
    let rows = (1..=3).map(|id| values![id, id.to_string()]);
    db.query("INSERT INTO items (id, name) VALUES ($1, $2)").batch(&ctx, rows).await?;
    assert_eq!(db.read(select).one::<i64>(&ctx).await?, 1);
    assert_eq!(db.read(select).optional::<i64>(&ctx).await?, Some(1));
    assert_eq!(db.query(select).all::<i64>(&ctx).await?, [1, 2, 3]);
    Ok(())
}

pub(crate) async fn a_cell_of_another_type_names_its_column(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    db.query("INSERT INTO items (id, name) VALUES (1, 'tea')").execute(&ctx).await?;
    for error in [
        db.read("SELECT name FROM items").one::<i64>(&ctx).await.unwrap_err(),
        db.read("SELECT id, name FROM items").one::<(i64, bool)>(&ctx).await.unwrap_err(),
        db.read("SELECT id, id AS stock, NULL AS name FROM items").one::<Item>(&ctx).await.unwrap_err(),
    ] {
        assert_eq!(error.code(), Code::Internal);
        assert!(error.report().to_string().contains("`name`"), "{error:?}");
    }
    let error = db.read("SELECT id FROM items").one::<Item>(&ctx).await.unwrap_err();
    assert!(error.report().to_string().contains("no column `name`"), "{error:?}");
    Ok(())
}

pub(crate) async fn execute_counts_matched_rows(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let insert = "INSERT INTO items (id, name, stock) VALUES (1, 'a', 1), (2, 'b', 1), (3, 'c', 2)";
    assert_eq!(db.query(insert).execute(&ctx).await?, 3);
    let update = "UPDATE items SET stock = $1 WHERE stock = $2";
    assert_eq!(db.query(update).bind(1).bind(1).execute(&ctx).await?, 2); // matched, though nothing changes
    assert_eq!(db.query(update).bind(7).bind(99).execute(&ctx).await?, 0);
    assert_eq!(db.query("DELETE FROM items WHERE id > $1").bind(1).execute(&ctx).await?, 2);
    Ok(())
}

pub(crate) async fn a_batch_is_all_or_nothing(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let insert = "INSERT INTO items (id, name) VALUES ($1, $2)";
    let rows = (0..200).map(|id| values![id, format!("item {id}")]);
    assert_eq!(db.query(insert).batch(&ctx, rows).await?, 200);
    assert_eq!(db.query(insert).batch(&ctx, []).await?, 0);

    let twice = [values![300, "x"], values![301, "y"], values![300, "z"]];
    let error = db.query(insert).batch(&ctx, twice.clone()).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.report().to_string().contains("row 2 of a batch"), "{error:?}");
    assert_eq!(db.read("SELECT COUNT(*) FROM items").one::<i64>(&ctx).await?, 200);

    // Inside a transaction the batch is undone alone.
    let (ctx, twice) = (&ctx, &twice);
    db.transaction(ctx, |tx| async move {
        tx.query(insert).bind(400).bind("kept").execute(ctx).await?;
        assert!(tx.query(insert).batch(ctx, twice.clone()).await.is_err());
        Ok(())
    })
    .await?;
    assert_eq!(db.read("SELECT COUNT(*) FROM items").one::<i64>(ctx).await?, 201);
    Ok(())
}
