//! What must not be kept of a message: prompts and completions that engines print, keys and tokens.
//!
//! Best effort: an engine may print a prompt in a way that no rule knows. How much is found is measured on lines of
//! real engines (`tests/redaction`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::AhoCorasick;
use regex::Regex;

/// What stands in place of what was redacted.
const MARK: &str = "[redacted]";

/// Names of rules, as metrics have them.
pub const RULES: [&str; 4] = ["content", "credential", "token", "private_key"];

/// What a rule takes away.
#[derive(Clone, Copy)]
enum Takes {
    /// The value that begins where the expression ends: quoted, in brackets, or if `bare` the rest of the line.
    Value { bare: bool },
    /// What its first group matched.
    Group,
}

struct Rule {
    name: usize,
    /// Nothing matches without one of these, in any case: most lines have none, and are done with after one look.
    hints: &'static [&'static str],
    pattern: &'static str,
    takes: Takes,
}

// Ends of words are those of ASCII: the automaton that is fast knows no others.
const PATTERNS: &[Rule] = &[
    // Names under which engines, gateways and their clients print what was asked and answered: vLLM's `Received request
    // …: prompt: '…'`, SGLang's `GenerateReqInput(…, text='…'`, bodies of requests and responses, Python's and JSON's.
    Rule {
        name: 0,
        hints: &[
            "prompt",
            "token_ids",
            "input",
            "output_ids",
            "messages",
            "content",
            "text",
            "completion",
            "reasoning",
            "arguments",
            "parts",
            "documents",
            "next token",
        ],
        pattern: concat!(
            r#"(?i)(?:^|[^a-z0-9_-])(?:prompts?|prompt_text|(?:prompt_|input_|output_)?token_ids|(?:input|output)_ids|inputs?"#,
            r#"|input_text|messages?_content|messages|content|texts?|completions?|generated_text|output_text|reasoning_content"#,
            r#"|reasoning|arguments|parts|documents|next token)(?:\\*["'])?\s*(?:[:=]|=>)\s*"#
        ),
        takes: Takes::Value { bare: false },
    },
    Rule {
        name: 0,
        hints: &["prompt", "generated_text", "completion"],
        pattern: r"(?i)(?:^|[^a-z0-9_-])(?:prompts?|prompt_text|generated_text|completion)\s*[:=]\s*",
        takes: Takes::Value { bare: true },
    },
    // llama.cpp and others print whole bodies after such a word.
    Rule {
        name: 0,
        hints: &["request", "response", "body", "data", "payload", "parsed message", "chunk", "to_send"],
        pattern: r"(?i)(?-u:\b)(?:request|response|body|data|payload|parsed message|chunk|to_send)\s*[:=]\s*",
        takes: Takes::Value { bare: false },
    },
    Rule {
        name: 1,
        hints: &["authorization"],
        pattern: r#"(?i)(?-u:\b)(?:proxy-)?authorization(?:\\*["'])?\s*[:=]\s*(?:\\*["'])?(?:(?:bearer|basic|token)\s+)?([^\s"'\\,]+)"#,
        takes: Takes::Group,
    },
    Rule {
        name: 1,
        hints: &["key", "secret", "passw", "passphrase", "token"],
        pattern: concat!(
            r"(?i)(?:api[-_]?key|apikey|secret(?:[-_]?(?:key|access[-_]?key))?|passw(?:or)?d|passphrase|access[-_]?key(?:[-_]?id)?",
            r#"|(?:auth|access|refresh|session|id|hf|hub|api)[-_]?token)(?:\\*["'])?\s*[:=]\s*(?:\\*["'])?([^\s"'\\,;&)}\]]{3,})"#
        ),
        takes: Takes::Group,
    },
    Rule {
        name: 1,
        hints: &["://"],
        pattern: r"(?-u:\b)[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@]*:([^\s/@]+)@",
        takes: Takes::Group,
    },
    Rule {
        name: 1,
        hints: &["key=", "token=", "sig=", "signature="],
        pattern: r#"[?&](?:key|token|sig|signature|X-Amz-Signature|access_token|api_key)=([^&\s"']+)"#,
        takes: Takes::Group,
    },
    Rule {
        name: 2,
        hints: &["bearer"],
        pattern: r"(?i)(?-u:\b)bearer\s+([a-z0-9._~+/=-]{8,})",
        takes: Takes::Group,
    },
    // Tokens that say by their beginning what they are.
    Rule {
        name: 2,
        hints: &[
            "sk-",
            "hf_",
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "xox",
            "akia",
            "asia",
            "aiza",
            "nvapi-",
            "ya29.",
            "eyj",
        ],
        pattern: concat!(
            r"(?-u:\b)(sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}",
            r"|xox[abprs]-[\w-]{10,}|A[KS]IA[0-9A-Z]{16}|AIza[\w-]{30,}|nvapi-[\w-]{20,}|ya29\.[\w-]{10,}",
            r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
        ),
        takes: Takes::Group,
    },
    Rule {
        name: 3,
        hints: &["private key-----"],
        pattern: r"-----BEGIN [A-Z ]*PRIVATE KEY-----([\s\S]*?)(?:-----END|$)",
        takes: Takes::Group,
    },
];

