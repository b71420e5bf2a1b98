/* forward.c - joins each connection with one to a target. */
#include <errno.h>
#include <ev.h>
#include <stdlib.h>
#include <string.h>

#include "handlers.h"

/* A connection whose target is still being reached. Once it is, the two streams need nobody but each other. */
struct joining {
    struct handler_run *run;
    struct iostream *client;
    struct connecting *connecting;
    ev_timer slow;
};

/* Most targets are there at once. While one is not, a client that resets should not have to wait for it. */
static const double SLOW_SECONDS = 0.1;

/* Where connections go. */
struct destination {
    struct target *target;
    struct tls_context *tls; /* NULL: plain */
};

static void release(void *config)
{
    struct destination *d = config;
    tls_context_free(d->tls);
    target_free(d->target);
    free(d);
}

static int set_up_tls(struct destination *d, const struct handler_options *o, struct errbuf *err)
{
    struct errbuf why;
    if (!o->forward_tls)
        return 0;
    if (strncmp(target_text(d->target), "unix:", strlen("unix:")) == 0 && !o->forward_tls_name && !o->forward_insecure)
        return errbuf_set(err, "target \"%s\" has no name that its certificate could be for (--forward-ssl-name NAME)",
                          target_text(d->target));
    d->tls = tls_client_new(o->forward_tls_ca, o->forward_insecure, &why);
    return d->tls ? 0 : errbuf_set(err, "option --forward-ssl: %s", why.text);
}

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    if (!arguments[0])
        return errbuf_set(err, "forward needs a target: --handler forward HOST:PORT (or [IPV6]:PORT, or unix:PATH)");
    if (arguments[1])
        return errbuf_set(err, "forward takes one target: \"%s\" is one too many", arguments[1]);
    struct destination *d = calloc(1, sizeof *d);
    if (!d)
        return errbuf_set(err, "forward: %s", strerror(errno));
    d->target = target_parse(arguments[0], err);
    if (d->target && set_up_tls(d, options, err) == 0 && (!resolve || target_resolve(d->target, err) == 0)) {
        *config = d;
        return 0;
    }
    release(d);
    return -1;
}

static void done(struct joining *j)
{
    ev_timer_stop(j->run->loop, &j->slow);
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
    connect_cancel(j->connecting);
    done(j);
}

static void on_connected(struct iostream *target, void *arg, const char *why)
{
    struct joining *j = arg;
    struct iostream *client = j->client;
    enum close_reason reason = errno == ECONNRESET ? CLOSE_RESET : CLOSE_ERROR; /* it was there, and reset before we looked */

    iostream_on_close(client, NULL, NULL);
    if (!target) {
        j->run->host->error("forward: %s", why);
        /* A reset and not an end, which would tell the client that the target had nothing to say. */
        iostream_abort(client, reason);
    } else if (iostream_relay(client, target) != 0 || iostream_relay(target, client) != 0) {
        iostream_abort(target, CLOSE_RESET); /* the client ended this very moment */
        iostream_abort(client, CLOSE_ERROR);
    }
    done(j);
}

/* Nothing is read from the client before the target is there: what it sends meanwhile waits in the kernel. */
static int serve(struct handler_run *run, struct iostream *client)
{
    const struct destination *d = run->config;
    const struct connect_options options = {
        .stream.max_buffer_bytes = run->options->max_buffer_bytes, .tls = d->tls, .tls_name = run->options->forward_tls_name};
    struct joining *j = malloc(sizeof *j);
    if (!j)
        return -1;
    *j = (struct joining){.run = run, .client = client};
    j->connecting = iostream_connect(run->loop, d->target, &options, on_connected, j);
    if (!j->connecting) {
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
                                        .arguments = "TARGET",
                                        .summary = "joins it with a connection to HOST:PORT, [IPV6]:PORT or unix:PATH",
                                        .descriptors = 2,
                                        .configure = configure,
                                        .serve = serve,
                                        .release = release};
