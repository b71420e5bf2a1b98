/* iostream.c - one connection: its life, its events, its end. What it reads is in read.c, what it writes in write.c. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

/* How long a closing stream may take: to flush without a byte moving, and to end after that. */
static const double FLUSH_SECONDS = 30, LINGER_SECONDS = 2;

const char *close_reason_name(enum close_reason reason)
{
    static const char *const names[] = {"none",   "eof",   "finished", "child", "timeout", "limit",
                                        "denied", "proxy", "reset",    "tls",   "error",   "shutdown"};
    return names[reason];
}

/* ---- events ---- */

/* Are there bytes that no event has announced? */
static bool may_have_more(const struct iostream *s)
{
    const struct transport_ops *ops = s->transport->ops;
    return s->fresh || (ops->pending && ops->pending(s->transport));
}

void iostream_update(struct iostream *s)
{
    if (s->reason != CLOSE_NONE)
        return;
    assert(s->transport);
    int events = 0;
    if (s->handshaking) { /* nothing else: a queued write must not ask for EV_WRITE while the handshake waits for the peer */
        events = s->handshake_want;
    } else {
        if (read_wanted(s))
            events |= s->read_want;
        if (write_wanted(s))
            events |= s->write_want;
    }
    if (s->was_lent) { /* a background process may hold the socket open: libev would not forget it */
        if (s->hangup.fd < 0 && (s->child || is_lingering(s))) /* between the two there is something to read, most often the end */
            hangup_watch(s->engine, &s->hangup, s->transport->read_fd, !s->child);
        return;
    }
    if (events == 0 && s->in_ended && !s->eof_again && s->watching == EV_READ)
        return; /* most streams end before that event comes again, and are watched no more without a system call */
    if (events != s->watching) {
        s->watching = (unsigned char)events;
        s->transport->ops->watch(s->transport, events);
    }
    if (events == 0 && s->is_socket && s->hangup.fd < 0)
        hangup_watch(s->engine, &s->hangup, s->transport->read_fd, false); /* on failure a reset is noticed later, by reading */
    /* When it is a write that waits to read, nobody would take them. */
    if (events & EV_READ && s->read_want == EV_READ && read_wanted(s) && may_have_more(s))
        engine_defer(s->engine, &s->deferred);
}

static void on_ready(struct transport *t, int events, struct iostream *s)
{
    (void)t;
    s->eof_again = s->in_ended;
    if (s->handshaking) {
        handshake_go_on(s);
    } else {
        if (events & s->write_want && write_wanted(s))
            write_flush(s);
        if (s->reason == CLOSE_NONE && events & s->read_want && read_wanted(s))
            read_take(s);
    }
    iostream_update(s);
}

void transport_ready(struct transport *t, int events)
{
    struct iostream *s = t->owner;
    struct engine *engine = s->engine;
    if (s->reason != CLOSE_NONE)
        return;
    engine_enter(engine);
    if (events & EV_ERROR) /* libev has stopped the watcher: the kernel has no memory for it, or this user has too many */
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
    else
        on_ready(t, events, s);
    engine_leave(engine);
}

/* A child that reads a reset takes the error away, and only a closed connection is left. That is an orderly end if our FIN was
 * acknowledged, for which the child would have to have shut the socket down. The kernel counts the FIN as acknowledged, but not as sent. */
static bool was_reset(int fd)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return false; /* no TCP: a unix socket hangs up when its peer just closes */
    return info.tcpi_state == CLOSED && info.tcpi_bytes_acked <= info.tcpi_bytes_sent - info.tcpi_bytes_retrans;
}

/* Asking takes it away. */
static int socket_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return error;
}

static int hangup_error(const struct iostream *s, unsigned events)
{
    if (s->child) /* which has to find the error itself, or it would take the end for an orderly one */
        return events & EPOLLERR || (events & EPOLLHUP && was_reset(s->hangup.fd)) ? ECONNRESET : 0;
    return events & EPOLLERR ? socket_error(s->hangup.fd) : 0; /* a mere EPOLLHUP: both directions have ended in order */
}

