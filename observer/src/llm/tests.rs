//! Which requests are of which API.

use super::*;

/// Operation, and the model and stream flag that the path tells.
fn route(path: &str) -> Option<(Operation, Option<String>, Option<bool>)> {
    let (dialect, operation) = classify("POST", path)?;
    let mut request = Request::default();
    dialect.path(path, &mut request);
    Some((operation, request.model, request.stream))
}

#[test]
fn routes() {
    use Operation::{
        Chat, Classify, Embeddings, GenerateContent, Infer, Pooling, Rerank, Score, TextCompletion, Unknown,
    };
    for (path, operation) in [
        ("/v1/chat/completions", Chat),
        ("/v1/chat/completions/", Chat),
        ("/v1/chat/completions/batch", Chat),
        ("/openai/deployments/d/chat/completions", Chat),
        ("/v1/completions", TextCompletion),
        ("/completions", TextCompletion),
        ("/v1/responses", Chat),
        ("/v1/messages", Chat),
        ("/anthropic/v1/messages", Chat),
        ("/cohere/v2/chat", Chat),
        ("/api/chat", Chat),
        ("/api/generate", TextCompletion),
        ("/api/embed", Embeddings),
        ("/api/embeddings", Embeddings),
        ("/completion", TextCompletion),
        ("/infill", TextCompletion),
        ("/generate", TextCompletion),
        ("/v1/embeddings", Embeddings),
        ("/v2/embed", Embeddings),
        ("/rerank", Rerank),
        ("/v1/rerank", Rerank),
        ("/v2/rerank", Rerank),
        ("/score", Score),
        ("/v1/score", Score),
        ("/classify", Classify),
        ("/pooling", Pooling),
        ("/invocations", Unknown),
        ("/inference/v1/generate", Unknown),
        ("/v1/audio/transcriptions", Unknown),
        ("/v1/audio/translations", Unknown),
    ] {
        assert_eq!(route(path), Some((operation, None, None)), "{path}");
    }
    for (path, operation, model, stream) in [
        ("/v2/models/m/generate", TextCompletion, "m", false),
        ("/v2/models/m/generate_stream", TextCompletion, "m", true),
        ("/v2/models/m/versions/3/generate_stream", TextCompletion, "m", true),
        ("/v2/models/m/infer", Infer, "m", false),
        ("/v1beta/models/g-2:generateContent", GenerateContent, "g-2", false),
        ("/v1beta/models/g-2:streamGenerateContent", GenerateContent, "g-2", true),
        (
            "/v1/projects/p/locations/l/publishers/google/models/g:streamGenerateContent",
            GenerateContent,
            "g",
            true,
        ),
        ("/v1beta/models/e:embedContent", Embeddings, "e", false),
    ] {
        assert_eq!(route(path), Some((operation, Some(model.into()), Some(stream))), "{path}");
    }
    assert_eq!(route("/generate_stream"), Some((TextCompletion, None, Some(true))));
    for path in [
        "/",
        "/v1/models",
        "/tokenize",
        "/v1/messages/count_tokens",
        "/v1/threads/t/messages",
        "/v1beta/models/g:countTokens",
        "/v2/models/m/ready",
        "/v2/models/m",
        "/game/score",
        "/api/chats",
    ] {
        assert_eq!(route(path), None, "{path}");
    }
    assert!(classify("GET", "/v1/chat/completions").is_none());
}

#[test]
fn candidates_send_json() {
    assert!(candidate("POST", Some("Application/JSON")).is_some() && candidate("POST", None).is_some());
    assert!(candidate("POST", Some("multipart/form-data")).is_none() && candidate("GET", None).is_none());
}

#[test]
fn what_stands_beside_completions() {
    for (method, path) in [
        ("GET", "/v1/models"),
        ("GET", "/v2/models/m/ready"),
        ("POST", "/api/show"),
        ("GET", "/health"),
        ("HEAD", "/"),
        ("POST", "/v1/messages/count_tokens"),
    ] {
        assert!(is_beside(method, path), "{path}");
    }
    for (method, path) in [("GET", "/"), ("GET", "/icon"), ("POST", "/ask"), ("POST", "/api/users")] {
        assert!(!is_beside(method, path), "{path}");
    }
}
