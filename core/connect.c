/* connect.c - from a target to a connected stream: resolve, then try one address after the other (RFC 8305). */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resolve.h"

static const double DEFAULT_TIMEOUT_SECONDS = 10;
static const double STAGGER_SECONDS = 0.25; /* RFC 8305, section 8 */
static const double RETRY_SECONDS = 0.02;   /* a unix socket's full backlog reports no event when it empties */

enum { FIRST_LOCAL_PORT = 32768 }; /* below it the kernel chooses no local ports, unless told to */

struct attempt {
    LIST_ENTRY(attempt) entry;
    struct connecting *owner;
    const struct address *address;
    ev_io io;
    struct timeout timeout, retry;
};

struct connecting {
    struct engine *engine;
    struct target *named; /* whose name the addresses were found by, or NULL */
    const char *tls_name; /* whose certificate it has to show */
    struct connect_options options;
    connect_cb *callback;
    void *arg;

    struct lookup *lookup;
    struct address_list *list;         /* NULL: the address is the target's */
    const struct address *next, *last; /* those not tried yet: next .. last - 1 */
    LIST_HEAD(, attempt) attempts;     /* those under way */
    struct timeout stagger;            /* to the next attempt */

    struct deferred outcome;
    int fd;                  /* the one that connected, or -1 */
    struct iostream *stream; /* it, while TLS is negotiated; or NULL */
    const struct address *peer;
    struct errbuf why;
    int error; /* behind `why` */
    bool told; /* the callback runs */
};

/* ---- the end */

static void attempt_free(struct attempt *a)
{
    LIST_REMOVE(a, entry);
    timeout_stop(&a->timeout);
    timeout_stop(&a->retry);
    ev_io_stop(a->owner->engine->loop, &a->io); /* before the number can be another descriptor's */
    if (a->io.fd >= 0)
        close(a->io.fd);
    free(a);
}

static void stop_attempts(struct connecting *c)
{
    struct attempt *a;
    while ((a = LIST_FIRST(&c->attempts)))
        attempt_free(a);
    timeout_stop(&c->stagger);
}

static void connecting_free(struct connecting *c)
{
    stop_attempts(c);
    if (c->stream) {
        iostream_on_close(c->stream, NULL, NULL);
        iostream_abort(c->stream, CLOSE_SHUTDOWN);
    }
    if (c->lookup)
        lookup_cancel(c->lookup);
    if (c->fd >= 0)
        close(c->fd);
    free(c->list);
    engine_put(c->engine);
    free(c);
}

/* ---- one address */

static void connect_next(struct connecting *);

/* These tell about this machine, so they do not hide what another address had to say. */
static bool is_local_failure(int error)
{
    return error == ENETUNREACH || error == EAFNOSUPPORT || error == EADDRNOTAVAIL;
}

enum { OUT_OF_TIME = -1 }; /* our own limit, which comes with a number, where ETIMEDOUT is the kernel's */

static void note_failure(struct connecting *c, const struct address *address, int error)
{
    char where[ADDRESS_TEXT], limit[64];
    const char *reason = limit;

    if (c->why.text[0] && is_local_failure(error))
        return;
    c->error = error == OUT_OF_TIME ? ETIMEDOUT : error;
    if (error == OUT_OF_TIME)
        snprintf(limit, sizeof limit, "timed out after %g s", c->options.timeout_seconds);
    else
        reason = strerror(error);
    address_text(&address->any, address->length, where, sizeof where);
    if (c->named)
        errbuf_set(&c->why, "connect to %s (%s): %s", c->named->text, where, reason);
    else
        errbuf_set(&c->why, "connect to %s: %s", where, reason);
}

static void attempt_failed(struct attempt *a, int error)
{
    struct connecting *c = a->owner;
    note_failure(c, a->address, error);
    attempt_free(a);
    connect_next(c);
}

static void attempt_succeeded(struct attempt *a)
{
    struct connecting *c = a->owner;
    c->fd = a->io.fd;
    c->peer = a->address;
    ev_io_stop(c->engine->loop, &a->io);
    a->io.fd = -1;
    stop_attempts(c);
    engine_defer(c->engine, &c->outcome);
}

/* Where nobody listens on a local port, the kernel may choose that very port for our end: TCP then connects the socket to itself. */
static bool is_connected_to_itself(const struct attempt *a)
{
    struct address ours = {.length = sizeof ours.in6}, theirs = ours;
    unsigned port = address_port(&a->address->any);
    if (port < FIRST_LOCAL_PORT || getsockname(a->io.fd, &ours.any, &ours.length) != 0 || address_port(&ours.any) != port)
        return false;
    return getpeername(a->io.fd, &theirs.any, &theirs.length) == 0 && memcmp(&ours.any, &theirs.any, ours.length) == 0;
}

