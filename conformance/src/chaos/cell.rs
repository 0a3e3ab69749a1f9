//! [`Cell`]: one fault on one database, from the first process to the verdict.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mainstay::prelude::*;
use mainstay::sql::Dialect;
use tokio::time::Instant;

use super::broker::{BrokerServer, Carrier};
use super::check::{Rules, check};
use super::disk::SmallDisk;
use super::faults::{Fault, Plan, through};
use super::fleet::{Fleet, REFUSED, Role, UNDONE, UNKNOWN};
use super::form::Form;
use super::ledger::{self, Depths};
use super::proxy::Proxy;
use super::random::Random;
use super::store::Store;
use super::table::Counts;

/// Partitions and their groups have a row each in some tables; beyond that nothing is left when all is quiet.
const LOG_BOUND: i64 = 64;
/// Between two looks at a database that can't tell by itself.
const LOOK: Duration = Duration::from_millis(50);
/// For one look.
const GLANCE: Duration = Duration::from_secs(5);

/// A fault on a database, under way.
#[derive(Debug)]
pub struct Cell {
    /// How long it is.
    pub form: Form,
    /// What it is made of.
    pub plan: Plan,
    /// Its own random numbers.
    pub random: Random,
    /// Its database.
    pub store: Store,
    /// The supervisor's own way to the database.
    pub db: Db,
    /// Its processes.
    pub fleet: Fleet,
    /// The network before its database, if the fault has to do with it.
    pub proxy: Option<Proxy>,
    /// The disk of its database, if the fault has to do with it.
    pub disk: Option<SmallDisk>,
    /// The server of its events, if they have one.
    pub broker: Option<BrokerServer>,
    /// The network before that, if the fault has to do with it.
    pub way: Option<Proxy>,
    /// How often the fault was inflicted.
    pub injected: u64,
    /// What was measured on the way.
    pub notes: Vec<String>,
    /// What was found wrong on the way.
    pub failures: Vec<String>,
    began: Instant,
}

/// Runs `fault` on a database of kind `dialect` with the program `rig`.
///
/// # Errors
/// What keeps it from being tried at all; what goes wrong once it runs is in the counts.
pub async fn run(fault: &Fault, dialect: Dialect, carrier: Carrier, form: Form, program: &Path) -> Result<Counts> {
    let name = name(fault, dialect, carrier);
    let mut cell = Cell::open(through((fault.plan)(dialect, form), carrier), dialect, form, &name, program).await?;
    if let Err(error) = (fault.inflict)(&mut cell).await {
        cell.failures.push(format!("inflicting the fault: {}", error.report()));
    }
    let counts = cell.finish(&name, program).await?;
    Ok(counts)
}

/// How it is called in tests, as `postgres+nats::killed`.
pub fn name(fault: &Fault, dialect: Dialect, carrier: Carrier) -> String {
    format!("{dialect}{}::{}", carrier.suffix(), fault.name)
}

impl Cell {
    async fn open(plan: Plan, dialect: Dialect, form: Form, name: &str, program: &Path) -> Result<Self> {
        let began = Instant::now();
        let disk = if plan.small_disk { Some(SmallDisk::mount().await?) } else { None };
        let store = match &disk {
            Some(disk) => Store::on_disk(disk, dialect).await?,
            None if plan.private => Store::private(dialect).await?,
            None => Store::shared(dialect).await?,
        };
        let proxy = match store.address() {
            Some(address) if plan.proxied => Some(Proxy::to(address).await?),
            _ => None,
        };
        let url = proxy.as_ref().map_or_else(|| store.url().to_owned(), |proxy| store.url_by(proxy.address()));
        let mut fleet = Fleet::new(program, url, plan.environment())?;
        let broker = BrokerServer::start(plan.carrier).await?;
        let way = match &broker {
            Some(broker) if plan.broker_proxied => Some(Proxy::to(broker.address()).await?),
            _ => None,
        };
        if let Some(broker) = broker.as_ref().filter(|_| !plan.begins_embedded) {
            fleet.set("EVENTS_URL", broker.url_by(way.as_ref().map_or(broker.address(), Proxy::address)));
        }
        if plan.carrier == Carrier::Moody {
            fleet.set("RIG_PART__BROKER", fleet.folder().join("broker.db").display().to_string());
        }
        fleet.set("RIG_PART__SEED", Random::named(form.seed, name).next().to_string());
        let (migrated, said) = fleet.run(&["migrate", "up"]).await?;
        if !migrated {
            return Err(Error::internal(format!("migrating: {said}")));
        }
        let db = store.connect().await?;
        ledger::seed_keys(&db, &Context::background(), (0..plan.keys).map(|key| format!("key-{key}"))).await?;
        let random = Random::named(form.seed, name);
        let (injected, notes, failures) = (0, Vec::new(), Vec::new());
        let mut cell =
            Self { form, plan, random, store, db, fleet, proxy, disk, broker, way, injected, notes, failures, began };
        cell.populate().await;
        Ok(cell)
    }

