//! [`DatabaseUrl`]: the address of a database, parsed before anything is connected.

use std::fmt;
use std::path::PathBuf;

use mainstay_core::{Code, Error, Result};

use super::tls::{TlsMode, TlsTrust};
use crate::driver::Dialect;

const UNDERSTOOD: &str = "understood are sqlite://path/to/file.db, sqlite::memory:, \
                          postgres://user:password@host:5432/database and mysql://user:password@host:3306/database";

/// A database's address.
#[derive(Clone, Debug)]
pub(crate) enum DatabaseUrl {
    #[cfg_attr(not(feature = "sqlite"), allow(dead_code, reason = "parsed so that the refusal can name the feature"))]
    Sqlite(SqliteFile),
    #[cfg_attr(not(feature = "postgres"), allow(dead_code, reason = "parsed so that the refusal can name the feature"))]
    Postgres(Server),
    #[cfg_attr(not(feature = "mysql"), allow(dead_code, reason = "parsed so that the refusal can name the feature"))]
    Mysql(Server),
}

/// Where a SQLite database lives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SqliteFile {
    Memory,
    Path(PathBuf),
}

/// A server, who to be there, and which of its databases.
#[derive(Clone, PartialEq)]
pub(crate) struct Server {
    pub(crate) host: Host,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) database: Option<String>,
    pub(crate) application_name: Option<String>,
    pub(crate) tls: TlsTrust,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Host {
    Tcp { name: String, port: u16 },
    Unix(PathBuf),
}

impl DatabaseUrl {
    /// Reads `url`. No message repeats the URL, because it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once(':').ok_or_else(|| refuse(format!("no scheme; {UNDERSTOOD}")))?;
        match scheme {
            "sqlite" => sqlite(rest).map(Self::Sqlite),
            "postgres" | "postgresql" => {
                let (mut server, port) = server(rest, "postgres", 5432)?;
                if let Host::Unix(folder) = &mut server.host {
                    folder.push(format!(".s.PGSQL.{port}")); // what is given is the folder, as to libpq
                }
                Ok(Self::Postgres(server))
            }
            "mysql" | "mariadb" => {
                let (server, _) = server(rest, "root", 3306)?;
                if server.tls.mode == TlsMode::VerifyCa {
                    return Err(refuse(
                        "MySQL is checked by chain and name together or not at all: use ssl-mode=verify_identity, or \
                         required without ssl-ca",
                    ));
                }
                Ok(Self::Mysql(server))
            }
            other => Err(refuse(format!("scheme `{other}` isn't understood; {UNDERSTOOD}"))),
        }
    }

    pub(crate) fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
            Self::Mysql(_) => Dialect::Mysql,
        }
    }
}

fn sqlite(rest: &str) -> Result<SqliteFile> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.contains('?') {
        return Err(refuse("a sqlite URL takes no parameters"));
    }
    match percent_decode(path)?.as_str() {
        "" => Err(refuse("a sqlite URL needs a file, as in sqlite://data/shop.db, or sqlite::memory:")),
        ":memory:" => Ok(SqliteFile::Memory),
        path => Ok(SqliteFile::Path(PathBuf::from(path))),
    }
}

/// The server, and the port that was given or is the default, which names a PostgreSQL socket too.
fn server(rest: &str, default_user: &str, default_port: u16) -> Result<(Server, u16)> {
    let rest = rest.strip_prefix("//").ok_or_else(|| refuse(format!("`//` is missing; {UNDERSTOOD}")))?;
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may hold an unencoded `/` or `@`: the last `@` ends it.
    let (credentials, place) = match address.rsplit_once('@') {
        Some((credentials, place)) => (Some(credentials), place),
        None => (None, address),
    };
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (name, port) = host_and_port(authority, default_port)?;
    let mut user = default_user.to_owned();
    let mut password = None;
    if let Some(credentials) = credentials {
        let (name, secret) = credentials.split_once(':').map_or((credentials, None), |(name, pw)| (name, Some(pw)));
        user = percent_decode(name)?;
        password = secret.filter(|secret| !secret.is_empty()).map(percent_decode).transpose()?;
    }
    let mut host = Host::Tcp { name, port };
    let mut application_name = None;
    let (mut mode, mut root) = (None, None);
    for pair in parameters.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = percent_decode(value)?;
        match (key, value.as_str()) {
            ("sslmode" | "ssl-mode", name) => {
                mode = Some(TlsMode::parse(name).ok_or_else(|| {
                    refuse(format!("{key}={name} isn't understood; understood are {}", TlsMode::UNDERSTOOD))
                })?);
            }
            ("sslrootcert" | "ssl-ca", "") => return Err(refuse(format!("{key} needs the path of a PEM file"))),
            ("sslrootcert" | "ssl-ca", path) => root = Some(PathBuf::from(path)),
            ("host" | "socket", path) if path.starts_with('/') => host = Host::Unix(PathBuf::from(path)),
            ("host", name) => host = Host::Tcp { name: name.to_owned(), port },
            ("application_name", _) => application_name = Some(value),
            _ => {
                return Err(refuse(format!(
                    "parameter `{key}` isn't understood; understood are sslmode, sslrootcert, host, socket and \
                     application_name"
                )));
            }
        }
    }
    let tls = TlsTrust::new(mode, root).map_err(refuse)?;
    let database = Some(percent_decode(database)?).filter(|name| !name.is_empty());
    Ok((Server { host, user, password, database, application_name, tls }, port))
}