static void on_hangup(struct hangup *hangup, unsigned events)
{
    struct iostream *s = container_of(hangup, struct iostream, hangup);
    int error = hangup_error(s, events);
    bool both_ended = s->in_ended && s->out_state == OUT_ENDED; /* the last word of TLS may have met a socket that was closed */
    if (error != 0 && both_ended) {
        hangup_unwatch(s->engine, hangup);
    } else if (error != 0) {
        iostream_fail_io(s, error);
    } else if (events & EPOLLIN && read_wanted(s)) {
        read_take(s);
        iostream_update(s);
    }
}

/* ---- the end ---- */

static void stream_free(struct iostream *s)
{
    struct engine *engine = s->engine;
    deferred_cancel(engine, &s->deferred);
    buffer_release(&s->in);
    buffer_release(&s->out);
    read_release(s);
    free(s->child_result);
    free(s->limits);
    tls_info_free(s->tls_info);
    free(s);
    engine_put(engine);
}

static void say_goodbye(struct iostream *s)
{
    if (!s->eof_told && s->in_ended && s->on_eof.callback && s->reason == CLOSE_EOF)
        s->on_eof.callback(s, s->on_eof.arg);
    s->eof_told = true;
    read_fail(s);
    write_complete(s); /* all: the stream has ended, nothing can be added */
    if (s->server)
        tcpserver_stream_ended(s);
    if (s->on_close.callback)
        s->on_close.callback(s, s->on_close.arg);
    stream_free(s);
}

static void run(struct deferred *d)
{
    struct iostream *s = container_of(d, struct iostream, deferred);
    if (s->reason != CLOSE_NONE) {
        if (!s->child) /* whose exit is the end, whatever was put off before */
            say_goodbye(s);
        return;
    }
    write_complete(s);
    if (s->reason != CLOSE_NONE)
        return; /* a callback ended it */
    read_deliver(s);
    if (s->reason == CLOSE_NONE && read_wanted(s) && may_have_more(s))
        read_take(s);
    iostream_settle(s);
    iostream_update(s);
}

/* It is being closed because the other end of a relay failed: the peer has to learn of that, once it has all that came before. */
static bool must_reset(const struct iostream *s)
{
    return s->close_as != CLOSE_NONE && s->close_as != CLOSE_CHILD;
}

/* In a connection that is closed no state says whether the peer ended before it reset. The kernel has nothing to map of a stream that is
 * read to its end, and does not take the error away from a child by saying so; with input unread that error tells, once it is ours. */
static bool had_fin(const struct iostream *s)
{
    struct tcp_zerocopy_receive nothing = {0};
    socklen_t length = offsetof(struct tcp_zerocopy_receive, recv_skip_hint) + sizeof nothing.recv_skip_hint;
    if (getsockopt(s->transport->read_fd, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &nothing, &length) != 0 && errno == EIO)
        return true;
    return !s->child && socket_error(s->transport->read_fd) == EPIPE;
}

static bool has_fin(const struct iostream *s, int state)
{
    return s->in_ended || state == CLOSE_WAIT || state == LAST_ACK || state == CLOSING || state == TIME_WAIT ||
           (state == CLOSED && had_fin(s));
}

void iostream_count_lent(struct iostream *s)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(s->transport->read_fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0 || length < sizeof info)
        return;
    s->bytes_in = info.tcpi_bytes_received - s->header_bytes;
    s->bytes_in -= has_fin(s, info.tcpi_state) && s->bytes_in ? 1 : 0; /* the FIN counts as one */
    uint32_t unsent_fin = s->out_state == OUT_ENDED && info.tcpi_notsent_bytes ? 1 : 0;
    s->bytes_out = info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes - unsent_fin;
}

static void close_transport(struct iostream *s, bool reset)
{
    tls_info_free(s->tls_info);
    s->tls_info = tls_describe(s->transport); /* of how it ended, too */
    splice_drop(s);
    s->transport->ops->free(s->transport, reset);
    s->transport = NULL;
}

