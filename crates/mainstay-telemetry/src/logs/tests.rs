use std::io;

use mainstay_core::{Context, Principal, RequestId, Trace};
use serde_json::Value;

use super::*;

/// Lines kept in memory.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        let writer = self.clone();
        logger(&json(), move || writer.clone()).unwrap().0
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn json(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logging(settings: LogSettings, work: impl FnOnce(&LogControl)) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    let (subscriber, control) = logger(&settings, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, || work(&control));
    lines
}

fn json() -> LogSettings {
    LogSettings { format: LogFormat::Json, ..LogSettings::default() }
}

fn request() -> Context {
    let trace: Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let principal = Principal { subject: "anna \"a\"".to_owned(), scopes: Vec::new() };
    Context::background().with_trace(trace).with_request_id(RequestId::parse("r-1").unwrap()).with_principal(principal)
}

#[test]
fn a_bad_filter_says_what_was_expected() {
    let settings = LogSettings { filter: "mainstay=loud".to_owned(), ..LogSettings::default() };
    let error = start_logging(&settings).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("mainstay=loud") && error.message().contains("debug"), "{error}");
}

#[test]
fn a_line_carries_the_identity_of_its_context_in_both_formats() {
    let log = |_: &LogControl| request().enter(|| tracing::info!(sku = "tea", "sold"));
    let line = &logging(json(), log).json()[0];
    for (key, value) in [
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("span_id", "00f067aa0ba902b7"),
        ("request_id", "r-1"),
        ("principal", "anna \"a\""),
        ("sku", "tea"),
        ("message", "sold"),
        ("level", "INFO"),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    let pretty = logging(LogSettings { format: LogFormat::Pretty, ..json() }, log).text();
    for part in [
        "sold",
        "trace_id=4bf92f3577b34da6a3ce929d0e0e4736",
        "span_id=00f067aa0ba902b7",
        "request_id=r-1",
        "principal=anna",
    ] {
        assert!(pretty.contains(part), "{pretty}");
    }
    assert_eq!(pretty.lines().count(), 1);
}

#[test]
fn a_line_outside_of_any_context_has_no_identity_and_an_events_own_fields_win() {
    let lines = logging(json(), |_| {
        tracing::info!("alone");
        request().enter(|| tracing::info!(request_id = "own", "two"));
    });
    let lines = lines.json();
    assert!(lines[0].get("trace_id").is_none() && lines[0].get("request_id").is_none());
    assert_eq!(lines[1]["request_id"], "own");
}

#[test]
fn every_text_is_valid_json_and_one_line() {
    let hostile = "a\"b\\c\nd\re\tf\u{1}g\u{1f600}{}";
    let lines =
        logging(json(), |_| tracing::info!(text = hostile, number = f64::NAN, ok = true, big = u64::MAX, "{hostile}"));
    let line = &lines.json()[0];
    assert_eq!(line["text"], hostile);
    assert_eq!(line["message"], hostile);
    assert_eq!((&line["number"], &line["ok"], &line["big"]), (&"NaN".into(), &true.into(), &u64::MAX.into()));
}

#[test]
fn the_filter_changes_while_the_service_runs() {
    let lines = logging(json(), |control| {
        tracing::debug!("no");
        assert_eq!(control.set_filter("debug\n").unwrap(), "info");
        tracing::debug!("yes");
        let error = control.set_filter("mainstay=loud").unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(control.filter().as_deref(), Some("debug"));
        control.set_filter("warn").unwrap();
        tracing::info!("no");
    });
    assert_eq!(
        lines.json().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>(),
        ["yes"]
    );
    assert_eq!(LogControl::default().set_filter("info").unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn what_a_client_says_twice_is_heard_only_by_who_asks_for_it() {
    let lines = |filter: &str| {
        let settings = LogSettings { filter: filter.to_owned(), ..json() };
        let said = || tracing::error!(target: "lapin::channel", "no queue of this name");
        logging(settings, |_| said()).json().len()
    };
    assert_eq!([lines("info"), lines("debug,shop=trace"), lines("info,lapin=info")], [0, 0, 1]);
}

#[test]
fn a_storm_is_cut_short_and_what_was_left_out_is_told() {
    let lines = logging(LogSettings { repeats: 100, ..json() }, |control| {
        for number in 0..50_000 {
            tracing::error!(number, "the database is gone");
        }
        tracing::info!("another place");
        control.tell_of_repeats();
        control.tell_of_repeats();
    });
    let lines = lines.json();
    let errors = lines.iter().filter(|line| line["level"] == "ERROR").count() as u64;
    // The loop may see a second or two pass, each of which has a limit of its own.
    assert!((100..1000).contains(&errors), "{errors}");
    assert!(lines.iter().any(|line| line["message"] == "another place"));
    let told = lines.iter().filter(|line| line["target"] == "mainstay::log");
    let left_out: u64 = told.map(|line| line["left_out"].as_u64().unwrap()).sum();
    assert_eq!(errors + left_out, 50_000);
}
