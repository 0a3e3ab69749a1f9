//! Statements: their placeholders, their variants, and what is refused before it is sent.

use mainstay_core::{Code, Result};
use mainstay_sql::testing::Scene;
use mainstay_sql::{Sql, Statement, sql, values};

const TABLE: &str = "CREATE TABLE words (id INTEGER PRIMARY KEY, word VARCHAR(100) NOT NULL)";

pub(crate) async fn placeholders_are_found_only_in_code(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    db.query("INSERT INTO words (id, word) VALUES (1, '$1 and ''$2''')").execute(&ctx).await?;
    let word: String = db
        .read("SELECT word /* not $2 */ FROM words -- nor $3\n WHERE id = $1 AND word LIKE '$1%'")
        .bind(1)
        .one(&ctx)
        .await?;
    assert_eq!(word, "$1 and '$2'");
    let question: Statement = sql! { postgres: "SELECT $tag$ $2 ? $tag$ FROM words WHERE id = $1",
    _: "SELECT ' $2 ? ' FROM words WHERE id = $1" };
    assert_eq!(db.read(question).bind(1).one::<String>(&ctx).await?, " $2 ? ");
    Ok(())
}

pub(crate) async fn a_placeholder_may_repeat(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    db.query("INSERT INTO words (id, word) VALUES ($2, $1), ($3, $1)")
        .bind("tea")
        .bind(7)
        .bind(8)
        .execute(&ctx)
        .await?;
    let ids: Vec<i64> = db
        .read("SELECT id FROM words WHERE word = $2 AND (id = $1 OR id > $1) AND word = $2 ORDER BY id")
        .bind(7)
        .bind("tea")
        .all(&ctx)
        .await?;
    assert_eq!(ids, [7, 8]);
    Ok(())
}

pub(crate) async fn a_wrong_number_of_values_is_told_before_anything_is_sent(
    Scene { db, ctx, .. }: Scene,
) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let insert = "INSERT INTO words (id, word) VALUES ($1, $2)";
    for query in [db.query(insert).bind(1), db.query(insert).bind(1).bind("a").bind("b"), db.query(insert)] {
        let error = query.execute(&ctx).await.unwrap_err();
        assert_eq!(error.code(), Code::Internal);
        assert!(error.report().to_string().contains("2 placeholders"), "{error:?}");
    }
    assert_eq!(db.read("SELECT COUNT(*) FROM words").one::<i64>(&ctx).await?, 0);
    Ok(())
}

pub(crate) async fn transaction_control_is_refused(Scene { db, ctx, .. }: Scene) -> Result<()> {
    for text in ["BEGIN", " commit", "/* x */ ROLLBACK", "START TRANSACTION", "SAVEPOINT a", "RELEASE SAVEPOINT a"] {
        let error = db.query(text).execute(&ctx).await.unwrap_err();
        assert!(error.report().to_string().contains("Db::transaction"), "{text}: {error:?}");
        let inside = db
            .transaction(&ctx, |tx| {
                let ctx = &ctx;
                async move { tx.query(text).execute(ctx).await }
            })
            .await;
        assert!(inside.unwrap_err().report().to_string().contains("Db::transaction"), "{text}");
    }
    db.ping(&ctx).await
}

pub(crate) async fn a_statement_may_differ_by_database(Scene { db, ctx, .. }: Scene) -> Result<()> {
    const NAME: Statement = sql! { mysql: "SELECT 'mysql'", postgres: "SELECT 'postgres'", sqlite: "SELECT 'sqlite'" };
    assert_eq!(db.read(NAME).one::<String>(&ctx).await?, db.dialect().name());
    assert_eq!(db.read(sql! { _: "SELECT 'any'" }).one::<String>(&ctx).await?, "any");
    Ok(())
}

pub(crate) async fn the_builder_binds_what_it_is_given(Scene { db, ctx, .. }: Scene) -> Result<()> {
    db.query(TABLE).execute(&ctx).await?;
    let hostile = "'); DROP TABLE words; --";
    let insert =
        Sql::new("INSERT INTO words (id, word)").push_values([values![1, "a"], values![2, hostile], values![3, "c"]]);
    assert_eq!(db.query(insert).execute(&ctx).await?, 3);
    let search = |ids: &[i32], word: Option<&str>| {
        let mut sql = Sql::new("SELECT id FROM words WHERE").push_in("id", ids);
        if let Some(word) = word {
            sql = sql.push_bind(" AND word = ", word);
        }
        sql.push(" ORDER BY id LIMIT ").bind(10)
    };
    assert_eq!(db.read(search(&[1, 2, 9], None)).all::<i64>(&ctx).await?, [1, 2]);
    assert_eq!(db.read(search(&[1, 2, 9], Some(hostile))).all::<i64>(&ctx).await?, [2]);
    assert!(db.read(search(&[], None)).all::<i64>(&ctx).await?.is_empty());
    Ok(())
}

pub(crate) async fn wrong_sql_is_internal_and_names_the_statement(Scene { db, ctx, .. }: Scene) -> Result<()> {
    let error = db.query("SELEKT 1").execute(&ctx).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "internal error"));
    assert!(error.report().to_string().contains("`SELEKT 1`"), "{error:?}");
    let error = db.read("SELECT * FROM nowhere").all::<i64>(&ctx).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    db.ping(&ctx).await
}
