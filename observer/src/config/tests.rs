use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::slo::Measure;

fn cli(arguments: &[&str]) -> Cli {
    Cli::try_parse_from(["observer", "agent"].iter().chain(arguments)).unwrap()
}

fn resolve(file: &str, environment: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let path = PathBuf::from("/etc/observer.toml");
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::resolve(Some((&path, file)), environment, &cli(flags), "node-1")
}

#[test]
fn nothing_typed_gives_the_defaults() {
    let config = Config::resolve(None, [], &cli(&[]), "node-1").unwrap();
    assert_eq!(config, Config::on_node("node-1"));
    assert_eq!(config.listen.to_string(), "0.0.0.0:9842");
    assert_eq!(config.capture.ring_bytes, 16 * 1024 * 1024);
    assert!(config.capture.arrival);
    assert!(!config.content.allow_recording);
    assert_eq!((config.metrics.max_series_per_process, config.metrics.max_series), (1500, 20_000));
}

const OTLP: &str = r#"
    otlp.endpoint = "https://collector:4317"
    otlp.protocol = "grpc"
    otlp.headers = ["x-scope-orgid=ml"]
    otlp.headers_file = "/var/run/secrets/otlp/headers"
    otlp.token_file = "/var/run/secrets/otlp/token"
    otlp.ca_file = "/var/run/secrets/otlp/ca.crt"
    otlp.cert_file = "/var/run/secrets/otlp/tls.crt"
    otlp.key_file = "/var/run/secrets/otlp/tls.key"
    otlp.gzip = false
    otlp.traces = false
    otlp.logs = true
    otlp.lines = true
    otlp.queue = "1MiB"
"#;