static int connect_outcome(const struct attempt *a, int events)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (events & EV_ERROR) /* the kernel had no room for the watcher */
        return ENOMEM;
    if (events & EV_READ && getsockopt(a->io.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) /* of a failure libev tells as of both */
        return errno;
    return error;
}

static void on_connected(struct ev_loop *loop, ev_io *io, int events)
{
    (void)loop;
    struct attempt *a = container_of(io, struct attempt, io);
    struct engine *engine = a->owner->engine;
    engine_enter(engine);
    int error = connect_outcome(a, events);
    if (!error && is_connected_to_itself(a))
        error = ECONNREFUSED;
    if (error)
        attempt_failed(a, error);
    else
        attempt_succeeded(a);
    engine_leave(engine);
}

static void on_timeout(struct timeout *timeout)
{
    attempt_failed(container_of(timeout, struct attempt, timeout), OUT_OF_TIME);
}

static void on_retry(struct timeout *);

static bool is_loopback(const struct sockaddr *address)
{
    struct in6_addr key;
    return address_key(address, &key) && (IN6_IS_ADDR_LOOPBACK(&key) || (IN6_IS_ADDR_V4MAPPED(&key) && key.s6_addr[12] == 127));
}

static int connect_once(const struct attempt *a)
{
    return connect(a->io.fd, &a->address->any, a->address->length) == 0 ? 0 : errno;
}

/* Inside this machine the packets have been there and back before connect(2) returns, which it does not say: asked again, it does. That
 * saves waiting for an event. */
static int connect_now(const struct attempt *a)
{
    int error = connect_once(a);
    if (error == EINPROGRESS && is_loopback(&a->address->any)) {
        error = connect_once(a);
        if (error == EALREADY)
            return EINPROGRESS;
        if (error == 0 && is_connected_to_itself(a))
            return ECONNREFUSED;
    }
    return error;
}

/* 0: under way, or done and the attempt is no more. Else an errno. */
static int attempt_connect(struct attempt *a)
{
    struct engine *engine = a->owner->engine;
    int error = connect_now(a);
    if (error == EINPROGRESS) {
        ev_io_start(engine->loop, &a->io);
        return 0;
    }
    if (error == EAGAIN && a->address->any.sa_family == AF_UNIX && timeout_start(engine, &a->retry, RETRY_SECONDS, on_retry) == 0)
        return 0;
    if (error == 0)
        attempt_succeeded(a);
    return error;
}

static void on_retry(struct timeout *timeout)
{
    struct attempt *a = container_of(timeout, struct attempt, retry);
    int error = attempt_connect(a);
    if (error)
        attempt_failed(a, error);
}

