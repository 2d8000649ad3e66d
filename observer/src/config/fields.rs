//! Second stage: the one list of fields, each with its meaning, its bounds and the remedy for a bad value.
//!
//! In: one typed value. Out: a [`Config`] in which it took effect, or the reason why it did not.

use std::path::PathBuf;
use std::time::Duration;

use toml::Value;

use super::error::ConfigError;
use super::scope::Unknown;
use super::selector::{self, Selector};
use super::typed::{Source, Typed, variable};
use super::{
    Config, KubernetesMode, LabelStyle, LogStore, MetricsProfile, PodsTold, buckets, cli, objectives, otlp,
};

struct Field {
    name: &'static str,
    remedy: &'static str,
    set: fn(&mut Config, &Value) -> Result<(), String>,
}

const fn field(
    name: &'static str,
    remedy: &'static str,
    set: fn(&mut Config, &Value) -> Result<(), String>,
) -> Field {
    Field { name, remedy, set }
}

const LISTEN: &str = "write an address and a port, such as 0.0.0.0:9842 or [::1]:9842";
const NODE: &str = "write a name of 1 to 253 characters without spaces";
const LOG: &str = "write off, error, warn, info, debug or trace";
const BUCKETS: &str = "write 1 to 64 increasing seconds above 0, such as [0.1, 0.5, 1, 5]";
const PER_PROCESS: &str = "write a whole number from 100 to 1000000";
const SERIES: &str = "write a whole number from 100 to 1000000";
const LABELS: &str = "write default or otel";
const PROFILE: &str = "write default or full";
const RING: &str = "write a power of two from 64KiB to 1GiB, such as 16MiB or 16777216";
const SWITCH: &str = "write true or false";
const NAMES: &str = "write at most 256 process names of 1 to 255 bytes, such as [\"llama-server\", \"vllm\"]";
const CONNECTIONS: &str = "write a whole number from 16 to 1048576";
const STALL: &str = "write a time from 100ms to 10m, such as 2s";
const INTERVAL: &str = "write a time from 1s to 10m, such as 15s";
const MEMORY: &str = "write a size from 1MiB to 4GiB, such as 32MiB";
const GPUS: &str = "write auto or off";
const ROUNDS: &str = "write a time from 100ms to 2s, such as 1s";
const BYTES: &str = "write a size from 1MiB to 64GiB, such as 256MiB";

const PROTOCOL: &str = "write grpc or http/protobuf";
const KEEPER: &str =
    "write the URL of the cluster role without a path, such as http://observer-cluster.llm:9842";
const FILE: &str = "write the path of a file or folder";
const STORED: &str = "write a size from 64MiB to 16TiB, such as 2GiB";
const AGE: &str = "write a time from 1h to 8760h, such as 168h";
const UNITS: &str = "write at most 64 names of units, such as vllm.service";
const FILES: &str = "write at most 64 paths of files";
const MODE: &str = "write auto, on or off";
const TOLD: &str = "write serving or all";
const NAMESPACES: &str = "write at most 256 names or patterns of namespaces, such as [\"ml-*\", \"prod\"]";
const SELECTOR: &str =
    "write a label selector as kubectl takes it, such as app=vllm,tier in (gpu,cpu),!canary";
const ANNOTATION: &str = "write the name of an annotation, such as llm-observer/observe";
const UNKNOWN: &str = "write auto, observe or ignore";
const OBJECT: &str = "write a name of 1 to 253 lower-case letters, digits, dashes and dots, as objects have";

