use std::time::Duration;

use mainstay_core::{Context, Trace};

use super::*;

#[test]
fn both_formats_show_the_same_and_only_one_has_exemplars() {
    let metrics = Metrics::new();
    metrics.counters("sold", "Things sold", &["what"]).with(&["a \"b\" # {c}\n"]).inc_by(2);
    metrics.gauge("stock", "Things left").set(7);
    let durations = metrics.durations("wait", "Time waited", &["what"]);
    let trace: Trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
    let unrecorded = Trace { trace_id: 1, flags: 0, ..trace.clone() };
    durations.with(&["tea"]).observe_in(&Context::background().with_trace(trace), Duration::from_millis(300));
    durations.with(&["tea"]).observe_in(&Context::background().with_trace(unrecorded), Duration::from_secs(45));

    let open = metrics.render();
    for line in [
        "# TYPE sold counter",
        r#"sold_total{what="a \"b\" # {c}\n"} 2"#,
        "stock 7",
        r#"wait_seconds_count{what="tea"} 2"#,
        "# EOF",
    ] {
        assert!(open.lines().any(|found| found == line), "{line} is missing in\n{open}");
    }
    let exemplars: Vec<_> = open.lines().filter(|line| line.contains("trace_id")).collect();
    let begin = r#"wait_seconds_bucket{le="0.5",what="tea"} 1 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.3 "#;
    assert!(exemplars.len() == 1 && exemplars[0].starts_with(begin), "{exemplars:?}");

    let old = metrics.render_prometheus();
    for line in [
        "# HELP sold_total Things sold.",
        "# TYPE sold_total counter",
        r#"sold_total{what="a \"b\" # {c}\n"} 2"#,
        "# TYPE wait_seconds histogram",
        r#"wait_seconds_bucket{le="60.0",what="tea"} 2"#,
    ] {
        assert!(old.lines().any(|found| found == line), "{line} is missing in\n{old}");
    }
    assert!(!old.contains("# EOF") && !old.contains("# UNIT") && !old.contains("trace_id"), "{old}");
}

#[test]
fn a_label_bomb_leaves_the_series_bounded_and_loses_no_count() {
    let metrics = Metrics::new();
    let requests = metrics.counters("requests", "Requests", &["tenant"]);
    for tenant in 0..100_000 {
        requests.with(&[&format!("tenant-{tenant}{}", "x".repeat(500))]).inc();
    }
    let text = metrics.render();
    let counts = text.lines().filter_map(|line| Some(line.strip_prefix("requests_total")?.rsplit_once(' ')?.1));
    let counts: Vec<u64> = counts.map(|count| count.parse().unwrap()).collect();
    assert_eq!(counts.len(), Series::<Counter>::LIMIT + 1);
    assert_eq!(counts.iter().sum::<u64>(), 100_000);
    assert!(text.contains(r#"requests_total{tenant="_other"} 98000"#));
    assert!(text.len() < Series::<Counter>::LIMIT * 200, "{}", text.len());
}

#[tokio::test]
async fn the_process_and_its_runtime_are_seen() {
    let metrics = Metrics::new();
    metrics.watch_process();
    SchedulingDelay::register(&metrics).measure().await;
    let text = metrics.render_prometheus();
    let value = |name: &str| {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
            .rsplit_once(' ')
            .unwrap()
            .1
            .parse::<f64>()
            .unwrap()
    };
    for name in [
        "process_resident_memory_bytes",
        "process_virtual_memory_bytes",
        "process_threads",
        "process_open_fds",
        "process_max_fds",
        "process_start_time_seconds",
        "runtime_workers",
        "runtime_scheduling_delay_seconds_count",
    ] {
        assert!(value(name) > 0.0, "{name}\n{text}");
    }
    for name in
        ["process_cpu_seconds_total", "runtime_busy_seconds_total", "runtime_alive_tasks", "runtime_global_queue_depth"]
    {
        assert!(value(name) >= 0.0, "{name}");
    }
}
