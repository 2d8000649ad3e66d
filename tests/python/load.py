"""Runs streams against a server, with nothing but the standard library.

In: an address, how many streams, how many at a time, and the script that each asks the scripted server to follow;
out: one JSON line per stream with what the client saw, by CLOCK_MONOTONIC: its x-request-id, status, bytes of the
body, events, tokens' events, and when the request was sent, the head, the first token and the end were received.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

LOCAL = threading.local()


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def connection(options):
    """This thread's connection: kept between requests only if that is asked for."""
    kept = getattr(LOCAL, "connection", None)
    if kept is None or not options.keep_alive:
        kept = LOCAL.connection = http.client.HTTPConnection(options.host, options.port, timeout=options.timeout)
    return kept


def run_stream(options, script, number):
    request_id = f"{options.prefix}-{number:06}"
    body = {
        "model": options.model,
        "stream": not options.plain,
        "messages": [{"role": "user", "content": "x" * options.prompt_bytes}],
        "script": script,
    }
    if options.usage and not options.plain:
        body["stream_options"] = {"include_usage": True}
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json", "x-request-id": request_id}
    seen = {"request_id": request_id, "events": 0, "token_events": 0, "body_bytes": 0, "done": False}
    one = connection(options)
    try:
        if one.sock is None:
            one.connect()
        seen["peer"] = "%s:%d" % one.sock.getsockname()[:2]
        seen["sent_ns"] = now_ns()
        one.request("POST", options.path, data, headers)
        response = one.getresponse()
        seen["head_ns"] = now_ns()
        seen["status"] = response.status
        if options.plain:
            whole = response.read()
            seen["body_bytes"] = len(whole)
            seen["usage"] = json.loads(whole).get("usage")
            seen["done"] = True
        else:
            read_events(response, seen)
        seen["end_ns"] = now_ns()
    except (OSError, ValueError, http.client.HTTPException) as error:
        seen["error"] = f"{type(error).__name__}: {error}"
        one.close()
    if not options.keep_alive:
        one.close()
    return seen


def read_events(response, seen):
    for line in response:
        seen["body_bytes"] += len(line)
        if not line.startswith(b"data: "):
            continue
        seen["events"] += 1
        payload = line[6:].strip()
        if payload == b"[DONE]":
            seen["done"] = True
            continue
        event = json.loads(payload)
        if any(choice["delta"].get("content") for choice in event["choices"]):
            seen["token_events"] += 1
            seen["last_token_ns"] = now_ns()
            seen.setdefault("first_token_ns", seen["last_token_ns"])
        if event.get("usage"):
            seen["usage"] = event["usage"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--path", default="/v1/chat/completions")
    arguments.add_argument("--model", default="scripted")
    arguments.add_argument("--streams", type=int, default=1)
    arguments.add_argument("--concurrency", type=int, default=1)
    arguments.add_argument("--prefix", default="load", help="begins each x-request-id")
    arguments.add_argument("--script", action="append", default=[], help="JSON; given several times, taken in turn")
    arguments.add_argument("--prompt-bytes", type=int, default=32)
    arguments.add_argument("--usage", action="store_true", help="ask for usage in the stream")
    arguments.add_argument("--plain", action="store_true", help="do not stream")
    arguments.add_argument("--keep-alive", action="store_true", help="one connection per worker for all its requests")
    arguments.add_argument("--timeout", type=float, default=60)
    arguments.add_argument("--out", help="file for the JSON lines; stdout without it")
    options = arguments.parse_args()

    scripts = [json.loads(script) for script in options.script] or [{}]
    with ThreadPoolExecutor(options.concurrency) as pool:
        streams = range(options.streams)
        results = list(pool.map(lambda n: run_stream(options, scripts[n % len(scripts)], n), streams))
    lines = "".join(json.dumps(seen) + "\n" for seen in results)
    if options.out:
        with open(options.out, "w", encoding="utf-8") as out:
            out.write(lines)
    else:
        sys.stdout.write(lines)
    whole = sum(seen["done"] and seen.get("status") == 200 for seen in results)
    print(f"{whole} of {len(results)} answered in full", file=sys.stderr)
    return 0 if whole == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
