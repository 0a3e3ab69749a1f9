//! Settings: which layer wins, what an error says, and that nothing secret is shown.

#![expect(clippy::unwrap_used, reason = "a test that can not make its scene has failed")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mainstay_core::settings::{Loader, Setting, Sources, duration};
use mainstay_core::{ByteSize, Code, Result, Secret, SecretUrl};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Debug, Deserialize, Serialize)]
#[serde(default)]
struct Http {
    addr: SocketAddr,
    #[serde(with = "duration")]
    deadline: Duration,
    #[serde(with = "duration::option")]
    idle: Option<Duration>,
    body_limit: ByteSize,
    workers: u16,
    ratio: f64,
    compress: bool,
    hosts: Vec<String>,
    ports: Vec<u16>,
    format: Format,
    tls: Option<Tls>,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Pretty,
}

#[derive(Debug, Deserialize, Serialize)]
struct Tls {
    cert: String,
    key: Secret,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Database {
    url: SecretUrl,
    password: Secret,
    plain_password: u32,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            addr: ([127, 0, 0, 1], 8080).into(),
            deadline: Duration::from_secs(30),
            idle: None,
            body_limit: ByteSize::mib(1),
            workers: 2,
            ratio: 0.5,
            compress: false,
            hosts: vec!["localhost".into()],
            ports: Vec::new(),
            format: Format::Json,
            tls: None,
            labels: BTreeMap::new(),
        }
    }
}

/// A folder with these files, and a loader that sees them and these variables.
fn scene(files: &[(&str, &str)], variables: &[(&str, &str)]) -> (tempfile::TempDir, Loader) {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let loader = Loader::new("shop").directory(directory.path()).environment(variables.iter().copied());
    (directory, loader)
}

fn load(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Sources> {
    scene(files, variables).1.load()
}

fn http(yaml: &str, variables: &[(&str, &str)]) -> Result<Http> {
    load(&[("config.yaml", yaml)], variables)?.section("http")
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    // The folder of the test is of no interest.
    let text = error.message().to_owned();
    text.split(std::env::temp_dir().to_str().unwrap())
        .map(|part| part.strip_prefix('/').and_then(|part| part.split_once('/')).map_or(part, |(_, rest)| rest))
        .collect()
}

fn setting<'a>(settings: &'a [Setting], key: &str) -> &'a Setting {
    settings.iter().find(|setting| setting.key == key).unwrap_or_else(|| panic!("no {key} in {settings:#?}"))
}

#[test]
fn each_layer_wins_over_the_one_below_key_by_key() {
    let base = ("config.yaml", "http:\n  workers: 3\n  deadline: 5s\n  hosts: [a, b]\n");
    let production = ("config.production.yaml", "http:\n  deadline: 6s\n");
    let files = [base, production];
    let in_production = ("SHOP_ENV", "production");

    assert_eq!(load(&[], &[]).unwrap().section::<Http>("http").unwrap().workers, 2);
    let http: Http = load(&files, &[]).unwrap().section("http").unwrap();
    assert_eq!((http.workers, http.deadline.as_secs()), (3, 5));
    let http: Http = load(&files, &[in_production]).unwrap().section("http").unwrap();
    assert_eq!((http.workers, http.deadline.as_secs(), http.hosts.len()), (3, 6, 2));
    let variables = [in_production, ("SHOP_HTTP__DEADLINE", "7s"), ("SHOP_HTTP__HOSTS", "c")];
    let http: Http = load(&files, &variables).unwrap().section("http").unwrap();
    assert_eq!((http.workers, http.deadline.as_secs(), http.hosts), (3, 7, vec!["c".to_owned()]));
    let (_directory, loader) = scene(&files, &variables);
    let http: Http =
        loader.set("http.deadline", "8s").set("http.deadline", "9s").load().unwrap().section("http").unwrap();
    assert_eq!(http.deadline.as_secs(), 9);
}

