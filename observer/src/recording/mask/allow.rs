//! What stays readable in a masked recording: names from public API definitions, never user text.

/// True if the value of this header field, in lower case, is kept.
pub(super) fn header(name: &[u8]) -> bool {
    matches!(
        name,
        b"accept"
            | b"connection"
            | b"content-encoding"
            | b"content-length"
            | b"content-type"
            | b"date"
            | b"expect"
            | b"keep-alive"
            | b"openai-processing-ms"
            | b"retry-after"
            | b"server"
            | b"te"
            | b"traceparent"
            | b"transfer-encoding"
            | b"upgrade"
            | b"user-agent"
            | b"x-compute-time"
            | b"x-compute-tokens"
            | b"x-compute-type"
            | b"x-envoy-upstream-service-time"
            | b"x-generated-tokens"
            | b"x-inference-time"
            | b"x-prompt-tokens"
            | b"x-queue-time"
            | b"x-request-id"
            | b"x-time-per-token"
            | b"x-total-time"
            | b"x-validation-time"
    )
}

/// Where in a document a member stands, as far as it decides what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// Where an API's own names stand.
    Document,
    /// Where it says why an answer is incomplete.
    Incomplete,
    /// Where names are those of a user or of a tool: what a model was given, or calls something with.
    Foreign,
}

impl Inside {
    /// Within the container that stands under this key here.
    pub(super) fn member(self, key: &[u8]) -> Self {
        match (self, key) {
            (Self::Foreign, _)
            | (
                _,
                b"input" | b"arguments" | b"args" | b"functionCall" | b"functionResponse" | b"metadata"
                | b"properties" | b"document" | b"documents" | b"json_schema" | b"schema",
            ) => Self::Foreign,
            (_, b"incomplete_details") => Self::Incomplete,
            _ => Self::Document,
        }
    }
}

/// True if a string under this key is kept.
pub(super) fn string(inside: Inside, key: &[u8]) -> bool {
    match inside {
        Inside::Document => name(key),
        Inside::Incomplete => key == b"reason",
        Inside::Foreign => false,
    }
}

/// True if a number under this key is kept. Token ids and probabilities give text away, so they are not here.
pub(super) fn number(inside: Inside, key: &[u8]) -> bool {
    inside != Inside::Foreign && (limit(key) || usage(key) || timing(key) || place(key))
}

/// Names of models, kinds, ends and identifiers.
fn name(key: &[u8]) -> bool {
    matches!(
        key,
        b"blockReason"
            | b"code"
            | b"created_at"
            | b"done_reason"
            | b"error_type"
            | b"finishReason"
            | b"finish_reason"
            | b"id"
            | b"model"
            | b"modelVersion"
            | b"model_name"
            | b"model_version"
            | b"object"
            | b"request_id"
            | b"responseId"
            | b"role"
            | b"service_tier"
            | b"status"
            | b"stop_reason"
            | b"stop_type"
            | b"system_fingerprint"
            | b"type"
    )
}

/// Parameters of a request.
fn limit(key: &[u8]) -> bool {
    matches!(
        key,
        b"best_of"
            | b"candidateCount"
            | b"frequency_penalty"
            | b"maxOutputTokens"
            | b"max_completion_tokens"
            | b"max_new_tokens"
            | b"max_output_tokens"
            | b"max_tokens"
            | b"min_p"
            | b"min_tokens"
            | b"n"
            | b"n_cmpl"
            | b"n_predict"
            | b"num_ctx"
            | b"num_predict"
            | b"presence_penalty"
            | b"repeat_penalty"
            | b"repetition_penalty"
            | b"seed"
            | b"temperature"
            | b"top_k"
            | b"top_logprobs"
            | b"top_p"
    )
}

/// Token counts of a response.
fn usage(key: &[u8]) -> bool {
    matches!(
        key,
        b"accepted_prediction_tokens"
            | b"audio_tokens"
            | b"cache_creation_input_tokens"
            | b"cache_n"
            | b"cachedContentTokenCount"
            | b"cache_read_input_tokens"
            | b"cached_tokens"
            | b"candidatesTokenCount"
            | b"completion_tokens"
            | b"draft_n"
            | b"draft_n_accepted"
            | b"eval_count"
            | b"generated_tokens"
            | b"input_length"
            | b"input_tokens"
            | b"output_tokens"
            | b"predicted_n"
            | b"promptTokenCount"
            | b"prompt_eval_count"
            | b"prompt_n"
            | b"prompt_tokens"
            | b"reasoning_tokens"
            | b"rejected_prediction_tokens"
            | b"tokens_cached"
            | b"tokens_evaluated"
            | b"thoughtsTokenCount"
            | b"tokens_predicted"
            | b"totalTokenCount"
            | b"total_tokens"
    )
}

/// Timings of a response.
fn timing(key: &[u8]) -> bool {
    matches!(
        key,
        b"decode_throughput"
            | b"e2e_latency"
            | b"eval_duration"
            | b"first_token_latency"
            | b"forward_entry_time"
            | b"generation_time_ms"
            | b"load_duration"
            | b"mean_itl_ms"
            | b"predicted_ms"
            | b"predicted_per_second"
            | b"predicted_per_token_ms"
            | b"prefill_finished_time"
            | b"prompt_eval_duration"
            | b"prompt_ms"
            | b"prompt_per_second"
            | b"prompt_per_token_ms"
            | b"queue_time"
            | b"queue_time_ms"
            | b"request_finished_ts"
            | b"request_received_ts"
            | b"response_sent_to_client_ts"
            | b"time_to_first_token_ms"
            | b"tokens_per_second"
            | b"total_duration"
    )
}

/// Places in a response, times of creation and codes.
fn place(key: &[u8]) -> bool {
    matches!(
        key,
        b"code"
            | b"completed_at"
            | b"content_index"
            | b"created"
            | b"created_at"
            | b"id_slot"
            | b"index"
            | b"output_index"
            | b"sequence_number"
            | b"status"
            | b"summary_index"
    )
}

/// Masks a byte of something that is not understood: letters and digits of any script go, the rest stays.
pub(super) fn hide(bytes: &mut [u8]) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || *byte >= 0x80 {
            *byte = b'x';
        }
    }
}
