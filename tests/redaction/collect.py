"""Logs of real engines and a gateway at their most verbose, with planted prompts, keys and tokens: the corpus of
tests/tests/redaction.rs. Run by hand when engines write in another way; what it makes is looked through before it is kept.

    collect.py OUT --llama PYTHON --model GGUF --litellm PROGRAM --fastllm PYTHON --fastllm-model GGUF

The Python of llama.cpp has xllamacpp, which is its HTTP server. Writes OUT/<engine>.log, as the engine wrote it but for paths and
most of what it says while it loads the model; what is kept are the first lines of each, whole requests. And OUT/planted.json: what was planted.
"""

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

# Nothing of this is said by anybody else. Several scripts, quotes, line ends and braces: what engines escape.
PROMPTS = [
    "Zanzibari wombats negotiate quarterly",
    "The password of the \"quokka vault\" isn't told\nto numbats, {ever}",
    "Größenwahn und Überfluß im Känguruhgarten",
    "袋鼠秘密地图",
]
LLAMA = """
import signal, sys, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.model_alias, p.hostnames, p.port = sys.argv[1], {"m"}, ["127.0.0.1"], int(sys.argv[2])
p.cpuparams.n_threads, p.n_parallel, p.n_ctx, p.verbosity, p.verbose_prompt = 1, 2, 2048, 10, True
p.api_keys = sys.argv[3:]
server = xllamacpp.Server(p)
signal.sigwait({signal.SIGTERM})
"""
KEYS = ["sk-plantedKEY0123456789abcdef", "hf_plantedTOKENabcdefghijklmnop", "planted.jwt-or-else.0123456789"]


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def post(port, path, body, key):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", "x-api-key": key}
    connection.request("POST", path, json.dumps(body, ensure_ascii=False).encode(), headers)
    answer = connection.getresponse()
    text = answer.read().decode(errors="replace")
    print(f"{path}: {answer.status}", file=sys.stderr)
    return text


def wait(port, path):
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", path)
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"nobody answers at {port}{path}")


def drive(port, model, kinds):
    """Asks, and returns the words of the answers: they must not be in logs either."""
    answers = []
    for at, prompt in enumerate(PROMPTS):
        key = KEYS[at % len(KEYS)]
        stream = at % 2 == 0
        messages = [{"role": "system", "content": f"sysprompt {prompt}"}, {"role": "user", "content": prompt}]
        bodies = {
            "/v1/chat/completions": {"model": model, "messages": messages, "max_tokens": 5, "stream": stream},
            "/v1/completions": {"model": model, "prompt": prompt, "max_tokens": 5, "stream": not stream},
        }
        for path in kinds:
            answers += texts(post(port, path, bodies[path], key))
    # What is refused is often printed, too.
    post(port, kinds[0], {"model": model, "messages": f"refused {PROMPTS[0]}", "max_tokens": "many"}, KEYS[0])
    return answers


def texts(answer):
    found, whole = [], ""
    for line in answer.splitlines():
        line = line.removeprefix("data: ")
        try:
            value = json.loads(line)
        except ValueError:
            continue
        for choice in value.get("choices", []):
            text = choice.get("text") or (choice.get("delta") or choice.get("message") or {}).get("content")
            whole += text or ""
    if len(whole.strip()) > 8:
        found.append(whole.strip())
    return found


def kept(text, folders):
    """Without what is this machine's, and without what only takes room."""
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, "/PATH")
    lines = text.splitlines(keepends=True)
    serves = [at for at, line in enumerate(lines) if "listening on http" in line]
    if serves and serves[0] > 300:
        lines[150 : serves[0]] = []
        text = "".join(lines)
    text = re.sub(r"/(?:home|root|work|tmp)/[\w./@+-]*/", "/PATH/", text)
    # One of LiteLLM's two handlers: the other says the same.
    text = re.sub(r"(?m)^\[20\d\d-\d\d-\d\d \d\d:\d\d:\d\d - LiteLLM.*\n", "", text)
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def run(command, out, name, asked, folders, env=None):
    path = out / f"{name}.log"
    with open(path, "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        try:
            return asked()
        finally:
            time.sleep(1)
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            text = path.read_bytes().decode(errors="replace")
            path.write_text(kept(text, folders))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    for name in ["llama", "model", "litellm", "fastllm", "fastllm-model"]:
        arguments.add_argument(f"--{name}", required=True)
    options = arguments.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = [str(Path(path).resolve().parent) for path in vars(options).values() if isinstance(path, str)]
    answers = []
    both = ["/v1/chat/completions", "/v1/completions"]

    port, gateway = free_port(), free_port()
    config = options.out / "litellm.yaml"
    config.write_text(
        f"model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/m\n      api_base: http://127.0.0.1:{port}/v1\n"
        f"      api_key: {KEYS[0]}\n"
    )

    def engine():
        wait(port, "/health")
        answers.extend(drive(port, "m", both))
        run(
            [options.litellm, "--host", "127.0.0.1", "--port", str(gateway), "--config", str(config), "--detailed_debug"],
            options.out,
            "litellm",
            lambda: (wait(gateway, "/health/liveliness"), answers.extend(drive(gateway, "m", both)))[1],
            folders,
            {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "OPENAI_LOG": "debug"},
        )

    llama = [options.llama, "-u", "-c", LLAMA, options.model, str(port), *KEYS]
    run(llama, options.out, "llama.cpp", engine, folders)

    port = free_port()
    run(
        [options.fastllm, "-m", "ftllm.cli", "server", options.fastllm_model, "--host", "127.0.0.1", "--port", str(port), "--model_name", "m", "--device", "cpu", "--threads", "1"],
        options.out,
        "fastllm",
        lambda: (wait(port, "/v1/models"), answers.extend(drive(port, "m", both)))[1],
        folders,
        {"PYTHONUNBUFFERED": "1"},
    )
    planted = {"prompts": PROMPTS, "keys": KEYS, "answers": answers}
    (options.out / "planted.json").write_text(json.dumps(planted, ensure_ascii=False, indent=1) + "\n")
    config.unlink()


if __name__ == "__main__":
    main()