const FIELDS: &[Field] = &[
    field("listen", LISTEN, |c, v| put(&mut c.listen, parsed(v))),
    field("api.recent", MEMORY, |c, v| put(&mut c.api.recent, memory(v, 4 << 30))),
    field("api.token_file", FILE, |c, v| put(&mut c.api.token_file, path(v).map(Some))),
    field("api.kubernetes", SWITCH, |c, v| put(&mut c.api.kubernetes, switch(v))),
    field("tls.listen", LISTEN, |c, v| put(&mut c.tls.listen, parsed(v).map(Some))),
    field("tls.cert_file", FILE, |c, v| put(&mut c.tls.cert_file, path(v).map(Some))),
    field("tls.key_file", FILE, |c, v| put(&mut c.tls.key_file, path(v).map(Some))),
    field("tls.ca_file", FILE, |c, v| put(&mut c.tls.ca_file, path(v).map(Some))),
    field("node", NODE, |c, v| put(&mut c.node, text(v).and_then(node_name))),
    field("log", LOG, |c, v| put(&mut c.log, level(v))),
    field("metrics.buckets.duration", BUCKETS, |c, v| put(&mut c.metrics.buckets.duration, bounds(v))),
    field("metrics.buckets.ttft", BUCKETS, |c, v| put(&mut c.metrics.buckets.ttft, bounds(v))),
    field("metrics.buckets.tpot", BUCKETS, |c, v| put(&mut c.metrics.buckets.tpot, bounds(v))),
    field("metrics.buckets.chunk", BUCKETS, |c, v| put(&mut c.metrics.buckets.chunk, bounds(v))),
    field("metrics.buckets.wait", BUCKETS, |c, v| put(&mut c.metrics.buckets.wait, bounds(v))),
    field("metrics.max_series_per_process", PER_PROCESS, |c, v| {
        put(&mut c.metrics.max_series_per_process, count(v, 100, 1_000_000))
    }),
    field("metrics.max_series", SERIES, |c, v| put(&mut c.metrics.max_series, count(v, 100, 1_000_000))),
    field("metrics.profile", PROFILE, |c, v| put(&mut c.metrics.profile, profile(v))),
    field("metrics.guarded", SWITCH, |c, v| put(&mut c.metrics.guarded, switch(v))),
    field("metrics.labels", LABELS, |c, v| put(&mut c.metrics.labels, labels(v))),
    field("capture.ring_bytes", RING, |c, v| put(&mut c.capture.ring_bytes, ring(v))),
    field("capture.arrival", SWITCH, |c, v| put(&mut c.capture.arrival, switch(v))),
    field("capture.processes.allow", NAMES, |c, v| put(&mut c.capture.processes.allow, process_names(v))),
    field("capture.processes.deny", NAMES, |c, v| put(&mut c.capture.processes.deny, process_names(v))),
    field("content.allow_recording", SWITCH, |c, v| put(&mut c.content.allow_recording, switch(v))),
    field("limits.connections", CONNECTIONS, |c, v| put(&mut c.limits.connections, count(v, 16, 1 << 20))),
    field("slo", objectives::REMEDY, |c, v| put(&mut c.slo, objectives::objectives(v))),
    field("stall.minimum", STALL, |c, v| put(&mut c.stall.minimum, time(v, Duration::from_millis(100)))),
    field("engines.metrics", SWITCH, |c, v| put(&mut c.engines.metrics, switch(v))),
    field("engines.interval", INTERVAL, |c, v| put(&mut c.engines.interval, time(v, Duration::from_secs(1)))),
    field("gpu.enabled", GPUS, |c, v| put(&mut c.gpu.enabled, word(v, &[("auto", true), ("off", false)]))),
    field("gpu.library", FILE, |c, v| put(&mut c.gpu.library, path(v).map(Some))),
    field("gpu.interval", ROUNDS, |c, v| put(&mut c.gpu.interval, round(v))),
    field("gpu.pod_resources", FILE, |c, v| put(&mut c.gpu.pod_resources, path(v))),
    field("kubernetes.mode", MODE, |c, v| put(&mut c.kubernetes.mode, mode(v))),
    field("kubernetes.kubeconfig", FILE, |c, v| put(&mut c.kubernetes.kubeconfig, path(v).map(Some))),
    field("kubernetes.pods", TOLD, |c, v| put(&mut c.kubernetes.pods, told(v))),
    field("kubernetes.pod_logs", FILE, |c, v| put(&mut c.kubernetes.pod_logs, path(v))),
    field("kubernetes.namespaces.include", NAMESPACES, |c, v| {
        put(&mut c.kubernetes.scope.include, namespaces(v))
    }),
    field("kubernetes.namespaces.exclude", NAMESPACES, |c, v| {
        put(&mut c.kubernetes.scope.exclude, namespaces(v))
    }),
    field("kubernetes.selector", SELECTOR, |c, v| put(&mut c.kubernetes.scope.selector, labels_to_meet(v))),
    field("kubernetes.opt_out", ANNOTATION, |c, v| put(&mut c.kubernetes.scope.opt_out, annotation(v))),
    field("kubernetes.unknown", UNKNOWN, |c, v| put(&mut c.kubernetes.scope.unknown, unknown(v))),
    field("cluster.lease", OBJECT, |c, v| put(&mut c.cluster.lease, object_name(v))),
    field("cluster.namespace", OBJECT, |c, v| put(&mut c.cluster.namespace, object_name(v).map(Some))),
    field("cluster.agents", OBJECT, |c, v| put(&mut c.cluster.agents, object_name(v))),
    field("cluster.logs", SWITCH, |c, v| put(&mut c.cluster.logs, switch(v))),
    field("otlp.endpoint", otlp::ENDPOINT, |c, v| put(&mut c.otlp.endpoint, otlp::endpoint(v))),
    field("otlp.protocol", PROTOCOL, |c, v| put(&mut c.otlp.protocol, otlp::protocol(v))),
    field("otlp.headers", otlp::HEADERS, |c, v| put(&mut c.otlp.headers, otlp::headers(v))),
    field("otlp.headers_file", FILE, |c, v| put(&mut c.otlp.headers_file, path(v).map(Some))),
    field("otlp.token_file", FILE, |c, v| put(&mut c.otlp.token_file, path(v).map(Some))),
    field("otlp.ca_file", FILE, |c, v| put(&mut c.otlp.ca_file, path(v).map(Some))),
    field("otlp.cert_file", FILE, |c, v| put(&mut c.otlp.cert_file, path(v).map(Some))),
    field("otlp.key_file", FILE, |c, v| put(&mut c.otlp.key_file, path(v).map(Some))),
    field("otlp.gzip", SWITCH, |c, v| put(&mut c.otlp.gzip, switch(v))),
    field("otlp.traces", SWITCH, |c, v| put(&mut c.otlp.traces, switch(v))),
    field("otlp.logs", SWITCH, |c, v| put(&mut c.otlp.logs, switch(v))),
    field("otlp.lines", SWITCH, |c, v| put(&mut c.otlp.lines, switch(v))),
    field("otlp.queue", MEMORY, |c, v| put(&mut c.otlp.queue, memory(v, 4 << 30))),
    field("store.enabled", SWITCH, |c, v| put(&mut c.store.enabled, switch(v))),
    field("store.path", FILE, |c, v| put(&mut c.store.path, path(v))),
    field("store.bytes", STORED, |c, v| put(&mut c.store.bytes, stored(v))),
    field("store.age", AGE, |c, v| put(&mut c.store.age, age(v))),
    field("logs.store", MODE, |c, v| put(&mut c.logs.store, log_store(v))),
    field("logs.redact", SWITCH, |c, v| put(&mut c.logs.redact, switch(v))),
    field("logs.all", SWITCH, |c, v| put(&mut c.logs.all, switch(v))),
    field("logs.files", FILES, |c, v| put(&mut c.logs.files, files(v))),
    field("logs.units", UNITS, |c, v| put(&mut c.logs.units, units(v))),
    field("logs.journal", FILE, |c, v| put(&mut c.logs.journal, path(v).map(Some))),
    field("logs.cluster", KEEPER, |c, v| put(&mut c.logs.cluster, otlp::endpoint(v))),
    field("limits.bytes", BYTES, |c, v| put(&mut c.limits.bytes, memory(v, 64 << 30))),
];

