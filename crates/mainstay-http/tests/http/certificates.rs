//! Certificates made for one test.

use std::path::PathBuf;

use mainstay_http::TlsSettings;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// An authority that nobody knows.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub(crate) struct Certificate {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    pub(crate) der: Vec<u8>,
}

/// Where a server finds its certificate.
pub(crate) struct Folder(TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // Two authorities of one name would be one with a bad signature, instead of one known and one not.
        params.distinguished_name.push(DnType::CommonName, format!("{:02x?}", &key.public_key_raw()[..8]));
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.0.der().to_vec()
    }

    /// For `localhost` and 127.0.0.1.
    pub(crate) fn local(&self) -> Certificate {
        self.issue(CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap())
    }

    pub(crate) fn for_another_host(&self) -> Certificate {
        self.issue(CertificateParams::new(["another.test".to_owned()]).unwrap())
    }

    pub(crate) fn expired(&self) -> Certificate {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
        self.issue(params)
    }

    fn issue(&self, params: CertificateParams) -> Certificate {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Certificate {
            certificate: certificate.pem(),
            private_key: key.serialize_pem(),
            der: certificate.der().to_vec(),
        }
    }
}

impl Folder {
    pub(crate) fn with(certificate: &Certificate) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put(certificate);
        folder
    }

    pub(crate) fn put(&self, certificate: &Certificate) {
        std::fs::write(self.certificate(), &certificate.certificate).unwrap();
        std::fs::write(self.private_key(), &certificate.private_key).unwrap();
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.path().join("tls.crt")
    }

    pub(crate) fn private_key(&self) -> PathBuf {
        self.0.path().join("tls.key")
    }

    pub(crate) fn settings(&self) -> TlsSettings {
        TlsSettings::new(self.certificate(), self.private_key())
    }
}
