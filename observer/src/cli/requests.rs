//! `observer requests`: follows the requests that a node or a cluster serves until interrupted, or shows those of the
//! last while.
//!
//! In: lines of JSON. Out: aligned lines, or the lines as they are; remarks about them beside.

use std::io::{self, IsTerminal, Write};

use bytes::Bytes;
use serde::Deserialize;

use super::failure::Failure;
use super::reach::Way;
use super::table::Table;
use super::{colours, lacks, remark};
use crate::config::cli::RequestsArgs;
use crate::exchange::RequestRecord;
use crate::fleet::Answer;
use crate::recent::Trailer;

const PATH: &str = "/api/v1/requests";

/// What is sent in place of records that this side was too slow for.
#[derive(Deserialize)]
struct Lagged {
    lagged: u64,
}

/// Shows requests on standard output. Returns when all are shown, or whoever reads the output has had enough.
///
/// # Errors
///
/// When nobody answers, a stream ends, or the output fails.
pub fn run(args: &RequestsArgs) -> Result<(), Failure> {
    let output = io::stdout().lock();
    let colour = colours(output.is_terminal());
    show(args, colour, output, io::stderr())
}

/// Shows requests: records to `output`, remarks about them to `remarks`.
///
/// # Errors
///
/// When nobody answers, a stream ends, or the output fails.
pub fn show(
    args: &RequestsArgs,
    colour: bool,
    output: impl Write,
    remarks: impl Write,
) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    let mut shown = Shown { json: args.json, table: Table::new(colour), output, remarks };
    Failure::unless_enough(runtime.block_on(async {
        let way = Way::find(&args.reach).await?;
        let parameters = args.parameters();
        let answer = way.ask(PATH, &parameters).await?;
        shown.header()?;
        if args.follow || parameters.is_empty() {
            shown.follow(&way, answer).await
        } else {
            shown.past(&way, answer).await
        }
    }))
}

struct Shown<O, R> {
    json: bool,
    table: Table,
    output: O,
    remarks: R,
}

impl<O: Write, R: Write> Shown<O, R> {
    fn header(&mut self) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        writeln!(self.output, "{}", self.table.header())
            .and_then(|()| self.output.flush())
            .map_err(Failure::Output)
    }

    /// Shows lines as they come, until they end: somebody stopped then.
    async fn follow(&mut self, way: &Way, mut answer: Answer) -> Result<(), Failure> {
        loop {
            match answer.line().await {
                Ok(Some(line)) => self.line(way, &line)?,
                Ok(None) => return Err(Failure::Ended { whom: way.whom() }),
                Err(cause) => return Err(Failure::Broken { whom: way.whom(), cause }),
            }
        }
    }

    /// Shows an answer that comes newest first so that the newest is last, where the reader looks.
    async fn past(&mut self, way: &Way, mut answer: Answer) -> Result<(), Failure> {
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
        for line in lines.iter().rev() {
            self.line(way, line)?;
        }
        if self.json {
            let line = serde_json::to_string(&trailer).map_err(|error| Failure::Output(error.into()))?;
            return writeln!(self.output, "{line}").map_err(Failure::Output);
        }
        lacks(&mut self.remarks, &trailer.partial)?;
        if trailer.next.is_some() {
            let shown = lines.len();
            remark(
                &mut self.remarks,
                &format!("there are more than these {shown}: --limit shows more of them"),
            )?;
        }
        Ok(())
    }

    fn line(&mut self, way: &Way, line: &[u8]) -> Result<(), Failure> {
        if self.json {
            self.output.write_all(line)
        } else if let Ok(Lagged { lagged }) = serde_json::from_slice(line) {
            let said = format!("{lagged} requests are not shown: this side was slower than the other");
            return remark(&mut self.remarks, &said);
        } else if let Ok(trailer) = serde_json::from_slice::<Trailer>(line) {
            return lacks(&mut self.remarks, &trailer.partial);
        } else {
            let record: RequestRecord =
                serde_json::from_slice(line).map_err(|cause| Failure::NoLine { whom: way.whom(), cause })?;
            writeln!(self.output, "{}", self.table.row(&record))
        }
        .and_then(|()| self.output.flush())
        .map_err(Failure::Output)
    }
}

#[cfg(test)]
mod tests;
