//! The inputs, by the names they have in the table.

/// One input.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) input: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

/// What the client does once all has been sent.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    Wait,
    /// It goes on sending this byte, with short pauses.
    Dribble(u8),
}

/// Every input, in the order of the table.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = slow();
    cases.extend(framing());
    cases.extend(sizes());
    cases.extend(text());
    cases.extend(json());
    cases.push(case("a handler that panics", get("/panic", "")));
    cases
}

fn slow() -> Vec<Case> {
    let body = "POST /orders HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    let hurried = body.replace("/orders", "/hurried").replace("1000", "1000000");
    vec![
        case("a connection that never sends a byte", ""),
        case("a head that stops half way", "GET /ok HTTP/1.1\r\nHost: te"),
        Case { then: Then::Dribble(b'x'), ..case("a head that comes byte by byte", "GET /ok HTTP/1.1\r\nX-Slow: ") },
        case("a body that stops half way", body),
        Case { then: Then::Dribble(b' '), ..case("a body that comes byte by byte", hurried) },
    ]
}

fn framing() -> Vec<Case> {
    let chunked = |body: &str| post("/text", "Transfer-Encoding: chunked\r\n", body);
    vec![
        case("bytes that are no text", vec![0, 1, 2, 3, 0xfe, 0xff, b'\r', b'\n', b'\r', b'\n']),
        case("a TLS handshake", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n".to_vec()),
        case("HTTP/0.9", "GET /ok\r\n\r\n"),
        case("an HTTP version of the future", "GET /ok HTTP/9.9\r\nHost: test\r\n\r\n"),
        case("a method that is no token", "G(T /ok HTTP/1.1\r\nHost: test\r\n\r\n"),
        case("a header without a colon", get("/ok", "Broken header\r\n")),
        case("a space before a header's colon", get("/ok", "X-Broken : 1\r\n")),
        case("a folded header", get("/ok", "X-Folded: a\r\n b\r\n")),
        case(
            "two different Content-Length headers",
            post("/text", "Content-Length: 2\r\nContent-Length: 3\r\n", "abc"),
        ),
        case("HTTP/1.1 without Host", "GET /ok HTTP/1.1\r\n\r\n"),
        case("the same Content-Length twice", post("/text", "Content-Length: 3\r\nContent-Length: 3\r\n", "abc")),
        case("a negative Content-Length", post("/text", "Content-Length: -1\r\n", "")),
        case("a Content-Length beyond 64 bits", post("/text", "Content-Length: 99999999999999999999\r\n", "")),
        case(
            "Content-Length and Transfer-Encoding",
            post("/text", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ),
        case(
            "Transfer-Encoding and Content-Length",
            post("/text", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ),
        case("a transfer encoding that is not chunked", post("/text", "Transfer-Encoding: gzip\r\n", "abc")),
        case(
            "chunked in HTTP/1.0",
            "POST /text HTTP/1.0\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        ),
        case("a chunk size that is no number", chunked("xyz\r\nabc\r\n0\r\n\r\n")),
        case("a chunk size beyond 64 bits", chunked("fffffffffffffffff\r\nabc\r\n0\r\n\r\n")),
        case("a chunk longer than its size", chunked("2\r\nabc\r\n0\r\n\r\n")),
        case("a chunk extension of 64 KiB", chunked(&format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(64 * 1024)))),
        case("HTTP/2 preface, then HTTP/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /ok HTTP/1.1\r\n\r\n"),
    ]
}

fn sizes() -> Vec<Case> {
    let json = "Content-Type: application/json\r\n";
    let too_large = format!(r#"{{"customer":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let chunks: String = (0..40).map(|_| format!("10000\r\n{}\r\n", "x".repeat(0x10000))).collect();
    vec![
        case("a head of 20 KiB", get("/ok", &format!("X-Large: {}\r\n", "x".repeat(20 * 1024)))),
        case("a head of 1 MiB", get("/ok", &format!("X-Large: {}\r\n", "x".repeat(1024 * 1024)))),
        case("70 headers", get("/ok", &"X-Many: 1\r\n".repeat(70))),
        case("1,000 headers", get("/ok", &"X-Many: 1\r\n".repeat(1000))),
        case("a target of 20 KiB", get(&format!("/{}", "x".repeat(20 * 1024)), "")),
        case("a target of 100 KiB", get(&format!("/{}", "x".repeat(100 * 1024)), "")),
        case("an announced body of 2 GiB", post("/orders", &format!("{json}Content-Length: 2147483648\r\n"), "")),
        case("a body of 2 MiB", with_length("/orders", json, too_large.as_bytes())),
        case("a chunked body of 2.5 MiB", post("/orders", &format!("{json}Transfer-Encoding: chunked\r\n"), &chunks)),
    ]
}

fn text() -> Vec<Case> {
    let mut header = b"GET /ok HTTP/1.1\r\nHost: test\r\nX-Binary: ".to_vec();
    header.extend(b"\xff\xfe\r\n\r\n");
    let mut control = b"GET /ok HTTP/1.1\r\nHost: test\r\nX-Binary: ".to_vec();
    control.extend(b"a\0b\r\n\r\n");
    let raw_path = b"GET /names/\xff\xfe HTTP/1.1\r\nHost: test\r\n\r\n".to_vec();
    vec![
        case("a header that is not UTF-8", header),
        case("a header with a NUL", control),
        case("a request id that is not ASCII", {
            let mut bytes = b"GET /ok HTTP/1.1\r\nHost: test\r\nX-Request-Id: ".to_vec();
            bytes.extend(b"\xff\xfe\r\n\r\n");
            bytes
        }),
        case("a trace that is malformed", get("/ok", "traceparent: 00-zz-zz-01\r\n")),
        case("a Connect-Timeout-Ms that is no number", get("/ok", "Connect-Timeout-Ms: soon\r\n")),
        case("a Grpc-Timeout without a unit", get("/ok", "Grpc-Timeout: 100\r\n")),
        case("raw bytes in the path", raw_path),
        case("a path that is not UTF-8 after decoding", get("/names/%FF%FE", "")),
        case("a path with a broken escape", get("/names/%zz", "")),
        case("a path parameter of the wrong type", get("/numbers/seven", "")),
        case("a query that is not UTF-8 after decoding", get("/search?search=%FF", "")),
        case("a query with a broken escape", get("/search?search=%zz", "")),
        case("a query without what is needed", get("/search", "")),
        case("a body that is not UTF-8 where text is needed", with_length("/text", "", b"\xff\xfe")),
        case("no route", get("/nowhere", "")),
        case("a method the route doesn't offer", post("/ok", "Content-Length: 0\r\n", "")),
    ]
}

fn json() -> Vec<Case> {
    let order = |body: &[u8]| with_length("/orders", "Content-Type: application/json\r\n", body);
    let anything = |body: &str| with_length("/anything", "Content-Type: application/json\r\n", body.as_bytes());
    let nested = |depth: usize| format!(r#"{{"value":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let ignored = format!(r#"{{"customer":"a","other":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    vec![
        case("JSON without a content type", with_length("/orders", "", br#"{"customer":"a"}"#)),
        case("a form where JSON is needed", {
            with_length("/orders", "Content-Type: application/x-www-form-urlencoded\r\n", b"customer=a")
        }),
        case("an empty body where JSON is needed", order(b"")),
        case("JSON that breaks off", order(br#"{"customer":"#)),
        case("JSON with something behind it", order(br#"{"customer":"a"} x"#)),
        case("JSON that is not UTF-8", order(b"{\"customer\":\"\xff\xfe\"}")),
        case("JSON with half a surrogate pair", order(br#"{"customer":"\ud800"}"#)),
        case("JSON of another form", order(b"[1, 2]")),
        case("JSON with a field of another type", order(br#"{"customer":7}"#)),
        case("JSON that breaks a rule", order(br#"{"customer":""}"#)),
        case("JSON with a field twice", order(br#"{"customer":"a","customer":"b"}"#)),
        case("JSON nested 100 deep", anything(&nested(100))),
        case("JSON nested 100,000 deep", anything(&nested(100_000))),
        case("JSON nested 100,000 deep in a field nobody reads", order(ignored.as_bytes())),
        case("a number beyond every type", anything(&format!(r#"{{"value":1{}}}"#, "0".repeat(400)))),
    ]
}

fn case(input: &'static str, bytes: impl Into<Vec<u8>>) -> Case {
    Case { input, bytes: bytes.into(), then: Then::Wait }
}

fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

fn post(target: &str, headers: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n{body}")
}

fn with_length(target: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = post(target, &format!("{headers}Content-Length: {}\r\n", body.len()), "").into_bytes();
    bytes.extend(body);
    bytes
}