/// Takes away what the rules name.
pub struct Redactor {
    /// None: nothing is taken away.
    rules: Option<Rules>,
}

struct Rules {
    hints: AhoCorasick,
    /// The rules of each hint, a bit for each.
    of_hint: Vec<u32>,
    expressions: Vec<Regex>,
}

impl Rules {
    fn new() -> Self {
        let mut of_hint: BTreeMap<&str, u32> = BTreeMap::new();
        for (at, rule) in PATTERNS.iter().enumerate() {
            rule.hints.iter().for_each(|hint| *of_hint.entry(hint).or_default() |= 1 << at);
        }
        let hints = AhoCorasick::builder().ascii_case_insensitive(true).build(of_hint.keys());
        let expressions = PATTERNS.iter().map(|rule| Regex::new(rule.pattern));
        Self {
            hints: hints.expect("constant hints"),
            of_hint: of_hint.into_values().collect(),
            expressions: expressions.map(|one| one.expect("a constant expression")).collect(),
        }
    }

    /// Which may match in a text.
    fn hinted(&self, text: &str) -> u32 {
        let found = self.hints.find_overlapping_iter(text);
        found.fold(0, |rules, hint| rules | self.of_hint[hint.pattern().as_usize()])
    }
}

/// A text after that.
#[derive(Debug, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// What is left.
    pub text: Cow<'a, str>,
    /// How many places were taken away.
    pub places: u32,
    /// The same by rule, in the order of [`RULES`].
    pub by_rule: [u32; RULES.len()],
}

impl Redactor {
    /// With all rules, or with none.
    ///
    /// # Panics
    /// Never: its expressions are constants, and tests compile them.
    pub fn new(redacts: bool) -> Self {
        let rules = redacts.then(Rules::new);
        Self { rules }
    }

    /// What may be kept of a text.
    pub fn redact<'a>(&self, text: &'a str) -> Redacted<'a> {
        let mut redacted = Redacted { text: Cow::Borrowed(text), places: 0, by_rule: [0; RULES.len()] };
        let Some(rules) = &self.rules else { return redacted };
        let hinted = rules.hinted(text);
        for (at, (rule, expression)) in PATTERNS.iter().zip(&rules.expressions).enumerate() {
            if hinted >> at & 1 == 0 {
                continue;
            }
            let places = places(&redacted.text, rule, expression);
            if places.is_empty() {
                continue;
            }
            let mut kept = String::with_capacity(redacted.text.len());
            let mut done = 0;
            for place in &places {
                kept.push_str(&redacted.text[done..place.start]);
                kept.push_str(MARK);
                done = place.end;
            }
            kept.push_str(&redacted.text[done..]);
            redacted.text = Cow::Owned(kept);
            redacted.places += places.len() as u32;
            redacted.by_rule[rule.name] += places.len() as u32;
        }
        redacted
    }
}

