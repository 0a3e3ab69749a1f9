//! Events through brokers that speak TLS only: a service that knows their authority, by `SSL_CERT_FILE`, publishes and applies;
//! one that doesn't says why not.

#![allow(clippy::unwrap_used, reason = "a case fails by panicking, and its helpers are no `#[test]` functions")]

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use conformance::chaos::broker::{BrokerServer, Carrier};
use conformance::chaos::fleet::{Fleet, Role};
use conformance::chaos::ledger;
use conformance::chaos::store::Store;
use conformance::process::Process;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use mainstay_sql::testing::{Harness, Needs};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;

const RIG: &str = env!("CARGO_BIN_EXE_rig");

fn main() -> ExitCode {
    [("nats", Carrier::Nats), ("rabbitmq", Carrier::RabbitMq)]
        .into_iter()
        .fold(Harness::new(), |harness, (name, carrier)| {
            harness.given(carrier.installed()).case(
                &format!("{name}::speaks_with_whom_its_authority_vouches_for_and_says_why_with_nobody_else"),
                Needs::Nothing,
                async move || trusts(carrier).await,
            )
        })
        .run()
}

async fn trusts(carrier: Carrier) -> Result<()> {
    let (ours, folder) = (authority("ours"), tempfile::tempdir()?);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
    let mut server = BrokerServer::start_with_tls(carrier, &certificate.pem(), &key.serialize_pem()).await?;
    let file = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let ca = file("ca.pem", ours.pem());
    let stranger = file("stranger.pem", authority("a stranger").pem());

    let store = Store::shared(Dialect::Sqlite).await?;
    let url = ("EVENTS_URL".to_owned(), server.url_by(server.address()));
    let mut fleet = Fleet::new(Path::new(RIG), store.url().to_owned(), vec![url])?;
    let (migrated, said) = fleet.run(&["migrate", "up"]).await?;
    assert!(migrated, "{said}");
    let (db, ctx) = (store.connect().await?, Context::background().with_timeout(Duration::from_secs(60)));
    ledger::seed_keys(&db, &ctx, (0..40).map(|key| format!("key-{key}"))).await?;

    let mut worker = fleet.command();
    let mut worker = Process::start(worker.env("RIG_PART__ROLE", "worker").env("SSL_CERT_FILE", &stranger));
    let said = worker.says("the broker can't be reached now").await;
    assert!(said.contains("certificate") && said.contains("UnknownIssuer"), "{said}");
    assert!(!said.contains("guest"), "{said}");
    worker.terminate();
    worker.ends().await;

    fleet.set("SSL_CERT_FILE", ca);
    for role in [Role::Worker, Role::Producer] {
        fleet.ready(role, &[]).await;
    }
    while ledger::applied(&db, &ctx).await? < 20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for name in fleet.everyone() {
        fleet.signal(&name, Signal::TERM);
        assert_eq!(fleet.bury(&name).await.and_then(|status| status.code()), Some(0), "{name}");
    }
    db.close(&ctx).await;
    store.remove().await?;
    server.stop(true).await;
    Ok(())
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}
