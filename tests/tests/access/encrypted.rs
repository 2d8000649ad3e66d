//! Who sees what over TLS, as a client that nobody here wrote (Python's) comes to it.

use std::path::Path;
use std::process::Command;

use observer_tests::agent::{observer, wait_for};
use observer_tests::receiver::{Authority, Pair};
use serde_json::Value;

use super::{ELSEWHERE, World};

/// Asks with urllib; prints the status, or what kept it from coming about, and then the answer.
const CLIENT: &str = r#"
import ssl, sys, urllib.error, urllib.request
url, ca, host, token, *pair = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
if pair:
    context.load_cert_chain(*pair)
request = urllib.request.Request(url, headers={"Host": host})
if token:
    request.add_header("Authorization", "Bearer " + token)
try:
    answer = urllib.request.urlopen(request, context=context, timeout=10)
    print(answer.status)
    print(answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
except Exception as error:
    print("none", error)
"#;

struct Client<'a> {
    world: &'a World,
    ca: &'a Path,
}

impl Client<'_> {
    fn ask(&self, path: &str, token: &str, pair: Option<&Pair>) -> (String, String) {
        let port = self.world.encrypted.port();
        let mut command = Command::new("python3");
        command.args(["-c", CLIENT, &format!("https://localhost:{port}{path}")]).arg(self.ca);
        command.args([ELSEWHERE, token]);
        command.args(pair.into_iter().flat_map(|pair| [&pair.certificate, &pair.key]));
        let output = command.output().expect("Python");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, answer) = text.split_once(['\n', ' ']).unwrap_or_else(|| panic!("{output:?}"));
        (status.to_owned(), answer.to_owned())
    }
}

#[test]
fn who_sees_what_over_tls() {
    let world = World::start(true);
    let (known, stranger) = (&world.authority, Authority::new());
    let client = Client { world: &world, ca: &world.folder.path().join("ca.crt") };
    let mine = known.write_pair(world.folder.path(), "mine", &["somebody"]);
    let other = stranger.write_pair(world.folder.path(), "other", &["somebody"]);
    let path = "/api/v1/requests?since=1h";
    for (token, pair, expected, namespaces) in [
        ("", None, "403", ""),
        ("wrong", None, "403", ""),
        ("shared", None, "200", "ml,none,prod"),
        ("token-of-ml-reader", None, "200", "ml"),
        // A certificate is enough, and one that somebody else vouches for ends the handshake.
        ("", Some(&mine), "200", "ml,none,prod"),
        ("wrong", Some(&mine), "200", "ml,none,prod"),
        ("shared", Some(&other), "none", ""),
    ] {
        let (status, answer) = client.ask(path, token, pair);
        assert_eq!(status, expected, "{token:?} {pair:?}: {answer}");
        let lines = answer.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut told: Vec<_> = lines
            .filter(|line| line["id"].is_string())
            .map(|line| {
                line["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("none").to_owned()
            })
            .collect();
        told.sort_unstable();
        assert_eq!(told.join(","), namespaces, "{token:?} {pair:?}");
        let (status, _) = client.ask("/metrics", token, pair);
        let metrics = if expected == "200" && token != "token-of-ml-reader" { "200" } else { expected };
        let metrics = if token == "token-of-ml-reader" { "403" } else { metrics };
        assert_eq!(status, metrics, "/metrics {token:?} {pair:?}");
    }
    // Whoever does not trust the server does not speak to it.
    let strangers = world.folder.path().join("strangers.crt");
    stranger.write(&strangers);
    let (status, _) = Client { world: &world, ca: &strangers }.ask(path, "shared", None);
    assert_eq!(status, "none");
}

#[test]
fn the_commands_speak_tls() {
    let world = World::start(true);
    let folder = world.folder.path();
    let mine = world.authority.write_pair(folder, "mine", &["somebody"]);
    let shown = |ca: &Path, pair: Option<&Pair>| {
        let mut command = observer(["requests", "--since", "1h", "--json"]);
        command
            .arg("--address")
            .arg(format!("localhost:{}", world.encrypted.port()))
            .arg("--ca-file")
            .arg(ca);
        if let Some(pair) = pair {
            command.arg("--cert-file").arg(&pair.certificate).arg("--key-file").arg(&pair.key);
        }
        let output = command.output().expect("the command");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ca = folder.join("ca.crt");
    let (good, text, why) = shown(&ca, Some(&mine));
    assert!(good && text.contains("of-prod"), "{why}");
    let strangers = folder.join("strangers.crt");
    Authority::new().write(&strangers);
    let (good, _, why) = shown(&strangers, None);
    assert!(!good && why.contains("localhost") && why.contains("certificate"), "{why}");
    let (good, _, why) = shown(&folder.join("nowhere.crt"), None);
    assert!(!good && why.contains("--ca-file") && why.contains("nowhere.crt"), "{why}");
    let swapped = Pair { certificate: mine.certificate.clone(), key: mine.certificate };
    let (good, _, why) = shown(&ca, Some(&swapped));
    assert!(!good && why.contains("--key-file"), "{why}");
}

#[test]
fn a_new_certificate_counts_at_once() {
    let world = World::start(true);
    let client = Client { world: &world, ca: &world.folder.path().join("ca.crt") };
    assert_eq!(client.ask("/healthz", "", None).0, "200");
    // One for another name: the next client does not find who it asked for.
    world.authority.write_pair(world.folder.path(), "server", &["elsewhere.example"]);
    assert_eq!(client.ask("/healthz", "", None).0, "none");
    world.authority.write_pair(world.folder.path(), "server", &["localhost"]);
    wait_for("the name again", || (client.ask("/healthz", "", None).0 == "200").then_some(()));
}

#[test]
fn a_peer_that_does_not_shake_hands_holds_up_nobody() {
    let world = World::start(true);
    let silent: Vec<_> =
        (0..20).map(|_| std::net::TcpStream::connect(world.encrypted).expect("a connection")).collect();
    let client = Client { world: &world, ca: &world.folder.path().join("ca.crt") };
    assert_eq!(client.ask("/healthz", "", None).0, "200");
    drop(silent);
}
