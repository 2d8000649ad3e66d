//! Which software serves, from what it writes: never from a port.

/// Names the serving software from the response's `server` field, its fingerprint, and names of its fields.
///
/// Sources: llama.cpp `tools/server/server-http.cpp` (`Server: llama.cpp`), vLLM fingerprints
/// `vllm-<version>-…`, Ollama `fp_ollama`, LiteLLM `x-litellm-*` fields.
pub fn provider<'a>(
    server: Option<&str>,
    fingerprint: Option<&str>,
    mut field_names: impl Iterator<Item = &'a str>,
) -> Option<&'static str> {
    if field_names.any(|name| name.starts_with("x-litellm-")) {
        return Some("litellm");
    }
    match server {
        Some("llama.cpp") => return Some("llama.cpp"),
        Some(server) if server.starts_with("TritonServer") => return Some("triton"),
        _ => {}
    }
    match fingerprint {
        Some("fp_ollama") => Some("ollama"),
        Some(fingerprint) if fingerprint.starts_with("vllm-") => Some("vllm"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_is_named_before_what_it_forwards() {
        let none = || std::iter::empty();
        assert_eq!(provider(Some("llama.cpp"), None, none()), Some("llama.cpp"));
        assert_eq!(
            provider(Some("uvicorn"), Some("vllm-0.33.0-x"), ["x-litellm-version"].into_iter()),
            Some("litellm")
        );
        assert_eq!(provider(Some("uvicorn"), Some("vllm-0.33.0-tp2"), none()), Some("vllm"));
        assert_eq!(provider(Some("uvicorn"), None, none()), None);
    }
}
