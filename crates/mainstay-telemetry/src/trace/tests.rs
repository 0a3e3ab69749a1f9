use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mainstay_core::{Component, Context, Error, Result, Trace};

use super::*;
use crate::{Exporter, LogFormat, LogSettings, Metrics, logger};

fn remote(flags: u8) -> Trace {
    let trace: Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".parse().unwrap();
    Trace { flags, ..trace }
}

/// A request by its path.
type Taken = (&'static str, Bytes);

/// A collector that keeps what it is sent, while it answers.
#[derive(Clone, Default)]
struct Collector {
    requests: Arc<Mutex<Vec<Taken>>>,
    broken: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Collector {
    fn tracer(&self, settings: &TraceSettings, metrics: &Metrics) -> (Tracer, Option<Exporter>) {
        let settings = TraceSettings { endpoint: "http://collector".to_owned(), ..settings.clone() };
        let collector = self.clone();
        Tracer::new("shop", &settings, metrics, || {
            Box::new(move |path, body| {
                let collector = collector.clone();
                Box::pin(async move { collector.take(path, body) })
            })
        })
    }

    fn take(&self, path: &'static str, body: Bytes) -> Result<()> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.broken.load(Ordering::SeqCst) > 0 {
            return Err(Error::unavailable("the collector is gone"));
        }
        self.requests.lock().unwrap().push((path, body));
        Ok(())
    }
}

/// A request with a statement.
fn request(tracer: &Tracer, from: Option<&Trace>) {
    let Some(mut root) = tracer.begin(&Context::background(), from, SpanKind::Server, || "GET /".into()) else {
        return;
    };
    root.set("http.response.status_code", 200);
    root.set("http.route", "/".repeat(1_000)); // what waits is bounded in bytes
    let mut statement = span(root.context(), SpanKind::Client, || "SELECT".into()).unwrap();
    statement.fail("NOT_FOUND");
    drop(statement);
}

#[test]
fn nothing_is_built_where_nobody_wants_it() {
    let never = || -> Text { unreachable!("no name is made for it") };
    assert!(span(&Context::background().with_trace(remote(1)), SpanKind::Client, never).is_none());
    assert!(Tracer::off().begin(&Context::background(), Some(&remote(1)), SpanKind::Server, never).is_none());
    let (tracer, _exporter) = Collector::default().tracer(&TraceSettings::default(), &Metrics::new());
    let unsampled = tracer.begin(&Context::background(), Some(&remote(0)), SpanKind::Server, never);
    assert!(unsampled.is_none(), "the caller said that it records nothing");
}

#[test]
fn spans_are_parts_of_each_other_and_of_the_callers_trace() {
    let tracer = Tracer::off();
    tracer.collect();
    request(&tracer, Some(&remote(1)));
    let spans = tracer.collected();
    let [statement, root] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((root.trace_id, root.parent_id), (remote(1).trace_id, remote(1).span_id));
    assert_eq!((statement.trace_id, statement.parent_id), (root.trace_id, root.span_id));
    assert_eq!((statement.error, root.error), (Some("NOT_FOUND"), None));
    assert_eq!(statement.attribute("error.type").as_deref(), Some("NOT_FOUND"));
    assert!(root.took >= statement.took);
}

#[test]
fn what_outlives_its_root_is_not_lost() {
    let tracer = Tracer::off();
    tracer.collect();
    let root = tracer.begin(&Context::background(), None, SpanKind::Server, || "POST /".into()).unwrap();
    let late = span(root.context(), SpanKind::Client, || "COMMIT".into());
    drop(root);
    assert_eq!(tracer.collected().len(), 1);
    drop(late);
    assert_eq!(tracer.collected().len(), 2);
    assert_eq!(tracer.collected()[0].parent_id, 0, "nobody began the trace before");
}

#[test]
fn about_the_wanted_part_of_new_traces_is_sampled_and_a_callers_word_counts() {
    let count = |sample| {
        let settings = TraceSettings { sample, ..TraceSettings::default() };
        let (tracer, _exporter) = Collector::default().tracer(&settings, &Metrics::new());
        let sampled = (0..10_000)
            .filter(|_| tracer.begin(&Context::background(), None, SpanKind::Server, || "GET /".into()).is_some());
        let sampled = sampled.count();
        assert!(tracer.begin(&Context::background(), Some(&remote(1)), SpanKind::Server, || "GET /".into()).is_some());
        sampled
    };
    assert_eq!((count(0.0), count(1.0)), (0, 10_000));
    // Six standard deviations of 10,000 draws at 0.1.
    assert!((820..1180).contains(&count(0.1)));
}

#[test]
fn failed_and_slow_ones_are_kept_whole_and_the_oldest_go() {
    let settings = TraceSettings { keep: 2, slow: Duration::ZERO, sample: 0.0, ..TraceSettings::default() };
    let (tracer, exporter) = Tracer::new("shop", &settings, &Metrics::new(), || unreachable!("nothing is exported"));
    assert!(exporter.is_none());
    for name in ["first", "second", "third"] {
        let mut root = tracer.begin(&Context::background(), None, SpanKind::Server, || name.into()).unwrap();
        drop(span(root.context(), SpanKind::Client, || "SELECT".into()));
        if name == "third" {
            root.fail("INTERNAL");
        }
    }
    let kept: Vec<_> =
        tracer.kept().iter().map(|kept| (kept.spans[1].name.clone(), kept.spans.len(), kept.reason)).collect();
    assert_eq!(kept, [("third".into(), 2, "error"), ("second".into(), 2, "slow")]);
    let quick_settings = TraceSettings { keep: 2, slow: Duration::from_secs(60), ..TraceSettings::default() };
    let (quick, _) = Tracer::new("shop", &quick_settings, &Metrics::new(), || unreachable!());
    request(&quick, None);
    assert!(quick.kept().is_empty(), "neither slow nor failed");
}

#[tokio::test]
async fn a_loop_over_statements_fills_no_memory() {
    let metrics = Metrics::new();
    let (tracer, _exporter) = Collector::default().tracer(&TraceSettings::default(), &metrics);
    let root = tracer.begin(&Context::background(), None, SpanKind::Server, || "GET /".into()).unwrap();
    for _ in 0..5_000 {
        drop(span(root.context(), SpanKind::Client, || "SELECT".into()));
    }
    assert!(metrics.render().contains("trace_spans_dropped_total 4000"));
}

#[tokio::test]
async fn what_waits_is_sent_before_the_service_ends() {
    let (collector, metrics) = (Collector::default(), Metrics::new());
    let (tracer, exporter) = collector.tracer(&TraceSettings::default(), &metrics);
    let exporter = exporter.unwrap();
    exporter.start(&Context::background()).await.unwrap();
    for _ in 0..100 {
        request(&tracer, None);
    }
    assert!(exporter.stop(&Context::background()).await.is_empty());
    assert!(metrics.render().contains("trace_spans_exported_total 200"), "{}", metrics.render());
    let (path, request) = collector.requests.lock().unwrap()[0].clone();
    assert_eq!(path, "/v1/traces");
    let resource_spans = fields(&request);
    let scope_spans = fields(&resource_spans[&1][0]);
    let spans = fields(&scope_spans[&2][0]);
    let (statement, root) = (fields(&spans[&2][0]), fields(&spans[&2][1]));
    assert_eq!(root[&5][0], b"GET /");
    assert_eq!(statement[&1], root[&1], "one trace");
    assert_eq!(statement[&4], root[&2], "the one is the other's parent");
    assert!(!root.contains_key(&4), "nobody began it before");
    assert_eq!((statement[&1][0].len(), statement[&2][0].len()), (16, 8));
    let status = fields(&statement[&15][0]);
    assert_eq!((status[&2][0].as_slice(), status[&3][0].as_slice()), (&b"NOT_FOUND"[..], &[2][..]));
}

#[tokio::test]
async fn log_lines_and_metrics_go_the_same_way() {
    let (collector, metrics) = (Collector::default(), Metrics::new());
    let settings = LogSettings { format: LogFormat::Json, ..LogSettings::default() };
    let (subscriber, logs) = logger(&settings, std::io::sink).unwrap();
    let _guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("before there is an exporter");
    let exporter = collector.tracer(&TraceSettings::default(), &metrics).1.unwrap();
    let exporter = exporter.with_logs(&logs, &metrics).with_metrics(&metrics, Duration::from_secs(60));
    exporter.start(&Context::background()).await.unwrap();
    let ctx = Context::background().with_trace(remote(1));
    ctx.scope(async { tracing::warn!(seller = "anna", amount = -7, "sold") }).await;
    metrics.counters("sales", "Sales", &["seller"]).with(&["anna"]).inc();
    exporter.stop(&Context::background()).await;

    let requests = collector.requests.lock().unwrap().clone();
    let of = |path: &str| {
        let request = &requests.iter().find(|(to, _)| *to == path).unwrap().1;
        fields(&fields(&fields(request)[&1][0])[&2][0])
    };
    let lines = &of("/v1/logs")[&2];
    assert_eq!(lines.len(), 1, "what came before is not exported");
    let line = fields(&lines[0]);
    assert_eq!((line[&2][0].as_slice(), line[&3][0].as_slice()), (&[13][..], &b"WARN"[..]));
    assert_eq!(fields(&line[&5][0])[&1][0], b"sold");
    assert_eq!(line[&9][0], remote(1).trace_id.to_be_bytes());
    assert_eq!(line[&10][0], remote(1).span_id.to_be_bytes());
    let names: Vec<_> = line[&6].iter().map(|pair| fields(pair)[&1][0].clone()).collect();
    assert_eq!(names, [&b"seller"[..], b"amount", b"target"]);
    let exported = of("/v1/metrics");
    let sales =
        exported[&2].iter().map(|metric| fields(metric)).find(|metric| metric[&1][0] == b"sales_total").unwrap();
    let sum = fields(&sales[&7][0]);
    assert_eq!((sum[&2][0].as_slice(), sum[&3][0].as_slice()), (&[2][..], &[1][..]), "cumulative, never falling");
    assert_eq!(fields(&sum[&1][0])[&4][0], 1.0_f64.to_le_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_costs_nothing_and_is_told_of_once() {
    let (collector, metrics, log) = (Collector::default(), Metrics::new(), crate::logs::Captured::default());
    collector.broken.store(1, Ordering::SeqCst);
    let _guard = tracing::subscriber::set_default(log.subscriber());
    let (tracer, exporter) = collector.tracer(&TraceSettings::default(), &metrics);
    let exporter = exporter.unwrap();
    exporter.start(&Context::background()).await.unwrap();
    for _ in 0..100_000 {
        request(&tracer, None);
    }
    while collector.asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let text = metrics.render();
    let dropped = text.lines().find_map(|line| line.strip_prefix("trace_spans_dropped_total ")).unwrap();
    assert!(dropped.parse::<u64>().unwrap() > 150_000, "what waits is bounded: {dropped}");
    exporter.stop(&Context::background()).await;
    assert_eq!(log.text().matches("telemetry can't be exported now").count(), 1, "{}", log.text());
    let asked = collector.asked.load(Ordering::SeqCst);
    assert!(asked < 20, "it is left alone between: asked {asked} times");
}

/// The fields of a message in protobuf: numbers as their bytes, the rest as it is.
fn fields(mut bytes: &[u8]) -> HashMap<u64, Vec<Vec<u8>>> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => vec![varint(&mut bytes) as u8],
            1 => bytes.split_off(..8).unwrap().to_vec(),
            _ => {
                let length = varint(&mut bytes) as usize;
                bytes.split_off(..length).unwrap().to_vec()
            }
        };
        found.entry(key >> 3).or_default().push(value);
    }
    found
}
