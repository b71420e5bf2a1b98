/* tcpserver.c - listeners, accept policy, and the streams that came of them. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "resolve.h"

enum { MAX_ADDRESSES = 64 }; /* of one host name */
static const double HANDSHAKE_SECONDS = 10;

struct listener {
    LIST_ENTRY(listener) entry;
    struct tcpserver *server;
    int fd;
    struct accept_handler *handler; /* NULL: bound, not started */
};

LIST_HEAD(listener_list, listener);
LIST_HEAD(stream_list, iostream);

struct tcpserver {
    struct ev_loop *loop;
    bool own_loop;
    bool draining; /* whoever waits is accepted, beyond all limits */
    bool resting;  /* at max_connections or max_handshakes */
    struct engine *engine;
    handle_stream_cb *handle_stream;
    void *arg;
    struct tcpserver_options options;
    uint64_t own_last_id;
    struct listener_list listeners;
    struct stream_list streams;
    unsigned connections, handshakes; /* handshakes: how many of the connections are not open yet */
    void *peers;                      /* of peers.c */
    struct deferred deferred;         /* tells that it is empty */
    unsigned busy;                    /* how many of our functions that run callbacks are on the stack */
    bool freed;                       /* to go when no longer busy */
};

static void enter(struct tcpserver *server)
{
    server->busy++;
}

static void leave(struct tcpserver *server)
{
    if (--server->busy == 0 && server->freed)
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

static void rest(struct tcpserver *server, bool resting)
{
    struct listener *listener;
    if (server->resting == resting)
        return;
    server->resting = resting;
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (listener->handler)
            accept_handler_pause(listener->handler, resting);
    }
}

static bool is_full(const struct tcpserver *server)
{
    const struct tcpserver_options *o = &server->options;
    if (server->draining)
        return false;
    return (o->max_connections && server->connections >= o->max_connections) ||
           (o->max_handshakes && server->handshakes >= o->max_handshakes);
}

static void tell_ended(struct tcpserver *server, struct iostream *s)
{
    void (*tell)(struct iostream *, void *) = s->served ? server->options.stream_closed : server->options.rejected;
    if (tell)
        tell(s, server->arg);
}

static void count_address(struct tcpserver *server, struct iostream *s)
{
    s->counted = server->options.count_addresses && peers_add(&server->peers, &s->peer.any) == 0;
}

static void discount_address(struct tcpserver *server, struct iostream *s)
{
    if (s->counted)
        peers_remove(&server->peers, &s->peer.any);
    s->counted = false;
}

void tcpserver_stream_ended(struct iostream *s)
{
    struct tcpserver *server = s->server;
    LIST_REMOVE(s, server_entry);
    server->connections--;
    server->handshakes -= !s->served;
    discount_address(server, s);
    enter(server);
    tell_ended(server, s);
    s->server = NULL;
    if (!server->freed) {
        rest(server, is_full(server));
        check_empty(server);
    }
    leave(server);
}

static bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EAGAIN;
}

static void tell_exhausted(struct tcpserver *server, int error)
{
    struct listener *listener;
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (listener->handler)
            accept_handler_exhausted(listener->handler, error);
    }
}

