//! The hypervisor's metrics, read strictly: Prometheus' text format, version 0.0.4.

use super::{MANAGEMENT, PATIENCE};
use crate::client::Client;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Values by their series, as the text has them: `name{label="value"}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Fetches those of the board.
    ///
    /// # Errors
    ///
    /// Where they cannot be had, or the text is wrong.
    pub(crate) fn read(station: &Client) -> Result<Self> {
        Self::read_from(station, MANAGEMENT)
    }

    /// The same from a board with another address.
    ///
    /// # Errors
    ///
    /// As [`Self::read`].
    pub(crate) fn read_from(station: &Client, board: Ipv4Addr) -> Result<Self> {
        let (status, text) = station.http_text(board, 80, "/metrics", PATIENCE)?;
        ensure!(status == 200, "/metrics has status {status}");
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text
            .strip_suffix('\n')
            .context("the last line has no end")?;
        let mut values = BTreeMap::new();
        let mut known = BTreeSet::new();
        // The metric that is being told of, and its kind once that is known.
        let mut family: Option<(&str, Option<&str>)> = None;
        for line in lines.split('\n') {
            let place = || format!("line {line:?}");
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').with_context(place)?;
                ensure!(is_name(name) && !help.is_empty(), place());
                ensure!(known.insert(name), "{name} comes twice");
                family = Some((name, None));
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(place)?;
                ensure!(family == Some((name, None)), place());
                ensure!(matches!(kind, "counter" | "gauge" | "histogram"), place());
                ensure!((kind == "counter") == name.ends_with("_total"), place());
                family = Some((name, Some(kind)));
            } else {
                let (series, value) = line.rsplit_once(' ').with_context(place)?;
                let Some((of, Some(kind))) = family else {
                    bail!("{series} has no kind");
                };
                let labels = series.strip_prefix(of).with_context(place)?;
                let labels = match kind {
                    "histogram" => of_histogram(labels).with_context(place)?,
                    _ => labels,
                };
                ensure!(labels.is_empty() || are_labels(labels), place());
                let value: f64 = value.parse().with_context(place)?;
                ensure!(value.is_finite(), place());
                ensure!(kind == "gauge" || value >= 0.0, place());
                let earlier = values.insert(series.to_owned(), value);
                ensure!(earlier.is_none(), "{series} comes twice");
            }
        }
        Ok(Self(values))
    }

    /// A value.
    ///
    /// # Errors
    ///
    /// Where there is none.
    pub(crate) fn of(&self, series: &str) -> Result<f64> {
        let value = self.0.get(series).copied();
        value.with_context(|| format!("there is no {series}"))
    }

    /// How much a counter has grown.
    ///
    /// # Errors
    ///
    /// Where there is none, or it has shrunk.
    pub(crate) fn growth(&self, since: &Self, series: &str) -> Result<f64> {
        let (now, before) = (self.of(series)?, since.of(series)?);
        ensure!(now >= before, "{series} shrank from {before} to {now}");
        Ok(now - before)
    }
}

fn is_name(text: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(rest)
}

/// What follows the name of a histogram: the labels of one of its three series, buckets having their bound among them.
fn of_histogram(rest: &str) -> Option<&str> {
    match rest.strip_prefix("_bucket") {
        Some(labels) => labels.contains("le=\"").then_some(labels),
        None => rest
            .strip_prefix("_sum")
            .or_else(|| rest.strip_prefix("_count")),
    }
}

/// Whether this is `{name="value",...}`, with nothing in the values that would have to be quoted.
fn are_labels(text: &str) -> bool {
    let inner = text.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
    inner.is_some_and(|inner| {
        inner.split(',').all(|label| {
            label.split_once('=').is_some_and(|(name, value)| {
                let value = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
                is_name(name) && value.is_some_and(|value| !value.contains(['"', '\\', '\n']))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_total Things.\n# TYPE a_total counter\n\
        a_total{port=\"lan\",reason=\"no-room\"} 7\na_total{port=\"x.0\",reason=\"vlan\"} 0\n\
        # HELP b Others.\n# TYPE b gauge\nb -1.5\n\
        # HELP c Times.\n# TYPE c histogram\nc_bucket{le=\"1\"} 2\nc_bucket{le=\"+Inf\"} 3\nc_sum 4.5\nc_count 3\n";

    #[test]
    fn a_right_text_is_read() {
        let metrics = Metrics::parse(GOOD).unwrap();
        assert_eq!(metrics.of("b").unwrap(), -1.5);
        let series = "a_total{port=\"lan\",reason=\"no-room\"}";
        assert_eq!(metrics.of(series).unwrap(), 7.0);
        assert!(metrics.of("a_total").is_err());
        let later = Metrics::parse(&GOOD.replace(" 7\n", " 9\n")).unwrap();
        assert_eq!(later.growth(&metrics, series).unwrap(), 2.0);
        assert!(metrics.growth(&later, series).is_err());
    }

    #[test]
    fn a_wrong_text_is_refused() {
        for (right, wrong) in [
            ("b -1.5\n", "b -1.5"),
            ("b -1.5", "b x"),
            ("b -1.5", "b NaN"),
            ("b -1.5", "c 1"),
            ("b -1.5", "b{} 1"),
            ("b -1.5", "b{1=\"x\"} 1"),
            ("b -1.5", "b 1\nb 1"),
            ("b -1.5", "\nb 1"),
            ("lan\"", "lan"),
            ("la", "l\"a"),
            (" 7", " -7"),
            (" 7", "7"),
            ("# TYPE b gauge", "# TYPE b histogram"),
            ("# TYPE b gauge", "# TYPE b counter"),
            ("# TYPE b gauge\n", ""),
            ("# HELP b Others.\n", ""),
            ("# HELP b Others.", "# HELP b"),
            (
                "# HELP b Others.",
                "# HELP a_total Again.\n# TYPE a_total counter\n# HELP b Others.",
            ),
        ] {
            assert!(GOOD.contains(right));
            let text = GOOD.replacen(right, wrong, 1);
            assert!(Metrics::parse(&text).is_err(), "{text}");
        }
    }
}
