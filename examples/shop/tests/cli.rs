//! The shop's program from outside: what it says, where it says it, and how it ends.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which the lint's allowance for tests does not reach")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A folder to work in and nothing else: no configuration but what a test gives.
struct Scene {
    folder: tempfile::TempDir,
}

struct Outcome {
    code: i32,
    out: String,
    error: String,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shop"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().envs(environment.iter().copied());
        command
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        Outcome::of(self.command(arguments, environment).output().unwrap())
    }
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            error: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// A failure that fits on one screen and says each of `words`.
    #[track_caller]
    fn refuses(&self, words: &[&str]) {
        let shown = format!("code {}, stdout:\n{}\nstderr:\n{}", self.code, self.out, self.error);
        assert_eq!(self.code, 1, "{shown}");
        for word in words {
            assert!(self.error.contains(word), "no `{word}` in: {shown}");
        }
        assert!(self.error.lines().count() <= 24, "more than a screen: {shown}");
        assert!(!self.error.contains("panicked"), "{shown}");
    }

    #[track_caller]
    fn says(&self, words: &[&str]) {
        let shown = format!("code {}, stdout:\n{}\nstderr:\n{}", self.code, self.out, self.error);
        assert_eq!(self.code, 0, "{shown}");
        for word in words {
            assert!(self.out.contains(word), "no `{word}` in: {shown}");
        }
    }
}

#[test]
fn a_typo_in_a_key_names_the_key_its_source_and_the_nearest_one() {
    let scene = Scene::new().file("config.yaml", "http:\n  request_timout: 5s\n");
    scene.run(&[], &[]).refuses(&["http.request_timout", "config.yaml:2:3", "request_timeout"]);
    Scene::new().run(&[], &[("SHOP_HTTP__ADR", "127.0.0.1:1")]).refuses(&["SHOP_HTTP__ADR", "addr"]);
    Scene::new().run(&[], &[("SHOP_HTPP__ADDR", "127.0.0.1:1")]).refuses(&["SHOP_HTPP__ADDR", "http"]);
    Scene::new().run(&[], &[("SHOP_PAGING__MAX", "1")]).refuses(&["SHOP_PAGING__MAX", "max_limit"]);
}

#[test]
fn a_wrong_value_names_the_key_its_source_and_what_was_expected() {
    let scene = Scene::new().file("config.yaml", "http:\n  addr: everywhere\n  request_timeout: soon\n");
    scene.run(&[], &[]).refuses(&["http.addr", "config.yaml:2:9", "everywhere", "http.request_timeout", "soon", "30s"]);
    let outcome = Scene::new().run(&[], &[("SHOP_PAGING__MAX_LIMIT", "many")]);
    outcome.refuses(&["paging.max_limit", "SHOP_PAGING__MAX_LIMIT", "many"]);
}

#[test]
fn a_certificate_that_is_not_there_stops_the_start_and_is_named() {
    let tls =
        [("SHOP_HTTP__TLS__CERTIFICATE", "/nowhere/tls.crt"), ("SHOP_HTTP__TLS__PRIVATE_KEY", "/nowhere/tls.key")];
    Scene::new().run(&[], &tls).refuses(&["http.tls.certificate", "/nowhere/tls.crt", "No such file"]);
    Scene::new().run(&[], &tls[..1]).refuses(&["http.tls.private_key"]);
    let url = "postgres://shop@127.0.0.1:1/shop?sslmode=verify-full&sslrootcert=/nowhere/ca.pem";
    Scene::new().run(&[], &[("DATABASE_URL", url)]).refuses(&["/nowhere/ca.pem", "No such file"]);
}

#[test]
fn a_bad_url_says_what_is_understood_and_shows_no_password() {
    let outcome = Scene::new().run(&[], &[("DATABASE_URL", "postgress://shop:hunter2@db/shop")]);
    outcome.refuses(&["postgres://", "mysql://", "sqlite://"]);
    assert!(!outcome.error.contains("hunter2"), "{}", outcome.error);
    let outcome = Scene::new().run(&[], &[("DATABASE_URL", "postgres://shop@db/shop?sslmode=on")]);
    outcome.refuses(&["sslmode=on", "verify-full"]);
}

