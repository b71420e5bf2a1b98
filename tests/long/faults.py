#!/usr/bin/env python3
"""hark while one call fails, in every way: faults.py HARK INJECTOR DIRECTORY [SCENE or CALL]...

A scene is a hark with its options, and what clients and an operator do to it. It is played once as it is, while inject.c counts the calls,
and then again and again, while one of these fails: of each call in faults.rows some (HARK_FAULTS=N: N), with each of its errors. What comes
of it has to be what the row says; and nothing hangs, spins or is left behind, at most one connection is cut off, and the next is served.
FAULTS_RECORD=1 prints what comes of each."""

import atexit
import contextlib
import errno
import os
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

DEADLINE = float(os.environ.get("HARK_TEST_DEADLINE", "20"))
SAMPLE = int(os.environ.get("HARK_FAULTS", "3"))  # of the calls of a kind, in a scene
PLACE, PLACES = struct.Struct("24sII"), 128
INHERITED = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]


class Wrong(Exception):
    """what happened is not what should"""


def wait_until(condition, what):
    end, nap = time.monotonic() + DEADLINE, 0.001
    while not condition():
        if time.monotonic() > end:
            raise Wrong(f"has not happened in {DEADLINE} s: {what}")
        time.sleep(nap)
        nap = min(2 * nap, 0.05)


# ---- clients: they return when they were served, and raise OSError or EOFError when they were cut off ----


def connect_tcp(run):
    return socket.create_connection(("127.0.0.1", run.port), timeout=DEADLINE)


def connect_unix(run, name="socket"):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(DEADLINE)
    s.connect(run.path(name))
    return s


def receive(s, count):
    got = b""
    while len(got) < count:
        piece = s.recv(count - len(got))
        if not piece:
            raise EOFError(f"after {len(got)} bytes")
        got += piece
    return got


def exchange(connect, data=b"hello, hark\n"):
    def send(s):
        with contextlib.suppress(OSError):
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)

    def client(run):
        with connect(run) as s:
            sender = threading.Thread(target=send, args=(s,))
            sender.start()
            try:
                if receive(s, len(data)) != data or s.recv(1) != b"":
                    raise Wrong("other bytes came back")
            finally:
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)
                sender.join()

    return client


BULK = bytes(range(256)) * 4096
over_tcp, over_unix, bulk_tcp, bulk_unix = (exchange(connect, *data) for data in ((), (BULK,)) for connect in (connect_tcp, connect_unix))
CLIENT_CONTEXT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
CLIENT_CONTEXT.check_hostname, CLIENT_CONTEXT.verify_mode = False, ssl.CERT_NONE


def over_tls(run):
    with CLIENT_CONTEXT.wrap_socket(connect_tcp(run)) as s:
        s.sendall(b"hello")
        if receive(s, 5) != b"hello":
            raise Wrong("other bytes came back")
        s.unwrap()


def get_metrics(run):
    with connect_unix(run, "metrics") as s:
        for path in (b"/", b"/metrics", b"/status"):
            s.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += receive(s, 1)
            receive(s, int(re.search(rb"Content-Length: (\d+)", head).group(1)))
            if not head.startswith(b"HTTP/1.1 200"):
                raise EOFError(head)


# ---- what an operator does ----


def send_signal(number, event):
    def do(run):
        before = run.count(event)
        os.kill(run.process.pid, number)
        wait_until(lambda: run.has_ended() or run.count(event) > before or run.count("error: reload") or run.has_failed("write"),
                   f"a line {event}")  # which it may be that could not be written

    return do


def rotate(run):
    os.rename(run.path("log"), run.path("old"))
    os.kill(run.process.pid, signal.SIGUSR1)
    wait_until(lambda: run.has_ended() or os.path.exists(run.path("log")) or run.errors(), "another log, or a complaint")


status, reload = send_signal(signal.SIGUSR2, "status"), send_signal(signal.SIGHUP, "reload")

# ---- the scenes ----


class Scene:
    def __init__(self, options, clients, last=None, inherits=False, once=False, activated=False, reports=0, spare=1):
        self.options, self.clients, self.last = shlex.split(options), clients, last or over_tcp
        self.inherits = inherits  # many descriptors
        self.once = once  # one connection, which it talks with on its stdin and stdout
        self.activated = activated  # by a service manager
        self.reports = reports  # how many messages say that its processes are ready: if one cannot be sent, nobody is there any more
        self.spare = spare  # descriptors beyond those without a fault: libev takes a pipe for an eventfd, a program is started ahead
        self.calls = self.descriptors = None  # without a fault


