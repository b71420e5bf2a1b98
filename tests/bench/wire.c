/* wire.c - a client's connection: a socket, and TLS 1.3 on it where that is asked for. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "load.h"

static struct sockaddr_in server;
static SSL_CTX *context;
static bool resume;
static SSL_SESSION *session; /* with the latest ticket */

static const char *tls_error(void)
{
    unsigned long code = ERR_peek_error();
    return code ? ERR_reason_error_string(code) : strerror(errno);
}

/* One cipher and one group, so that every server does the same work. */
static SSL_CTX *tls_client(void)
{
    SSL_CTX *new = SSL_CTX_new(TLS_client_method());
    if (!new || !SSL_CTX_set_min_proto_version(new, TLS1_3_VERSION) || !SSL_CTX_set_ciphersuites(new, "TLS_AES_128_GCM_SHA256") ||
        !SSL_CTX_set1_groups_list(new, "X25519"))
        die("cannot set up TLS: %s", tls_error());
    SSL_CTX_set_mode(new, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(new, 1);
    return new;
}

void wire_setup(const struct load *load)
{
    signal(SIGPIPE, SIG_IGN);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(load->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (load->tls)
        context = tls_client();
    resume = load->resume;
}

static void handshake(struct wire *wire)
{
    wire->ssl = SSL_new(context);
    if (!wire->ssl || !SSL_set_fd(wire->ssl, wire->fd))
        die("cannot set up TLS: %s", tls_error());
    if (session)
        SSL_set_session(wire->ssl, session);
    if (SSL_connect(wire->ssl) != 1)
        die("TLS handshake: %s", tls_error());
}

void wire_open(struct wire *wire)
{
    int on = 1;
    *wire = (struct wire){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    if (wire->fd == -1 || setsockopt(wire->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        die("socket: %s", strerror(errno));
    if (connect(wire->fd, (struct sockaddr *)&server, sizeof server) != 0)
        die("connect: %s", strerror(errno));
    if (context)
        handshake(wire);
    if (fcntl(wire->fd, F_SETFL, O_NONBLOCK) != 0)
        die("fcntl: %s", strerror(errno));
}

bool wire_was_resumed(const struct wire *wire)
{
    return wire->ssl && SSL_session_reused(wire->ssl);
}

/* What a TLS call that moved no byte means. */
static ssize_t tls_outcome(const struct wire *wire, int returned, const char *call)
{
    int error = SSL_get_error(wire->ssl, returned);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        return WIRE_WAIT;
    if (error == SSL_ERROR_ZERO_RETURN)
        return WIRE_END;
    die("%s: %s", call, tls_error());
}

ssize_t wire_read(struct wire *wire, void *bytes, size_t room)
{
    if (wire->ssl) {
        int n = SSL_read(wire->ssl, bytes, (int)room);
        return n > 0 ? n : tls_outcome(wire, n, "SSL_read");
    }
    ssize_t n = recv(wire->fd, bytes, room, 0);
    if (n == -1 && errno != EAGAIN)
        die("recv: %s", strerror(errno));
    return n;
}

ssize_t wire_write(struct wire *wire, const void *bytes, size_t length)
{
    if (wire->ssl) {
        int n = SSL_write(wire->ssl, bytes, (int)length);
        return n > 0 ? n : tls_outcome(wire, n, "SSL_write");
    }
    ssize_t n = send(wire->fd, bytes, length, 0);
    if (n == -1 && errno != EAGAIN)
        die("send: %s", strerror(errno));
    return n;
}

void wire_write_all(struct wire *wire, const void *bytes, size_t length)
{
    if (wire_write(wire, bytes, length) != (ssize_t)length)
        die("a message did not fit in the socket's buffer");
}

void wire_finish(struct wire *wire)
{
    if (wire->ssl)
        SSL_shutdown(wire->ssl);
    if (shutdown(wire->fd, SHUT_WR) != 0)
        die("shutdown: %s", strerror(errno));
}

/* The ticket may be used more than once, which a careful client would not: some servers send one on resumption and some do not. */
static void keep_session(const struct wire *wire)
{
    SSL_SESSION *latest = SSL_get1_session(wire->ssl);
    if (!SSL_SESSION_is_resumable(latest)) {
        SSL_SESSION_free(latest);
        return;
    }
    SSL_SESSION_free(session);
    session = latest;
}

void wire_close(struct wire *wire, enum ending ending)
{
    if (resume)
        keep_session(wire);
    struct linger reset = {.l_onoff = 1};
    if (ending == END_RST)
        setsockopt(wire->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    else if (ending == END_FIN && wire->ssl)
        SSL_shutdown(wire->ssl);
    SSL_free(wire->ssl);
    close(wire->fd);
}
