"""Real client libraries against a real server: what each of them saw of its requests.

In: a server, a model, a library; out: one JSON line per request: its x-request-id, what kind of request it was, the
library's own usage, and by CLOCK_MONOTONIC, seconds after the call: the first token, each event with one, the end.
"""

import argparse
import asyncio
import json
import sys
import time

import anthropic
import openai

BEGINNING = "Once upon a time, in a house by the sea,"
TOKENS = 16


class Seen:
    """One request as its client sees it."""

    def __init__(self, options, kind, number):
        self.line = {"request_id": f"{options.prefix}-{kind}-{number}", "kind": kind}
        self.headers = {"x-request-id": self.line["request_id"]}
        self.tokens = []
        self.begun = time.monotonic()

    def token(self):
        self.tokens.append(time.monotonic() - self.begun)

    def usage(self, output):
        self.line["output"] = output

    def print(self):
        self.line |= {"tokens": self.tokens, "duration": time.monotonic() - self.begun}
        print(json.dumps(self.line), flush=True)


def chat(options, kind):
    """The arguments of a chat request of a kind."""
    arguments = {
        "model": options.model,
        "max_tokens": TOKENS,
        "messages": [{"role": "user", "content": BEGINNING}],
        # Hot enough that no engine ends at once.
        "temperature": 1.5,
    }
    if kind in ("usage", "bare", "abort", "choices"):
        arguments["stream"] = True
    if kind in ("usage", "choices"):
        arguments["stream_options"] = {"include_usage": True}
    if kind == "choices":
        arguments["n"] = 2
    if kind == "abort":
        arguments["max_tokens"] = 1024
    return arguments


def chunk_of_openai(seen, chunk):
    deltas = [choice.delta for choice in chunk.choices]
    if any(delta.content or getattr(delta, "reasoning_content", None) for delta in deltas):
        seen.token()
    if chunk.usage is not None:
        seen.usage(chunk.usage.completion_tokens)
    # Two tokens are enough of one that is given up.
    return seen.line["kind"] == "abort" and len(seen.tokens) == 2


def of_openai(make, options):
    return make(base_url=options.url + "/v1", api_key="none", max_retries=0, timeout=60)


def openai_sync(options, kind, number):
    client = of_openai(openai.OpenAI, options)
    for repeat in range(options.repeat):
        if options.fresh and repeat:
            client.close()
            client = of_openai(openai.OpenAI, options)
        seen = Seen(options, kind, number + repeat)
        answer = client.chat.completions.create(**chat(options, kind), extra_headers=seen.headers)
        if kind == "plain":
            seen.usage(answer.usage.completion_tokens)
        else:
            for chunk in answer:
                if chunk_of_openai(seen, chunk):
                    answer.close()
                    break
        seen.print()


async def openai_async(options, kind, number):
    client = of_openai(openai.AsyncOpenAI, options)
    for repeat in range(options.repeat):
        if options.fresh and repeat:
            await client.close()
            client = of_openai(openai.AsyncOpenAI, options)
        seen = Seen(options, kind, number + repeat)
        answer = await client.chat.completions.create(**chat(options, kind), extra_headers=seen.headers)
        if kind == "plain":
            seen.usage(answer.usage.completion_tokens)
        else:
            async for chunk in answer:
                if chunk_of_openai(seen, chunk):
                    await answer.close()
                    break
        seen.print()
    await client.close()


def messages(options, kind, number):
    for repeat in range(options.repeat):
        arguments = chat(options, "plain")
        # The library has no argument for it any more.
        del arguments["temperature"]
        # On a connection of its own, whatever the option says: what it takes to make a client is nobody's wait for a token.
        with anthropic.Anthropic(base_url=options.url, api_key="none", max_retries=0, timeout=60) as client:
            seen = Seen(options, kind, number + repeat)
            arguments |= {"extra_headers": seen.headers}
            if kind == "stream":
                with client.messages.stream(**arguments) as stream:
                    for event in stream:
                        if event.type == "content_block_delta":
                            seen.token()
                    seen.usage(stream.get_final_message().usage.output_tokens)
            else:
                seen.usage(client.messages.create(**arguments).usage.output_tokens)
            seen.print()


async def together(options, kinds):
    await asyncio.gather(*(openai_async(options, kind, 0) for kind in kinds))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("library", choices=["openai", "openai-async", "anthropic"])
    arguments.add_argument("--url", required=True, help="without /v1")
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--prefix", required=True, help="begins each x-request-id")
    arguments.add_argument("--repeat", type=int, default=3, help="requests of each kind")
    arguments.add_argument("--kinds", required=True, help="usage, bare, plain, choices, abort; stream and plain")
    arguments.add_argument("--fresh", action="store_true", help="a connection of its own for each request")
    options = arguments.parse_args()
    kinds = options.kinds.split(",")
    if options.library == "openai-async":
        asyncio.run(together(options, kinds))
        return 0
    for kind in kinds:
        (openai_sync if options.library == "openai" else messages)(options, kind, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
