//! Contents of responses as servers of OpenAI's APIs write them, with what each part of them tells and where.

use std::fmt::Write as _;

use observer::llm::Usage;

use super::{
    Choices,
    api::{Api, Ask},
    dialects,
};

/// What is told once the content byte at `at` has been written.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fact {
    /// Offset in the content.
    pub(super) at: usize,
    pub(super) kind: Kind,
    pub(super) answer: bool,
    pub(super) reasoning: bool,
    pub(super) usage: Usage,
    pub(super) engine: Usage,
    pub(super) ids: u64,
    /// Choice that it is about.
    pub(super) index: u32,
    pub(super) finish: Option<&'static str>,
    pub(super) error: Option<&'static str>,
    /// It says that its choice, or the stream of one, is over.
    pub(super) over: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event of a stream.
    #[default]
    Event,
    /// `[DONE]`.
    Terminator,
    /// The value of `finish_reason` in a plain document.
    Finish,
    /// The end of a plain document.
    Document,
    /// The head of the response.
    Head,
}

impl Fact {
    /// An event that bears a token.
    pub(super) fn bears(&self) -> bool {
        self.kind == Kind::Event && self.has_text()
    }

    pub(super) fn has_text(&self) -> bool {
        self.answer || self.reasoning
    }
}

/// Content of a response.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Ends of events.
    pub(super) breaks: Vec<usize>,
    pub(super) facts: Vec<Fact>,
    /// Fields of the head that belong to it.
    pub(super) fields: Vec<String>,
}

pub(super) const TEXTS: [&str; 6] = [" the", "Hel\\\"lo", " wörld", "\\n\\n", "data: x", " \\u00e9"];

/// A stream of events that is being written.
pub(super) struct Events<'a> {
    pub(super) content: Content,
    pub(super) line: &'static str,
    pub(super) model: &'a str,
}

impl Events<'_> {
    pub(super) fn event(&mut self, data: &str, fact: &Fact) {
        let text = format!("data: {data}{0}{0}", self.line);
        self.content.bytes.extend(text.as_bytes());
        // An event is dispatched by the first byte of its blank line.
        let at = self.content.bytes.len() - self.line.len();
        self.content.facts.push(Fact { at, ..*fact });
        self.content.breaks.push(self.content.bytes.len());
    }

    fn chunk(&mut self, choices: &str, extra: &str, fact: &Fact) {
        let data = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"{}","choices":[{choices}]{extra}}}"#,
            self.model
        );
        self.event(&data, fact);
    }
}

