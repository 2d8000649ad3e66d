//! Label values: bounded in length and in number, safe to print, whatever was on the wire.

use std::borrow::Cow;

use crate::config::LabelStyle;

/// Characters of a label value that came from outside.
const LONGEST: usize = 128;

/// The value that stands for everything beyond a bound.
pub(super) const OTHER: &str = "other";

/// Names of the workload labels, in the order namespace, pod, container.
pub(super) fn workload_names(style: LabelStyle) -> [&'static str; 3] {
    match style {
        LabelStyle::Default => ["namespace", "pod", "container"],
        LabelStyle::Otel => ["k8s_namespace_name", "k8s_pod_name", "k8s_container_name"],
    }
}

/// Names of the labels that request metrics carry beside those of the workload.
pub(super) const REQUEST_NAMES: [&str; 4] =
    ["gen_ai_provider_name", "gen_ai_operation_name", "gen_ai_request_model", "role"];

/// A value from outside, cut to its bound, without control characters.
pub(super) fn bounded(value: &str) -> String {
    value.trim().chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A cause that the core names: a word of its own, so anything else is `other`.
pub(super) fn cause(value: &str) -> Cow<'_, str> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !value.is_empty() && value.len() <= 40 && value.bytes().all(word) {
        Cow::Borrowed(value)
    } else {
        Cow::Borrowed(OTHER)
    }
}

/// Finish and stop reasons of the API dialects and engines.
const FINISH_REASONS: [&str; 28] = [
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "content_filter",
    "abort",
    "error",
    "timeout",
    "cancelled",
    "cancel",
    "eos",
    "eos_token",
    "stop_sequence",
    "end_turn",
    "max_tokens",
    "max_output_tokens",
    "tool_use",
    "pause_turn",
    "refusal",
    "load",
    "unload",
    "limit",
    "word",
    "repetition",
    "completed",
    "incomplete",
    "failed",
    "model_length",
];

/// A finish reason as label value: one of a known list, empty when there is none.
pub(super) fn finish_reason(value: Option<&str>) -> &'static str {
    match value {
        None | Some("") => "",
        Some(value) => FINISH_REASONS.into_iter().find(|known| *known == value).unwrap_or(OTHER),
    }
}

/// A status code as label value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Code {
    /// No status was seen.
    None,
    /// A status that HTTP allows.
    Status(u16),
    /// Anything else, and what lies beyond the bound.
    Other,
}

impl Code {
    pub(super) fn of(status: Option<u16>) -> Self {
        match status {
            None => Self::None,
            Some(status @ 100..=599) => Self::Status(status),
            Some(_) => Self::Other,
        }
    }

    pub(super) fn as_text(self) -> Cow<'static, str> {
        match self {
            Self::None => Cow::Borrowed(""),
            Self::Status(status) => Cow::Owned(status.to_string()),
            Self::Other => Cow::Borrowed(OTHER),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded() {
        assert_eq!(bounded(" a\nb\u{1b}[2J "), "a\u{fffd}b\u{fffd}[2J");
        assert_eq!(bounded(&"é".repeat(500)).chars().count(), 128);
        assert_eq!(finish_reason(Some("stop")), "stop");
        assert_eq!(finish_reason(Some("because\n")), "other");
        assert_eq!(finish_reason(None), "");
        assert_eq!(Code::of(Some(200)).as_text(), "200");
        assert_eq!(Code::of(Some(999)).as_text(), "other");
        assert_eq!(Code::of(None).as_text(), "");
        assert_eq!(cause("gap_in_response"), "gap_in_response");
        assert_eq!(cause("a gap: prompt text"), "other");
        assert_eq!(cause(""), "other");
    }
}
