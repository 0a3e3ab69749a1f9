//! HTTPS: the certificate, read when the server starts and again whenever its files change.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use mainstay_core::{Code, Error, Result};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::settings::TlsSettings;

/// How long a handshake may go on once the server drains: a round trip or two, for a client that has just connected.
const LATE_HANDSHAKE_GRACE: Duration = Duration::from_secs(1);

/// Makes TLS streams of accepted sockets, with the certificate of the moment.
pub(crate) struct Tls {
    settings: TlsSettings,
    /// A new certificate is a whole new configuration: sessions of the old one are not resumed, so that every new
    /// connection is checked against the new certificate.
    current: RwLock<Arc<ServerConfig>>,
}

/// What the two files hold. They are compared by content: a mounted secret is swapped by a symbolic link, and two
/// changes may fall into one tick of a file system's clock.
#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    /// `FailedPrecondition` that names the file and what is wrong with it.
    pub(crate) async fn load(settings: &TlsSettings) -> Result<(Self, Watch)> {
        let files = Files::read(settings).await?;
        let current = RwLock::new(Arc::new(files.configuration(settings)?));
        Ok((Self { settings: settings.clone(), current }, Watch { last: Ok(files) }))
    }

    /// The handshake, within its time limit.
    pub(crate) async fn handshake<S>(&self, stream: S, draining: &CancellationToken) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let configuration = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let late = async {
            draining.cancelled().await;
            tokio::time::sleep(LATE_HANDSHAKE_GRACE).await;
        };
        tokio::select! {
            result = TlsAcceptor::from(configuration).accept(stream) => result,
            () = tokio::time::sleep(self.settings.handshake_timeout) => {
                Err(io::Error::new(ErrorKind::TimedOut, "the TLS handshake took too long"))
            }
            () = late => Err(io::Error::new(ErrorKind::TimedOut, "the server ended before the TLS handshake did")),
        }
    }

    /// Looks at the files in the interval of the settings, for ever. New connections get a new certificate; one that
    /// can't be used is told in the log, once, and the one before stays.
    pub(crate) async fn watch(&self, mut watch: Watch) {
        if self.settings.reload_interval.is_zero() {
            return std::future::pending().await;
        }
        let mut ticks = interval(self.settings.reload_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look(&mut watch).await;
        }
    }

    async fn look(&self, watch: &mut Watch) {
        let found = Files::read(&self.settings).await.map_err(|error| error.message().to_owned());
        if found == watch.last {
            return;
        }
        let usable = found
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|files| files.configuration(&self.settings).map_err(|error| error.message().to_owned()));
        match usable {
            Ok(configuration) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(configuration);
                let certificate = self.settings.certificate.display();
                tracing::info!(target: "mainstay::http", %certificate, "new TLS certificate");
            }
            Err(error) => {
                tracing::error!(target: "mainstay::http", error, "the TLS certificate stays as it was");
            }
        }
        watch.last = found;
    }
}

/// What was seen in the files last, also if it could not be used: a mistake is logged once and not at every look.
pub(crate) struct Watch {
    last: Result<Files, String>,
}

impl Files {
    async fn read(settings: &TlsSettings) -> Result<Self> {
        let read = async |key: &str, path: &Path| {
            tokio::fs::read(path).await.map_err(|error| unusable(key, path, error.to_string()).with_source(error))
        };
        Ok(Self {
            certificate: read("certificate", &settings.certificate).await?,
            private_key: read("private_key", &settings.private_key).await?,
        })
    }

    fn configuration(&self, settings: &TlsSettings) -> Result<ServerConfig> {
        let (certificate, private_key) = (&settings.certificate, &settings.private_key);
        let of_certificate = |what: String| unusable("certificate", certificate, what);
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| of_certificate(format!("it is no PEM file: {error}")))?;
        if chain.is_empty() {
            return Err(of_certificate("there is no certificate in it (a block `BEGIN CERTIFICATE`)".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.private_key).map_err(|error| {
            let what = match error {
                pem::Error::NoItemsFound => {
                    "there is no private key in it (a block `BEGIN PRIVATE KEY`, not encrypted)".to_owned()
                }
                error => format!("it is no PEM file: {error}"),
            };
            unusable("private_key", private_key, what)
        })?;
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| of_certificate(error.to_string()))?;
        let mut configuration =
            builder.with_no_client_auth().with_single_cert(chain, key).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    let what = format!("it is not the key of the certificate in {}", certificate.display());
                    unusable("private_key", private_key, what)
                }
                rustls::Error::InvalidCertificate(_) => of_certificate(error.to_string()),
                error => unusable("private_key", private_key, error.to_string()),
            })?;
        configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(configuration)
    }
}

fn unusable(key: &str, path: &Path, what: String) -> Error {
    Error::new(Code::FailedPrecondition, format!("http.tls.{key} {} can't be used: {what}", path.display()))
}
