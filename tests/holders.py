#!/usr/bin/env python3
"""Connections that stay: holders.py PORT COUNT NETWORK EACH FULL GO

COUNT connections to PORT of 127.0.0.1, EACH of them from one address (127.NETWORK.x.y): every one is used, then stays idle; prints "held COUNT".
If FULL is "full", each address has as many as it may: one more has to be closed at once, for each; prints "refused N". One of each address
leaves then, and another one comes in its place; prints "replaced N". When GO exists all are used again, and end; prints "done COUNT".
What does not go as it should is printed, and the exit status is 1."""

import os
import resource
import socket
import sys
import time

TIMEOUT = 60


def connect(port, source):
    s = socket.socket()
    s.settimeout(TIMEOUT)
    s.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
    s.bind((source, 0))
    s.connect(("127.0.0.1", port))
    return s


def use(s):
    for piece in (b"hello", b"x" * 64):
        s.sendall(piece)
        got = b""
        while len(got) < len(piece):
            more = s.recv(len(piece) - len(got))
            if not more:
                sys.exit("ended by the server")
            got += more
        if got != piece:
            sys.exit("differs")


def is_refused(s):
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def leave(s):
    s.shutdown(socket.SHUT_WR)
    if s.recv(1):
        sys.exit("more than was sent")
    s.close()


def at_the_limit(port, sources, held):
    for source in sources:
        with connect(port, source) as s:
            if not is_refused(s):
                sys.exit("one too many from " + source)
    print("refused", len(sources), flush=True)
    for i, source in enumerate(sources):
        leave(held[i])
        deadline = time.monotonic() + TIMEOUT
        while True:  # the client sees the end a moment before the server counts it
            held[i] = connect(port, source)
            try:
                use(held[i])
                break
            except (SystemExit, OSError):
                if time.monotonic() > deadline:
                    sys.exit("no place for another one from " + source)
                held[i].close()
    print("replaced", len(sources), flush=True)


def main(port, count, network, each, full, go):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count, each = int(count), int(each)
    sources = ["127.%s.%d.%d" % (network, i // 250, 1 + i % 250) for i in range((count + each - 1) // each)]
    held = []
    for i in range(count):
        held.append(connect(int(port), sources[i % len(sources)]))
        use(held[-1])
    print("held", count, flush=True)
    if full == "full":
        at_the_limit(int(port), sources, held)
    while not os.path.exists(go):
        time.sleep(0.02)
    for s in held:
        use(s)
    for s in held:
        leave(s)
    print("done", count)


main(*sys.argv[1:])
