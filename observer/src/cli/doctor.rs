//! `observer doctor`: findings as lines, and whether anything that matters is missing.

use std::io::{self, IsTerminal, Write};

use super::failure::Failure;
use super::{colours, remark};
use crate::config::Config;
use crate::config::cli::{DoctorArgs, ExaminedRole};
use crate::doctor::{Finding, Role, State, examine};

/// Examines, and writes the findings to standard output; whether nothing that matters is missing.
///
/// # Errors
///
/// When the output fails.
pub fn run(args: &DoctorArgs, config: &Config) -> Result<bool, Failure> {
    let role = match args.role {
        ExaminedRole::Agent => Role::Agent,
        ExaminedRole::Cluster => Role::Cluster,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    let findings = runtime.block_on(examine(role, config));
    let mut output = io::stdout().lock();
    let colour = colours(output.is_terminal());
    write(&findings, args.json, colour, &mut output)?;
    Ok(findings.iter().all(|finding| finding.state != State::Missing))
}

fn write(findings: &[Finding], json: bool, colour: bool, output: &mut impl Write) -> Result<(), Failure> {
    for finding in findings {
        if json {
            let line = serde_json::to_string(finding).map_err(|error| Failure::Output(error.into()))?;
            writeln!(output, "{line}").map_err(Failure::Output)?;
            continue;
        }
        let remedy = finding.remedy.as_ref().map_or_else(String::new, |remedy| format!("; {remedy}"));
        let (before, after) = if colour { (tint(finding.state), "\x1b[0m") } else { ("", "") };
        write!(output, "{before}{:<7}{after} {:<13} ", finding.state.as_str(), finding.check)
            .map_err(Failure::Output)?;
        remark(output, &format!("{}{remedy}", finding.found))?;
    }
    output.flush().map_err(Failure::Output)
}

const fn tint(state: State) -> &'static str {
    match state {
        State::Ok => "\x1b[32m",
        State::Less | State::Unknown => "\x1b[33m",
        State::Missing => "\x1b[31m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_each_finding() {
        let findings = [
            Finding { check: "kernel", state: State::Ok, found: "Linux 6".to_owned(), remedy: None },
            Finding {
                check: "rights",
                state: State::Missing,
                found: "may not list pods".to_owned(),
                remedy: Some("grant it".to_owned()),
            },
        ];
        let text = |json, colour| {
            let mut output = Vec::new();
            write(&findings, json, colour, &mut output).unwrap();
            String::from_utf8(output).unwrap()
        };
        assert_eq!(
            text(false, false),
            "ok      kernel        Linux 6\nmissing rights        may not list pods; grant it\n"
        );
        assert!(text(false, true).contains("\x1b[31mmissing\x1b[0m"));
        assert_eq!(
            text(true, false).lines().nth(1).unwrap(),
            r#"{"check":"rights","state":"missing","found":"may not list pods","remedy":"grant it"}"#
        );
    }
}
