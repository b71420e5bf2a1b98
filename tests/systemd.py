#!/usr/bin/env python3
"""What systemd does with sockets before it starts a program: systemd.py "WHAT..." PROGRAM [ARGUMENT]...

listen=IP     a listening socket, on a free port; listen=/PATH: on a unix socket
connection    one that was accepted
say=TEXT      its client says TEXT and ends, and prints what it hears as "heard TEXT"; hark's own status is the exit status
gone          its client has reset it
datagram, file, closed    what is no such thing
fds=N pid=N   in LISTEN_FDS and LISTEN_PID, instead of what would be right"""

import os
import socket
import struct
import sys

FIRST = 3
handed, environment, client, say = [], {}, None, None

for word in sys.argv[1].split():
    name, _, value = word.partition("=")
    if name == "listen":
        s = socket.socket(socket.AF_UNIX if value.startswith("/") else socket.AF_INET)
        s.bind(value if value.startswith("/") else (value, 0))
        s.listen()
        handed.append(s)
    elif name == "connection":
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = socket.create_connection(listener.getsockname())
            handed.append(listener.accept()[0])
    elif name == "say":
        say = value
    elif name == "gone":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        client = None
    elif name == "datagram":
        handed.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    elif name == "file":
        handed.append(open("/dev/null"))
    elif name == "closed":
        environment["LISTEN_FDS"] = "1"
    else:
        environment["LISTEN_" + name.upper()] = value


def start():
    # out of the way of the places that they go to
    high = [os.dup2(h.fileno(), 100 + i) for i, h in enumerate(handed)]
    for i, fd in enumerate(high):
        os.dup2(fd, FIRST + i, inheritable=True)
        os.close(fd)
    if not handed:
        os.closerange(FIRST, 9)
    os.environ.update({"LISTEN_FDS": str(len(handed)), "LISTEN_PID": str(os.getpid()), **environment})
    os.execvp(sys.argv[2], sys.argv[2:])


if say is None:
    start()
pid = os.fork()
if pid == 0:
    start()
for h in handed:
    h.close()
client.sendall(say.encode())
client.shutdown(socket.SHUT_WR)
heard = b""
while piece := client.recv(65536):
    heard += piece
_, status = os.waitpid(pid, 0)
print("heard", heard.decode(), flush=True)
sys.exit(os.waitstatus_to_exitcode(status))