#[test]
fn a_section_with_every_line_commented_out_takes_nothing_away() {
    let base = ("config.yaml", "http:\n  workers: 3\n");
    for overlay in ["", "http:\n", "http:\n  # workers: 4\n", "# nothing\n"] {
        let files = [base, ("config.test.yaml", overlay)];
        let http: Http = load(&files, &[("SHOP_ENV", "test")]).unwrap().section("http").unwrap();
        assert_eq!(http.workers, 3, "{overlay:?}");
    }
}

#[test]
fn the_environment_is_text_and_becomes_every_type() {
    let http = http(
        "",
        &[
            ("SHOP_HTTP__ADDR", "0.0.0.0:80"),
            ("SHOP_HTTP__DEADLINE", "1m30s"),
            ("SHOP_HTTP__IDLE", "250ms"),
            ("SHOP_HTTP__BODY_LIMIT", "64KiB"),
            ("SHOP_HTTP__WORKERS", "8"),
            ("SHOP_HTTP__RATIO", "0.25"),
            ("SHOP_HTTP__COMPRESS", "true"),
            ("SHOP_HTTP__HOSTS", "a, b ,c"),
            ("SHOP_HTTP__PORTS", "80,443"),
            ("SHOP_HTTP__FORMAT", "pretty"),
            ("SHOP_HTTP__TLS__CERT", "/tls.crt"),
            ("SHOP_HTTP__TLS__KEY", "12345"),
            ("SHOP_HTTP__LABELS__TEAM", "checkout"),
        ],
    )
    .unwrap();
    assert_eq!(http.addr.to_string(), "0.0.0.0:80");
    assert_eq!((http.deadline, http.idle), (Duration::from_secs(90), Some(Duration::from_millis(250))));
    assert_eq!((http.body_limit, http.workers, http.ratio), (ByteSize::kib(64), 8, 0.25));
    assert_eq!((http.compress, http.format), (true, Format::Pretty));
    assert_eq!((http.hosts.join("|"), http.ports), ("a|b|c".to_owned(), vec![80, 443]));
    let tls = http.tls.unwrap();
    assert_eq!((tls.cert.as_str(), tls.key.expose()), ("/tls.crt", "12345"));
    assert_eq!(http.labels["team"], "checkout");
}

#[test]
fn an_empty_variable_is_nothing_or_an_empty_list() {
    let yaml = "http:\n  idle: 5s\n  hosts: [a]\n";
    let http = http(yaml, &[("SHOP_HTTP__IDLE", ""), ("SHOP_HTTP__HOSTS", "")]).unwrap();
    assert_eq!((http.idle, http.hosts.len()), (None, 0));
}

#[test]
fn yaml_scalars_keep_their_text() {
    let yaml =
        "http:\n  hosts: [1.10, 0755, yes, 'null']\n  labels: { version: 1.10 }\n  body_limit: 4096\n  workers: 0x10\n";
    let http = http(yaml, &[]).unwrap();
    assert_eq!(http.hosts, ["1.10", "0755", "yes", "null"]);
    assert_eq!(http.labels["version"], "1.10");
    assert_eq!((http.body_limit, http.workers), (ByteSize::kib(4), 16));
}

