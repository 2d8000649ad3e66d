//! What kind of thing a row tells of, and how bad it is.

use serde::{Deserialize, Serialize};

/// What a row tells of: a line of a log, a request, or one of the kinds of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A line of a log.
    #[default]
    Log,
    /// A request that ended.
    Request,
    /// A process: exec, exit, killed for memory.
    Process,
    /// Kubernetes: restarts, scheduling, probes, scaling.
    Kubernetes,
    /// A GPU: errors, throttling.
    Gpu,
    /// A stream that stalls, or goes on.
    Stall,
    /// The observer itself: start, end, drops.
    Observer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Log, Self::Request, Self::Process, Self::Kubernetes, Self::Gpu, Self::Stall, Self::Observer];

    /// Those that are events.
    pub const EVENTS: [Self; 5] = [Self::Process, Self::Kubernetes, Self::Gpu, Self::Stall, Self::Observer];

    /// Those that the cluster role tells beside its agents.
    pub const OF_CLUSTER: [Self; 2] = [Self::Kubernetes, Self::Observer];

    /// The word used in rows, questions and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Request => "request",
            Self::Process => "process",
            Self::Kubernetes => "kubernetes",
            Self::Gpu => "gpu",
            Self::Stall => "stall",
            Self::Observer => "observer",
        }
    }

    /// From that word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// How bad it is, as whoever wrote it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Finest.
    Trace,
    /// For those who look for mistakes.
    Debug,
    /// As expected.
    Info,
    /// Not as expected.
    Warn,
    /// Something failed.
    Error,
    /// It cannot go on.
    Fatal,
}

impl Level {
    /// All of them, the least bad first.
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// The word used in rows and questions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// From the words that loggers use, in any case.
    pub fn of(word: &str) -> Option<Self> {
        const WORDS: [(&str, Level); 17] = [
            ("trace", Level::Trace),
            ("verbose", Level::Trace),
            ("debug", Level::Debug),
            ("dbg", Level::Debug),
            ("info", Level::Info),
            ("information", Level::Info),
            ("notice", Level::Info),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("error", Level::Error),
            ("err", Level::Error),
            ("severe", Level::Error),
            ("fatal", Level::Fatal),
            ("critical", Level::Fatal),
            ("crit", Level::Fatal),
            ("panic", Level::Fatal),
            ("emerg", Level::Fatal),
        ];
        WORDS.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, level)| level)
    }
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output, and files that are no stream.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// The word used in rows and questions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// From that word.
    pub fn of(word: &str) -> Option<Self> {
        [Self::Stdout, Self::Stderr].into_iter().find(|stream| stream.as_str() == word)
    }
}
