//! Contents of responses as the servers of other APIs write them.

mod plain;

use observer::llm::Usage;
pub(super) use plain::plain;

use super::{
    Choices,
    api::{Api, Ask},
    content::{Content, Events, Fact, Kind, TEXTS, timings, tokens},
};

/// A stream: its opening, its tokens, its end.
pub(super) fn stream(model: &str, ask: Ask, choices: &mut Choices<'_>) -> Content {
    let line = choices.pick(&["\n", "\n", "\r\n"]);
    let mut writer = Writer {
        events: Events { content: Content::default(), line, model },
        api: ask.api,
        total: Usage::default(),
        incremental: choices.one_in(2),
        texts: [String::new(), String::new()],
        counts: [0; 2],
    };
    let count = choices.below(9) as u64;
    let reasons = matches!(
        ask.api,
        Api::Responses | Api::Messages | Api::OllamaChat | Api::GeminiEvents | Api::GeminiArray
    );
    let reasoning = if reasons && choices.one_in(3) { choices.below(count as usize + 1) as u64 } else { 0 };
    writer.total = tokens(choices, count, reasoning);
    writer.open();
    for number in 0..count {
        if choices.one_in(10) {
            writer.ping();
        }
        let index = number as u32 % ask.choices;
        writer.token(choices.pick(&TEXTS), number < reasoning, index);
    }
    if choices.one_in(8) {
        writer.fail();
        // SGLang ends such a stream in order, vLLM does not.
        if ask.api == Api::Messages && choices.one_in(2) {
            writer.tell(r#"{"type":"message_stop"}"#, Fact { over: true, ..Fact::default() });
        }
    } else {
        writer.end(ask, choices);
    }
    if ask.api == Api::Sglang && !choices.one_in(6) {
        writer.events.event("[DONE]", &Fact { kind: Kind::Terminator, ..Fact::default() });
    }
    if ask.api == Api::GeminiArray {
        let bytes = &mut writer.events.content.bytes;
        bytes.extend(if bytes.is_empty() { &b"[]"[..] } else { b"\n]" });
    }
    writer.events.content
}

struct Writer<'a> {
    events: Events<'a>,
    api: Api,
    total: Usage,
    /// Texts do not repeat what came before.
    incremental: bool,
    texts: [String; 2],
    counts: [u64; 2],
}

