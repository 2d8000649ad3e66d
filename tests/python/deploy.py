"""Renders and checks what is in deploy/. Objects go in and out as a JSON array.

  deploy.py render VALUES        the Helm chart with these values (JSON)
  deploy.py kustomize FOLDER     a folder of deploy/kustomize
  deploy.py validate VERSION...  objects from stdin against the strict schemas of these Kubernetes versions

What is refused is said on stderr; the exit status is 3 then.
"""

import json
import pathlib
import subprocess
import sys

import jsonschema
import yaml

HERE = pathlib.Path(__file__).parent
DEPLOY = HERE.parent.parent / "deploy"


def refuse(why):
    print(why, file=sys.stderr)
    sys.exit(3)


def objects(text):
    return [item for item in yaml.safe_load_all(text) if item]


def render(values):
    import helm_python

    with helm_python.Chart.load(DEPLOY / "helm/observer") as chart:
        try:
            files = chart.render(json.loads(values), name="observer", namespace="observer")
        except helm_python.HelmError as error:
            refuse(error)
    return [item for path, text in files.items() if path.endswith(".yaml") for item in objects(text)]


def kustomize(folder):
    kubectl = pathlib.Path(sys.executable).with_name("kubectl")
    done = subprocess.run([kubectl, "kustomize", DEPLOY / "kustomize" / folder], capture_output=True, text=True)
    if done.returncode:
        refuse(done.stderr)
    return objects(done.stdout)


def validate(versions):
    import kubernetes_validate

    operator = json.loads((HERE / "prometheus_operator.json").read_text())
    for item in json.load(sys.stdin):
        what = f"{item['kind']} {item['metadata']['name']}"
        try:
            if item["apiVersion"].startswith("monitoring.coreos.com/"):
                jsonschema.validate(item, operator)
                continue
            for version in versions:
                kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError as error:
            refuse(f"{what}: {error.message}")
        except jsonschema.ValidationError as error:
            refuse(f"{what}: {error.json_path}: {error.message}")


def main():
    what, *arguments = sys.argv[1:]
    if what == "validate":
        validate(arguments)
    else:
        json.dump({"render": render, "kustomize": kustomize}[what](*arguments), sys.stdout)


main()
