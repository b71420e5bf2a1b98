#!/usr/bin/env python3
"""One connection, done step by step: client.py [OPTION]... ADDRESS STEP...

ADDRESS   PORT (of 127.0.0.1), HOST:PORT, [V6]:PORT, unix:PATH, unix:@NAME; or the side that is connected to:
          listen, listen:unix:PATH (prints "port N" or "port PATH", serves one connection)
OPTIONS   --rcvbuf N  --sndbuf N  --timeout SECONDS (for each step)  --seed N  --other N  --backlog N
          --never-accept: listen, fill the queue, and wait to be killed
          --tls: over TLS, whose own end is close_notify ("end"); a peer that ends without is "truncated", and one that says why it
          does not go on is "alert: ..."; with --ca FILE (verify), --sni NAME, --cert FILE (of ours), --version 1.2
          --source ADDRESS: to connect from
STEPS     send:N       N bytes of the pattern that the seed makes
          text:STRING  with Python's escapes
          end          no more from us (shutdown)
          recv:N       exactly N bytes; they have to be the pattern's next ones
          line         one line, printed
          all          everything to the end, printed as it is
          count        everything to the end: prints "N eof" or "N reset"
          same         everything to the end: it has to be the pattern, as far as it was sent: prints "same N eof"
          echo:N       sends N bytes and reads N at the same time; they have to be the same
          exchange:N   sends N bytes and end, and reads to the end at the same time: prints "same N eof"
          both:N       sends N bytes and end, reads to the end: the peer's bytes are the pattern of --other: prints "same N eof"
          rounds:N:M   N times: sends M bytes, waits for them
          fill:S       sends until nothing is taken for S seconds: prints "filled N"
          slow:N:S     from here on reads at most N bytes at a time, with S seconds between
          open         the peer has not ended, and has sent nothing
          hangup       waits for a hangup without reading: prints "reset" or "hangup"
          reset, close
          say:WORD     prints it
          hold:FILE    waits until FILE exists
What does not go as it should is printed, and the exit status is 1; 3: no connection."""

import argparse
import codecs
import os
import random
import select
import socket
import struct
import sys
import time


def say(text):
    print(text, flush=True)


class Failure(Exception):
    pass


class Pattern:
    """An endless stream of bytes that a seed makes."""

    BLOCK = 65536

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.ahead = b""
        self.taken = 0

    def take(self, count):
        pieces = [self.ahead]
        have = len(self.ahead)
        while have < count:
            pieces.append(self.random.randbytes(self.BLOCK))
            have += self.BLOCK
        data = b"".join(pieces)
        self.ahead = data[count:]
        self.taken += count
        return data[:count]


def parse(address):
    if address.startswith("unix:"):
        path = address[5:]
        return socket.AF_UNIX, "\0" + path[1:] if path.startswith("@") else path
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return family, (host, int(port))


