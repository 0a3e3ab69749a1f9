//! [`Exemplars`]: writes the traces that stand for the buckets of histograms behind their samples. The client library lets
//! nobody else make an exemplar, so that they are added to its text.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use super::durations::{Durations, Exemplar};
use super::series::Series;

#[derive(Default)]
pub(super) struct Exemplars(Mutex<Vec<(String, Series<Durations>)>>);

impl Exemplars {
    pub(super) fn add(&self, name: String, series: &Series<Durations>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, series.clone()));
    }

    /// `text` with the exemplars there are.
    pub(super) fn write_into(&self, text: String) -> String {
        let known = self.by_sample();
        if known.is_empty() {
            return text;
        }
        let mut out = String::with_capacity(text.len() + known.len() * 96);
        for line in text.lines() {
            out.push_str(line);
            let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
            if let Some(Exemplar { trace_id, seconds, at }) = known.get(sample) {
                let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let _ = write!(out, " # {{trace_id=\"{trace_id:032x}\"}} {seconds} {at:.3}");
            }
            out.push('\n');
        }
        out
    }

    /// The exemplars by the sample that they belong to, name and labels as the client library writes them.
    fn by_sample(&self) -> HashMap<String, Exemplar> {
        let mut known = HashMap::new();
        for (name, series) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            series.each(|labels, durations| {
                for (bound, exemplar) in durations.exemplars() {
                    let mut sample = format!("{name}_bucket{{");
                    match bound {
                        f64::INFINITY => sample.push_str("le=\"+Inf\""),
                        _ => {
                            let _ = write!(sample, "le=\"{bound:?}\"");
                        }
                    }
                    for (label, value) in labels {
                        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                        let _ = write!(sample, ",{label}=\"{value}\"");
                    }
                    sample.push('}');
                    known.insert(sample, exemplar);
                }
            });
        }
        known
    }
}