#[test]
fn a_wrong_value_is_told_with_its_key_its_place_and_what_was_expected() {
    for (yaml, variable, expected) in [
        (
            "http:\n  addr: localhost\n",
            None,
            "http.addr: expected an address such as 127.0.0.1:8080, found \"localhost\" (config.yaml:2:9)",
        ),
        (
            "",
            Some(("SHOP_HTTP__ADDR", "8080")),
            "http.addr: expected an address such as 127.0.0.1:8080, found \"8080\" (environment variable SHOP_HTTP__ADDR)",
        ),
        (
            "http: { deadline: 30 }",
            None,
            "http.deadline: expected a duration such as \"30s\" or \"250ms\", found \"30\" (config.yaml:1:19)",
        ),
        (
            "http: { idle: soon }",
            None,
            "http.idle: expected a duration such as \"30s\" or \"250ms\", found \"soon\" (config.yaml:1:15)",
        ),
        (
            "http: { workers: 70000 }",
            None,
            "http.workers: expected a whole number from 0 to 65535, found \"70000\" (config.yaml:1:18)",
        ),
        ("http: { ratio: half }", None, "http.ratio: expected a number, found \"half\" (config.yaml:1:16)"),
        ("http: { compress: 1 }", None, "http.compress: expected true or false, found \"1\" (config.yaml:1:19)"),
        (
            "http: { body_limit: 1Mi }",
            None,
            "http.body_limit: expected a size such as \"64KiB\", \"1MiB\" or a number of bytes, found \"1Mi\" (config.yaml:1:21)",
        ),
        (
            "http: { format: jsn }",
            None,
            "http.format: expected `json` or `pretty`; did you mean `json`?, found \"jsn\" (config.yaml:1:17)",
        ),
        (
            "http: { ports: [80, x] }",
            None,
            "http.ports[1]: expected a whole number from 0 to 65535, found \"x\" (config.yaml:1:21)",
        ),
        ("http: { hosts: a }", None, "http.hosts: expected a list, as [a, b], found a text (config.yaml:1:16)"),
        ("http: { addr: [a] }", None, "http.addr: expected socket address, found a list (config.yaml:1:15)"),
        (
            "http: { workers: }",
            None,
            "http.workers: expected a whole number from 0 to 65535, found nothing (config.yaml:1:16)",
        ),
        (
            "",
            Some(("SHOP_HTTP__TLS", "on")),
            "http.tls: expected keys `cert`, `key`, each set as SHOP_HTTP__TLS__<KEY>, found a text (environment variable SHOP_HTTP__TLS)",
        ),
        (
            "http: { tls: { cert: a } }",
            None,
            "http.tls.key: is required and has no default: set it in config.yaml or SHOP_HTTP__TLS__KEY",
        ),
        ("http: 5", None, "http: expected keys `addr`, `deadline`"),
    ] {
        let text = message(http(yaml, variable.as_slice()));
        let rest = text.strip_prefix("the configuration is not valid: ").unwrap_or_else(|| panic!("{text}"));
        assert!(rest.starts_with(expected), "\n{rest}\n{expected}");
    }
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    for (yaml, variable, expected) in [
        ("http: { adr: x }", None, "http.adr: unknown key; did you mean `addr`? (config.yaml:1:9)"),
        (
            "",
            Some(("SHOP_HTTP__WORKRES", "1")),
            "http.workres: unknown key; did you mean `workers`? (environment variable SHOP_HTTP__WORKRES)",
        ),
        ("http: { tls: { cert: a, key: b, kay: c } }", None, "http.tls.kay: unknown key; did you mean `key`?"),
        ("http: { tls: { cert: a, key: b, quux: c } }", None, "http.tls.quux: unknown key; known here: `cert`, `key`"),
        ("htpp: { workers: 1 }", None, "htpp: unknown section; did you mean `http`? (config.yaml:1:1)"),
        (
            "",
            Some(("SHOP_HTTPS__ADDR", "x")),
            "https: unknown section; did you mean `http`? (environment variable SHOP_HTTPS__ADDR)",
        ),
    ] {
        let mut sources = load(&[("config.yaml", yaml)], variable.as_slice()).unwrap();
        let _ = sources.section::<Http>("http");
        let _ = sources.rest::<()>();
        let text = message(sources.finish());
        assert!(text.contains(expected), "\n{text}\n{expected}");
    }
}

