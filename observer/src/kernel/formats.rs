//! Field offsets from the `format` files of tracepoints.

use std::{fs, path::Path};

/// Global of the kernel side, tracepoint, field. A field that a kernel lacks is written as absent.
pub(super) const OFFSETS: [(&str, &str, &str); 10] = [
    ("READ_FAMILY", "tcp/tcp_rcv_space_adjust", "family"),
    ("READ_SPORT", "tcp/tcp_rcv_space_adjust", "sport"),
    ("READ_DPORT", "tcp/tcp_rcv_space_adjust", "dport"),
    ("READ_SADDR", "tcp/tcp_rcv_space_adjust", "saddr"),
    ("READ_DADDR", "tcp/tcp_rcv_space_adjust", "daddr"),
    ("READ_SADDR_V6", "tcp/tcp_rcv_space_adjust", "saddr_v6"),
    ("READ_DADDR_V6", "tcp/tcp_rcv_space_adjust", "daddr_v6"),
    ("FORK_CHILD", "sched/sched_process_fork", "child_pid"),
    ("EXIT_GROUP_DEAD", "sched/sched_process_exit", "group_dead"),
    ("OOM_PID", "oom/mark_victim", "pid"),
];

/// Written for a field that the kernel does not have.
pub(super) const ABSENT: u32 = u32::MAX;

/// Offset of each entry of [`OFFSETS`], in its order.
pub(super) fn offsets(tracefs: &Path) -> Vec<(&'static str, u32)> {
    OFFSETS
        .into_iter()
        .map(|(global, tracepoint, field)| {
            let format = fs::read_to_string(tracefs.join("events").join(tracepoint).join("format"));
            (global, format.ok().and_then(|format| offset(&format, field)).unwrap_or(ABSENT))
        })
        .collect()
}

/// Fields without which a program is of no use.
const NEEDED: [(&str, &str); 3] = [
    ("tcp_rcv_space_adjust", "READ_SPORT"),
    ("sched_process_fork", "FORK_CHILD"),
    ("mark_victim", "OOM_PID"),
];

/// The field that a program needs and this kernel's tracepoint does not have.
pub(super) fn missing(offsets: &[(&'static str, u32)], program: &str) -> Option<&'static str> {
    let (_, global) = NEEDED.into_iter().find(|(needs, global)| {
        *needs == program && offsets.iter().any(|(name, offset)| name == global && *offset == ABSENT)
    })?;
    OFFSETS.into_iter().find_map(|(name, _, field)| (name == global).then_some(field))
}

/// Finds `field:TYPE NAME[N];\toffset:N;` in a format file.
fn offset(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let mut parts = line.trim().strip_prefix("field:")?.split(';');
        let declaration = parts.next()?;
        let name = declaration.rsplit([' ', '*']).next()?.split('[').next()?;
        (name == field).then_some(())?;
        parts.next()?.trim().strip_prefix("offset:")?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_scalars_arrays_and_pointers() {
        let format = "name: x\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
                      \n\tfield:const void * skaddr;\toffset:8;\tsize:8;\tsigned:0;\n\
                      \tfield:__u8 saddr[4];\toffset:22;\tsize:4;\tsigned:0;\n\
                      \tfield:__data_loc char[] comm;\toffset:12;\tsize:4;\tsigned:0;\n";
        assert_eq!(offset(format, "skaddr"), Some(8));
        assert_eq!(offset(format, "saddr"), Some(22));
        assert_eq!(offset(format, "comm"), Some(12));
        assert_eq!(offset(format, "addr"), None);
    }
}