static int attempt_open(struct attempt *a)
{
    const int family = a->address->any.sa_family, on = 1;
    struct connecting *c = a->owner;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ev_io_init(&a->io, on_connected, fd, EV_READ | EV_WRITE);
    if (fd < 0)
        return errno;
    if (family != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (timeout_start(c->engine, &a->timeout, c->options.timeout_seconds, on_timeout) != 0)
        return ENOMEM;
    return attempt_connect(a);
}

static int attempt_start(struct connecting *c, const struct address *address)
{
    struct attempt *a = calloc(1, sizeof *a);
    if (!a)
        return ENOMEM;
    a->owner = c;
    a->address = address;
    LIST_INSERT_HEAD(&c->attempts, a, entry);
    int error = attempt_open(a);
    if (error)
        attempt_free(a);
    return error;
}

/* ---- all addresses */

static void on_stagger(struct timeout *timeout)
{
    connect_next(container_of(timeout, struct connecting, stagger));
}

/* Starts the next address that does not fail at once. */
static void connect_next(struct connecting *c)
{
    timeout_stop(&c->stagger);
    while (c->next < c->last) {
        const struct address *address = c->next++;
        int error = attempt_start(c, address);
        if (error) {
            note_failure(c, address, error);
            continue;
        }
        if (c->fd < 0 && c->next < c->last) /* should memory be short, the next one waits for a failure */
            timeout_start(c->engine, &c->stagger, STAGGER_SECONDS, on_stagger);
        return;
    }
    if (LIST_EMPTY(&c->attempts))
        engine_defer(c->engine, &c->outcome);
}

static void connect_all(struct connecting *c, const struct address *addresses, size_t count)
{
    c->next = addresses;
    c->last = addresses + count;
    connect_next(c);
}

static void on_resolved(void *arg, struct address_list *list, const char *why)
{
    struct connecting *c = arg;
    c->lookup = NULL;
    c->list = list;
    if (list) {
        connect_all(c, list->items, list->count);
    } else {
        errbuf_set(&c->why, "%s", why);
        engine_defer(c->engine, &c->outcome);
    }
}

/* ---- the outcome */

/* A socket just connected has room for it. */
static int send_preface(const struct connecting *c)
{
    const struct connect_options *o = &c->options;
    ssize_t n = 0;
    while (o->preface_length && (n = send(c->fd, o->preface, o->preface_length, MSG_DONTWAIT | MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    if (n >= 0 && (size_t)n < o->preface_length)
        errno = ENOBUFS;
    return n == (ssize_t)o->preface_length ? 0 : -1;
}

static struct iostream *take_stream(struct connecting *c)
{
    if (send_preface(c) != 0)
        return NULL;
    struct iostream_options options = c->options.stream;
    options.flags |= TRANSPORT_SOCKET;
    struct transport *transport = transport_plain_new(c->engine->loop, c->fd, c->fd, options.flags);
    if (!transport)
        return NULL;
    c->fd = -1;
    struct iostream *stream = iostream_over(c->engine, transport, &options);
    if (stream)
        iostream_set_peer(stream, &c->peer->any, c->peer->length);
    else
        transport->ops->free(transport, false);
    return stream;
}

static void hand_over(struct connecting *c, struct iostream *stream)
{
    c->stream = NULL;
    if (!stream && c->named)
        lookup_doubt(c->named);
    c->told = true;
    errno = stream ? 0 : c->error;
    c->callback(stream, c->arg, stream ? NULL : c->why.text);
    connecting_free(c);
}

static void on_secure(struct iostream *stream, void *arg)
{
    iostream_on_close(stream, NULL, NULL);
    hand_over(arg, stream);
}

static void on_insecure(struct iostream *stream, void *arg)
{
    struct connecting *c = arg;
    const struct tls_info *info = iostream_tls(stream);
    const char *reason = info && info->error ? info->error : strerror(iostream_error(stream));
    char where[ADDRESS_TEXT];
    address_text(&c->peer->any, c->peer->length, where, sizeof where);
    c->error = iostream_error(stream);
    errbuf_set(&c->why, "connect to %s: TLS: %s", c->tls_name && *c->tls_name ? c->tls_name : where, reason);
    hand_over(c, NULL);
}

/* NULL: it is to be secure first, or that cannot be. */
static struct iostream *secure(struct connecting *c, struct iostream *stream)
{
    if (!c->options.tls)
        return stream;
    c->stream = stream;
    iostream_on_close(stream, on_insecure, c);
    if (iostream_start_tls(stream, c->options.tls, c->tls_name, c->options.timeout_seconds, on_secure, c) != 0)
        iostream_fail(stream, CLOSE_ERROR, errno);
    return NULL;
}

static void deliver(struct deferred *d)
{
    struct connecting *c = container_of(d, struct connecting, outcome);
    struct iostream *stream = c->fd >= 0 ? take_stream(c) : NULL;
    if (!stream && c->peer)
        note_failure(c, c->peer, errno);
    if (!stream || secure(c, stream))
        hand_over(c, stream);
}

/* ---- the calls */

static struct connecting *connecting_new(struct ev_loop *loop, const struct connect_options *options, connect_cb *callback, void *arg)
{
    struct errbuf err;
    struct connecting *c = calloc(1, sizeof *c);
    if (!c || !(c->engine = engine_get(loop, &err))) {
        free(c);
        return NULL;
    }
    if (options)
        c->options = *options;
    if (c->options.timeout_seconds <= 0)
        c->options.timeout_seconds = DEFAULT_TIMEOUT_SECONDS;
    c->callback = callback;
    c->arg = arg;
    c->outcome.run = deliver;
    c->fd = -1;
    LIST_INIT(&c->attempts);
    return c;
}

struct connecting *iostream_connect(struct ev_loop *loop, struct target *target, const struct connect_options *options,
                                    connect_cb *callback, void *arg)
{
    struct connecting *c = connecting_new(loop, options, callback, arg);
    if (!c)
        return NULL;
    c->tls_name = c->options.tls_name ? c->options.tls_name : target->host;
    if (target->address.length) {
        connect_all(c, &target->address, 1);
        return c;
    }
    c->named = target;
    c->list = lookup_known(target, engine_now(c->engine));
    if (c->list) {
        connect_all(c, c->list->items, c->list->count);
        return c;
    }
    c->lookup = lookup_start(c->engine, target, c->options.timeout_seconds, on_resolved, c);
    if (!c->lookup) {
        connecting_free(c);
        errno = ENOMEM;
        return NULL;
    }
    return c;
}

struct connecting *connect_addresses(struct ev_loop *loop, struct address_list *list, const struct connect_options *options,
                                     connect_cb *callback, void *arg)
{
    struct connecting *c = connecting_new(loop, options, callback, arg);
    if (c) {
        c->list = list;
        connect_all(c, list->items, list->count);
    }
    return c;
}

void connect_cancel(struct connecting *c)
{
    if (c->told) /* hand_over frees it */
        return;
    deferred_cancel(c->engine, &c->outcome);
    connecting_free(c);
}