#[test]
fn all_faults_are_reported_together() {
    let yaml = "http:\n  addr: a\n  workers: b\n  wrokers: 1\n  ports: [80, c]\n  labels: { x: [1] }\n";
    let variables = [("SHOP_DATABASE__PLAIN_PASSWORD", "x"), ("SHOP_HTTP__RATIO", "d"), ("SHOP_TYPO__X", "1")];
    let mut sources = load(&[("config.yaml", yaml)], &variables).unwrap();
    let one = message(sources.section::<Http>("http"));
    assert!(one.starts_with("the configuration has 6 faults:\n  "), "{one}");
    let _ = sources.section::<Database>("database");
    let all = message(sources.finish());
    assert!(all.starts_with("the configuration has 8 faults:\n  "), "{all}");
    let keys = ["addr", "workers", "wrokers", "ports[1]", "labels.x", "ratio"].map(|key| format!("\n  http.{key}: "));
    for key in keys.iter().map(String::as_str).chain(["\n  database.plain_password: ", "\n  typo: "]) {
        assert_eq!(all.matches(key).count(), 1, "{key}: {all}");
    }
}

#[test]
fn a_list_of_records_tells_which_one_is_wrong() {
    #[derive(Debug, Deserialize, Serialize)]
    struct Rule {
        path: String,
        limit: u8,
    }
    #[derive(Debug, Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Limits {
        rules: Vec<Rule>,
        pair: Option<(u8, u8)>,
    }
    let read = |yaml: &str| load(&[("config.yaml", yaml)], &[]).unwrap().section::<Limits>("limits");
    let text = message(read("limits:\n  rules:\n    - { path: /, limit: 1 }\n    - { path: /x, limit: 300 }\n"));
    assert!(text.contains("limits.rules[1].limit: expected a whole number from 0 to 255, found \"300\""), "{text}");
    let text = message(read("limits: { rules: [{ path: / }] }"));
    assert!(text.contains("limits.rules[0].limit: is required and has no default: set it in config.yaml"), "{text}");
    let text = message(read("limits: { rules: [{ path: /, limit: 1, lmit: 2 }] }"));
    assert!(text.contains("limits.rules[0].lmit: unknown key; did you mean `limit`?"), "{text}");
    let text = message(read("limits: { pair: [1, 2, 3] }"));
    assert!(text.contains("limits.pair: expected a list of 2, not of 3"), "{text}");
}

#[test]
fn only_section_and_key_are_configuration() {
    let kubernetes = [
        ("SHOP_PORT", "tcp://10.0.0.1:80"),
        ("SHOP_SERVICE_HOST", "10.0.0.1"),
        ("SHOP_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("SHOP_HTTP", "x"),
        ("SHOP__X", "x"),
        ("SHOP_HTTP__", "x"),
        ("SHOP_HTTP___ADDR", "x"),
        ("SHOPPING_HTTP__ADDR", "x"),
        ("OTHER__THING", "x"),
    ];
    let mut sources = load(&[], &kubernetes).unwrap();
    sources.section::<Http>("http").unwrap();
    sources.rest::<()>().unwrap();
    sources.finish().unwrap();
}

#[test]
fn well_known_variables_stand_between_files_and_the_prefix() {
    let file = [("config.yaml", "database: { url: sqlite://file }")];
    let url = |variables: &[(&str, &str)]| {
        let (_directory, loader) = scene(&file, variables);
        let mut sources = loader.alias("DATABASE_URL", "database.url").load().unwrap();
        sources.section::<Database>("database").unwrap().url.expose().to_owned()
    };
    assert_eq!(url(&[]), "sqlite://file");
    assert_eq!(url(&[("DATABASE_URL", "")]), "sqlite://file");
    assert_eq!(url(&[("DATABASE_URL", "sqlite://alias")]), "sqlite://alias");
    assert_eq!(url(&[("DATABASE_URL", "sqlite://alias"), ("SHOP_DATABASE__URL", "sqlite://own")]), "sqlite://own");
}

#[test]
fn a_program_without_the_section_ignores_its_well_known_variable() {
    let with_alias = |variables: &[(&str, &str)]| {
        let (_directory, loader) = scene(&[], variables);
        loader.alias("DATABASE_URL", "database.url").load().unwrap()
    };
    let mut sources = with_alias(&[("DATABASE_URL", "sqlite://x")]);
    sources.rest::<()>().unwrap();
    sources.finish().unwrap();
    with_alias(&[("DATABASE_URL", "sqlite://x")]).finish().unwrap();
    let text = message(with_alias(&[("DATABASE_URL", "sqlite://x"), ("SHOP_DATABASE__POOL", "3")]).finish());
    assert!(text.contains("database: unknown section"), "{text}");
}

#[test]
fn the_program_reads_what_no_section_claims() {
    #[derive(Debug, Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Settings {
        greeting: String,
        stock: BTreeMap<String, u32>,
    }
    let yaml = "greeting: hi\nstock: { apples: 3 }\nhttp: { workers: 1 }\n";
    let mut sources = load(&[("config.yaml", yaml)], &[("SHOP_STOCK__PEARS", "4")]).unwrap();
    sources.section::<Http>("http").unwrap();
    sources.skip("cache");
    let own: Settings = sources.rest().unwrap();
    assert_eq!((own.greeting.as_str(), own.stock["apples"], own.stock["pears"]), ("hi", 3, 4));
    let settings = sources.finish().unwrap();
    assert_eq!(setting(&settings, "greeting").value, "hi");

    let mut sources = load(&[("config.yaml", "greting: hi\n")], &[]).unwrap();
    let text = message(sources.rest::<Settings>());
    assert!(text.contains("greting: unknown key; did you mean `greeting`? (config.yaml:1:1)"), "{text}");
}

