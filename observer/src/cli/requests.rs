//! `observer requests`: follows the requests that an agent sees, until interrupted.
//!
//! In: the agent's stream of JSON records. Out: aligned lines, or the record lines as they are.

use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::time::Duration;

use serde::Deserialize;

use crate::config::cli::RequestsArgs;
use crate::exchange::RequestRecord;

use super::table::Table;

/// The longest line that is read; a record is far shorter.
const LONGEST: u64 = 1 << 20;

/// Why requests cannot be followed, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum RequestsError {
    /// Nothing answers.
    #[error(
        "no agent answers at {address} ({cause}); start one with `observer agent` as root, or name its address \
         with --address"
    )]
    NoAgent {
        /// The address that was tried.
        address: String,
        /// What went wrong.
        cause: Box<ureq::Error>,
    },
    /// Something answers, but not with requests.
    #[error("{address} answers with status {status}: {}", body.trim())]
    Refused {
        /// The address.
        address: String,
        /// The HTTP status.
        status: u16,
        /// What it said.
        body: String,
    },
    /// The agent went away.
    #[error("the agent at {address} ended the stream: it was stopped; start it again and repeat the command")]
    Ended {
        /// The address.
        address: String,
    },
    /// The connection broke.
    #[error("the connection to the agent at {address} broke: {cause}; see whether the agent still runs")]
    Broken {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A line is no record.
    #[error(
        "{address} sent what is no request record ({cause}); see whether --address is an agent of this version"
    )]
    NotARecord {
        /// The address.
        address: String,
        /// What is wrong with it.
        #[source]
        cause: serde_json::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

/// What an agent sends in place of records that this side was too slow for.
#[derive(Deserialize)]
struct Lagged {
    lagged: u64,
}

/// Follows an agent's requests on standard output. Returns when whoever reads the output has had enough.
///
/// # Errors
///
/// When no agent answers, the stream ends, or the output fails.
pub fn run(args: &RequestsArgs) -> Result<(), RequestsError> {
    let output = io::stdout().lock();
    let colour = output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    follow(args, colour, output, io::stderr())
}

/// Follows an agent's requests: records to `output`, remarks about them to `remarks`.
///
/// # Errors
///
/// When no agent answers, the stream ends, or the output fails.
pub fn follow(
    args: &RequestsArgs,
    colour: bool,
    mut output: impl Write,
    mut remarks: impl Write,
) -> Result<(), RequestsError> {
    let lines = open(&args.address)?;
    match show(lines, args, colour, &mut output, &mut remarks) {
        // `observer requests | head` is a fine way to stop.
        Err(RequestsError::Output(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn open(address: &str) -> Result<impl BufRead, RequestsError> {
    let no_agent = |cause| RequestsError::NoAgent { address: address.to_owned(), cause: Box::new(cause) };
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(5)))
        // The agent is on this machine, or behind a port that was forwarded to it; never behind a proxy.
        .proxy(None)
        .max_redirects(0)
        .build()
        .new_agent();
    let response = agent.get(format!("http://{address}/api/v1/requests")).call().map_err(no_agent)?;
    let status = response.status().as_u16();
    let body = response.into_body().into_reader();
    if status == 200 {
        return Ok(BufReader::new(body));
    }
    let mut said = Vec::new();
    // What cannot be read is not shown; the status alone says enough.
    let _partial = body.take(500).read_to_end(&mut said);
    let body = String::from_utf8_lossy(&said).replace(|c: char| c.is_control() && c != '\n', " ");
    Err(RequestsError::Refused { address: address.to_owned(), status, body })
}

fn show(
    mut lines: impl BufRead,
    args: &RequestsArgs,
    colour: bool,
    output: &mut impl Write,
    remarks: &mut impl Write,
) -> Result<(), RequestsError> {
    let table = Table::new(colour);
    let address = || args.address.clone();
    if !args.json {
        writeln!(output, "{}", table.header())
            .and_then(|()| output.flush())
            .map_err(RequestsError::Output)?;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines.by_ref().take(LONGEST).read_until(b'\n', &mut line);
        match read.map_err(|cause| RequestsError::Broken { address: address(), cause })? {
            0 => return Err(RequestsError::Ended { address: address() }),
            _ if line.trim_ascii().is_empty() => continue,
            _ => {}
        }
        if args.json {
            output.write_all(&line)
        } else if let Ok(Lagged { lagged }) = serde_json::from_slice(&line) {
            writeln!(remarks, "{lagged} requests are not shown: this side was slower than the agent")
        } else {
            let record: RequestRecord = serde_json::from_slice(&line)
                .map_err(|cause| RequestsError::NotARecord { address: address(), cause })?;
            writeln!(output, "{}", table.row(&record))
        }
        .and_then(|()| output.flush())
        .map_err(RequestsError::Output)?;
    }
}

#[cfg(test)]
mod tests;
