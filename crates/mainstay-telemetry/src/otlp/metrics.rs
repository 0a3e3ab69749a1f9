//! Metrics as OTLP wants them, read from the text that `/metrics` answers: what the two show is the same, whoever has
//! registered it, and under the same names.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::proto::Proto;

use super::attribute;

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: since the process began.
const CUMULATIVE: u64 = 2;

/// What the text of OpenMetrics says.
pub(crate) struct Points<'a> {
    text: &'a str,
    began: u64,
    now: u64,
}

/// One family of metrics.
#[derive(Default)]
struct Family<'a> {
    name: &'a str,
    kind: &'a str,
    help: &'a str,
    unit: &'a str,
    samples: Vec<Sample<'a>>,
}

struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Points<'a> {
    /// The metrics of `text`, which count since `began`.
    pub(crate) fn new(text: &'a str, began: SystemTime) -> Self {
        Self { text, began: nanos(began), now: nanos(SystemTime::now()) }
    }

    pub(super) fn size(&self) -> usize {
        self.text.len()
    }

    pub(super) fn write(&self, scope: &mut Proto) {
        for family in families(self.text) {
            scope.message(2, |metric| self.metric(metric, &family));
        }
    }

    fn metric(&self, metric: &mut Proto, family: &Family<'_>) {
        let total = format!("{}_total", family.name);
        metric.text(1, if family.kind == "counter" { &total } else { family.name });
        metric.text(2, family.help);
        metric.text(
            3,
            match family.unit {
                "seconds" => "s",
                "bytes" => "By",
                other => other,
            },
        );
        match family.kind {
            "counter" => metric.message(7, |sum| {
                self.numbers(sum, family);
                sum.int(2, CUMULATIVE);
                sum.int(3, 1); // it never falls
            }),
            "histogram" => metric.message(9, |histogram| {
                self.histograms(histogram, family);
                histogram.int(2, CUMULATIVE);
            }),
            _ => metric.message(5, |gauge| self.numbers(gauge, family)),
        }
    }

    fn numbers(&self, out: &mut Proto, family: &Family<'_>) {
        for Sample { labels, value, .. } in &family.samples {
            out.message(1, |point| {
                self.times(point);
                point.fixed64(4, value.to_bits());
                attributes(point, 7, labels);
            });
        }
    }

    /// The samples of one histogram stand together: its sum, its count, its buckets.
    fn histograms(&self, out: &mut Proto, family: &Family<'_>) {
        let own = |labels: &[(&str, String)]| -> Vec<(String, String)> {
            let own = labels.iter().filter(|(name, _)| *name != "le");
            own.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
        };
        for samples in family.samples.chunk_by(|a, b| own(&a.labels) == own(&b.labels)) {
            let value = |suffix: &str| samples.iter().find(|s| s.name.ends_with(suffix)).map(|s| s.value);
            let buckets = samples.iter().filter_map(|sample| {
                let (_, bound) = sample.labels.iter().find(|(name, _)| *name == "le")?;
                Some((bound.parse::<f64>().ok()?, sample.value))
            });
            let (bounds, counts): (Vec<f64>, Vec<f64>) = buckets.unzip();
            let Some(first) = samples.first() else { continue };
            out.message(1, |point| {
                self.times(point);
                point.fixed64(4, value("_count").unwrap_or_default() as u64);
                point.fixed64(5, value("_sum").unwrap_or_default().to_bits());
                let mut below = 0.0;
                for count in &counts {
                    point.fixed64(6, (count - below) as u64); // each bucket of the text holds those before it
                    below = *count;
                }
                bounds.iter().filter(|bound| bound.is_finite()).for_each(|bound| point.fixed64(7, bound.to_bits()));
                attributes(point, 9, &first.labels);
            });
        }
    }

    fn times(&self, point: &mut Proto) {
        point.fixed64(2, self.began);
        point.fixed64(3, self.now);
    }
}

fn attributes(point: &mut Proto, field: u32, labels: &[(&str, String)]) {
    for (name, value) in labels.iter().filter(|(name, _)| *name != "le") {
        attribute(point, field, name, &value.clone().into());
    }
}

fn nanos(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            if let (Some(family), Some(sample)) = (families.last_mut(), sample(line)) {
                family.samples.push(sample);
            }
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (word, name, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
        let Some(name) = name else { continue }; // the end mark
        if families.last().is_none_or(|family| family.name != name) {
            families.push(Family { name, ..Family::default() });
        }
        let Some(family) = families.last_mut() else { continue };
        match word {
            Some("HELP") => family.help = rest,
            Some("TYPE") => family.kind = rest,
            Some("UNIT") => family.unit = rest,
            _ => {}
        }
    }
    families.retain(|family| !family.samples.is_empty());
    families
}

/// `name{label="value",…} 1.5`, with or without an exemplar behind it.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, behind) = unquote(quoted)?;
            labels.push((label, value));
            rest = behind;
        }
        rest = &rest[1..];
    }
    let value = rest.trim_start().split(' ').next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// The text up to the quote that ends it, and what is behind that.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            'n' if escaped => value.push('\n'),
            other if escaped => value.push(other),
            '\\' => {}
            '"' => return Some((value, &quoted[at + 1..])),
            other => value.push(other),
        }
        escaped = character == '\\' && !escaped;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Metrics;

    #[test]
    fn what_the_text_says_is_read_back() {
        let metrics = Metrics::new();
        metrics.counters("sales", "Sales", &["seller", "place"]).with(&["a\"b\\n\n,}", ""]).inc_by(7);
        metrics.gauge("stock", "Stock").set(-2);
        let durations = metrics.durations("work", "Work", &["kind"]);
        durations.with(&["slow"]).observe(Duration::from_secs(2));
        durations.with(&["fast"]).observe(Duration::from_micros(1));
        let text = metrics.render();
        let families = families(&text);
        let family = |name: &str| families.iter().find(|family| family.name == name).unwrap();
        let sales = &family("sales").samples[0];
        assert_eq!((family("sales").kind, family("sales").help, sales.value), ("counter", "Sales.", 7.0));
        assert_eq!(sales.labels, [("seller", "a\"b\\n\n,}".to_owned()), ("place", String::new())]);
        assert_eq!((family("stock").kind, family("stock").samples[0].value), ("gauge", -2.0));
        let work = family("work_seconds");
        assert_eq!((work.kind, work.unit), ("histogram", "seconds"));
        let slow = |sample: &&Sample<'_>| sample.labels.iter().any(|(_, value)| value == "slow");
        assert_eq!(work.samples.iter().filter(slow).count(), 22, "sum, count and 20 buckets");
    }
}
