//! The gRPC service under test: calls that take as long as they are told, and streams without end.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use mainstay::grpc::{Incoming, Outgoing, Service, include_proto};
use mainstay::prelude::*;

use self::v1::{CallsServer, CountRequest, Number, WorkAnswer, WorkRequest};

include_proto!(pub mod v1, "conformance.v1");

/// The service; `Work` and `Sleep` use `db`.
pub fn service(db: Db) -> Service {
    CallsServer::new(Calls { db })
}

struct Calls {
    db: Db,
}

impl v1::Calls for Calls {
    async fn work(&self, ctx: &Context, request: WorkRequest) -> Result<WorkAnswer> {
        tokio::time::sleep(milliseconds(request.ms)).await;
        if request.id != 0 {
            self.db.query("INSERT INTO stored (id) VALUES ($1)").bind(request.id).execute(ctx).await?;
        }
        Ok(WorkAnswer {})
    }

    async fn sleep(&self, ctx: &Context, request: WorkRequest) -> Result<WorkAnswer> {
        let seconds = request.ms as f64 / 1e3;
        self.db.query("SELECT pg_sleep($1) IS NULL").bind(seconds).one::<bool>(ctx).await?;
        Ok(WorkAnswer {})
    }

    async fn count(&self, _ctx: &Context, request: CountRequest) -> Result<Outgoing<Number>> {
        let CountRequest { count, pause_ms, padding } = request;
        let padding = usize::try_from(padding).unwrap_or_default();
        let numbers = stream::unfold(0, move |value| async move {
            if pause_ms > 0 {
                tokio::time::sleep(milliseconds(pause_ms)).await;
            }
            let padding = vec![7; padding];
            (count == 0 || value < count).then_some((Ok(Number { value, padding }), value + 1))
        });
        Ok(Outgoing::new(numbers))
    }

    async fn sum(&self, _ctx: &Context, mut numbers: Incoming<Number>) -> Result<Number> {
        let mut sum = Number::default();
        while let Some(number) = numbers.message().await? {
            sum.value += number.value;
        }
        Ok(sum)
    }

    async fn echo(&self, _ctx: &Context, numbers: Incoming<Number>) -> Result<Outgoing<Number>> {
        Ok(Outgoing::new(numbers))
    }

    async fn panic(&self, _ctx: &Context, request: Number) -> Result<Outgoing<Number>> {
        assert_ne!(request.value, 0, "asked to");
        // The pause has the first one sent.
        let numbers = stream::iter([request.value, 0]).then(|value| async move {
            tokio::time::sleep(milliseconds(10)).await;
            assert_ne!(value, 0, "asked to");
            Ok(Number { value, ..Number::default() })
        });
        Ok(Outgoing::new(numbers))
    }
}

fn milliseconds(number: i64) -> Duration {
    Duration::from_millis(number.unsigned_abs())
}
