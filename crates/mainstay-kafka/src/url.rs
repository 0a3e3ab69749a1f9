//! What the URL says.

use mainstay_core::{Error, Result};

/// The port of a host without one.
const PORT: u16 = 9092;

/// Everything that the URL of Kafka says.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    /// As `bootstrap.servers` takes them.
    pub(crate) servers: String,
    pub(crate) prefix: String,
    pub(crate) replicas: i32,
    pub(crate) max_age_ms: u64,
    pub(crate) verify: bool,
}

impl Address {
    /// Parses `kafka://…`.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |what: String| Error::invalid_argument(format!("the URL of Kafka: {what}"));
        let (servers, query) = url.split_once('?').unwrap_or((url, ""));
        let hosts = servers.strip_prefix("kafka://").ok_or_else(|| wrong("expected `kafka://host:9092`".to_owned()))?;
        if hosts.contains('@') {
            return Err(wrong("a user needs SASL, which this version doesn't have".to_owned()));
        }
        let servers = hosts.trim_end_matches('/').split(',').map(server).collect::<Option<Vec<_>>>();
        let servers = servers.ok_or_else(|| wrong("a host that can't be read".to_owned()))?.join(",");
        let mut address = Self { servers, prefix: String::new(), replicas: 1, max_age_ms: days(7), verify: true };
        for (name, value) in
            query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
        {
            match name {
                "prefix" if is_word(value) => address.prefix = format!("{value}."),
                "prefix" => return Err(wrong("prefix: expected letters, digits, `-` and `_`".to_owned())),
                "replicas" => {
                    let replicas = value.parse().ok().filter(|replicas| (1..=9).contains(replicas));
                    address.replicas = replicas.ok_or_else(|| wrong("replicas: expected 1 to 9".to_owned()))?;
                }
                "max_age" => {
                    let age = value.parse::<u32>().ok().filter(|age| *age > 0);
                    address.max_age_ms = days(age.ok_or_else(|| wrong("max_age: expected days".to_owned()))?);
                }
                "verify" => {
                    address.verify =
                        value.parse().map_err(|_| wrong("verify: expected `true` or `false`".to_owned()))?;
                }
                other => {
                    let other = other.escape_default();
                    return Err(wrong(format!(
                        "`{other}` is not known; there are prefix, replicas, max_age and verify"
                    )));
                }
            }
        }
        Ok(address)
    }

    /// The name of a topic on the server.
    pub(crate) fn topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }
}

/// A host with its port: `name`, `name:port`, `[v6]:port`.
fn server(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, PORT),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let known = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
    };
    known.then(|| format!("{host}:{port}"))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn days(days: u32) -> u64 {
    u64::from(days) * 24 * 60 * 60 * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_the_reason() {
        let address =
            Address::parse("kafka://a,b:9093,[::1]:1/?prefix=test&replicas=3&max_age=2&verify=false").unwrap();
        assert_eq!(address.servers, "a:9092,b:9093,[::1]:1");
        assert_eq!((address.topic("x.y").as_str(), address.replicas), ("test.x.y", 3));
        assert_eq!((address.max_age_ms, address.verify), (2 * 86_400_000, false));
        for (url, says) in [
            ("http://a", "expected `kafka://"),
            ("kafka://me:secret@a", "SASL"),
            ("kafka://a?prefix=a.b", "prefix"),
            ("kafka://a?replicas=10", "1 to 9"),
            ("kafka://a?max_age=0", "days"),
            ("kafka://a?verify=no", "`true` or `false`"),
            ("kafka://a?colour=red", "`colour` is not known"),
            ("kafka://a:x", "host"),
            ("kafka://a,,b", "host"),
            ("kafka://[a]:1", "host"),
        ] {
            let error = Address::parse(url).unwrap_err().report().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
