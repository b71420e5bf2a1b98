"""The servers that are compared, and how each is started: one process, as its manual says, with nothing left on that costs time."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from measure import PATH

HERE = Path(__file__).parent
SOCKET_PROXYD = "/lib/systemd/systemd-socket-proxyd"
TORNADO = "/usr/lib/python3/dist-packages/tornado/tcpserver.py"
CAT = "/bin/cat"
TO_TARGET = "TCP:127.0.0.1:{place.target},nodelay"
MANY = 20000  # descriptors, where a server wants to know


@dataclass
class Place:
    """Where a server serves, and what it may use."""

    port: int
    target: int  # where forwarders forward to
    directory: Path
    build: Path

    def write(self, name, text):
        path = self.directory / f"{self.port}-{name}"
        path.write_text(text)
        return str(path)

    @property
    def certificate(self):
        return str(self.directory / "certificate.pem")

    @property
    def key(self):
        return str(self.directory / "key.pem")

    @property
    def both(self):
        return str(self.directory / "both.pem")


@dataclass
class Server:
    name: str
    command: Callable[[Place], list]
    program: str = ""  # looked for in PATH; none: it is built here
    packages: str = ""  # of Debian 12
    rare: bool = False  # a process a connection, or nearly that slow: measured in fewer rounds
    crowds: bool = True  # can serve thousands at once
    only: tuple = ()  # the tests that it is there for; none: all

    def is_here(self):
        return not self.program or shutil.which(self.program, path=PATH) or os.path.exists(self.program)


def hark(*options):
    """hark with what stands behind --port; the target's port for TARGET."""

    def command(place):
        words = [word.replace("TARGET", f"127.0.0.1:{place.target}") for word in options]
        words = [{"CERTIFICATE": place.certificate, "KEY": place.key}.get(word, word) for word in words]
        return [str(place.build / "hark"), "--bind", "127.0.0.1", "--port", str(place.port), "--max-connections", "0", *words]

    return command


def bare(*options, forward=False):
    def command(place):
        target = [str(place.target)] if forward else []
        return [str(place.build / "bench/limit"), *options, str(place.port), *target]

    return command


def nginx(listen, more=""):
    def command(place):
        text = f"""
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off; master_process off; pid {place.directory}/{place.port}.pid; error_log stderr crit;
worker_rlimit_nofile {MANY}; events {{ worker_connections {MANY - 50}; }}
stream {{ server {{
    listen 127.0.0.1:{place.port} {listen}; proxy_pass 127.0.0.1:{place.target}; {more.format(place=place)}
}} }}
"""
        return ["nginx", "-p", str(place.directory), "-e", "stderr", "-c", place.write("nginx.conf", text)]

    return command


NGINX_TLS = "ssl_protocols TLSv1.3; ssl_certificate {place.certificate}; ssl_certificate_key {place.key};"


def haproxy(tls):
    def command(place):
        secure = f"ssl crt {place.both} ssl-min-ver TLSv1.3" if tls else ""
        text = f"""
global
    maxconn {MANY // 2 - 200}
    nbthread 1
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
listen bench
    bind 127.0.0.1:{place.port} backlog 4096 {secure}
    server target 127.0.0.1:{place.target}
"""
        return ["haproxy", "-db", "-q", "-f", place.write("haproxy.cfg", text)]

    return command


def hitch(place):
    frontend, backend = f"[127.0.0.1]:{place.port}", f"[127.0.0.1]:{place.target}"
    return ["hitch", "--quiet", "--workers=1", "--tls-protos=TLSv1.3", "--user=nobody", f"--frontend={frontend}", f"--backend={backend}",
            place.both]


def stunnel(place):
    text = f"""
foreground = yes
pid =
debug = 3
sslVersion = TLSv1.3
socket = l:TCP_NODELAY=1
socket = r:TCP_NODELAY=1
[bench]
accept = 127.0.0.1:{place.port}
connect = 127.0.0.1:{place.target}
cert = {place.certificate}
key = {place.key}
"""
    return ["stunnel4", place.write("stunnel.conf", text)]


def socat(other):
    def command(place):
        address = f"TCP-LISTEN:{place.port},bind=127.0.0.1,fork,reuseaddr,nodelay,backlog=128"
        return ["socat", address, other.format(place=place)]

    return command