#[test]
fn what_is_in_effect_is_listed_with_its_source() {
    let yaml = "http:\n  workers: 3\n  labels: { team: a }\n  tls:\n    cert: /c\n    key: hunter2\n";
    let (_directory, loader) =
        scene(&[("config.yaml", yaml)], &[("SHOP_HTTP__HOSTS", "a,b"), ("DATABASE_URL", "mysql://u:hunter2@db/shop")]);
    let mut sources = loader.alias("DATABASE_URL", "database.url").set("http.addr", "127.0.0.1:0").load().unwrap();
    sources.section::<Http>("http").unwrap();
    sources.section::<Database>("database").unwrap();
    let settings = sources.finish().unwrap();
    for (key, value, source) in [
        ("database.url", "mysql://u:***@db/shop", "environment variable DATABASE_URL"),
        ("database.password", "\"\"", "default"),
        ("database.plain_password", "***", "default"),
        ("http.addr", "127.0.0.1:0", "set by the program"),
        ("http.body_limit", "1MiB", "default"),
        ("http.deadline", "30s", "default"),
        ("http.hosts", "[a, b]", "environment variable SHOP_HTTP__HOSTS"),
        ("http.idle", "null", "default"),
        ("http.labels.team", "a", "config.yaml:3:19"),
        ("http.tls.key", "***", "config.yaml:6:10"),
        ("http.workers", "3", "config.yaml:2:12"),
    ] {
        let setting = setting(&settings, key);
        assert_eq!(setting.value, value, "{key}");
        assert!(setting.source.to_string().ends_with(source), "{key}: {}", setting.source);
    }
    assert!(settings.is_sorted_by_key(|setting| setting.key.clone()));
}

