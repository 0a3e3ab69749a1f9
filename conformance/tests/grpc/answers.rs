//! What calls are answered when all goes well, and when it doesn't.

use std::time::Duration;

use conformance::calls::v1::{CallsClient, CountRequest, Number, WorkRequest};
use conformance::process::{Place, Process};
use futures_util::{StreamExt, stream};
use mainstay::core::ByteSize;
use mainstay::grpc::Channel;
use mainstay::prelude::*;

use crate::{FIXTURE, client, patient};

fn number(value: i64) -> Number {
    Number { value, ..Number::default() }
}

#[tokio::test]
async fn every_kind_of_call_works_plain_and_compressed() {
    let (place, ctx) = (Place::new(), &patient());
    let _service = Process::ready(&mut place.command(FIXTURE)).await;
    let plain = client(place.http);
    let compressed = CallsClient::new(Channel::new(&format!("http://{}", place.http)).unwrap().with_gzip());
    for client in [plain, compressed] {
        client.work(ctx, WorkRequest::default()).await.unwrap();
        let counted = client.count(ctx, CountRequest { count: 100, pause_ms: 0, padding: 1000 }).await.unwrap();
        let values: Vec<_> = counted.map(|number| number.unwrap().value).collect().await;
        assert_eq!(values, (0..100).collect::<Vec<_>>());
        assert_eq!(client.sum(ctx, stream::iter((1..=100).map(number))).await.unwrap().value, 5050);
        let echo = client.echo(ctx, stream::iter((0..100).map(number))).await.unwrap();
        assert_eq!(echo.map(|number| number.unwrap().value).collect::<Vec<_>>().await, values);
    }
}

#[tokio::test]
async fn on_a_port_of_its_own_only_grpc_is_spoken() {
    let (place, ctx) = (Place::new(), &patient());
    let own = conformance::process::free_port();
    let service = Process::ready(place.command(FIXTURE).env("FIXTURE_GRPC__ADDR", own.to_string())).await;
    client(own).work(ctx, WorkRequest::default()).await.unwrap();
    let error = client(place.http).work(ctx, WorkRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error:?}");
    // The next process takes this port over too.
    let next = Process::ready(place.command(FIXTURE).env("FIXTURE_GRPC__ADDR", own.to_string())).await;
    assert_eq!(service.ended().await.0.code(), Some(0));
    client(own).work(ctx, WorkRequest::default()).await.unwrap();
    drop(next);
}

#[tokio::test]
async fn a_panic_is_an_internal_error_before_the_answer_and_within_it() {
    let (place, ctx) = (Place::new(), &patient());
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let client = client(place.http);
    let error = client.panic(ctx, number(0)).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Internal, "internal error"));
    let mut numbers = client.panic(ctx, number(7)).await.unwrap();
    assert_eq!(numbers.message().await.unwrap().unwrap().value, 7);
    assert_eq!(numbers.message().await.unwrap_err().code(), Code::Internal);
    assert_eq!(numbers.message().await.unwrap(), None, "an error is the end");
    assert!(service.log().contains("panic in the stream of a call"), "{}", service.log());
    client.work(ctx, WorkRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_calls_and_streams_on_both_sides() {
    let place = Place::new();
    let service = Process::ready(&mut place.command(FIXTURE)).await;
    let client = client(place.http);
    let soon = || Context::background().with_timeout(Duration::from_millis(300));
    let error = client.work(&soon(), WorkRequest { ms: 60_000, id: 0 }).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    let endless = CountRequest { count: 0, pause_ms: 10, padding: 0 };
    let numbers = client.count(&soon(), endless).await.unwrap();
    let all: Vec<_> = numbers.collect().await;
    assert_eq!(all.last().unwrap().as_ref().unwrap_err().code(), Code::DeadlineExceeded);
    for method in ["Work", "Count"] {
        let line = service.says(&format!("/conformance.v1.Calls/{method}")).await;
        assert!(line.contains("DEADLINE_EXCEEDED") || line.contains("client_left"), "{line}");
    }
}

#[tokio::test]
async fn the_largest_message_is_a_limit_of_each_message_and_not_of_a_stream() {
    let (place, ctx) = (Place::new(), &patient());
    let _service = Process::ready(&mut place.command(FIXTURE)).await;
    let client = client(place.http);
    let padded = |padding: usize| Number { value: 1, padding: vec![0; padding] };
    let five = stream::iter((0..5).map(move |_| padded(900_000)));
    assert_eq!(client.sum(ctx, five).await.unwrap().value, 5);
    let error = client.sum(ctx, stream::iter([padded(1_100_000)])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    let error = client.panic(ctx, padded(1_100_000)).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error:?}");
    let narrow = Channel::new(&format!("http://{}", place.http)).unwrap().with_max_message(ByteSize::kib(1));
    let mut large =
        CallsClient::new(narrow).count(ctx, CountRequest { count: 1, pause_ms: 0, padding: 2000 }).await.unwrap();
    assert_eq!(large.message().await.unwrap_err().code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_somebody_who_comes_back_is_called_again() {
    let (place, ctx) = (Place::new(), &patient());
    let client = CallsClient::new(Channel::new(&format!("http://{}", place.http)).unwrap());
    let error = client.work(ctx, WorkRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    for _ in 0..2 {
        let service = Process::ready(&mut place.command(FIXTURE)).await;
        while let Err(error) = client.work(ctx, WorkRequest::default()).await {
            assert_eq!(error.code(), Code::Unavailable, "{error:?}");
        }
        service.terminate();
        assert_eq!(service.ended().await.0.code(), Some(0));
    }
}
