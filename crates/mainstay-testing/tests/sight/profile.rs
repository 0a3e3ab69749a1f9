use std::io::Read;

use super::*;
use mainstay_testing::TestResponse;

/// Called by `burn`, so that a stack that names it has gone through what called it.
#[inline(never)]
fn burns_processor_time() -> u64 {
    (0..20_000).fold(0, |sum, number| std::hint::black_box(innermost(sum, number)))
}

#[inline(never)]
fn innermost(sum: u64, number: u64) -> u64 {
    (0..100).fold(sum, |sum, step| std::hint::black_box(sum.wrapping_mul(31) ^ number ^ step))
}

async fn burn(ctx: Context) -> Result<()> {
    while !ctx.is_done() {
        burns_processor_time();
        tokio::task::yield_now().await;
    }
    Ok(())
}

fn stove(app: &mut App<NoSettings>) -> Result<()> {
    app.http(Routes::new().route_axum("/burn", axum::routing::get(burn)));
    Ok(())
}

/// A profile of a second: its texts, names among them, or why there is none.
async fn profile(app: &TestApp) -> (u16, String) {
    let url = format!("http://{}/debug/pprof/profile?seconds=1", app.admin_addr());
    let answer = mainstay::http::Client::new().unwrap().get(url).exchange(&Context::background()).await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.bytes().await.unwrap());
    let mut profile = Vec::new();
    match status {
        200 => drop(flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut profile).unwrap()),
        _ => profile.extend_from_slice(&body),
    }
    (status, String::from_utf8_lossy(&profile).into_owned())
}

async fn asked(app: &TestApp, path: &str) -> TestResponse {
    app.admin(path).await.unwrap()
}

/// One test for everything about the profiler: a process has one.
#[tokio::test(flavor = "multi_thread")]
async fn a_profile_names_what_runs_and_ends_with_whoever_asked() {
    let app = TestApp::of("stove", stove).start().await.unwrap();
    for wrong in ["0", "301", "-1", "1.5", "long", ""] {
        let answer = asked(&app, &format!("/debug/pprof/profile?seconds={wrong}")).await;
        assert_eq!(answer.status(), 400, "{wrong}: {}", answer.text());
        assert!(answer.text().contains("from 1 to 300"), "{}", answer.text());
    }
    let client = mainstay::http::Client::new().unwrap();
    let stove = app.url("/burn");
    let burning = tokio::spawn(async move { client.get(stove).send(&Context::background()).await });

    // Whoever goes away takes the profile with them, and the next one gets it.
    let long = mainstay::http::Client::new().unwrap();
    let url = format!("http://{}/debug/pprof/profile?seconds=300", app.admin_addr());
    // Again and again: a short one below may come first, and refuse it.
    let waiting = tokio::spawn(async move {
        loop {
            let _ = long.get(&url).send(&Context::background()).await;
        }
    });
    let refused = loop {
        let (status, text) = profile(&app).await;
        if status != 200 {
            break (status, text);
        }
    };
    assert!(refused.0 == 409 && refused.1.contains("one at a time"), "{refused:?}");
    waiting.abort();
    let profile = loop {
        let (status, text) = profile(&app).await;
        if status == 200 {
            break text;
        }
        assert_eq!(status, 409, "{text}");
    };
    for name in ["burns_processor_time", "burn", "nanoseconds", "tokio-"] {
        assert!(profile.contains(name), "{name}");
    }
    burning.abort();
}

#[tokio::test]
async fn what_was_not_built_in_is_refused_by_the_name_of_its_feature() {
    let app = TestApp::of("stove", stove).start().await.unwrap();
    let answer = asked(&app, "/debug/pprof/heap").await;
    assert_eq!(answer.status(), 501, "{}", answer.text());
    assert!(answer.text().contains("the feature `heap`"), "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_is_seen_with_its_age_and_its_deadline() {
    let app = TestApp::of("stove", stove).start().await.unwrap();
    let client = mainstay::http::Client::new().unwrap();
    let url = app.url("/burn");
    let burning = tokio::spawn(async move {
        let _ = client.get(url).header("x-request-id", "hung-1").send(&Context::background()).await;
    });
    let hung = loop {
        let tasks: serde_json::Value = asked(&app, "/debug/tasks").await.json().unwrap();
        let running = tasks["components"].as_array().unwrap().iter().any(|part| part["name"] == "http");
        assert!(running && tasks["runtime"]["workers"].as_u64() > Some(0), "{tasks}");
        let request = tasks["in_hand"]["requests"]["oldest"][0].clone();
        if !request.is_null() {
            break request;
        }
    };
    assert_eq!((&hung["name"], &hung["request_id"]), (&"GET /burn".into(), &"hung-1".into()), "{hung}");
    let left = hung["deadline_left_seconds"].as_f64().unwrap();
    assert!(left > 0.0 && left <= 30.0, "{hung}");
    burning.abort();
    let _ = burning.await;
    loop {
        let tasks: serde_json::Value = asked(&app, "/debug/tasks").await.json().unwrap();
        if tasks["in_hand"].get("requests").is_none() {
            break;
        }
    }
}
