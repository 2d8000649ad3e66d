"""A FastAPI application that streams chat completions in vLLM's shape, by a script, and logs its own clock.

In: POST /v1/chat/completions whose body carries an extra field `script`; out: the stream, and for each body chunk
one JSON line {"request_id", "event", "ns", "bytes"}: CLOCK_MONOTONIC immediately before the ASGI send.

Fields of a script, all optional:
  head_delay_s         seconds before the response head
  first_token_delay_s  seconds between the head (with the role event) and the first token
  events               token-bearing events (16)
  gap_ms               milliseconds between them
  pause_after          number of events after which the stream pauses once
  pause_s              seconds that it pauses
  bytes_per_event      bytes of content per event (8)
  max_rate             no gaps and no yielding to other requests in between: as fast as the server can

With --read-delay-ms N the event loop is blocked for N ms after it learnt that a connection has data and before it
reads them: they lie in the socket for that long. Each such read is logged as
{"peer", "ready_ns", "read_ns"}: the clock when the data were known to be there, and when reading began.
"""

import argparse
import asyncio
import json
import selectors
import socket
import sys
import time
import uuid

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

MODEL = "scripted"


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Log:
    """JSON lines; those of one request are kept until its end, so that writing does not disturb its stream."""

    def __init__(self, path):
        self.file = open(path, "a", encoding="utf-8") if path else None

    def write(self, lines):
        if self.file is not None:
            self.file.write("".join(json.dumps(line) + "\n" for line in lines))
            self.file.flush()


class SendClock:
    """ASGI middleware: the clock immediately before each send of a piece of a response body."""

    def __init__(self, app, log):
        self.app = app
        self.log = log

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = headers.get(b"x-request-id", b"").decode("latin-1")
        sends = []

        async def timed(message):
            if message["type"] == "http.response.body" and message.get("body"):
                # Nothing may come between the clock and the send: the list entry is made first.
                entry = {"request_id": request_id, "event": len(sends), "ns": 0, "bytes": len(message["body"])}
                sends.append(entry)
                entry["ns"] = now_ns()
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                # Whoever has seen the end of a stream finds all of its lines in the log.
                self.log.write(sends)
                sends.clear()
            await send(message)

        try:
            await self.app(scope, receive, timed)
        finally:
            # A plain response, or a stream that was cut off.
            self.log.write(sends)


class LateSelector(selectors.DefaultSelector):
    """Blocks the event loop between the news that a connection is readable and the read."""

    def __init__(self, delay_s, log):
        super().__init__()
        self.delay_s = delay_s
        self.log = log

    def select(self, timeout=None):
        ready = super().select(timeout)
        peers = [peer for key, mask in ready if mask & selectors.EVENT_READ for peer in self.peer(key.fd)]
        if peers:
            ready_ns = now_ns()
            time.sleep(self.delay_s)
            read_ns = now_ns()
            self.log.write({"peer": peer, "ready_ns": ready_ns, "read_ns": read_ns} for peer in peers)
        return ready

    @staticmethod
    def peer(fd):
        """The other end of a TCP connection; nothing for listeners and for the loop's own wake-up pipe."""
        try:
            one = socket.socket(fileno=fd)
        except OSError:
            return
        try:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                host, port = one.getpeername()[:2]
                yield f"{host}:{port}"
        except OSError:
            return
        finally:
            one.detach()


app = FastAPI()


@app.get("/health")
async def health():
    return {}


@app.get("/v1/models")
async def models():
    return {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "tests"}]}


@app.post("/v1/chat/completions")
async def chat_completions(request: Request):
    body = await request.json()
    script = body.get("script") or {}
    if script.get("head_delay_s"):
        await asyncio.sleep(script["head_delay_s"])
    identity = f"chatcmpl-{uuid.uuid4().hex}"
    usage = {
        "prompt_tokens": len(body.get("messages", [])) + 7,
        "completion_tokens": script.get("events", 16),
    }
    usage["total_tokens"] = sum(usage.values())
    if not body.get("stream"):
        content = "".join(word(number, script) for number in range(script.get("events", 16)))
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        whole = {"id": identity, "object": "chat.completion", "created": int(time.time()), "model": MODEL}
        return JSONResponse(whole | {"choices": [choice], "usage": usage})
    with_usage = (body.get("stream_options") or {}).get("include_usage", False)
    return StreamingResponse(events(identity, script, usage if with_usage else None), media_type="text/event-stream")


def word(number, script):
    """The content of one event: exactly so many bytes, each event another text."""
    return f"{number:>{script.get('bytes_per_event', 8)}}"[: script.get("bytes_per_event", 8)]


async def events(identity, script, usage):
    """The events of one stream, as vLLM writes them."""
    head = {"id": identity, "object": "chat.completion.chunk", "created": int(time.time()), "model": MODEL}

    def event(delta, finish_reason=None):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"

    yield event({"role": "assistant", "content": ""})
    await asyncio.sleep(script.get("first_token_delay_s", 0))
    count = script.get("events", 16)
    gap_s = script.get("gap_ms", 0) / 1000
    for number in range(count):
        if number and number == script.get("pause_after"):
            await asyncio.sleep(script.get("pause_s", 0))
        elif number and not script.get("max_rate"):
            await asyncio.sleep(gap_s)
        # The finish reason comes in the last token's event.
        yield event({"content": word(number, script)}, "stop" if number + 1 == count else None)
    if usage is not None:
        yield f"data: {json.dumps(head | {'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


def event_loop(options, log):
    """The event loop that the options ask for."""
    if options.read_delay_ms:
        # uvloop reads inside libuv, where no delay can be put.
        return asyncio.SelectorEventLoop(LateSelector(options.read_delay_ms / 1000, log))
    if options.loop == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    return asyncio.SelectorEventLoop()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=0, help="0 chooses one; the first line of output tells it")
    arguments.add_argument("--log", help="file for the server's own clock; lines are appended")
    arguments.add_argument("--read-delay-ms", type=float, default=0, help="implies --loop asyncio")
    arguments.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    arguments.add_argument("--http", choices=["httptools", "h11"], default="httptools")
    options = arguments.parse_args()

    log = Log(options.log)
    loop = event_loop(options, log)
    asyncio.set_event_loop(loop)
    listener = socket.create_server((options.host, options.port), backlog=1024)
    # The loop is made here: uvicorn is not to choose one.
    config = uvicorn.Config(
        SendClock(app, log), http=options.http, loop="none", log_level="warning", access_log=False, lifespan="off"
    )
    print(f"listening on {options.host}:{listener.getsockname()[1]}", flush=True)
    loop.run_until_complete(uvicorn.Server(config).serve(sockets=[listener]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
