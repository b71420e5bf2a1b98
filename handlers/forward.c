/* forward.c - joins each connection with one to a target; one that cannot be reached is passed over. */
#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "balance.h"
#include "handlers.h"

struct place {
    struct forward *forward;
    struct target *target;
    struct connecting *trial; /* it is down: is it still? */
};

/* The configuration, and what this process has seen of the targets. */
struct forward {
    struct handler_run *run; /* set by open */
    struct balance *balance;
    struct connect_options connect;  /* of trials */
    int send_proxy;                  /* version of the PROXY header; 0 = none */
    char header[PROXY_HEADER_BYTES]; /* of trials, which are nobody's */
    unsigned count;
    struct place places[];
};

/* A connection whose target is still being reached. Once it is, the two streams need nobody but each other. */
struct joining {
    struct forward *forward;
    struct iostream *client;
    struct place *place; /* being reached */
    struct connecting *connecting;
    ev_timer slow;
    char *header; /* the PROXY header, or NULL: none */
    size_t header_length;
    uint64_t key;
    bool tried[];
};

/* Most targets are there at once. While one is not, a client that resets should not have to wait for it. */
static const double SLOW_SECONDS = 0.1;
static const double NO_LIMIT = 3600; /* the kernel gives up long before */

/* ---- the targets */

static void release(void *config)
{
    struct forward *f = config;
    for (unsigned i = 0; i < f->count; i++)
        target_free(f->places[i].target);
    tls_context_free(f->connect.tls);
    balance_free(f->balance);
    free(f);
}

static int set_up_tls(struct forward *f, const struct handler_options *o, struct errbuf *err)
{
    struct errbuf why;
    if (!o->forward_tls)
        return 0;
    for (unsigned i = 0; i < f->count; i++) {
        const char *text = target_text(f->places[i].target);
        if (strncmp(text, "unix:", strlen("unix:")) == 0 && !o->forward_tls_name && !o->forward_insecure)
            return errbuf_set(err, "target \"%s\" has no name that its certificate could be for (--forward-ssl-name NAME)", text);
    }
    f->connect.tls_name = o->forward_tls_name;
    f->connect.tls = tls_client_new(o->forward_tls_ca, o->forward_insecure, &why);
    bool read_ahead = f->connect.tls && o->root && !o->forward_tls_ca && !o->forward_insecure;
    if (f->connect.tls && (!read_ahead || tls_client_read_ahead(f->connect.tls, &why) == 0))
        return 0;
    return errbuf_set(err, "option --forward-ssl: %s", why.text);
}

static void set_up_proxy(struct forward *f, int version)
{
    f->send_proxy = version;
    f->connect.preface = f->header;
    f->connect.preface_length = version ? iostream_proxy_header(NULL, version, f->header) : 0;
}

static int add_target(struct forward *f, const char *text, bool resolve, struct errbuf *err)
{
    for (unsigned i = 0; i < f->count; i++) {
        if (!strcmp(target_text(f->places[i].target), text))
            return errbuf_set(err, "target \"%s\" is given twice", text);
    }
    struct target *target = target_parse(text, err);
    if (!target)
        return -1;
    f->places[f->count++] = (struct place){.forward = f, .target = target};
    return resolve ? target_resolve(target, err) : 0;
}

/* Where /etc/hosts is out of sight, what it says of a name is kept. One that it does not know may be known later. */
static void resolve_ahead(struct forward *f)
{
    struct errbuf unused;
    for (unsigned i = 0; i < f->count; i++)
        target_resolve(f->places[i].target, &unused);
}

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    unsigned count = 0;
    while (arguments[count])
        count++;
    if (!count)
        return errbuf_set(err, "forward needs a target: --handler forward HOST:PORT (or [IPV6]:PORT, or unix:PATH)");
    struct forward *f = calloc(1, sizeof *f + count * sizeof f->places[0]);
    if (!f)
        return errbuf_set(err, "forward: %s", strerror(errno));
    f->connect = (struct connect_options){.timeout_seconds = options->connect_timeout > 0 ? options->connect_timeout : NO_LIMIT,
                                          .stream.max_buffer_bytes = options->max_buffer_bytes};
    set_up_proxy(f, options->send_proxy);
    while (f->count < count) {
        if (add_target(f, arguments[f->count], resolve, err) != 0)
            goto fail;
    }
    if (set_up_tls(f, options, err) != 0)
        goto fail;
    if (options->root && !resolve)
        resolve_ahead(f);
    f->balance = balance_new((enum balance_policy)options->balance, (const char *const *)arguments, count);
    if (!f->balance) {
        errbuf_set(err, "forward: %s", strerror(errno));
        goto fail;
    }
    *config = f;
    return 0;
fail:
    release(f);
    return -1;
}

static int prepare(struct handler_run *run, struct errbuf *err)
{
    return run->options->root ? connect_prepare(run->loop, err) : 0;
}

static int open_targets(struct handler_run *run, struct errbuf *err)
{
    (void)err;
    struct forward *f = run->config;
    f->run = run;
    return 0;
}

/* ---- down and up */

static double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static unsigned number_of(const struct place *p)
{
    return (unsigned)(p - p->forward->places);
}

static void note_connections(const struct place *p)
{
    const struct forward *f = p->forward;
    f->run->host->target_connections(number_of(p), balance_connections(f->balance, number_of(p)));
}

static void note_left(const struct place *p)
{
    balance_left(p->forward->balance, number_of(p));
    note_connections(p);
}

static void note_reached(struct place *p)
{
    if (balance_reached(p->forward->balance, number_of(p)))
        p->forward->run->host->target(target_text(p->target), 0, NULL);
}

/* No target would fare better. EAGAIN is the target's: its backlog is full. */
static bool is_ours(int error)
{
    return is_shortage(error) && error != EAGAIN;
}

