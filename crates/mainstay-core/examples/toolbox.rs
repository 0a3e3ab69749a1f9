//! The toolbox of structured concurrency, one small scene each: `cargo run -p mainstay-core --example toolbox`.
//!
//! What Go does with goroutines, `errgroup`, worker pools, pipelines and `singleflight`, and what is different here:
//! nothing outlives the scope that started it.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use mainstay_core::{Code, Context, Error, Group, Result, Singleflight, WorkerPool, fan_in, fan_out};

#[tokio::main]
async fn main() -> Result<()> {
    let ctx = Context::background().with_timeout(Duration::from_secs(10));
    println!("group:        {:?}", load_page(&ctx).await?);
    println!("group fails:  {}", one_part_fails(&ctx).await);
    println!("fan_out:      {:?}", prices(&ctx, vec!["tea", "milk", "rum"]).await?);
    println!("fan_in:       {}", merged_sum().await);
    println!("worker pool:  {} letters sent", send_letters(&ctx, 20).await?);
    println!("singleflight: {} for ten callers", shared_rate(&ctx).await?);
    Ok(())
}

/// Parts that are needed together are loaded together; results come in the order of the spawns.
async fn load_page(ctx: &Context) -> Result<Vec<&'static str>> {
    let mut group = Group::new(ctx);
    group.spawn(|_| async { Ok("customer") }).await;
    group.spawn(|_| async { Ok("orders") }).await;
    group.wait().await
}

/// The first error cancels the siblings: the slow one ends now, not in an hour.
async fn one_part_fails(ctx: &Context) -> Code {
    let mut group: Group = Group::new(ctx);
    group.spawn(|_| async { Err(Error::not_found("customer")) }).await;
    group
        .spawn(|ctx| async move {
            ctx.run(tokio::time::sleep(Duration::from_secs(3600))).await?;
            Ok(())
        })
        .await;
    group.wait().await.map_or_else(|error| error.code(), |_| Code::Unknown)
}

/// At most two calls at a time, answers in the order of the questions.
async fn prices(ctx: &Context, skus: Vec<&'static str>) -> Result<Vec<usize>> {
    fan_out(ctx, skus, 2, |_, sku| async move { Ok(sku.len() * 100) }).try_collect().await
}

/// Whatever is ready next, from any of the sources.
async fn merged_sum() -> u32 {
    fan_in([stream::iter([1, 2, 3]), stream::iter([10, 20, 30])]).fold(0, |sum, next| async move { sum + next }).await
}

/// Two workers, a queue of four: `submit` waits while the queue is full, so that memory holds.
async fn send_letters(ctx: &Context, count: usize) -> Result<usize> {
    let pool = WorkerPool::new("letters", 2, 4);
    let mut sent = Vec::new();
    for number in 0..count {
        sent.push(pool.submit(ctx, move |_| async move { Ok(number) }).await?);
    }
    let cut = pool.drain(ctx).await;
    assert!(cut.is_empty(), "the drain waits for every letter: {cut:?}");
    let mut total = 0;
    for letter in sent {
        letter.await?;
        total += 1;
    }
    Ok(total)
}

/// Ten callers ask for the same rate; it is fetched once.
async fn shared_rate(ctx: &Context) -> Result<u32> {
    let rates: Singleflight<&str, u32> = Singleflight::new();
    let callers = (0..10).map(|_| {
        rates.run(ctx, "EUR/USD", |_| async {
            tokio::task::yield_now().await;
            Ok(108)
        })
    });
    let answers = futures_util::future::try_join_all(callers).await?;
    assert!(answers.iter().all(|rate| *rate == answers[0]));
    Ok(answers[0])
}
