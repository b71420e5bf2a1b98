#!/usr/bin/env python3
"""faults.py HARK DIRECTORY NAME OPTION...: makes each system call of a hark with these options fail, one in each life (strace -e inject).

A first life is watched: start, a few connections, end. Then each call that hark itself made, once main ran, fails: of each name the first
MOST, with each error that befits it. Whatever fails, hark says so and ends with status 1 or 2 before it serves; or it serves, and whatever
befell one connection, others fare well after it; it has as many descriptors then as before them, is idle, and ends at TERM. What does not go
like that is printed, and the exit status is 1. The last line counts lives and calls."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

MOST = 3
PATIENCE = 20
MEMORY, DESCRIPTORS = "ENOMEM", "EMFILE"
ERRORS = {  # those not named here fail with ENOMEM, and those with none do not fail, or what then happens is not hark's to say
    "accept4": (DESCRIPTORS, "ECONNABORTED", "ENOBUFS", "EINTR"),
    "bind": ("EADDRINUSE", "EACCES"),
    "brk": (),
    "chdir": ("EACCES",),
    "clone": ("EAGAIN",),
    "clone3": ("EAGAIN",),
    "close": (),
    "connect": ("ECONNREFUSED", "ENETUNREACH", "EAGAIN"),
    "dup2": ("EBADF",),
    "epoll_create1": (DESCRIPTORS,),
    "epoll_ctl": (MEMORY, "ENOSPC"),
    "epoll_pwait": ("EINTR",),
    "epoll_wait": ("EINTR",),
    "eventfd2": (DESCRIPTORS,),
    "execve": ("ENOEXEC", "E2BIG"),
    "exit": (),
    "exit_group": (),
    "fchmod": ("EPERM",),
    "fork": ("EAGAIN",),
    "futex": (),
    "getpid": (),
    "getppid": (),
    "getrandom": ("EINTR", "ENOSYS"),
    "getsockname": (),
    "getsockopt": ("ENOPROTOOPT", "ENOBUFS"),
    "kill": (),
    "listen": ("EADDRINUSE",),
    "lseek": (),
    "munmap": (),
    "open": (DESCRIPTORS,),
    "openat": (DESCRIPTORS, "EACCES"),
    "pidfd_open": (DESCRIPTORS, "ENOSYS"),
    "pipe2": (DESCRIPTORS,),
    "poll": ("EINTR",),
    "prctl": ("EINVAL",),
    "read": ("EINTR", "EIO"),
    "recvfrom": ("EINTR", "EAGAIN", "ECONNRESET", MEMORY),
    "recvmsg": ("EINTR", MEMORY),
    "rt_sigaction": (),
    "rt_sigprocmask": (),
    "rt_sigreturn": (),
    "sendmsg": ("EPIPE", MEMORY),
    "sendto": ("EAGAIN", "EPIPE", "ENOBUFS"),
    "setsockopt": ("ENOPROTOOPT", MEMORY),
    "shutdown": (),
    "signalfd4": (DESCRIPTORS, "ENOSYS"),
    "socket": (DESCRIPTORS, "ENOBUFS"),
    "socketpair": (DESCRIPTORS,),
    "splice": ("EINVAL", "EPIPE"),
    "timerfd_create": (DESCRIPTORS,),
    "vfork": ("EAGAIN",),
    "wait4": (),
    "waitid": (),
    "write": ("EINTR",),
    "writev": ("EIO",),
}
OF_CHILDREN = ("dup2", "execve")  # strace counts in each process anew, so they fail in all of them
HARMLESS = ("EINTR", "EAGAIN")  # all that is asked for is to try again


class Wrong(Exception):
    pass


def exchange(address, tls):
    """A connection that must be answered with what it has sent."""
    said = os.urandom(1000).hex().encode() + b"\n"
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as plain:
        plain.settimeout(3)
        plain.connect(address)
        s = tls.wrap_socket(plain, server_hostname="localhost") if tls else plain
        s.sendall(said)
        got = b""
        while len(got) < len(said):
            piece = s.recv(65536)
            if not piece:
                raise OSError("the end came early")
            got += piece
        if not tls:
            s.shutdown(socket.SHUT_WR)
            if s.recv(1):
                raise Wrong("more came back than was sent")
        if got != said:
            raise Wrong("other bytes came back")


def in_time(what, condition):
    end = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Wrong(f"not in {PATIENCE} s: {what}")
        time.sleep(0.02)


def succeeds(action):
    try:
        action()
        return True
    except OSError:
        return False


class Life:
    def __init__(self, hark, options, strace):
        self.ready, ready = os.pipe()
        self.log = tempfile.TemporaryFile()
        command = ["strace", "-f", "-qq", "-b", "execve", *strace, hark, "--ready-fd", str(ready), *options]
        self.strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, pass_fds=[ready],
                                       start_new_session=True)
        os.close(ready)

    def said(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def address(self):
        """Where it serves; None: it has ended."""
        text, end = b"", time.monotonic() + PATIENCE
        while True:
            if not select.select([self.ready], [], [], max(0, end - time.monotonic()))[0]:
                raise Wrong("neither ready nor gone")
            piece = os.read(self.ready, 4096)
            text += piece
            if not piece or b"\n" in text:
                break
        words = text.decode().split()
        return None if len(words) < 2 else words[1] if words[0] == "unix" else (words[0], int(words[1]))

    def pid(self):
        with open(f"/proc/{self.strace.pid}/task/{self.strace.pid}/children", encoding="ascii") as children:
            return int(children.read().split()[0])

    def status(self):
        try:
            return self.strace.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Wrong("it does not end") from None

    def stop(self):
        os.close(self.ready)
        try:
            os.killpg(self.strace.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.strace.wait()
        self.log.close()


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def live(life, tls, harmless, never):
    """None, or Wrong. harmless: nobody is to notice; never: each child does so."""
    address = life.address()
    if not address:
        status = life.status()
        if status not in (1, 2) or "hark: error: " not in life.said():
            raise Wrong(f"it did not start, with status {status}")
        return
    pid = life.pid()
    before = descriptors(pid)
    if never:
        in_time("a word about it", lambda: not succeeds(lambda: exchange(address, tls)) and "hark: error: cannot run" in life.said())
    for _ in range(0 if never else 2):
        if harmless:
            exchange(address, tls)
        else:
            in_time("a connection that fares well", lambda: succeeds(lambda: exchange(address, tls)))
    in_time("as many descriptors as before", lambda: descriptors(pid) <= before)
    ticks = cpu_ticks(pid)
    time.sleep(0.2)  # in which nothing is to happen
    if cpu_ticks(pid) - ticks > 8:
        raise Wrong("it spins")
    os.kill(pid, signal.SIGTERM)
    status = life.status()
    if status not in (0, 1):
        raise Wrong(f"it ended with status {status}")


def attempt(hark, options, tls, strace, harmless=False, never=False):
    """What went wrong, or nothing."""
    life = Life(hark, options, strace)
    try:
        live(life, tls, harmless, never)
        return ""
    except (Wrong, OSError) as problem:
        return f"{problem}\n{life.said()}"
    finally:
        life.stop()


def calls(directory, hark, options, tls, name):
    """How often each call is made in a life, of one process."""
    path = os.path.join(directory, name)
    if options is None:
        subprocess.run(["strace", "-f", "-qq", "-o", path, hark, "--version"], stdout=subprocess.DEVNULL, check=True)
    else:
        problem = attempt(hark, options, tls, ["-o", path])
        if problem:
            sys.exit(f"nothing failed, and yet: {problem}")
    counts = {}
    with open(path, encoding="utf-8", errors="replace") as trace:
        for line in trace:
            found = re.match(r"(\d+) +(\w+)\(", line)
            if found:
                counts.setdefault(found[1], Counter())[found[2]] += 1
    most = Counter()
    for count in counts.values():
        most |= count
    return most


def main():
    hark, directory, *options = sys.argv[1:]
    tls = None
    if any(option.startswith("--ssl-") for option in options):
        import ssl

        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    before_main = calls(directory, hark, None, None, "version")
    made = calls(directory, hark, options, tls, "life")
    rows = []
    for name, count in sorted(made.items()):
        first = before_main[name] + 1 if count > before_main[name] else count + 1
        if name == "execve" and "exec" in options:
            first = 1  # that of a child
        if name == "epoll_ctl":
            first += 1  # libev watches its signalfd, and tells nobody when it cannot
        for number in range(first, min(count, first + MOST - 1) + 1):
            rows += [(name, number, error) for error in ERRORS.get(name, (MEMORY,))]

    def play(row):
        name, number, error = row
        strace = ["-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={number}"]
        return row, attempt(hark, options, tls, strace, error in HARMLESS and name != "connect", name in OF_CHILDREN)

    failed = 0
    with ThreadPoolExecutor(2 * os.cpu_count()) as pool:
        for (name, number, error), problem in pool.map(play, rows):
            if problem:
                failed += 1
                print(f"---- {name} number {number} fails with {error}: {problem}")
    print(f"{len(rows)} lives, in which {len({name for name, *_ in rows})} calls failed: {' '.join(sorted({name for name, *_ in rows}))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
