//! [`Engine`]: what the parts that work on events share once the tables have been looked at.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use mainstay_core::{Code, Context, Result};
use mainstay_sql::Db;
use tokio::sync::{Notify, RwLock, Semaphore, watch};
use uuid::Uuid;

use crate::broker::Broker;
use crate::consumer::{Group, Start};
use crate::intake::{INTAKE, Topic};
use crate::lease::{Leases, RELAY};
use crate::metrics::EventMetrics;
use crate::outbox::Outbox;
use crate::pace::Pace;
use crate::retry::Blameless;
use crate::route::Standing;
use crate::settings::EventsSettings;

pub(crate) struct Engine {
    pub(crate) db: Db,
    pub(crate) settings: EventsSettings,
    pub(crate) metrics: EventMetrics,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) leases: Leases,
    pub(crate) board: Board,
    pub(crate) groups: Vec<(Arc<Group>, Arc<Pace>)>,
    /// None: the embedded one.
    pub(crate) broker: Option<Arc<dyn Broker>>,
    /// What is taken in from it.
    pub(crate) topics: Vec<Topic>,
    /// The way that events take, and ours.
    pub(crate) standing: Arc<Standing>,
    /// Held by each transaction of a consumer.
    pub(crate) permits: Semaphore,
    /// Shared by transactions with handlers, but for one whose event may be what ended a process: that has the process to
    /// itself, so that no other event is in hand, and to blame, when it does so again.
    pub(crate) company: RwLock<()>,
    pub(crate) blameless: Blameless,
    /// Told when a partition may be free to take.
    pub(crate) look: Notify,
}

/// What lanes wait for.
pub(crate) struct Board {
    /// Where each partition of the log ends.
    heads: Vec<watch::Sender<i64>>,
    /// By group and partition: something waiting is due.
    due: Vec<(&'static str, Vec<Arc<Notify>>)>,
    paused: Mutex<HashSet<String>>,
}

impl Engine {
    pub(crate) fn new(
        db: Db,
        settings: EventsSettings,
        metrics: EventMetrics,
        outbox: Arc<Outbox>,
        groups: Vec<Arc<Group>>,
        partitions: u32,
        (broker, standing): (Option<Arc<dyn Broker>>, Arc<Standing>),
    ) -> Self {
        let topics = if broker.is_some() { topics(&groups) } else { Vec::new() };
        let intake = (!topics.is_empty()).then_some(INTAKE);
        let names = std::iter::once(RELAY).chain(intake).chain(groups.iter().map(|group| group.name)).collect();
        let leases = Leases::new(db.clone(), Uuid::new_v4(), settings.lease, (names, &standing.ours), partitions);
        let permits = Semaphore::new(usize::try_from(settings.concurrency).unwrap_or(Semaphore::MAX_PERMITS));
        let board = Board::new(&groups, partitions);
        let paced = |group| (group, Arc::new(Pace::new(settings.batch)));
        groups.iter().for_each(|group| metrics.expect(group.name));
        let groups = groups.into_iter().map(paced).collect();
        Self {
            db,
            settings,
            metrics,
            outbox,
            leases,
            board,
            groups,
            broker,
            topics,
            standing,
            permits,
            company: RwLock::default(),
            blameless: Blameless::default(),
            look: Notify::new(),
        }
    }

    /// Opens what will be read, so that a broker that would lose events is found at the start. One that can't be reached
    /// is no reason not to start: requests are served, what they publish waits in the outbox.
    pub(crate) async fn check_topics(&self, ctx: &Context) -> Result<()> {
        let Some(broker) = &self.broker else { return Ok(()) };
        for topic in &self.topics {
            let limited = ctx.with_timeout(broker.traits().publish_timeout);
            match limited.run(broker.open(&limited, topic.name, self.leases.partitions())).await.flatten() {
                Ok(_) => {}
                Err(error) if matches!(error.code(), Code::Unavailable | Code::DeadlineExceeded) && !ctx.is_done() => {
                    let (broker, error) = (broker.name(), error.report().to_string());
                    tracing::warn!(target: "mainstay::events", broker, error, "the broker can't be reached now");
                    return Ok(());
                }
                Err(error) => return Err(error.context(format!("opening the topic `{}`", topic.name))),
            }
        }
        Ok(())
    }

    /// What this process has leases for.
    pub(crate) fn lease_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        let intake = (!self.topics.is_empty()).then_some(INTAKE);
        std::iter::once(RELAY).chain(intake).chain(self.group_names())
    }

    /// The names of the groups that this process runs.
    pub(crate) fn group_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.groups.iter().map(|(group, _)| group.name)
    }
}

impl Board {
    fn new(groups: &[Arc<Group>], partitions: u32) -> Self {
        let heads = (0..partitions).map(|_| watch::Sender::new(0)).collect();
        let notifies = || (0..partitions).map(|_| Arc::new(Notify::new())).collect();
        let due = groups.iter().map(|group| (group.name, notifies())).collect();
        Self { heads, due, paused: Mutex::default() }
    }

    /// The log of `part` ends at `head` now.
    pub(crate) fn advance(&self, part: i32, head: i64) {
        let Some(sender) = index(part).and_then(|part| self.heads.get(part)) else { return };
        sender.send_if_modified(|known| {
            let ahead = head > *known;
            *known = head.max(*known);
            ahead
        });
    }

    pub(crate) fn head(&self, part: i32) -> Option<watch::Receiver<i64>> {
        Some(self.heads.get(index(part)?)?.subscribe())
    }

    pub(crate) fn due(&self, group: &str, part: i32) -> Option<&Arc<Notify>> {
        self.due.iter().find(|(name, _)| *name == group)?.1.get(index(part)?)
    }

    /// Notes which groups are paused, and wakes all lanes of those that no longer are.
    pub(crate) fn pause(&self, now: HashSet<String>) {
        let before = std::mem::replace(&mut *self.paused.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        for resumed in before.difference(&now) {
            for (_, lanes) in self.due.iter().filter(|(group, _)| group == resumed) {
                lanes.iter().for_each(|lane| lane.notify_one());
            }
        }
    }

    pub(crate) fn is_paused(&self, group: &str) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).contains(group)
    }
}

/// What the groups consume.
pub(crate) fn topics(groups: &[Arc<Group>]) -> Vec<Topic> {
    let mut topics: Vec<Topic> = Vec::new();
    for group in groups {
        let from_the_oldest = group.start == Start::Earliest;
        for name in group.topics() {
            match topics.iter_mut().find(|topic| topic.name == name) {
                Some(topic) => topic.from_the_oldest |= from_the_oldest,
                None => topics.push(Topic { name, from_the_oldest }),
            }
        }
    }
    topics
}

fn index(part: i32) -> Option<usize> {
    usize::try_from(part).ok()
}
