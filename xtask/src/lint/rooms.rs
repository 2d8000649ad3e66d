//! Invariants 1 and 2: the core imports nothing that does IO or reads a clock, and rooms import only rooms
//! before them on the road. In: the files of `observer/src`; out: what breaks a rule, one line each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::paths::{Named, named};
use crate::command::root;

/// The road: a room imports only those before it. Rooms that are not on it may be imported by all but the
/// core, as long as no circle arises.
const ROAD: &[&str] = &[
    "connection",
    "http",
    "body",
    "llm",
    "exchange",
    "pipeline",
    "pods",
    "gpus",
    "discover",
    "kube",
    "gpu",
    "enrich",
    "engines",
    "estimate",
    "slo",
    "timeline",
    "lines",
    "recent",
    "explain",
    "store",
    "logs",
    "export",
    "serve",
    "fleet",
    "doctor",
    "cli",
];

/// Rooms without IO and without a clock.
const CORE: &[&str] = &[
    "connection",
    "http",
    "body",
    "llm",
    "exchange",
    "pipeline",
    "pods",
    "gpus",
    "enrich",
    "estimate",
    "slo",
    "timeline",
    "lines",
    "recent",
    "explain",
];

/// A file of another room that keeps the core's rule.
const CORE_FILE: &str = "observer/src/recording/mask.rs";

/// Files that wire rooms together.
const WIRING: [&str; 4] = ["agent", "cluster", "lib", "main"];

/// Crates that do IO or read clocks.
const OUTSIDE: &[&str] = &[
    "tokio",
    "aya",
    "aya_log",
    "aya_obj",
    "kube",
    "k8s_openapi",
    "nvml_wrapper",
    "axum",
    "hyper",
    "libc",
    "mio",
    "procfs",
    "rustix",
    "tonic",
    "tantivy",
    "ureq",
];

/// What breaks a rule.
pub(super) fn check(files: &[PathBuf]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let Some(module) = module_of(file) else { continue };
        let text = fs::read_to_string(root().join(file)).with_context(|| file.display().to_string())?;
        let paths = named(&text).with_context(|| file.display().to_string())?;
        broken.extend(broken_by(file, &module, &paths));
        if !WIRING.contains(&module[0].as_str()) {
            let others =
                paths.iter().filter_map(|path| room_of(path, &module)).filter(|room| *room != module[0]);
            imports.entry(module[0].clone()).or_default().extend(others);
        }
    }
    broken.extend(circle(&imports));
    Ok(broken)
}

/// The module path of a file of `observer/src`; none for test code and for files elsewhere.
fn module_of(file: &Path) -> Option<Vec<String>> {
    let inside = file.strip_prefix("observer/src").ok()?.with_extension("");
    let mut module: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    let test = module.iter().any(|part| part == "tests" || part.ends_with("_tests"));
    (!module.is_empty() && !test).then_some(module)
}

/// The room that a path leads to, if it leads into this crate.
fn room_of(path: &Named, module: &[String]) -> Option<String> {
    let first = path.segments.first()?;
    match first.as_str() {
        "crate" | "observer" => path.segments.get(1).cloned(),
        "super" => {
            let up = path.segments.iter().take_while(|segment| *segment == "super").count();
            // Still inside the room, or out of it into the one that is named next.
            if up < module.len() { Some(module[0].clone()) } else { path.segments.get(up).cloned() }
        }
        _ => None,
    }
}

fn broken_by(file: &Path, module: &[String], paths: &[Named]) -> Vec<String> {
    let room = module[0].as_str();
    let core = CORE.contains(&room) || file == Path::new(CORE_FILE);
    let mut broken = Vec::new();
    for path in paths {
        let at = || format!("{}:{}: {}", file.display(), path.line, path.segments.join("::"));
        if core && let Some(why) = outside(&path.segments) {
            broken.push(format!("{}: {why}; the core has neither IO nor a clock", at()));
        }
        let Some(other) = room_of(path, module).filter(|other| other != room) else { continue };
        let place = |name: &str| ROAD.iter().position(|on_road| *on_road == name);
        match (place(room), place(&other)) {
            (Some(here), Some(there)) if there > here => {
                broken.push(format!("{}: `{room}` comes before `{other}` on the road", at()));
            }
            (Some(_), None) if CORE.contains(&room) && is_module(&other) => {
                broken.push(format!("{}: the core imports only rooms of the core", at()));
            }
            _ => {}
        }
    }
    broken
}

/// Whether a name after `crate::` is a module: what `lib.rs` itself defines is in upper case.
fn is_module(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// Why a path is not for the core.
fn outside(segments: &[String]) -> Option<&'static str> {
    let segment = |index: usize| segments.get(index).map(String::as_str);
    let first = segment(0)?;
    if OUTSIDE.contains(&first) {
        return Some("a crate of the rims");
    }
    if !["std", "core", "alloc"].contains(&first) {
        return None;
    }
    match (segment(1)?, segment(2)) {
        ("fs" | "process" | "env" | "thread" | "os", _) => Some("IO"),
        // A whole module could bring in anything under a short name.
        ("net" | "time", None | Some("*")) => Some("import its items by name"),
        ("net", Some(item)) if !is_address(item) => Some("IO"),
        ("time", Some("Instant" | "SystemTime" | "UNIX_EPOCH")) => Some("a clock"),
        ("io", Some("stdin" | "stdout" | "stderr")) => Some("IO"),
        ("*", _) => Some("import its items by name"),
        _ => None,
    }
}

fn is_address(item: &str) -> bool {
    item.starts_with("Ip") || item.starts_with("SocketAddr") || item == "AddrParseError"
}

/// A circle of imports, if there is one: rooms that import nothing any more are taken away until none is left.
fn circle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut left: BTreeMap<&str, Vec<&str>> = imports
        .iter()
        .map(|(room, others)| {
            (room.as_str(), others.iter().map(String::as_str).filter(|o| imports.contains_key(*o)).collect())
        })
        .collect();
    loop {
        let free: Vec<_> =
            left.iter().filter(|(_, others)| others.is_empty()).map(|(room, _)| *room).collect();
        if free.is_empty() {
            break;
        }
        left.retain(|room, _| !free.contains(room));
        for others in left.values_mut() {
            others.retain(|other| !free.contains(other));
        }
    }
    let rooms: Vec<_> = left.iter().map(|(room, others)| format!("{room} → {}", others.join(", "))).collect();
    (!rooms.is_empty()).then(|| format!("rooms import each other in a circle: {}", rooms.join("; ")))
}

#[cfg(test)]
mod tests;