static void note_failure(struct place *p, int error, const char *why)
{
    if (is_ours(error) || error == EADDRNOTAVAIL)
        return; /* it is us */
    double delay = balance_failed(p->forward->balance, number_of(p), now_seconds());
    if (delay > 0)
        p->forward->run->host->target(target_text(p->target), delay, why);
}

static void on_trial(struct iostream *stream, void *arg, const char *why)
{
    struct place *p = arg;
    int error = errno;
    p->trial = NULL;
    if (stream) {
        note_reached(p);
        iostream_abort(stream, CLOSE_FINISHED);
    } else {
        note_failure(p, error, why);
    }
}

/* No client has to wait for a target that may be down still: a connection of our own finds out. */
static void try_those_due(struct forward *f)
{
    int due;
    while ((due = balance_due(f->balance, now_seconds())) >= 0) {
        struct place *p = &f->places[due];
        p->trial = iostream_connect(f->run->loop, p->target, &f->connect, on_trial, p);
        if (!p->trial)
            note_failure(p, 0, strerror(errno));
    }
}

static void close_trials(struct handler_run *run)
{
    struct forward *f = run->config;
    for (unsigned i = 0; i < f->count; i++) {
        if (f->places[i].trial)
            connect_cancel(f->places[i].trial);
        f->places[i].trial = NULL;
    }
    if (run->options->root)
        connect_unprepare(run->loop);
}

/* ---- one connection */

static void done(struct joining *j)
{
    ev_timer_stop(j->forward->run->loop, &j->slow);
    free(j);
}

static void on_slow(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct joining *j = timer->data;
    iostream_watch(j->client);
}

static void on_client_gone(struct iostream *client, void *arg)
{
    (void)client;
    struct joining *j = arg;
    if (j->connecting) { /* else it waits for descriptors */
        connect_cancel(j->connecting);
        note_left(j->place);
    }
    done(j);
}

static void on_target_gone(struct iostream *target, void *arg)
{
    (void)target;
    note_left(arg);
}

static void join(struct joining *j, struct iostream *target)
{
    struct iostream *client = j->client;
    iostream_on_close(client, NULL, NULL);
    iostream_on_close(target, on_target_gone, j->place);
    if (iostream_relay(client, target) != 0 || iostream_relay(target, client) != 0) {
        iostream_abort(target, CLOSE_RESET); /* the client ended this very moment */
        iostream_abort(client, CLOSE_ERROR);
    }
    done(j);
}

static void give_up(struct joining *j, int error, const char *why)
{
    const struct forward *f = j->forward;
    f->run->host->error(f->count > 1 ? "forward: no target could be reached, at last: %s" : "forward: %s", why);
    iostream_on_close(j->client, NULL, NULL);
    /* A reset and not an end, which would tell the client that the target had nothing to say. If it was there, it reset before we looked. */
    iostream_abort(j->client, error == ECONNRESET ? CLOSE_RESET : CLOSE_ERROR);
    done(j);
}

static bool try_next(struct joining *);

static void try_again(struct iostream *client, void *arg)
{
    (void)client;
    struct joining *j = arg;
    memset(j->tried, 0, j->forward->count * sizeof j->tried[0]);
    if (!try_next(j))
        give_up(j, ENOMEM, strerror(ENOMEM));
}

static void on_connected(struct iostream *target, void *arg, const char *why)
{
    struct joining *j = arg;
    int error = errno;
    if (target) {
        note_reached(j->place);
        join(j, target);
        return;
    }
    j->connecting = NULL;
    note_left(j->place);
    note_failure(j->place, error, why);
    if (is_ours(error))
        iostream_try_again(j->client, error, try_again, j);
    else if (!try_next(j))
        give_up(j, error, why);
}

/* false: all were tried, or there is no memory to try one with. */
static bool try_next(struct joining *j)
{
    struct forward *f = j->forward;
    int picked = balance_pick(f->balance, j->key, j->tried);
    if (picked < 0)
        return false;
    struct connect_options options = f->connect;
    options.preface = j->header;
    options.preface_length = j->header_length;
    j->place = &f->places[picked];
    note_connections(j->place);
    j->connecting = iostream_connect(f->run->loop, j->place->target, &options, on_connected, j);
    if (!j->connecting)
        note_left(j->place);
    return j->connecting != NULL;
}

/* Nothing is read from the client before a target is there: what it sends meanwhile waits in the kernel, and any target can have it. */
static int serve(struct handler_run *run, struct iostream *client)
{
    struct forward *f = run->config;
    socklen_t length;
    struct joining *j = calloc(1, sizeof *j + f->count * sizeof j->tried[0] + (f->send_proxy ? PROXY_HEADER_BYTES : 0));
    if (!j)
        return -1;
    j->forward = f;
    j->client = client;
    j->key = balance_client(iostream_peer(client, &length));
    if (f->send_proxy) {
        j->header = (char *)(j->tried + f->count);
        j->header_length = iostream_proxy_header(client, f->send_proxy, j->header);
    }
    try_those_due(f);
    if (!try_next(j)) {
        free(j);
        return -1;
    }
    iostream_on_close(client, on_client_gone, j);
    ev_timer_init(&j->slow, on_slow, SLOW_SECONDS, 0);
    j->slow.data = j;
    ev_timer_start(run->loop, &j->slow);
    return 0;
}

const struct handler forward_handler = {.name = "forward",
                                        .arguments = "TARGET...",
                                        .summary = "joins it with a connection to HOST:PORT, [IPV6]:PORT or unix:PATH",
                                        .descriptors = 2,
                                        .configure = configure,
                                        .prepare = prepare,
                                        .open = open_targets,
                                        .serve = serve,
                                        .close = close_trials,
                                        .release = release};
