//! `observer requests`: follows the requests that a node or a cluster serves until interrupted, or shows those of the
//! last while.
//!
//! In: lines of JSON. Out: aligned lines, or the lines as they are; remarks about them beside.

use std::io::{self, IsTerminal, Write};

use super::colours;
use super::failure::Failure;
use super::reach::Way;
use super::shown::{Shape, Shown};
use super::table::Table;
use crate::config::cli::RequestsArgs;
use crate::exchange::RequestRecord;

const PATH: &str = "/api/v1/requests";

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
    let mut shown = Shown { json: args.json, shape: Table::new(colour), output, remarks };
    Failure::unless_enough(runtime.block_on(async {
        let way = Way::find(&args.reach).await?;
        let parameters = args.parameters();
        let answer = way.ask(PATH, &parameters).await?;
        shown.header()?;
        if args.follow || parameters.is_empty() {
            shown.follow(&way, answer).await
        } else {
            shown.past(&way, true, answer).await.map(drop)
        }
    }))
}

impl Shape for Table {
    const NAME: &str = "requests";

    fn header(&self) -> Option<String> {
        Some(Self::header(*self))
    }

    fn line(&self, line: &[u8]) -> Result<String, serde_json::Error> {
        let record: RequestRecord = serde_json::from_slice(line)?;
        Ok(self.row(&record))
    }
}

#[cfg(test)]
mod tests;
