/* read.c - what is read from a stream: requests, relays, or nothing but the peer's end. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { READS_A_TURN = 4 }; /* full pieces, before other streams get their turn */

bool read_wanted(const struct iostream *s)
{
    if (s->in_ended || s->lent || s->reason != CLOSE_NONE || s->handshaking)
        return false;
    if (s->dropping)
        return true;
    if (s->read.kind == RELAY)
        return buffer_length(&s->relay_to->out) == 0 && !s->relay_to->piped && !s->relay_to->handshaking;
    if (s->read.kind == NO_READ) /* one piece ahead, to notice the peer's end */
        return s->on_eof.callback && buffer_length(&s->in) == 0;
    return !s->read.ready;
}

/* ---- requests ---- */

static void satisfy(struct read_request *r, enum read_status status, size_t count)
{
    r->ready = true;
    r->status = status;
    r->count = count;
}

/* Where the first match ends, or 0. */
static size_t find_match(struct iostream *s)
{
    struct read_request *r = &s->read;
    const char *bytes = buffer_bytes(&s->in);
    size_t have = buffer_length(&s->in);
    if (r->kind == UNTIL_MATCH) {
        size_t end = r->match(r->arg, bytes, have, r->scanned);
        assert(end <= have);
        r->scanned = have;
        return end;
    }
    const char *match = have > r->scanned ? memmem(bytes + r->scanned, have - r->scanned, r->delimiter, r->delimiter_length) : NULL;
    if (have >= r->delimiter_length)
        r->scanned = have - r->delimiter_length + 1;
    return match ? (size_t)(match - bytes) + r->delimiter_length : 0;
}

static void look_for_match(struct iostream *s)
{
    struct read_request *r = &s->read;
    size_t end = find_match(s);
    if (end > r->count || (end == 0 && buffer_length(&s->in) > r->count)) /* too far out, or more than that without one */
        satisfy(r, READ_LIMIT, 0);
    else if (end > 0)
        satisfy(r, READ_OK, end);
}

/* Into the caller's memory, first what is buffered. */
static void fill_memory(struct iostream *s)
{
    struct read_request *r = &s->read;
    size_t left = r->count - r->filled;
    size_t n = buffer_length(&s->in) < left ? buffer_length(&s->in) : left;
    if (n > 0) {
        memcpy(r->memory + r->filled, buffer_bytes(&s->in), n);
        buffer_consume(&s->in, n);
        r->filled += n;
    }
    if (r->filled == r->count || (r->partial && r->filled > 0))
        satisfy(r, READ_OK, r->filled);
}

/* Is the pending request satisfied by what is there, or never going to be? */
static void examine(struct iostream *s)
{
    struct read_request *r = &s->read;
    if (r->ready || !r->callback)
        return;
    if (r->kind == INTO)
        fill_memory(s);
    size_t have = buffer_length(&s->in);
    if (r->kind == SOME && (have > 0 || r->count == 0))
        satisfy(r, READ_OK, have < r->count ? have : r->count);
    else if (r->kind == BYTES && have >= r->count)
        satisfy(r, READ_OK, r->count);
    else if ((r->kind == UNTIL || r->kind == UNTIL_MATCH) && have > 0)
        look_for_match(s);
    if (!r->ready && s->in_ended)
        satisfy(r, r->kind == UNTIL_CLOSE ? READ_OK : READ_EOF, r->kind == UNTIL_CLOSE ? have : 0);
    if (!r->ready && have > s->max_buffer_bytes)
        satisfy(r, READ_LIMIT, 0);
}

static void examine_and_defer(struct iostream *s)
{
    examine(s);
    if (s->read.ready || (s->in_ended && buffer_length(&s->in) == 0 && s->on_eof.callback && !s->eof_told))
        engine_defer(s->engine, &s->deferred);
}

/* The bytes leave the buffer before the callback, which may read on; they live on until it returns. */
static void hand_out_bytes(struct iostream *s, struct read_request *r)
{
    struct buffer out = {0};
    if (r->count == buffer_length(&s->in)) {
        out = s->in;
        s->in = (struct buffer){0};
    } else if (buffer_append(&out, buffer_bytes(&s->in), r->count) == 0) {
        buffer_consume(&s->in, r->count);
    } else {
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
        r->status = READ_CLOSED;
    }
    r->callback(s, r->arg, r->status, buffer_length(&out) ? buffer_bytes(&out) : "", buffer_length(&out));
    buffer_release(&out);
}

