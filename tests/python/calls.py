#!/usr/bin/env python3
"""calls.py MODE: serves one connection, answering each request with a stream of events through the system
calls that MODE names. Prints its port.

    writev N      each event cut into N iovecs            sendmsg     one sendmsg of three buffers per event
    sendmmsg      two events per sendmmsg                 sendfile    the events from a file
    one-write     all events in one write                 peek        requests are peeked before they are read
    recvmsg       requests are read by recvmsg in pieces  bytewise    requests are read byte by byte
    trunc         the request's content is discarded with MSG_TRUNC
    dup           responses go through a descriptor made by dup            fcntl    through one made by F_DUPFD
    nonblocking   a small send buffer: writes are short or would block
"""
import ctypes
import fcntl
import json
import os
import select
import socket
import sys
import tempfile

mode = sys.argv[1]
EVENTS = 6
PAD = "y" * 40


def chunks():
    events = [json.dumps({"id": "c", "choices": [{"index": 0, "delta": {"content": f"t{n}"}, "pad": PAD}]})
              for n in range(EVENTS)]
    events.append(json.dumps({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": EVENTS}}))
    events.append("[DONE]")
    for event in events:
        data = f"data: {event}\n\n".encode()
        yield b"%x\r\n%b\r\n" % (len(data), data)


def cut(data, pieces):
    size = max(1, len(data) // pieces)
    parts = [data[at:at + size] for at in range(0, size * (pieces - 1), size)]
    return parts + [data[size * (pieces - 1):]]


def sendmmsg(connection, first, second):
    class Iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]

    class Msghdr(ctypes.Structure):
        _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(Iovec)),
                    ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                    ("flags", ctypes.c_int)]

    class Mmsghdr(ctypes.Structure):
        _fields_ = [("hdr", Msghdr), ("len", ctypes.c_uint)]

    iovecs = (Iovec * 2)(Iovec(first, len(first)), Iovec(second, len(second)))
    messages = (Mmsghdr * 2)()
    for n in range(2):
        messages[n].hdr.iov = ctypes.pointer(iovecs[n])
        messages[n].hdr.iovlen = 1
    sent = ctypes.CDLL(None, use_errno=True).sendmmsg(connection.fileno(), messages, 2, 0)
    assert sent == 2, os.strerror(ctypes.get_errno())


def respond(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    every = list(chunks())
    if mode == "writev":
        for chunk in every:
            parts = cut(chunk, int(sys.argv[2]))
            assert os.writev(connection.fileno(), parts) == len(chunk)
    elif mode == "sendmsg":
        for chunk in every:
            assert connection.sendmsg(cut(chunk, 3)) == len(chunk)
    elif mode == "sendmmsg":
        for n in range(0, len(every), 2):
            sendmmsg(connection, every[n], every[n + 1])
    elif mode == "sendfile":
        with tempfile.TemporaryFile() as file:
            file.write(b"".join(every))
            file.flush()
            total = file.tell()
            sent = 0
            while sent < total:
                sent += os.sendfile(connection.fileno(), file.fileno(), sent, total - sent)
    elif mode in ("dup", "fcntl"):
        number = connection.fileno()
        other = os.dup(number) if mode == "dup" else fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0)
        for chunk in every:
            os.write(other, chunk)
        os.close(other)
    elif mode == "one-write":
        connection.sendall(b"".join(every))
    elif mode == "nonblocking":
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        connection.setblocking(False)
        # A comment much larger than the buffer comes before each event: the first tries find no room.
        for chunk in every:
            comment = b": " + b"z" * 60000 + b"\n\n"
            data = b"%x\r\n%b\r\n" % (len(comment), comment) + chunk
            while data:
                try:
                    data = data[connection.send(data):]
                except BlockingIOError:
                    select.select([], [connection], [])
        connection.setblocking(True)
    else:
        for chunk in every:
            connection.sendall(chunk)
    connection.sendall(b"0\r\n\r\n")


def receive(connection, size):
    if mode == "peek":
        peeked = connection.recv(size, socket.MSG_PEEK)
        return connection.recv(len(peeked)) if peeked else b""
    if mode == "recvmsg":
        buffers = [bytearray(7), bytearray(11), bytearray(4096)]
        n = connection.recvmsg_into(buffers)[0]
        return b"".join(bytes(b) for b in buffers)[:n]
    if mode == "bytewise":
        return connection.recv(1)
    return connection.recv(size)


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
connection, _ = listener.accept()
connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
buffered = b""
while True:
    while b"\r\n\r\n" not in buffered:
        data = receive(connection, 1 if mode == "trunc" else 65536)
        if not data:
            connection.close()
            sys.exit(0)
        buffered += data
    head, rest = buffered.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    if mode == "trunc":
        left = length
        while left:
            left -= len(connection.recv(left, socket.MSG_TRUNC))
        rest = b"x" * length
    while len(rest) < length:
        rest += receive(connection, 65536)
    buffered = rest[length:]
    respond(connection)
