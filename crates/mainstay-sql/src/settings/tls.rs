//! [`TlsTrust`]: whether the connection to a server is encrypted, and whom it trusts.

use std::path::PathBuf;

/// What a URL says of TLS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsTrust {
    pub(crate) mode: TlsMode,
    /// The authorities to trust, as a PEM file; those of the system otherwise.
    pub(crate) root: Option<PathBuf>,
}

/// The steps of libpq's `sslmode` and MySQL's `ssl-mode`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum TlsMode {
    /// Never.
    Disable,
    /// If the server has it, whoever the server is: against those who only listen.
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, and an authority that is trusted vouches for the server, under any name.
    VerifyCa,
    /// Always, and an authority that is trusted vouches for the server under the name in the URL.
    VerifyFull,
}

impl TlsMode {
    pub(super) const UNDERSTOOD: &str = "disable, prefer, require, verify-ca and verify-full, and MySQL's disabled, \
                                         preferred, required and verify_identity";

    /// The mode by its name with PostgreSQL or MySQL, in any case.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "disable" | "disabled" => Some(Self::Disable),
            "allow" | "prefer" | "preferred" => Some(Self::Prefer),
            "require" | "required" => Some(Self::Require),
            "verify-ca" | "verify_ca" => Some(Self::VerifyCa),
            "verify-full" | "verify_identity" => Some(Self::VerifyFull),
            _ => None,
        }
    }
}

impl TlsTrust {
    /// Puts the two parameters together. A certificate that nothing would be checked against is a mistake.
    pub(super) fn new(mode: Option<TlsMode>, root: Option<PathBuf>) -> Result<Self, &'static str> {
        let mode = match (mode.unwrap_or(TlsMode::Prefer), &root) {
            (TlsMode::Disable | TlsMode::Prefer, Some(_)) => {
                return Err("a root certificate is given and nothing would be checked against it: \
                            add sslmode=verify-full (MySQL: ssl-mode=verify_identity)");
            }
            (TlsMode::Require, Some(_)) => TlsMode::VerifyCa,
            (mode, _) => mode,
        };
        Ok(Self { mode, root: root.filter(|path| path.as_os_str() != "system") })
    }
}