/// Where a rule takes something away, in order and apart from each other.
fn places(text: &str, rule: &Rule, expression: &Regex) -> Vec<Range<usize>> {
    let (mut places, mut from) = (Vec::new(), 0);
    while let Some(found) = text.get(from..).and_then(|_| expression.captures_at(text, from)) {
        let whole = found.get(0).map_or(from..from, |all| all.range());
        let place = match rule.takes {
            Takes::Group => {
                found.get(1).map(|group| group.range()).filter(|group| says_something(&text[group.clone()]))
            }
            Takes::Value { bare } => value(text, whole.end, bare),
        };
        // A match ends after it began; the next may begin with the character that ended this one.
        from = whole.end.max(whole.start + 1);
        if let Some(place) = place.filter(|place| !place.is_empty()) {
            from = from.max(place.end);
            places.push(place);
        }
        while !text.is_char_boundary(from) {
            from += 1;
        }
    }
    places
}

/// Values that stand for no secret.
fn says_something(value: &str) -> bool {
    let nothing = ["none", "null", "true", "false", "nil", "undefined", MARK, "[redacted"];
    !nothing.iter().any(|word| value.eq_ignore_ascii_case(word)) && !value.bytes().all(|byte| byte == b'*')
}

/// The value that begins here, without its quotes.
fn value(text: &str, at: usize, bare: bool) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    // llama.cpp's `next token:   253 ' The'`, Python's `b'…'`.
    let is_digit_or_space = |byte: &&u8| byte.is_ascii_digit() || **byte == b' ';
    let skipped = bytes.get(at..).unwrap_or_default().iter().take_while(is_digit_or_space).count();
    let mut begin = if bytes.get(at + skipped) == Some(&b'\'') { at + skipped } else { at };
    while begin - at < 2 && bytes.get(begin).is_some_and(|byte| b"bruf".contains(byte)) && {
        let next = bytes.get(begin + 1);
        next.is_some_and(|byte| b"bruf'\"".contains(byte))
    } {
        begin += 1;
    }
    let slashes = bytes[begin.min(bytes.len())..].iter().take_while(|byte| **byte == b'\\').count();
    match bytes.get(begin + slashes) {
        // Quotes and brackets are for the other rules.
        Some(b'"' | b'\'' | b'[' | b'{' | b'(') if bare => None,
        Some(quote @ (b'"' | b'\'')) => {
            let from = begin + slashes + 1;
            let mut end = closing(bytes, from, *quote, slashes);
            // SGLang leaves out the middle of what is long: `'…' ... '…'` (`srt/utils/request_logger.py`).
            while let Some(rest) = text.get(end + 1..).and_then(|rest| rest.strip_prefix(" ... "))
                && let Some(quote @ (b'"' | b'\'')) = rest.as_bytes().first()
            {
                end = closing(bytes, text.len() - rest.len() + 1, *quote, slashes);
            }
            Some(from..end)
        }
        Some(b'[' | b'{' | b'(') if slashes == 0 => {
            let mut end = balanced(bytes, begin);
            while text.get(end..).is_some_and(|rest| rest.starts_with(" ... [")) {
                end = balanced(bytes, end + " ... ".len());
            }
            // Numbers of something are no content; a list of ids of tokens is.
            Some(begin..end).filter(|range| range.len() > 2 && !text[range.clone()].starts_with(MARK))
        }
        Some(first)
            if bare
                && slashes == 0
                && !first.is_ascii_digit()
                && !matches!(first, b'-' | b',' | b'N' | b'n') =>
        {
            let end = memchr::memchr(b'\n', &bytes[begin..]).map_or(bytes.len(), |at| begin + at);
            Some(begin..end)
        }
        _ => None,
    }
}

/// Where a quoted text ends: at a quote that is escaped as little as the one before it, or at the end of all.
fn closing(bytes: &[u8], from: usize, quote: u8, slashes: usize) -> usize {
    let mut escaped = 0;
    for (at, byte) in bytes.iter().enumerate().skip(from) {
        match byte {
            b'\\' => escaped += 1,
            byte if *byte == quote && (escaped == slashes || (slashes == 0 && escaped % 2 == 0)) => {
                return at - escaped.min(slashes);
            }
            _ => escaped = 0,
        }
    }
    bytes.len()
}