TCP, BOTH = "-v --bind 127.0.0.1 --port 0 ", "-v --bind 127.0.0.1 --port 0 --unix {T}/socket "
TLS = TCP + "--ssl-self-signed --drain-timeout 1s "
SH = "--handler exec sh -c 'echo on stderr >&2; exec cat'"
SCENES = {
    "echo": Scene(BOTH + "--keepalive 60,10,6 --allow @{T}/allow --log-to {T}/log --idle-timeout 1m --max-connections 10",
                  [over_tcp, over_unix, status, reload]),
    "bulk": Scene(BOTH + "--max-buffer-size 4M", [bulk_tcp, bulk_unix]),
    "tls": Scene(TLS + "--ssl-save-cert {T}/cert.pem --ssl-keylog {T}/keys", [over_tls], over_tls),
    "exec": Scene(BOTH + "--chdir /tmp " + SH, [over_unix]),
    "exec-many": Scene(BOTH + SH, [over_unix], inherits=True),
    "exec-pipes": Scene(BOTH + "--exec-io pipe --stderr client --handler exec ./cat", [over_unix]),
    "exec-tls": Scene(TLS + SH, [], over_tls),
    "warm": Scene(BOTH + "--exec-io pipe --warm 1 --stderr null " + SH, [over_unix], spare=10),
    "forward": Scene(BOTH + "--send-proxy 1 --handler forward localhost:{PORT}", [over_unix]),
    "sandbox": Scene(BOTH + "--sandbox --send-proxy 2 --handler forward 127.0.0.1:{PORT}", [bulk_tcp, over_unix], reports=1),
    "workers": Scene(BOTH + "--processes 2 --metrics unix:{T}/metrics --allow @{T}/allow --log-to {T}/log",
                     [get_metrics, rotate, reload, over_unix], reports=3),
    "reuse-port": Scene(BOTH + "--unix-mode 666 --processes 2 --reuse-port", [over_unix], reports=2),
    "privileges": Scene(BOTH + "--user nobody --chroot {T}", [over_unix], reports=1),
    "service": Scene("-v", [], over_unix, activated=True),
    "stdio": Scene(TCP + "--once --handler stdio", [over_tcp], once=True),
    "check": Scene(BOTH + "--check --processes 0 --log-to {T}/log --metrics unix:{T}/metrics --handler exec cat", None),
}

# ---- one run ----

# What they have failed with is not what is wrong for the user; and getpwnam does not tell if memory was short.
SAYS_OTHERWISE = ("malloc", "capget", "getgroups", "getresuid", "getresgid", "getsockopt", "access", "stat", "fcntl", "getcwd")


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return f.read().rsplit(") ", 1)[1][0] == "Z"
    except OSError:
        return True


def descendants(pid):
    found = []
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as f:
        for child in f.read().split():
            found += [int(child), *descendants(int(child))]
    return found


