#!/usr/bin/env python3
"""Many connections: crowd.py ADDRESS WHAT ARGUMENT... (addresses as for client.py; tls:ADDRESS for hold, serial and reset over TLS)

hold N SIZE FILE   N connections, each carries SIZE bytes there and back; prints "held N" and keeps them until FILE exists,
                   then each carries 64 more, ends, and has to see the end; prints "done N"
serial N           N connections, one after the other: 16 bytes, end, the same 16 back, the end; prints "done N"
reset N            N connections, one after the other: some bytes, and a reset
parallel N SIZE    N at the same time, each with bytes of its own: SIZE bytes and end, all of it back; prints "done N"
ask N              N at the same time: each sends its number in a line and end, and wants "hello NUMBER" back; prints "done N"
gather N SIZE      N at the same time: each sends nothing and wants SIZE bytes and the end; prints "done N"
burst N SECONDS FILE   starts N connects at once; prints "connected K": those that were connected within SECONDS; keeps them until FILE
                   exists
load N REQUEST ANSWER KILLED STOP   N at the same time, one request after the other until STOP exists: each sends REQUEST and wants to
                   the end what ends in ANSWER; prints how many went "well", how many have "failed", and how many of these began
                   "after" KILLED existed
What does not go as it should is printed, and the exit status is 1."""

import codecs
import functools
import os
import random
import resource
import select
import socket
import struct
import sys
import threading
import time

TIMEOUT = 60


def parse(address):
    if address.startswith("unix:"):
        return socket.AF_UNIX, address[5:]
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    return socket.AF_INET6 if ":" in host else socket.AF_INET, (host, int(port))


@functools.cache
def tls_module():
    sys.dont_write_bytecode = True  # nothing is left among the sources
    import tls_socket  # which takes its time

    return tls_socket, tls_socket.client_context()


def over_tls(plain):
    tls_socket, context = tls_module()
    return tls_socket.TlsSocket(plain, context)


def connect(address):
    if address.startswith("tls:"):
        return over_tls(connect(address[4:]))
    family, where = parse(address)
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(TIMEOUT)
    s.connect(where)
    return s


def read_exactly(s, count):
    data = b""
    while len(data) < count:
        piece = s.recv(count - len(data))
        if not piece:
            sys.exit("eof after %d of %d" % (len(data), count))
        data += piece
    return data


def carry(s, data):
    """Small enough for the kernel's buffers, or in pieces that are."""
    for start in range(0, len(data), 16384):
        piece = data[start : start + 16384]
        s.sendall(piece)
        if read_exactly(s, len(piece)) != piece:
            sys.exit("differs")


def hold(address, count, size, file):
    data = random.Random(1).randbytes(int(size))
    held = []
    for _ in range(int(count)):
        s = connect(address)
        carry(s, data)
        held.append(s)
    print("held", count, flush=True)
    deadline = time.monotonic() + 300
    while not os.path.exists(file):
        if time.monotonic() > deadline:
            sys.exit("nobody let go")
        time.sleep(0.02)
    for s in held:
        carry(s, data[:64])
        s.shutdown(socket.SHUT_WR)
    for s in held:
        if s.recv(1):
            sys.exit("more than was sent")
    print("done", count)


def serial(address, count):
    for i in range(int(count)):
        data = b"%016d" % i
        with connect(address) as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            if read_exactly(s, 16) != data or s.recv(1):
                sys.exit("connection %d got something else" % i)
    print("done", count)


def reset(address, count):
    for i in range(int(count)):
        with connect(address) as s:
            s.sendall(b"x" * (1 + i % 7 * 1000))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    print("done", count)


def together(address, requests, answers):
    """Sends requests[i] on connection i and then the end, and wants answers[i] and the end."""
    poll = select.epoll()
    connections = {}
    for i, request in enumerate(requests):
        s = connect(address)
        s.setblocking(False)
        connections[s.fileno()] = [i, s, request, b""]
        poll.register(s, select.EPOLLIN | select.EPOLLOUT)
    while connections:
        events = poll.poll(TIMEOUT)
        if not events:
            sys.exit("timeout: %d connections have not ended" % len(connections))
        for fd, event in events:
            c = connections[fd]
            i, s, request, got = c
            if request and event & select.EPOLLOUT:
                sent = s.send(request[:65536])
                c[2] = request = request[sent:]
                if not request:
                    s.shutdown(socket.SHUT_WR)
                    poll.modify(s, select.EPOLLIN)
            if event & ~select.EPOLLOUT:
                try:
                    piece = s.recv(65536)
                except BlockingIOError:
                    continue
                c[3] = got = got + piece
                if not piece:
                    if got != answers[i]:
                        sys.exit("connection %d got %d bytes of %d: %r" % (i, len(got), len(answers[i]), got[:80]))
                    poll.unregister(s)
                    s.close()
                    del connections[fd]
    print("done", len(requests))


def parallel(address, count, size):
    requests = [random.Random(i).randbytes(int(size)) for i in range(int(count))]
    together(address, requests, requests)


def ask(address, count):
    numbers = [b"%d" % i for i in range(int(count))]
    together(address, [n + b"\n" for n in numbers], [b"hello " + n + b"\n" for n in numbers])


def gather(address, count, size):
    poll = select.epoll()
    left = {}
    for _ in range(int(count)):
        s = connect(address)
        left[s.fileno()] = [s, int(size)]
        poll.register(s, select.EPOLLIN)
    while left:
        events = poll.poll(TIMEOUT)
        if not events:
            sys.exit("timeout: %d connections have not ended" % len(left))
        for fd, _ in events:
            piece = left[fd][0].recv(65536)
            left[fd][1] -= len(piece)
            if not piece:
                if left[fd][1] != 0:
                    sys.exit("%d of %s bytes are missing" % (left[fd][1], size))
                poll.unregister(fd)
                left.pop(fd)[0].close()
    print("done", count)


def burst(address, count, seconds, file):
    family, where = parse(address)
    poll = select.epoll()
    sockets = {}
    for _ in range(int(count)):
        s = socket.socket(family, socket.SOCK_STREAM)
        s.setblocking(False)
        s.connect_ex(where)
        sockets[s.fileno()] = s
        poll.register(s, select.EPOLLOUT | select.EPOLLONESHOT)
    connected = 0
    deadline = time.monotonic() + float(seconds)
    while connected < len(sockets) and time.monotonic() < deadline:
        for fd, _ in poll.poll(max(0, deadline - time.monotonic())):
            if sockets[fd].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                connected += 1
    print("connected", connected, flush=True)
    while not os.path.exists(file):
        time.sleep(0.02)


def request_once(address, request, answer):
    try:
        with connect(address) as s:
            s.sendall(request)
            got = b""
            while piece := s.recv(65536):
                got += piece
            return got.endswith(answer)
    except OSError:
        return False


def load(address, count, request, answer, killed, stop):
    request, answer = (codecs.decode(text, "unicode_escape").encode() for text in (request, answer))
    counts = {"well": 0, "failed": 0, "after": 0}

    def work():
        while not os.path.exists(stop):
            after = os.path.exists(killed)
            well = request_once(address, request, answer)
            with lock:
                counts["well" if well else "failed"] += 1
                counts["after"] += after and not well

    lock = threading.Lock()
    threads = [threading.Thread(target=work) for _ in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("well %(well)d failed %(failed)d after %(after)d" % counts)


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    what = {f.__name__: f for f in (hold, serial, reset, parallel, ask, gather, burst, load)}[sys.argv[2]]
    what(sys.argv[1], *sys.argv[3 : what.__code__.co_argcount + 2])


main()