class Client:
    def __init__(self, options):
        self.options = options
        self.socket = None
        self.out = Pattern(options.seed)
        self.back = Pattern(options.seed)
        self.other = Pattern(options.other)
        self.ahead = b""
        self.pace = None

    # ---- the connection

    def make(self, family):
        s = socket.socket(family, socket.SOCK_STREAM)
        if self.options.rcvbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.options.rcvbuf)
        if self.options.sndbuf:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.options.sndbuf)
        s.settimeout(self.options.timeout)
        return s

    def connect(self, address):
        family, where = parse(address)
        self.socket = self.make(family)
        if self.options.source:
            self.socket.bind((self.options.source, 0))
        try:
            self.socket.connect(where)
        except ConnectionResetError:  # the peer was that fast
            say("0 reset")
            sys.exit(0)
        except OSError as error:
            say("refused" if isinstance(error, ConnectionRefusedError) else "cannot connect: %s" % error)
            sys.exit(3)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.options.tls:
            self.socket = self.over_tls(False)

    def over_tls(self, server):
        sys.dont_write_bytecode = True  # nothing is left among the sources
        import tls_socket  # which takes its time

        options = self.options
        if server:
            return tls_socket.TlsSocket(self.socket, tls_socket.server_context(options.cert, options.version), server=True)
        context = tls_socket.client_context(options.ca, options.cert, options.version)
        return tls_socket.TlsSocket(self.socket, context, options.sni)

    def listen(self, address):
        where = address[7:]
        family, name = parse(where) if where else (socket.AF_INET, ("127.0.0.1", 0))
        listener = self.make(family)
        listener.bind(name)
        listener.listen(self.options.backlog)
        if self.options.never_accept:
            fill = []
            while True:  # until the kernel leaves one waiting: then the queue is full
                s = socket.socket(family, socket.SOCK_STREAM)
                s.settimeout(0.3)
                try:
                    s.connect(listener.getsockname())
                except (TimeoutError, BlockingIOError):
                    break
                fill.append(s)
            say("port %s" % listener.getsockname()[1])
            select.select([], [], [])
        say("port %s" % (name if family == socket.AF_UNIX else listener.getsockname()[1]))
        self.socket, _ = listener.accept()
        self.socket.settimeout(self.options.timeout)
        listener.close()
        say("accepted")
        if self.options.tls:
            self.socket = self.over_tls(True)

    # ---- bytes

    def receive(self, size=65536):
        if self.ahead:
            data, self.ahead = self.ahead[:size], self.ahead[size:]
            return data
        if self.pace:
            size = min(size, self.pace[0])
            time.sleep(self.pace[1])
        return self.socket.recv(size)

    def check(self, pattern, data):
        start = pattern.taken
        expected = pattern.take(len(data))
        if data != expected:
            at = next(i for i in range(len(data)) if data[i] != expected[i])
            raise Failure("differs at byte %d" % (start + at))

    def receive_to_end(self, pattern):
        """Returns the count and how it ended."""
        count = 0
        try:
            while True:
                data = self.receive()
                if not data:
                    return count, "eof"
                if pattern:
                    self.check(pattern, data)
                count += len(data)
        except ConnectionResetError:
            return count, "reset"
        except OSError as error:
            if not hasattr(error, "ending"):
                raise
            return count, error.ending

    def wait(self, sending):
        if self.options.tls:
            if self.socket.pending():
                return True
            sending = sending or self.socket.unsent
        return any(select.select([self.socket], [self.socket] if sending else [], [], self.options.timeout)[:2])

    def duplex(self, count, end, back, until_eof):
        """Sends and receives at the same time; returns how much came and how it ended."""
        left, pending, got, ended = count, b"", 0, None
        self.socket.setblocking(False)
        deadline = time.monotonic() + self.options.timeout
        try:
            while True:
                if not pending and left:
                    pending = self.out.take(min(left, 65536))
                    left -= len(pending)
                if not pending and end:
                    self.socket.shutdown(socket.SHUT_WR)
                    end = False
                if not pending and (ended or (got >= count and not until_eof)):
                    return got, ended
                if time.monotonic() >= deadline or not self.wait(pending):
                    raise Failure("timeout: %d of %d sent, %d received" % (count - left - len(pending), count, got))
                if pending:
                    try:
                        sent = self.socket.send(pending)
                        pending = pending[sent:]
                        deadline = time.monotonic() + self.options.timeout
                    except BlockingIOError:
                        pass
                try:
                    if not ended:
                        data = self.receive()
                        self.check(back, data)
                        got += len(data)
                        if data:
                            deadline = time.monotonic() + self.options.timeout
                        else:
                            ended = "eof"
                            if not until_eof and got < count:
                                raise Failure("eof after %d of %d" % (got, count))
                except BlockingIOError:
                    pass
        except (ConnectionResetError, BrokenPipeError):
            return got, "reset"
        finally:
            self.socket.settimeout(self.options.timeout)

    # ---- steps

    def step(self, word):
        name, _, argument = word.partition(":")
        getattr(self, "do_" + name)(argument)

    def do_send(self, argument):
        left = int(argument)
        while left:
            piece = self.out.take(min(left, 65536))
            self.socket.sendall(piece)
            left -= len(piece)

    def do_text(self, argument):
        self.socket.sendall(codecs.decode(argument, "unicode_escape").encode("latin-1"))

    def do_end(self, _):
        self.socket.shutdown(socket.SHUT_WR)

    def do_recv(self, argument):
        left = int(argument)
        while left:
            data = self.receive(min(left, 65536))
            if not data:
                raise Failure("eof with %d bytes missing" % left)
            self.check(self.back, data)
            left -= len(data)

    def do_line(self, _):
        line = b""
        while not line.endswith(b"\n"):
            data = self.receive(1)
            if not data:
                raise Failure("eof in a line: %r" % line)
            line += data
        sys.stdout.buffer.write(line)
        sys.stdout.flush()

    def do_all(self, _):
        try:
            while True:
                data = self.receive()
                if not data:
                    break
                sys.stdout.buffer.write(data)
        except ConnectionResetError:
            raise Failure("reset") from None
        finally:
            sys.stdout.flush()

    def do_count(self, _):
        say("%d %s" % self.receive_to_end(None))

    def do_same(self, _):
        count, end = self.receive_to_end(self.back)
        say("same %d %s" % (self.back.taken, end))

    def do_echo(self, argument):
        got, ended = self.duplex(int(argument), False, self.back, False)
        if ended:
            raise Failure("%s after %d of %s" % (ended, got, argument))

    def do_exchange(self, argument):
        say("same %d %s" % self.duplex(int(argument), True, self.back, True))

    def do_both(self, argument):
        say("same %d %s" % self.duplex(int(argument), True, self.other, True))

    def do_rounds(self, argument):
        count, size = map(int, argument.split(":"))
        for _ in range(count):
            self.do_send(size)
            self.do_recv(size)

    def do_fill(self, argument):
        seconds, total = float(argument), 0
        self.socket.setblocking(False)
        try:
            while select.select([], [self.socket], [], seconds)[1]:
                piece = self.out.take(65536)
                while piece:
                    try:
                        sent = self.socket.send(piece)
                    except BlockingIOError:
                        if not select.select([], [self.socket], [], seconds)[1]:
                            self.unsend(piece)
                            return
                        continue
                    total += sent
                    piece = piece[sent:]
        finally:
            self.socket.settimeout(self.options.timeout)
            say("filled %d" % total)

    def unsend(self, piece):
        self.out.ahead = piece + self.out.ahead
        self.out.taken -= len(piece)

    def do_slow(self, argument):
        size, seconds = argument.split(":")
        self.pace = int(size), float(seconds)

    def do_open(self, _):
        if select.select([self.socket], [], [], 0)[0]:
            raise Failure("has ended" if not self.socket.recv(1, socket.MSG_PEEK) else "something has come")

    def do_hangup(self, _):
        poll = select.poll()
        poll.register(self.socket, 0)
        events = poll.poll(self.options.timeout * 1000)
        if not events:
            raise Failure("timeout: no hangup")
        say("reset" if events[0][1] & select.POLLERR else "hangup")

    def do_reset(self, _):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def do_close(self, _):
        self.socket.close()

    def do_say(self, argument):
        say(argument)

    def do_hold(self, argument):
        deadline = time.monotonic() + self.options.timeout
        while not os.path.exists(argument):
            if time.monotonic() > deadline:
                raise Failure("timeout: waited for %s" % argument)
            time.sleep(0.01)


def main():
    parser = argparse.ArgumentParser(usage="client.py [OPTION]... ADDRESS STEP...", description=__doc__)
    parser.add_argument("--rcvbuf", type=int)
    parser.add_argument("--sndbuf", type=int)
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--other", type=int, default=2)
    parser.add_argument("--backlog", type=int, default=16)
    parser.add_argument("--never-accept", action="store_true")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--ca")
    parser.add_argument("--cert")
    parser.add_argument("--sni")
    parser.add_argument("--version")
    parser.add_argument("--source")
    parser.add_argument("address")
    parser.add_argument("steps", nargs="*")
    options = parser.parse_args()
    client = Client(options)
    try:
        if options.address.startswith("listen"):
            client.listen(options.address)
        else:
            client.connect(options.address)
    except OSError as error:
        say(getattr(error, "ending", error))
        sys.exit(3)
    for word in options.steps:
        try:
            client.step(word)
        except Failure as failure:
            say("%s: %s" % (word, failure))
            sys.exit(1)
        except OSError as error:
            say("%s: %s" % (word, "timeout" if isinstance(error, TimeoutError) else error))
            sys.exit(1)


main()
