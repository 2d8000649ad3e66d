//! What is in `deploy/`, as Kubernetes would get it: rendered by Helm and kustomize, as JSON.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::workload::{environment, folder};

/// The oldest Kubernetes that the chart asks for, and the newest that there are schemas of.
pub const VERSIONS: [&str; 2] = ["1.30", "1.37"];

/// A file below `deploy/`.
pub fn path(name: &str) -> PathBuf {
    folder("../deploy").join(name)
}

/// What renders and validates: `tests/python/deploy.py`.
pub struct Renderer {
    environment: PathBuf,
}

impl Renderer {
    /// None, after saying so, where its packages do not run; in CI they must.
    pub fn find() -> Option<Self> {
        Some(Self { environment: environment("deploy")? })
    }

    /// The chart's objects with these values, or why it refuses them.
    ///
    /// # Errors
    /// What Helm says.
    pub fn helm(&self, values: &Value) -> Result<Vec<Value>, String> {
        self.run(&["render", &values.to_string()], "").map(|text| parsed(&text))
    }

    /// The objects of a folder of `deploy/kustomize`.
    pub fn kustomize(&self, name: &str) -> Vec<Value> {
        parsed(&self.run(&["kustomize", name], "").unwrap_or_else(|why| panic!("{name}: {why}")))
    }

    /// The objects of a folder of `deploy/kustomize` with one of its components.
    pub fn kustomize_with(&self, base: &str, component: &str) -> Vec<Value> {
        let overlay = tempfile::tempdir().expect("a folder");
        // Kustomize takes paths that are relative alone.
        let up = "../".repeat(overlay.path().components().count() - 1);
        let of = |name: &str| {
            format!("{up}{}", path("kustomize").join(name).display().to_string().trim_start_matches('/'))
        };
        let text = format!("resources: [{}]\ncomponents: [{}]\n", of(base), of(component));
        std::fs::write(overlay.path().join("kustomization.yaml"), text).expect("written");
        self.kustomize(overlay.path().to_str().expect("UTF-8"))
    }

    /// Whether each is what Kubernetes takes, or what is wrong with the first that is not.
    ///
    /// # Errors
    /// The object, the place in it, and what is wrong there.
    pub fn validate(&self, objects: &[Value]) -> Result<(), String> {
        let arguments: Vec<&str> = ["validate"].into_iter().chain(VERSIONS).collect();
        self.run(&arguments, &Value::from(objects).to_string()).map(drop)
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(self.environment.join("bin/python"));
        command.arg(folder("python").join("deploy.py")).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("its input");
        let output = child.wait_with_output().expect("its output");
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Ok(String::from_utf8(output.stdout).expect("UTF-8")),
            Some(3) => Err(said.into_owned()),
            _ => panic!("{command:?}: {}: {said}", output.status),
        }
    }
}

fn parsed(text: &str) -> Vec<Value> {
    serde_json::from_str(text).expect("a JSON array")
}

/// The one object of a kind and name.
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|one| one["kind"] == kind && one["metadata"]["name"] == name);
    let one = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two {kind} {name}");
    one
}

/// The roles and bindings that say what the service account `observer-agent` or `observer-cluster` may do, by the chart's
/// defaults: objects of `rbac.authorization.k8s.io/v1`. None, after saying so, where the chart cannot be rendered.
pub fn rights(account: &str) -> Option<Vec<Value>> {
    let objects = Renderer::find()?.helm(&json!({})).expect("the chart's defaults");
    let is_account = |subject: &Value| subject["kind"] == "ServiceAccount" && subject["name"] == account;
    let bindings = objects.iter().filter(|one| {
        let kind = one["kind"].as_str().unwrap_or_default();
        kind.ends_with("RoleBinding")
            && one["subjects"].as_array().is_some_and(|all| all.iter().any(is_account))
    });
    let with_roles = bindings.flat_map(|binding| {
        let role = &binding["roleRef"];
        let [kind, name] = ["kind", "name"].map(|field| role[field].as_str().expect("text"));
        [object(&objects, kind, name).clone(), binding.clone()]
    });
    Some(with_roles.collect())
}
