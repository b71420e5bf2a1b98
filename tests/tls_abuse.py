#!/usr/bin/env python3
"""Clients that do not keep to TLS: tls_abuse.py PORT WHAT ARGUMENT...

cut fin|rst       a ClientHello cut at every byte, and then the end or a reset; prints "done N"
flip              a ClientHello with one byte changed, each in its turn, and then the end; prints "done N"
garbage N         N connections with random bytes; prints "done N"
abandon VERSION   a handshake that is given up after each of its steps, by FIN and by RST; prints "done N"
hasty N HOW       N handshakes whose last flight brings the end with it: close_notify (how: end), a line and close_notify (line), or
                  nothing (none); then the client has gone, whatever comes back; prints "done N"
raw HEX           sends these bytes; prints the alert that comes back, as "alert LEVEL NUMBER", or "none", and how it ended
inside HEX        the same after a handshake, past the encryption; prints OpenSSL's name of the alert
updates N ASK     N key updates, each asking for one back if ASK is 1; prints "sent N", or "cut after K"
renegotiate N     N renegotiations of TLS 1.2, without encryption (cipher ECDHE-ECDSA-NULL-SHA); prints "refused N times, ", and
                  "answered" if a byte is echoed afterwards, or "cut off"
silent N FILE     N connections that say nothing, until FILE exists; prints "connected N"
slow SECONDS      one byte of a ClientHello at a time, so far apart; prints "cut after K bytes"
storm N           N handshakes given up after the ClientHello, as fast as they go, all open at the same time; prints "done N"
Each waits for the server's end, so that all has been seen when it ends."""

import ctypes
import hmac
import os
import random
import socket
import ssl
import struct
import sys
import tempfile
import time

sys.dont_write_bytecode = True
import tls_socket  # noqa: E402

port = int(sys.argv[1])
TIMEOUT = 60


def connect():
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def read_to_end(s):
    """All that comes, and how it ended."""
    data = b""
    try:
        while True:
            piece = s.recv(65536)
            if not piece:
                return data, "eof"
            data += piece
    except ConnectionResetError:
        return data, "reset"


def finish(s):
    try:
        s.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    result = read_to_end(s)
    s.close()
    return result


class Engine:
    """A client whose every flight can be held back."""

    contexts = {}

    def __init__(self, version=None, name="localhost"):
        self.came, self.going = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = self.contexts.setdefault(version, None) or tls_socket.client_context(version=version)
        self.contexts[version] = context
        self.ssl = context.wrap_bio(self.came, self.going, server_hostname=name)

    def flight(self):
        """What it would send now, and whether it has come to the end."""
        try:
            self.ssl.do_handshake()
            return self.going.read(), True
        except ssl.SSLWantReadError:
            return self.going.read(), False


def hello():
    return Engine().flight()[0]


def cut(how):
    whole = hello()
    for length in range(len(whole)):
        s = connect()
        s.sendall(whole[:length])
        if how == "rst":
            reset(s)
        else:
            finish(s)
    print("done", len(whole))


def flip():
    whole = hello()
    for i in range(len(whole)):
        s = connect()
        s.sendall(whole[:i] + bytes([whole[i] ^ 0x41]) + whole[i + 1 :])
        finish(s)
    print("done", len(whole))


def garbage(count):
    source = random.Random(1)
    for _ in range(int(count)):
        s = connect()
        try:
            s.sendall(source.randbytes(source.randrange(1, 40000)))
        except OSError:
            pass
        finish(s)
    print("done", count)


