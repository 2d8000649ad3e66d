//! The APIs that sequences are of: what a request looks like, and what its API knows of the end of a stream.

use super::Choices;

/// One API.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Api {
    #[default]
    Chat,
    Completions,
    Responses,
    Messages,
    OllamaChat,
    OllamaGenerate,
    LlamaCpp,
    Sglang,
    Tgi,
    Triton,
    GeminiEvents,
    GeminiArray,
    Embeddings,
}

impl Api {
    pub(super) fn is_openai(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }

    /// A stream is over with its framing.
    pub(super) fn is_unmarked(self) -> bool {
        matches!(self, Self::Triton | Self::GeminiEvents | Self::GeminiArray)
    }

    pub(super) fn is_path_model(self) -> bool {
        self.is_unmarked()
    }

    pub(super) fn has_model(self) -> bool {
        !matches!(self, Self::Sglang | Self::Tgi)
    }

    pub(super) fn generates(self) -> bool {
        self != Self::Embeddings
    }

    fn has_choices(self, stream: bool) -> bool {
        self.is_openai()
            || stream
                && matches!(self, Self::LlamaCpp | Self::Sglang | Self::GeminiEvents | Self::GeminiArray)
    }

    /// The media type of a stream.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::OllamaChat | Self::OllamaGenerate => "Content-Type: application/x-ndjson",
            Self::GeminiArray => "Content-Type: application/json; charset=UTF-8",
            _ => "Content-Type: text/event-stream; charset=utf-8",
        }
    }
}

/// What the request asks for, as far as the response depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) api: Api,
    pub(super) stream: bool,
    pub(super) choices: u32,
}

impl Default for Ask {
    fn default() -> Self {
        Self { api: Api::Chat, stream: false, choices: 1 }
    }
}

impl Ask {
    /// Any API; a `kind` below 3 streams.
    pub(super) fn any(kind: usize, choices: &mut Choices<'_>) -> Self {
        let api = choices.pick(&[
            Api::Chat,
            Api::Chat,
            Api::Completions,
            Api::Responses,
            Api::Messages,
            Api::OllamaChat,
            Api::OllamaGenerate,
            Api::LlamaCpp,
            Api::Sglang,
            Api::Tgi,
            Api::Triton,
            Api::GeminiEvents,
            Api::GeminiArray,
            Api::Embeddings,
        ]);
        let stream = (kind < 3 || choices.one_in(2)) && api != Api::Embeddings;
        let several = choices.one_in(5) && api.has_choices(stream);
        Self { api, stream, choices: if several { 2 } else { 1 } }
    }

    /// Target and document.
    pub(super) fn request(self, model: &str, choices: &mut Choices<'_>) -> (String, String) {
        let prompt = "Say \\\"hi\\\" wörld. ".repeat(1 + choices.pick(&[0, 3, 200]));
        let says_choices = self.choices > 1 || choices.one_in(2);
        let number =
            |name| if says_choices { format!(r#","{name}":{}"#, self.choices) } else { String::new() };
        let stream = if self.stream { r#","stream":true"# } else { "" };
        let verb = |stream, plain| if self.stream { stream } else { plain };
        let head = format!(r#"{{"model":"{model}""#);
        let messages = format!(r#""messages":[{{"role":"user","content":"{prompt}"}}]"#);
        match self.api {
            Api::Chat => {
                ("/v1/chat/completions".into(), format!("{head},{messages}{stream}{}}}", number("n")))
            }
            Api::Completions => (
                "/v1/completions?user=a".into(),
                format!(r#"{head},"prompt":"{prompt}","max_tokens":9{stream}{}}}"#, number("n")),
            ),
            Api::Responses => {
                let input = format!(r#""input":[{{"role":"user","type":"message","content":"{prompt}"}}]"#);
                ("/v1/responses".into(), format!(r#"{head},{input},"max_output_tokens":9{stream}}}"#))
            }
            Api::Messages => {
                ("/v1/messages".into(), format!(r#"{head},"max_tokens":9,{messages}{stream}}}"#))
            }
            // Who does not say, streams.
            Api::OllamaChat | Api::OllamaGenerate => {
                let stream = match (self.stream, says_choices) {
                    (false, _) => r#","stream":false"#,
                    (true, true) => r#","stream":true"#,
                    (true, false) => "",
                };
                if self.api == Api::OllamaChat {
                    ("/api/chat".into(), format!("{head},{messages}{stream}}}"))
                } else {
                    ("/api/generate".into(), format!(r#"{head},"prompt":"{prompt}"{stream}}}"#))
                }
            }
            Api::LlamaCpp => (
                "/completion".into(),
                format!(r#"{head},"prompt":"{prompt}","n_predict":-1{stream}{}}}"#, number("n_cmpl")),
            ),
            Api::Sglang => (
                "/generate".into(),
                format!(
                    r#"{{"text":"{prompt}","sampling_params":{{"max_new_tokens":9{}}}{stream}}}"#,
                    number("n")
                ),
            ),
            Api::Tgi => (
                verb("/generate_stream", "/generate").into(),
                format!(r#"{{"inputs":"{prompt}","parameters":{{"max_new_tokens":9}}}}"#),
            ),
            Api::Triton => (
                format!("/v2/models/{model}/{}", verb("generate_stream", "versions/1/generate")),
                format!(r#"{{"text_input":"{prompt}","max_tokens":9}}"#),
            ),
            Api::GeminiEvents | Api::GeminiArray => {
                let alt = if self.api == Api::GeminiEvents { "?alt=sse" } else { "" };
                let verb = verb("streamGenerateContent", "generateContent");
                let limit =
                    format!(r#""generationConfig":{{"maxOutputTokens":9{}}}"#, number("candidateCount"));
                (
                    format!("/v1beta/models/{model}:{verb}{alt}"),
                    format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{prompt}"}}]}}],{limit}}}"#),
                )
            }
            Api::Embeddings => ("/v1/embeddings".into(), format!(r#"{head},"input":"{prompt}"}}"#)),
        }
    }
}
