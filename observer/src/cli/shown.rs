//! Answers as lines of text, or as they are; remarks about them beside.

use std::io::Write;

use bytes::Bytes;
use serde::Deserialize;

use super::failure::Failure;
use super::reach::Way;
use super::{lacks, remark};
use crate::fleet::Answer;
use crate::recent::Trailer;

/// What is sent in place of what this side was too slow for.
#[derive(Deserialize)]
struct Lagged {
    lagged: u64,
}

/// How a line of an answer is shown.
pub(super) trait Shape {
    /// What is shown, many of them.
    const NAME: &str;

    /// The line above all.
    fn header(&self) -> Option<String>;

    /// A line of JSON as text.
    fn line(&self, line: &[u8]) -> Result<String, serde_json::Error>;
}

/// An answer on its way to a terminal.
pub(super) struct Shown<S, O, R> {
    pub(super) json: bool,
    pub(super) shape: S,
    pub(super) output: O,
    pub(super) remarks: R,
}

impl<S: Shape, O: Write, R: Write> Shown<S, O, R> {
    pub(super) fn header(&mut self) -> Result<(), Failure> {
        let Some(header) = self.shape.header().filter(|_| !self.json) else { return Ok(()) };
        writeln!(self.output, "{header}").and_then(|()| self.output.flush()).map_err(Failure::Output)
    }

    /// Shows lines as they come, until they end: somebody stopped then.
    pub(super) async fn follow(&mut self, way: &Way, mut answer: Answer) -> Result<(), Failure> {
        loop {
            match answer.line().await {
                Ok(Some(line)) => self.line(way, &line)?,
                Ok(None) => return Err(Failure::Ended { whom: way.whom() }),
                Err(cause) => return Err(Failure::Broken { whom: way.whom(), cause }),
            }
        }
    }

    /// Shows an answer that comes newest first so that the newest is last, where the reader looks. How many lines it had.
    pub(super) async fn past(
        &mut self,
        way: &Way,
        is_newest_first: bool,
        mut answer: Answer,
    ) -> Result<usize, Failure> {
        let mut lines: Vec<Bytes> = Vec::new();
        let trailer = loop {
            match answer.line().await {
                Ok(Some(line)) => match serde_json::from_slice::<Trailer>(&line) {
                    Ok(trailer) => break trailer,
                    Err(_a_record) => lines.push(line),
                },
                Ok(None) => return Err(Failure::Ended { whom: way.whom() }),
                Err(cause) => return Err(Failure::Broken { whom: way.whom(), cause }),
            }
        };
        if is_newest_first {
            lines.reverse();
        }
        for line in &lines {
            self.line(way, line)?;
        }
        if self.json {
            let line = serde_json::to_string(&trailer).map_err(|error| Failure::Output(error.into()))?;
            return writeln!(self.output, "{line}").map(|()| lines.len()).map_err(Failure::Output);
        }
        lacks(&mut self.remarks, &trailer.partial)?;
        if trailer.next.is_some() {
            let shown = lines.len();
            remark(
                &mut self.remarks,
                &format!("there are more than these {shown}: --limit shows more of them"),
            )?;
        }
        Ok(lines.len())
    }

    fn line(&mut self, way: &Way, line: &[u8]) -> Result<(), Failure> {
        if self.json {
            self.output.write_all(line)
        } else if let Ok(Lagged { lagged }) = serde_json::from_slice(line) {
            let said = format!("{lagged} {} are not shown: this side was slower than the other", S::NAME);
            return remark(&mut self.remarks, &said);
        } else if let Ok(trailer) = serde_json::from_slice::<Trailer>(line) {
            return lacks(&mut self.remarks, &trailer.partial);
        } else {
            let text = self.shape.line(line).map_err(|cause| Failure::NoLine { whom: way.whom(), cause })?;
            writeln!(self.output, "{text}")
        }
        .and_then(|()| self.output.flush())
        .map_err(Failure::Output)
    }
}