def abandon(version):
    done, step, over = 0, 0, False
    while not over:
        for how in (finish, reset):
            engine, s = Engine(version), connect()
            for _ in range(step // 2 + 1):
                out, over = engine.flight()
                # half of the flight, or all of it
                s.sendall(out if step % 2 else out[: len(out) // 2])
                if over or step % 2 == 0:
                    break
                engine.came.write(s.recv(65536))
            how(s)
            done += 1
        step += 1
    print("done", done)


def hasty(count, how):
    for i in range(int(count)):
        engine, s, over = Engine("1.2" if i % 4 == 3 else "1.3"), connect(), False
        while True:
            out, over = engine.flight()
            if over:
                break
            s.sendall(out)
            engine.came.write(s.recv(65536))
        if how == "line":
            engine.ssl.write(b"line\n")
        if how != "none":
            try:
                engine.ssl.unwrap()
            except ssl.SSLError:  # wants to read, or has read what it did not expect
                pass
        s.sendall(out + engine.going.read())
        reset(s) if i % 2 else s.close()
    print("done", count)


def raw(bytes_in_hex):
    s = connect()
    s.sendall(bytes.fromhex(bytes_in_hex))
    data, ending = read_to_end(s)
    alert = "alert %d %d" % (data[5], data[6]) if len(data) >= 7 and data[0] == 21 else "none"
    print(alert, ending)


def inside(bytes_in_hex):
    plain = connect()
    s = tls_socket.TlsSocket(plain, tls_socket.client_context())
    s.sendall(b"x")
    s.recv(1)
    plain.sendall(bytes.fromhex(bytes_in_hex))
    try:
        print("nothing", s.recv(65536))
    except tls_socket.Ended as error:
        print(error.ending)


def updates(count, ask):
    lib = ctypes.CDLL("libssl.so.3")
    for name in ("TLS_client_method", "SSL_CTX_new", "SSL_new"):
        getattr(lib, name).restype = ctypes.c_void_p
    context = ctypes.c_void_p(lib.SSL_CTX_new(ctypes.c_void_p(lib.TLS_client_method())))
    engine = ctypes.c_void_p(lib.SSL_new(context))
    s = connect()
    s.setblocking(True)
    lib.SSL_set_fd(engine, s.fileno())
    if lib.SSL_connect(engine) != 1:
        sys.exit("no connection")
    byte = ctypes.create_string_buffer(1)
    for i in range(int(count)):
        lib.SSL_key_update(engine, int(ask))
        if lib.SSL_do_handshake(engine) != 1:
            print("cut after", i)
            return
    # an answer only comes if all of them were taken
    if lib.SSL_write(engine, b"x", 1) == 1 and lib.SSL_read(engine, byte, 1) == 1:
        print("sent", count)
    else:
        print("cut after", count)


class Unencrypted:
    """A connection of TLS 1.2 with records of our own making: they are authenticated (HMAC-SHA1), and that is all."""

    def __init__(self):
        context = tls_socket.client_context(version="1.2")
        context.set_ciphers("ECDHE-ECDSA-NULL-SHA:@SECLEVEL=0")
        with tempfile.NamedTemporaryFile("r") as log:
            context.keylog_filename = log.name
            came = self.shake_hands(context)
            _, client_random, secret = next(line for line in log if line.startswith("CLIENT_RANDOM")).split()
        secret = bytes.fromhex(secret)
        seed = b"key expansion" + came[11:43] + bytes.fromhex(client_random)  # the ServerHello comes first, its random in it
        self.key = hmac.digest(secret, hmac.digest(secret, seed, "sha256") + seed, "sha256")[:20]
        self.sent = 1  # the Finished

    def shake_hands(self, context):
        engine, all_came = Engine(), b""
        engine.ssl = context.wrap_bio(engine.came, engine.going)
        self.socket = connect()
        while True:
            out, over = engine.flight()
            self.socket.sendall(out)
            if over:
                return all_came
            piece = self.socket.recv(65536)
            engine.came.write(piece)
            all_came += piece

    def send(self, kind, body):
        head = bytes([kind, 3, 3])
        mac = hmac.digest(self.key, struct.pack(">Q", self.sent) + head + struct.pack(">H", len(body)) + body, "sha1")
        self.socket.sendall(head + struct.pack(">H", len(body) + len(mac)) + body + mac)
        self.sent += 1

    def receive(self):
        """The kind of the next record and its content, or None at the end."""
        head = self.socket.recv(5, socket.MSG_WAITALL)
        return (head[0], self.socket.recv(struct.unpack(">H", head[3:])[0], socket.MSG_WAITALL)[:-20]) if len(head) == 5 else None


def renegotiate(count):
    c = Unencrypted()
    client_hello = bytes([1, 0, 0, 41, 3, 3]) + bytes(33) + bytes([0, 2, 0xC0, 0x2B, 1, 0])
    refused, answer = 0, None
    try:
        for _ in range(int(count)):
            c.send(22, client_hello)
        c.send(23, b"x")
    except OSError:
        pass
    try:
        while (answer := c.receive()) == (21, bytes([1, 100])):  # the warning no_renegotiation
            refused += 1
    except OSError:
        pass
    print("refused", refused, "times,", "answered" if answer == (23, b"x") else "cut off")


def silent(count, file):
    held = [connect() for _ in range(int(count))]
    print("connected", len(held), flush=True)
    deadline = time.monotonic() + 40
    while not os.path.exists(file) and time.monotonic() < deadline:
        time.sleep(0.01)


def slow(seconds):
    s, whole = connect(), hello()
    s.settimeout(float(seconds))
    for i in range(len(whole)):
        try:
            s.sendall(whole[i : i + 1])
            if not s.recv(1):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    print("cut after %d bytes" % i)


def storm(count):
    whole = hello()
    held = []
    for _ in range(int(count)):
        s = connect()
        s.sendall(whole)
        held.append(s)
    for i, s in enumerate(held):
        s.recv(1)
        reset(s) if i % 2 else s.close()
    print("done", count)


what = {f.__name__: f for f in (cut, flip, garbage, abandon, hasty, raw, inside, updates, renegotiate, silent, slow, storm)}
what[sys.argv[2]](*sys.argv[3:])
