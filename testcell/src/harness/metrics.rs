//! What a metrics page said, in the classic Prometheus text form.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One reading of the page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

/// The page at a path, asked for from the namespace this thread is in.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let limit = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("it has no body")?;
    if !head.starts_with("HTTP/1.1 200") {
        bail!("it answered {}: {body}", head.lines().next().unwrap_or_default());
    }
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return unchunked(body);
    }
    Ok(body.to_owned())
}

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Fetches the page from the namespace this thread is in.
    pub fn fetch(address: SocketAddr) -> Result<Self> {
        Self::parse(&get(address, "/metrics").context("the metrics page")?)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| Sample::parse(line).with_context(|| format!("metrics line {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// The sum of the samples of a family that have all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether the family has a sample with all these labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    /// The values that a label of a family takes.
    pub fn label_values(&self, name: &str, label: &str) -> Vec<&str> {
        let mut values: Vec<_> = self
            .matching(name, &[])
            .filter_map(|sample| sample.labels.get(label))
            .map(String::as_str)
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    fn matching<'s>(&'s self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &'s Sample> {
        self.samples.iter().filter(move |sample| {
            let labelled =
                |(label, value): &(&str, &str)| sample.labels.get(*label).is_some_and(|v| v == value);
            sample.name == name && labels.iter().all(labelled)
        })
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for sample in &self.samples {
            writeln!(f, "{} {:?} {}", sample.name, sample.labels, sample.value)?;
        }
        Ok(())
    }
}

impl Sample {
    /// Label values of ours hold neither quotes nor commas nor braces.
    fn parse(line: &str) -> Result<Self> {
        let (series, value) = line.rsplit_once(' ').context("no value")?;
        let value = value.parse().context("no number")?;
        let Some((name, labels)) = series.split_once('{') else {
            return Ok(Self {
                name: series.to_owned(),
                labels: BTreeMap::new(),
                value,
            });
        };
        let labels = labels.strip_suffix('}').context("no closing brace")?;
        let labels = labels
            .split(',')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (label, value) = pair.split_once('=').context("no label")?;
                Ok((label.to_owned(), value.trim_matches('"').to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            name: name.to_owned(),
            labels,
            value,
        })
    }
}

fn unchunked(body: &str) -> Result<String> {
    let mut rest = body;
    let mut whole = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("a chunk without a size")?;
        let size = usize::from_str_radix(size.trim(), 16).context("the size of a chunk")?;
        if size == 0 {
            return Ok(whole);
        }
        whole.push_str(after.get(..size).context("a chunk that is cut")?);
        rest = after.get(size + 2..).context("a chunk that is cut")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_over_the_labels_not_named() {
        let text = "# HELP a b\n# TYPE a counter\na{op=\"read\",result=\"ok\"} 3\na{op=\"open\",result=\"ok\"} 4\n\
                    a{op=\"read\",result=\"EIO\"} 1\nb 2.5\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.sum("a", &[("op", "read")]), 4.0);
        assert_eq!(metrics.sum("a", &[]), 8.0);
        assert_eq!(metrics.sum("b", &[]), 2.5);
        assert_eq!(metrics.label_values("a", "op"), ["open", "read"]);
        assert!(!metrics.has("a", &[("op", "write")]));
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(
            unchunked("4\r\na 1\n\r\n4\r\nb 2\n\r\n0\r\n\r\n").unwrap(),
            "a 1\nb 2\n"
        );
    }
}