static void release(struct read_request *r)
{
    if (r->kind == UNTIL)
        free(r->delimiter);
}

void read_release(struct iostream *s)
{
    release(&s->read);
}

static void hand_out(struct iostream *s)
{
    struct read_request r = s->read;
    s->read = (struct read_request){0};
    if (r.kind == INTO)
        r.callback(s, r.arg, r.status, r.memory, r.filled);
    else if (r.status == READ_OK)
        hand_out_bytes(s, &r);
    else
        r.callback(s, r.arg, r.status, "", 0);
    release(&r);
    if (r.status == READ_LIMIT && !s->dropping)
        iostream_fail(s, CLOSE_LIMIT, 0);
}

void read_deliver(struct iostream *s)
{
    if (s->read.ready)
        hand_out(s);
    if (s->reason != CLOSE_NONE || s->read.ready || !s->in_ended || buffer_length(&s->in) > 0 || s->eof_told || !s->on_eof.callback)
        return;
    s->eof_told = true;
    s->on_eof.callback(s, s->on_eof.arg);
}

void read_close(struct iostream *s)
{
    struct read_request *r = &s->read;
    if (!r->callback)
        *r = (struct read_request){0};
    else
        satisfy(r, READ_CLOSED, 0);
}

void read_fail(struct iostream *s)
{
    if (!s->read.callback)
        return;
    read_close(s);
    hand_out(s);
}

static int begin(struct iostream *s, struct read_request request)
{
    if (s->reason != CLOSE_NONE || s->dropping) {
        errno = EPIPE;
        return -1;
    }
    if (s->read.kind != NO_READ) {
        errno = EBUSY;
        return -1;
    }
    s->read = request;
    examine_and_defer(s);
    iostream_update(s);
    return 0;
}

int iostream_read_some(struct iostream *s, size_t max_bytes, iostream_read_cb *callback, void *arg)
{
    return begin(s, (struct read_request){.kind = SOME, .count = max_bytes, .callback = callback, .arg = arg});
}

int iostream_read_bytes(struct iostream *s, size_t count, iostream_read_cb *callback, void *arg)
{
    return begin(s, (struct read_request){.kind = BYTES, .count = count, .callback = callback, .arg = arg});
}

int iostream_read_into(struct iostream *s, void *memory, size_t size, bool partial, iostream_read_cb *callback, void *arg)
{
    return begin(
        s, (struct read_request){.kind = INTO, .memory = memory, .count = size, .partial = partial, .callback = callback, .arg = arg});
}

static size_t match_limit(const struct iostream *s, size_t max_bytes)
{
    return max_bytes && max_bytes < s->max_buffer_bytes ? max_bytes : s->max_buffer_bytes;
}

int iostream_read_until(struct iostream *s, const void *delimiter, size_t length, size_t max_bytes, iostream_read_cb *callback, void *arg)
{
    if (length == 0 || length > UINT32_MAX) {
        errno = EINVAL;
        return -1;
    }
    char *copy = malloc(length);
    if (!copy)
        return -1;
    memcpy(copy, delimiter, length);
    struct read_request request = {.kind = UNTIL,
                                   .count = match_limit(s, max_bytes),
                                   .delimiter = copy,
                                   .delimiter_length = (uint32_t)length,
                                   .callback = callback,
                                   .arg = arg};
    if (begin(s, request) == 0)
        return 0;
    free(copy);
    return -1;
}

int iostream_read_until_match(struct iostream *s, iostream_match *match, size_t max_bytes, iostream_read_cb *callback, void *arg)
{
    struct read_request request = {
        .kind = UNTIL_MATCH, .count = match_limit(s, max_bytes), .match = match, .callback = callback, .arg = arg};
    return begin(s, request);
}

int iostream_read_until_close(struct iostream *s, iostream_read_cb *callback, void *arg)
{
    return begin(s, (struct read_request){.kind = UNTIL_CLOSE, .callback = callback, .arg = arg});
}

void read_discard(struct iostream *s)
{
    s->read = (struct read_request){.kind = DISCARD};
}

int iostream_discard(struct iostream *s)
{
    if (begin(s, (struct read_request){.kind = DISCARD}) != 0)
        return -1;
    buffer_release(&s->in);
    if (s->in_ended) {
        s->read = (struct read_request){0};
        engine_defer(s->engine, &s->deferred);
    }
    return 0;
}