/// Where brackets close that open here, or the end of all. Brackets in quotes do not count.
fn balanced(bytes: &[u8], from: usize) -> usize {
    let (mut depth, mut at) = (0_usize, from);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            // An apostrophe inside a word is no quote.
            b'"' => at = closing(bytes, at + 1, b'"', 0),
            b'\'' if at == 0 || !bytes[at - 1].is_ascii_alphanumeric() => {
                at = closing(bytes, at + 1, b'\'', 0);
            }
            b'\\' => at += 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(text: &str) -> String {
        Redactor::new(true).redact(text).text.into_owned()
    }

    #[test]
    fn contents_in_all_spellings() {
        for (text, kept) in [
            (
                "Received request chatcmpl-1: prompt: 'don\\'t tell', params: SamplingParams(n=1), prompt_token_ids: [1, 2], x: None",
                "Received request chatcmpl-1: prompt: '[redacted]', params: SamplingParams(n=1), prompt_token_ids: [redacted], x: None",
            ),
            (
                "Receive: obj=GenerateReqInput(rid='7', text='tell', n=1)",
                "Receive: obj=GenerateReqInput(rid='7', text='[redacted]', n=1)",
            ),
            (
                r#"{"role":"user","content":"tell \"me\" all","n":1}"#,
                r#"{"role":"user","content":"[redacted]","n":1}"#,
            ),
            (
                r#"got {\"content\":\"tell \\\"me\\\" all\",\"n\":1}"#,
                r#"got {\"content\":\"[redacted]\",\"n\":1}"#,
            ),
            ("messages=[{'role': 'user', 'content': \"it's [x\"}], n=1", "messages=[redacted], n=1"),
            ("request:  {\"prompt\":\"x\"} done", "request:  [redacted] done"),
            ("n_decoded = 1, next token:   253 ' The'", "n_decoded = 1, next token:   253 '[redacted]'"),
            ("prompt = Once upon a time", "prompt = [redacted]"),
            ("prompt: cut 'off in the", "prompt: [redacted]"),
            ("content: \"never ends", "content: \"[redacted]"),
            ("text='tell' ... \"it's all\", n=1", "text='[redacted]\", n=1"),
            ("text='tell' ... 'cut", "text='[redacted]"),
            ("input_ids=[1, 2] ... [3, 4], n=1", "input_ids=[redacted], n=1"),
            ("inputs: \"ü\", n", "inputs: \"[redacted]\", n"),
        ] {
            assert_eq!(redacted(text), kept);
        }
    }

    #[test]
    fn credentials() {
        for (text, kept) in [
            ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
            ("'authorization': 'Basic dXNlcg=='", "'authorization': 'Basic [redacted]'"),
            ("curl -H \"x: Bearer abcdefgh12\"", "curl -H \"x: Bearer [redacted]\""),
            ("api_key=sk-1234 x", "api_key=[redacted] x"),
            ("OPENAI_API_KEY: 'abcd'", "OPENAI_API_KEY: '[redacted]'"),
            ("key sk-abcdefghijklmnopqrst", "key [redacted]"),
            ("postgres://u:pw@db/x", "postgres://u:[redacted]@db/x"),
            ("GET /v1?key=abc&n=1", "GET /v1?key=[redacted]&n=1"),
            ("eyJhbGciOiJ.eyJzdWIiOiI.sig-x", "[redacted]"),
            (
                "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----",
                "-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----",
            ),
        ] {
            assert_eq!(redacted(text), kept);
        }
    }

    #[test]
    fn what_says_nothing_of_contents_is_kept() {
        for text in [
            "Engine 000: Avg prompt throughput: 3.2 tokens/s, Running: 1 reqs, GPU KV cache usage: 0.1%",
            "prompt eval time =      12.34 ms /    15 tokens",
            "slot release: id  0 | task 5 | stop processing: n_tokens = 45, truncated = 0",
            "api_key=None, password: null, token: 12",
            "INFO: 127.0.0.1:5 - \"POST /v1/chat/completions HTTP/1.1\" 200 OK",
            "prompt: 12 tokens",
            "max_prompt: 12",
        ] {
            assert_eq!(redacted(text), text);
        }
        assert_eq!(Redactor::new(false).redact("prompt: 'x'").places, 0);
        let twice = Redactor::new(true).redact("prompt: 'x' api_key=abcd");
        assert_eq!((twice.places, twice.by_rule), (2, [1, 1, 0, 0]));
    }
}
