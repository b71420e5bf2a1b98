/* tcpserver.c - listeners, accept policy, and the streams that came of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resolve.h"
#include "tcpserver.h"

static const double HANDSHAKE_SECONDS = 10;
/* How long to wait for the last packet of handshakes that are under way, and how often to look whether there are any. */
static const double DRAIN_SECONDS = 1, DRAIN_LOOK_SECONDS = 0.01;
/* After a rest places are given out several at once (resume_at), but none stays free for longer than this while somebody waits. */
static const double FREE_PLACE_SECONDS = 0.1;

void tcpserver_enter(struct tcpserver *server)
{
    server->busy++;
}

/* Closed while a callback ran, perhaps from a loop over all of them. */
static void forget_closed(struct tcpserver *server)
{
    struct listener *listener;
    while ((listener = server->closed)) {
        server->closed = listener->next_closed;
        free(listener);
    }
}

void tcpserver_leave(struct tcpserver *server)
{
    if (--server->busy > 0)
        return;
    forget_closed(server);
    if (!server->freed)
        return;
    shared_free(server->admission.own);
    free(server);
}

/* ---- streams ---- */

static void on_deferred(struct deferred *d)
{
    struct tcpserver *server = container_of(d, struct tcpserver, deferred);
    if (server->connections == 0 && LIST_EMPTY(&server->listeners) && server->options.empty)
        server->options.empty(server->arg);
}

static void check_empty(struct tcpserver *server)
{
    if (server->engine && server->options.empty && server->connections == 0 && LIST_EMPTY(&server->listeners))
        engine_defer(server->engine, &server->deferred);
}

/* Whether there may be places that nobody is given yet. */
static bool saves_places(const struct tcpserver *server)
{
    unsigned own = server->options.max_connections, all = server->admission.shared->options.max_connections;
    return (own && resume_at(own) + 1 < own) || (all && resume_at(all) + 1 < all);
}

static void rest(struct tcpserver *server, bool resting)
{
    struct listener *listener;
    if (server->resting == resting)
        return;
    server->resting = resting;
    ev_timer_stop(server->loop, &server->look_timer);
    if (resting && !LIST_EMPTY(&server->listeners) && saves_places(server))
        ev_timer_again(server->loop, &server->look_timer);
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (listener->handler)
            accept_handler_pause(listener->handler, resting);
    }
}

static bool is_full_at(const struct tcpserver *server, unsigned limit)
{
    const struct tcpserver_options *o = &server->options;
    if (server->admission.always)
        return false;
    return server->waiting || server->admission.resting || (limit && server->connections >= limit) ||
           (o->max_handshakes && server->handshakes >= o->max_handshakes);
}

static bool is_full(const struct tcpserver *server)
{
    unsigned max = server->options.max_connections;
    return is_full_at(server, max && server->resting ? resume_at(max) + 1 : max);
}

void tcpserver_look(struct tcpserver *server)
{
    rest(server, is_full(server));
}

static void on_look_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct tcpserver *server = container_of(timer, struct tcpserver, look_timer);
    admission_look(&server->admission);
    rest(server, is_full_at(server, server->options.max_connections));
}

static bool ended_in_order(const struct iostream *s)
{
    return s->reason == CLOSE_EOF || s->reason == CLOSE_FINISHED ||
           (s->reason == CLOSE_CHILD && s->child_result && s->child_result->status == 0);
}

static void count_up(struct tcpserver *server, enum shared_count which, uint64_t more)
{
    shared_add(server->admission.shared, server->admission.task, which, more);
}

/* Only what is more than was counted already: a stream that was counted alive has moved less than it has by its end. */
static void count_bytes(struct tcpserver *server, enum shared_count which, uint64_t now, uint64_t *counted)
{
    if (now <= *counted)
        return;
    count_up(server, which, now - *counted);
    *counted = now;
}

void tcpserver_count_bytes(struct tcpserver *server, const struct bytes *living)
{
    count_bytes(server, COUNT_BYTES_IN, server->ended.in + living->in, &server->counted.in);
    count_bytes(server, COUNT_BYTES_OUT, server->ended.out + living->out, &server->counted.out);
}

/* Somebody looks on: shared_options.live. */
static bool is_watched(const struct tcpserver *server)
{
    return server->admission.shared->options.live > 0;
}

static void count_time(struct tcpserver *server, const struct iostream *s)
{
    double seconds = iostream_seconds(s);
    int limit = 0;
    while (seconds > shared_time_limits[limit])
        limit++;
    count_up(server, (enum shared_count)(COUNT_CLOSES + s->reason), 1);
    count_up(server, (enum shared_count)(COUNT_TIMES + limit), 1);
    count_up(server, COUNT_MICROSECONDS, (uint64_t)(seconds * 1e6));
}

