//! The workloads of `cargo xtask bench`, each a process of its own.
//!
//! - `costs loop N`: N one-byte writes to /dev/null, in slices; prints nanoseconds per call of the quickest slice,
//!   the one that was interrupted least.
//! - `costs empty-pair`: an empty raw tracepoint pair on all system calls, until its input ends.
//! - `costs serve EVENTS`: answers each request with that many small events, one write each, as fast as it
//!   can; prints its port.
//! - `costs drain PORT PATH BODY REQUESTS`: asks for streams one after the other; prints events per second of the
//!   quickest.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use anyhow::{Context as _, Result, bail, ensure};
use observer::{capture::monotonic, kernel::EmptyPair};
use rustix::thread::{CpuSet, sched_setaffinity};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["loop", count] => writes(count.parse()?),
        ["empty-pair"] => empty_pair(),
        ["serve", events] => serve(events.parse()?),
        ["drain", port, path, body, requests] => drain(port.parse()?, path, body, requests.parse()?),
        _ => bail!("usage: costs loop N | empty-pair | serve EVENTS | drain PORT PATH BODY REQUESTS"),
    }
}

/// Calls of one slice of the loop: a few milliseconds.
const SLICE: u64 = 10_000;

fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    Ok(sched_setaffinity(None, &cpus)?)
}

fn writes(count: u64) -> Result<()> {
    pin(0)?;
    let mut null = OpenOptions::new().write(true).open("/dev/null")?;
    let mut best = u64::MAX;
    for _ in 0..count.div_ceil(SLICE) {
        let begun = monotonic();
        for _ in 0..SLICE {
            null.write_all(b"x")?;
        }
        best = best.min(monotonic() - begun);
    }
    println!("{}", best as f64 / SLICE as f64);
    Ok(())
}

fn empty_pair() -> Result<()> {
    let _pair = EmptyPair::attach()?;
    println!("attached");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn serve(events: u32) -> Result<()> {
    pin(0)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut request = [0; 4096];
        while stream.read(&mut request)? > 0 {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            let event = "data: {\"id\":\"chatcmpl-0123456789abcdef\",\"object\":\"chat.completion.chunk\",\"created\":1,\
                         \"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"logprobs\":null,\
                         \"finish_reason\":null}]}\n\n";
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            for _ in 0..events {
                stream.write_all(chunk.as_bytes())?;
            }
            stream.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")?;
        }
    }
}

fn drain(port: u16, path: &str, body: &str, requests: u32) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut best = 0.0_f64;
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..requests {
        let (mut events, begun) = (0_u64, monotonic());
        // One write: the server answers what it reads.
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut tail = Vec::new();
        while !tail.ends_with(b"\r\n0\r\n\r\n") {
            let read = stream.read(&mut buffer).context("response")?;
            ensure!(read > 0, "the response ended early");
            let bytes = buffer.get(..read).unwrap_or_default();
            // A chunk may end anywhere in a read: events are counted by the byte that begins their JSON.
            events += bytes.windows(2).filter(|pair| pair == b" {").count() as u64;
            tail.extend_from_slice(bytes);
            tail.drain(..tail.len().saturating_sub(7));
        }
        ensure!(events > 0, "no event came");
        best = best.max(events as f64 * 1e9 / (monotonic() - begun) as f64);
    }
    println!("{best}");
    Ok(())
}