/// The names of all fields.
pub(super) fn names() -> Vec<&'static str> {
    FIELDS.iter().map(|field| field.name).collect()
}

/// Lets one typed value take effect.
pub(super) fn apply(config: &mut Config, typed: Typed) -> Result<(), ConfigError> {
    let shown = shown(&typed.value);
    let Some(field) = FIELDS.iter().find(|field| field.name == typed.field) else {
        return Err(ConfigError::UnknownField {
            remedy: remedy_for_unknown(&typed),
            source_name: typed.source,
            field: typed.field,
            value: shown,
        });
    };
    (field.set)(config, &typed.value).map_err(|reason| ConfigError::BadValue {
        source_name: typed.source,
        field: field.name,
        value: shown,
        reason,
        remedy: field.remedy,
    })
}

/// A value as it is shown in a message: on one line, and not longer than helps.
fn shown(value: &Value) -> String {
    let text = value.to_string().replace(char::is_control, " ");
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The fields that a mistyped name may have meant: same last word, or same beginning; else all of them.
fn remedy_for_unknown(typed: &Typed) -> String {
    let spelt = |name: &str| match typed.source {
        Source::Environment(_) => variable(name),
        _ => name.to_owned(),
    };
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let near: Vec<String> = names()
        .into_iter()
        .filter(|name| {
            last(name) == last(&typed.field)
                || common_prefix(&spelt(name), &typed.field) * 3 >= typed.field.len() * 2
        })
        .map(spelt)
        .collect();
    if near.is_empty() {
        let all: Vec<String> = names().into_iter().map(spelt).collect();
        format!("remove it, or use one of {}", all.join(", "))
    } else {
        format!("remove it, or did you mean {}?", near.join(", "))
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

pub(super) fn text(value: &Value) -> Result<&str, String> {
    value.as_str().map(str::trim).ok_or_else(|| format!("is {}, not text", value.type_str()))
}

fn parsed<T>(value: &Value) -> Result<T, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text(value)?.parse().map_err(|err: T::Err| err.to_string())
}

/// A name that can be a label value and a Kubernetes node name.
pub(super) fn node_name(name: &str) -> Result<String, String> {
    let unfit = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > 253 || name.contains(unfit) {
        return Err("is not a usable name".to_owned());
    }
    Ok(name.to_owned())
}

fn level(value: &Value) -> Result<tracing::level_filters::LevelFilter, String> {
    parsed(value).map_err(|_unhelpful| "is not a log level".to_owned())
}

fn labels(value: &Value) -> Result<LabelStyle, String> {
    match text(value)? {
        "default" => Ok(LabelStyle::Default),
        "otel" => Ok(LabelStyle::Otel),
        _ => Err("is not a label style".to_owned()),
    }
}

/// One of a few words.
fn word<T: Copy>(value: &Value, words: &[(&str, T)]) -> Result<T, String> {
    let text = text(value)?;
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meant)| *meant).ok_or_else(|| "is none of these".to_owned())
}

