#!/usr/bin/env python3
"""A server that ends in one of many ways when somebody connects, and whose parent asks at once how it ended. If it is
asked something, it answers first as an LLM server does.

    endings.py code N           exits with a code
    endings.py thread N         a thread that is not the first one exits with a code
    endings.py leader N         the first thread ends alone, a while before another one exits with a code
    endings.py signal N         sends itself a signal
    endings.py memory CGROUP    uses more memory than its cgroup has
    endings.py worker N         a worker that it forked, and that serves nothing, sends itself a signal; then it exits with 0
    endings.py exec N           runs another program, which exits with a code

Prints the server's process id and its port; a worker's id follows.
"""
import ctypes
import os
import socket
import sys
import threading
import time

how, argument = sys.argv[1:]


def end():
    if how == "code":
        os._exit(int(argument))
    if how == "thread":
        threading.Thread(target=lambda: os._exit(int(argument))).start()
        time.sleep(60)
    if how == "leader":
        def later():
            time.sleep(1.5)
            os._exit(int(argument))
        threading.Thread(target=later).start()
        # The first thread alone.
        ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
    if how == "signal":
        os.kill(os.getpid(), int(argument))
        time.sleep(60)
    if how == "memory":
        with open(os.path.join(argument, "cgroup.procs"), "w") as procs:
            procs.write(str(os.getpid()))
        hog = [bytearray(1 << 20) for _ in range(4096)]
        print(len(hog))
    if how == "worker":
        worker = os.fork()
        if worker == 0:
            time.sleep(0.3)
            os.kill(os.getpid(), int(argument))
        print(worker, flush=True)
        # Not asked for before it was looked at: a worker that nobody else knows of is known by what is left of it.
        time.sleep(1)
        os.waitpid(worker, 0)
        os._exit(0)
    if how == "exec":
        os.execvp("sh", ["sh", "-c", f"sleep 0.5; exit {argument}", "secret-argument"])


child = os.fork()
if child == 0:
    listener = socket.create_server(("127.0.0.1", 0))
    print(os.getpid(), listener.getsockname()[1], flush=True)
    connection, _ = listener.accept()
    if connection.recv(65536):
        body = (b'{"model":"m","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],'
                b'"usage":{"prompt_tokens":1,"completion_tokens":1}}')
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                           % (len(body), body))
        # It is known to serve when it ends.
        time.sleep(0.5)
    end()
    os._exit(99)
os.waitpid(child, 0)
# Whoever tests it may still have something to read.
sys.stdin.read()
time.sleep(60)
