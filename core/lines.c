/* lines.c - reads a pipe line by line: what children write to their standard error. The callback may end the reader, with the spawner: its
 * memory outlives the events at hand, and no more is told. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { LONGEST_LINE = 4096, PIECES_A_TURN = 4, PIECES_IN_A_PIPE = 17 };
static const double RETRY_SECONDS = 0.1;

struct line_reader {
    struct engine *engine;
    ev_io watcher;
    struct timeout retry; /* runs while the kernel has no room for the watcher */
    uint64_t id;
    line_cb *callback;
    void *arg;
    struct buffer partial;    /* a line whose end has not come yet */
    struct line_reader **end; /* set to NULL when we go */
    bool telling;             /* the callback runs */
    bool ended;
    struct deferred release;
    LIST_ENTRY(line_reader) entry;
};

static void emit(struct line_reader *r, const char *line, size_t length)
{
    if (r->ended)
        return;
    if (length > 0 && line[length - 1] == '\r')
        length--;
    r->telling = true;
    r->callback(r->arg, r->id, line, length);
    r->telling = false;
}

static void emit_partial(struct line_reader *r)
{
    if (buffer_length(&r->partial) > 0)
        emit(r, buffer_bytes(&r->partial), buffer_length(&r->partial));
    buffer_release(&r->partial);
}

/* No line may grow for ever. */
static void add(struct line_reader *r, const char *bytes, size_t length)
{
    while (buffer_length(&r->partial) + length > LONGEST_LINE) {
        size_t piece = LONGEST_LINE - buffer_length(&r->partial);
        buffer_append(&r->partial, bytes, piece);
        emit_partial(r);
        bytes += piece;
        length -= piece;
    }
    buffer_append(&r->partial, bytes, length);
}

static void take(struct line_reader *r, const char *bytes, size_t length)
{
    const char *newline;
    while ((newline = memchr(bytes, '\n', length))) {
        size_t line = (size_t)(newline - bytes);
        if (buffer_length(&r->partial) == 0) {
            emit(r, bytes, line);
        } else {
            add(r, bytes, line);
            emit_partial(r);
        }
        bytes = newline + 1;
        length -= line + 1;
    }
    add(r, bytes, length);
}

static void release(struct deferred *d)
{
    struct line_reader *r = container_of(d, struct line_reader, release);
    struct engine *engine = r->engine;
    buffer_release(&r->partial);
    free(r);
    engine_put(engine);
}

void line_reader_end(struct line_reader *r)
{
    if (r->ended)
        return;
    r->ended = true;
    ev_io_stop(r->engine->loop, &r->watcher);
    timeout_stop(&r->retry);
    close(r->watcher.fd);
    if (r->end)
        *r->end = NULL;
    LIST_REMOVE(r, entry);
    engine_let_go(r->engine, &r->release, release);
}

static void finish(struct line_reader *r)
{
    if (!r->telling)
        emit_partial(r);
    line_reader_end(r);
}

/* False at the end, when the reader is no more. */
static bool read_pieces(struct line_reader *r, int most)
{
    char bytes[LONGEST_LINE];
    for (int i = 0; i < most; i++) {
        ssize_t n = read(r->watcher.fd, bytes, sizeof bytes);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n <= 0) {
            finish(r);
            return false;
        }
        take(r, bytes, (size_t)n);
        if (r->ended)
            return false;
        if ((size_t)n < sizeof bytes && most == PIECES_A_TURN)
            break; /* most likely all there is; more would be an event */
    }
    return true;
}

/* All that a pipe can hold, but not what is written meanwhile, for ever. */
void line_reader_catch_up(struct line_reader *r)
{
    if (!r->telling && read_pieces(r, PIECES_IN_A_PIPE))
        emit_partial(r);
}

static void on_retry(struct timeout *retry)
{
    struct line_reader *r = container_of(retry, struct line_reader, retry);
    if (read_pieces(r, PIECES_A_TURN))
        ev_io_start(r->engine->loop, &r->watcher);
}

/* The kernel had no room for the watcher, and libev has stopped it. A closed pipe would kill who writes to it, and an unread one stop
 * him, so it is tried again. */
static void watch_later(struct line_reader *r)
{
    if (timeout_start(r->engine, &r->retry, RETRY_SECONDS, on_retry) != 0)
        finish(r);
}

static void on_readable(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop;
    struct line_reader *r = container_of(watcher, struct line_reader, watcher);
    struct engine *engine = r->engine;
    engine_enter(engine);
    if (events & EV_ERROR)
        watch_later(r);
    else
        read_pieces(r, PIECES_A_TURN);
    engine_leave(engine);
}

struct line_reader *line_reader_new(struct engine *engine, struct line_readers *list, int fd, uint64_t id, line_cb *callback, void *arg)
{
    struct line_reader *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    engine->users++;
    r->engine = engine;
    r->id = id;
    r->callback = callback;
    r->arg = arg;
    ev_io_init(&r->watcher, on_readable, fd, EV_READ);
    ev_io_start(engine->loop, &r->watcher);
    LIST_INSERT_HEAD(list, r, entry);
    return r;
}

void line_readers_end(struct line_readers *list)
{
    struct line_reader *r;
    while ((r = LIST_FIRST(list)))
        finish(r);
}

void line_reader_set_id(struct line_reader *r, uint64_t id)
{
    r->id = id;
}

void line_reader_on_end(struct line_reader *r, struct line_reader **end)
{
    r->end = end;
}
