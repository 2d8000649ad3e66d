//! One read of a Prometheus endpoint, bounded in time and size. A new connection each time, no proxy, no redirect.

use std::net::SocketAddr;
use std::time::Duration;

use ureq::{Agent, Error};

/// For the whole of a read.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of an answer. An engine with every histogram for ten models writes some hundred KiB.
const LARGEST: u64 = 4 << 20;

pub(super) struct Reader(Agent);

impl Reader {
    pub(super) fn new() -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .proxy(None)
            .user_agent(concat!("observer/", env!("CARGO_PKG_VERSION")));
        Self(config.build().new_agent())
    }

    /// The text at `/metrics`, or the word for why there is none.
    pub(super) fn read(&self, address: SocketAddr) -> Result<String, &'static str> {
        let request =
            self.0.get(format!("http://{address}/metrics")).header("Accept", "text/plain;version=0.0.4");
        let mut answer = request.call().map_err(|error| word(&error))?;
        if answer.status() != 200 {
            return Err("status");
        }
        let body =
            answer.body_mut().with_config().limit(LARGEST).read_to_vec().map_err(|error| word(&error))?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn word(error: &Error) -> &'static str {
    match error {
        Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) => "too_large",
        _ => "unreachable",
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// What a read makes of a server that answers with these pieces, and then waits for the client to leave.
    fn read(pieces: &'static [(&'static str, usize)]) -> Result<String, &'static str> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let _head = client.read(&mut [0; 4096]);
            for (piece, times) in pieces {
                if client.write_all(piece.repeat(*times).as_bytes()).is_err() {
                    return;
                }
            }
            let _left = client.read(&mut [0; 1]);
        });
        let text = Reader::new().read(address);
        server.join().unwrap();
        text
    }

    #[test]
    fn a_read_is_bounded_in_time_and_size() {
        assert_eq!(read(&[("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na 1", 1)]), Ok("a 1".to_owned()));
        assert_eq!(read(&[("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 1)]), Err("status"));
        assert_eq!(
            read(&[("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 1)]),
            Err("status")
        );
        assert_eq!(read(&[("HTTP/1.1 200 OK\r\n\r\n", 1), ("0123456789abcdef", 1 << 19)]), Err("too_large"));
        assert_eq!(read(&[("not HTTP\r\n\r\n", 1)]), Err("unreachable"));
        assert_eq!(
            read(&[("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na", 1)]),
            Err("unreachable"),
            "in time"
        );
    }
}
