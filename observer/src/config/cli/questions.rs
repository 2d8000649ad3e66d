//! Arguments of the commands that ask a running observer: whom, and what.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Whom to ask.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Whom to ask")]
pub struct ReachArgs {
    /// Address of an agent or of the cluster role [default: 127.0.0.1:9842; where nobody is there, the cluster role
    /// through the kubeconfig]
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with_all = ["kubeconfig", "context"])]
    pub address: Option<String>,

    /// File with the token for another machine's address
    #[arg(long, value_name = "FILE", env = "OBSERVER_API_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,

    /// File with the certificates of those who vouch for that address, PEM: it is asked over TLS (`tls.listen`)
    #[arg(long, value_name = "FILE", requires = "address")]
    pub ca_file: Option<PathBuf>,

    /// File with the certificate to show it, PEM
    #[arg(long, value_name = "FILE", requires_all = ["ca_file", "key_file"])]
    pub cert_file: Option<PathBuf>,

    /// File with its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,

    /// Ask the cluster role through this kubeconfig's API server [default: KUBECONFIG, ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Ask the cluster role of this context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace that the observer is installed in
    #[arg(long, value_name = "NAME", default_value = "observer")]
    pub observer_namespace: String,
}

/// Whose requests.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which")]
pub struct WhoseArgs {
    /// Namespace, or a pattern with * and ?
    #[arg(short = 'n', long, value_name = "PATTERN")]
    pub namespace: Option<String>,

    /// Pod, or a pattern
    #[arg(long, value_name = "PATTERN")]
    pub pod: Option<String>,

    /// Container, or a pattern; outside Kubernetes the process
    #[arg(long, value_name = "PATTERN")]
    pub container: Option<String>,

    /// Node, or a pattern
    #[arg(long, value_name = "PATTERN")]
    pub node: Option<String>,

    /// A part of the model's name, or a pattern of all of it
    #[arg(long, value_name = "PATTERN")]
    pub model: Option<String>,

    /// Those that ended since: a time ago, such as 15m, or a moment, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<String>,
}

/// Which requests.
#[derive(Clone, Debug, Default, Args)]
pub struct WhichArgs {
    /// Whose.
    #[command(flatten)]
    pub whose: WhoseArgs,

    /// Those that ended until: a time ago, or a moment
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub until: Option<String>,

    /// Those that ended so: ok, rejected, `server_error`, …; several with commas between
    #[arg(long, value_name = "OUTCOMES", help_heading = "Which")]
    pub outcome: Option<String>,

    /// HTTP status, such as 429 or 5xx; several with commas between
    #[arg(long, value_name = "CODES", help_heading = "Which")]
    pub status: Option<String>,

    /// chat, embeddings, rerank, …; several with commas between
    #[arg(long, value_name = "OPERATIONS", help_heading = "Which")]
    pub operation: Option<String>,

    /// Those that missed an objective; where there is none for the model, those that were slower than 95 % of its
    /// requests
    #[arg(long, help_heading = "Which")]
    pub slow: bool,

    /// Those whose first token took so long, such as 500ms
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub min_ttft: Option<String>,

    /// Those that took so long
    #[arg(long, value_name = "TIME", help_heading = "Which")]
    pub min_duration: Option<String>,

    /// The one with this id of the observer's
    #[arg(long, value_name = "ID", help_heading = "Which")]
    pub id: Option<String>,

    /// Those with this x-request-id
    #[arg(long, value_name = "ID", help_heading = "Which")]
    pub request_id: Option<String>,

    /// Those of this trace
    #[arg(long, value_name = "ID", help_heading = "Which")]
    pub trace_id: Option<String>,
}

/// Arguments of `observer requests`.
#[derive(Clone, Debug, Default, Args)]
pub struct RequestsArgs {
    /// Print each request as one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Go on with what ends from now on; without any condition that is what happens
    #[arg(short = 'f', long)]
    pub follow: bool,

    /// Which.
    #[command(flatten)]
    pub which: WhichArgs,

    /// Whom to ask.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Arguments of `observer explain`.
#[derive(Clone, Debug, Default, Args)]
pub struct ExplainArgs {
    /// Id of a request: the observer's, its x-request-id, or the one in its response [default: the newest ones]
    #[arg(value_name = "REQUEST")]
    pub request: Option<String>,

    /// Print each explanation as one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Which.
    #[command(flatten)]
    pub which: WhichArgs,

    /// Whom to ask.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Arguments of `observer diff`.
#[derive(Clone, Debug, Default, Args)]
pub struct DiffArgs {
    /// Print what each model has as one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Compare with requests that ended so much earlier, such as 1h [default: right before]
    #[arg(long, value_name = "TIME", conflicts_with = "peers")]
    pub earlier: Option<String>,

