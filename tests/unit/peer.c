/* peer.c - the far end of a stream, played by chance. */
#include "peer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LARGEST_RECORD = 40 };

void (*world_failed)(const char *what, const char *file, int line);
bool world_traced;

void trace(const char *format, ...)
{
    va_list arguments;
    if (!world_traced)
        return;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* ---- chance ---- */

static uint64_t mix(uint64_t x) /* splitmix64's, by Sebastiano Vigna */
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

unsigned choose(struct choices *c, unsigned bound)
{
    if (!c->data)
        return (unsigned)((mix(c->state += 0x9e3779b97f4a7c15) >> 32) % bound);
    if (c->left == 0)
        return 0;
    c->left--;
    return *c->data++ % bound;
}

char random_peer_byte(int number, uint64_t offset)
{
    return "ab\ncdefg"[mix(offset * 64 + (unsigned)number) % 8];
}

/* ---- time ---- */

static double elapsed = 1000;

double world_now(void)
{
    return elapsed;
}

void world_sleep(double seconds)
{
    elapsed += seconds;
}

/* The time of day goes on, for who runs the tests; nothing of what is tested looks at it. */
int clock_gettime(clockid_t id, struct timespec *t)
{
    if (id != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, id, t);
    t->tv_sec = (time_t)elapsed;
    t->tv_nsec = (long)((elapsed - (double)t->tv_sec) * 1e9);
    return 0;
}

/* ---- the transport ---- */

static struct peer *peer_of(struct transport *t)
{
    return container_of(t, struct peer, base);
}

static int fail_with(int error)
{
    errno = error;
    return TRANSPORT_ERROR;
}

/* TLS may have to write before it can read on, and the other way round. */
static bool flips(struct peer *p, bool *flip)
{
    if (*flip)
        return *flip = false;
    return *flip = p->secure && one_in(p->choices, 8);
}

/* Takes a record from the kernel. */
static void open_record(struct peer *p)
{
    uint64_t most = p->sent - p->opened < LARGEST_RECORD ? p->sent - p->opened : LARGEST_RECORD;
    if (p->secure && most > 0 && p->opened == p->read)
        p->opened += 1 + choose(p->choices, (unsigned)most);
}

static ssize_t peer_read(struct transport *t, void *bytes, size_t size)
{
    struct peer *p = peer_of(t);
    must(!p->freed && !p->eof_read && size > 0 && !p->greeting);
    if (flips(p, &p->flip_read))
        return TRANSPORT_WANT_WRITE;
    open_record(p);
    uint64_t there = (p->secure ? p->opened : p->sent) - p->read;
    if (there == 0 && p->error)
        return fail_with(p->error);
    if (there == 0 && p->finished && p->read == p->sent) {
        p->eof_read = true;
        p->ended = world_now();
        trace("    %d: read EOF", p->number);
        return 0;
    }
    if (there == 0)
        return TRANSPORT_WANT_READ;
    size_t n = there < size ? (size_t)there : size;
    if (p->secure && n > 1 && one_in(p->choices, 3)) /* a plain socket gives what it has */
        n = 1 + choose(p->choices, (unsigned)n);
    for (size_t i = 0; i < n; i++)
        ((char *)bytes)[i] = random_peer_byte(p->number, p->read + i);
    p->read += n;
    p->moved = world_now();
    trace("    %d: read %zu", p->number, n);
    return (ssize_t)n;
}

static ssize_t peer_write(struct transport *t, const void *bytes, size_t length)
{
    struct peer *p = peer_of(t);
    must(!p->freed && !p->shut && length > 0 && !p->greeting);
    if (p->error)
        return fail_with(p->error == ECONNRESET && one_in(p->choices, 2) ? EPIPE : p->error);
    if (flips(p, &p->flip_write))
        return TRANSPORT_WANT_READ;
    if (p->window == 0)
        return TRANSPORT_WANT_WRITE;
    size_t n = length < p->window ? length : p->window;
    if (p->secure && n > LARGEST_RECORD)
        n = LARGEST_RECORD;
    for (size_t i = 0; i < n; i++)
        must(((const char *)bytes)[i] == p->expected(p, p->written + i));
    p->written += n;
    if (p->window != FOREVER)
        p->window -= (unsigned)n;
    p->moved = p->moved_out = world_now();
    trace("    %d: wrote %zu", p->number, n);
    return (ssize_t)n;
}

static int peer_handshake(struct transport *t)
{
    struct peer *p = peer_of(t);
    must(!p->freed && p->secure);
    if (p->error)
        return fail_with(p->error);
    if (p->rounds > 0 && p->answered) {
        p->answered = false;
        p->rounds--;
    }
    p->greeting = p->rounds > 0;
    if (!p->greeting)
        return 0;
    return p->finished && p->read == p->sent ? fail_with(EPROTO) : TRANSPORT_WANT_READ;
}

static int peer_shutdown(struct transport *t, bool last)
{
    struct peer *p = peer_of(t);
    must(!p->freed && !p->shut);
    if (p->secure && p->error)
        return fail_with(p->error);
    if (flips(p, &p->flip_shutdown))
        return TRANSPORT_WANT_READ;
    if (p->secure && p->window == 0)
        return TRANSPORT_WANT_WRITE;
    p->shut = true;
    p->ended = world_now();
    trace("    %d: shut down%s", p->number, last ? ", for the last time" : "");
    return 0;
}

static bool peer_pending(struct transport *t)
{
    return peer_of(t)->opened > peer_of(t)->read;
}

static void peer_watch(struct transport *t, int events)
{
    must(!peer_of(t)->freed && peer_of(t)->watched != events);
    peer_of(t)->watched = events;
}

static void peer_free(struct transport *t, bool reset)
{
    struct peer *p = peer_of(t);
    must(!p->freed);
    p->freed = true;
    p->reset_sent = reset;
    p->watched = 0;
    trace("    %d: freed%s", p->number, reset ? ", reset" : "");
}

int random_peer_ready(const struct peer *p)
{
    int events = 0;
    bool input = p->secure ? p->sent > p->opened : p->sent > p->read;
    if (input || p->error || (p->finished && !p->eof_read) || (p->rounds > 0 && p->answered))
        events |= EV_READ;
    if (p->flip_write || p->flip_shutdown) /* what it waits for is the peer's answer, which never takes long */
        events |= EV_READ;
    if (p->window > 0 || p->error || p->flip_read)
        events |= EV_WRITE;
    return events & p->watched;
}

void random_peer_init(struct peer *p, int number, struct choices *choices, bool secure)
{
    *p = (struct peer){.base = {.read_fd = -1, .write_fd = -1}, .number = number, .choices = choices, .secure = secure};
    p->ops =
        (struct transport_ops){.read = peer_read, .write = peer_write, .shutdown = peer_shutdown, .watch = peer_watch, .free = peer_free};
    if (secure) {
        p->ops.handshake = peer_handshake;
        p->ops.pending = peer_pending;
        p->rounds = (int)choose(choices, 3);
        p->greeting = true;
    }
    p->base.ops = &p->ops;
    p->moved = world_now();
}
