//! The token by which agents and the cluster role are asked from other machines.

use std::fmt;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use subtle::ConstantTimeEq as _;
use tracing::{info, warn};

/// Longest token, in bytes.
const LONGEST: u64 = 4096;

/// A file with a token. It is read whenever it is needed, so that a new one counts at once; what it says is never shown.
#[derive(Debug, Default)]
pub struct TokenFile {
    path: Option<PathBuf>,
    failing: AtomicBool,
}

/// What a file says.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// As value of the header `Authorization` (RFC 6750, 2.1).
    pub fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether a header presents this token. How long it takes tells at most how long the token is.
    fn is_presented_by(&self, header: &str) -> bool {
        // The scheme is case-insensitive (RFC 9110, 11.1).
        let presented = header.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"));
        presented.is_some_and(|(_, token)| token.trim().as_bytes().ct_eq(self.0.as_bytes()).into())
    }
}

impl TokenFile {
    /// At this path, if there is one.
    pub fn at(path: Option<PathBuf>) -> Self {
        Self { path, failing: AtomicBool::new(false) }
    }

    /// Whether a file was named.
    pub(super) fn is_named(&self) -> bool {
        self.path.is_some()
    }

    /// Whether a header presents the token. Without one, none does.
    pub(super) fn admits(&self, header: &str) -> bool {
        self.read().is_some_and(|token| token.is_presented_by(header))
    }

    /// The token. Why there is none is said once, until there is one.
    pub fn read(&self) -> Option<Token> {
        let path = self.path.as_ref()?;
        let read = || {
            let mut text = String::new();
            std::fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
            let token = text.trim();
            // What fits into a header (RFC 6750, 2.1), and not nothing.
            let fits = token.bytes().all(|byte| byte.is_ascii_graphic()) && !token.is_empty();
            if fits && token.len() as u64 <= LONGEST {
                Ok(Token(token.to_owned()))
            } else {
                Err(std::io::Error::other("it holds no token: one line of visible ASCII characters"))
            }
        };
        match read() {
            Ok(token) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!(path = %path.display(), "api.token_file can be read again");
                }
                Some(token)
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(path = %path.display(), %error, "api.token_file cannot be used: requests from and to other machines fail");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = TokenFile::at(Some(path.clone()));
        assert!(!file.admits("Bearer one") && !file.admits("Bearer ") && !file.admits(""));
        std::fs::write(&path, "one\n").unwrap();
        assert!(file.admits("Bearer one") && file.admits("bearer  one"));
        for header in ["", "one", "Basic one", "Bearer", "Bearer on", "Bearer one1", "Bearer One"] {
            assert!(!file.admits(header), "{header}");
        }
        std::fs::write(&path, "two").unwrap();
        assert!(!file.admits("Bearer one") && file.admits("Bearer two"));
        assert_eq!(file.read().unwrap().header(), "Bearer two");
        assert_eq!(format!("{:?}", file.read()), "Some(Token(…))");
    }

    #[test]
    fn what_is_no_token_admits_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for text in ["", " \n", "a b", "a\nb", "ü", &"x".repeat(5000)] {
            std::fs::write(&path, text).unwrap();
            let file = TokenFile::at(Some(path.clone()));
            assert!(!file.admits(&format!("Bearer {}", text.trim())), "{text:?}");
            assert_eq!(file.read(), None);
        }
        assert!(!TokenFile::at(None).admits("Bearer "), "none was named");
    }
}
