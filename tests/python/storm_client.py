#!/usr/bin/env python3
"""storm_client.py PORT N: opens N connections from two threads, sends a request on every second one."""
import socket
import sys
import threading

port, total = int(sys.argv[1]), int(sys.argv[2])
THREADS = 2


def work(first):
    for number in range(first, total, THREADS):
        # Many source addresses: the ports of one would run out.
        connection = socket.create_connection(("127.0.0.1", port), source_address=(f"127.0.0.{2 + number % 250}", 0))
        if number // THREADS % 2 == 0:
            body = b'{"model":"m%d"}' % number
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
                               % (len(body), body))
            while connection.recv(65536):
                pass
        connection.close()


print("started", flush=True)
threads = [threading.Thread(target=work, args=(first,)) for first in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
