"""A TLS connection that looks like a socket to client.py and crowd.py, with one thing more: its end is close_notify, and reading goes on."""

import select
import ssl


class Ended(OSError):
    def __init__(self, ending):
        super().__init__(ending)
        self.ending = ending


def said(error):
    """"truncated": without close_notify; else OpenSSL's name for what was wrong, such as an alert."""
    return Ended("truncated" if isinstance(error, (ssl.SSLEOFError, ssl.SSLSyscallError)) else "alert: %s" % error.reason)


VERSIONS = {"1.0": ssl.TLSVersion.TLSv1, "1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def client_context(ca=None, cert=None, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED if ca else ssl.CERT_NONE
    if ca:
        context.load_verify_locations(ca)
    if cert:
        context.load_cert_chain(cert)
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


def server_context(cert, version=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    if version:
        context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class TlsSocket:
    def __init__(self, plain, context, name=None, server=False, session=None):
        self.plain = plain
        self.came, self.unsent, self.early = ssl.MemoryBIO(), b"", b""
        self.going = ssl.MemoryBIO()
        self.ssl = context.wrap_bio(self.came, self.going, server_side=server, server_hostname=name, session=session)
        self.work(self.ssl.do_handshake)

    def __getattr__(self, name):
        return getattr(self.plain, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.plain.close()

    # ---- bytes between the engine and the socket

    def flush(self):
        """As much as the socket takes; the rest stays in self.unsent."""
        self.unsent += self.going.read()
        while self.unsent:
            try:
                self.unsent = self.unsent[self.plain.send(self.unsent) :]
            except BlockingIOError:
                return

    def flush_all(self):
        self.flush()
        while self.unsent:
            select.select([], [self.plain], [])
            self.flush()

    def fetch(self):
        data = self.plain.recv(65536)
        if data:
            self.came.write(data)
        else:
            self.came.write_eof()

    def work(self, call, *arguments):
        """On a socket that blocks, until it is done; else BlockingIOError."""
        while True:
            try:
                result = call(*arguments)
                self.flush()
                return result
            except ssl.SSLWantReadError:
                self.flush()
                self.fetch()
            except ssl.SSLZeroReturnError:
                raise
            except ssl.SSLError as error:
                self.flush()  # an alert of ours
                raise said(error) from None

    # ---- what a socket has

    def recv(self, size):
        data, self.early = self.early[:size], self.early[size:]
        return data or self.decrypt(size)

    def decrypt(self, size):
        data = b""
        try:
            data = self.work(self.ssl.read, size)
            while data and len(data) < size:
                more = self.ssl.read(size - len(data))
                if not more:
                    break
                data += more
        except (ssl.SSLWantReadError, BlockingIOError):
            if not data:
                raise
        except ssl.SSLZeroReturnError:
            pass
        except ssl.SSLError as error:
            if not data:
                raise said(error) from None
        return data

    def pending(self):
        return bool(self.early or self.ssl.pending() or self.came.pending)

    def send(self, data):
        self.flush()
        if self.unsent:
            raise BlockingIOError
        count = self.work(self.ssl.write, data[:16384])
        return count

    def sendall(self, data):
        while data:
            data = data[self.send(data) :]
        self.flush_all()

    def shutdown(self, _):
        """close_notify; the socket itself stays open, as do OpenSSL's and GnuTLS's own. Records that have come are read first: unwrap
        would look at the next one, and take data for an error."""
        try:
            while data := self.ssl.read(65536):
                self.early += data
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass
        try:
            self.ssl.unwrap()
        except ssl.SSLWantReadError:
            pass
        self.flush()
