/* memory_wire.c - two connected transports without a kernel. */
#include "memory_wire.h"

#include <errno.h>
#include <stdlib.h>

struct wire_end {
    struct transport base;
    struct ev_loop *loop;
    ev_timer timer; /* due at once: something that is watched for is there */
    int watched, nudges;
    struct buffer in;
    struct wire_end *peer; /* NULL: gone */
    bool ended;            /* nothing more comes in */
    bool whole;
    unsigned seed, flights;
};

static struct wire_end *end_of(struct transport *t)
{
    return container_of(t, struct wire_end, base);
}

static size_t room(const struct wire_end *w)
{
    return w->peer ? MEMORY_WIRE_BYTES - buffer_length(&w->peer->in) : 0;
}

static int available(const struct wire_end *w)
{
    bool readable = buffer_length(&w->in) > 0 || w->ended, writable = !w->peer || room(w) > 0;
    return w->watched & (w->nudges | (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0));
}

static void kick(struct wire_end *w)
{
    if (w && available(w) && !ev_is_active(&w->timer))
        ev_timer_start(w->loop, &w->timer);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    struct wire_end *w = container_of(timer, struct wire_end, timer);
    (void)loop;
    events = available(w);
    w->nudges = 0;
    if (!events)
        return;
    ev_timer_start(w->loop, &w->timer); /* again, until nothing is left; free stops it */
    transport_ready(&w->base, events);
}

/* Two times in sixteen, what a call answers instead of doing what it could; the event that it asks for will come. */
static int mood(struct wire_end *w)
{
    switch (rand_r(&w->seed) / 16 % 16) {
    case 0:
        w->nudges |= EV_READ;
        return TRANSPORT_WANT_READ;
    case 1:
        w->nudges |= EV_WRITE;
        return TRANSPORT_WANT_WRITE;
    default:
        return 0;
    }
}

static size_t cut(struct wire_end *w, size_t n)
{
    unsigned chance = (unsigned)rand_r(&w->seed) / 16;
    size_t most = chance % 4 == 0 && !w->whole ? 1 + chance / 4 % 7 : n;
    return most < n ? most : n;
}

static ssize_t wire_read(struct transport *t, void *bytes, size_t size)
{
    struct wire_end *w = end_of(t);
    int answer = mood(w);
    if (answer)
        return answer;
    if (buffer_length(&w->in) == 0)
        return w->ended ? 0 : TRANSPORT_WANT_READ;
    size_t n = cut(w, size < buffer_length(&w->in) ? size : buffer_length(&w->in));
    memcpy(bytes, buffer_bytes(&w->in), n);
    buffer_consume(&w->in, n);
    kick(w->peer);
    return (ssize_t)n;
}

static ssize_t wire_write(struct transport *t, const void *bytes, size_t length)
{
    struct wire_end *w = end_of(t);
    int answer = mood(w);
    if (answer)
        return answer;
    if (!w->peer) {
        errno = EPIPE;
        return TRANSPORT_ERROR;
    }
    if (room(w) == 0)
        return TRANSPORT_WANT_WRITE;
    size_t n = cut(w, length < room(w) ? length : room(w));
    if (buffer_append(&w->peer->in, bytes, n) != 0)
        return TRANSPORT_ERROR;
    kick(w->peer);
    return (ssize_t)n;
}

static int wire_handshake(struct transport *t)
{
    struct wire_end *w = end_of(t);
    if (w->flights == 0)
        return 0;
    bool write = w->flights-- % 2;
    w->nudges |= write ? EV_WRITE : EV_READ;
    return write ? TRANSPORT_WANT_WRITE : TRANSPORT_WANT_READ;
}

static void end_direction(struct wire_end *w)
{
    if (w->peer)
        w->peer->ended = true;
    kick(w->peer);
}

static int wire_shutdown(struct transport *t, bool last)
{
    struct wire_end *w = end_of(t);
    int answer = last ? 0 : mood(w);
    if (answer == 0)
        end_direction(w);
    return answer;
}

static void wire_watch(struct transport *t, int events)
{
    struct wire_end *w = end_of(t);
    w->watched = events;
    kick(w);
}

static void wire_free(struct transport *t, bool reset)
{
    struct wire_end *w = end_of(t);
    (void)reset;
    end_direction(w);
    if (w->peer)
        w->peer->peer = NULL;
    ev_timer_stop(w->loop, &w->timer);
    buffer_release(&w->in);
    free(w);
}

static const struct transport_ops shaking_ops = {
    .read = wire_read, .write = wire_write, .handshake = wire_handshake, .shutdown = wire_shutdown, .watch = wire_watch, .free = wire_free};
static const struct transport_ops plain_ops = {
    .read = wire_read, .write = wire_write, .shutdown = wire_shutdown, .watch = wire_watch, .free = wire_free};

void memory_wire_new(struct ev_loop *loop, unsigned seed, unsigned flags, struct transport *ends[2])
{
    struct wire_end *w[2];
    for (unsigned i = 0; i < 2; i++) {
        w[i] = calloc(1, sizeof *w[i]);
        *w[i] = (struct wire_end){.base = {.ops = flags & WIRE_HANDSHAKE ? &shaking_ops : &plain_ops, .read_fd = -1, .write_fd = -1},
                                  .loop = loop,
                                  .whole = flags & WIRE_WHOLE,
                                  .seed = 2 * seed + i,
                                  .flights = 4,
                                  .nudges = EV_READ};
        ev_timer_init(&w[i]->timer, on_timer, 0, 0);
        ends[i] = &w[i]->base;
    }
    w[0]->peer = w[1];
    w[1]->peer = w[0];
}