class Run:
    serial = 0

    def __init__(self, world, scene, fault=None):
        Run.serial += 1
        self.world, self.scene, self.fault = world, scene, fault
        self.directory = os.path.join(world.directory, f"run.{Run.serial}")
        self.cut = []
        self.process = self.port = None
        self.listener, self.manager = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        os.mkdir(self.directory, 0o755)
        for name, text in (("allow", "127.0.0.0/8\n"), ("places", "\0" * PLACE.size * PLACES)):
            with open(self.path(name), "w", encoding="utf-8") as f:
                f.write(text)
            os.chmod(self.path(name), 0o666)  # of another user, too

    def path(self, name):
        return os.path.join(self.directory, name)

    def places(self):
        """name -> how often it was called, and has failed"""
        with open(self.path("places"), "rb") as f:
            return {name.rstrip(b"\0").decode(): counts for name, *counts in PLACE.iter_unpack(f.read()) if name[0]}

    def calls(self):
        return sum(count for count, _ in self.places().values())

    def log(self):
        text = ""
        for name in ("stderr", "old", "log"):
            with contextlib.suppress(FileNotFoundError), open(self.path(name), encoding="utf-8", errors="replace") as f:
                text += f.read()
        return text

    def count(self, event):
        return self.log().count(f"hark: {event}")

    def errors(self):
        return [line for line in self.log().splitlines() if re.search(r"hark: (error|warning|restart)\b", line)]

    def names_error(self):
        return self.fault and any(os.strerror(self.fault[1]) in line or re.search("[Mm]emory|malloc failure", line) for line in self.errors())

    def is_of(self, *calls):
        return self.fault and self.fault[0] in calls

    def has_failed(self, call):
        return self.places()[call][1] > 0

    # ---- its life ----

    def has_ended(self):
        return self.process.poll() is not None

    def start(self):
        """until it is ready, or has ended; whether it is"""
        scene = self.scene
        ready, ready_fd = os.pipe()
        environment = dict(os.environ, LD_PRELOAD=self.world.injector, HARK_FAULT_FILE=self.path("places"),
                           HARK_FAULT="%s %d %d" % (self.fault or ("-", 0, 0)))
        options = [option.replace("{T}", self.directory).replace("{PORT}", str(self.world.port)) for option in scene.options]
        command, stdin = [self.world.hark, "--ready-fd", str(ready_fd), *options], subprocess.PIPE if scene.once else subprocess.DEVNULL
        if scene.activated:
            self.listener.bind(self.path("socket"))
            self.listener.listen(5)
            self.manager.bind(self.path("notify"))
            environment |= {"NOTIFY_SOCKET": self.path("notify"), "WATCHDOG_USEC": "200000", "LISTEN_FDS": "1"}
            command, stdin = ["sh", "-c", 'LISTEN_PID=$$ exec "$@" 3<&0 </dev/null', "sh", *command], self.listener
        with open(self.path("stderr"), "w", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE if scene.once else subprocess.DEVNULL, stderr=stderr,
                                            env=environment, start_new_session=True, cwd="/bin",
                                            pass_fds=[ready_fd, *(INHERITED if scene.inherits else ())])
        os.close(ready_fd)
        lines = b""
        with open(ready, "rb", buffering=0) as pipe:
            while True:
                if not select.select([pipe], [], [], DEADLINE)[0]:
                    raise Wrong("neither ready nor ended")
                piece = pipe.read(4096)
                if not piece:
                    break
                lines += piece
        self.port = next((int(line.split()[1]) for line in lines.decode().splitlines() if not line.startswith("unix ")), None)
        return lines != b""

    def descriptors(self):
        count = 0
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))
        return count

    def serve_clients(self):
        last = [self.scene.last] * (0 if self.scene.once else 3)  # whoever is cut off, the next one is served
        for client in [*self.scene.clients, *last]:
            if self.has_ended():
                return
            try:
                client(self)
            except TimeoutError as e:
                raise Wrong("nobody answers") from e
            except (OSError, EOFError) as e:
                self.cut.append(repr(e))

    def talk(self):
        """of stdio: what comes goes back"""
        with contextlib.suppress(OSError), self.process.stdin as stdin, self.process.stdout as stdout:
            while data := os.read(stdout.fileno(), 65536):
                os.write(stdin.fileno(), data)

    def wait(self, there=()):
        """its exit status"""
        try:
            result = self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired as e:
            raise Wrong("it does not end") from e
        wait_until(lambda: all(is_gone(pid) for pid in there), "its processes are gone")
        left = [name for name in ("socket", "metrics") if os.path.exists(self.path(name))]
        if left and not self.scene.activated and not self.is_of("lstat", "unlink", "write", "realloc"):
            raise Wrong(f"left behind: {left}")
        return result

    def stop(self):
        there = descendants(self.process.pid)
        if not self.scene.once or self.cut:
            self.process.terminate()
        return self.wait(there)

    def not_ready(self):
        if self.is_of("write"):  # it may have been its own word that failed
            wait_until(lambda: self.has_ended() or self.count("listen"), "it serves or ends")
            if not self.has_ended():
                self.stop()
                return "unready"
        result = self.wait()
        if result == -signal.SIGABRT and "(libev) cannot allocate" in self.log():
            return "aborted"
        if result != (1 if self.count("listen") else 2) or not self.count("error: "):
            raise Wrong(f"it has not started, with status {result}")
        if self.fault and not self.names_error() and not self.is_of(*SAYS_OTHERWISE):
            raise Wrong("the error line does not say why")
        return "refused"

    def play(self):
        """what came of it"""
        scene = self.scene
        ready = self.start()
        if scene.clients is None and self.process.wait(DEADLINE) == 0:
            return "told" if self.errors() else "unnoticed"
        if not ready:
            return self.not_ready()
        if scene.once:
            threading.Thread(target=self.talk, daemon=True).start()
        try:
            self.serve_clients()
        except Wrong:
            if not self.has_ended():
                raise
        if not scene.once:
            if self.has_ended():
                if self.wait() != 1 or not self.names_error():
                    raise Wrong(f"it ended by itself, with status {self.process.returncode}")
                return "ended"
            if scene.descriptors is None:
                wait_until(lambda: self.count("accept ") == self.count("close "), "all are gone")
                scene.descriptors = self.descriptors()
            wait_until(lambda: self.descriptors() <= scene.descriptors + scene.spare, "as few descriptors as before")
        result = self.stop()
        if scene.once and result == 1 and re.search("reason=(reset|error)", self.log()):
            return "cut"
        if result == 1 and self.names_error():
            return "ended"
        if result != 0 or len(self.cut) > 1:
            raise Wrong(f"exit status {result}, and these were cut off: {self.cut}")
        return "cut" if self.cut else "told" if self.errors() else "unnoticed"

    def end(self):
        if self.process:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.listener.close()
        self.manager.close()
        shutil.rmtree(self.directory)


