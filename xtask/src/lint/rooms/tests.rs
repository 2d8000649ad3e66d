use super::*;

fn broken(file: &str, text: &str) -> Vec<String> {
    let file = Path::new(file);
    broken_by(file, &module_of(file).unwrap(), &named(text).unwrap())
}

#[test]
fn the_core_has_neither_io_nor_a_clock() {
    for import in [
        "use tokio::sync::mpsc;",
        "use std::fs;",
        "use std::{io::Read, net::{IpAddr, TcpStream}};",
        "use std::net;",
        "use std::time::Instant;",
        "fn f() { std::thread::sleep(d); }",
        "fn f() { vec![std::env::var(x)]; }",
        "use procfs::process::Process;",
    ] {
        assert_eq!(broken("observer/src/http/head.rs", import).len(), 1, "{import}");
        assert_eq!(broken("observer/src/pipeline.rs", import).len(), 1, "{import}");
        assert_eq!(broken("observer/src/recording/mask.rs", import).len(), 1, "{import}");
        assert_eq!(broken("observer/src/kernel/load.rs", import), [""; 0], "{import}");
        assert_eq!(broken("observer/src/recording/write.rs", import), [""; 0], "{import}");
    }
    for import in
        ["use std::net::{IpAddr, SocketAddr, Ipv4Addr};", "use std::time::Duration;", "use std::io::Write;"]
    {
        assert_eq!(broken("observer/src/http/head.rs", import), [""; 0], "{import}");
    }
}

#[test]
fn rooms_import_only_rooms_before_them() {
    assert_eq!(broken("observer/src/http/head.rs", "use crate::connection::Piece;"), [""; 0]);
    assert_eq!(broken("observer/src/http/head.rs", "use observer_ebpf::Record;"), [""; 0]);
    assert_eq!(broken("observer/src/http/head.rs", "use crate::body::sse::Event;").len(), 1);
    assert_eq!(broken("observer/src/http/head.rs", "use super::message::Head;"), [""; 0]);
    assert_eq!(broken("observer/src/http/mod.rs", "use super::body::sse::Event;").len(), 1);
    assert_eq!(broken("observer/src/export/prometheus.rs", "use crate::serve::Served;").len(), 1);
    assert_eq!(broken("observer/src/export/prometheus.rs", "use crate::config::Labels;"), [""; 0]);
    assert_eq!(broken("observer/src/llm/chat.rs", "use crate::config::Labels;").len(), 1);
    assert_eq!(broken("observer/src/agent.rs", "use crate::{serve::Served, kernel::Load};"), [""; 0]);
}

#[test]
fn test_code_is_not_the_core() {
    assert_eq!(module_of(Path::new("observer/src/http/tests.rs")), None);
    assert_eq!(module_of(Path::new("observer/src/http/tests/heads.rs")), None);
    assert_eq!(module_of(Path::new("xtask/src/main.rs")), None);
}

#[test]
fn a_circle_is_found() {
    let graph = |edges: &[(&str, &[&str])]| {
        edges
            .iter()
            .map(|(room, others)| ((*room).to_owned(), others.iter().map(|o| (*o).to_owned()).collect()))
            .collect::<BTreeMap<_, BTreeSet<_>>>()
    };
    assert_eq!(circle(&graph(&[("kernel", &["config"]), ("config", &[]), ("recording", &["kernel"])])), None);
    let found =
        circle(&graph(&[("kernel", &["recording"]), ("config", &[]), ("recording", &["kernel", "config"])]));
    assert_eq!(found.unwrap(), "rooms import each other in a circle: kernel → recording; recording → kernel");
}
