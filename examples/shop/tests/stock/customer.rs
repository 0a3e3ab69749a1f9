//! [`Customer`]: places one order, and perhaps cancels it, whatever becomes of the shop meanwhile.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use mainstay::http::Client;
use mainstay::http::client::Reply;
use mainstay::prelude::*;
use serde_json::{Value, json};
use shop::domain::{Order, OrderStatus, Page};
use tokio::time::sleep;

use crate::shop_process::Address;

/// How many customers there are.
pub(crate) const CUSTOMERS: u32 = 200;

/// Longer than any answer takes; a shop that is killed breaks the connection off at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest that a customer who changes their mind needs for it.
const SECOND_THOUGHTS: Duration = Duration::from_millis(150);

/// How often a customer looks whether the order is settled: fifty of them are not to keep the shop from settling it.
const LOOK: Duration = Duration::from_millis(250);

pub(crate) struct Customer {
    number: u32,
    name: String,
    shop: Address,
    client: Client,
    mind: Mind,
    arrives_after: Duration,
    /// How often there was no answer.
    unknown: u32,
}

/// When they cancel.
enum Mind {
    Keeps,
    CancelsAtOnce,
    CancelsAfter(Duration),
    CancelsOnceSettled,
}

/// The box that customer `number` orders, with the tea.
pub(crate) fn box_of(number: u32) -> String {
    let before_or_after_tea = if number.is_multiple_of(2) { "a" } else { "z" };
    format!("{before_or_after_tea}-{number}")
}

impl Customer {
    pub(crate) fn new(number: u32, shop: Address, client: Client, cancels: bool, arrivals: Option<Duration>) -> Self {
        let mind = match random(number, "mind", 4) {
            _ if !cancels => Mind::Keeps,
            0 => Mind::Keeps,
            1 => Mind::CancelsAtOnce,
            2 => Mind::CancelsAfter(part_of(SECOND_THOUGHTS, number, "when")),
            _ => Mind::CancelsOnceSettled,
        };
        let arrives_after = arrivals.map(|arrivals| part_of(arrivals, number, "arrival")).unwrap_or_default();
        let name = format!("customer-{number}");
        Self { number, name, shop, client, mind, arrives_after, unknown: 0 }
    }

    /// Returns how often it got no answer.
    pub(crate) async fn live(mut self, ctx: &Context) -> Result<u32> {
        sleep(self.arrives_after).await;
        let id = self.place(ctx).await?;
        match self.mind {
            Mind::Keeps => return Ok(self.unknown),
            Mind::CancelsAtOnce => {}
            Mind::CancelsAfter(time) => sleep(time).await,
            Mind::CancelsOnceSettled => {
                while self.ask::<Order>(ctx, &format!("/v1/orders/{id}")).await?.status == OrderStatus::Pending {
                    sleep(LOOK).await;
                }
            }
        }
        self.cancel(ctx, id).await?;
        Ok(self.unknown)
    }

    /// Places the order. That is not safe to repeat: where no answer came, the customer looks whether there is an order
    /// in their name.
    async fn place(&mut self, ctx: &Context) -> Result<Uuid> {
        let (name, own) = (self.name.clone(), box_of(self.number));
        let line = |sku: &str| json!({ "sku": sku, "quantity": 1 });
        let body = json!({ "customer": name, "lines": [line(&own), line("tea"), line(&own)] });
        loop {
            let url = self.url("/v1/orders").await?;
            let call = self.client.post(url).json(&body);
            if let Some(reply) = self.answer(call.exchange(&patience(ctx)).await)
                && let Ok(order) = reply.json::<Order>().await
            {
                return Ok(order.id);
            }
            let placed: Page<Order> = self.ask(ctx, &format!("/v1/orders?customer={name}")).await?;
            if let Some(order) = placed.items.first() {
                return Ok(order.id);
            }
        }
    }

    /// Cancels the order, which is safe to repeat. A rejected one can't be.
    async fn cancel(&mut self, ctx: &Context, id: Uuid) -> Result<()> {
        loop {
            let url = self.url(&format!("/v1/orders/{id}/cancel")).await?;
            let call = self.client.post(url).json(&Value::Null);
            let outcome = call.exchange(&patience(ctx)).await;
            if outcome.as_ref().is_ok_and(|reply| reply.status() == 409) || self.answer(outcome).is_some() {
                return Ok(());
            }
        }
    }

    /// GETs until there is an answer.
    async fn ask<T: serde::de::DeserializeOwned>(&mut self, ctx: &Context, path: &str) -> Result<T> {
        loop {
            let url = self.url(path).await?;
            let call = self.client.get(url);
            if let Some(reply) = self.answer(call.exchange(&patience(ctx)).await)
                && let Ok(answer) = reply.json().await
            {
                return Ok(answer);
            }
        }
    }

    /// A good answer; anything else is counted.
    fn answer(&mut self, outcome: Result<Reply>) -> Option<Reply> {
        let good = outcome.ok().filter(|reply| reply.status().is_success());
        if good.is_none() {
            self.unknown += 1;
        }
        good
    }

    /// Waits until there is a shop.
    async fn url(&mut self, path: &str) -> Result<String> {
        let address = self.shop.wait_for(Option::is_some).await.map_err(Error::from_any)?;
        Ok(format!("{}{path}", address.as_deref().unwrap_or_default()))
    }
}

fn patience(ctx: &Context) -> Context {
    ctx.with_timeout(PATIENCE)
}

/// The same in every run, for the same customer and question.
fn random(number: u32, question: &str, below: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (number, question).hash(&mut hasher);
    hasher.finish() % below
}

fn part_of(time: Duration, number: u32, question: &str) -> Duration {
    time.mul_f64(random(number, question, 1000) as f64 / 1000.0)
}