    /// Compare with all others of the same time, of which --pod, --container, --node, … do not hold
    #[arg(long)]
    pub peers: bool,

    /// Which.
    #[command(flatten)]
    pub which: WhichArgs,

    /// Whom to ask.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Which lines or events.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which")]
pub struct RowsArgs {
    /// Print each row as one line of JSON
    #[arg(long, help_heading = None::<&str>)]
    pub json: bool,

    /// Go on with what comes from now on; without any condition that is what happens
    #[arg(short = 'f', long, help_heading = None::<&str>)]
    pub follow: bool,

    /// Namespace, or a pattern with * and ?
    #[arg(short = 'n', long, value_name = "PATTERN")]
    pub namespace: Option<String>,

    /// Pod, or a pattern
    #[arg(long, value_name = "PATTERN")]
    pub pod: Option<String>,

    /// Container, or a pattern; outside Kubernetes the process or the file
    #[arg(long, value_name = "PATTERN")]
    pub container: Option<String>,

    /// What manages the pod, or a pattern
    #[arg(long, value_name = "PATTERN")]
    pub workload: Option<String>,

    /// Node, or a pattern
    #[arg(long, value_name = "PATTERN")]
    pub node: Option<String>,

    /// trace, debug, info, warn, error or fatal; several with commas between
    #[arg(long, value_name = "LEVELS")]
    pub level: Option<String>,

    /// All of these words, in any case
    #[arg(long, value_name = "WORDS")]
    pub words: Option<String>,

    /// These words one after the other, in any case
    #[arg(long, value_name = "WORDS")]
    pub phrase: Option<String>,

    /// A regular expression
    #[arg(short = 'e', long, value_name = "EXPRESSION")]
    pub regex: Option<String>,

    /// Since: a time ago, such as 15m, or a moment, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Until: a time ago, or a moment
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Those that name this request
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,

    /// Those that name this trace
    #[arg(long, value_name = "ID")]
    pub trace_id: Option<String>,

    /// How many there are in each span, such as 1m, in place of the rows
    #[arg(long, value_name = "TIME")]
    pub bucket: Option<String>,

    /// oldest or newest first, where not all are shown
    #[arg(long, value_name = "ORDER")]
    pub order: Option<String>,

    /// Goes on where an answer said `next`
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<String>,

    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    pub limit: Option<String>,

    /// Whom to ask.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Arguments of `observer logs`.
#[derive(Clone, Debug, Default, Args)]
pub struct LogsArgs {
    /// Which.
    #[command(flatten)]
    pub rows: RowsArgs,

    /// stdout or stderr
    #[arg(long, value_name = "STREAM", help_heading = "Which")]
    pub stream: Option<String>,

    /// So many lines of the same container before and after each
    #[arg(short = 'C', long = "around", value_name = "NUMBER", help_heading = "Which")]
    pub around: Option<String>,
}

/// Arguments of `observer events`.
#[derive(Clone, Debug, Default, Args)]
pub struct EventsArgs {
    /// Which.
    #[command(flatten)]
    pub rows: RowsArgs,

    /// process, kubernetes, gpu, stall, observer; also log and request, to see all in order; several with commas between
    #[arg(long, value_name = "KINDS", help_heading = "Which")]
    pub kind: Option<String>,
}

/// Arguments of `observer top`.
#[derive(Clone, Debug, Default, Args)]
pub struct TopArgs {
    /// Print each row as one line of JSON
    #[arg(long)]
    pub json: bool,

    /// Print the table once; on a terminal it is refreshed every two seconds
    #[arg(long)]
    pub once: bool,

    /// Whose.
    #[command(flatten)]
    pub whose: WhoseArgs,

    /// Whom to ask.
    #[command(flatten)]
    pub reach: ReachArgs,
}

/// Arguments of `observer doctor`.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Role to examine for, in its pod or on its machine
    #[arg(value_enum, default_value_t = ExaminedRole::Agent)]
    pub role: ExaminedRole,

