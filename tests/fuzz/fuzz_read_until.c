/* iostream_read_until over bytes that come in pieces of any size, against a naive search of the whole. The input is: the buffer's size,
 * max_bytes, the delimiter's length and the delimiter, four piece sizes, and then what the peer sends. */
#include <string.h>

#include "../../core/internal.h"
#include "fuzz.h"

enum { HEAD = 3, LONGEST_DELIMITER = 4, PIECES = 4 };

static struct feed {
    struct transport base;
    const uint8_t *bytes, *delimiter, *pieces;
    size_t size, given, consumed, turn, delimiter_length, max_buffer_bytes, max_bytes;
    int watched;
    bool ended;
} feed;

static ssize_t feed_read(struct transport *t, void *bytes, size_t size)
{
    (void)t;
    size_t n = 1 + feed.pieces[feed.turn++ % PIECES], left = feed.size - feed.given;
    must_be(size > 0);
    n = n < size ? n : size;
    n = n < left ? n : left;
    memcpy(bytes, feed.bytes + feed.given, n);
    feed.given += n;
    return (ssize_t)n;
}

static void feed_watch(struct transport *t, int events)
{
    (void)t;
    feed.watched = events;
}

static void feed_free(struct transport *t, bool reset)
{
    (void)t, (void)reset;
    feed.watched = 0;
}

static int feed_shutdown(struct transport *t, bool last)
{
    (void)t, (void)last;
    return 0;
}

static const struct transport_ops feed_ops = {.read = feed_read, .shutdown = feed_shutdown, .watch = feed_watch, .free = feed_free};

static void ask(struct iostream *);

static void on_read(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    (void)arg;
    const uint8_t *rest = feed.bytes + feed.consumed;
    size_t left = feed.size - feed.consumed, limit = feed.max_buffer_bytes;
    const uint8_t *match = left ? memmem(rest, left, feed.delimiter, feed.delimiter_length) : NULL;
    size_t end = match ? (size_t)(match - rest) + feed.delimiter_length : left;

    if (feed.max_bytes && feed.max_bytes < limit)
        limit = feed.max_bytes;
    must_be(status == (end > limit ? READ_LIMIT : match ? READ_OK : READ_EOF));
    must_be(length == (status == READ_OK ? end : 0));
    must_be(length == 0 || memcmp(data, rest, length) == 0);
    feed.consumed += length;
    feed.ended = status != READ_OK;
    if (feed.ended)
        iostream_abort(s, CLOSE_FINISHED);
    else
        ask(s);
}

static void ask(struct iostream *s)
{
    must_be(iostream_read_until(s, feed.delimiter, feed.delimiter_length, feed.max_bytes, on_read, NULL) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct errbuf err;
    if (size < HEAD + LONGEST_DELIMITER + PIECES)
        return -1;
    feed = (struct feed){.base.ops = &feed_ops, .max_buffer_bytes = 1 + (size_t)data[0], .max_bytes = data[1]};
    feed.delimiter = data + HEAD;
    feed.delimiter_length = 1 + data[2] % LONGEST_DELIMITER;
    feed.pieces = feed.delimiter + LONGEST_DELIMITER;
    feed.bytes = feed.pieces + PIECES;
    feed.size = size - (size_t)(feed.bytes - data);

    struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    struct engine *engine = engine_get(loop, &err);
    const struct iostream_options options = {.max_buffer_bytes = feed.max_buffer_bytes};
    struct iostream *s = iostream_over(engine, &feed.base, &options);
    ask(s);
    while (!feed.ended) {
        must_be(!TAILQ_EMPTY(&engine->queue) || feed.watched & EV_READ);
        if (feed.watched & EV_READ)
            transport_ready(&feed.base, EV_READ);
        else
            engine_run_out(engine);
    }
    engine_run_out(engine);
    must_be(engine->users == 1);
    engine_put(engine);
    ev_loop_destroy(loop);
    return 0;
}
