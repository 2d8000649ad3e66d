//! A server small enough for a machine with one program in its file system: it answers one request with a
//! stream of events, or with many small writes, or it ends.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Bytes of each write of [`writes`].
pub const WRITE: usize = 100;

/// Between the events of [`events`].
pub const GAP: Duration = Duration::from_millis(20);

/// Listens, prints the port, answers one request with `count` token-bearing events, and goes on reading until
/// the client hangs up.
///
/// # Errors
/// What a socket says.
pub fn events(count: usize) -> io::Result<()> {
    let mut stream = accept()?;
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let chunk = |data: String| format!("{:x}\r\n{data}\r\n", data.len());
    for number in 0..count {
        thread::sleep(GAP);
        let event =
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"t{number}\"}}}}]}}\n\n");
        stream.write_all(chunk(event).as_bytes())?;
    }
    let usage = format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{count}}}}}\n\n"
    );
    stream.write_all(chunk(usage).as_bytes())?;
    stream.write_all(chunk("data: [DONE]\n\n".into()).as_bytes())?;
    stream.write_all(b"0\r\n\r\n")?;
    while stream.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

/// Listens, prints the port, and answers one request with `count` writes, all on CPU 0.
///
/// # Errors
/// What a socket says.
pub fn writes(count: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(0);
    sched_setaffinity(None, &cpus)?;
    let mut stream = accept()?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        count * WRITE
    )?;
    for _ in 0..count {
        stream.write_all(&[b'x'; WRITE])?;
    }
    Ok(())
}

/// Listens, prints the port, and when somebody connects ends: with a `code`, which is 3, or by another `thread` with that
/// code; by a `crash`, by a `kill`; or because the `memory` of the cgroup in `CGROUP` is used up.
///
/// # Errors
/// What a socket or the cgroup says.
pub fn end(how: &str) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    listener.accept()?;
    let own = rustix::process::getpid();
    match how {
        "crash" => std::process::abort(),
        "kill" => rustix::process::kill_process(own, Signal::KILL)?,
        "thread" => {
            thread::spawn(|| std::process::exit(3));
            thread::sleep(Duration::from_mins(1));
        }
        "memory" => {
            let cgroup = std::env::var("CGROUP").unwrap_or_default();
            fs::write(Path::new(&cgroup).join("cgroup.procs"), own.as_raw_nonzero().to_string())?;
            let hog: Vec<Vec<u8>> = (0..4096).map(|_| vec![1; 1 << 20]).collect();
            println!("{}", hog.len());
        }
        _ => {}
    }
    std::process::exit(3);
}

/// Accepts one connection and reads one request head with a body of two bytes.
fn accept() -> io::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.ends_with(b"}") {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        request.extend_from_slice(&buffer[..n]);
    }
    Ok(stream)
}
