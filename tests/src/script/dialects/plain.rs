//! Plain answers.

use observer::llm::Usage;

use super::{gemini_usage, responses_usage};
use crate::script::{
    Choices,
    api::{Api, Ask},
    content::{Content, Fact, Kind, TEXTS, timings, tokens},
};

/// A plain answer.
pub(in crate::script) fn plain(model: &str, ask: Ask, choices: &mut Choices<'_>) -> Content {
    let output = 1 + choices.below(40) as u64;
    let total = tokens(choices, output, 0);
    let answer = TEXTS[choices.below(TEXTS.len())].repeat(1 + choices.pick(&[0, 1, 20, 300]));
    let (input, cached) = (total.input.unwrap_or(0), total.input_cached.unwrap_or(0));
    let counted = Usage { input: Some(input), output: Some(output), ..Usage::default() };
    let mut end = Fact { kind: Kind::Document, answer: true, ..Fact::default() };
    let mut content = Content::default();
    // Up to where it is told why generation ended, and the rest.
    let (before, finish, after) = match ask.api {
        Api::Responses => {
            end.usage = total;
            (
                r#"{"id":"resp-1","object":"response","status":"completed""#.to_owned(),
                Some("completed"),
                format!(
                    r#","model":"{model}","output":[{{"type":"message","content":[{{"type":"output_text","text":"{answer}"}}]}}],{}}}"#,
                    responses_usage(total)
                ),
            )
        }
        Api::Messages => {
            end.usage = Usage {
                input_uncached: Some(input - cached),
                input_cached: Some(cached),
                output: Some(output),
                ..Usage::default()
            };
            (
                format!(
                    r#"{{"id":"msg-1","type":"message","model":"{model}","content":[{{"type":"text","text":"{answer}"}}],"stop_reason":"max_tokens""#
                ),
                Some("max_tokens"),
                format!(
                    r#","usage":{{"input_tokens":{},"cache_read_input_tokens":{cached},"output_tokens":{output}}}}}"#,
                    input - cached
                ),
            )
        }
        Api::OllamaChat | Api::OllamaGenerate => {
            end.engine = counted;
            let text = if ask.api == Api::OllamaChat {
                format!(r#""message":{{"role":"assistant","content":"{answer}"}}"#)
            } else {
                format!(r#""response":"{answer}""#)
            };
            (
                format!(r#"{{"model":"{model}",{text},"done":true,"done_reason":"length""#),
                Some("length"),
                format!(r#","prompt_eval_count":{input},"eval_count":{output}}}"#),
            )
        }
        Api::LlamaCpp => {
            let (timings, engine) = timings(total);
            end.engine = Usage { input: Some(input), ..engine };
            (
                format!(
                    r#"{{"index":0,"content":"{answer}","stop":true,"model":"{model}","tokens_predicted":{output},"tokens_evaluated":{input},"stop_type":"limit""#
                ),
                Some("limit"),
                format!(r#","tokens_cached":77,{timings}}}"#),
            )
        }
        Api::Sglang => {
            end.engine = Usage { input_cached: Some(cached), ..counted };
            (
                format!(
                    r#"{{"text":"{answer}","output_ids":[17],"meta_info":{{"id":"r","finish_reason":{{"type":"length""#
                ),
                Some("length"),
                format!(
                    r#","length":9}},"prompt_tokens":{input},"completion_tokens":{output},"cached_tokens":{cached}}}}}"#
                ),
            )
        }
        Api::Tgi => {
            content.fields = vec![
                format!("x-prompt-tokens: {input}"),
                format!("x-generated-tokens: {output}"),
                "x-queue-time: 3".into(),
            ];
            content.facts.push(Fact { kind: Kind::Head, engine: counted, ..Fact::default() });
            end.engine = Usage { output: Some(output), ..Usage::default() };
            (
                format!(r#"{{"generated_text":"{answer}","details":{{"finish_reason":"length""#),
                Some("length"),
                format!(r#","generated_tokens":{output}}}}}"#),
            )
        }
        Api::Triton => {
            (format!(r#"{{"model_name":"{model}","text_output":"{answer}""#), None, "}".to_owned())
        }
        Api::Embeddings => {
            end.usage = Usage { input: Some(input), ..Usage::default() };
            (
                format!(
                    r#"{{"object":"list","model":"{model}","data":[{{"embedding":[0.5,-1e-3],"index":0}}]"#
                ),
                None,
                format!(r#","usage":{{"prompt_tokens":{input},"total_tokens":{input}}}}}"#),
            )
        }
        _ => {
            end.usage = total;
            (
                format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{answer}"}}]}},"finishReason":"MAX_TOKENS""#
                ),
                Some("MAX_TOKENS"),
                format!(r#","index":0}}],{},"modelVersion":"{model}"}}"#, gemini_usage(total)),
            )
        }
    };
    if finish.is_some() {
        content.facts.push(Fact { at: before.len() - 1, kind: Kind::Finish, finish, ..Fact::default() });
    }
    content.bytes = (before + &after).into_bytes();
    end.at = content.bytes.len() - 1;
    content.facts.push(end);
    content
}
