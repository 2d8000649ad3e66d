#!/usr/bin/env python3
"""Processes that make it hard to tell which connection a descriptor is.

    identity.py storm N        serve N connections on two threads, every second one closed without a byte
    identity.py cloexec        read a request, exec, and write to a file under the connection's descriptor
    identity.py echo           a busy protocol that is not HTTP
    identity.py web            a plain web server on one connection at a time
    identity.py writer N       after one request, write N times 100 bytes as one response

Prints its port, then serves.
"""
import os
import socket
import sys
import tempfile
import threading

mode = sys.argv[1]
ANSWER = (b'{"id":"c","model":"%b","choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}],'
          b'"usage":{"prompt_tokens":1,"completion_tokens":%d}}')


def storm(listener, total):
    left = [total]
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if left[0] <= 0:
                    return
                left[0] -= 1
            connection, _ = listener.accept()
            data = connection.recv(65536)
            if data:
                model = data.split(b'"model":"', 1)[1].split(b'"', 1)[0]
                body = ANSWER % (model, int(model[1:]) % 50 + 1)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                                   b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("done", flush=True)
    sys.stdin.read()


if mode == "after-exec":
    number = int(sys.argv[2])
    holders = []
    while True:
        file = tempfile.TemporaryFile()
        holders.append(file)
        if file.fileno() >= number:
            break
    assert file.fileno() == number, "the connection's descriptor is free after the exec"
    for _ in range(10):
        os.write(number, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    os.lseek(number, 0, 0)
    os.read(number, 1000)
    print("done", flush=True)
    # Stay, so that nothing ends by the process's end.
    import time
    time.sleep(60)
    sys.exit(0)

listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
print(listener.getsockname()[1], flush=True)
if mode == "storm":
    storm(listener, int(sys.argv[2]))
elif mode == "cloexec":
    connection, _ = listener.accept()
    connection.recv(65536)
    listener.close()
    os.execv(sys.executable, [sys.executable, "-u", __file__, "after-exec", str(connection.fileno())])
elif mode == "echo":
    while True:
        connection, _ = listener.accept()
        while data := connection.recv(65536):
            connection.sendall(data)
        connection.close()
elif mode == "web":
    while True:
        connection, _ = listener.accept()
        buffered = b""
        while data := connection.recv(65536):
            buffered += data
            while b"\r\n\r\n" in buffered:
                head, buffered = buffered.split(b"\r\n\r\n", 1)
                if head.startswith(b"POST"):
                    buffered = buffered[4:]
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        connection.close()
elif mode == "writer":
    total = int(sys.argv[2])
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % (total * 100))
    for _ in range(total):
        connection.send(b"x" * 100)
    connection.close()
    print("done", flush=True)