#[test]
fn what_this_version_lacks_is_refused_and_not_ignored() {
    let broker = |url| Scene::new().run(&[], &[("EVENTS_URL", url)]);
    broker("nat://me:hunter2@127.0.0.1").refuses(&["events.url", "EVENTS_URL", "`nat://`", "nats://", "amqp://"]);
    broker("nats://me:hunter2@127.0.0.1?prefix=a.b").refuses(&["events.url", "EVENTS_URL", "prefix"]);
    Scene::new().run(&[], &[("CACHE_URL", "redis://127.0.0.1")]).refuses(&["CACHE_URL", "not supported yet"]);
}

#[test]
fn a_port_in_use_names_the_setting_and_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let outcome = Scene::new().run(&[], &[("SHOP_HTTP__ADDR", &addr), ("SHOP_ADMIN__ADDR", "127.0.0.1:0")]);
    outcome.refuses(&[&addr, "SHOP_HTTP__ADDR=127.0.0.1:", "cargo run"]);
    let outcome = Scene::new().run(&[], &[("SHOP_HTTP__ADDR", "127.0.0.1:0"), ("SHOP_ADMIN__ADDR", &addr)]);
    outcome.refuses(&[&addr, "SHOP_ADMIN__ADDR=127.0.0.1:"]);
}

#[test]
fn an_unreachable_database_is_named_without_its_password() {
    for url in ["postgres://shop:hunter2@127.0.0.1:9/shop", "mysql://shop:hunter2@127.0.0.1:9/shop"] {
        let outcome = Scene::new().run(
            &[],
            &[
                ("DATABASE_URL", url),
                ("SHOP_SHUTDOWN__START", "300ms"),
                ("SHOP_HTTP__ADDR", "127.0.0.1:0"),
                ("SHOP_ADMIN__ADDR", "127.0.0.1:0"),
            ],
        );
        outcome.refuses(&["127.0.0.1:9", "database"]);
        assert!(!outcome.error.contains("hunter2") && !outcome.out.contains("hunter2"), "{}", outcome.error);
    }
}

#[test]
fn a_service_that_is_still_starting_says_so_on_its_admin_port() {
    let scene = Scene::new();
    let environment = [
        ("DATABASE_URL", "postgres://shop:hunter2@127.0.0.1:9/shop"),
        ("SHOP_HTTP__ADDR", "127.0.0.1:0"),
        ("SHOP_ADMIN__ADDR", "127.0.0.1:0"),
    ];
    let mut child = scene.command(&[], &environment).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let listening = lines.find(|line| line.contains("\"listening\"")).expect("the admin port listens first");
    let listening: serde_json::Value = serde_json::from_str(&listening).unwrap();
    assert_eq!(listening["server"], "admin");
    scene.run(&["health"], &[("SHOP_ADMIN__ADDR", listening["addr"].as_str().unwrap())]).refuses(&["starting"]);
    kill("-TERM", child.id());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
}