    /// Starts the processes of the plan, as many as there aren't yet, and waits for them.
    pub async fn populate(&mut self) {
        for (role, count) in [(Role::Worker, self.plan.workers), (Role::Producer, self.plan.producers)] {
            for _ in self.fleet.names(role).len()..count {
                self.fleet.start(role, &[]);
            }
        }
        for name in self.fleet.everyone() {
            if !self.fleet.await_ready(&name).await && !self.plan.deadly {
                self.failures.push(format!("{name} was never ready"));
            }
        }
    }

    /// The URL of the server of its events, past every proxy.
    pub fn broker_url(&self) -> Option<String> {
        self.broker.as_ref().map(|broker| broker.url_by(broker.address()))
    }

    /// Counts one more.
    pub fn inflicted(&mut self) {
        self.injected += 1;
    }

    /// Whether the fault goes on: fewer than `times` inflicted, or too few events committed.
    pub async fn goes_on(&self, times: u64) -> bool {
        self.injected < times || self.sent().await < self.form.target
    }

    /// How many events were committed; 0 if the database doesn't answer, because the fault may be just that.
    pub async fn sent(&self) -> usize {
        ledger::sent(&self.db, &glance()).await.unwrap_or(0)
    }

    /// How many applications there were, likewise.
    pub async fn applied(&self) -> usize {
        ledger::applied(&self.db, &glance()).await.unwrap_or(0)
    }

    /// Where events are; `None` if the database doesn't answer.
    pub async fn depths(&self) -> Option<Depths> {
        ledger::depths(&self.db, &glance()).await.ok()
    }

    /// Lets the service be for a random time: faults come when it has got over the last one, and when not.
    pub async fn breathe(&mut self, millis: std::ops::Range<u64>) {
        let pause = self.random.millis(millis);
        tokio::time::sleep(pause).await;
    }

    /// One of the names, by chance.
    pub fn pick(&mut self, names: &[String]) -> Option<String> {
        (!names.is_empty()).then(|| names[self.random.index(names.len())].clone())
    }

