//! What the URL says.

use lapin::uri::AMQPUri;
use mainstay_core::{Error, Result};

use crate::link::HEARTBEAT;

/// Everything that the URL of a RabbitMQ server says.
#[derive(Clone)]
pub(crate) struct Address {
    /// One of each server; they are tried in turn.
    pub(crate) servers: Vec<AMQPUri>,
    pub(crate) prefix: String,
    pub(crate) replicas: Option<u32>,
    /// In days.
    pub(crate) max_age: u32,
}

impl Address {
    /// Parses `amqp://…` and `amqps://…`. No error repeats the URL, which has a password in it.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |what: String| Error::invalid_argument(format!("the URL of RabbitMQ: {what}"));
        let (servers, query) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, rest) = servers
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "amqp" | "amqps"))
            .ok_or_else(|| wrong("expected `amqp://host:5672` or `amqps://host:5671`".to_owned()))?;
        // The user stands before the first host, and counts for all; so does the virtual host behind the last.
        let (user, rest) = rest.rsplit_once('@').map_or(("", rest), |(user, rest)| (user, rest));
        let at = if user.is_empty() { "" } else { "@" };
        let (hosts, vhost) = rest.split_once('/').map_or((rest, ""), |(hosts, vhost)| (hosts, vhost));
        let slash = if vhost.is_empty() { "" } else { "/" };
        let servers = hosts.split(',').map(|host| {
            let server = format!("{scheme}://{user}{at}{host}{slash}{vhost}");
            let mut server: AMQPUri = server.parse().ok().filter(|_| !host.is_empty()).ok_or_else(|| {
                wrong("a host that can't be read; encode `/`, `@` and `:` in a password as %2F, %40 and %3A".to_owned())
            })?;
            server.query.heartbeat = Some(HEARTBEAT);
            Ok(server)
        });
        let mut address =
            Self { servers: servers.collect::<Result<_>>()?, prefix: String::new(), replicas: None, max_age: 7 };
        for (name, value) in
            query.split('&').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or((part, "")))
        {
            let number = || value.parse::<u32>().ok().filter(|number| *number > 0);
            match name {
                "prefix" if is_word(value) => address.prefix = format!("{value}."),
                "prefix" => {
                    return Err(wrong("prefix: expected up to 100 letters, digits, `-` and `_`".to_owned()));
                }
                "replicas" => {
                    let replicas = number().ok_or_else(|| wrong("replicas: expected 1 or more".to_owned()))?;
                    address.replicas = Some(replicas);
                }
                "max_age" => {
                    address.max_age = number().ok_or_else(|| wrong("max_age: expected days".to_owned()))?;
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
    (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_the_reason() {
        let address = Address::parse("amqp://me:se%2Fcret@a:5673,b/orders?prefix=test&replicas=3&max_age=2").unwrap();
        assert_eq!((address.prefix.as_str(), address.replicas, address.max_age), ("test.", Some(3), 2));
        let [a, b] = &address.servers[..] else { panic!("two servers") };
        assert_eq!((a.authority.host.as_str(), a.authority.port, a.vhost.as_str()), ("a", 5673, "orders"));
        assert_eq!((b.authority.host.as_str(), b.authority.port, b.vhost.as_str()), ("b", 5672, "orders"));
        assert_eq!(b.authority.userinfo.password, "se/cret");
        for usual in ["amqps://a", "amqps://a/"] {
            let address = Address::parse(usual).unwrap();
            assert_eq!((address.servers[0].vhost.as_str(), address.servers[0].authority.port), ("/", 5671));
        }
        for (url, says) in [
            ("http://a", "expected `amqp://"),
            ("amqp://a?prefix=a.b", "prefix"),
            ("amqp://a?replicas=0", "1 or more"),
            ("amqp://a?max_age=x", "days"),
            ("amqp://me:secret@a?colour=red", "`colour` is not known"),
            ("amqp://me:secret@a:x:y", "host"),
            ("amqp://me:secret@", "host"),
        ] {
            let error = Address::parse(url).err().unwrap().report().to_string();
            assert!(error.contains(says) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