fn otlp() -> OtlpConfig {
    OtlpConfig {
        endpoint: Some("https://collector:4317".parse().unwrap()),
        protocol: OtlpProtocol::Grpc,
        headers: vec![("x-scope-orgid".to_owned(), "ml".to_owned())],
        headers_file: Some("/var/run/secrets/otlp/headers".into()),
        token_file: Some("/var/run/secrets/otlp/token".into()),
        ca_file: Some("/var/run/secrets/otlp/ca.crt".into()),
        cert_file: Some("/var/run/secrets/otlp/tls.crt".into()),
        key_file: Some("/var/run/secrets/otlp/tls.key".into()),
        gzip: false,
        traces: false,
        logs: true,
        lines: true,
        insists: false,
        queue: 1 << 20,
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "all fields there are")]
fn every_field_can_be_set_from_the_file() {
    let text = r#"
        listen = "127.0.0.1:1234"
        node = "gpu-7"
        log = "debug"
        [metrics]
        max_series_per_process = 500
        max_series = 5000
        labels = "otel"
        profile = "full"
        guarded = true
        [metrics.buckets]
        duration = [1, 2.5]
        ttft = [0.5]
        tpot = [0.25]
        chunk = [0.125, 1]
        wait = [0.5, 5]
        [capture]
        ring_bytes = "1MiB"
        arrival = false
        processes = { allow = ["vllm"], deny = ["nginx"] }
        [content]
        allow_recording = true
        [api]
        recent = "64MiB"
        token_file = "/var/run/secrets/observer/token"
        kubernetes = true
        [limits]
        connections = 64
        bytes = 1048576
        [stall]
        minimum = "500ms"
        [engines]
        metrics = true
        interval = "30s"
        [gpu]
        enabled = "off"
        library = "/opt/nvidia/libnvidia-ml.so.1"
        interval = "500ms"
        pod_resources = "/run/kubelet.sock"
        [kubernetes]
        mode = "on"
        kubeconfig = "/etc/kube/config"
        pods = "all"
        pod_logs = "/logs/pods"
        namespaces = { include = ["ml-*"], exclude = ["ml-secret"] }
        selector = "app=vllm,!canary"
        opt_out = "example.com/observe"
        unknown = "ignore"
        [tls]
        listen = "127.0.0.1:1235"
        cert_file = "/tls/tls.crt"
        key_file = "/tls/tls.key"
        ca_file = "/tls/ca.crt"
        [cluster]
        lease = "one"
        namespace = "llm"
        agents = "nodes"
        logs = true
        [store]
        enabled = false
        path = "/data"
        bytes = "1GiB"
        age = "24h"
        [logs]
        store = "on"
        redact = false
        all = true
        files = ["/var/log/vllm.log"]
        cluster = "http://observer-cluster:9842"
        units = ["vllm.service", "llama@0.service"]
        journal = "/journal"
        [[slo]]
        name = "chat"
        models = "llama*"
        ttft = 0.5
        gap = 2
        [[slo]]
        name = "batch"
        duration = 60
    "#;
    let config = resolve(&format!("{OTLP}{text}"), &[], &[]).unwrap();
    let expected = Config {
        listen: "127.0.0.1:1234".parse().unwrap(),
        node: "gpu-7".to_owned(),
        log: LevelFilter::DEBUG,
        metrics: MetricsConfig {
            buckets: Buckets {
                duration: vec![1.0, 2.5],
                ttft: vec![0.5],
                tpot: vec![0.25],
                chunk: vec![0.125, 1.0],
                wait: vec![0.5, 5.0],
            },
            max_series_per_process: 500,
            max_series: 5000,
            labels: LabelStyle::Otel,
            profile: MetricsProfile::Full,
            guarded: true,
        },
        capture: CaptureConfig {
            ring_bytes: 1 << 20,
            arrival: false,
            processes: ProcessScope { allow: vec!["vllm".to_owned()], deny: vec!["nginx".to_owned()] },
        },
        content: ContentConfig { allow_recording: true },
        api: ApiConfig {
            recent: 64 << 20,
            token_file: Some("/var/run/secrets/observer/token".into()),
            kubernetes: true,
        },
        limits: LimitsConfig { connections: 64, bytes: 1 << 20 },
        stall: StallConfig { minimum: Duration::from_millis(500) },
        engines: EnginesConfig { metrics: true, interval: Duration::from_secs(30) },
        gpu: GpuConfig {
            enabled: false,
            library: Some("/opt/nvidia/libnvidia-ml.so.1".into()),
            interval: Duration::from_millis(500),
            pod_resources: "/run/kubelet.sock".into(),
        },
        kubernetes: KubernetesConfig {
            mode: KubernetesMode::On,
            kubeconfig: Some("/etc/kube/config".into()),
            pods: PodsTold::All,
            pod_logs: "/logs/pods".into(),
            scope: PodScope {
                include: vec!["ml-*".to_owned()],
                exclude: vec!["ml-secret".to_owned()],
                selector: Selector::parse("app=vllm,!canary").unwrap(),
                opt_out: "example.com/observe".to_owned(),
                unknown: Unknown::Ignore,
            },
        },
        tls: TlsConfig {
            listen: Some("127.0.0.1:1235".parse().unwrap()),
            cert_file: Some("/tls/tls.crt".into()),
            key_file: Some("/tls/tls.key".into()),
            ca_file: Some("/tls/ca.crt".into()),
        },
        cluster: ClusterConfig {
            lease: "one".to_owned(),
            namespace: Some("llm".to_owned()),
            agents: "nodes".to_owned(),
            logs: true,
        },
        otlp: otlp(),
        store: StoreConfig {
            enabled: false,
            path: "/data".into(),
            bytes: 1 << 30,
            age: Duration::from_hours(24),
        },
        logs: LogsConfig {
            store: LogStore::On,
            redact: false,
            all: true,
            files: vec!["/var/log/vllm.log".into()],
            cluster: Some("http://observer-cluster:9842".parse().unwrap()),
            units: vec!["vllm.service".into(), "llama@0.service".into()],
            journal: Some("/journal".into()),
        },
        slo: vec![
            Objective {
                name: "chat".to_owned(),
                models: "llama*".to_owned(),
                bounds: vec![(Measure::Ttft, 0.5), (Measure::Gap, 2.0)],
            },
            Objective {
                name: "batch".to_owned(),
                models: "*".to_owned(),
                bounds: vec![(Measure::Duration, 60.0)],
            },
        ],
    };
    assert_eq!(config, expected);
}

