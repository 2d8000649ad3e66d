//! What the fields of a response's head tell of the request that it answers.

use super::facts::{Facts, Timings};

/// Reads them. TGI answers plain requests with counts and milliseconds in its head (`router/src/server.rs`),
/// and TEI, which embeds, with some of the same names.
pub fn head<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in fields {
        let Ok(text) = str::from_utf8(value) else { continue };
        let count = || text.parse::<u64>().ok();
        let seconds =
            || text.parse::<f64>().ok().filter(|ms| ms.is_finite() && *ms >= 0.0).map(|ms| ms / 1e3);
        match name {
            "x-prompt-tokens" | "x-compute-tokens" => facts.engine.input = count(),
            "x-generated-tokens" => {
                facts.engine.output = count();
                facts.provider = Some("tgi");
            }
            "x-queue-time" => facts.timings.queue = seconds(),
            _ => {}
        }
    }
    // A proxy may have such a field of its own: it is believed where an engine's others are.
    if facts.engine.input.is_none() && facts.engine.output.is_none() {
        facts.timings = Timings::default();
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tgi_and_only_tgi() {
        let fields: [(&str, &[u8]); 3] =
            [("x-queue-time", b"3"), ("x-prompt-tokens", b"9"), ("x-generated-tokens", b"12")];
        let facts = head(fields.into_iter());
        assert_eq!((facts.engine.input, facts.engine.output), (Some(9), Some(12)));
        assert_eq!((facts.timings.queue, facts.provider), (Some(0.003), Some("tgi")));
        assert_eq!(head(fields.into_iter().take(1)), Facts::default());
        assert_eq!(head([("x-generated-tokens", &b"\xff"[..])].into_iter()), Facts::default());
    }
}
