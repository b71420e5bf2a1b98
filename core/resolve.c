/* resolve.c - host names to addresses without blocking: c-ares on the loop. */
#include <ares.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "resolve.h"

struct channel_socket {
    LIST_ENTRY(channel_socket) entry;
    ev_io io;
};

struct resolver {
    struct engine *engine;
    ares_channel channel;
    ev_timer timer; /* the time at which c-ares next wants to look at its queries */
    LIST_HEAD(, channel_socket) sockets;
    unsigned wanted;         /* queries under way whose answer somebody waits for */
    struct timespec changed; /* when resolv.conf was, as it was read */
};

struct resolving {
    struct engine *engine;
    const char *host;
    in_port_t port;
    double timeout_seconds;
    resolve_cb *callback; /* NULL: cancelled, but c-ares has it still */
    void *arg;
    struct timeout timeout;
    struct deferred answer; /* c-ares answers inside the very call if it can, we must not */
    int status;
    struct address_list *list;
};

/* ---- the channel on the loop */

/* To be called after everything that may have started, ended or repeated a query. */
static void set_timer(struct resolver *r)
{
    struct timeval tv;
    if (ares_timeout(r->channel, NULL, &tv)) {
        double seconds = (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
        r->timer.repeat = seconds > 0.001 ? seconds : 0.001; /* 0 would mean never */
    } else {
        r->timer.repeat = 0;
    }
    ev_timer_again(r->engine->loop, &r->timer);
}

static void process(struct resolver *r, ares_socket_t readable, ares_socket_t writable)
{
    struct engine *engine = r->engine;
    engine_enter(engine);
    ares_process_fd(r->channel, readable, writable);
    set_timer(r);
    engine_leave(engine); /* runs the answers, after which r may be no more */
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    process(container_of(timer, struct resolver, timer), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void on_socket(struct ev_loop *loop, ev_io *io, int events)
{
    (void)loop;
    process(io->data, events & EV_READ ? io->fd : ARES_SOCKET_BAD, events & EV_WRITE ? io->fd : ARES_SOCKET_BAD);
}

/* c-ares says which events it wants from a socket of its own; none, before it closes it. */
static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct resolver *r = arg;
    struct ev_loop *loop = r->engine->loop;
    struct channel_socket *s;

    LIST_FOREACH (s, &r->sockets, entry) {
        if (s->io.fd == fd)
            break;
    }
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s)
            return; /* the query will time out */
        ev_io_init(&s->io, on_socket, fd, 0);
        s->io.data = r;
        LIST_INSERT_HEAD(&r->sockets, s, entry);
    }
    ev_io_stop(loop, &s->io);
    if (readable || writable) {
        ev_io_set(&s->io, fd, (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
        ev_io_start(loop, &s->io);
    } else {
        LIST_REMOVE(s, entry);
        free(s);
    }
}

static bool can_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

/* Without a file, what was read before stays: it may be out of sight (chroot), or out of reach (Landlock). */
static bool configuration_changed(const struct timespec *since)
{
    static const char path[] = "/etc/resolv.conf";
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mtim.tv_sec != since->tv_sec || st.st_mtim.tv_nsec != since->tv_nsec) && can_read(path);
}

static struct timespec configuration_time(void)
{
    struct stat st = {0};
    stat("/etc/resolv.conf", &st);
    return st.st_mtim;
}

static struct resolver *resolver_new(struct engine *engine)
{
    struct resolver *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->engine = engine;
    r->changed = configuration_time();
    LIST_INIT(&r->sockets);
    ev_timer_init(&r->timer, on_timer, 0, 0);

    struct ares_options options = {.sock_state_cb = on_socket_state, .sock_state_cb_data = r};
    ares_library_init(ARES_LIB_INIT_ALL);
    if (ares_init_options(&r->channel, &options, ARES_OPT_SOCK_STATE_CB) != ARES_SUCCESS) {
        ares_library_cleanup();
        free(r);
        errno = ENOMEM;
        return NULL;
    }
    return r;
}

void resolver_release(struct engine *engine)
{
    struct resolver *r = engine->resolver;
    if (!r)
        return;
    assert(r->wanted == 0);
    ares_destroy(r->channel); /* ends cancelled queries, and takes its sockets from the loop */
    ares_library_cleanup();
    ev_timer_stop(engine->loop, &r->timer);
    free(r);
    engine->resolver = NULL;
}

static struct resolver *resolver_get(struct engine *engine)
{
    struct resolver *r = engine->resolver;
    if (r && r->wanted == 0) {
        /* The name servers of a process that runs for months change; glibc looks as often. */
        if (configuration_changed(&r->changed))
            resolver_release(engine);
    }
    if (!engine->resolver)
        engine->resolver = resolver_new(engine);
    return engine->resolver;
}

int connect_prepare(struct ev_loop *loop, struct errbuf *err)
{
    struct engine *engine = engine_get(loop, err);
    if (!engine)
        return -1;
    if (resolver_get(engine))
        return 0;
    engine_put(engine);
    return errbuf_set(err, "cannot prepare to resolve names: %s", strerror(errno));
}

void connect_unprepare(struct ev_loop *loop)
{
    struct errbuf unused;
    struct engine *engine = engine_get(loop, &unused);
    engine_put(engine);
    engine_put(engine); /* that of connect_prepare */
}

int resolver_set_servers(struct engine *engine, const char *servers)
{
    struct resolver *r = resolver_get(engine);
    return r && ares_set_servers_ports_csv(r->channel, servers) == ARES_SUCCESS ? 0 : -1;
}

/* ---- one query */

/* The next node from `node` on that is, or is not, of the given family. */
static const struct ares_addrinfo_node *find_node(const struct ares_addrinfo_node *node, int family, bool same)
{
    while (node && (node->ai_family == family) != same)
        node = node->ai_next;
    return node;
}

static void add_address(struct address_list *list, const struct ares_addrinfo_node *node, in_port_t port)
{
    struct address *address = &list->items[list->count++];
    address->length = node->ai_addrlen;
    memcpy(&address->any, node->ai_addr, node->ai_addrlen);
    if (node->ai_family == AF_INET6)
        address->in6.sin6_port = port;
    else
        address->in4.sin_port = port;
}

/* An answer is as good as the weakest link that led to it. */
static int least_ttl(const struct ares_addrinfo *info)
{
    int ttl = info->nodes ? info->nodes->ai_ttl : 0;
    for (const struct ares_addrinfo_node *node = info->nodes; node; node = node->ai_next)
        ttl = node->ai_ttl < ttl ? node->ai_ttl : ttl;
    for (const struct ares_addrinfo_cname *cname = info->cnames; cname; cname = cname->next)
        ttl = cname->ttl < ttl ? cname->ttl : ttl;
    return ttl;
}

/* c-ares has sorted them (RFC 6724). The families take turns, so that a broken one costs little (RFC 8305, section 4). */
static int take_addresses(struct resolving *q, const struct ares_addrinfo *info)
{
    const struct ares_addrinfo_node *nodes = info->nodes;
    size_t count = 0;
    for (const struct ares_addrinfo_node *node = nodes; node; node = node->ai_next)
        count++;
    if (!count)
        return ARES_ENODATA;
    q->list = calloc(1, sizeof *q->list + count * sizeof q->list->items[0]);
    if (!q->list)
        return ARES_ENOMEM;
    q->list->ttl_seconds = least_ttl(info);

    const int family = nodes->ai_family;
    const struct ares_addrinfo_node *one = nodes, *other = find_node(nodes, family, false);
    while (one || other) {
        if (one) {
            add_address(q->list, one, q->port);
            one = find_node(one->ai_next, family, true);
        }
        if (other) {
            add_address(q->list, other, q->port);
            other = find_node(other->ai_next, family, false);
        }
    }
    return ARES_SUCCESS;
}

static void resolving_free(struct resolving *q)
{
    free(q->list);
    free(q);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info)
{
    (void)timeouts;
    struct resolving *q = arg;
    if (q->callback) {
        timeout_stop(&q->timeout);
        q->engine->resolver->wanted--;
        q->status = status == ARES_SUCCESS ? take_addresses(q, info) : status;
        engine_defer(q->engine, &q->answer);
    } else {
        resolving_free(q);
    }
    if (info)
        ares_freeaddrinfo(info);
}

/* c-ares cannot drop one query, but all: once nobody waits any more, lest cancelled ones keep the loop running. Never from on_answer. */
static void drop_cancelled(struct engine *engine)
{
    struct resolver *r = engine->resolver;
    if (!r || r->wanted > 0)
        return;
    ares_cancel(r->channel); /* which calls on_answer */
    set_timer(r);
}

static void deliver(struct deferred *d)
{
    struct resolving *q = container_of(d, struct resolving, answer);
    struct address_list *list = q->list;
    struct errbuf why;

    drop_cancelled(q->engine);
    q->list = NULL;
    if (!list)
        errbuf_set(&why, "resolve %s: %s", q->host, ares_strerror(q->status));
    q->callback(q->arg, list, list ? NULL : why.text);
    resolving_free(q);
}

static void on_timeout(struct timeout *timeout)
{
    struct resolving *q = container_of(timeout, struct resolving, timeout);
    resolve_cb *callback = q->callback;
    void *arg = q->arg;
    struct errbuf why;

    errbuf_set(&why, "resolve %s: timed out after %g s", q->host, q->timeout_seconds);
    resolve_cancel(q);
    callback(arg, NULL, why.text);
}

struct resolving *resolve_start(struct engine *engine, const char *host, in_port_t port, double timeout_seconds, resolve_cb *callback,
                                void *arg)
{
    static const struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct resolver *r = resolver_get(engine);
    struct resolving *q = r ? malloc(sizeof *q) : NULL;
    if (!q)
        return NULL;
    *q = (struct resolving){.engine = engine,
                            .host = host,
                            .port = port,
                            .timeout_seconds = timeout_seconds,
                            .callback = callback,
                            .arg = arg,
                            .answer.run = deliver};
    if (timeout_start(engine, &q->timeout, timeout_seconds, on_timeout) != 0) {
        free(q);
        return NULL;
    }
    r->wanted++;
    ares_getaddrinfo(r->channel, host, NULL, &hints, on_answer, q);
    set_timer(r);
    return q;
}

void resolve_cancel(struct resolving *q)
{
    struct engine *engine = q->engine;
    if (is_deferred(&q->answer)) {
        deferred_cancel(engine, &q->answer);
        resolving_free(q);
    } else {
        timeout_stop(&q->timeout);
        q->callback = NULL;
        engine->resolver->wanted--;
    }
    drop_cancelled(engine);
}