static void on_open(struct iostream *s, void *arg)
{
    struct tcpserver *server = arg;
    s->served = true;
    server->handshakes--;
    rest(server, is_full(server));
    errno = 0;
    if (server->handle_stream(server, s, server->arg) == 0)
        return;
    int error = errno;
    iostream_fail(s, CLOSE_ERROR, error);
    if (s->server && is_shortage(error)) /* more connections would fare no better */
        tell_exhausted(s->server, error);
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

static bool is_refused(struct tcpserver *server, const struct sockaddr *address, socklen_t length)
{
    return server->options.refuse && server->options.refuse(address, length, server->arg);
}

static bool is_proxied(struct tcpserver *server, const struct sockaddr *address, socklen_t length)
{
    return server->options.is_proxied && server->options.is_proxied(address, length, server->arg);
}

static void welcome(struct tcpserver *server, struct iostream *s)
{
    if (!server->options.tls)
        on_open(s, server);
    else if (iostream_start_tls(s, server->options.tls, NULL, server->options.handshake_seconds, on_open, server) != 0)
        iostream_fail(s, CLOSE_ERROR, errno);
}

/* Its PROXY header is there. */
static void on_announced(struct iostream *s, void *arg)
{
    struct tcpserver *server = arg;
    struct address client;
    proxied_unwrap(s, &client);
    bool refused = client.length && is_refused(server, &client.any, client.length);
    if (s->reason != CLOSE_NONE)
        return; /* the callback ended the server */
    if (client.length)
        iostream_set_peer(s, &client.any, client.length);
    if (refused) {
        iostream_fail(s, CLOSE_DENIED, 0);
        return;
    }
    if (client.length)
        count_address(server, s);
    welcome(server, s);
}

static void take_connection(struct tcpserver *server, int fd, const struct sockaddr *address, socklen_t length)
{
    struct engine *engine = server->engine;
    bool proxied = is_proxied(server, address, length);
    if ((!proxied && is_refused(server, address, length)) || server->freed) {
        close(fd);
        return;
    }
    struct iostream *s = make_stream(server, fd, proxied);
    if (!s)
        return;
    engine_enter(engine);
    iostream_set_peer(s, address, length);
    if (!proxied)
        count_address(server, s);
    s->server = server;
    s->lent = server->options.blocking;
    s->id = __atomic_add_fetch(server->options.last_id, 1, __ATOMIC_RELAXED);
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
    enter(server);
    take_connection(server, fd, address, length);
    leave(server);
}

static void on_exhausted(void *arg, int error)
{
    struct tcpserver *server = arg;
    if (server->options.exhausted)
        server->options.exhausted(server->arg, error);
}

/* ---- making one ---- */

static int set_loop(struct tcpserver *server, struct ev_loop *loop, struct errbuf *err)
{
    server->engine = engine_get(loop, err);
    if (!server->engine)
        return -1;
    server->loop = loop;
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
    if (!server->options.last_id)
        server->options.last_id = &server->own_last_id;
    server->deferred.run = on_deferred;
    LIST_INIT(&server->listeners);
    LIST_INIT(&server->streams);
    if (loop && set_loop(server, loop, err) != 0) {
        tls_context_free(server->options.tls);
        free(server);
        return NULL;
    }
    return server;
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
    return peers_count(&server->peers, address);
}

/* ---- listeners ---- */

static int accept_from(struct listener *listener, struct errbuf *err)
{
    struct tcpserver *server = listener->server;
    listener->handler = add_accept_handler(server->loop, listener->fd, on_accept, on_exhausted, server, err);
    if (!listener->handler)
        return -1;
    accept_handler_blocking(listener->handler, server->options.blocking);
    accept_handler_pause(listener->handler, server->resting);
    return 0;
}

static void close_listener(struct listener *listener)
{
    LIST_REMOVE(listener, entry);
    if (listener->handler)
        remove_accept_handler(listener->handler);
    close(listener->fd);
    free(listener);
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
    if (!server->loop || accept_from(listener, err) == 0)
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
    on_accept(server, fd, (struct sockaddr *)&address, length);
    check_empty(server); /* if it was refused */
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        return 0;
    return address_port((struct sockaddr *)&address);
}

int tcpserver_bind(struct tcpserver *server, const char *host, const char *port, const struct bind_options *options, struct errbuf *err)
{
    int fds[MAX_ADDRESSES];
    int count = bind_sockets(host, port, options, fds, MAX_ADDRESSES, err);
    if (count < 0)
        return -1;
    int bound = (int)port_of(fds[0]);
    if (bound == 0) {
        errbuf_set(err, "cannot tell which port was bound: %s", strerror(errno));
        while (count > 0)
            close(fds[--count]);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        if (tcpserver_add_socket(server, fds[i], err) == 0)
            continue;
        while (i < count)
            close(fds[i++]);
        return -1;
    }
    return bound;
}

int tcpserver_listen(struct tcpserver *server, const char *host, const char *port, const struct bind_options *options, struct errbuf *err)
{
    if (!server->loop)
        return errbuf_set(err, "cannot listen: the server was made without a loop (bind and start it)");
    return tcpserver_bind(server, host, port, options, err);
}

static int start_here(struct tcpserver *server, struct errbuf *err)
{
    struct listener *listener;
    if (!server->loop) {
        struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
        if (!loop)
            return errbuf_set(err, "cannot make an event loop: %s", strerror(errno));
        server->own_loop = true;
        if (set_loop(server, loop, err) != 0) {
            ev_loop_destroy(loop);
            return -1;
        }
    }
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (!listener->handler && accept_from(listener, err) != 0)
            return -1;
    }
    return 0;
}

int tcpserver_start(struct tcpserver *server, int processes, int max_restarts, int *exit_status, struct errbuf *err)
{
    int task = 0;
    *exit_status = 1;
    errbuf_set(err, "%s", "");
    if (processes != 1 && server->loop)
        return errbuf_set(err, "cannot fork: the server has a loop already (make it without one)");
    if (processes != 1) {
        struct fork_options options = {.max_restarts = max_restarts};
        task = fork_processes(processes, &options, exit_status);
        if (task < 0)
            return -1;
    }
    if (start_here(server, err) != 0)
        return -1;
    fork_ready();
    return task;
}

void tcpserver_stop(struct tcpserver *server)
{
    struct listener *listener;
    while ((listener = LIST_FIRST(&server->listeners)))
        close_listener(listener);
    check_empty(server);
}

void tcpserver_drain(struct tcpserver *server)
{
    struct listener *listener;
    enter(server);
    server->draining = true; /* who waits has been let in by the kernel */
    while ((listener = LIST_FIRST(&server->listeners))) {
        if (listener->handler)
            accept_handler_drain(listener->handler);
        if (LIST_FIRST(&server->listeners) == listener) /* a callback may have stopped the server */
            close_listener(listener);
    }
    server->draining = false;
    if (!server->freed) {
        rest(server, is_full(server));
        check_empty(server);
    }
    leave(server);
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
        discount_address(server, s);
        s->server = NULL;
    }
}

void tcpserver_free(struct tcpserver *server)
{
    struct engine *engine = server->engine;
    enter(server);
    server->options.empty = NULL;
    tcpserver_stop(server);
    if (engine) {
        tcpserver_abort(server);
        disown_streams(server);
        deferred_cancel(engine, &server->deferred);
        if (server->own_loop)
            engine_run_out(engine); /* its loop will not turn again */
        engine_put(engine);
    }
    if (server->own_loop)
        ev_loop_destroy(server->loop);
    tls_context_free(server->options.tls);
    server->freed = true;
    leave(server);
}