    /// Print each finding as one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// A role that can be examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExaminedRole {
    /// `observer agent`
    Agent,
    /// `observer cluster`
    Cluster,
}

/// A parameter of a question.
pub type Pair = (&'static str, String);

impl WhoseArgs {
    fn parameters(&self) -> Vec<Pair> {
        given([
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("container", &self.container),
            ("node", &self.node),
            ("model", &self.model),
            ("since", &self.since),
            ("limit", &self.limit),
        ])
    }
}

impl WhichArgs {
    /// What is asked, as parameters.
    pub fn parameters(&self) -> Vec<Pair> {
        let mut pairs = self.whose.parameters();
        pairs.extend(given([
            ("until", &self.until),
            ("outcome", &self.outcome),
            ("status", &self.status),
            ("operation", &self.operation),
            ("min_ttft", &self.min_ttft),
            ("min_duration", &self.min_duration),
            ("id", &self.id),
            ("request_id", &self.request_id),
            ("trace_id", &self.trace_id),
        ]));
        pairs.extend(self.slow.then(|| ("slow", "true".to_owned())));
        pairs
    }
}

impl RequestsArgs {
    /// What is asked, as parameters of `/api/v1/requests`; nothing to follow all.
    pub fn parameters(&self) -> Vec<Pair> {
        let mut pairs = self.which.parameters();
        pairs.extend(self.follow.then(|| ("follow", "true".to_owned())));
        pairs
    }
}

impl ExplainArgs {
    /// What is asked, as parameters of `/api/v1/explain`.
    pub fn parameters(&self) -> Vec<Pair> {
        let mut pairs = self.which.parameters();
        pairs.extend(given([("request", &self.request)]));
        pairs
    }
}

impl RowsArgs {
    fn parameters(&self) -> Vec<Pair> {
        let mut pairs = given([
            ("namespace", &self.namespace),
            ("pod", &self.pod),
            ("container", &self.container),
            ("workload", &self.workload),
            ("node", &self.node),
            ("level", &self.level),
            ("words", &self.words),
            ("phrase", &self.phrase),
            ("regex", &self.regex),
            ("since", &self.since),
            ("until", &self.until),
            ("request_id", &self.request_id),
            ("trace_id", &self.trace_id),
            ("bucket", &self.bucket),
            ("order", &self.order),
            ("cursor", &self.cursor),
            ("limit", &self.limit),
        ]);
        pairs.extend(self.follow.then(|| ("follow", "true".to_owned())));
        pairs
    }
}

impl LogsArgs {
    /// What is asked, as parameters of `/api/v1/logs`; nothing to follow all.
    pub fn parameters(&self) -> Vec<Pair> {
        let mut pairs = self.rows.parameters();
        pairs.extend(given([("stream", &self.stream), ("context", &self.around)]));
        pairs
    }
}

impl EventsArgs {
    /// What is asked, as parameters of `/api/v1/events`; nothing to follow all.
    pub fn parameters(&self) -> Vec<Pair> {
        let mut pairs = self.rows.parameters();
        pairs.extend(given([("kind", &self.kind)]));
        pairs
    }
}

impl TopArgs {
    /// What is asked, as parameters of `/api/v1/top`.
    pub fn parameters(&self) -> Vec<Pair> {
        self.whose.parameters()
    }
}

fn given<const N: usize>(values: [(&'static str, &Option<String>); N]) -> Vec<Pair> {
    values.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::config::cli::{Cli, Command};
    use crate::recent::{Asked, Query};

    fn parameters(line: &str) -> Vec<(String, String)> {
        let pairs = match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Requests(args) => args.parameters(),
            Command::Top(args) => args.parameters(),
            Command::Logs(args) => args.parameters(),
            Command::Events(args) => args.parameters(),
            other => panic!("{other:?}"),
        };
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    #[test]
    fn flags_are_the_parameters_of_the_question() {
        assert_eq!(parameters("observer requests"), []);
        let all = "observer requests -n ml --pod p --container c --node a --model llama --since 15m --limit 5 --until 1m \
                   --outcome ok --status 5xx --operation chat --min-ttft 1s --min-duration 2s --id 1-0 --request-id r \
                   --trace-id t --slow";
        let all = parameters(&all.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(all.len(), 17);
        assert!(Query::parse(Asked::Requests, &all).is_ok(), "every flag is known to the other side");
        let followed = parameters("observer requests --follow --slow");
        assert!(Query::parse(Asked::Requests, &followed).unwrap().follow);
        let rows = "-n ml --pod p --container c --workload w --node a --level error --words x --phrase y --regex z --since 1h \
                    --until 1m --request-id r --trace-id t --order oldest --cursor 1,a,b --limit 5";
        for (asked, line, count) in [
            (Asked::Logs, format!("observer logs {rows} --stream stderr --around 2"), 18),
            (Asked::Events, format!("observer events {rows} --kind stall,log --bucket 1m"), 18),
        ] {
            let all = parameters(&line.split_whitespace().collect::<Vec<_>>().join(" "));
            assert_eq!(all.len(), count, "{line}");
            assert!(Query::parse(asked, &all).is_ok(), "every flag is known to the other side: {line}");
        }
        let top =
            parameters("observer top -n ml --pod p --container c --node a --model m --since 5m --limit 9");
        assert_eq!(top.len(), 7);
        assert!(Query::parse(Asked::Top, &top).is_ok());
    }

    #[test]
    fn one_road_at_a_time() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("observer requests --address 127.0.0.1:1 --context x").is_err());
        assert!(parse("observer top --address 127.0.0.1:1 --kubeconfig x").is_err());
        assert!(parse("observer requests --kubeconfig x --context y -f").is_ok());
    }
}
