//! The command line: what may be typed after `observer`.
//!
//! In: arguments. Out: [`Cli`], still unresolved; [`Cli::settings`] turns flags into settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

mod questions;

pub use questions::{
    DiffArgs, DoctorArgs, EventsArgs, ExaminedRole, ExplainArgs, LogsArgs, Pair, ReachArgs, RequestsArgs,
    RowsArgs, TopArgs, WhichArgs, WhoseArgs,
};

/// Measures LLM inference from the wire, without a change to applications.
#[derive(Clone, Debug, Parser)]
#[command(name = "observer", version, about, max_term_width = 110)]
pub struct Cli {
    /// Configuration file (TOML); every field of it can also be set by environment and by --set
    #[arg(long, global = true, env = "OBSERVER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Sets one configuration field, such as --set metrics.labels=otel; may be repeated
    #[arg(long = "set", global = true, value_name = "FIELD=VALUE", value_parser = parse_assignment)]
    pub set: Vec<(String, String)>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `observer` can do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Observe this node and serve metrics and requests
    Agent(AgentArgs),
    /// Watch what must be watched once per cluster, and serve metrics and events
    Cluster(ClusterArgs),
    /// Write what the kernel side reports into a file; content is masked
    Record(RecordArgs),
    /// Read a recording and show the requests in it
    Replay(ReplayArgs),
    /// Follow the requests that a node or a cluster serves, or ask for those of the last while
    Requests(Box<RequestsArgs>),
    /// Tell why requests took as long as they did, or failed: where their time went, what happened meanwhile, who is at fault
    Explain(Box<ExplainArgs>),
    /// Compare the requests of two windows of time, or those of one pod with those of others
    Diff(Box<DiffArgs>),
    /// Follow what containers and services write, or search what they wrote
    Logs(Box<LogsArgs>),
    /// Follow what occurs: processes, stalls, Kubernetes, the observer itself; or search what did
    Events(Box<EventsArgs>),
    /// Show who is served how: rates, times, tokens and errors by pod and model
    Top(Box<TopArgs>),
    /// Look for what a role needs and does not have; exits with 1 if something that matters is missing
    Doctor(DoctorArgs),
}

/// Flags of `observer agent`.
#[derive(Clone, Debug, Default, Args)]
pub struct AgentArgs {
    /// Address that is served on; /api takes a token beyond loopback [default: 0.0.0.0:9842]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// Name of this node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,

    /// Log level: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// Flags of `observer cluster`.
#[derive(Clone, Debug, Default, Args)]
pub struct ClusterArgs {
    /// Address that is served on; /api takes a token beyond loopback [default: 0.0.0.0:9842]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,

    /// Log level: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log: Option<String>,
}

/// Arguments of `observer record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// File to write; it must not exist
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Keep prompts, completions and credentials; needs `content.allow_recording = true`
    #[arg(long)]
    pub with_content: bool,

    /// Stop after this time, such as 30s, 5m or 1h [default: until interrupted]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
}

/// Arguments of `observer replay`.
#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// Recording to read
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Print each request as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// One flag, as a configuration field and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagSetting {
    /// The flag as the operator knows it.
    pub flag: String,
    /// The field that it sets.
    pub field: String,
    /// What was typed.
    pub value: String,
}

impl Cli {
    /// The flags that set configuration fields. `--set` comes first: a flag of its own wins over it.
    pub fn settings(&self) -> Vec<FlagSetting> {
        let mut settings: Vec<FlagSetting> = self
            .set
            .iter()
            .map(|(field, value)| FlagSetting {
                flag: format!("--set {field}"),
                field: field.clone(),
                value: value.clone(),
            })
            .collect();
        let flags = match &self.command {
            Command::Agent(args) => vec![("listen", &args.listen), ("node", &args.node), ("log", &args.log)],
            Command::Cluster(args) => vec![("listen", &args.listen), ("log", &args.log)],
            Command::Record(_)
            | Command::Replay(_)
            | Command::Requests(_)
            | Command::Explain(_)
            | Command::Diff(_)
            | Command::Logs(_)
            | Command::Events(_)
            | Command::Top(_)
            | Command::Doctor(_) => Vec::new(),
        };
        settings.extend(flags.into_iter().filter_map(|(field, value)| {
            let value = value.clone()?;
            Some(FlagSetting { flag: format!("--{field}"), field: field.to_owned(), value })
        }));
        settings
    }
}

fn parse_assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.trim().is_empty() => {
            Ok((field.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("write it as FIELD=VALUE, such as metrics.labels=otel".to_owned()),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let remedy = || "write a whole number above 0 with ms, s, m or h, such as 30s".to_owned();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_not_a_number| remedy())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(remedy()),
    };
    match number.checked_mul(millis) {
        Some(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(remedy()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_settings_and_own_flags_come_last() {
        let cli = Cli::try_parse_from([
            "observer",
            "agent",
            "--listen",
            "127.0.0.1:1",
            "--set",
            "listen=0.0.0.0:2",
            "--set",
            "metrics.labels = otel",
        ])
        .unwrap();
        let settings: Vec<_> = cli.settings().into_iter().map(|s| (s.flag, s.field, s.value)).collect();
        let of = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            settings,
            [
                of("--set listen", "listen", "0.0.0.0:2"),
                of("--set metrics.labels", "metrics.labels", "otel"),
                of("--listen", "listen", "127.0.0.1:1"),
            ]
        );
    }

    #[test]
    fn durations() {
        for (text, millis) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1.5s", "0s", "1d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn subcommands_take_their_arguments() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        assert!(matches!(
            parse("observer record out.rec --with-content --duration 30s").unwrap(),
            Command::Record(RecordArgs { with_content: true, duration: Some(_), .. })
        ));
        assert!(matches!(
            parse("observer replay out.rec --json").unwrap(),
            Command::Replay(ReplayArgs { json: true, .. })
        ));
        assert!(matches!(
            parse("observer cluster --listen 127.0.0.1:1").unwrap(),
            Command::Cluster(ClusterArgs { listen: Some(_), log: None })
        ));
        assert!(parse("observer record").is_err(), "record needs a file");
        assert!(parse("observer agent --set nonsense").is_err(), "an assignment needs =");
        assert!(parse("observer").is_err(), "a subcommand is needed");
    }
}
