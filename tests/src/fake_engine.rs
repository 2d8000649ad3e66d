//! A fake of an engine, for what no engine runs on a small machine for: it answers chat completions with an
//! engine's marks and one word, and `/metrics` with a text that the test sets.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// vLLM's text, as its `v1/metrics/loggers.py` names the gauges.
pub const VLLM_METRICS: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 8.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
# HELP vllm:kv_cache_usage_perc KV-cache usage. 1 means 100 percent usage.
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
"#;

#[derive(Default)]
struct State {
    metrics: Option<String>,
    answer: Option<(&'static str, &'static str, String)>,
    reads: usize,
}

/// A fake engine, served by threads of this process as long as it runs.
pub struct FakeEngine {
    address: String,
    state: Arc<Mutex<State>>,
}

impl FakeEngine {
    /// One whose responses carry these lines in their head, and this fingerprint.
    pub fn start(fields: &'static str, fingerprint: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, fields, fingerprint, &state));
            }
        });
        Self { address, state }
    }

    /// Where it answers.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets what `/metrics` answers; nothing: 500.
    pub fn tell(&self, metrics: Option<&str>) {
        self.state.lock().expect("state").metrics = metrics.map(str::to_owned);
    }

    /// Sets what everything else answers from now on: a status, a type and a body.
    pub fn answer(&self, status: &'static str, kind: &'static str, body: &str) {
        self.state.lock().expect("state").answer = Some((status, kind, body.to_owned()));
    }

    /// How often `/metrics` was asked for.
    pub fn reads(&self) -> usize {
        self.state.lock().expect("state").reads
    }

    /// Has it answer one chat completion.
    pub fn ask(&self) {
        let answer = ureq::post(format!("http://{}/v1/chat/completions", self.address))
            .header("Content-Type", "application/json")
            .send(r#"{"model":"m","messages":[]}"#)
            .expect("it answers");
        assert_eq!(answer.status().as_u16(), 200);
    }
}

/// Answers one request.
fn serve(stream: TcpStream, fields: &str, fingerprint: &str, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        } else if path.is_empty() {
            path.push_str(line.split(' ').nth(1).unwrap_or_default());
        } else if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    let ordered = state.lock().expect("state").answer.clone();
    let (status, kind, content) = if path == "/metrics" {
        let mut state = state.lock().expect("state");
        state.reads += 1;
        state.metrics.clone().map_or(("500 Internal Server Error", "text/plain", String::new()), |text| {
            ("200 OK", "text/plain", text)
        })
    } else if let Some(ordered) = ordered {
        ordered
    } else {
        let answer = format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","model":"m","system_fingerprint":"{fingerprint}","choices":[{{"index":0,"message":{{"role":"assistant","content":"word"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
        );
        ("200 OK", "application/json", answer)
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{content}",
        content.len()
    );
    // The client may be gone; the next one finds out for itself.
    let _sent = reader.get_mut().write_all(answer.as_bytes());
}