#[test]
fn a_data_folder_that_cannot_be_written_names_the_path_and_what_to_do() {
    let scene = Scene::new();
    let mut command = scene.command(&[], &[("SHOP_HTTP__ADDR", "127.0.0.1:0"), ("SHOP_ADMIN__ADDR", "127.0.0.1:0")]);
    // Root may write anywhere, so that as root the shop runs as somebody else, from a place anybody can reach.
    let program = scene.folder.path().join("shop");
    std::fs::copy(env!("CARGO_BIN_EXE_shop"), &program).unwrap();
    if is_root() {
        command = Command::new(&program);
        command
            .current_dir(scene.folder.path())
            .env_clear()
            .envs([("SHOP_HTTP__ADDR", "127.0.0.1:0"), ("SHOP_ADMIN__ADDR", "127.0.0.1:0")])
            .uid(65534)
            .gid(65534);
    }
    std::fs::set_permissions(scene.folder.path(), PermissionsExt::from_mode(0o555)).unwrap();
    let outcome = Outcome::of(command.output().unwrap());
    std::fs::set_permissions(scene.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    outcome.refuses(&["data", "database"]);
    assert!(outcome.error.to_lowercase().contains("permission"), "{}", outcome.error);
}

#[test]
fn a_named_configuration_file_has_to_exist_and_an_unnamed_one_need_not() {
    Scene::new().run(&["config"], &[]).says(&["http.addr"]);
    Scene::new().run(&["config", "--config", "lost.yaml"], &[]).refuses(&["lost.yaml", "--config"]);
    Scene::new().run(&["config"], &[("SHOP_CONFIG", "lost.yaml")]).refuses(&["lost.yaml", "SHOP_CONFIG"]);
}

/// What Kubernetes gives a container for a Service named shop, with a port named http, and one named shop-admin.
const KUBERNETES: [(&str, &str); 11] = [
    ("SHOP_SERVICE_HOST", "10.0.0.1"),
    ("SHOP_SERVICE_PORT", "8080"),
    ("SHOP_SERVICE_PORT_HTTP", "8080"),
    ("SHOP_PORT", "tcp://10.0.0.1:8080"),
    ("SHOP_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
    ("SHOP_PORT_8080_TCP_PROTO", "tcp"),
    ("SHOP_PORT_8080_TCP_PORT", "8080"),
    ("SHOP_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ("SHOP_ADMIN_SERVICE_HOST", "10.0.0.2"),
    ("SHOP_ADMIN_PORT", "tcp://10.0.0.2:9000"),
    ("SHOP_ADMIN_PORT_9000_TCP_ADDR", "10.0.0.2"),
];

#[test]
fn what_kubernetes_injects_is_no_configuration() {
    Scene::new().run(&["config"], &KUBERNETES).says(&["127.0.0.1:8080"]);
    // Beside it, a setting with a typing error is still refused.
    let mistaken = [&KUBERNETES[..], &[("SHOP_HTTP__ADR", "127.0.0.1:1")]].concat();
    Scene::new().run(&["config"], &mistaken).refuses(&["SHOP_HTTP__ADR", "addr"]);
}

#[test]
fn an_admin_port_that_others_reach_without_a_token_is_warned_of() {
    let environment =
        [("SHOP_HTTP__ADDR", "127.0.0.1:0"), ("SHOP_ADMIN__ADDR", "0.0.0.0:0"), ("SHOP_SHUTDOWN__SETTLE", "0s")];
    let warned = |token: &str| {
        let scene = Scene::new();
        let environment = [&environment[..], &[("SHOP_ADMIN__TOKEN", token)]].concat();
        let mut child = scene.command(&[], &environment).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut warned = false;
        lines.find(|line| {
            warned |= line.contains("off loopback without a token") && line.contains("SHOP_ADMIN__TOKEN");
            line.contains("\"ready\"")
        });
        kill("-TERM", child.id());
        let rest: Vec<String> = lines.collect();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
        warned
    };
    assert!(warned(""));
    assert!(!warned("s3cret"));
}

#[test]
fn config_shows_every_value_with_its_source_and_no_secret() {
    let scene = Scene::new().file("config.yaml", "paging:\n  max_limit: 7\n");
    let environment = [
        ("DATABASE_URL", "postgres://shop:hunter2@db/shop"),
        ("SHOP_HTTP__ADDR", "0.0.0.0:80"),
        ("RUST_LOG", "debug"),
        ("SHOP_ADMIN__TOKEN", "hunter2"),
    ];
    let outcome = scene.run(&["config"], &environment);
    outcome.says(&[]);
    let line = |key: &str| {
        let line = outcome.out.lines().find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("no {key} in\n{}", outcome.out)).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("paging.max_limit"), "paging.max_limit 7 config.yaml:2:14");
    assert_eq!(line("http.addr"), "http.addr 0.0.0.0:80 environment variable SHOP_HTTP__ADDR");
    assert_eq!(line("database.url"), "database.url postgres://shop:***@db/shop environment variable DATABASE_URL");
    assert_eq!(line("log.filter"), "log.filter debug environment variable RUST_LOG");
    assert_eq!(line("admin.addr"), "admin.addr 127.0.0.1:9000 default");
    assert_eq!(line("admin.token"), "admin.token *** environment variable SHOP_ADMIN__TOKEN");
    assert!(!outcome.out.contains("hunter2"));
}

#[test]
fn looking_connects_to_nothing() {
    let nowhere = [("DATABASE_URL", "postgres://127.0.0.1:9/shop")];
    let scene = Scene::new();
    scene.run(&["routes"], &nowhere).says(&["POST", "/v1/orders/{id}/cancel"]);
    scene.run(&["openapi"], &nowhere).says(&["\"openapi\": \"3.1"]);
    scene.run(&["config"], &nowhere).says(&["127.0.0.1:9"]);
    scene.run(&["health"], &[("SHOP_ADMIN__ADDR", "127.0.0.1:9")]).refuses(&["127.0.0.1:9", "admin.addr"]);
    assert_eq!(std::fs::read_dir(scene.folder.path()).unwrap().count(), 0, "looking left files behind");
    assert_eq!(scene.run(&["--frobnicate"], &[]).code, 2);
}

#[test]
fn migrations_go_up_and_down_by_hand_and_never_by_themselves() {
    let scene = Scene::new();
    scene.run(&["migrate", "down"], &[]).says(&["nothing to revert"]);
    scene.run(&["migrate", "status"], &[]).says(&["0001_create_shop", "pending"]);
    scene.run(&["migrate", "up", "--dry-run"], &[]).says(&["CREATE TABLE products"]);
    scene.run(&["migrate", "status"], &[]).says(&["pending"]);
    scene.run(&["migrate", "up"], &[]).says(&[
        "applied",
        "0001_create_shop",
        "0002_order_changes",
        "0003_stock_changes",
    ]);
    scene.run(&["migrate", "up"], &[]).says(&["nothing to apply"]);
    scene.run(&["migrate", "status"], &[]).says(&["applied"]);
    scene.run(&["migrate", "down"], &[]).says(&["reverted", "0003_stock_changes"]);
    scene.run(&["migrate", "down"], &[]).says(&["reverted", "0002_order_changes"]);
    scene.run(&["migrate", "down"], &[]).says(&["reverted", "0001_create_shop"]);
    scene.run(&["migrate", "new", "add_customer_email"], &[]).says(&["migrations/", "add_customer_email.up.sql"]);
}

#[test]
fn serve_says_where_to_look_answers_health_and_ends_in_order() {
    let scene = Scene::new();
    let environment =
        [("SHOP_HTTP__ADDR", "127.0.0.1:0"), ("SHOP_ADMIN__ADDR", "127.0.0.1:0"), ("SHOP_SHUTDOWN__SETTLE", "0s")];
    let environment = [&environment[..], &KUBERNETES].concat();
    let mut child = scene.command(&["serve"], &environment).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.find(|line| line.contains("\"ready\"")).expect("the shop says that it is ready");
    let ready: serde_json::Value = serde_json::from_str(&ready).unwrap();
    assert!(ready["database"].as_str().unwrap().contains("data/shop.db"), "{ready}");
    assert!(scene.folder.path().join("data/shop.db").exists());

    scene.run(&["health"], &[("SHOP_ADMIN__ADDR", ready["admin"].as_str().unwrap())]).says(&["ready"]);
    kill("-TERM", child.id());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:#?}");
}

fn kill(signal: &str, process: u32) {
    // The shell has a `kill` of its own; a program of that name may be missing.
    let command = format!("kill {signal} {process}");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
}

fn is_root() -> bool {
    Path::new("/proc/self")
        .metadata()
        .map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
        .unwrap_or(false)
}