fn usage_text(usage: Usage) -> String {
    let (input, output) = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
    let mut text = format!(
        r#""usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}"#,
        input + output
    );
    if let Some(cached) = usage.input_cached {
        let _ = write!(text, r#","prompt_tokens_details":{{"cached_tokens":{cached}}}"#);
    }
    if let Some(reasoning) = usage.output_reasoning {
        let _ = write!(text, r#","completion_tokens_details":{{"reasoning_tokens":{reasoning}}}"#);
    }
    text + "}"
}

pub(super) fn timings(usage: Usage) -> (String, Usage) {
    let (input, cached) = (usage.input.unwrap_or(0), usage.input_cached.unwrap_or(0));
    let engine = Usage {
        input: None,
        input_cached: Some(cached),
        input_uncached: Some(input - cached),
        output_reasoning: None,
        ..usage
    };
    let text = format!(
        r#""timings":{{"cache_n":{cached},"prompt_n":{},"prompt_ms":12.5,"predicted_n":{},"predicted_ms":40.25}}"#,
        input - cached,
        usage.output.unwrap_or(0)
    );
    (text, engine)
}

pub(super) fn tokens(choices: &mut Choices<'_>, output: u64, reasoning: u64) -> Usage {
    let input = 1 + choices.below(500) as u64;
    Usage {
        input: Some(input),
        input_cached: choices.one_in(3).then(|| choices.below(input as usize + 1) as u64),
        output: Some(output),
        output_reasoning: (reasoning > 0).then_some(reasoning),
        ..Usage::default()
    }
}

/// A stream of events.
pub(super) fn stream(model: &str, ask: Ask, choices: &mut Choices<'_>) -> Content {
    if !ask.api.is_openai() {
        return dialects::stream(model, ask, choices);
    }
    let chat = ask.api == Api::Chat;
    let line = choices.pick(&["\n", "\n", "\r\n"]);
    let mut events = Events { content: Content::default(), line, model };
    let llama = choices.one_in(3);
    let continuous = !llama && choices.one_in(4);
    let logprobs = !continuous && choices.one_in(5);
    let with_usage = continuous || choices.below(3) > 0;
    let count = choices.below(9) as u64;
    let reasoning = if chat && choices.one_in(3) { choices.below(count as usize + 1) as u64 } else { 0 };
    let tools = chat && choices.one_in(4);
    let total = tokens(choices, count, reasoning);
    let fails = choices.one_in(8);
    let so_far = |output: u64| Usage { output: Some(output), output_reasoning: None, ..total };
    let extra = |output| {
        if continuous {
            (format!(",{}", usage_text(so_far(output))), so_far(output))
        } else {
            (String::new(), Usage::default())
        }
    };
    if chat {
        for index in 0..ask.choices {
            let (text, usage) = extra(0);
            let delta = r#"{"role":"assistant","content":""}"#;
            let choice = format!(r#"{{"index":{index},"delta":{delta},"finish_reason":null}}"#);
            events.chunk(&choice, &text, &Fact { usage, index, ..Fact::default() });
        }
    }
    for number in 0..count {
        if choices.one_in(10) {
            events.content.bytes.extend(format!(": ping{line}{line}").as_bytes());
        }
        let index = number as u32 % ask.choices;
        let is_reasoning = number < reasoning;
        let word = choices.pick(&TEXTS);
        let part = match (chat, is_reasoning, tools && number + 1 == count) {
            (false, ..) => format!(r#""text":"{word}""#),
            (true, true, _) => {
                let name = choices.pick(&["reasoning_content", "reasoning"]);
                format!(r#""delta":{{"{name}":"{word}"}}"#)
            }
            (true, false, true) => {
                format!(r#""delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{word}"}}}}]}}"#)
            }
            (true, false, false) => format!(r#""delta":{{"content":"{word}"}}"#),
        };
        let logs = match (logprobs, chat) {
            (false, _) => "null".to_owned(),
            (true, true) => {
                format!(r#"{{"content":[{{"token":"{word}","logprob":-0.1,"top_logprobs":[]}}]}}"#)
            }
            (true, false) => format!(r#"{{"tokens":["{word}"],"token_logprobs":[-0.1]}}"#),
        };
        let (text, usage) = extra(number + 1);
        let choice = format!(r#"{{"index":{index},{part},"logprobs":{logs},"finish_reason":null}}"#);
        events.chunk(
            &choice,
            &text,
            &Fact {
                answer: !is_reasoning,
                reasoning: is_reasoning,
                usage,
                ids: u64::from(logprobs),
                index,
                ..Fact::default()
            },
        );
    }
    if fails {
        let error = r#"{"error":{"message":"out of memory","type":"InternalServerError","code":500}}"#;
        events.event(error, &Fact { error: Some("InternalServerError"), ..Fact::default() });
    } else {
        finish(&mut events, ask, total, llama, with_usage, continuous, tools);
    }
    if !choices.one_in(6) {
        events.event("[DONE]", &Fact { kind: Kind::Terminator, ..Fact::default() });
    }
    events.content
}

#[expect(clippy::fn_params_excessive_bools, reason = "each is a choice of its own")]
fn finish(
    events: &mut Events<'_>,
    ask: Ask,
    total: Usage,
    llama: bool,
    with_usage: bool,
    continuous: bool,
    tools: bool,
) {
    let reason = if tools { "tool_calls" } else { "stop" };
    for index in 0..ask.choices {
        let part = if ask.api == Api::Chat { r#""delta":{}"# } else { r#""text":"""# };
        let choice = format!(r#"{{"index":{index},{part},"finish_reason":"{reason}"}}"#);
        let mut fact = Fact { finish: Some(reason), index, ..Fact::default() };
        let mut extra = String::new();
        if continuous {
            fact.usage = Usage { output_reasoning: None, ..total };
            extra = format!(",{}", usage_text(fact.usage));
        }
        if llama && index + 1 == ask.choices {
            let (text, engine) = timings(total);
            let _ = write!(extra, ",{text}");
            fact.engine = engine;
        }
        events.chunk(&choice, &extra, &fact);
    }
    if with_usage {
        events.chunk("", &format!(",{}", usage_text(total)), &Fact { usage: total, ..Fact::default() });
    }
}

/// A plain answer.
pub(super) fn plain(model: &str, ask: Ask, choices: &mut Choices<'_>) -> Content {
    if !ask.api.is_openai() {
        return dialects::plain(model, ask, choices);
    }
    let chat = ask.api == Api::Chat;
    let llama = choices.one_in(3);
    let logprobs = choices.one_in(4);
    let with_usage = choices.below(4) > 0;
    let output = 1 + choices.below(40) as u64;
    let reasoning = if chat && choices.one_in(3) { choices.below(output as usize + 1) as u64 } else { 0 };
    let total = tokens(choices, output, reasoning);
    let answer = TEXTS[choices.below(TEXTS.len())].repeat(1 + choices.pick(&[0, 1, 20, 300]));
    let mut text = format!(r#"{{"id":"cmpl-1","object":"x","created":1,"model":"{model}","choices":["#);
    let mut facts = Vec::new();
    let mut ids = 0;
    for index in 0..ask.choices {
        if index > 0 {
            text.push(',');
        }
        let part = if chat {
            format!(r#""message":{{"role":"assistant","content":"{answer}"}}"#)
        } else {
            format!(r#""text":"{answer}""#)
        };
        let logs = match (logprobs, chat) {
            (false, _) => "null",
            (true, true) => r#"{"content":[{"token":"a","logprob":-1},{"token":"b","logprob":-2}]}"#,
            (true, false) => r#"{"tokens":["a","b"],"token_logprobs":[-1,-2]}"#,
        };
        ids += 2 * u64::from(logprobs);
        let reason = if index == 0 { "length" } else { "stop" };
        let _ = write!(text, r#"{{"index":{index},{part},"logprobs":{logs},"finish_reason":"{reason}""#);
        facts.push(Fact { at: text.len() - 1, kind: Kind::Finish, finish: Some(reason), ..Fact::default() });
        text.push('}');
    }
    text.push(']');
    let mut end = Fact { kind: Kind::Document, ids, answer: true, index: ask.choices - 1, ..Fact::default() };
    if with_usage {
        end.usage = total;
        let _ = write!(text, ",{}", usage_text(total));
    }
    if llama {
        let (timings, engine) = timings(total);
        end.engine = engine;
        let _ = write!(text, ",{timings}");
    }
    text.push('}');
    end.at = text.len() - 1;
    facts.push(end);
    Content { facts, bytes: text.into_bytes(), ..Content::default() }
}

/// An error.
pub(super) fn error(choices: &mut Choices<'_>) -> Content {
    let (text, error) = choices.pick(&[
        (r#"{"error":{"message":"no such model","type":"NotFoundError","code":"x"}}"#, "NotFoundError"),
        (r#"{"object":"error","message":"too long","type":"BadRequestError","code":400}"#, "BadRequestError"),
        (r#"{"error":"overloaded","error_type":"overloaded"}"#, "overloaded"),
        (r#"{"error":{"message":"m","code":503}}"#, "503"),
    ]);
    let end = Fact { at: text.len() - 1, kind: Kind::Document, error: Some(error), ..Fact::default() };
    Content { bytes: text.as_bytes().to_vec(), facts: vec![end], ..Content::default() }
}
