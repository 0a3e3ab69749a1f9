//! [`Samples`]: the metrics of a service under test.

/// The samples of one scrape, each a name with its labels and a value.
#[derive(Clone, Debug)]
pub struct Samples(Vec<(String, f64)>);

impl Samples {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let lines = lines.map(|line| line.split_once(" # {").map_or(line, |(sample, _)| sample)); // without exemplars
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(lines.filter_map(sample).collect())
    }

    /// The names of all samples, with their labels.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    /// The sum of all samples called `name` whose labels contain each of `labels`, as `("status", "201")`; 0 without any.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matches = |sample: &str| {
            let (own, rest) = sample.split_once('{').unwrap_or((sample, ""));
            own == name && labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\"")))
        };
        self.0.iter().filter(|(sample, _)| matches(sample)).map(|(_, value)| value).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let text = "# TYPE a counter\na_total{x=\"1\",y=\"2\"} 3\na_total{x=\"1\",y=\"3\"} 4\nb 1.5\n# EOF\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.sum("a_total", &[("x", "1")]), 7.0);
        assert_eq!(samples.sum("a_total", &[("x", "1"), ("y", "3")]), 4.0);
        assert_eq!(samples.sum("b", &[]), 1.5);
        assert_eq!(samples.sum("c", &[]), 0.0);
    }
}
