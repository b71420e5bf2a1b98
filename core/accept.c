/* accept.c - accepting from one listening socket. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { BURST_MAX = 16, DRAIN_MAX = 65536, EMPTY_MAX = 64 };
static const ev_tstamp rest_first_seconds = 0.05, rest_max_seconds = 1;

struct accept_handler {
    ev_io readable;
    ev_timer rest; /* runs while descriptors or memory are short */
    struct ev_loop *loop;
    accept_cb *callback;
    void (*exhausted)(void *arg, int error);
    bool (*ask)(void *arg); /* NULL: there is no gate */
    void (*unused)(void *arg);
    void *arg;
    int flags; /* of accept4 */
    bool paused;
    bool short_told; /* `exhausted` knows */
    bool strained;   /* the last connection found too little */
    bool removed;    /* to be freed when no longer busy */
    unsigned busy;   /* how many of our functions that run callbacks are on the stack */
    ev_tstamp next_rest_seconds;
    unsigned burst; /* how many to accept at the next wake-up ... */
    unsigned turn;  /* ... if the loop's turn after this one brings it */
    unsigned empty; /* turns in a row that have brought nobody, since it was looked why */
};

static void update_watcher(struct accept_handler *h)
{
    if (h->paused || ev_is_active(&h->rest))
        ev_io_stop(h->loop, &h->readable);
    else
        ev_io_start(h->loop, &h->readable);
}

static void on_rested(struct ev_loop *loop, ev_timer *w, int revents)
{
    (void)loop, (void)revents;
    update_watcher(container_of(w, struct accept_handler, rest));
}

static void look_later(struct accept_handler *h)
{
    ev_timer_stop(h->loop, &h->rest); /* a drain may have come while it ran */
    ev_timer_set(&h->rest, h->next_rest_seconds, 0);
    ev_timer_start(h->loop, &h->rest);
    h->next_rest_seconds = h->next_rest_seconds * 2 < rest_max_seconds ? h->next_rest_seconds * 2 : rest_max_seconds;
    update_watcher(h);
}

/* Without a free descriptor the connection stays in the backlog and the listener readable: only time can help. */
static void rest(struct accept_handler *h, int error)
{
    look_later(h);
    if (!h->short_told && h->exhausted) {
        h->short_told = true;
        h->exhausted(h->arg, error);
    }
}

void accept_handler_exhausted(struct accept_handler *h, int error)
{
    h->strained = true;
    rest(h, error);
}

static bool is_about_one_connection(int error)
{
    switch (error) { /* accept(2) lists them: it reports what befell the connection while it was waiting, or a firewall's refusal */
    case ECONNABORTED:
    case EINTR:
    case EPERM:
    case EPROTO:
    case ENOPROTOOPT:
    case EOPNOTSUPP:
    case ENETDOWN:
    case ENETUNREACH:
    case ENONET:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

/* False when there is nothing to accept, or no means to. */
static bool accept_one(struct accept_handler *h)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (memory_is_short()) {
        rest(h, ENOMEM);
        return false;
    }
    if (h->ask && !h->ask(h->arg))
        return false;
    int fd = accept4(h->readable.fd, (struct sockaddr *)&address, &length, h->flags);

    if (fd >= 0) {
        h->strained = false;
        h->callback(h->arg, fd, (struct sockaddr *)&address, length);
        if (!h->strained) {
            h->short_told = false;
            h->next_rest_seconds = rest_first_seconds;
        }
        return !h->strained;
    }
    int error = errno;
    if (h->unused)
        h->unused(h->arg);
    if (is_about_one_connection(error))
        return true;
    if (error != EAGAIN)
        rest(h, error);
    return false;
}

static void leave(struct accept_handler *h)
{
    if (--h->busy == 0 && h->removed)
        free(h);
}

/* By another process that has it, too: a unix socket is readable for ever then. A listener that others were faster at is not. */
static bool is_shut_down(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) == 1;
}

/* An accept4 that finds nothing is dear, since the kernel makes a socket and a file before it looks. So a wake-up accepts one connection,
 * and more only while the listener stays readable turn after turn of the loop: a storm is drained in bursts, and a lone connection
 * never costs a second call. */
static void on_readable(struct ev_loop *loop, ev_io *w, int revents)
{
    struct accept_handler *h = container_of(w, struct accept_handler, readable);
    unsigned turn = ev_iteration(loop);
    unsigned limit = turn == h->turn + 1 ? h->burst : 1;
    unsigned accepted = 0;

    h->busy++;
    if (revents & EV_ERROR) /* the kernel had no room for the watcher, and libev has stopped it: it begins anew after a rest */
        rest(h, ENOMEM);
    while (accepted < limit && !h->removed && !h->paused && !ev_is_active(&h->rest) && accept_one(h))
        accepted++;
    h->empty = turn == h->turn + 1 && accepted == 0 ? h->empty + 1 : 0;
    if (h->empty >= EMPTY_MAX && !h->removed && !ev_is_active(&h->rest)) {
        h->empty = 0;
        if (is_shut_down(w->fd))
            look_later(h);
    }
    h->turn = turn;
    h->burst = accepted == limit ? accepted * 2 : accepted;
    if (h->burst > BURST_MAX)
        h->burst = BURST_MAX;
    if (h->burst == 0)
        h->burst = 1;
    leave(h);
}

bool accept_handler_drain(struct accept_handler *h)
{
    h->busy++;
    for (int i = 0; i < DRAIN_MAX && !h->removed && accept_one(h); i++)
        ;
    bool is_short = ev_is_active(&h->rest);
    leave(h);
    return is_short;
}

struct accept_handler *add_accept_handler(struct ev_loop *loop, int fd, accept_cb *callback, void (*exhausted)(void *arg, int error),
                                          void *arg, struct errbuf *err)
{
    int listening = 0;
    socklen_t length = sizeof listening;

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 && !listening)
        errno = EINVAL; /* as accept would say */
    struct accept_handler *h = listening ? malloc(sizeof *h) : NULL;
    if (!h) {
        errbuf_set(err, "cannot accept from descriptor %d: %s", fd, errno == EINVAL ? "it is not a listening socket" : strerror(errno));
        return NULL;
    }
    *h = (struct accept_handler){.loop = loop, .callback = callback, .exhausted = exhausted, .arg = arg, .burst = 1};
    h->next_rest_seconds = rest_first_seconds;
    accept_handler_blocking(h, false);
    ev_io_init(&h->readable, on_readable, fd, EV_READ);
    ev_init(&h->rest, on_rested);
    update_watcher(h);
    return h;
}

void accept_handler_blocking(struct accept_handler *h, bool blocking)
{
    h->flags = SOCK_CLOEXEC | (blocking ? 0 : SOCK_NONBLOCK);
}

void accept_handler_gate(struct accept_handler *h, bool (*ask)(void *arg), void (*unused)(void *arg))
{
    h->ask = ask;
    h->unused = unused;
}

void accept_handler_pause(struct accept_handler *h, bool paused)
{
    h->paused = paused;
    update_watcher(h);
}

void remove_accept_handler(struct accept_handler *h)
{
    h->removed = true;
    ev_io_stop(h->loop, &h->readable);
    ev_timer_stop(h->loop, &h->rest);
    h->busy++;
    leave(h);
}