static void count_end(struct tcpserver *server, const struct iostream *s)
{
    count_up(server, COUNT_IN_ORDER, s->served && ended_in_order(s));
    if (!s->served && s->reason != CLOSE_SHUTDOWN && s->reason != CLOSE_DENIED && s->reason != CLOSE_LIMIT) /* those are counted */
        count_up(server, (enum shared_count)(COUNT_REJECTS + (s->reason == CLOSE_PROXY ? REJECT_PROXY : REJECT_HANDSHAKE)), 1);
    server->ended.in += s->bytes_in;
    server->ended.out += s->bytes_out;
    tcpserver_count_bytes(server, &(struct bytes){0});
    if (is_watched(server) && s->served)
        count_time(server, s);
}

void tcpserver_count_child(struct tcpserver *server)
{
    if (is_watched(server))
        count_up(server, COUNT_CHILDREN, 1);
}

static void tell_ended(struct tcpserver *server, struct iostream *s)
{
    void (*tell)(struct iostream *, void *) = s->served ? server->options.stream_closed : server->options.rejected;
    if (tell)
        tell(s, server->arg);
}

/* False: as many are there from it as may be. */
static bool count_address(struct tcpserver *server, const struct sockaddr *address)
{
    const struct admission *a = &server->admission;
    return !server->options.count_addresses || peers_add(a->shared->peers, a->task, address, a->shared->options.max_per_ip) == 0;
}

/* From one that is no longer, or never was, a connection of ours. */
static void uncount_address(struct tcpserver *server, const struct sockaddr *address)
{
    if (server->options.count_addresses)
        peers_remove(server->admission.shared->peers, server->admission.task, address);
}

void tcpserver_stream_ended(struct iostream *s)
{
    struct tcpserver *server = s->server;
    LIST_REMOVE(s, server_entry);
    server->connections--;
    server->handshakes -= !s->served;
    server->waiting -= s->waiting;
    tcpserver_again_soon(server);
    if (s->counted)
        uncount_address(server, &s->peer.any);
    count_end(server, s);
    tcpserver_enter(server);
    tell_ended(server, s);
    s->server = NULL;
    admission_over(&server->admission, s->served); /* once it was told, so that no log shows too many */
    if (!server->freed) {
        rest(server, is_full(server));
        check_empty(server);
    }
    tcpserver_leave(server);
}

static void on_open(struct iostream *s, void *arg)
{
    struct tcpserver *server = arg;
    if (!shared_count_accept(server->admission.shared, server->admission.task)) {
        iostream_fail(s, CLOSE_SHUTDOWN, 0);
        return;
    }
    s->served = true;
    server->handshakes--;
    if (is_watched(server) && server->options.tls)
        count_up(server, COUNT_HANDSHAKES, 1);
    rest(server, is_full(server));
    for (int i = 0; i < IOSTREAM_TIMERS; i++) {
        if (iostream_set_timer(s, (enum iostream_timer)i, server->options.timers[i]) != 0) {
            iostream_fail(s, CLOSE_ERROR, ENOMEM);
            return;
        }
    }
    errno = 0;
    if (server->handle_stream(server, s, server->arg) == 0)
        return;
    int error = errno;
    iostream_fail(s, CLOSE_ERROR, error);
    if (s->server && is_shortage(error)) /* more connections would fare no better */
        tcpserver_tell_exhausted(s->server, error);
}

/* What it is given it closes. */
static struct transport *make_transport(struct tcpserver *server, int fd, bool proxied)
{
    struct transport *plain = transport_plain_new(server->loop, fd, fd, TRANSPORT_SOCKET), *outer = plain;
    if (plain && proxied) /* TLS comes after the header */
        outer = transport_proxied_new(server->engine, plain);
    else if (plain && server->options.tls)
        outer = transport_tls_new(plain, server->options.tls, NULL);
    if (!plain)
        close(fd);
    else if (!outer)
        plain->ops->free(plain, true);
    return outer;
}

static struct iostream *make_stream(struct tcpserver *server, int fd, bool proxied)
{
    struct iostream_options options = {.max_buffer_bytes = server->options.max_buffer_bytes, .flags = TRANSPORT_SOCKET};
    struct transport *transport = make_transport(server, fd, proxied);
    struct iostream *s = transport ? iostream_over(server->engine, transport, &options) : NULL;
    if (transport && !s)
        transport->ops->free(transport, true);
    return s;
}