INTERNAL = "type = INTERNAL UNLISTED\n    id = echo-stream"
REDIRECT = "type = UNLISTED\n    redirect = 127.0.0.1 {place.target}"
PROGRAM = f"type = UNLISTED\n    server = {CAT}"


def xinetd(name, kind):
    def command(place):
        text = f"""
defaults
{{
    instances = UNLIMITED
    cps = 1000000 1
}}
service {name}
{{
    bind = 127.0.0.1
    port = {place.port}
    socket_type = stream
    protocol = tcp
    wait = no
    user = root
    flags = NODELAY
    {kind.format(place=place)}
}}
"""
        return ["xinetd", "-dontfork", "-f", place.write("xinetd.conf", text)]

    return command


def socket_proxyd(place):
    return ["systemd-socket-activate", "-l", f"127.0.0.1:{place.port}", SOCKET_PROXYD,
            f"--connections-max={MANY}", f"127.0.0.1:{place.target}"]


def tornado(place):
    return ["/usr/bin/python3", str(HERE / "tornado_echo.py"), str(place.port)]


def tcpserver(place):
    return ["tcpserver", "-HRl0", "-c", "4000", "127.0.0.1", str(place.port), CAT]


def tcpsvd(place):
    return ["tcpsvd", "-l", "localhost", "-c", "4000", "127.0.0.1", str(place.port), CAT]


def ncat(place):
    return ["ncat", "-l", "-k", "-m", "4000", "-e", CAT, "127.0.0.1", str(place.port)]


SERVERS = {
    "echo": [
        Server("bare epoll", bare()),
        Server("hark", hark("--handler", "echo")),
        Server("Tornado", tornado, TORNADO, "python3-tornado"),
        Server("socat", socat("PIPE"), "socat", "socat", rare=True, crowds=False),
        Server("ncat", ncat, "ncat", "ncat", rare=True, crowds=False),
        Server("xinetd", xinetd("echo", INTERNAL), "xinetd", "xinetd", rare=True, crowds=False),
    ],
    "forward": [
        Server("bare epoll", bare(forward=True)),
        Server("bare splice", bare("--splice", forward=True), only=("bulk",), crowds=False),
        Server("hark", hark("--handler", "forward", "TARGET")),
        Server("nginx", nginx("backlog=4096"), "nginx", "nginx-light libnginx-mod-stream"),
        Server("haproxy", haproxy(tls=False), "haproxy", "haproxy"),
        Server("socket-proxyd", socket_proxyd, SOCKET_PROXYD, "systemd", crowds=False),
        Server("socat", socat(TO_TARGET), "socat", "socat", rare=True, crowds=False),
        Server("xinetd", xinetd("bench", REDIRECT), "xinetd", "xinetd", rare=True, crowds=False),
    ],
    "tls": [
        Server("hark", hark("--ssl-cert", "CERTIFICATE", "--ssl-key", "KEY", "--handler", "forward", "TARGET")),
        Server("nginx", nginx("ssl backlog=4096", NGINX_TLS), "nginx", "nginx-light libnginx-mod-stream"),
        Server("haproxy", haproxy(tls=True), "haproxy", "haproxy"),
        Server("hitch", hitch, "hitch", "hitch"),
        Server("stunnel", stunnel, "stunnel4", "stunnel4", crowds=False),
    ],
    "exec": [
        Server("hark", hark("--handler", "exec", CAT)),
        Server("hark --stderr null", hark("--stderr", "null", "--handler", "exec", CAT)),
        Server("hark --warm 8", hark("--warm", "8", "--handler", "exec", CAT)),
        Server("tcpserver", tcpserver, "tcpserver", "ucspi-tcp"),
        Server("tcpsvd", tcpsvd, "tcpsvd", "ipsvd"),
        Server("xinetd", xinetd("bench", PROGRAM), "xinetd", "xinetd", rare=True, crowds=False),
        Server("socat", socat(f"EXEC:{CAT},nofork"), "socat", "socat", rare=True, crowds=False),
        Server("ncat", ncat, "ncat", "ncat", rare=True, crowds=False),
    ],
}
