//! Records a node into a file, for `observer replay`.

use std::{io, sync::atomic::Ordering, time::Duration};

use tracing::warn;

use super::{AgentError, start_capture, stop_on_signals};
use crate::{
    capture::{Sink, monotonic},
    config::Config,
    recording::{
        file::{Content, WriteError, Writer},
        mask::Masker,
    },
};

/// Writes what is told into a recording.
struct Recorder {
    writer: Writer<io::BufWriter<std::fs::File>>,
    masker: Option<Masker>,
    failed: Option<String>,
}

impl Sink for Recorder {
    fn record(&mut self, raw: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        let written = match &mut self.masker {
            None => self.writer.write(raw),
            Some(masker) => {
                let mut masked = raw.to_vec();
                match masker.mask(&mut masked) {
                    Ok(()) => self.writer.write(&masked),
                    Err(malformed) => {
                        warn!(%malformed, "a record that cannot be masked is left out");
                        Ok(())
                    }
                }
            }
        };
        self.failed = written.err().map(|error: WriteError| error.to_string());
    }
}

/// Records this node into a file, until SIGINT, SIGTERM or the given time; how many records were written.
///
/// # Errors
/// [`AgentError`]: what could not be started or written.
pub fn record(
    config: &Config,
    path: &std::path::Path,
    with_content: bool,
    duration: Option<Duration>,
) -> Result<u64, AgentError> {
    let failed = |reason: String| AgentError::Recording { path: path.to_owned(), reason };
    if path.symlink_metadata().is_ok() {
        return Err(failed(creation(&io::ErrorKind::AlreadyExists.into())));
    }
    let content = if with_content { Content::Included } else { Content::Masked };
    let stop = stop_on_signals()?;
    let mut capture = start_capture(config, None)?;
    let writer = Writer::create(path, content, false).map_err(|error| failed(creation(&error)))?;
    let masker = (!with_content).then(Masker::new);
    let mut recorder = Recorder { writer, masker, failed: None };
    capture.backfill(&mut recorder);
    let end = duration.map(|duration| monotonic().saturating_add(duration.as_nanos() as u64));
    while !stop.load(Ordering::Relaxed)
        && recorder.failed.is_none()
        && end.is_none_or(|end| monotonic() < end)
    {
        capture.turn(&mut recorder);
    }
    capture.stop(&mut recorder);
    if let Some(reason) = recorder.failed {
        return Err(failed(reason));
    }
    let records = recorder.writer.records();
    recorder.writer.finish().map_err(|error| failed(error.to_string()))?;
    Ok(records)
}

/// Why a recording could not be created, and what to do.
fn creation(error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AlreadyExists => "name another file, or remove this one",
        io::ErrorKind::NotFound => "make its folder first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "name a file in a folder that may be written"
        }
        _ => "name a file in another folder",
    };
    format!("{error}; {remedy}")
}
