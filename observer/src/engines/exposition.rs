//! Prometheus' text format, as far as gauges need it: `name{label="value",…} value [timestamp]`.
//!
//! Source: Prometheus documentation, "Exposition formats". A line that does not parse is no sample. The crates for
//! it bring regular expressions and calendars, or parse whole families of which three lines are wanted here.

/// One sample.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    pub(super) labels: Vec<(&'a str, String)>,
    pub(super) value: f64,
}

impl Sample<'_> {
    /// The value of a label; empty, as Prometheus has it, if it is not there.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// The samples with this name.
pub(super) fn samples<'a>(text: &'a str, name: &str) -> impl Iterator<Item = Sample<'a>> {
    text.lines()
        .filter(move |line| line.trim_start().starts_with(name))
        .filter_map(sample)
        .filter(move |s| s.name == name)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let line = line.trim();
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.trim_start().strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ', '\t']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (label, value) = rest.split_once('=')?;
            let (value, after) = quoted(value.trim_start())?;
            labels.push((label.trim(), value));
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name, labels, value })
}

/// A quoted value with its escapes resolved, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &inside[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_as_they_are_written() {
        let text = "# HELP a b\n# TYPE a gauge\na 1\nab 2\na{} 3\na{x=\"1\",y=\"} \\\"\\\\\\n,\"} +Inf 1700000000000\n\
                    a{x=\"1\" 4\na{x} 5\na\na x\n  a{ x = \"2\" , } 1.5e1\r\n";
        let read: Vec<_> = samples(text, "a").collect();
        let values: Vec<f64> = read.iter().map(|sample| sample.value).collect();
        assert_eq!(values, [1.0, 3.0, f64::INFINITY, 15.0]);
        assert_eq!(read[2].label("y"), "} \"\\\n,");
        assert_eq!((read[3].label("x"), read[3].label("y")), ("2", ""));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "(a|\\{|\\}|=|\"|\\\\|,| |1|é|\n){0,60}") {
            let _count = samples(&text, "a").count();
        }
    }
}
