/* read.c - what is read from a stream: requests, relays, or nothing but the peer's end. */
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
        return s->relay_to->out.length == 0 && !s->relay_to->piped && !s->relay_to->handshaking;
    if (s->read.kind == NO_READ) /* one piece ahead, to notice the peer's end */
        return s->on_eof.callback && s->in.length == 0;
    return !s->read.ready;
}

/* ---- requests ---- */

static void satisfy(struct read_request *r, enum read_status status, size_t count)
{
    r->ready = true;
    r->status = status;
    r->count = count;
}

static void look_for_delimiter(struct iostream *s)
{
    struct read_request *r = &s->read;
    const char *bytes = buffer_bytes(&s->in);
    const char *match = NULL;
    if (s->in.length > r->scanned)
        match = memmem(bytes + r->scanned, s->in.length - r->scanned, r->delimiter, r->delimiter_length);
    size_t end = match ? (size_t)(match - bytes) + r->delimiter_length : s->in.length;
    if (match && end <= r->count)
        satisfy(r, READ_OK, end);
    else if (end > r->count) /* a match too far out, or more than that without one */
        satisfy(r, READ_LIMIT, 0);
    else if (s->in.length >= r->delimiter_length)
        r->scanned = s->in.length - r->delimiter_length + 1;
}

/* Is the pending request satisfied by what is buffered, or never going to be? */
static void examine(struct iostream *s)
{
    struct read_request *r = &s->read;
    size_t have = s->in.length;
    if (r->ready || !r->callback)
        return;
    if (r->kind == SOME && have > 0)
        satisfy(r, READ_OK, have < r->count ? have : r->count);
    else if (r->kind == BYTES && have >= r->count)
        satisfy(r, READ_OK, r->count);
    else if (r->kind == UNTIL && have > 0)
        look_for_delimiter(s);
    if (!r->ready && s->in_ended)
        satisfy(r, r->kind == UNTIL_CLOSE ? READ_OK : READ_EOF, r->kind == UNTIL_CLOSE ? have : 0);
    if (!r->ready && have > s->max_buffer_bytes)
        satisfy(r, READ_LIMIT, 0);
}

static void examine_and_defer(struct iostream *s)
{
    examine(s);
    if (s->read.ready || (s->in_ended && s->in.length == 0 && s->on_eof.callback && !s->eof_told))
        engine_defer(s->engine, &s->deferred);
}

void read_deliver(struct iostream *s)
{
    if (s->read.ready) {
        struct read_request r = s->read;
        s->read = (struct read_request){0};
        /* The bytes leave the buffer before the callback, which may read on; they live on in `taken` until it returns. */
        struct buffer taken = s->in;
        size_t start = taken.start;
        bool whole = r.status == READ_OK && r.count == taken.length;
        if (whole)
            s->in = (struct buffer){0};
        char *copy = NULL;
        const char *bytes = taken.data ? taken.data + start : "";
        if (r.status == READ_OK && !whole && r.count > 0) {
            copy = malloc(r.count);
            if (!copy) {
                iostream_fail(s, CLOSE_ERROR, ENOMEM);
                r.status = READ_CLOSED;
                r.count = 0;
            } else {
                bytes = memcpy(copy, bytes, r.count);
                buffer_consume(&s->in, r.count);
            }
        }
        r.callback(s, r.arg, r.status, bytes, r.status == READ_OK ? r.count : 0);
        free(copy);
        free(r.delimiter);
        if (whole)
            free(taken.data);
        if (r.status == READ_LIMIT && !s->dropping)
            iostream_fail(s, CLOSE_LIMIT, 0);
    }
    if (s->reason != CLOSE_NONE || s->read.ready || !s->in_ended || s->in.length > 0 || s->eof_told || !s->on_eof.callback)
        return;
    s->eof_told = true;
    s->on_eof.callback(s, s->on_eof.arg);
}

void read_fail(struct iostream *s)
{
    struct read_request r = s->read;
    if (!r.callback)
        return;
    s->read = (struct read_request){0};
    r.callback(s, r.arg, READ_CLOSED, "", 0);
    free(r.delimiter);
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
    if (max_bytes == 0) {
        errno = EINVAL;
        return -1;
    }
    return begin(s, (struct read_request){.kind = SOME, .count = max_bytes, .callback = callback, .arg = arg});
}

int iostream_read_bytes(struct iostream *s, size_t count, iostream_read_cb *callback, void *arg)
{
    return begin(s, (struct read_request){.kind = BYTES, .count = count, .callback = callback, .arg = arg});
}

int iostream_read_until(struct iostream *s, const void *delimiter, size_t length, size_t max_bytes, iostream_read_cb *callback, void *arg)
{
    if (length == 0) {
        errno = EINVAL;
        return -1;
    }
    char *copy = malloc(length);
    if (!copy)
        return -1;
    memcpy(copy, delimiter, length);
    size_t limit = max_bytes && max_bytes < s->max_buffer_bytes ? max_bytes : s->max_buffer_bytes;
    struct read_request request = {
        .kind = UNTIL, .count = limit, .delimiter = copy, .delimiter_length = length, .callback = callback, .arg = arg};
    if (begin(s, request) == 0)
        return 0;
    free(copy);
    return -1;
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

int iostream_read_cancel(struct iostream *s)
{
    if (s->read.kind == NO_READ || s->read.kind == RELAY) {
        errno = ENOENT;
        return -1;
    }
    free(s->read.delimiter);
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
    size_t room = s->read.kind == RELAY ? s->max_buffer_bytes : s->max_buffer_bytes + 1 - s->in.length; /* one over shows the limit */
    return room < size ? room : size;
}

static void take_piece(struct iostream *s, const char *bytes, size_t length)
{
    s->bytes_in += length;
    iostream_moved(s);
    if (s->dropping || s->read.kind == DISCARD)
        return;
    if (s->read.kind == RELAY) {
        relay_input(s, bytes, length);
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
    size_t size = piece_size(s);
    ssize_t n = spliced ? splice_take(s) : t->ops->read(t, s->engine->scratch, size);
    if (n <= 0) {
        take_nothing(s, n);
        return false;
    }
    s->read_want = EV_READ;
    if (relayed && !spliced)
        splice_notice(s, (size_t)n == size);
    if (!spliced)
        take_piece(s, s->engine->scratch, (size_t)n);
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
