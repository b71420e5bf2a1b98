#!/usr/bin/env python3
"""Clients that connect all the time: storm.py SECONDS ADDRESS (a port of 127.0.0.1, or a path)

Each sends a byte and wants it back. Prints whether any was served, and how many were reset after the kernel had let them in: "served True
reset 0". That nobody listens does not count."""

import os
import socket
import sys
import time


def visit(address):
    s = socket.socket(socket.AF_UNIX if address[0] == "/" else socket.AF_INET)
    s.settimeout(60)
    try:
        s.connect(address if address[0] == "/" else ("127.0.0.1", int(address)))
    except (ConnectionRefusedError, FileNotFoundError):
        time.sleep(0.002)
        return None
    except ConnectionResetError:
        return False
    try:
        s.send(b"x")
        served = s.recv(1) == b"x"
    except OSError:
        served = False
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, so that no port is used up
    s.close()
    return served


def main(seconds, address):
    end, ends = time.monotonic() + float(seconds), []
    for _ in range(3):
        r, w = os.pipe()
        if os.fork() == 0:
            counts = {True: 0, False: 0, None: 0}
            while time.monotonic() < end:
                counts[visit(address)] += 1
            os.write(w, b"%d %d" % (counts[True], counts[False]))
            os._exit(0)
        ends.append(r)
    results = [[int(n) for n in os.read(r, 100).split()] for r in ends]
    print("served", sum(r[0] for r in results) > 0, "reset", sum(r[1] for r in results))


main(*sys.argv[1:])
