//! [`Secret`] and [`SecretUrl`]: values that can be used and never be shown by accident.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// What is shown in the place of a secret.
pub(crate) const MASK: &str = "***";

/// The words that a key ends with when its value is not to be shown, whatever its type is.
const SECRET_WORDS: [&str; 8] =
    ["password", "passphrase", "passwd", "secret", "token", "api_key", "private_key", "credentials"];

/// A text that is masked wherever it is printed, logged or serialised: `***`, or nothing at all while it is empty.
///
/// Only [`Secret::expose`] gives the text. Serialising loses it by design: `config` prints settings that way, and
/// settings are never written back. Copies in memory are not wiped, and a format that finds a number where the text
/// should be may quote it in its error; the settings reader doesn't.
///
/// ```
/// # use mainstay_core::Secret;
/// let key = Secret::from("hunter2");
/// assert_eq!(format!("{key} {key:?}"), "*** ***");
/// assert_eq!(key.expose(), "hunter2");
/// ```
#[derive(Clone, Default)]
pub struct Secret(String);

/// A URL that may carry a password, such as a database's; its password is masked wherever it is shown.
///
/// It is not checked beyond that: what a URL may say is known to the driver that connects with it. [`mask_url`] says
/// what is masked.
///
/// ```
/// # use mainstay_core::SecretUrl;
/// let url = SecretUrl::from("postgres://shop:hunter2@db.internal/shop");
/// assert_eq!(url.to_string(), "postgres://shop:***@db.internal/shop");
/// assert_eq!(url.expose(), "postgres://shop:hunter2@db.internal/shop");
/// ```
#[derive(Clone, Default)]
pub struct SecretUrl(String);

impl Secret {
    /// The text itself: for the call that needs it, not for a variable that lives on.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty, which in settings means that none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn shown(&self) -> &'static str {
        if self.0.is_empty() { "" } else { MASK }
    }
}

impl SecretUrl {
    /// The URL with its password: for the call that connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the URL is empty, which in settings means that none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands before `://`, as `postgres`; `None` if nothing does.
    pub fn scheme(&self) -> Option<&str> {
        self.0.split_once("://").map(|(scheme, _)| scheme)
    }
}

/// Hides what is secret in a URL or a connection string: the password (or, where there is only one name before the
/// `@`, that name, because some brokers carry a token there), and the values of parameters such as `password=`.
///
/// It rather hides too much than too little: a password with an unescaped `/`, `?` or `@` in it is hidden whole.
///
/// ```
/// # use mainstay_core::mask_url;
/// assert_eq!(mask_url("amqp://shop:pa/ss@broker/vhost"), "amqp://shop:***@broker/vhost");
/// assert_eq!(mask_url("nats://s3cr3t@broker"), "nats://***@broker");
/// assert_eq!(mask_url("host=db user=shop password=x"), "host=db user=shop password=***");
/// assert_eq!(mask_url("http://127.0.0.1:8080/"), "http://127.0.0.1:8080/");
/// ```
pub fn mask_url(text: &str) -> String {
    mask_parameters(&mask_user(text))
}

/// Whether a key's name alone says that its value is not to be shown.
pub(crate) fn is_secret_name(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase().replace('-', "_");
    SECRET_WORDS.iter().any(|word| last.ends_with(word))
}

fn mask_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // The last `@` of all, not of the authority: a password may hold an unescaped `/`, and a list of URLs several `@`.
    let Some((user, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match user.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:{MASK}@{host}"),
        None => format!("{scheme}://{MASK}@{host}"),
    }
}

fn mask_parameters(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('=') {
        shown.push_str(before);
        shown.push('=');
        let name = before.trim_end().rsplit(['?', '&', ';', ' ', '\t', '\n']).next().unwrap_or_default();
        rest = after;
        if is_secret_name(name) {
            shown.push_str(MASK);
            // A quoted value may hold anything, so that its end is only known to the driver: hide all that follows.
            let quoted = after.trim_start().starts_with(['\'', '"']);
            let value = after.len() - after.trim_start().len();
            let end = after[value..].find(['&', ';', ' ', '\t', '\n']).map(|end| value + end);
            rest = end.filter(|_| !quoted).map_or("", |end| &after[end..]);
        }
    }
    shown.push_str(rest);
    shown
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for SecretUrl {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for SecretUrl {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for SecretUrl {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.into())
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask_url(&self.0))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Both go through a newtype with a known name: that is how the reader of settings learns not to quote the value in an
// error. Other formats don't see the name.
pub(crate) const SECRET_TYPES: [&str; 2] = ["mainstay::Secret", "mainstay::SecretUrl"];

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(SECRET_TYPES[0], self.shown())
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(SECRET_TYPES[1], &mask_url(&self.0))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SECRET_TYPES[0], Text("text")).map(Self)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_newtype_struct(SECRET_TYPES[1], Text("a URL such as scheme://user:password@host"))
            .map(Self)
    }
}

/// Reads a text, with or without the newtype around it.
struct Text(&'static str);

impl<'de> Visitor<'de> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_string(self)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Secret::from("hunter2");
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!(format!("{secret}|{secret:?}|{secret:#?}|{json}"), "***|***|***|\"***\"");
        let url = SecretUrl::from("redis://:hunter2@cache:6379/0");
        let json = serde_json::to_string(&url).unwrap();
        assert!(!format!("{url}{url:?}{json}").contains("hunter2"));
        assert_eq!(url.scheme(), Some("redis"));
    }

    #[test]
    fn an_empty_secret_shows_that_it_is_empty() {
        assert_eq!(format!("[{}]", Secret::default()), "[]");
        assert!(SecretUrl::default().is_empty());
    }

    #[test]
    fn masking_a_url_never_leaves_its_password() {
        for (url, shown) in [
            ("postgres://shop:s3@db:5432/shop?sslmode=require", "postgres://shop:***@db:5432/shop?sslmode=require"),
            ("postgres://shop:p@s3/x?y#z@db/shop", "postgres://shop:***@db/shop"),
            (
                "postgres:///shop?user=shop&password=s3&sslmode=off",
                "postgres:///shop?user=shop&password=***&sslmode=off",
            ),
            ("nats://a:s3@one,nats://b:s3@two", "nats://a:***@two"),
            ("nats://s3@one", "nats://***@one"),
            ("redis://:s3@cache/0", "redis://:***@cache/0"),
            ("host=db password = s3 dbname=shop", "host=db password =*** dbname=shop"),
            ("host=db password='s3 s3' dbname=shop", "host=db password=***"),
            ("Server=db;Password=s3;Database=shop", "Server=db;Password=***;Database=shop"),
            ("https://host/?access_token=s3", "https://host/?access_token=***"),
            ("sqlite://data/shop.db", "sqlite://data/shop.db"),
            ("plain text, a=b", "plain text, a=b"),
            ("password=", "password=***"),
            ("=", "="),
            ("", ""),
        ] {
            assert_eq!(mask_url(url), shown);
            assert!(!mask_url(url).contains("s3"), "{url}");
        }
    }

    #[test]
    fn names_that_end_like_a_secret_are_secret() {
        for (name, secret) in [
            ("db.password", true),
            ("auth.API-Key", true),
            ("jwt.signing_secret", true),
            ("token", true),
            ("token_lifetime", false),
            ("partition_key", false),
            ("http.addr", false),
        ] {
            assert_eq!(is_secret_name(name), secret, "{name}");
        }
    }

    #[test]
    fn secrets_are_read_from_any_format() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret.expose(), "hunter2");
        let error = serde_json::from_str::<Secret>("[\"hunter2\"]").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
