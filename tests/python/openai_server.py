#!/usr/bin/env python3
"""A bare HTTP/1.1 server that answers like an OpenAI-compatible engine. No framework: every system call is
the one written here.

    openai_server.py [--mode thread|fork|leader-exits|inline] [--events N] [--gap SECONDS]

Prints its port, then serves until it is killed.
"""
import argparse
import json
import os
import socket
import threading
import time

arguments = argparse.ArgumentParser()
arguments.add_argument("--mode", default="thread", choices=["thread", "fork", "leader-exits", "inline"])
arguments.add_argument("--events", type=int, default=4)
arguments.add_argument("--gap", type=float, default=0.0)
options = arguments.parse_args()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document) -> bytes:
    return chunk(b"data: " + json.dumps(document).encode() + b"\n\n")


def read_request(connection, buffered: bytes):
    while b"\r\n\r\n" not in buffered:
        data = connection.recv(65536)
        if not data:
            return None, b""
        buffered += data
    head, rest = buffered.split(b"\r\n\r\n", 1)
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, value = line.split(b":", 1)
        if name.lower() == b"content-length":
            length = int(value)
    while len(rest) < length:
        data = connection.recv(65536)
        if not data:
            return None, b""
        rest += data
    return (head, rest[:length]), rest[length:]


def serve(connection):
    buffered = b""
    while True:
        request, buffered = read_request(connection, buffered)
        if request is None:
            break
        head, body = request
        method, target = head.split(b" ", 2)[:2]
        if method != b"POST":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")
            continue
        document = json.loads(body or b"{}")
        events = int(document.get("events", options.events))
        model = document.get("model", "m")
        usage = {"prompt_tokens": 7, "completion_tokens": events, "total_tokens": 7 + events}
        if not document.get("stream"):
            text = json.dumps({"id": "c", "object": "chat.completion", "model": model, "usage": usage,
                               "choices": [{"index": 0, "finish_reason": "stop",
                                            "message": {"role": "assistant", "content": "x" * events}}]}).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                               % (len(text), text))
            continue
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        base = {"id": "c", "object": "chat.completion.chunk", "model": model}
        for number in range(events):
            if options.gap:
                time.sleep(options.gap)
            finish = "stop" if number == events - 1 else None
            connection.sendall(event({**base, "choices": [
                {"index": 0, "delta": {"content": f"t{number}"}, "finish_reason": finish}]}))
        connection.sendall(event({**base, "choices": [], "usage": usage}) + chunk(b"data: [DONE]\n\n"))
        connection.sendall(b"0\r\n\r\n")
    connection.close()


def accept_forever(listener):
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options.mode == "fork":
            if os.fork() == 0:
                listener.close()
                serve(connection)
                os._exit(0)
            connection.close()
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        elif options.mode == "inline":
            serve(connection)
        else:
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
if options.mode == "leader-exits":
    import ctypes
    threading.Thread(target=accept_forever, args=(listener,)).start()
    # pthread_exit ends the leader thread alone; the process lives on with the other one.
    ctypes.CDLL(None).syscall(60, 0)
accept_forever(listener)