fn mode(value: &Value) -> Result<KubernetesMode, String> {
    word(value, &[("auto", KubernetesMode::Auto), ("on", KubernetesMode::On), ("off", KubernetesMode::Off)])
}

fn told(value: &Value) -> Result<PodsTold, String> {
    word(value, &[("serving", PodsTold::Serving), ("all", PodsTold::All)])
}

fn unknown(value: &Value) -> Result<Unknown, String> {
    word(value, &[("auto", Unknown::Auto), ("observe", Unknown::Observe), ("ignore", Unknown::Ignore)])
}

fn path(value: &Value) -> Result<PathBuf, String> {
    match text(value)? {
        "" => Err("is empty".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

/// A name as Kubernetes wants it of objects (RFC 1123 subdomain).
fn object_name(value: &Value) -> Result<String, String> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_part = |part: &str| {
        part.starts_with(|c| u8::try_from(c).is_ok_and(alphanumeric))
            && part.ends_with(|c| u8::try_from(c).is_ok_and(alphanumeric))
            && part.bytes().all(|b| alphanumeric(b) || b == b'-')
    };
    match text(value)? {
        name if name.len() <= 253 && name.split('.').all(is_part) => Ok(name.to_owned()),
        _ => Err("is no name of an object".to_owned()),
    }
}

fn labels_to_meet(value: &Value) -> Result<Selector, String> {
    Selector::parse(text(value)?).ok_or_else(|| "is no label selector".to_owned())
}

fn annotation(value: &Value) -> Result<String, String> {
    selector::name(text(value)?).ok_or_else(|| "is no name of an annotation".to_owned())
}

fn profile(value: &Value) -> Result<MetricsProfile, String> {
    match text(value)? {
        "default" => Ok(MetricsProfile::Default),
        "full" => Ok(MetricsProfile::Full),
        _ => Err("is not a profile".to_owned()),
    }
}

fn switch(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(on) => Ok(*on),
        Value::String(text) if text.trim() == "true" => Ok(true),
        Value::String(text) if text.trim() == "false" => Ok(false),
        _ => Err("is neither true nor false".to_owned()),
    }
}

fn whole(value: &Value) -> Result<u64, String> {
    match value {
        Value::Integer(number) => u64::try_from(*number).map_err(|_negative| "is below 0".to_owned()),
        Value::String(text) => {
            text.trim().parse().map_err(|_not_a_number| "is not a whole number".to_owned())
        }
        other => Err(format!("is {}, not a whole number", other.type_str())),
    }
}

fn count(value: &Value, least: u64, most: u64) -> Result<usize, String> {
    let number = whole(value)?;
    if (least..=most).contains(&number) { Ok(number as usize) } else { Err("is out of range".to_owned()) }
}

/// A size: a whole number of bytes, or text with KiB, MiB or GiB behind it.
fn size(value: &Value) -> Result<u64, String> {
    let Some(text) = value.as_str().map(str::trim) else { return whole(value) };
    let (number, unit) = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    let number: u64 = number.trim().parse().map_err(|_not_a_number| "is not a size".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "is out of range".to_owned())
}

fn ring(value: &Value) -> Result<u32, String> {
    let bytes = size(value)?;
    if !bytes.is_power_of_two() {
        return Err("is not a power of two".to_owned());
    }
    // 64 KiB is the largest page size of the platforms, so every power of two from there is whole pages.
    if !(64 << 10..=1 << 30).contains(&bytes) {
        return Err("is out of range".to_owned());
    }
    Ok(bytes as u32)
}

fn memory(value: &Value, most: u64) -> Result<usize, String> {
    let bytes = size(value)?;
    if (1 << 20..=most).contains(&bytes) { Ok(bytes as usize) } else { Err("is out of range".to_owned()) }
}

/// Bytes on disk.
fn stored(value: &Value) -> Result<u64, String> {
    let bytes = size(value)?;
    if (64 << 20..=16 << 40).contains(&bytes) { Ok(bytes) } else { Err("is out of range".to_owned()) }
}

/// A time from an hour to a year.
fn age(value: &Value) -> Result<Duration, String> {
    let time = cli::parse_duration(text(value)?).map_err(|_remedy| "is not a time".to_owned())?;
    let within = Duration::from_hours(1)..=Duration::from_hours(8760);
    if within.contains(&time) { Ok(time) } else { Err("is out of range".to_owned()) }
}

fn log_store(value: &Value) -> Result<LogStore, String> {
    match text(value)? {
        "auto" => Ok(LogStore::Auto),
        "on" => Ok(LogStore::On),
        "off" => Ok(LogStore::Off),
        _ => Err("is none of them".to_owned()),
    }
}

fn files(value: &Value) -> Result<Vec<PathBuf>, String> {
    let items = items(value)?;
    if items.len() > 64 {
        return Err(format!("has {} paths", items.len()));
    }
    items.iter().map(path).collect()
}

/// Names as `systemctl` knows them (systemd.unit(5)).
fn units(value: &Value) -> Result<Vec<String>, String> {
    let names =
        items(value)?.iter().map(|name| text(name).map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
    let is_name = |name: &String| {
        let known = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        !name.is_empty() && name.len() < 256 && !name.starts_with('-') && name.chars().all(known)
    };
    match names.iter().find(|name| !is_name(name)) {
        Some(name) => Err(format!("has {name:?}")),
        None if names.len() > 64 => Err(format!("has {} names", names.len())),
        None => Ok(names),
    }
}

/// A time from this one to ten minutes.
fn time(value: &Value, least: Duration) -> Result<Duration, String> {
    let time = cli::parse_duration(text(value)?).map_err(|_remedy| "is not a time".to_owned())?;
    let within = least..=Duration::from_mins(10);
    if within.contains(&time) { Ok(time) } else { Err("is out of range".to_owned()) }
}

/// A time between rounds of readings: the buffers of a GPU's samples reach back little more than two seconds.
fn round(value: &Value) -> Result<Duration, String> {
    let time = time(value, Duration::from_millis(100))?;
    if time <= Duration::from_secs(2) { Ok(time) } else { Err("is out of range".to_owned()) }
}

/// Items of a list: of an array in the file, of comma-separated text elsewhere.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items.clone()),
        Value::String(text) if text.trim().is_empty() => Ok(Vec::new()),
        Value::String(text) => {
            let text = text.trim();
            let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            Ok(inner
                .split(',')
                .map(|item| Value::String(item.trim().trim_matches(['"', '\'']).to_owned()))
                .collect())
        }
        other => Err(format!("is {}, not a list", other.type_str())),
    }
}

fn bounds(value: &Value) -> Result<Vec<f64>, String> {
    let bounds = items(value)?
        .iter()
        .map(|item| match item {
            Value::Float(number) => Ok(*number),
            Value::Integer(number) => Ok(*number as f64),
            Value::String(text) => text.parse().map_err(|_not_a_number| format!("{text:?} is not a number")),
            other => Err(format!("holds {}, not a number", other.type_str())),
        })
        .collect::<Result<Vec<f64>, String>>()?;
    buckets::check(&bounds)?;
    Ok(bounds)
}

fn process_names(value: &Value) -> Result<Vec<String>, String> {
    names_of(value, "process name")
}

fn namespaces(value: &Value) -> Result<Vec<String>, String> {
    names_of(value, "namespace")
}

fn names_of(value: &Value, what: &str) -> Result<Vec<String>, String> {
    let items = items(value)?;
    if items.len() > 256 {
        return Err(format!("has {} names", items.len()));
    }
    items
        .iter()
        .map(|item| match text(item)? {
            name if name.is_empty() || name.len() > 255 => Err(format!("{name:?} is not a {what}")),
            name => Ok(name.to_owned()),
        })
        .collect()
}
