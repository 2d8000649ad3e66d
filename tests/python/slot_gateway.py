"""A gateway that holds requests until one of its slots is free: real FastAPI and httpx, as gateways in Python are.

In: POST /v1/chat/completions; out: the upstream's answer, passed on as it comes. Per request one JSON line in the
log, {"request_id", "received_ns", "sent_ns"}: CLOCK_MONOTONIC when the application was called with the request, and
immediately before the upstream request. Prints its port, then serves until it is killed.
"""

import argparse
import asyncio
import json
import socket
import time

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

KEPT = ["x-request-id", "traceparent"]


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Slots:
    """So many at a time; who waits is let in first come, first served, or the other way round."""

    def __init__(self, free, last_first):
        self.free = free
        self.next = -1 if last_first else 0
        self.waiting = []

    async def take(self):
        if self.free:
            self.free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        await turn

    def give(self):
        if self.waiting:
            self.waiting.pop(self.next).set_result(None)
        else:
            self.free += 1


def application(options):
    app = FastAPI()
    slots = Slots(options.slots, options.last_first)
    client = httpx.AsyncClient(base_url=options.upstream, timeout=60, limits=httpx.Limits(max_connections=64))
    log = open(options.log, "a", encoding="utf-8")

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request):
        line = {"request_id": request.headers.get("x-request-id"), "received_ns": now_ns()}
        content = await request.body()
        headers = {"content-type": "application/json"}
        if options.strip:
            # Nothing is left that says which request this one came from.
            content = json.dumps(json.loads(content) | {"messages": [], "user": "gateway"}).encode()
        else:
            headers |= {name: request.headers[name] for name in KEPT if name in request.headers}
        await slots.take()
        upstream = client.build_request("POST", "/v1/chat/completions", content=content, headers=headers)
        line["sent_ns"] = now_ns()
        answer = await client.send(upstream, stream=True)

        async def passed_on():
            try:
                async for data in answer.aiter_raw():
                    yield data
            finally:
                await answer.aclose()
                slots.give()
                log.write(json.dumps(line) + "\n")
                log.flush()

        return StreamingResponse(passed_on(), answer.status_code, media_type=answer.headers["content-type"])

    return app


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--upstream", required=True)
    arguments.add_argument("--log", required=True)
    arguments.add_argument("--slots", type=int, default=2)
    arguments.add_argument("--strip", action="store_true", help="no ids upstream, and another body")
    arguments.add_argument("--last-first", action="store_true", help="who came last is served first")
    options = arguments.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(application(options), log_level="warning", access_log=False, lifespan="off")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


main()
