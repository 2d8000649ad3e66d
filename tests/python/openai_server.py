#!/usr/bin/env python3
"""A bare HTTP/1.1 server that answers like an OpenAI-compatible engine: well, or in a broken way, as the request
asks it to. No framework: every system call is one that is written here.

    openai_server.py [--port N] [--mode thread|fork|leader-exits|inline] [--events N] [--gap SECONDS]

Fields of a request's body beside the API's own, all optional:
  answer   one of ANSWERS below; without it `stream` or `plain`, as the API's `stream` says
  events   token-bearing events
  say      the completion's text, one event per word, in place of `events` made-up ones
  gap_s    seconds before each event
  delay_s  seconds before the response head
  pause_s  seconds in the middle of a stream
  status   of the answer `refuse`
  width    bytes of each of the made-up events' text
  coding   "gzip": the content of the answers `plain` and `stream` is coded so
  bytewise true: each byte is sent by a call of its own
  prompt   prompt tokens that the usage counts, in place of 7
  fields   header lines of the response beside its own, each with its end
  hold_s   seconds before the next request of the connection is read

Content of a request that is coded with gzip is decoded.

A request for an upgrade gets it, and then what it sends. One that is no GET and has no JSON is answered with 400, and its connection is closed. Prints its port, then
serves until it is killed.
"""

import argparse
import ctypes
import gzip
import json
import os
import socket
import threading
import time
import zlib

TYPE = b"HTTP/1.1 200 OK\r\nContent-Type: "
CODED = b"Content-Encoding: gzip\r\n"
STREAM = TYPE + b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
JSON = b"application/json\r\nContent-Length: %d\r\n\r\n%b"
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document):
    return chunk(b"data: " + json.dumps(document).encode() + b"\n\n")


class Gzip:
    """Codes each chunk of a stream so that it can be decoded before the next one comes."""

    def __init__(self, send):
        self.send = send
        self.coder = zlib.compressobj(wbits=31)

    def __call__(self, data):
        if data == LAST:
            return self.send(chunk(self.coder.flush()) + LAST)
        if data == STREAM:
            return self.send(STREAM.replace(b"\r\n\r\n", b"\r\n" + CODED + b"\r\n"))
        content = b""
        while data:
            size, _, rest = data.partition(b"\r\n")
            content += rest[: int(size, 16)]
            data = rest[int(size, 16) + 2 :]
        self.send(chunk(self.coder.compress(content) + self.coder.flush(zlib.Z_SYNC_FLUSH)))


