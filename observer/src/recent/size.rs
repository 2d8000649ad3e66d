//! What a remembered request takes.

use std::sync::Arc;

use super::memory::Finished;
use crate::exchange::{GpuUse, Judged, RequestRecord, Silence};

/// The counts beside what an [`Arc`] holds.
const COUNTS: usize = 2 * size_of::<usize>();

/// Bytes that a record takes in memory, with its place there: an allocator's rounding is not counted.
pub(super) fn held(record: &RequestRecord) -> usize {
    // Everything is named, so that a new field is not left out.
    let RequestRecord {
        id,
        request_id,
        response_id,
        trace_id,
        parent_id,
        started_at,
        ended_at,
        node,
        namespace,
        pod,
        container,
        pid: _,
        process,
        provider,
        role: _,
        peer,
        protocol,
        tls: _,
        operation: _,
        path,
        model,
        stream: _,
        choices: _,
        max_tokens: _,
        status: _,
        outcome: _,
        empty: _,
        finish_reason,
        error_type,
        request_bytes: _,
        response_bytes: _,
        clocks: _,
        ttft: _,
        ttfb: _,
        tpot: _,
        duration: _,
        gaps: _,
        stalls: _,
        silences,
        client_stalls: _,
        client_wait: _,
        token_events: _,
        deliveries: _,
        tokens: _,
        queue: _,
        timings: _,
        slo: Judged { met, missed, excluded },
        partial,
        defects,
        client_left: _,
        local: _,
        gap_micros,
        gpu,
    } = record;
    let texts = [id, node, namespace, pod, container, process, protocol, path];
    let known = [
        request_id,
        response_id,
        trace_id,
        parent_id,
        started_at,
        ended_at,
        provider,
        peer,
        model,
        finish_reason,
        error_type,
    ];
    let lists = [met, missed, partial, defects];
    // A position has the node and the id once more.
    let position = node.len() + id.len();
    size_of::<Finished>()
        + COUNTS
        + size_of::<Arc<Finished>>()
        + position
        + texts.into_iter().map(String::capacity).sum::<usize>()
        + known.into_iter().flatten().map(String::capacity).sum::<usize>()
        + lists.into_iter().map(list_bytes).sum::<usize>()
        + excluded.capacity() * size_of::<(String, &str)>()
        + excluded.iter().map(|(name, _)| name.capacity()).sum::<usize>()
        + silences.capacity() * size_of::<Silence>()
        + gap_micros.capacity() * size_of::<u32>()
        + gpu.capacity() * size_of::<GpuUse>()
        + gpu
            .iter()
            .map(|one| one.uuid.capacity() + one.instance.as_ref().map_or(0, String::capacity))
            .sum::<usize>()
}

fn list_bytes(list: &Vec<String>) -> usize {
    list.capacity() * size_of::<String>() + list.iter().map(String::capacity).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_lists_count() {
        let empty = held(&RequestRecord::default());
        assert!(empty > size_of::<RequestRecord>());
        let more = RequestRecord {
            model: Some("x".repeat(1000)),
            partial: vec!["y".repeat(100)],
            node: "z".repeat(10),
            ..RequestRecord::default()
        };
        assert_eq!(held(&more), empty + 1000 + 100 + size_of::<String>() + 2 * 10);
    }
}
