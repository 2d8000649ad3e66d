#!/usr/bin/env python3
"""Processes that come by their connections in every way there is, and answer like openai_server.py.

    adoption.py reuseport N   N processes, each with a listener of its own on one port
    adoption.py prefork N     the parent listens, N children accept
    adoption.py inherited N   N programs accept from a listener that they were started with, and never listen
    adoption.py passed        the parent accepts, and passes each connection to a child over a Unix socket
    adoption.py next          each connection gets the number that the one before it had, as soon as that is closed
    adoption.py unix PATH     a server on a Unix socket

Prints its port, or for `unix` its path, then serves until it is killed; its children end with it.
"""
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import types

from openai_server import Answer, accept_forever, read_request, serve_and_close

OPTIONS = types.SimpleNamespace(mode="thread", events=4, gap=0.0)
PR_SET_PDEATHSIG = 1


def bound(listening):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", listening))
    return listener


def end_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def children(count, work):
    for _ in range(count):
        if os.fork() == 0:
            end_with_parent()
            work()
            os._exit(0)


def reuseport(count):
    # Bound and not listening: the port is taken, and no connection comes here.
    reserved = bound(0)
    port = reserved.getsockname()[1]
    ready, is_ready = os.pipe()

    def work():
        listener = bound(port)
        listener.listen(64)
        os.write(is_ready, b"x")
        accept_forever(listener, OPTIONS)

    children(count, work)
    for _ in range(count):
        os.read(ready, 1)
    print(port, flush=True)


def prefork(count):
    listener = socket.create_server(("127.0.0.1", 0))
    children(count, lambda: accept_forever(listener, OPTIONS))
    print(listener.getsockname()[1], flush=True)


def inherited(count):
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.fileno()
    for _ in range(count):
        command = [sys.executable, "-u", __file__, "accept-from", str(number)]
        subprocess.Popen(command, pass_fds=[number], preexec_fn=end_with_parent)
    print(listener.getsockname()[1], flush=True)


def passed():
    listener = socket.create_server(("127.0.0.1", 0))
    ours, theirs = socket.socketpair()

    def work():
        listener.close()
        while True:
            _, numbers, _, _ = socket.recv_fds(theirs, 1, 1)
            serve_and_close(socket.socket(fileno=numbers[0]), OPTIONS)

    children(1, work)
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        socket.send_fds(ours, [b"x"], [connection.fileno()])
        connection.close()


def next_number():
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    print(listener.getsockname()[1], flush=True)
    first = None
    while True:
        connection, _ = listener.accept()
        number = connection.fileno()
        first = first or number
        assert number == first, f"{number} after {first}"
        _, body, _ = read_request(connection, b"")
        document = json.loads(body)
        getattr(Answer(connection.sendall, document, OPTIONS), "stream" if document["stream"] else "plain")()
        connection.close()


def main():
    mode, argument = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
    if mode == "accept-from":
        return accept_forever(socket.socket(fileno=int(argument)), OPTIONS)
    if mode == "unix":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(argument)
        listener.listen(64)
        print(argument, flush=True)
        while True:
            serve_and_close(listener.accept()[0], OPTIONS)
    if mode == "passed":
        passed()
    elif mode == "next":
        next_number()
    else:
        {"reuseport": reuseport, "prefork": prefork, "inherited": inherited}[mode](int(argument))
        signal.pause()


main()