fn host_and_port(authority: &str, default_port: u16) -> Result<(String, u16)> {
    if authority.contains(',') {
        return Err(refuse("more than one host isn't supported: put a name or a proxy before them"));
    }
    let (name, port) = match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').ok_or_else(|| refuse("`]` is missing after an IPv6 address"))?,
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let port = match port.strip_prefix(':').unwrap_or(port) {
        "" => default_port,
        digits => digits.parse().map_err(|_| refuse("the port is no number from 0 to 65535"))?,
    };
    let name = if name.is_empty() { "127.0.0.1".to_owned() } else { percent_decode(name)? };
    Ok((name, port))
}

fn percent_decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| refuse("a `%` that two hexadecimal digits don't follow; write %25 for it"))?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(|_| refuse("percent-encoded text that is no UTF-8"))
}

fn refuse(what: impl fmt::Display) -> Error {
    Error::new(Code::InvalidArgument, format!("database url: {what}"))
}

/// `host:port/database`, never the password.
impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Tcp { name, port } if name.contains(':') => write!(f, "[{name}]:{port}")?,
            Host::Tcp { name, port } => write!(f, "{name}:{port}")?,
            Host::Unix(path) => write!(f, "{}", path.display())?,
        }
        self.database.as_ref().map_or(Ok(()), |database| write!(f, "/{database}"))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{self}", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_of(url: &str) -> Server {
        match DatabaseUrl::parse(url).unwrap() {
            DatabaseUrl::Postgres(server) | DatabaseUrl::Mysql(server) => server,
            DatabaseUrl::Sqlite(file) => panic!("{file:?}"),
        }
    }

    fn sqlite_of(url: &str) -> SqliteFile {
        match DatabaseUrl::parse(url).unwrap() {
            DatabaseUrl::Sqlite(file) => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sqlite_urls_name_a_file_or_memory() {
        assert_eq!(sqlite_of("sqlite://data/shop.db"), SqliteFile::Path("data/shop.db".into()));
        assert_eq!(sqlite_of("sqlite:///var/lib/a%20b.db"), SqliteFile::Path("/var/lib/a b.db".into()));
        assert_eq!(sqlite_of("sqlite::memory:"), SqliteFile::Memory);
        assert_eq!(sqlite_of("sqlite://:memory:"), SqliteFile::Memory);
    }

    #[test]
    fn server_urls_have_defaults_for_all_but_the_scheme() {
        let server = server_of("postgres://");
        assert_eq!((server.user.as_str(), server.to_string().as_str()), ("postgres", "127.0.0.1:5432"));
        let server = server_of("mariadb://[::1]/shop");
        assert_eq!((server.user.as_str(), server.to_string().as_str()), ("root", "[::1]:3306/shop"));
    }

    #[test]
    fn credentials_are_decoded_and_never_printed() {
        let server = server_of("postgresql://ada:p%40ss:w%2Ford@db:6000/shop?sslmode=disable");
        assert_eq!(server.password.as_deref(), Some("p@ss:w/ord"));
        assert_eq!(format!("{server:?} {server}"), "ada@db:6000/shop db:6000/shop");
        assert!(!format!("{:?}", super::super::DatabaseSettings::from_url("mysql://a:b%40c@h/d")).contains("b%40c"));
    }

    #[test]
    fn tls_is_asked_for_in_the_words_of_either_database() {
        for (parameters, mode, root) in [
            ("", TlsMode::Prefer, None),
            ("?sslmode=disable", TlsMode::Disable, None),
            ("?sslmode=require", TlsMode::Require, None),
            ("?ssl-mode=REQUIRED", TlsMode::Require, None),
            ("?ssl-mode=VERIFY_IDENTITY&ssl-ca=/etc/ca.pem", TlsMode::VerifyFull, Some("/etc/ca.pem")),
            ("?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem", TlsMode::VerifyFull, Some("/etc/ca.pem")),
            ("?sslrootcert=system&sslmode=verify-full", TlsMode::VerifyFull, None),
            ("?sslmode=verify-ca", TlsMode::VerifyCa, None),
            ("?sslmode=require&sslrootcert=/etc/ca.pem", TlsMode::VerifyCa, Some("/etc/ca.pem")), // as libpq does
        ] {
            let tls = server_of(&format!("postgres://db{parameters}")).tls;
            assert_eq!(tls, TlsTrust { mode, root: root.map(PathBuf::from) }, "{parameters}");
        }
    }

    #[test]
    fn sockets_are_parameters() {
        let server = server_of("postgres://ada@/shop?host=/run/postgresql");
        assert_eq!(server.host, Host::Unix("/run/postgresql/.s.PGSQL.5432".into()));
        let server = server_of("mysql://ada@localhost/shop?socket=%2Frun%2Fmysqld.sock");
        assert_eq!(server.host, Host::Unix("/run/mysqld.sock".into()));
    }

    #[test]
    fn what_is_not_understood_is_refused_with_what_is() {
        for (url, word) in [
            ("shop.db", "sqlite://path"),
            ("oracle://db", "postgres://"),
            ("postgres:db", "//"),
            ("postgres://db?sslmode=full", "verify-full"),
            ("postgres://db?sslmode=", "verify-full"),
            ("postgres://db?sslmode=prefer&sslrootcert=/ca.pem", "sslmode=verify-full"),
            ("postgres://db?sslrootcert=/ca.pem", "sslmode=verify-full"),
            ("postgres://db?sslmode=verify-full&sslrootcert=", "path"),
            ("mysql://db?ssl-mode=verify_ca", "verify_identity"),
            ("mysql://db?ssl-mode=REQUIRED&ssl-ca=/ca.pem", "verify_identity"),
            ("postgres://db?pool=3", "`pool`"),
            ("postgres://a,b/shop", "more than one host"),
            ("postgres://db:99999/shop", "port"),
            ("postgres://a:%zz@db/shop", "%25"),
            ("sqlite://", "file"),
        ] {
            let error = DatabaseUrl::parse(url).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(error.message().contains(word), "{url}: {error}");
        }
    }
}