impl Writer<'_> {
    fn tell(&mut self, data: &str, fact: Fact) {
        let content = &mut self.events.content;
        match self.api {
            Api::OllamaChat | Api::OllamaGenerate => {
                content.bytes.extend(format!("{data}{}", self.events.line).as_bytes());
                content.facts.push(Fact { at: content.bytes.len() - 1, ..fact });
                content.breaks.push(content.bytes.len());
            }
            Api::GeminiArray => {
                let before = if content.bytes.is_empty() { "[" } else { "\n,\r\n" };
                content.bytes.extend(format!("{before}{data}").as_bytes());
                content.facts.push(Fact { at: content.bytes.len() - 1, ..fact });
                content.breaks.push(content.bytes.len());
            }
            Api::Responses | Api::Messages => {
                content.bytes.extend(format!("event: some.name{}", self.events.line).as_bytes());
                self.events.event(data, &fact);
            }
            // Without a space after the colon.
            Api::Tgi => {
                let start = content.bytes.len();
                self.events.event(data, &fact);
                let content = &mut self.events.content;
                content.bytes.remove(start + "data:".len());
                if let Some(fact) = content.facts.last_mut() {
                    fact.at -= 1;
                }
                if let Some(end) = content.breaks.last_mut() {
                    *end -= 1;
                }
            }
            _ => self.events.event(data, &fact),
        }
    }

    fn ping(&mut self) {
        let line = self.events.line;
        match self.api {
            Api::Messages => self.tell(r#"{"type":"ping"}"#, Fact::default()),
            Api::OllamaChat | Api::OllamaGenerate | Api::GeminiArray => {}
            _ => self.events.content.bytes.extend(format!(":{line}{line}").as_bytes()),
        }
    }

    /// Prompt tokens as Anthropic counts them.
    fn uncached(&self) -> (u64, u64) {
        let cached = self.total.input_cached.unwrap_or(0);
        (self.total.input.unwrap_or(0) - cached, cached)
    }

    fn input(&self) -> u64 {
        self.total.input.unwrap_or(0)
    }

    fn open(&mut self) {
        let model = self.events.model;
        match self.api {
            Api::Responses => {
                let data = format!(
                    r#"{{"type":"response.created","response":{{"id":"resp-1","status":"in_progress","model":"{model}","output":[],"usage":null}}}}"#
                );
                self.tell(&data, Fact::default());
            }
            Api::Messages => {
                let (uncached, cached) = self.uncached();
                let usage = Usage {
                    input_uncached: Some(uncached),
                    input_cached: Some(cached),
                    input_written: Some(3),
                    ..Usage::default()
                };
                let data = format!(
                    r#"{{"type":"message_start","message":{{"id":"msg-1","type":"message","role":"assistant","model":"{model}","content":[],"stop_reason":null,"usage":{{"input_tokens":{uncached},"cache_read_input_tokens":{cached},"cache_creation_input_tokens":3,"output_tokens":1}}}}}}"#
                );
                self.tell(&data, Fact { usage, ..Fact::default() });
                let block =
                    r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
                self.tell(block, Fact::default());
            }
            Api::LlamaCpp if self.incremental => {
                let data = r#"{"index":0,"content":"","tokens":[],"stop":false,"tokens_predicted":0,"prompt_progress":{"total":9,"cache":0,"processed":4,"time_ms":1}}"#;
                self.tell(data, Fact::default());
            }
            _ => {}
        }
    }

    fn token(&mut self, word: &str, reasoning: bool, index: u32) {
        let model = self.events.model;
        let choice = index as usize;
        self.counts[choice] += 1;
        let mut fact = Fact { answer: !reasoning, reasoning, index, ..Fact::default() };
        let data = match self.api {
            Api::Responses => {
                let kind = if reasoning { "reasoning_text" } else { "output_text" };
                format!(r#"{{"delta":"{word}","output_index":0,"type":"response.{kind}.delta"}}"#)
            }
            Api::Messages => {
                let (kind, name) =
                    if reasoning { ("thinking_delta", "thinking") } else { ("text_delta", "text") };
                format!(
                    r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"{kind}","{name}":"{word}"}}}}"#
                )
            }
            Api::OllamaChat => {
                let text = if reasoning {
                    format!(r#""content":"","thinking":"{word}""#)
                } else {
                    format!(r#""content":"{word}""#)
                };
                format!(r#"{{"model":"{model}","message":{{"role":"assistant",{text}}},"done":false}}"#)
            }
            Api::OllamaGenerate => format!(r#"{{"model":"{model}","response":"{word}","done":false}}"#),
            Api::LlamaCpp => {
                let (predicted, evaluated) = (self.counts[choice], self.input());
                fact.engine = Usage { input: Some(evaluated), output: Some(predicted), ..Usage::default() };
                format!(
                    r#"{{"index":{index},"content":"{word}","tokens":[],"stop":false,"id_slot":0,"tokens_predicted":{predicted},"tokens_evaluated":{evaluated}}}"#
                )
            }
            Api::Sglang => {
                self.texts[choice].push_str(word);
                return self.sglang(index, word, None, fact);
            }
            Api::Tgi => {
                fact.ids = 1;
                format!(
                    r#"{{"index":1,"token":{{"id":17,"text":"{word}","logprob":-0.1,"special":false}},"generated_text":null,"details":null}}"#
                )
            }
            Api::Triton => {
                format!(r#"{{"model_name":"{model}","model_version":"1","text_output":"{word}"}}"#)
            }
            _ => {
                let thought = if reasoning { r#","thought":true"# } else { "" };
                format!(
                    r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{word}"{thought}}}],"role":"model"}},"index":{index}}}],"modelVersion":"{model}"}}"#
                )
            }
        };
        self.tell(&data, fact);
    }

    /// An event of a choice, with all of its text or the last word of it.
    fn sglang(&mut self, index: u32, word: &str, finish: Option<&'static str>, fact: Fact) {
        let choice = index as usize;
        let text = if self.incremental { word } else { self.texts[choice].as_str() };
        let (input, count) = (self.input(), self.counts[choice]);
        let cached = self.total.input_cached.unwrap_or(0);
        let finish_text =
            finish.map_or_else(|| "null".to_owned(), |kind| format!(r#"{{"type":"{kind}","matched":2}}"#));
        let data = format!(
            r#"{{"text":"{text}","output_ids":[17,18],"meta_info":{{"id":"r","finish_reason":{finish_text},"prompt_tokens":{input},"completion_tokens":{count},"cached_tokens":{cached}}},"index":{index}}}"#
        );
        let engine =
            Usage { input: Some(input), input_cached: Some(cached), output: Some(count), ..Usage::default() };
        self.tell(&data, Fact { engine, finish, ..fact });
    }

    fn fail(&mut self) {
        let (data, error, finish) = match self.api {
            Api::Responses => (
                r#"{"response":{"status":"failed","error":{"code":"server_error","message":"m"}},"type":"response.failed"}"#,
                "server_error",
                Some("failed"),
            ),
            Api::Messages => (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
                "overloaded_error",
                None,
            ),
            Api::Tgi => (r#"{"error":"m","error_type":"generation"}"#, "generation", None),
            Api::OllamaChat | Api::OllamaGenerate | Api::Triton => (r#"{"error":"m"}"#, "error", None),
            Api::GeminiEvents | Api::GeminiArray => {
                (r#"{"error":{"code":500,"message":"m","status":"INTERNAL"}}"#, "INTERNAL", None)
            }
            _ => (r#"{"error":{"code":500,"message":"m","type":"server_error"}}"#, "server_error", None),
        };
        let over = self.api == Api::Responses;
        self.tell(data, Fact { error: Some(error), finish, over, ..Fact::default() });
    }

    fn end(&mut self, ask: Ask, choices: &mut Choices<'_>) {
        let (model, input, output) = (self.events.model, self.input(), self.total.output.unwrap_or(0));
        match self.api {
            Api::Responses => {
                let (name, more, finish) = choices.pick(&[
                    ("completed", "", "completed"),
                    (
                        "incomplete",
                        r#","incomplete_details":{"reason":"max_output_tokens"}"#,
                        "max_output_tokens",
                    ),
                ]);
                let usage = responses_usage(self.total);
                let data = format!(
                    r#"{{"response":{{"id":"resp-1","status":"{name}"{more},"model":"{model}","output":[{{"content":[{{"text":"again"}}]}}],{usage}}},"type":"response.{name}"}}"#
                );
                let fact = Fact { usage: self.total, finish: Some(finish), over: true, ..Fact::default() };
                self.tell(&data, fact);
            }
            Api::Messages => {
                let usage = Usage { output: Some(output), ..Usage::default() };
                let data = format!(
                    r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn"}},"usage":{{"output_tokens":{output}}}}}"#
                );
                self.tell(&data, Fact { usage, finish: Some("end_turn"), ..Fact::default() });
                if !choices.one_in(6) {
                    self.tell(r#"{"type":"message_stop"}"#, Fact { over: true, ..Fact::default() });
                }
            }
            Api::OllamaChat | Api::OllamaGenerate => {
                let engine = Usage { input: Some(input), output: Some(output), ..Usage::default() };
                let data = format!(
                    r#"{{"model":"{model}","response":"","done":true,"done_reason":"stop","total_duration":9,"prompt_eval_count":{input},"eval_count":{output},"eval_duration":7}}"#
                );
                self.tell(&data, Fact { engine, finish: Some("stop"), over: true, ..Fact::default() });
            }
            Api::LlamaCpp => {
                for index in 0..ask.choices {
                    let count = self.counts[index as usize];
                    let (timings, mut engine) = timings(Usage { output: Some(count), ..self.total });
                    engine.input = Some(input);
                    let data = format!(
                        r#"{{"index":{index},"content":"","tokens":[],"stop":true,"model":"{model}","tokens_predicted":{count},"tokens_evaluated":{input},"stop_type":"eos","tokens_cached":77,{timings}}}"#
                    );
                    let fact = Fact { engine, index, finish: Some("eos"), over: true, ..Fact::default() };
                    self.tell(&data, fact);
                }
            }
            Api::Sglang => {
                for index in 0..ask.choices {
                    self.sglang(index, "", Some("stop"), Fact { index, ..Fact::default() });
                }
            }
            Api::Tgi => {
                let engine = Usage { input: Some(input), output: Some(output + 1), ..Usage::default() };
                let data = format!(
                    r#"{{"index":1,"token":{{"id":2,"text":"</s>","logprob":-0.1,"special":true}},"generated_text":"all","details":{{"finish_reason":"eos_token","generated_tokens":{},"input_length":{input}}}}}"#,
                    output + 1
                );
                let fact = Fact { engine, ids: 1, finish: Some("eos_token"), over: true, ..Fact::default() };
                self.tell(&data, fact);
            }
            Api::GeminiEvents | Api::GeminiArray => {
                for index in 0..ask.choices {
                    let usage = gemini_usage(self.total);
                    let data = format!(
                        r#"{{"candidates":[{{"content":{{"parts":[{{"text":""}}]}},"finishReason":"STOP","index":{index}}}],{usage},"modelVersion":"{model}"}}"#
                    );
                    let fact = Fact { usage: self.total, index, finish: Some("STOP"), ..Fact::default() };
                    self.tell(&data, fact);
                }
            }
            _ => {}
        }
    }
}

fn responses_usage(total: Usage) -> String {
    let member = |name: &str, part: &str, count: Option<u64>| {
        count.map_or_else(String::new, |count| format!(r#","{name}":{{"{part}":{count}}}"#))
    };
    format!(
        r#""usage":{{"input_tokens":{}{},"output_tokens":{}{}}}"#,
        total.input.unwrap_or(0),
        member("input_tokens_details", "cached_tokens", total.input_cached),
        total.output.unwrap_or(0),
        member("output_tokens_details", "reasoning_tokens", total.output_reasoning),
    )
}

fn gemini_usage(total: Usage) -> String {
    let member = |name: &str, count: Option<u64>| {
        count.map_or_else(String::new, |count| format!(r#","{name}":{count}"#))
    };
    format!(
        r#""usageMetadata":{{"promptTokenCount":{},"candidatesTokenCount":{}{}{}}}"#,
        total.input.unwrap_or(0),
        total.output.unwrap_or(0) - total.output_reasoning.unwrap_or(0),
        member("thoughtsTokenCount", total.output_reasoning),
        member("cachedContentTokenCount", total.input_cached),
    )
}