/* What the caller's memory was filled with goes back, before what is buffered. */
static int give_back(struct iostream *s)
{
    struct buffer all = {0};
    if (buffer_append(&all, s->read.memory, s->read.filled) != 0 || buffer_append(&all, buffer_bytes(&s->in), buffer_length(&s->in)) != 0) {
        buffer_release(&all);
        return -1;
    }
    buffer_release(&s->in);
    s->in = all;
    return 0;
}

int iostream_read_cancel(struct iostream *s)
{
    if (s->read.kind == NO_READ || s->read.kind == RELAY) {
        errno = ENOENT;
        return -1;
    }
    if (s->read.kind == INTO && s->read.filled > 0 && give_back(s) != 0)
        return -1;
    read_release(s);
    s->read = (struct read_request){0};
    iostream_update(s);
    return 0;
}

/* ---- from the transport ---- */

static size_t piece_size(const struct iostream *s)
{
    size_t size = SCRATCH_BYTES;
    if (s->dropping)
        return size;
    size_t room =
        s->read.kind == RELAY ? s->max_buffer_bytes : s->max_buffer_bytes + 1 - buffer_length(&s->in); /* one over shows the limit */
    return room < size ? room : size;
}

/* Where the next piece goes. */
static char *landing(const struct iostream *s, size_t *size)
{
    const struct read_request *r = &s->read;
    if (r->kind != INTO || s->dropping) {
        *size = piece_size(s);
        return s->engine->scratch;
    }
    size_t left = r->count - r->filled;
    *size = left < SCRATCH_BYTES ? left : SCRATCH_BYTES;
    return r->memory + r->filled;
}

static void take_piece(struct iostream *s, const char *bytes, size_t length)
{
    s->bytes_in += length;
    iostream_moved(s);
    if (s->dropping || s->read.kind == DISCARD)
        return;
    if (s->read.kind == RELAY) {
        relay_input(s, bytes, length);
    } else if (s->read.kind == INTO) {
        s->read.filled += length;
        examine_and_defer(s);
    } else if (buffer_append(&s->in, bytes, length) != 0) {
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
    } else {
        examine_and_defer(s);
    }
}

static void take_eof(struct iostream *s)
{
    s->in_ended = true;
    iostream_direction_ended(s);
    if (s->read.kind == RELAY)
        relay_eof(s);
    else if (s->read.kind == DISCARD)
        s->read = (struct read_request){0};
    examine_and_defer(s);
    iostream_settle(s);
}

int iostream_stop_reading(struct iostream *s)
{
    if (s->is_socket) {
        errno = EINVAL;
        return -1;
    }
    if (s->reason == CLOSE_NONE && !s->in_ended) {
        take_eof(s);
        iostream_update(s);
    }
    return 0;
}

/* What a read that brought nothing means. */
static void take_nothing(struct iostream *s, ssize_t result)
{
    bool truncated = result == TRANSPORT_ERROR && errno == EPROTO;
    if (truncated && s->dropping && s->out_state == OUT_ENDED)
        result = 0; /* an end without close_notify cuts off nothing that anyone waits for */
    if (result != TRANSPORT_ERROR && s->dry_is_eof)
        result = 0;
    s->read_want = result == TRANSPORT_WANT_WRITE ? EV_WRITE : EV_READ;
    if (result == TRANSPORT_ERROR)
        iostream_fail_io(s, errno);
    else if (result == 0)
        take_eof(s);
}

/* False: there is no more for now. */
static bool read_once(struct iostream *s)
{
    struct transport *t = s->transport;
    bool relayed = s->read.kind == RELAY, spliced = relayed && splice_is_worth_it(s);
    size_t size;
    s->fresh = false;
    char *bytes = landing(s, &size);
    ssize_t n = spliced ? splice_take(s) : t->ops->read(t, bytes, size);
    if (n <= 0) {
        take_nothing(s, n);
        return false;
    }
    s->read_want = EV_READ;
    if (relayed && !spliced)
        splice_notice(s, (size_t)n);
    if (!spliced)
        take_piece(s, bytes, (size_t)n);
    if (s->reason != CLOSE_NONE) /* what the bytes were written to failed and took this stream along, t included */
        return false;
    /* After a short read the socket is empty: another one would only find EAGAIN. */
    return (size_t)n >= size || s->dry_is_eof || (t->ops->pending && t->ops->pending(t));
}

void read_take(struct iostream *s)
{
    for (int i = 0; i < READS_A_TURN && read_wanted(s) && read_once(s); i++)
        ;
}
