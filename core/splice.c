/* splice.c - a relay's bulk, moved from socket to socket inside the kernel, through a pipe (splice(2)).
 *
 * Small messages are cheaper to copy, so a flow has to prove itself.
 * What the receiver does not take at once stays in the pipe, and counts as queued by it. A pipe belongs to a relay only as long as it
 * holds bytes; there are few, since a user may have 64 MiB in all of them, before every pipe that his programs open is a tiny one. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

enum {
    PIPES = 16,
    PIPE_BYTES = 256 * 1024,
    BULKY_BYTES = 48 * 1024, /* a read brings, */
    BULKY_READS = 3,         /* so many times in a row, and the flow is bulky, ... */
    LEAN_BYTES = 16 * 1024,  /* ... until a splice brings fewer than that */
    LEAN_SPLICES = 6,        /* so many times more often than not */
    MOST_BULKY = BULKY_READS + LEAN_SPLICES - 1
};

struct splice_pipe {
    int read_fd, write_fd;
    size_t size, length; /* length: the bytes in it */
    struct splice_pipe *next;
};

struct splice_pool {
    struct splice_pipe *idle;
    unsigned made;
    bool unwanted; /* splice might raise SIGPIPE, since unlike send it has no flag against that; or it cannot be had */
};

/* ---- pipes ---- */

bool sigpipe_is_off(void)
{
    struct sigaction action;
    sigset_t blocked;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
        return true;
    return sigprocmask(SIG_SETMASK, NULL, &blocked) == 0 && sigismember(&blocked, SIGPIPE);
}

static struct splice_pool *pool_of(struct engine *engine)
{
    if (!engine->splice_pool && (engine->splice_pool = calloc(1, sizeof *engine->splice_pool)))
        engine->splice_pool->unwanted = !sigpipe_is_off();
    return engine->splice_pool;
}

static struct splice_pipe *pipe_new(void)
{
    int fds[2];
    struct splice_pipe *p = malloc(sizeof *p);
    if (!p || pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
        free(p);
        return NULL;
    }
    int size = fcntl(fds[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (size < 0)
        size = fcntl(fds[1], F_GETPIPE_SZ);
    *p = (struct splice_pipe){.read_fd = fds[0], .write_fd = fds[1], .size = size > 0 ? (size_t)size : SCRATCH_BYTES};
    return p;
}

static void pipe_free(struct splice_pipe *p)
{
    close(p->read_fd);
    close(p->write_fd);
    free(p);
}

static struct splice_pipe *take_pipe(struct engine *engine)
{
    struct splice_pool *pool = pool_of(engine);
    if (!pool || pool->unwanted)
        return NULL;
    struct splice_pipe *p = pool->idle;
    if (p) {
        pool->idle = p->next;
        return p;
    }
    if (pool->made == PIPES || !(p = pipe_new()))
        return NULL;
    pool->made++;
    return p;
}

/* One with bytes in it is of no use to anyone else. */
static void give_back(struct engine *engine, struct splice_pipe *p)
{
    struct splice_pool *pool = engine->splice_pool;
    if (p->length > 0) {
        pipe_free(p);
        pool->made--;
    } else {
        p->next = pool->idle;
        pool->idle = p;
    }
}

void splice_pool_free(struct engine *engine)
{
    struct splice_pool *pool = engine->splice_pool;
    for (struct splice_pipe *p; pool && (p = pool->idle);) {
        pool->idle = p->next;
        pipe_free(p);
    }
    free(pool);
    engine->splice_pool = NULL;
}

/* ---- moving ---- */

static ssize_t move(int from, int to, size_t length)
{
    return splice(from, NULL, to, NULL, length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

void splice_drop(struct iostream *to)
{
    if (to->piped)
        give_back(to->engine, to->piped);
    to->piped = NULL;
}

size_t splice_pending(const struct iostream *to)
{
    return to->piped ? to->piped->length : 0;
}

bool splice_flush(struct iostream *to)
{
    struct splice_pipe *p = to->piped;
    while (p->length > 0) {
        ssize_t n = move(p->read_fd, to->transport->write_fd, p->length);
        if (n <= 0) {
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                iostream_fail_io(to, errno);
            return false;
        }
        p->length -= (size_t)n;
        write_moved(to, (size_t)n);
    }
    splice_drop(to);
    return true;
}

void splice_notice(struct iostream *from, size_t bytes)
{
    if (bytes < BULKY_BYTES)
        from->bulky = 0;
    else if (from->bulky < BULKY_READS && ++from->bulky == BULKY_READS)
        from->bulky = MOST_BULKY;
}

bool splice_is_worth_it(struct iostream *from)
{
    struct iostream *to = from->relay_to;
    if (from->bulky < BULKY_READS || !transport_can_splice(from->transport) || !transport_can_splice(to->transport))
        return false;
    size_t most = to->max_buffer_bytes;
    if (!to->piped)
        to->piped = take_pipe(from->engine);
    if (to->piped && to->piped->size > most)
        splice_drop(to); /* it would hold more than is allowed */
    if (!to->piped)
        from->bulky = 0; /* not to ask each time */
    return to->piped;
}

/* Some sandboxes do not let us; then everything is copied. */
static bool cannot_be_had(int error)
{
    return error == EINVAL || error == ENOSYS || error == EPERM || error == EOPNOTSUPP;
}

static ssize_t took_nothing(struct iostream *from, ssize_t n, int error)
{
    splice_drop(from->relay_to);
    if (n < 0 && cannot_be_had(error))
        from->engine->splice_pool->unwanted = true;
    errno = error;
    return n == 0 ? 0 : error == EAGAIN || error == EINTR || cannot_be_had(error) ? TRANSPORT_WANT_READ : TRANSPORT_ERROR;
}

ssize_t splice_take(struct iostream *from)
{
    struct iostream *to = from->relay_to;
    struct splice_pipe *p = to->piped;
    ssize_t n = move(from->transport->read_fd, p->write_fd, p->size);
    if (n <= 0)
        return took_nothing(from, n, errno);
    p->length = (size_t)n;
    if (n >= LEAN_BYTES)
        from->bulky += from->bulky < MOST_BULKY;
    else if (--from->bulky < BULKY_READS)
        from->bulky = 0;
    from->bytes_in += (uint64_t)n;
    iostream_moved(from);
    if (!splice_flush(to))
        iostream_update(to); /* and `from` waits: read_wanted */
    return n;
}