static void refuse(struct tcpserver *server, const struct sockaddr *address, socklen_t length, enum reject_reason reason)
{
    count_up(server, (enum shared_count)(COUNT_REJECTS + reason), 1);
    if (server->options.refused)
        server->options.refused(address, length, reason, server->arg);
}

/* It is counted then. */
static bool is_welcome(struct tcpserver *server, const struct sockaddr *address, socklen_t length, enum close_reason *why)
{
    bool denied = !server->freed && server->options.refuse && server->options.refuse(address, length, server->arg);
    *why = denied ? CLOSE_DENIED : server->freed || !count_address(server, address) ? CLOSE_LIMIT : CLOSE_NONE;
    if (*why != CLOSE_NONE && !server->freed)
        refuse(server, address, length, denied ? REJECT_DENIED : REJECT_LIMIT);
    return *why == CLOSE_NONE;
}

static bool is_proxied(struct tcpserver *server, const struct sockaddr *address, socklen_t length)
{
    return server->options.is_proxied && server->options.is_proxied(address, length, server->arg);
}

static void go_on_with(struct tcpserver *server, struct iostream *s)
{
    if (!server->options.tls)
        on_open(s, server);
    else if (iostream_start_tls(s, server->options.tls, NULL, server->options.handshake_seconds, on_open, server) != 0)
        iostream_fail(s, CLOSE_ERROR, errno);
}

/* Its PROXY header is there, and names this client. False: the server is no more. */
static bool take_client(struct tcpserver *server, struct iostream *s, const struct address *client, enum close_reason *why)
{
    bool welcome = is_welcome(server, &client->any, client->length, why);
    if (server->freed)
        return false;
    iostream_set_peer(s, &client->any, client->length);
    s->counted = welcome;
    return true;
}

static void on_announced(struct iostream *s, void *arg)
{
    struct tcpserver *server = arg;
    struct address client;
    enum close_reason why = CLOSE_NONE;
    tcpserver_enter(server);
    proxied_unwrap(s, &client);
    bool there = client.length == 0 || take_client(server, s, &client, &why); /* if it names nobody, the proxy is the peer */
    if (there && why != CLOSE_NONE)
        iostream_fail(s, why, 0);
    else if (there && s->reason == CLOSE_NONE)
        go_on_with(server, s);
    tcpserver_leave(server);
}

/* What has no place any more, or came to none. */
static void turn_away(struct tcpserver *server, int fd)
{
    if (fd >= 0)
        close(fd);
    admission_over(&server->admission, false);
}

static void take_connection(struct tcpserver *server, int fd, const struct sockaddr *address, socklen_t length)
{
    struct engine *engine = server->engine;
    enum close_reason why;
    bool proxied = is_proxied(server, address, length);
    bool counted = !proxied && is_welcome(server, address, length, &why); /* of a proxy those behind it are looked at */
    struct iostream *s = NULL;
    if ((proxied || counted) && !server->freed) {
        s = make_stream(server, fd, proxied);
        fd = -1;
    }
    if (!s) {
        if (counted)
            uncount_address(server, address);
        turn_away(server, fd);
        return;
    }
    engine_enter(engine);
    iostream_set_peer(s, address, length);
    s->counted = counted;
    s->server = server;
    s->lent = server->options.blocking;
    s->fresh = !s->transport->ops->handshake;
    s->id = ++server->admission.shared->last_id;
    LIST_INSERT_HEAD(&server->streams, s, server_entry);
    server->connections++;
    server->handshakes++;
    rest(server, is_full(server));
    if (proxied)
        iostream_start(s, 0, on_announced, server);
    else
        iostream_start(s, server->options.handshake_seconds, on_open, server);
    engine_leave(engine);
}

static void on_accept(void *arg, int fd, const struct sockaddr *address, socklen_t length)
{
    struct tcpserver *server = arg;
    tcpserver_enter(server);
    take_connection(server, fd, address, length);
    tcpserver_leave(server);
}

static bool may_accept(void *arg)
{
    struct tcpserver *server = arg;
    bool may = admission_ask(&server->admission);
    rest(server, is_full(server));
    return may;
}

static void on_nothing_accepted(void *arg)
{
    struct tcpserver *server = arg;
    admission_unused(&server->admission);
}

static void on_admission(struct admission *a)
{
    struct tcpserver *server = container_of(a, struct tcpserver, admission);
    rest(server, is_full(server));
}

static void on_exhausted(void *arg, int error)
{
    struct tcpserver *server = arg;
    if (is_watched(server))
        count_up(server, COUNT_SHORTAGES, 1);
    if (server->options.exhausted)
        server->options.exhausted(server->arg, error);
}

/* ---- making one ---- */