class Answer:
    """One request, and the ways to answer it. Each way says whether the connection can be used again."""

    def __init__(self, send, document, options):
        self.send = send
        if document.get("bytewise"):
            self.send = lambda data: [send(data[at : at + 1]) for at in range(len(data))]
        self.is_coded = document.get("coding") == "gzip"
        self.model = document.get("model", "m")
        width = document.get("width", 0)
        self.words = [f"t{number}".ljust(width, "x") for number in range(int(document.get("events", options.events)))]
        if "say" in document:
            self.words = document["say"].split(" ")
        self.gap_s = document.get("gap_s", options.gap)
        self.pause_s = document.get("pause_s", 0)
        self.status = document.get("status", 500)
        self.prompt = document.get("prompt", 7)
        if fields := document.get("fields"):
            send = self.send
            self.send = lambda data: send(data.replace(b"\r\n", b"\r\n" + fields.encode(), 1) if data.startswith(b"HTTP/") else data)

    def usage(self):
        count = len(self.words)
        return {"prompt_tokens": self.prompt, "completion_tokens": count, "total_tokens": self.prompt + count}

    def chunk_of(self, choices, **more):
        return event({"id": "c", "object": "chat.completion.chunk", "model": self.model, "choices": choices, **more})

    def token(self, number, finish=None):
        time.sleep(self.gap_s)
        delta = {"content": self.words[number]}
        self.send(self.chunk_of([{"index": 0, "delta": delta, "finish_reason": finish}]))

    def tokens(self):
        """The head and the tokens of a stream."""
        self.send(STREAM)
        for number in range(len(self.words)):
            if self.pause_s and number == len(self.words) // 2:
                time.sleep(self.pause_s)
            self.token(number, "stop" if number + 1 == len(self.words) else None)

    def plain(self):
        message = {"role": "assistant", "content": " ".join(self.words)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        whole = {"id": "c", "object": "chat.completion", "model": self.model, "choices": [choice]}
        body = json.dumps({**whole, "usage": self.usage()}).encode()
        head = JSON
        if self.is_coded:
            body = gzip.compress(body)
            head = JSON.replace(b"\r\n", b"\r\n" + CODED, 1)
        self.send(TYPE + head % (len(body), body))
        return True

    def stream(self):
        if self.is_coded:
            self.send = Gzip(self.send)
        self.tokens()
        self.send(self.chunk_of([], usage=self.usage()) + chunk(DONE))
        self.send(LAST)
        return True

    def unterminated(self):
        """A stream that ends in order, but without [DONE]."""
        self.send(STREAM)
        for number in range(len(self.words)):
            self.token(number)
        self.send(LAST)
        return True

    def error(self):
        """An error object in the middle of a stream, whose end is orderly."""
        self.send(STREAM)
        self.token(0)
        self.send(event({"error": {"message": "out of memory", "type": "server_error", "code": 500}}))
        self.send(chunk(DONE))
        self.send(LAST)
        return True

    def error_at_end(self):
        """An error object after which nothing more comes."""
        self.send(STREAM)
        self.token(0)
        self.send(event({"error": {"message": "out of memory", "type": "server_error", "code": 500}}))
        self.send(LAST)
        return True

    def refuse(self):
        """Another status than 200."""
        body = json.dumps({"error": {"message": "no", "type": "refused", "code": self.status}}).encode()
        self.send(b"HTTP/1.1 %d No\r\nContent-Type: " % self.status + JSON % (len(body), body))
        return True

    def cut(self):
        """A stream that breaks off inside a chunk."""
        self.send(STREAM)
        self.token(0)
        self.send(b"40\r\ndata: {")
        return False

    def bad_chunk(self):
        """A chunk whose size is no number, after a good one."""
        self.send(STREAM)
        self.token(0)
        self.send(b"nonsense\r\n" + chunk(DONE))
        return False

    def bad_head(self):
        """No status line."""
        self.send(b"\x00\x01\x02 what is this\r\n\r\n\r\n")
        return False

    def bad_event(self):
        """An event that is no JSON, between good ones."""
        self.send(STREAM)
        self.token(0)
        self.send(chunk(b'data: {"choices":[{"index":0,"delta":{"content":\n\n'))
        self.token(0, "stop")
        self.send(chunk(DONE))
        self.send(LAST)
        return True


ANSWERS = [
    *("plain", "stream", "unterminated", "error", "error_at_end", "refuse", "cut"),
    *("bad_chunk", "bad_head", "bad_event"),
]


def read_request(connection, buffered):
    while b"\r\n\r\n" not in buffered:
        data = connection.recv(65536)
        if not data:
            return None, None, b""
        buffered += data
    head, rest = buffered.split(b"\r\n\r\n", 1)
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value) if value.strip().isdigit() else 0
    while len(rest) < length:
        data = connection.recv(65536)
        if not data:
            return None, None, b""
        rest += data
    return head, rest[:length], rest[length:]


def serve(connection, options):
    buffered = b""
    while True:
        head, body, buffered = read_request(connection, buffered)
        if head is None:
            return
        if b"\r\nupgrade: " in head.lower():
            connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := connection.recv(65536):
                connection.sendall(data)
            return
        if head.startswith(b"GET "):
            connection.sendall(TYPE + JSON % (2, b"{}"))
            continue
        try:
            is_coded = b"content-encoding: gzip" in head.lower()
            document = json.loads(gzip.decompress(body) if is_coded else body)
        except ValueError:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        time.sleep(document.get("delay_s", 0))
        answer = document.get("answer") or ("stream" if document.get("stream") else "plain")
        assert answer in ANSWERS, answer
        if not getattr(Answer(connection.sendall, document, options), answer)():
            return
        time.sleep(document.get("hold_s", 0))


def serve_and_close(connection, options):
    with connection:
        try:
            serve(connection, options)
        except (BrokenPipeError, ConnectionResetError):
            # The client has gone.
            pass


def accept_forever(listener, options):
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if options.mode == "fork":
            if os.fork() == 0:
                listener.close()
                serve_and_close(connection, options)
                os._exit(0)
            connection.close()
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                pass
        elif options.mode == "inline":
            serve_and_close(connection, options)
        else:
            threading.Thread(target=serve_and_close, args=(connection, options), daemon=True).start()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--mode", default="thread", choices=["thread", "fork", "leader-exits", "inline"])
    arguments.add_argument("--events", type=int, default=4)
    arguments.add_argument("--gap", type=float, default=0.0)
    options = arguments.parse_args()
    listener = socket.create_server(("127.0.0.1", options.port), backlog=512)
    print(listener.getsockname()[1], flush=True)
    if options.mode == "leader-exits":
        threading.Thread(target=accept_forever, args=(listener, options)).start()
        # pthread_exit ends the leader thread alone; the process lives on with the other one.
        ctypes.CDLL(None).syscall(60, 0)
    accept_forever(listener, options)


if __name__ == "__main__":
    main()
