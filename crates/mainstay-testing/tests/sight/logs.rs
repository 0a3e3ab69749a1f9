use super::*;

fn line(app: &TestApp, target: &str, found: impl Fn(&LogLine) -> bool) -> LogLine {
    let line = app.logs().with_target(target).find(|line| found(line));
    line.unwrap_or_else(|| panic!("no such line: {:?}", app.logs()))
}

#[tokio::test]
async fn every_line_of_a_request_says_whose_it_is_wherever_it_is_written() {
    let app = TestApp::of("stand", stand).start().await.unwrap();
    one_sale(&app).await;
    for (target, text, who) in [
        ("stand", "selling", Some("anna")),
        ("stand", "in a task", Some("anna")),
        ("stand", "counted", None),
        ("mainstay::access", "", None),
    ] {
        let line = line(&app, target, |line| line.message == text);
        let field = |name: &str| line.fields.get(name).map(String::as_str);
        assert_eq!((field("trace_id"), field("request_id")), (Some(TRACE), Some("r-1")), "{line:?}");
        assert_eq!(field("principal"), who, "{line:?}");
        assert_eq!(field("span_id").map(str::len), Some(16), "{line:?}");
    }
    for text in ["INSERT INTO mainstay_outbox", "UPDATE stand"] {
        let line = line(&app, "mainstay::sql", |line| line.fields.get("sql").is_some_and(|sql| sql.contains(text)));
        let field = |name: &str| line.fields.get(name).map(String::as_str);
        assert_eq!((field("trace_id"), field("request_id")), (Some(TRACE), Some("r-1")), "{line:?}");
    }
}
