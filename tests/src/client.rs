//! A client over one kept connection, that knows every byte it sent and was sent.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;

/// One connection to a server of `tests/python`.
pub struct Client {
    stream: TcpStream,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

impl Client {
    /// Connects to a port of this machine.
    pub fn connect(port: &str) -> Self {
        let address = ("127.0.0.1", port.parse::<u16>().expect("port"));
        Self { stream: TcpStream::connect(address).expect("connect"), sent: 0, received: 0 }
    }

    /// Connects to a server's Unix socket.
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connect");
        // Reads and writes are the same calls on both; what needs an address is not for these.
        Self { stream: TcpStream::from(OwnedFd::from(stream)), sent: 0, received: 0 }
    }

    /// This end's address, as the server sees it.
    pub fn name(&self) -> String {
        self.stream.local_addr().expect("address").to_string()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("request");
        self.sent += bytes.len() as u64;
    }

    /// Sends a chat request, with header lines of one's own.
    pub fn post(&mut self, id: &str, headers: &str, body: &str) {
        self.send(&request(id, headers, body.as_bytes()));
    }

    /// What comes next, at least one byte; empty at the end.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut buffer = [0; 8192];
        let read = self.stream.read(&mut buffer).expect("response");
        self.received += read as u64;
        buffer[..read].to_vec()
    }

    /// Everything until it ends with `end`.
    pub fn receive_until(&mut self, end: &[u8]) -> String {
        let mut all = Vec::new();
        while !all.ends_with(end) {
            let more = self.receive();
            assert!(!more.is_empty(), "response ended early: {}", String::from_utf8_lossy(&all));
            all.extend(more);
        }
        String::from_utf8(all).expect("UTF-8")
    }

    /// Everything until the server closes.
    pub fn receive_all(&mut self) -> String {
        let mut all = Vec::new();
        self.received += self.stream.read_to_end(&mut all).expect("response") as u64;
        String::from_utf8(all).expect("UTF-8")
    }

    /// Sends a request as it is, and returns what comes first in answer.
    pub fn exchange(&mut self, request: &str) -> Vec<u8> {
        self.send(request.as_bytes());
        let first = self.receive();
        assert!(!first.is_empty(), "no response");
        first
    }

    /// Reads until the connection is over, in order or not.
    pub fn outlive(&mut self) {
        let mut buffer = [0; 8192];
        while let Ok(read @ 1..) = self.stream.read(&mut buffer) {
            self.received += read as u64;
        }
    }

    /// Hangs up by a reset instead of an orderly end.
    pub fn reset(self) {
        // Zero: whatever is in the buffers is thrown away, and RST takes the place of FIN (socket(7)).
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// One streamed exchange; its response as it came.
    pub fn stream(&mut self, id: &str, body: &str) -> String {
        self.post(id, "", body);
        self.receive_until(b"0\r\n\r\n")
    }

    /// One plain exchange; its response as it came.
    pub fn plain(&mut self, id: &str, body: &str) -> String {
        self.post(id, "", body);
        self.receive_whole()
    }

    /// One response with a length.
    pub fn receive_whole(&mut self) -> String {
        let head = self.receive_head();
        let (fields, _) = head.split_once("\r\n\r\n").expect("a whole head");
        let length = fields.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a length"))
        });
        let whole = fields.len() + 4 + length.unwrap_or(0);
        let mut all = head.into_bytes();
        while all.len() < whole {
            let more = self.receive();
            assert!(!more.is_empty(), "response ended early: {}", String::from_utf8_lossy(&all));
            all.extend(more);
        }
        String::from_utf8(all).expect("UTF-8")
    }

    /// The head of a response, and what came with it.
    pub fn receive_head(&mut self) -> String {
        let mut all = Vec::new();
        while !all.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let more = self.receive();
            assert!(!more.is_empty(), "response ended early: {}", String::from_utf8_lossy(&all));
            all.extend(more);
        }
        String::from_utf8(all).expect("UTF-8")
    }
}

/// A chat request as it is sent.
pub fn request(id: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Request-ID: {id}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// A chat request that `openai_server.py` answers with so many events.
pub fn chat(model: &str, stream: bool, events: usize) -> String {
    format!(
        r#"{{"model":"{model}","stream":{stream},"events":{events},"messages":[{{"role":"user","content":"hi"}}]}}"#
    )
}