int tcpserver_set_loop(struct tcpserver *server, struct ev_loop *loop, struct errbuf *err)
{
    server->engine = engine_get(loop, err);
    if (!server->engine)
        return -1;
    if (admission_start(&server->admission, server->engine, on_admission, err) != 0) {
        engine_put(server->engine);
        return -1;
    }
    server->loop = loop;
    ev_init(&server->look_timer, on_look_timer);
    tcpserver_init_again(server);
    server->look_timer.repeat = FREE_PLACE_SECONDS;
    return 0;
}

struct tcpserver *tcpserver_new(struct ev_loop *loop, handle_stream_cb *handle_stream, void *arg, const struct tcpserver_options *options,
                                struct errbuf *err)
{
    struct tcpserver *server = calloc(1, sizeof *server);
    if (!server) {
        errbuf_set(err, "cannot make a server: %s", strerror(errno));
        return NULL;
    }
    server->handle_stream = handle_stream;
    server->arg = arg;
    if (options)
        server->options = *options;
    if (server->options.handshake_seconds <= 0)
        server->options.handshake_seconds = HANDSHAKE_SECONDS;
    if (server->options.tls)
        tls_context_keep(server->options.tls);
    server->deferred.run = on_deferred;
    LIST_INIT(&server->listeners);
    LIST_INIT(&server->streams);
    if (admission_init(&server->admission, server->options.shared, err) != 0)
        goto fail;
    server->options.count_addresses |= server->admission.shared->options.max_per_ip > 0;
    if (!loop || tcpserver_set_loop(server, loop, err) == 0)
        return server;

fail:
    tls_context_free(server->options.tls);
    shared_free(server->admission.own);
    free(server);
    return NULL;
}

void tcpserver_set_tls(struct tcpserver *server, struct tls_context *tls)
{
    struct tls_context *before = server->options.tls;
    server->options.tls = tls ? tls_context_keep(tls) : NULL;
    tls_context_free(before);
}

struct ev_loop *tcpserver_loop(const struct tcpserver *server)
{
    return server->loop;
}

unsigned tcpserver_connections(const struct tcpserver *server)
{
    return server->connections;
}

unsigned tcpserver_connections_from(const struct tcpserver *server, const struct sockaddr *address)
{
    return server->options.count_addresses ? peers_count(server->admission.shared->peers, address) : 0;
}

/* ---- listeners ---- */

int tcpserver_accept_from(struct listener *listener, struct errbuf *err)
{
    struct tcpserver *server = listener->server;
    listener->handler = add_accept_handler(server->loop, listener->fd, on_accept, on_exhausted, server, err);
    if (!listener->handler)
        return -1;
    accept_handler_blocking(listener->handler, server->options.blocking);
    accept_handler_gate(listener->handler, may_accept, on_nothing_accepted);
    accept_handler_pause(listener->handler, server->resting);
    return 0;
}

static void close_listener(struct listener *listener)
{
    LIST_REMOVE(listener, entry);
    if (listener->handler)
        remove_accept_handler(listener->handler);
    close(listener->fd);
    listener->handler = NULL;
    listener->next_closed = listener->server->closed;
    listener->server->closed = listener;
}

static struct listener *add_listener(struct tcpserver *server, int fd, struct errbuf *err)
{
    struct listener *listener = calloc(1, sizeof *listener);
    if (!listener) {
        errbuf_set(err, "cannot add a listening socket: %s", strerror(errno));
        return NULL;
    }
    listener->server = server;
    listener->fd = fd;
    LIST_INSERT_HEAD(&server->listeners, listener, entry);
    return listener;
}

int tcpserver_add_socket(struct tcpserver *server, int fd, struct errbuf *err)
{
    struct listener *listener = add_listener(server, fd, err);
    if (!listener)
        return -1;
    if (!server->loop || tcpserver_accept_from(listener, err) == 0)
        return 0;
    LIST_REMOVE(listener, entry); /* fd stays the caller's */
    free(listener);
    return -1;
}

int tcpserver_add_sockets(struct tcpserver *server, const int *fds, int count, struct errbuf *err)
{
    for (int i = 0; i < count; i++) {
        if (tcpserver_add_socket(server, fds[i], err) != 0)
            return -1;
    }
    return 0;
}

void tcpserver_add_connection(struct tcpserver *server, int fd)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &length) != 0) /* gone already, as its stream will find out */
        length = sizeof address.ss_family;
    int flags = fcntl(fd, F_GETFL);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, server->options.blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK);
    admission_force(&server->admission);
    tcpserver_enter(server);
    on_accept(server, fd, (struct sockaddr *)&address, length);
    if (!server->freed)
        check_empty(server); /* if it was refused */
    tcpserver_leave(server);
}