void iostream_fail(struct iostream *s, enum close_reason reason, int error)
{
    if (s->reason != CLOSE_NONE) {
        if (s->child && reason == CLOSE_SHUTDOWN)
            child_end_now(s->child);
        return;
    }
    s->reason = reason;
    s->error = error;
    time_limits_stop(s, true);
    hangup_unwatch(s->engine, &s->hangup);
    relay_break(s);
    if (s->was_lent)
        iostream_count_lent(s); /* while the connection is there */
    if (s->child)
        child_orphaned(s);
    if (s->child && s->lent)
        return; /* it has the socket still: the stream is over when the child is */
    bool cut_off = s->out_state != OUT_ENDED || must_reset(s);
    close_transport(s, s->is_socket && cut_off && !s->peer_gone);
    if (!s->child)
        engine_defer(s->engine, &s->deferred);
}

static enum close_reason reason_of(int error)
{
    switch (error) {
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
        return CLOSE_RESET;
    case ETIMEDOUT:
        return CLOSE_TIMEOUT;
    case EPROTO:
        return CLOSE_TLS;
    default:
        return CLOSE_ERROR;
    }
}

void iostream_fail_io(struct iostream *s, int error)
{
    enum close_reason reason = reason_of(error);
    s->peer_gone = reason == CLOSE_RESET;
    iostream_fail(s, reason, error);
}

static enum close_reason orderly_reason(const struct iostream *s)
{
    if (s->close_as != CLOSE_NONE)
        return s->close_as;
    return s->out_first ? CLOSE_FINISHED : CLOSE_EOF;
}

void iostream_settle(struct iostream *s)
{
    if (s->reason != CLOSE_NONE || s->out_state != OUT_ENDED || !s->in_ended || (s->child && !s->dropping))
        return; /* a child that has closed its stdout may have more to do: the stream ends when it exits */
    bool input_left = buffer_length(&s->in) > 0 || s->read.ready || (s->on_eof.callback && !s->eof_told);
    if (s->dropping || !input_left)
        iostream_fail(s, orderly_reason(s), 0);
}

static bool all_acknowledged(const struct iostream *s)
{
    int unsent = 0;
    return ioctl(s->transport->write_fd, SIOCOUTQ, &unsent) == 0 && unsent == 0;
}

static void on_linger(struct timeout *t)
{
    struct iostream *s = container_of(t, struct time_limits, linger)->stream;
    enum close_reason reason = s->out_state != OUT_ENDED ? CLOSE_TIMEOUT : orderly_reason(s);
    iostream_fail(s, reason, 0); /* with input unread, the kernel makes it a reset */
}

/* While closing: everything is out. */
void iostream_flushed(struct iostream *s)
{
    if (must_reset(s) && s->is_socket && all_acknowledged(s))
        iostream_fail(s, s->close_as, 0);
    else if (linger_start(s, LINGER_SECONDS, on_linger) != 0)
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
}

/* The way out, once the decision to close is made: flush, shut down, drop what comes, for a while. */
static int begin_winding_up(struct iostream *s)
{
    read_close(s);
    if (s->read.ready)
        engine_defer(s->engine, &s->deferred); /* now, not when the peer has ended */
    s->dropping = true;
    if (!s->child)
        s->lent = false;          /* no child came: it is ours to read to the end */
    s->in_ended |= !s->is_socket; /* nothing that a pipe's or file's reader leaves unread harms what was written */
    buffer_release(&s->in);
    if (linger_start(s, FLUSH_SECONDS, on_linger) == 0)
        return 0;
    iostream_fail(s, CLOSE_ERROR, ENOMEM);
    return -1;
}

/* Our side is finished by somebody else later, or was before. */
void iostream_wind_up(struct iostream *s, enum close_reason reason)
{
    s->close_as = reason;
    if (begin_winding_up(s) != 0)
        return;
    if (s->out_state == OUT_ENDED)
        iostream_flushed(s);
    if (read_wanted(s))
        read_take(s); /* most often the peer's end is there already */
    iostream_settle(s);
    iostream_update(s);
}

static void finish_and_wind_up(struct iostream *s, enum close_reason reason)
{
    iostream_finish(s);
    if (s->reason == CLOSE_NONE)
        iostream_wind_up(s, reason);
}

