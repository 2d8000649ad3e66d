//! The programs of the object: what each hangs on, and what is lost without it.

/// Programs for the exit of system calls whose entry left nothing to find: there was none to remember, or it
/// was not seen.
pub(super) const EXITS: &[(i64, &str)] = &[
    (libc::SYS_read, RECEIVED),
    (libc::SYS_recvfrom, RECEIVED),
    (libc::SYS_readv, RECEIVED),
    (libc::SYS_recvmsg, RECEIVED),
    (libc::SYS_recvmmsg, RECEIVED),
    (libc::SYS_write, SENT),
    (libc::SYS_sendto, SENT),
    (libc::SYS_writev, SENT),
    (libc::SYS_sendmsg, SENT),
    (libc::SYS_sendmmsg, SENT),
    (libc::SYS_sendfile, SENT),
    (libc::SYS_splice, SENT),
    (libc::SYS_accept, "exit_accept"),
    (libc::SYS_accept4, "exit_accept"),
    (libc::SYS_connect, "exit_connect"),
    (libc::SYS_dup, "exit_dup"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_dup2, "exit_dup"),
    (libc::SYS_dup3, "exit_dup"),
    (libc::SYS_fcntl, "exit_fcntl"),
];

const RECEIVED: &str = "exit_received";
const SENT: &str = "exit_sent";

/// Programs that are tail-called whatever the system call: the exit of an observed process's call, and the one that
/// copies parts of a call.
pub(super) const STEPS: &[(i64, &str)] = &[(0, "exit_call"), (1, "next_part")];

/// How a program is attached by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hook {
    /// A raw tracepoint, by name.
    Raw(&'static str),
    /// A tracepoint through perf, by category and name.
    Perf(&'static str, &'static str),
}

/// A program that is attached.
pub(super) struct Attachment {
    pub(super) program: &'static str,
    pub(super) hook: Hook,
    /// What is missing without it; `None` if observing is pointless without it.
    pub(super) without: Option<&'static str>,
}

/// In the order of attaching. The exit of system calls comes first and goes last, so that no call is seen
/// to begin whose end is not seen.
pub(super) const ATTACHMENTS: &[Attachment] = &[
    Attachment {
        program: "sched_process_exit",
        hook: Hook::Raw("sched_process_exit"),
        without: Some("exits are found by looking at /proc"),
    },
    Attachment {
        program: "sched_process_fork",
        hook: Hook::Perf("sched", "sched_process_fork"),
        without: Some("children that serve their parent's connections are not watched"),
    },
    Attachment {
        program: "sched_process_exec",
        hook: Hook::Raw("sched_process_exec"),
        without: Some("a process that replaces its program keeps its old identity"),
    },
    Attachment {
        program: "mark_victim",
        hook: Hook::Perf("oom", "mark_victim"),
        without: Some("out-of-memory kills are not told from other exits"),
    },
    Attachment {
        program: "tcp_rcv_space_adjust",
        hook: Hook::Perf("tcp", "tcp_rcv_space_adjust"),
        without: None,
    },
    Attachment {
        program: "sk_data_ready",
        hook: Hook::Raw("sk_data_ready"),
        without: Some("no `arrived` clock: socket wait is not measured"),
    },
    Attachment {
        program: "inet_sock_set_state",
        hook: Hook::Raw("inet_sock_set_state"),
        without: Some("no `connected` clock, and a client's hang-up is seen only when the server reads it"),
    },
    Attachment { program: "sys_exit", hook: Hook::Raw("sys_exit"), without: None },
    Attachment { program: "sys_enter", hook: Hook::Raw("sys_enter"), without: None },
];

/// Whether a probe works on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeMode {
    /// Attached.
    Attached,
    /// Not attached: what is missing for it, and why.
    Missing {
        /// What the observer cannot tell without it.
        without: &'static str,
        /// Why it is not attached.
        reason: String,
    },
}

/// One line of the report.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Name of the program, or of what a program reads beside its arguments.
    pub name: &'static str,
    /// Whether it works.
    pub mode: ProbeMode,
}

impl Probe {
    /// What the exit probe reads beside its arguments: where the kernel keeps how a process ended.
    pub(super) fn of_ends(untold: Option<String>) -> Self {
        let without = "how a process ended is known only until its parent has asked";
        let mode = match untold {
            None => ProbeMode::Attached,
            Some(reason) => ProbeMode::Missing { without, reason },
        };
        Self { name: "exit_status", mode }
    }
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.mode {
            ProbeMode::Attached => write!(f, "{}: attached", self.name),
            ProbeMode::Missing { without, reason } => {
                write!(f, "{}: missing ({reason}): {without}", self.name)
            }
        }
    }
}