    /// Looks again and again until `happened`, and writes down a failure if it doesn't and nothing gets on any more: how
    /// fast a machine is that builds something else meanwhile, is no finding.
    pub async fn until(
        &mut self,
        what: &str,
        mut happened: impl for<'a> FnMut(&'a mut Self) -> BoxFuture<'a, bool>,
    ) -> bool {
        let patience = Duration::from_secs(self.form.of(45, 300));
        let (mut end, mut reached) = (Instant::now() + patience, (0, 0));
        while !happened(self).await {
            if Instant::now() > end {
                let depths = self.depths().await;
                let (sent, applied) = (self.sent().await, self.applied().await);
                // Producers go on by themselves: beyond what is wanted, that is no progress.
                let now = (sent.min(self.form.target), applied);
                if now == reached {
                    let standstill =
                        format!("{what}: not within {patience:?} ({sent} sent, {applied} applied, {depths:?})");
                    self.failures.push(standstill);
                    return false;
                }
                (end, reached) = (Instant::now() + patience, now);
            }
            self.restart_server().await;
            if self.plan.revive {
                self.injected += self.fleet.revive().await;
            } else if !self.plan.deadly && self.fleet.any_ended() {
                self.failures.push(format!("{what}: a process ended by itself, or was ended by somebody else"));
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }

    /// Starts the database's server again if it has ended over a full disk, as a service manager does: whether it had.
    pub async fn restart_server(&mut self) -> bool {
        let Some(server) = self.store.server().filter(|_| self.plan.small_disk) else { return false };
        if !server.has_ended() {
            return false;
        }
        if let Err(error) = server.start_again().await {
            self.failures.push(format!("starting the database again: {}", error.report()));
        }
        true
    }

    /// Waits until enough was committed.
    pub async fn until_sent(&mut self) -> bool {
        let target = self.form.target;
        self.until("producing", move |cell| Box::pin(async move { cell.sent().await >= target })).await
    }

    /// Waits until nothing is left to do. Only without producers this is an end.
    pub async fn until_quiet(&mut self) -> bool {
        self.until("Q: quiescence", |cell| Box::pin(async move { cell.is_quiet().await })).await
    }

    async fn is_quiet(&self) -> bool {
        let Some(depths) = self.depths().await.filter(Depths::quiet) else { return false };
        // What is with the broker is in no table of ours.
        let done = self.applied().await + usize::try_from(depths.dead).unwrap_or_default();
        self.plan.carrier == Carrier::Embedded || done >= self.sent().await
    }

    /// Asks all of a role to end, and expects them to end in order.
    pub async fn dismiss(&mut self, role: Role) {
        let names = self.fleet.names(role);
        for name in &names {
            self.fleet.signal(name, rustix::process::Signal::TERM);
        }
        for name in names {
            let status = self.fleet.bury(&name).await;
            if !self.plan.deadly && status.is_some_and(|status| status.code() != Some(0)) {
                self.failures.push(format!("{name} did not end in order: {status:?}"));
            }
        }
    }

    async fn finish(mut self, name: &str, program: &Path) -> Result<Counts> {
        self.until_sent().await;
        let died = self.fleet.revive().await;
        if died > 0 && !self.plan.deadly {
            self.failures.push(format!("{died} processes ended by themselves"));
        }
        self.dismiss(Role::Producer).await;
        self.plan.producers = 0;
        self.populate().await;
        let quiet = self.until_quiet().await;
        if quiet {
            self.until("B: the log returns to its bounds", |cell| {
                Box::pin(async move { cell.depths().await.is_some_and(|depths| depths.log <= LOG_BOUND) })
            })
            .await;
        }
        self.dismiss(Role::Worker).await;
        self.until("the database answers", |cell| Box::pin(async move { cell.depths().await.is_some() })).await;
        let counts = self.judge(name, program).await?;
        self.db.close(&glance()).await;
        self.store.remove().await?;
        if let Some(broker) = &mut self.broker {
            broker.stop(true).await;
        }
        Ok(counts)
    }

    async fn judge(&mut self, name: &str, program: &Path) -> Result<Counts> {
        let mut history = ledger::history(&self.db, &Context::background()).await?;
        (history.undone, history.unknown) = (self.fleet.events(UNDONE), self.fleet.events(UNKNOWN));
        let verdict = check(&history, &self.plan.rules);
        if !verdict.holds() {
            self.failures.push(verdict.to_string());
        }
        if self.injected == 0 {
            self.failures.push("the fault never fired".to_owned());
        }
        if history.sent.len() < self.form.target {
            self.failures.push(format!("only {} events were sent", history.sent.len()));
        }
        if self.plan.no_refusals {
            let refused = self.fleet.lines(REFUSED);
            if let Some(first) = refused.first() {
                self.failures.push(format!("{} errors reached a user, as {first}", refused.len()));
            }
        }
        let counts = Counts {
            injected: self.injected,
            sent: history.sent.len(),
            applied: history.applied.len(),
            dead: history.dead.len(),
            lost: verdict.lost.len(),
            duplicated: verdict.duplicated.len(),
            out_of_order: verdict.out_of_order.len(),
            phantoms: verdict.phantoms.len(),
            undone: history.undone.len(),
            unknown: history.unknown.len(),
            seed: self.form.seed,
            took: self.began.elapsed(),
            notes: self.notes.clone(),
            failures: self.failures.clone(),
        };
        if !counts.failures.is_empty() {
            let folder = evidence(program, name, self.form.seed);
            history.save(&folder)?;
            self.fleet.save(&folder)?;
            std::fs::write(folder.join("failures.txt"), counts.failures.join("\n"))?;
        }
        Ok(counts)
    }
}

/// Where the history of a failure is kept: beside the program.
pub fn evidence(program: &Path, name: &str, seed: u64) -> PathBuf {
    let folder = program.parent().unwrap_or(Path::new(".")).join("chaos");
    folder.join(format!("{}-{seed}", name.replace("::", "-")))
}

/// The rules of almost every cell: nothing is given up, and nothing is mended.
pub const RULES: Rules =
    Rules { groups: &[("rig.step", "apply"), ("rig.echo", "echoes")], max_attempts: 10, mended: false };

fn glance() -> Context {
    Context::background().with_timeout(GLANCE)
}