#[test]
fn flags_beat_environment_beats_file() {
    let file = "listen = '127.0.0.1:1'\nnode = 'file'\nlog = 'error'\n";
    let environment = [("OBSERVER_LISTEN", "127.0.0.1:2"), ("OBSERVER_NODE", "environment")];
    let config = resolve(file, &environment, &["--listen", "127.0.0.1:3"]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:3");
    assert_eq!(config.node, "environment");
    assert_eq!(config.log, LevelFilter::ERROR);
}

#[test]
fn lists_and_sizes_from_the_environment() {
    let environment = [
        ("OBSERVER_METRICS_BUCKETS_TTFT", "0.1, 1,10"),
        ("OBSERVER_CAPTURE_PROCESSES_ALLOW", "llama-server,vllm"),
        ("OBSERVER_CAPTURE_PROCESSES_DENY", ""),
        ("OBSERVER_CAPTURE_RING_BYTES", "64KiB"),
        ("OBSERVER_CAPTURE_ARRIVAL", "false"),
        ("OBSERVER_SLO", "[{name = 'a', tpot = 0.1}]"),
        ("OBSERVER_PORT_9842_TCP", "tcp://10.0.0.1:9842"),
    ];
    let config = resolve("", &environment, &[]).unwrap();
    assert_eq!(config.metrics.buckets.ttft, [0.1, 1.0, 10.0]);
    assert_eq!(config.capture.processes.allow, ["llama-server", "vllm"]);
    assert!(config.capture.processes.deny.is_empty());
    assert_eq!(config.capture.ring_bytes, 64 << 10);
    assert!(!config.capture.arrival);
    assert_eq!((config.slo.len(), config.slo[0].bounds[0]), (1, (Measure::Tpot, 0.1)));
}

#[test]
fn no_field_hides_behind_a_service_link() {
    for name in fields::names() {
        let typed = typed::from_environment([(variable(name), "x".to_owned())], &fields::names());
        assert_eq!(typed.len(), 1, "{name} cannot be set by environment");
        assert_eq!(typed[0].field, name);
    }
}

/// File text, and what the message must say beside the name of the file.
const REFUSED: &[(&str, &[&str])] = &[
    ("lisen = 'x'", &["no field `lisen`", "\"x\"", "listen"]),
    ("[metric]\nlabels = 'otel'", &["no field `metric.labels`", "did you mean metrics.labels?"]),
    ("[metrics]\nnonsense = 1", &["no field `metrics.nonsense`", "remove it"]),
    ("listen = 9842", &["`listen` = 9842", "is integer, not text", "0.0.0.0:9842"]),
    ("listen = 'localhost'", &["`listen` = \"localhost\"", "invalid socket address", "0.0.0.0:9842"]),
    ("listen = '0.0.0.0:99999'", &["`listen`", "99999", "an address and a port"]),
    ("node = ''", &["`node` = \"\"", "1 to 253"]),
    ("node = 'a b'", &["`node`", "without spaces"]),
    ("log = 'loud'", &["`log` = \"loud\"", "write off, error, warn, info, debug or trace"]),
    ("[metrics.buckets]\nttft = []", &["`metrics.buckets.ttft` = []", "has 0 bounds", "1 to 64 increasing"]),
    ("[metrics.buckets]\nduration = [2, 1]", &["metrics.buckets.duration", "2 is followed by 1"]),
    ("[metrics.buckets]\ntpot = [1, nan]", &["metrics.buckets.tpot", "NaN"]),
    ("[metrics.buckets]\nchunk = [1, inf]", &["metrics.buckets.chunk", "inf is not a finite"]),
    ("[metrics.buckets]\nchunk = [true]", &["holds boolean, not a number"]),
    ("[metrics.buckets]\nchunk = 1.0", &["is float, not a list"]),
    ("[metrics]\nmax_series = 99", &["`metrics.max_series` = 99", "out of range", "from 100"]),
    ("[metrics]\nmax_series = -5", &["`metrics.max_series` = -5", "is below 0"]),
    ("[metrics]\nmax_series_per_process = 1.5", &["max_series_per_process", "not a whole number"]),
    ("[metrics]\nlabels = 'k8s'", &["`metrics.labels` = \"k8s\"", "write default or otel"]),
    ("[capture]\nring_bytes = 100000", &["`capture.ring_bytes` = 100000", "not a power of two", "16MiB"]),
    ("[capture]\nring_bytes = 32768", &["capture.ring_bytes", "out of range", "64KiB"]),
    ("[capture]\nring_bytes = '2GiB'", &["capture.ring_bytes", "out of range"]),
    ("[capture]\nring_bytes = '99999999999GiB'", &["capture.ring_bytes", "out of range"]),
    ("[capture]\nring_bytes = '16MB'", &["capture.ring_bytes", "is not a size"]),
    ("[capture]\narrival = 1", &["`capture.arrival` = 1", "write true or false"]),
    ("[capture.processes]\nallow = 'a,,b'", &["capture.processes.allow", "is not a process name"]),
    ("[capture.processes]\ndeny = [1]", &["capture.processes.deny", "is integer, not text"]),
    ("[content]\nallow_recording = 'yes'", &["content.allow_recording", "write true or false"]),
    ("[api]\nrecent = '1KiB'", &["`api.recent` = \"1KiB\"", "out of range", "from 1MiB to 4GiB"]),
    ("[api]\ntoken_file = ''", &["api.token_file", "is empty", "path of a file"]),
    ("[api]\ntoken = 'x'", &["no field `api.token`"]),
    ("[limits]\nconnections = 1", &["`limits.connections` = 1", "from 16 to 1048576"]),
    ("[limits]\nbytes = '1KiB'", &["limits.bytes", "from 1MiB to 64GiB"]),
    ("[stall]\nminimum = 2", &["`stall.minimum` = 2", "is integer, not text", "such as 2s"]),
    ("[stall]\nminimum = '1h'", &["stall.minimum", "out of range", "from 100ms to 10m"]),
    ("[metrics]\nprofile = 'all'", &["`metrics.profile` = \"all\"", "write default or full"]),
    ("[cluster]\nlease = 'A b'", &["`cluster.lease` = \"A b\"", "is no name of an object", "lower-case"]),
    ("[cluster]\nnamespace = ''", &["cluster.namespace", "is no name of an object"]),
    ("[cluster]\nagents = '-x'", &["cluster.agents", "is no name of an object"]),
    ("[cluster]\nreplicas = 2", &["no field `cluster.replicas`"]),
    ("[logs]\nunits = ['--all']", &["logs.units", "\"--all\"", "names of units"]),
    ("slo = 1", &["`slo` = 1", "is integer, not an array of tables", "write each as [[slo]]"]),
    ("[[slo]]\nttft = 1", &["`slo`", "objective 1: missing field `name`", "with a name"]),
    ("[[slo]]\nname = 'a b'\nttft = 1", &["objective 1: `name` = \"a b\"", "letters, digits"]),
    ("[[slo]]\nname = 'a'\nmodels = ''\nttft = 1", &["objective 1: `models`", "pattern"]),
    ("[[slo]]\nname = 'a'", &["objective 1: \"a\" bounds nothing", "at least one of ttft"]),
    ("[[slo]]\nname = 'a'\nttft = -1", &["objective 1: `ttft` = -1", "seconds above 0"]),
    ("[[slo]]\nname = 'a'\nttft = 'x'", &["objective 1: invalid type: string", "in seconds"]),
    ("[[slo]]\nname = 'a'\ntftt = 1", &["objective 1: unknown field `tftt`", "ttft"]),
    (
        "[[slo]]\nname = 'a'\nttft = 1\n[[slo]]\nname = 'a'\ntpot = 1",
        &["objective 2: the name \"a\" is taken"],
    ),
    ("[kubernetes]\nmode = true", &["`kubernetes.mode` = true", "is boolean, not text"]),
    ("[kubernetes]\nmode = 'yes'", &["kubernetes.mode", "write auto, on or off"]),
    ("[kubernetes]\npods = 'some'", &["kubernetes.pods", "write serving or all"]),
    ("[kubernetes]\nkubeconfig = ''", &["kubernetes.kubeconfig", "is empty", "the path of a file"]),
    ("[kubernetes]\nselector = 'a in b'", &["kubernetes.selector", "is no label selector", "kubectl"]),
    ("[kubernetes]\nopt_out = 'a b'", &["kubernetes.opt_out", "no name of an annotation"]),
    ("[kubernetes]\nunknown = 'guess'", &["kubernetes.unknown", "write auto, observe or ignore"]),
    (
        "[kubernetes]\nnamespaces = ['a']",
        &["no field `kubernetes.namespaces`", "kubernetes.namespaces.include"],
    ),
    ("[kubernetes.namespaces]\ninclude = ['']", &["kubernetes.namespaces.include", "is not a namespace"]),
    ("[metrics.bucket]", &["no field `metrics.bucket`"]),
    ("listen = {}", &["`listen` = {}", "is table, not text"]),
    ("[metrics.buckets]\n[capture]\narrival = 0", &["capture.arrival"]),
    ("listen = ", &["not valid TOML", "line 1"]),
    ("log = 'info'\nlog = 'warn'", &["not valid TOML", "duplicate key"]),
];

#[test]
fn bad_files_are_refused_with_place_field_value_and_remedy() {
    for (text, expected) in REFUSED {
        let message = resolve(text, &[], &[]).expect_err(text).to_string();
        for part in expected.iter().chain(&["/etc/observer.toml"]) {
            assert!(message.contains(part), "{text:?}\n  gives    {message}\n  without  {part}");
        }
    }
}

#[test]
fn bad_environment_and_flags_are_refused_by_their_names() {
    let message = resolve("", &[("OBSERVER_METRIC_LABELS", "otel")], &[]).unwrap_err().to_string();
    assert!(message.contains("environment variable OBSERVER_METRIC_LABELS"), "{message}");
    let message = resolve("", &[("OBSERVER_METRICS_LABEL", "otel")], &[]).unwrap_err().to_string();
    assert!(message.contains("did you mean") && message.contains("OBSERVER_METRICS_LABELS"), "{message}");
    let message = resolve("", &[("OBSERVER_LOG", "loud")], &[]).unwrap_err().to_string();
    assert!(message.contains("environment variable OBSERVER_LOG: `log` = \"loud\""), "{message}");
    let message = resolve("", &[], &["--listen", "here"]).unwrap_err().to_string();
    assert!(message.contains("flag --listen: `listen` = \"here\""), "{message}");
    let message = resolve("", &[], &["--set", "limits.byte=1MiB"]).unwrap_err().to_string();
    assert!(message.contains("flag --set limits.byte") && message.contains("limits.bytes"), "{message}");
}

#[test]
fn contradictions_and_a_useless_host_name_are_refused() {
    let message = resolve("[metrics]\nmax_series = 200", &[], &[]).unwrap_err().to_string();
    assert!(message.contains("metrics.max_series_per_process` = 1500"), "{message}");
    assert!(message.contains("`metrics.max_series` = 200"), "{message}");
    let message = Config::resolve(None, [], &cli(&[]), "").unwrap_err().to_string();
    assert!(message.contains("set `node`"), "{message}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(&cli(&["--config", "/nonexistent/observer.toml"])).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("/nonexistent/observer.toml") && message.contains("--config"), "{message}");
}

#[test]
fn scope_by_process_name() {
    let scope = |allow: &[&str], deny: &[&str]| ProcessScope {
        allow: allow.iter().map(|&name| name.to_owned()).collect(),
        deny: deny.iter().map(|&name| name.to_owned()).collect(),
    };
    assert!(scope(&[], &[]).admits("anything"));
    assert!(scope(&["vllm"], &[]).admits("vllm"));
    assert!(!scope(&["vllm"], &[]).admits("vllm2"));
    assert!(!scope(&["vllm"], &["vllm"]).admits("vllm"));
    assert!(!scope(&[], &["nginx"]).admits("nginx"));
    // The kernel cut this one to 15 bytes.
    assert!(scope(&["text-generation-router"], &[]).admits("text-generation"));
}
