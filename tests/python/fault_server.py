#!/usr/bin/env python3
"""A bare HTTP/1.1 server that answers as the request asks it to: well, or in a broken way.

Fields of a request's body: `answer`, one of those below; `say`, the completion text; `gap_s`, between events.
A request without a body, or whose body is no JSON, is answered with 400, and its connection is closed.

Prints its port, then serves until it is killed.
"""

import json
import socket
import threading
import time

TYPE = b"HTTP/1.1 200 OK\r\nContent-Type: "
STREAM = TYPE + b"text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunk(data):
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(document):
    return chunk(b"data: " + json.dumps(document).encode() + b"\n\n")


def token(model, text, finish=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({"id": "c", "object": "chat.completion.chunk", "model": model, "choices": [choice]})


def usage(count):
    return {"prompt_tokens": 7, "completion_tokens": count, "total_tokens": 7 + count}


def plain(send, model, words, _gap):
    message = {"role": "assistant", "content": " ".join(words)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    whole = {"id": "c", "object": "chat.completion", "model": model, "choices": [choice], "usage": usage(len(words))}
    body = json.dumps(whole).encode()
    send(TYPE + b"application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    return True


def stream(send, model, words, gap):
    send(STREAM)
    for number, word in enumerate(words):
        time.sleep(gap)
        send(token(model, word, "stop" if number + 1 == len(words) else None))
    send(event({"id": "c", "object": "chat.completion.chunk", "model": model, "choices": [], "usage": usage(len(words))}))
    send(chunk(b"data: [DONE]\n\n"))
    send(b"0\r\n\r\n")
    return True


def bad_chunk(send, model, words, gap):
    """A chunk whose size is no number, after a good one."""
    send(STREAM)
    time.sleep(gap)
    send(token(model, words[0]))
    send(b"nonsense\r\n" + token(model, words[0]))
    return False


def bad_head(send, _model, _words, _gap):
    """No status line."""
    send(b"\x00\x01\x02 what is this\r\n\r\n\r\n")
    return False


def bad_event(send, model, words, gap):
    """An event that is no JSON, between good ones."""
    send(STREAM)
    time.sleep(gap)
    send(token(model, words[0]))
    send(chunk(b'data: {"choices":[{"index":0,"delta":{"content":\n\n'))
    send(token(model, words[0], "stop"))
    send(chunk(b"data: [DONE]\n\n"))
    send(b"0\r\n\r\n")
    return True


ANSWERS = {one.__name__: one for one in (plain, stream, bad_chunk, bad_head, bad_event)}


def read_request(connection, buffered):
    while b"\r\n\r\n" not in buffered:
        data = connection.recv(65536)
        if not data:
            return None, b""
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
            return None, b""
        rest += data
    return rest[:length], rest[length:]


def serve(connection):
    buffered = b""
    with connection:
        while True:
            body, buffered = read_request(connection, buffered)
            if body is None:
                return
            try:
                document = json.loads(body)
            except ValueError:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            answer = ANSWERS[document.get("answer") or ("stream" if document.get("stream") else "plain")]
            words = document.get("say", "one two three").split(" ")
            if not answer(connection.sendall, document["model"], words, document.get("gap_s", 0)):
                return


listener = socket.create_server(("127.0.0.1", 0), backlog=512)
print(listener.getsockname()[1], flush=True)
while True:
    accepted, _ = listener.accept()
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(accepted,), daemon=True).start()
