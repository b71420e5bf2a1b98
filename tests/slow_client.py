#!/usr/bin/env python3
"""A client at the other end of a slow line: slow_client.py HARK [OPTION]..., in a network namespace of its own (unshare -n).

Makes a tun device, starts hark behind it, and speaks TCP by hand: sends the first packet of a handshake, gets the answer, has hark told to
end with TERM, and only then sends the third packet and a byte. Prints "served" if the byte comes back, "reset" if a reset does. A second
client that begins after TERM has to get no answer while hark waits for the first: "second: ANSWER" otherwise. "refused": the first got none either."""

import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
OURS, THEIRS, PORT = "10.77.0.2", "10.77.0.1", 7000
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def open_tun():
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", b"slow", IFF_TUN | IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        address = struct.pack("16sHH4s8x", b"slow", socket.AF_INET, 0, socket.inet_aton(THEIRS))
        mask = struct.pack("16sHH4s8x", b"slow", socket.AF_INET, 0, socket.inet_aton("255.255.255.0"))
        fcntl.ioctl(s, 0x8916, address)  # SIOCSIFADDR
        fcntl.ioctl(s, 0x891C, mask)  # SIOCSIFNETMASK
        fcntl.ioctl(s, 0x8914, struct.pack("16sh14x", b"slow", 1 | 64))  # SIOCSIFFLAGS: up, running
    return tun


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def packet(port, sequence, acknowledged, flags, data=b""):
    source, target = socket.inet_aton(OURS), socket.inet_aton(THEIRS)
    tcp = struct.pack("!HHIIBBHHH", port, PORT, sequence, acknowledged, 5 << 4, flags, 65535, 0, 0) + data
    tcp = tcp[:16] + struct.pack("!H", checksum(source + target + struct.pack("!HH", 6, len(tcp)) + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, source, target)
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + tcp


def answer(tun, port, seconds):
    """The next packet to that port that is more than an acknowledgement: its flags, sequence number and data; or None."""
    end = time.monotonic() + seconds
    while select.select([tun], [], [], max(0, end - time.monotonic()))[0]:
        data = os.read(tun, 65536)
        if data[0] >> 4 != 4 or data[9] != 6:
            continue
        tcp = data[(data[0] & 15) * 4 :]
        target, sequence, flags = struct.unpack("!2xHI5xB", tcp[:14])
        body = tcp[(tcp[12] >> 4) * 4 :]
        if target == port and (flags & (SYN | RST | FIN) or body):
            return flags, sequence, body
    return None


def main():
    tun = open_tun()
    r, w = os.pipe()
    hark = subprocess.Popen([*sys.argv[1:], "-b", THEIRS, "-p", str(PORT), "--ready-fd", str(w)], pass_fds=[w])
    os.close(w)
    while os.read(r, 100):
        pass
    os.write(tun, packet(4001, 1000, 0, SYN))
    flags, sequence, _ = answer(tun, 4001, 5)
    if flags != SYN | ACK:
        hark.kill()
        sys.exit("refused")
    hark.send_signal(signal.SIGTERM)
    time.sleep(0.3)  # the line is that slow
    os.write(tun, packet(4002, 1000, 0, SYN))
    second = answer(tun, 4002, 0.1)
    if second:
        print("second:", second)
    os.write(tun, packet(4001, 1001, sequence + 1, ACK))
    os.write(tun, packet(4001, 1001, sequence + 1, ACK | PSH, b"x"))
    flags, _, body = answer(tun, 4001, 5)
    print("served" if body == b"x" else "reset" if flags & RST else "flags %d" % flags)
    os.write(tun, packet(4001, 1002, sequence + 2, RST | ACK))
    print("status", hark.wait(10))


main()
