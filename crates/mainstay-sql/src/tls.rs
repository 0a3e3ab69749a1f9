//! TLS to a database server: whom to trust, and what a refusal means.

use std::path::Path;
use std::{fmt, io};

use mainstay_core::{Code, Error, Result};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};

/// The certificates to trust: those in `file`, or the system's.
///
/// # Errors
/// `FailedPrecondition` that names the file and what is wrong with it.
pub(crate) fn roots(file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        return match found.certs.is_empty() {
            false => Ok(found.certs),
            true => Err(Error::failed_precondition(
                "the system has no root certificates: install them (package ca-certificates), or name a file by \
                 sslrootcert (MySQL: ssl-ca) in the database url",
            )),
        };
    };
    let unusable = |what: String| {
        Error::new(Code::FailedPrecondition, format!("root certificate {} can't be used: {what}", file.display()))
    };
    let text = std::fs::read(file).map_err(|error| unusable(error.to_string()))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(format!("it is no PEM file: {error}")))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it (a block `BEGIN CERTIFICATE`)".to_owned()));
    }
    // What the system holds may be partly unusable; what was named has to be usable as a whole.
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| unusable(error.to_string()))?;
    }
    Ok(certificates)
}

/// What rustls said, if it is what broke the connection.
pub(crate) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A server whose certificate is refused: no other try will change that, so it says what to do.
pub(crate) fn refused_certificate(error: &io::Error, place: &impl fmt::Display) -> Option<Error> {
    let refusal = rustls_error(error)?;
    let rustls::Error::InvalidCertificate(reason) = refusal else { return None };
    let remedy = match reason {
        CertificateError::UnknownIssuer => "name its authority by sslrootcert (MySQL: ssl-ca) in the database url",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "connect by a name that is in the certificate"
        }
        _ => "the server needs another certificate",
    };
    let error = Error::failed_precondition("the certificate of the database was refused");
    Some(error.with_source(refusal.clone()).context(format!("connecting to {place}: {remedy}")))
}

/// A server that has no TLS and should have.
pub(crate) fn no_tls(place: &impl fmt::Display) -> Error {
    Error::failed_precondition("the database has no TLS, and its url asks for it").context(format!(
        "connecting to {place}: turn TLS on at the server, or connect by sslmode=disable over a network you trust"
    ))
}
