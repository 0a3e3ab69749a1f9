//! [`Series`]: one metric for each combination of labels, and never more of them than memory has room for.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// A metric with labels. A clone is the same metric.
///
/// What [`Series::with`] returns may be kept: it counts without looking the labels up again.
pub struct Series<M>(Arc<Inner<M>>);

struct Inner<M> {
    labels: &'static [&'static str],
    known: RwLock<HashMap<Box<str>, Member<M>>>,
}

struct Member<M> {
    values: Box<[Box<str>]>,
    metric: M,
}

/// Stands between the values in a key. A value that has one itself is counted with what it then looks like.
const BETWEEN: &str = "\u{1f}";

/// The longest value of a label, in bytes; the rest is cut off.
const LONGEST: usize = 128;

impl<M: Clone + Default> Series<M> {
    /// How many combinations are kept. Whatever comes after them is counted together, under `_other` for every label: a
    /// caller who invents label values fills no memory.
    pub const LIMIT: usize = 2_000;

    pub(super) fn new(labels: &'static [&'static str]) -> Self {
        Self(Arc::new(Inner { labels, known: RwLock::default() }))
    }

    /// The metric for `values`, in the order of the labels; missing ones are empty, too many are ignored.
    pub fn with(&self, values: &[&str]) -> M {
        let values: Vec<&str> = (0..self.0.labels.len())
            .map(|at| values.get(at).copied().unwrap_or_default())
            .map(|value| &value[..value.floor_char_boundary(LONGEST)])
            .collect();
        let key = values.join(BETWEEN);
        if let Some(member) = self.0.known.read().unwrap_or_else(PoisonError::into_inner).get(&*key) {
            return member.metric.clone();
        }
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < Self::LIMIT || known.contains_key(&*key) {
            return member(&mut known, key, &values);
        }
        let others = vec!["_other"; values.len()];
        member(&mut known, others.join(BETWEEN), &others)
    }

    /// Forgets the combinations that `keep` doesn't want, as those of a group that is gone.
    pub fn retain(&self, keep: impl Fn(&[Box<str>]) -> bool) {
        let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, member| keep(&member.values));
    }

    /// Shows `look` each member with its labels.
    pub(super) fn each(&self, mut look: impl FnMut(&[(&str, &str)], &M)) {
        for member in self.0.known.read().unwrap_or_else(PoisonError::into_inner).values() {
            look(&self.labels(member), &member.metric);
        }
    }
}

impl<M> Series<M> {
    fn labels<'a>(&self, member: &'a Member<M>) -> Vec<(&'a str, &'a str)> {
        self.0.labels.iter().copied().zip(member.values.iter().map(|value| &**value)).collect()
    }
}

fn member<M: Clone + Default>(known: &mut HashMap<Box<str>, Member<M>>, key: String, values: &[&str]) -> M {
    let make = || Member { values: values.iter().map(|value| (*value).into()).collect(), metric: M::default() };
    known.entry(key.into()).or_insert_with(make).metric.clone()
}

impl<M> Clone for Series<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Series<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        if self.0.labels.is_empty() {
            // At most one, which is written without empty braces.
            return known.values().next().map_or(Ok(()), |member| member.metric.encode(encoder));
        }
        for member in known.values() {
            let labels = self.labels(member);
            member.metric.encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

impl<M: TypedMetric> TypedMetric for Series<M> {
    const TYPE: MetricType = M::TYPE;
}

impl<M> fmt::Debug for Series<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Series").field(&self.0.labels).finish()
    }
}