class World:
    def __init__(self, hark, injector, directory):
        self.hark, self.injector, self.directory = hark, injector, directory
        ready, ready_fd = os.pipe()  # what hark forwards to
        self.target = subprocess.Popen([hark, "--bind", "127.0.0.1", "--port", "0", "--proxy-protocol", "127.0.0.0/8", "--ready-fd", str(ready_fd)],
                                       pass_fds=[ready_fd], stderr=subprocess.DEVNULL)
        atexit.register(self.target.terminate)
        os.close(ready_fd)
        with open(ready, encoding="utf-8") as lines:
            self.port = int(lines.read().split()[1])


def play_fault(world, scene, call, error, n, allowed):
    """what came of it, or None if there was no such call this time; and what is wrong with that"""
    run = Run(world, scene, (call, 0 if error == "short" else getattr(errno, error), n))
    try:
        outcome = run.play()
        if run.calls() > 2 * scene.calls + 1000:
            raise Wrong(f"{run.calls()} calls, and {scene.calls} without the fault: {sorted(run.places().items(), key=lambda p: -p[1][0])[:4]}")
        if not run.has_failed(call):
            return None, None
        return outcome, outcome not in allowed and f"{outcome}, and not {allowed} {run.cut}\n{run.log()}"
    except (Wrong, OSError, EOFError, subprocess.TimeoutExpired) as e:
        return "wrong", f"{e!r} {run.cut}\n{run.log()}"
    finally:
        run.end()


def read_rows():
    """call -> error -> what may come of it"""
    rows = {}
    with open(os.path.join(os.path.dirname(__file__), "faults.rows"), encoding="utf-8") as f:
        for line in f:
            if not line.startswith("#"):
                (call, *errors), outcomes = (part.split() for part in line.split(":", 1))
                rows.setdefault(call, {}).update((error, outcomes) for error in errors if error != "never")
    return rows


def main():
    world, rows, only = World(*sys.argv[1:4]), read_rows(), sys.argv[4:]
    faults, reached = [], set()
    for name in [name for name in SCENES if name in only] or SCENES:
        scene = SCENES[name]
        run = Run(world, scene)
        outcome, places, scene.calls = run.play(), run.places(), run.calls()
        if outcome != "unnoticed":
            sys.exit(f"{name}, and nothing has failed: {outcome}\n{run.log()}")
        run.end()
        if places.keys() != rows.keys():
            sys.exit(f"in calls.def or in faults.rows only: {places.keys() ^ rows.keys()}")
        for call, errors in [(call, rows[call]) for call in rows if call in only] or rows.items():
            total = places[call][0]
            if call == "epoll_create1":  # libev makes its own anew now and then, with the descriptor that it has just closed
                total = min(total, 2 * max(1, scene.reports))
            reached |= {call} if total else set()
            for error, allowed in errors.items():
                first = 1 + (scene.reports if (call, error) == ("send", "EPIPE") else 0)
                faults += [(name, call, error, n, allowed) for n in range(first, total + 1, max(1, -(-total // SAMPLE)))]

    bad = 0
    with ThreadPoolExecutor(2 * os.cpu_count()) as pool:
        for (name, call, error, n, _), (outcome, problem) in zip(faults, pool.map(lambda f: play_fault(world, SCENES[f[0]], *f[1:]), faults)):
            if os.environ.get("FAULTS_RECORD"):
                print(call, error, outcome, name, flush=True)
            if problem:
                bad += 1
                print(f"---- {name}: {call} number {n} fails with {error}: {problem}", flush=True)
    unreached = [call for call, errors in rows.items() if errors and call not in reached]
    if unreached and not only:
        bad += 1
        print(f"no scene reaches {unreached}")
    print(f"{len(faults)} failures of {len(reached)} calls, {bad} wrong")
    return 1 if bad or not faults else 0


if __name__ == "__main__":
    sys.exit(main())