static void close_listeners(struct tcpserver *server)
{
    struct listener *listener;
    tcpserver_enter(server);
    while ((listener = LIST_FIRST(&server->listeners)))
        close_listener(listener);
    tcpserver_leave(server);
    if (server->engine) {
        ev_timer_stop(server->loop, &server->drain_timer);
        ev_timer_stop(server->loop, &server->look_timer);
    }
    server->admission.always = false;
    rest(server, is_full(server));
    check_empty(server);
}

void tcpserver_stop(struct tcpserver *server)
{
    close_listeners(server);
}

/* ---- draining: who waits has been let in by the kernel, and who is in the handshake will be in a moment ---- */

static bool has_handshakes(const struct tcpserver *server)
{
    struct listener *listener;
    bool some = false;
    LIST_FOREACH (listener, &server->listeners, entry) {
        some |= listener_has_handshakes(listener->fd);
    }
    return some;
}

/* True: somebody may wait still, for a descriptor that a connection gives back when it ends. */
static bool accept_all(struct tcpserver *server)
{
    struct listener *listener;
    bool is_short = false;
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (listener->handler)
            is_short |= accept_handler_drain(listener->handler);
        if (!server->admission.always)
            return false; /* a callback has stopped the server, and with it gone are all listeners */
    }
    return is_short && server->connections > 0;
}

static void go_on_draining(struct tcpserver *server)
{
    bool more_to_come = false;
    tcpserver_enter(server);
    server->draining = true;
    do {
        server->drain_again = false;
        /* Asked before the last look at the backlog, where they go. */
        more_to_come = engine_now(server->engine) < server->drain_until && has_handshakes(server);
        more_to_come |= accept_all(server);
    } while (server->drain_again && server->admission.always);
    server->draining = false;
    if (more_to_come && server->admission.always)
        ev_timer_start(server->loop, &server->drain_timer);
    else if (server->admission.always)
        close_listeners(server);
    tcpserver_leave(server);
}

static void on_drain_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct tcpserver *server = container_of(timer, struct tcpserver, drain_timer);
    struct engine *engine = server->engine;
    engine_enter(engine);
    go_on_draining(server);
    engine_leave(engine);
}

void tcpserver_drain(struct tcpserver *server)
{
    struct listener *listener;
    if (!server->engine) {
        tcpserver_stop(server);
        return;
    }
    LIST_FOREACH (listener, &server->listeners, entry) {
        listener_let_nobody_in(listener->fd);
    }
    ev_timer_stop(server->loop, &server->drain_timer);
    ev_timer_init(&server->drain_timer, on_drain_timer, DRAIN_LOOK_SECONDS, 0);
    server->admission.always = true;
    rest(server, false);
    server->drain_until = engine_now(server->engine) + DRAIN_SECONDS;
    server->drain_again = true;
    if (!server->draining)
        go_on_draining(server);
}

bool tcpserver_listening(const struct tcpserver *server)
{
    return !LIST_EMPTY(&server->listeners);
}

void tcpserver_abort(struct tcpserver *server)
{
    struct iostream *s;
    LIST_FOREACH (s, &server->streams, server_entry) {
        iostream_fail(s, CLOSE_SHUTDOWN, 0); /* leaves the list later, from the loop */
    }
}

void tcpserver_abort_handshakes(struct tcpserver *server)
{
    struct iostream *s;
    LIST_FOREACH (s, &server->streams, server_entry) {
        if (!s->served)
            iostream_fail(s, CLOSE_SHUTDOWN, 0);
    }
}

static void disown_streams(struct tcpserver *server)
{
    struct iostream *s;
    while ((s = LIST_FIRST(&server->streams))) { /* they wait for a turn of the loop, or for a child */
        LIST_REMOVE(s, server_entry);
        if (s->counted)
            uncount_address(server, &s->peer.any);
        s->server = NULL;
    }
}

void tcpserver_free(struct tcpserver *server)
{
    struct engine *engine = server->engine;
    tcpserver_enter(server);
    server->options.empty = NULL;
    tcpserver_stop(server);
    if (engine) {
        tcpserver_abort(server);
        disown_streams(server);
        ev_timer_stop(server->loop, &server->again_timer);
        deferred_cancel(engine, &server->deferred);
        if (server->own_loop)
            engine_run_out(engine); /* its loop will not turn again */
        admission_stop(&server->admission);
        engine_put(engine);
    }
    if (server->own_loop)
        ev_loop_destroy(server->loop);
    tls_context_free(server->options.tls);
    server->freed = true;
    tcpserver_leave(server);
}
