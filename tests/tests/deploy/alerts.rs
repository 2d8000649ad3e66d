//! Alerts and dashboards: that Prometheus can read them, and that what they ask for is exported.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use observer_tests::{
    deploy::{Renderer, object, path},
    workload::folder,
};
use serde_json::{Value, json};

fn promtool(arguments: &[&str], file: &Path) -> Result<String, String> {
    let output = Command::new("promtool").args(arguments).arg(file).output().expect("promtool");
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Has promtool read expressions, each as a rule of its own.
fn check(expressions: &[String]) -> Result<String, String> {
    let rule = |(number, expr): (usize, &String)| json!({"record": format!("e{number}"), "expr": expr});
    let rules: Vec<Value> = expressions.iter().enumerate().map(rule).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yaml");
    // JSON is YAML.
    fs::write(&file, json!({"groups": [{"name": "g", "rules": rules}]}).to_string()).expect("rules");
    promtool(&["check", "rules"], &file)
}

/// Names of metrics in an expression.
fn metrics(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours =
        words.filter(|word| ["llm_", "observer_", "gen_ai_server_"].iter().any(|own| word.starts_with(own)));
    ours.map(|word| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
    })
    .collect()
}

/// The source of what is exported.
fn sources(of: &Path, into: &mut String) {
    for entry in fs::read_dir(of).expect("a folder") {
        let entry: PathBuf = entry.expect("an entry").path();
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|end| end == "rs") {
            into.push_str(&fs::read_to_string(&entry).expect("source"));
        }
    }
}

fn assert_exported(expressions: &[String]) {
    let mut source = String::new();
    sources(&folder("../observer/src/export/prometheus"), &mut source);
    let asked: BTreeSet<String> = expressions.iter().flat_map(|expression| metrics(expression)).collect();
    assert!(asked.len() > 5, "{asked:?}");
    for name in asked {
        assert!(source.contains(&format!("\"{name}\"")), "{name} is not exported");
    }
}

/// Expressions of panels, with Grafana's variables filled in.
fn panels(dashboard: &Value) -> Vec<String> {
    let targets = dashboard["panels"]
        .as_array()
        .expect("panels")
        .iter()
        .flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let filled = |expression: &str| {
        let all = expression.replace("$__rate_interval", "5m");
        variables.iter().fold(all, |text, variable| {
            text.replace(&format!("${}", variable["name"].as_str().expect("a name")), ".*")
        })
    };
    targets.map(|target| filled(target["expr"].as_str().expect("an expression"))).collect()
}

#[test]
fn alerts_fire_when_they_should() {
    let tested = promtool(&["test", "rules"], &path("prometheus/rules_test.yaml"));
    assert!(tested.as_ref().is_ok_and(|said| said.contains("SUCCESS")), "{tested:?}");
    let rules = fs::read_to_string(path("prometheus/rules.yaml")).expect("rules");
    let tests = fs::read_to_string(path("prometheus/rules_test.yaml")).expect("tests");
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let tested = tests.matches(&format!("alertname: {alert}\n")).count();
        let silent = tests.matches(&format!("alertname: {alert}, exp_alerts: []")).count();
        assert_eq!((tested, silent), (1, 1), "{alert}: one test in which it fires, one in which it does not");
    }
}

#[test]
fn the_rule_object_is_the_file() {
    let Some(renderer) = Renderer::find() else { return };
    let objects = renderer.helm(&json!({"prometheusRule": {"enabled": true}})).expect("objects");
    let groups = &object(&objects, "PrometheusRule", "observer")["spec"]["groups"];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.yaml");
    fs::write(&file, json!({"groups": groups}).to_string()).expect("rules");
    let said = promtool(&["check", "rules"], &file).expect("rules that Prometheus takes");
    let text = fs::read_to_string(path("prometheus/rules.yaml")).expect("rules");
    let rules = text.matches("- alert:").count() + text.matches("- record:").count();
    assert!(said.contains(&format!("SUCCESS: {rules} rules found")), "{said}");
    let rules =
        groups.as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let expressions: Vec<String> =
        rules.map(|rule| rule["expr"].as_str().expect("text").to_owned()).collect();
    assert_exported(&expressions);
}

#[test]
fn dashboards_ask_for_what_is_there() {
    let file = fs::read(path("grafana/observer.json")).expect("a dashboard");
    let dashboard: Value = serde_json::from_slice(&file).expect("JSON");
    let expressions = panels(&dashboard);
    assert!(expressions.len() > 25, "{}", expressions.len());
    check(&expressions).unwrap_or_else(|said| panic!("{said}"));
    assert_exported(&expressions);
    for expression in expressions.iter().filter(|expression| expression.contains("histogram_quantile")) {
        let [classic, native] = expression.split(" or ").collect::<Vec<_>>()[..] else {
            panic!("{expression}")
        };
        assert!(
            classic.contains("_bucket") && !native.contains("_bucket"),
            "both kinds of histogram: {expression}"
        );
    }
    let Some(renderer) = Renderer::find() else { return };
    let objects = renderer.helm(&json!({"dashboards": {"enabled": true}})).expect("objects");
    let data = &object(&objects, "ConfigMap", "observer-dashboards")["data"]["observer.json"];
    let shipped: Value = serde_json::from_str(data.as_str().expect("text")).expect("JSON");
    assert_eq!(shipped, dashboard);
}

#[test]
fn a_broken_expression_is_found() {
    assert!(check(&["sum(rate(llm_requests_total[5m])".to_owned()]).is_err());
    assert_eq!(
        metrics("rate(gen_ai_server_x_seconds_bucket{a=\"b\"}[5m])").first().expect("one"),
        "gen_ai_server_x_seconds"
    );
}
