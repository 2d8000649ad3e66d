"""Sends a mix of streaming and plain requests to an OpenAI-compatible server, with the real client library.

In: where the server is and how much to send; out: one JSON line per request, with what the client itself saw:
status, the engine's own counts (`usage` and llama.cpp's `timings`), and times by the client's clock.
Every request carries an x-request-id, by which the observer's record of it is found.
"""

import argparse
import itertools
import json
import sys
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import openai

QUESTIONS = [
    "Name three colours of the rainbow.",
    "Why is the sky blue? Answer in one sentence.",
    "Write one line about a lighthouse.",
    "What is the capital of France?",
    "Count from one to ten.",
    "Explain what a queue is to a child.",
]

# Beginnings that a base model goes on from: after a question it may well answer nothing.
BEGINNINGS = [
    "Once upon a time, in a house by the sea,",
    "The colours of the rainbow are",
    "The sky is blue because",
]

# Two of three requests stream; of those, some ask for usage and some leave the client to count.
MIX = [
    ("chat", True, True),
    ("chat", True, False),
    ("chat", False, False),
    ("completion", True, True),
    ("completion", False, False),
    ("completion", True, False),
]


def plain(value):
    """A pydantic object as plain data; None stays None."""
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value


def send(client, options, number):
    api, stream, with_usage = MIX[number % len(MIX)]
    prompts = QUESTIONS if api == "chat" else BEGINNINGS
    prompt = prompts[number // len(MIX) % len(prompts)]
    identity = f"{options.prefix}-{number:04}"
    body = {
        "model": options.model,
        "max_tokens": 16 + 8 * (number % 4),
        "temperature": 0.0,
        "extra_headers": {"x-request-id": identity},
    }
    if stream:
        body["stream"] = True
        if with_usage:
            body["stream_options"] = {"include_usage": True}
    seen = {"request_id": identity, "api": api, "stream": stream, "asked_for_usage": with_usage}
    begun = time.monotonic()
    try:
        if api == "chat":
            answer = client.chat.completions.create(messages=[{"role": "user", "content": prompt}], **body)
        else:
            answer = client.completions.create(prompt=prompt, **body)
        last = None
        for chunk in answer if stream else [answer]:
            last = chunk
            text = [text_of(choice) for choice in chunk.choices]
            if stream and any(text) and "ttft" not in seen:
                seen["ttft"] = time.monotonic() - begun
            seen["text_events"] = seen.get("text_events", 0) + any(text)
            reasons = [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
            if reasons:
                seen["finish_reason"] = reasons[0]
            if chunk.usage is not None:
                seen["usage"] = plain(chunk.usage)
            timings = (chunk.model_extra or {}).get("timings")
            if timings is not None:
                seen["timings"] = timings
        seen["response_id"] = last.id if last is not None else None
    except openai.OpenAIError as error:
        seen["error"] = f"{type(error).__name__}: {error}"
    seen["duration"] = time.monotonic() - begun
    return seen


def text_of(choice):
    """The text that a choice carries, in any of the four shapes."""
    part = getattr(choice, "delta", None) or getattr(choice, "message", None)
    return part.content if part is not None else choice.text


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base-url", required=True, help="with /v1 at its end")
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--requests", type=int, help="how many; without it, until interrupted")
    arguments.add_argument("--concurrency", type=int, default=4)
    arguments.add_argument("--prefix", default="demo", help="begins each x-request-id")
    arguments.add_argument("--pause", type=float, default=0.0, help="seconds between requests of one worker")
    arguments.add_argument("--out", help="file for the JSON lines; stdout without it")
    options = arguments.parse_args()

    client = openai.OpenAI(base_url=options.base_url, api_key="none", max_retries=0, timeout=120)
    numbers = range(options.requests) if options.requests else itertools.count()
    failed = 0
    lock = threading.Lock()
    with open(options.out, "w") if options.out else sys.stdout as out:

        def one(number):
            seen = send(client, options, number)
            with lock:
                print(json.dumps(seen), file=out, flush=True)
            time.sleep(options.pause)
            return "error" in seen

        with ThreadPoolExecutor(options.concurrency) as pool:
            running = set()
            for number in numbers:
                # No more are handed over than are worked on: an endless run holds no endless queue.
                if len(running) >= options.concurrency:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    failed += sum(future.result() for future in done)
                running.add(pool.submit(one, number))
            failed += sum(future.result() for future in running)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