void iostream_close(struct iostream *s)
{
    if (s->reason != CLOSE_NONE || s->dropping)
        return;
    if (s->child && s->lent) {
        iostream_fail(s, CLOSE_FINISHED, 0);
        return;
    }
    relay_break(s);
    if (s->reason == CLOSE_NONE)
        finish_and_wind_up(s, s->close_as);
}

void iostream_hang_up(struct iostream *s, enum close_reason reason)
{
    if (s->reason != CLOSE_NONE)
        return;
    s->close_as = reason;
    if (!s->dropping)
        finish_and_wind_up(s, reason);
}

void iostream_abort(struct iostream *s, enum close_reason reason)
{
    iostream_fail(s, reason, 0);
}

/* delivering: our side is finished when what the child wrote has gone out; else there is no more to come. */
void iostream_release_child(struct iostream *s, bool delivering)
{
    s->child = NULL;
    s->lent = false;
    if (s->reason == CLOSE_NONE && s->was_lent && was_reset(s->transport->read_fd)) {
        iostream_fail_io(s, ECONNRESET); /* its exit was the answer to that, and came to us first */
        return;
    }
    if (s->reason != CLOSE_NONE) { /* it had ended before its child */
        if (s->was_lent && s->peer_gone && s->transport)
            iostream_count_lent(s); /* of what came before a reset more is known now */
        if (s->transport)
            close_transport(s, false);
        engine_defer(s->engine, &s->deferred);
        return;
    }
    hangup_unwatch(s->engine, &s->hangup);
    if (s->was_lent) { /* they were looking at the kernel's clock; from here on `linger` counts */
        time_limits_stop(s, false);
    }
    if (delivering)
        iostream_wind_up(s, CLOSE_CHILD);
    else
        iostream_hang_up(s, CLOSE_CHILD);
}

/* ---- making one ---- */

struct iostream *iostream_over(struct engine *engine, struct transport *transport, const struct iostream_options *options)
{
    struct iostream *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    engine->users++;
    s->engine = engine;
    s->transport = transport;
    transport->owner = s;
    s->deferred.run = run;
    s->hangup = (struct hangup){.report = on_hangup, .fd = -1};
    s->max_buffer_bytes = options && options->max_buffer_bytes ? options->max_buffer_bytes : DEFAULT_BUFFER_BYTES;
    if (s->max_buffer_bytes > SSIZE_MAX)
        s->max_buffer_bytes = SSIZE_MAX; /* so that sums do not overflow */
    s->is_socket = options && options->flags & TRANSPORT_SOCKET;
    s->read_want = EV_READ;
    s->write_want = EV_WRITE;
    s->opened = engine_now(engine);
    return s;
}

static int set_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : flags & O_NONBLOCK ? 0 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

struct iostream *iostream_new(struct ev_loop *loop, int read_fd, int write_fd, const struct iostream_options *options, struct errbuf *err)
{
    struct iostream_options o = options ? *options : (struct iostream_options){0};
    struct stat st;
    if (fstat(read_fd, &st) != 0 || (read_fd != write_fd && fcntl(write_fd, F_GETFD) < 0)) {
        errbuf_set(err, "cannot make a stream of descriptors %d and %d: %s", read_fd, write_fd, strerror(errno));
        return NULL;
    }
    if (!(o.flags & IOSTREAM_SHARED) && (set_nonblocking(read_fd) != 0 || set_nonblocking(write_fd) != 0)) {
        errbuf_set(err, "cannot make a stream non-blocking: %s", strerror(errno));
        return NULL;
    }
    if (read_fd == write_fd && S_ISSOCK(st.st_mode) && !(o.flags & IOSTREAM_SHARED))
        o.flags |= TRANSPORT_SOCKET;
    struct engine *engine = engine_get(loop, err);
    if (!engine)
        return NULL;
    struct transport *transport = transport_plain_new(loop, read_fd, write_fd, o.flags);
    struct iostream *s = transport ? iostream_over(engine, transport, &o) : NULL;
    if (!s) {
        errbuf_set(err, "cannot make a stream: %s", strerror(ENOMEM));
        if (transport) {
            transport->read_fd = transport->write_fd = -1; /* they stay the caller's */
            transport->ops->free(transport, false);
        }
    }
    engine_put(engine); /* the stream counts as a user itself */
    return s;
}

