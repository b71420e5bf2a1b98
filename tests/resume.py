#!/usr/bin/env python3
"""TLS sessions and their tickets: resume.py [OPTION]... STEP...

OPTIONS   --ca FILE  --cert FILE (of ours)  --version 1.2 or 1.3
STEPS     PORT, PORT/NAME   a connection, with the session kept before if there is one: prints "full" or "resumed", or "alert: ...";
                            then a line is sent, and one that comes back is printed after it unless it is the same
          keep              the session of the connection before is used from here on
          drop              no session from here on
          hold:FILE         waits until FILE exists; say:WORD prints it"""

import argparse
import os
import socket
import sys
import time

sys.dont_write_bytecode = True
import tls_socket  # noqa: E402


def say(text):
    print(text, flush=True)


class Resumer:
    def __init__(self, options):
        self.context = tls_socket.client_context(options.ca, options.cert, options.version)
        self.kept = self.last = None

    def connect(self, where):
        port, _, name = where.partition("/")
        with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as plain:
            try:
                s = tls_socket.TlsSocket(plain, self.context, name or None, session=self.kept)
                s.sendall(b"line\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    piece = s.recv(65536)
                    if not piece:
                        break
                    answer += piece
                s.shutdown(socket.SHUT_WR)
                while s.recv(65536):
                    pass
            except tls_socket.Ended as error:
                say(error.ending)
                return
        answer = answer.decode().rstrip()
        say(("resumed" if s.ssl.session_reused else "full") + ("" if answer == "line" else " " + answer))
        self.last = s.ssl.session

    def step(self, word):
        name, _, argument = word.partition(":")
        if name == "keep":
            self.kept = self.last
        elif name == "drop":
            self.kept = None
        elif name == "say":
            say(argument)
        elif name == "hold":
            deadline = time.monotonic() + 25
            while not os.path.exists(argument):
                if time.monotonic() > deadline:
                    sys.exit("timeout: waited for %s" % argument)
                time.sleep(0.01)
        else:
            self.connect(word)


def main():
    parser = argparse.ArgumentParser(usage="resume.py [OPTION]... STEP...", description=__doc__)
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--version")
    parser.add_argument("steps", nargs="*")
    options = parser.parse_args()
    resumer = Resumer(options)
    for word in options.steps:
        resumer.step(word)


main()
