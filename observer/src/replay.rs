//! Replays a recording through the core.

use std::path::Path;

use crate::{
    estimate::Estimator,
    exchange::{Observation, RequestRecord},
    pipeline::{Limits, Pipeline, Stats},
    recording::file::{ReadError, Reader},
};

/// What a replay remembers: it has the machine for itself.
const LIMITS: Limits = Limits { connections: 1 << 20, bytes: 4 << 30 };

/// Hands each finished exchange of a recording to `sink`, in the order in which they ended. Streams may be
/// silent for `stalls_after` nanoseconds.
///
/// # Errors
/// [`ReadError`]; what was read before it has been handed out.
pub fn replay(
    path: &Path,
    stalls_after: u64,
    mut sink: impl FnMut(RequestRecord),
) -> Result<Stats, ReadError> {
    let mut reader = Reader::open(path)?;
    let mut estimator = Estimator::default();
    let mut pipeline = Pipeline::new(LIMITS).stalls_after(stalls_after);
    let mut time = 0;
    let outcome = loop {
        match reader.read() {
            Ok(Some(record)) => {
                time = record.header().time.max(time);
                pipeline.handle_record(&record);
                drain(&mut pipeline, &mut estimator, &mut sink);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    pipeline.finish(time);
    drain(&mut pipeline, &mut estimator, &mut sink);
    outcome.map(|()| pipeline.stats())
}

fn drain(pipeline: &mut Pipeline, estimator: &mut Estimator, sink: &mut impl FnMut(RequestRecord)) {
    while pipeline.poll_verdict().is_some() {}
    while pipeline.poll_ended().is_some() {}
    while pipeline.poll_undecoded().is_some() {}
    while let Some(mut observation) = pipeline.poll_observation() {
        estimator.observe(&mut observation);
        if let Observation::Finished { record, .. } = observation {
            sink(*record);
        }
    }
}