/* ---- settings and what is known of it ---- */

void iostream_on_eof(struct iostream *s, iostream_cb *callback, void *arg)
{
    s->on_eof = (struct handler_slot){callback, arg};
    if (callback && s->in_ended && !s->eof_told)
        engine_defer(s->engine, &s->deferred);
    iostream_update(s);
}

void iostream_on_close(struct iostream *s, iostream_cb *callback, void *arg)
{
    s->on_close = (struct handler_slot){callback, arg};
}

void iostream_watch(struct iostream *s)
{
    iostream_update(s);
}

int iostream_set_nodelay(struct iostream *s, bool on)
{
    if (!s->transport || !s->is_socket || s->peer.any.sa_family == AF_UNIX)
        return 0;
    int value = on;
    int result = setsockopt(s->transport->write_fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value);
    return result != 0 && errno == EOPNOTSUPP ? 0 : result;
}

struct ev_loop *iostream_loop(const struct iostream *s)
{
    return s->engine->loop;
}

uint64_t iostream_id(const struct iostream *s)
{
    return s->id;
}

uint64_t iostream_bytes_in(const struct iostream *s)
{
    return s->bytes_in;
}

uint64_t iostream_bytes_out(const struct iostream *s)
{
    return s->bytes_out;
}

double iostream_seconds(const struct iostream *s)
{
    return engine_now(s->engine) - s->opened;
}

enum close_reason iostream_reason(const struct iostream *s)
{
    return s->reason;
}

int iostream_error(const struct iostream *s)
{
    return s->error;
}

const struct child_result *iostream_child(const struct iostream *s)
{
    return s->child_result;
}

const struct tls_info *iostream_tls(struct iostream *s)
{
    if (!s->tls_info && s->transport && !s->handshaking)
        s->tls_info = tls_describe(s->transport);
    return s->tls_info;
}

struct tcpserver *iostream_server(const struct iostream *s)
{
    return s->server;
}

bool iostream_read_ended(const struct iostream *s)
{
    return s->in_ended;
}

void *iostream_data(const struct iostream *s)
{
    return s->data;
}

void iostream_set_data(struct iostream *s, void *data)
{
    s->data = data;
}

void iostream_set_peer(struct iostream *s, const struct sockaddr *address, socklen_t length)
{
    if (length > sizeof s->peer) /* a unix path: of no use on the accepting side, where it is most often empty */
        length = sizeof s->peer.any.sa_family;
    memcpy(&s->peer, address, length);
}

const struct sockaddr *iostream_peer(const struct iostream *s, socklen_t *length)
{
    static const socklen_t lengths[] = {
        [AF_UNIX] = sizeof(sa_family_t), [AF_INET] = sizeof(struct sockaddr_in), [AF_INET6] = sizeof(struct sockaddr_in6)};
    *length = s->peer.any.sa_family <= AF_INET6 && lengths[s->peer.any.sa_family] ? lengths[s->peer.any.sa_family] : sizeof(sa_family_t);
    return &s->peer.any;
}

int iostream_local(const struct iostream *s, struct sockaddr_storage *address, socklen_t *length)
{
    *length = sizeof *address;
    if (s->transport)
        return getsockname(s->transport->read_fd, (struct sockaddr *)address, length);
    errno = ENOTCONN;
    return -1;
}

int iostream_peer_credentials(struct iostream *s, pid_t *pid, uid_t *uid, gid_t *gid)
{
    struct ucred *credentials = &s->peer.local.credentials;
    socklen_t length = sizeof *credentials;
    if (s->peer.any.sa_family != AF_UNIX || (!s->transport && !s->peer.local.known)) {
        errno = ENOTCONN;
        return -1;
    }
    if (!s->peer.local.known && getsockopt(s->transport->read_fd, SOL_SOCKET, SO_PEERCRED, credentials, &length) != 0)
        return -1;
    s->peer.local.known = true;
    *pid = credentials->pid;
    *uid = credentials->uid;
    *gid = credentials->gid;
    return 0;
}
