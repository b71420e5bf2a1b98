#!/usr/bin/env python3
"""Visitors who come all the time: visitors.py PORT AT_ONCE COUNT STOP [named]

AT_ONCE at a time, each from an address of its own (127.1.x.y): it sends some bytes, all at once or with a rest in the middle, ends, and
wants the same bytes and the end, all of it; with `named` a line with its address before them. Prints "reached COUNT" when so many have
been served; others come until STOP exists. At the end "served N failed N" with what befell those who failed; the exit status is 1 if there
were any."""

import collections
import errno
import os
import random
import select
import socket
import sys
import time

LIMIT = 60  # seconds for one visit
REST = 0.4
DATA = random.Random(1).randbytes(1 << 20)


class Visitor:
    def __init__(self, number, port, named):
        self.source = "127.1.%d.%d" % (number // 250 % 250, 1 + number % 250)
        start, size = number * 7919 % (1 << 19), number * 31 % 6000 + (number % 16 == 0) * 100000
        self.left = DATA[start : start + size]
        self.wanted = (self.source.encode() + b"\n" if named else b"") + self.left
        self.rest_at = size // 2 if number % 40 == 0 else -1
        self.got = []
        self.deadline = time.monotonic() + LIMIT
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        self.socket.bind((self.source, 0))
        self.socket.connect_ex(("127.0.0.1", port))

    def send(self):
        """Whether to rest now."""
        piece = self.left if self.rest_at < 0 else self.left[: self.rest_at]
        sent = self.socket.send(piece) if piece else 0
        self.left = self.left[sent:]
        if self.rest_at >= 0:
            self.rest_at -= sent
            if self.rest_at <= 0:
                self.rest_at = -1
                return True
        if not self.left:
            self.socket.shutdown(socket.SHUT_WR)
        return False

    def receive(self):
        """None, or how it went."""
        piece = self.socket.recv(1 << 18)
        if piece:
            self.got.append(piece)
            return None
        got = b"".join(self.got)
        if got == self.wanted and not self.left:
            return "served"
        return "short" if self.wanted.startswith(got) else "wrong"


class Crowd:
    def __init__(self, port, named):
        self.port, self.named = port, named
        self.poll = select.epoll()
        self.there, self.resting = {}, collections.deque()
        self.outcomes = collections.Counter()
        self.number = 0

    def come(self):
        visitor = Visitor(self.number, self.port, self.named)
        self.number += 1
        self.there[visitor.socket.fileno()] = visitor
        self.poll.register(visitor.socket, select.EPOLLIN | select.EPOLLOUT)

    def leave(self, fd, outcome):
        self.outcomes[outcome] += 1
        self.there.pop(fd).socket.close()

    def act(self, fd, events):
        visitor = self.there[fd]
        try:
            if events & select.EPOLLOUT and visitor.send():
                self.poll.modify(fd, select.EPOLLIN)
                self.resting.append((time.monotonic() + REST, fd, visitor))
            elif events & select.EPOLLOUT and not visitor.left:
                self.poll.modify(fd, select.EPOLLIN)
            outcome = visitor.receive() if events & ~select.EPOLLOUT else None
        except BlockingIOError:
            return
        except OSError as error:
            outcome = errno.errorcode.get(error.errno, "error")
        if outcome:
            self.leave(fd, outcome)

    def wake(self):
        now = time.monotonic()
        while self.resting and self.resting[0][0] <= now:
            _, fd, visitor = self.resting.popleft()
            if self.there.get(fd) is visitor:
                self.poll.modify(fd, select.EPOLLIN | select.EPOLLOUT)

    def turn(self):
        events = self.poll.poll(0.05)
        for fd, what in events:
            self.act(fd, what)
        self.wake()
        if not events:
            late = [fd for fd, visitor in self.there.items() if visitor.deadline < time.monotonic()]
            for fd in late:
                self.leave(fd, "late")


def main(port, at_once, count, stop, named=""):
    crowd, reached = Crowd(int(port), bool(named)), False
    while crowd.there or not (reached and os.path.exists(stop)):
        while len(crowd.there) < int(at_once) and not (reached and os.path.exists(stop)):
            crowd.come()
        crowd.turn()
        if not reached and crowd.outcomes["served"] >= int(count):
            reached = True
            print("reached", count, flush=True)
        elif not reached and sum(crowd.outcomes.values()) >= 2 * int(count):
            break
    failed = {outcome: n for outcome, n in crowd.outcomes.items() if outcome != "served"}
    print("served", crowd.outcomes["served"], "failed", sum(failed.values()), *(failed.items()))
    sys.exit(bool(failed))


main(*sys.argv[1:])