#[test]
fn no_error_and_no_listing_shows_a_secret() {
    let cases = [
        ("database: { password: [hunter2] }", None),
        ("database: { url: { x: hunter2 } }", None),
        ("database: { pasword: hunter2 }", None),
        ("database: { plain_password: hunter2 }", None),
        ("", Some(("SHOP_DATABASE__PLAIN_PASSWORD", "hunter2"))),
        ("", Some(("SHOP_DATABASE__PASSWORD__X", "hunter2"))),
        ("http: { addr: 'postgres://u:hunter2@db' }", None),
        ("http: { tls: hunter2, ratio: 'password=hunter2' }", None),
        ("http: { format: 'nats://hunter2@host' }", None),
    ];
    for (yaml, variable) in cases {
        let mut sources = load(&[("config.yaml", yaml)], variable.as_slice()).unwrap();
        let _ = sources.section::<Database>("database");
        if let Err(error) = sources.section::<Http>("http") {
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let error = sources.finish().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn a_named_file_must_exist_and_an_unnamed_one_need_not() {
    load(&[], &[]).unwrap();
    load(&[], &[("SHOP_ENV", "production")]).unwrap();
    let (directory, loader) = scene(&[("other.yaml", "http: { workers: 9 }")], &[]);
    let named = loader.config_file(Some(directory.path().join("other.yaml"))).load();
    assert_eq!(named.unwrap().section::<Http>("http").unwrap().workers, 9);

    let (_directory, loader) = scene(&[], &[]);
    let text = message(loader.config_file(Some("/none.yaml".into())).load());
    assert!(text.ends_with("/none.yaml: no such file, but --config names it"), "{text}");
    let text = message(load(&[], &[("SHOP_CONFIG", "/none.yaml")]));
    assert!(text.ends_with("/none.yaml: no such file, but SHOP_CONFIG names it"), "{text}");
    let text = message(load(&[], &[("SHOP_CONFIG", "/")]));
    assert!(text.contains("/: can't be read: "), "{text}");
}

#[test]
fn the_overlay_stands_beside_the_named_file() {
    let files = [("shop.yaml", "http: { workers: 4, ratio: 1 }"), ("shop.staging.yaml", "http: { workers: 5 }")];
    let (directory, loader) = scene(&files, &[("SHOP_ENV", "staging")]);
    let mut sources = loader.config_file(Some(directory.path().join("shop.yaml"))).load().unwrap();
    let http: Http = sources.section("http").unwrap();
    assert_eq!((http.workers, http.ratio), (5, 1.0));
    let text = message(load(&[], &[("SHOP_ENV", "../etc")]));
    assert!(text.contains("environment variable SHOP_ENV: expected the name of an environment"), "{text}");
}

#[test]
fn a_faulty_file_is_told_by_line_and_column() {
    for (content, expected) in [
        ("http:\n  addr: a\n  addr: b\n", "config.yaml:3:3: the key `addr` is given twice, first at "),
        ("http: [\n", "is not valid YAML: "),
        ("- a\n", "config.yaml:1:1: expected keys with values"),
    ] {
        let text = message(load(&[("config.yaml", content)], &[]));
        assert!(text.contains(expected), "{text}");
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.yaml"), b"a: 1\nb: \xff\n").unwrap();
    let none: [(&str, &str); 0] = [];
    let text = message(Loader::new("shop").directory(directory.path()).environment(none).load());
    assert!(text.ends_with("config.yaml: line 2 is not valid UTF-8"), "{text}");
    std::fs::write(directory.path().join("config.yaml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    let text = message(Loader::new("shop").directory(directory.path()).environment(none).load());
    assert!(text.ends_with("config.yaml: is larger than 1 MiB"), "{text}");
}

#[test]
fn variables_that_contradict_each_other_are_an_error() {
    let text = message(load(&[], &[("SHOP_HTTP__TLS", "x"), ("SHOP_HTTP__TLS__CERT", "y")]));
    assert!(text.contains("contradicts environment variable SHOP_HTTP__TLS: keep one of the two"), "{text}");
    let text = message(load(&[], &[("SHOP_HTTP__ADDR", "x"), ("SHOP_http__addr", "y")]));
    assert!(text.contains("contradicts environment variable"), "{text}");
    let deep = format!("SHOP_{}X", "A__".repeat(5000));
    let text = message(load(&[], &[(deep.as_str(), "x")]));
    assert!(text.contains("is nested deeper than 32 levels"), "{}", &text[text.len() - 200..]);
}

#[cfg(unix)]
#[test]
fn only_our_own_variables_have_to_be_utf8() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(vec![b'x', 0xff]);
    let loader = |name: OsString| Loader::new("shop").directory("/nowhere").environment([(name, bad())]);
    loader("OTHER".into()).load().unwrap();
    loader(bad()).load().unwrap();
    loader("SHOP_PORT".into()).load().unwrap();
    let text = message(loader("SHOP_HTTP__ADDR".into()).load());
    assert!(text.contains("http.addr: is not valid UTF-8 (environment variable SHOP_HTTP__ADDR)"), "{text}");
    let text = message(loader("DATABASE_URL".into()).alias("DATABASE_URL", "database.url").load());
    assert!(text.contains("database.url: is not valid UTF-8 (environment variable DATABASE_URL)"), "{text}");
}

#[test]
fn enums_with_content_and_flattened_maps_are_read() {
    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Store {
        Memory,
        Redis { url: String, pool: u8 },
        Weight(f32),
    }
    #[derive(Debug, Deserialize, Serialize)]
    struct Cache {
        store: Store,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    let read = |yaml: &str| load(&[("config.yaml", yaml)], &[]).unwrap().section::<Cache>("cache");
    assert_eq!(read("cache: { store: memory }").unwrap().store, Store::Memory);
    let cache = read("cache: { store: { redis: { url: x, pool: 3 } }, a: 1, b: -2, c: 1.5, d: 'true', e: true, f: ~ }");
    let cache = cache.unwrap();
    assert_eq!(cache.store, Store::Redis { url: "x".into(), pool: 3 });
    assert_eq!(
        serde_json::to_value(&cache.rest).unwrap(),
        serde_json::json!({ "a": 1, "b": -2, "c": 1.5, "d": "true", "e": true, "f": null })
    );
    assert_eq!(read("cache: { store: { weight: 1.5 } }").unwrap().store, Store::Weight(1.5));
    for yaml in [
        "cache: { store: redis }",
        "cache: { store: { memory: 1 } }",
        "cache: { store: { a: 1, b: 2 } }",
        "cache: { store: [] }",
        "cache: { store: ~ }",
        "cache: {}",
    ] {
        read(yaml).unwrap_err();
    }
}

#[test]
fn the_loader_reads_the_process_by_default() {
    // Nothing is asserted about this process but that reading it works.
    let sources = Loader::new("mainstay-core-test").directory(Path::new("/nowhere")).load();
    sources.unwrap().finish().unwrap();
}

proptest! {
    #[test]
    fn no_environment_makes_the_loader_panic(
        variables in prop::collection::vec(
            ("SHOP_(HTTP|DATABASE|\\PC{0,6})(__[A-Z_]{0,9}|__ADDR|__TLS|__TLS__KEY|__PORTS){0,3}", "\\PC{0,20}"),
            0..8,
        )
    ) {
        let loader = Loader::new("shop").directory("/nowhere").environment(variables);
        if let Ok(mut sources) = loader.load() {
            let _ = sources.section::<Http>("http");
            let _ = sources.section::<Database>("database");
            let _ = sources.rest::<BTreeMap<String, serde_json::Value>>();
            let _ = sources.finish();
        }
    }

    #[test]
    fn no_yaml_makes_the_loader_panic(
        lines in prop::collection::vec(
            "(http:|database:| {0,4}(addr|deadline|workers|ports|tls|cert|key|labels|format|url|\\PC{0,4}): ?(\\[|\\]|\\{|\\}|&a|\\*a|[0-9]{0,20}|\\PC{0,9}){0,3})",
            0..8,
        )
    ) {
        let yaml = lines.join("\n");
        if let Ok(mut sources) = load(&[("config.yaml", &yaml)], &[]) {
            let _ = sources.section::<Http>("http");
            let _ = sources.section::<Database>("database");
            let _ = sources.rest::<()>();
            let _ = sources.finish();
        }
    }
}
