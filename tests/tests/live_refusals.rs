//! Bad input: one message that names the field, the value and the remedy; exit status 1; no probe loaded.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::Command,
};

use observer_tests::{
    agent::{observer, program, unconfigured},
    live::privileged,
};

/// Panics unless the command fails with status 1 and one line that holds all of these words.
fn assert_refused(mut command: Command, words: &[&str]) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    let messages: Vec<&str> = said.lines().filter(|line| line.starts_with("observer: ")).collect();
    let [message] = messages[..] else { panic!("{command:?}: not one message: {said}") };
    for word in words {
        assert!(message.contains(word), "{command:?}: no {word:?} in {message}");
    }
    assert!(!said.contains("attached"), "{command:?} loaded probes first: {said}");
    assert_eq!(message.matches("os error").count().max(1), 1, "{command:?}: said twice: {message}");
    println!("{message}");
}

fn agent(args: &[&str]) -> Command {
    observer(["agent", "--listen", "127.0.0.1:0"].iter().chain(args))
}

#[test]
fn configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a configuration file");
        path.to_str().expect("UTF-8").to_owned()
    };
    let absent = folder.path().join("absent.toml");
    let absent = absent.to_str().expect("UTF-8");
    assert_refused(agent(&["--config", absent]), &[absent, "No such file", "check the path", "--config"]);
    let one = folder.path().to_str().expect("UTF-8");
    assert_refused(agent(&["--config", one]), &[one, "directory", "check the path"]);
    let broken = file("broken.toml", "capture = {\n");
    let output = agent(&["--config", &broken]).output().expect("agent");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&broken) && said.contains("not valid TOML") && said.contains("line 1"), "{said}");
    let unknown = file("unknown.toml", "[capture]\nring_byte = 65536\n");
    assert_refused(
        agent(&["--config", &unknown]),
        &[&unknown, "capture.ring_byte", "65536", "remove it", "capture.ring_bytes"],
    );
    let bad = file("bad.toml", "[capture]\nring_bytes = 100000\n");
    assert_refused(
        agent(&["--config", &bad]),
        &[&bad, "capture.ring_bytes", "100000", "not a power of two", "16MiB"],
    );
    assert_refused(
        agent(&["--set", "capture.ring_bytes=much"]),
        &["--set capture.ring_bytes", "much", "not a size", "16MiB"],
    );
    assert_refused(
        agent(&["--set", "capture.rings=1"]),
        &["--set capture.rings", "there is no field", "remove it"],
    );
    assert_refused(agent(&["--log", "loud"]), &["--log", "loud", "info"]);
    let mut environment = agent(&[]);
    environment.env("OBSERVER_CAPTURE_RING_BYTES", "7");
    assert_refused(environment, &["OBSERVER_CAPTURE_RING_BYTES", "7", "power of two"]);
}

#[test]
fn what_the_command_line_does_not_know() {
    for args in [&["agent", "--nonsense"][..], &["agent", "--set", "x"], &["record"], &["nothing"], &[]] {
        let output = observer(args).output().expect("observer");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains("Usage") || said.contains("FIELD=VALUE"), "{args:?}: {said}");
    }
}

#[test]
fn addresses() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("address").to_string();
    assert_refused(
        observer(["agent", "--listen", &address]),
        &[&address, "another process has the port", "`listen`"],
    );
    assert_refused(observer(["agent", "--listen", "localhost"]), &["--listen", "localhost", "0.0.0.0:9842"]);
    assert_refused(
        observer(["agent", "--listen", "192.0.2.1:1"]),
        &["192.0.2.1:1", "no interface", "`listen`"],
    );
    // Closed again, and nobody else is given it so soon.
    drop(taken);
    assert_refused(
        observer(["requests", "--address", &address]),
        &[&address, "no agent answers", "observer agent", "--address"],
    );
}

#[test]
fn recordings() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (text, empty, absent) = (path("text"), path("empty"), path("absent"));
    fs::write(&text, "hello, this is no recording at all").expect("a file");
    fs::write(&empty, "").expect("a file");
    for file in [&text, &empty] {
        for json in [&[][..], &["--json"]] {
            let args = [&["replay", file][..], json].concat();
            assert_refused(observer(args), &[file, "not a recording", "observer record"]);
        }
    }
    assert_refused(
        observer(["replay", &absent]),
        &["cannot replay", &absent, "No such file", "check the path"],
    );
    assert_refused(
        observer(["record", &absent, "--with-content"]),
        &[&absent, "--with-content", "content.allow_recording = true"],
    );
    assert!(!fs::exists(&absent).expect("look"), "refused, and yet created");
    if privileged() {
        assert_refused(observer(["record", &text]), &[&text, "exists", "name another file", "remove"]);
        assert_eq!(fs::read_to_string(&text).expect("a file"), "hello, this is no recording at all");
    }
}

#[test]
fn without_capabilities() {
    if !privileged() {
        return;
    }
    // Where nobody can read the program, nobody can be refused by it.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("mode");
    let copy = folder.path().join("observer");
    fs::copy(program(), &copy).expect("a copy");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("mode");
    let nobody = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&copy);
        unconfigured(command, args)
    };
    let remedy = ["missing capability CAP_BPF", "run as root", "AmbientCapabilities=", "privileged: true"];
    assert_refused(nobody(&["agent", "--listen", "127.0.0.1:0"]), &remedy);
    assert_refused(nobody(&["record", "/tmp/observer-test-never-written"]), &remedy);
    assert!(!fs::exists("/tmp/observer-test-never-written").expect("look"), "refused, and yet created");
    // Only one of the two.
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-all,+bpf", "--inh-caps=-all,+bpf"]).arg(&copy);
    assert_refused(
        unconfigured(command, ["agent", "--listen", "127.0.0.1:0"]),
        &["missing capability CAP_PERFMON", "run as root", "AmbientCapabilities="],
    );
    // What needs no privilege works without.
    let output = nobody(&["--version"]).output().expect("observer");
    assert!(output.status.success());
}
