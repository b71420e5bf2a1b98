/* proxied.c - streams behind proxies: those that have to begin with a PROXY header, and the header that another one may need.
 *
 * Not a byte more than the header is taken from the socket, so that whatever comes after, TLS or a child that is given the socket,
 * finds it untouched. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "proxy.h"

enum { PIECE_BYTES = 512 };
static const double HEADER_SECONDS = 5;

/* Gives way to the inner transport once the header is there; until then nothing but the handshake is asked of it. */
struct proxied {
    struct transport base;
    struct transport *inner;
    struct engine *engine;
    struct timeout too_late;
    void (*on_hangup)(struct hangup *, unsigned events); /* the stream's own */
    struct buffer header;                                /* what has come of it */
    size_t length;                                       /* of the whole header, once it is there */
    struct address client;
};

static struct proxied *proxied_of(struct transport *t)
{
    return container_of(t, struct proxied, base);
}

/* ---- until the header is there ---- */

static int reject(struct proxied *p)
{
    iostream_fail(p->base.owner, CLOSE_PROXY, 0); /* frees p */
    return TRANSPORT_ERROR;
}

static void on_too_late(struct timeout *t)
{
    reject(container_of(t, struct proxied, too_late));
}

enum { HEADER_DONE, HEADER_GOES_ON }; /* or TRANSPORT_* */

/* Looks at what is there, and takes what belongs to the header. */
static int read_piece(struct proxied *p)
{
    char piece[PIECE_BYTES];
    size_t before = buffer_length(&p->header);
    ssize_t n = recv(p->base.read_fd, piece, sizeof piece, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return TRANSPORT_WANT_READ;
    if (n <= 0 || buffer_append(&p->header, piece, (size_t)n) != 0)
        return TRANSPORT_ERROR;
    ssize_t length = proxy_parse(buffer_bytes(&p->header), buffer_length(&p->header), &p->client);
    if (length < 0)
        return TRANSPORT_ERROR;
    p->length = (size_t)length;
    size_t belongs = length == 0 ? (size_t)n : p->length - before;
    if (recv(p->base.read_fd, piece, belongs, MSG_DONTWAIT) != (ssize_t)belongs)
        return TRANSPORT_ERROR;
    return length == 0 ? HEADER_GOES_ON : HEADER_DONE;
}

static int proxied_handshake(struct transport *t)
{
    struct proxied *p = proxied_of(t);
    int result;
    do
        result = read_piece(p);
    while (result == HEADER_GOES_ON);
    return result == TRANSPORT_ERROR ? reject(p) : result;
}

/* ---- events: through the set for hangups, since libev's own would not forget a socket that is lent to a child ---- */

static void on_readable(struct hangup *hangup, unsigned events)
{
    (void)events;
    struct iostream *s = container_of(hangup, struct iostream, hangup);
    transport_ready(s->transport, EV_READ);
}

static void proxied_watch(struct transport *t, int events)
{
    struct proxied *p = proxied_of(t);
    struct hangup *hangup = &t->owner->hangup;
    hangup_unwatch(p->engine, hangup);
    if (events) {
        p->on_hangup = hangup->report;
        hangup->report = on_readable;
        hangup_watch(p->engine, hangup, t->read_fd, true); /* on failure time runs out */
    } else if (p->on_hangup) {
        hangup->report = p->on_hangup;
    }
}

static void release(struct proxied *p)
{
    timeout_stop(&p->too_late);
    buffer_release(&p->header);
    free(p);
}

static void proxied_free(struct transport *t, bool reset)
{
    struct proxied *p = proxied_of(t);
    p->inner->ops->free(p->inner, reset);
    release(p);
}

static const struct transport_ops proxied_ops = {.handshake = proxied_handshake, .watch = proxied_watch, .free = proxied_free};

struct transport *transport_proxied_new(struct engine *engine, struct transport *inner)
{
    struct proxied *p = calloc(1, sizeof *p);
    if (!p || timeout_start(engine, &p->too_late, HEADER_SECONDS, on_too_late) != 0) {
        free(p);
        return NULL;
    }
    p->base = (struct transport){.ops = &proxied_ops, .read_fd = inner->read_fd, .write_fd = inner->write_fd};
    p->inner = inner;
    p->engine = engine;
    return &p->base;
}

void proxied_unwrap(struct iostream *s, struct address *client)
{
    struct proxied *p = proxied_of(s->transport);
    proxied_watch(s->transport, 0);
    s->watching = 0;
    s->transport = p->inner;
    s->transport->owner = s;
    s->header_bytes = (uint32_t)p->length;
    *client = p->client;
    release(p);
}

/* ---- the header for another one ---- */

static struct proxy_tls describe_tls(const struct tls_info *info)
{
    return (struct proxy_tls){.version = info->version,
                              .cipher = info->cipher,
                              .alpn = info->alpn,
                              .name = info->sni,
                              .client = info->client_name,
                              .certificate = info->client != NULL,
                              .resumed = info->resumed};
}

size_t iostream_proxy_header(struct iostream *s, int version, char header[PROXY_HEADER_BYTES])
{
    struct sockaddr_storage local;
    socklen_t length;
    if (!s)
        return proxy_format(header, version, NULL, NULL, NULL);
    bool is_known = iostream_local(s, &local, &length) == 0;
    const struct tls_info *info = version == 2 ? iostream_tls(s) : NULL;
    const struct proxy_tls tls = info ? describe_tls(info) : (struct proxy_tls){0};
    return proxy_format(header, version, &s->peer.any, is_known ? (struct sockaddr *)&local : NULL, &tls);
}
