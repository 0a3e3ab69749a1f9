//! What the URL says.

use std::time::Duration;

use async_nats::ServerAddr;
use mainstay_core::{Error, Result};

/// Everything that the URL of a NATS server says, but for how the streams are named.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) servers: Vec<ServerAddr>,
    pub(crate) prefix: String,
    pub(crate) replicas: usize,
    pub(crate) max_age: Duration,
}

impl Address {
    /// Parses `nats://…` and `tls://…`. No error repeats the URL, which has a password in it.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |what: String| Error::invalid_argument(format!("the URL of NATS: {what}"));
        let (servers, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, hosts) = servers
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "nats" | "tls"))
            .ok_or_else(|| wrong("expected `nats://host:4222` or `tls://host:4222`".to_owned()))?;
        // The user stands before the first host, and counts for all.
        let (user, hosts) = hosts.rsplit_once('@').map_or(("", hosts), |(user, hosts)| (user, hosts));
        let at = if user.is_empty() { "" } else { "@" };
        let servers = hosts.split(',').map(|host| {
            let server = format!("{scheme}://{user}{at}{}", host.trim_end_matches('/'));
            server.parse().map_err(|_| wrong("a host that can't be read".to_owned()))
        });
        let mut address =
            Self { servers: servers.collect::<Result<_>>()?, prefix: String::new(), replicas: 1, max_age: days(7) };
        for (name, value) in
            query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
        {
            let number = || value.parse::<u32>().ok().filter(|number| *number > 0);
            match name {
                "prefix" if is_word(value) => address.prefix = format!("{value}."),
                "prefix" => return Err(wrong("prefix: expected letters, digits, `-` and `_`".to_owned())),
                "replicas" => {
                    let replicas = number().filter(|replicas| *replicas <= 5);
                    let replicas = replicas.ok_or_else(|| wrong("replicas: expected 1 to 5".to_owned()))?;
                    address.replicas = usize::try_from(replicas).unwrap_or(1);
                }
                "max_age" => {
                    address.max_age = days(number().ok_or_else(|| wrong("max_age: expected days".to_owned()))?);
                }
                other => {
                    let other = other.escape_default();
                    return Err(wrong(format!("`{other}` is not known; there are prefix, replicas and max_age")));
                }
            }
        }
        Ok(address)
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_the_reason() {
        let address = Address::parse("nats://me:secret@a:4222,b:4223?prefix=test&replicas=3&max_age=2").unwrap();
        assert_eq!(address.servers.len(), 2);
        assert_eq!((address.prefix.as_str(), address.replicas), ("test.", 3));
        assert_eq!(address.max_age.as_secs(), 2 * 86_400);
        assert_eq!(address.servers[1].host(), "b");
        assert_eq!(address.servers[1].password(), Some("secret"));
        for (url, says) in [
            ("http://a", "expected `nats://"),
            ("nats://a?prefix=a.b", "prefix"),
            ("nats://a?replicas=9", "1 to 5"),
            ("nats://a?max_age=x", "days"),
            ("nats://secret@a?colour=red", "`colour` is not known"),
            ("nats://secret@:x:y", "host"),
        ] {
            let error = Address::parse(url).unwrap_err().report().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
