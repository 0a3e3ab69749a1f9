use super::*;

#[tokio::test]
async fn every_part_of_a_service_is_counted() {
    let app = TestApp::of("stand", stand).start().await.unwrap();
    one_sale(&app).await;
    let samples = app.samples();
    let route = [("http_route", "/sell"), ("http_response_status_code", "200")];
    assert_eq!(samples.sum("http_server_request_duration_seconds_count", &route), 1.0);
    assert_eq!(samples.sum("http_server_deadline_left_seconds_count", &route[..1]), 1.0);
    assert_eq!(samples.sum("events_handler_duration_seconds_count", &[("group", "count")]), 1.0);
    for (name, labels) in [
        ("sql_client_operation_duration_seconds_count", &[("operation", "insert"), ("outcome", "ok")][..]),
        ("sql_client_connection_wait_seconds_count", &[]),
        ("events_published_total", &[]),
        ("stand_sales_total", &[("seller", "anna")]),
        ("process_resident_memory_bytes", &[]),
        ("runtime_workers", &[]),
    ] {
        assert!(samples.sum(name, labels) > 0.0, "{name}");
    }
}

#[tokio::test]
async fn any_number_of_paths_is_one_series() {
    let app = TestApp::of("stand", stand).start().await.unwrap();
    let client = mainstay::http::Client::new().unwrap();
    let before = app.samples().names().len();
    for path in 0..200 {
        for url in [app.url(&format!("/things/{path}")), app.url(&format!("/nowhere/{path}"))] {
            client.get(url).exchange(&Context::background()).await.unwrap();
        }
    }
    let new: Vec<_> = app.samples().names();
    let requests = |name: &&String| name.starts_with("http_server_request_duration_seconds_count");
    // One route, and one for all that match none.
    assert_eq!(new.iter().filter(requests).count(), 2, "{new:?}");
    assert!(new.len() < before + 150, "{} more", new.len() - before);
}
