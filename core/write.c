/* write.c - what is written to a stream: at once if the kernel takes it, else from a queue. */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

bool write_wanted(const struct iostream *s)
{
    return !s->lent && (buffer_length(&s->out) > 0 || s->piped || s->out_state == OUT_FINISHING);
}

void write_moved(struct iostream *s, size_t bytes)
{
    s->bytes_out += bytes;
    iostream_moved(s);
    if (is_lingering(s) && s->out_state != OUT_ENDED)
        timeout_restart(&s->limits->linger);
}

/* Hands bytes to the transport; returns how many it took. */
static size_t push(struct iostream *s, const char *bytes, size_t length)
{
    size_t done = 0;
    while (done < length) {
        ssize_t n = s->transport->ops->write(s->transport, bytes + done, length - done);
        if (n == TRANSPORT_ERROR) {
            if (errno == EPIPE && s->write_may_end)
                write_abandon(s);
            else
                iostream_fail_io(s, errno);
            break;
        }
        s->write_want = n == TRANSPORT_WANT_READ ? EV_READ : EV_WRITE;
        if (n < 0)
            break;
        done += (size_t)n;
        if (s->is_socket && !s->transport->ops->handshake && done < length)
            break; /* a short write: the kernel is full, and asking again would only say so */
    }
    if (done > 0)
        write_moved(s, done);
    return done;
}

void write_bytes(struct iostream *s, const void *bytes, size_t length)
{
    size_t done = buffer_length(&s->out) == 0 && !s->handshaking ? push(s, bytes, length) : 0;
    if (s->reason != CLOSE_NONE || s->out_state == OUT_ENDED || done == length)
        return;
    if (buffer_append(&s->out, (const char *)bytes + done, length - done) != 0)
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
}

static void end_direction(struct iostream *s)
{
    if (s->out_state != OUT_FINISHING || buffer_length(&s->out) > 0 || s->piped || s->handshaking)
        return;
    bool last = !s->child && s->in_ended && (s->dropping || (buffer_length(&s->in) == 0 && (s->eof_told || !s->on_eof.callback)));
    int result = s->transport->ops->shutdown(s->transport, last);
    if (result == TRANSPORT_ERROR && s->in_ended && (s->is_socket || !s->dropping))
        result = 0; /* who has said that it is over need not stay to hear it said */
    if (result == TRANSPORT_ERROR) {
        iostream_fail_io(s, errno);
        return;
    }
    s->write_want = result == TRANSPORT_WANT_READ ? EV_READ : EV_WRITE;
    if (result < 0)
        return;
    s->out_state = OUT_ENDED;
    s->out_first = !s->in_ended;
    iostream_direction_ended(s);
    if (s->dropping && is_lingering(s))
        iostream_flushed(s);
    iostream_settle(s);
}

void write_abandon(struct iostream *s)
{
    if (s->reason != CLOSE_NONE || s->out_state == OUT_ENDED)
        return;
    buffer_release(&s->out);
    splice_drop(s);
    s->transport->ops->shutdown(s->transport, false);
    s->out_state = OUT_ENDED;
    s->out_first = !s->in_ended;
    relay_starve(s);
    iostream_settle(s);
}

void write_flush(struct iostream *s)
{
    if (s->piped && !splice_flush(s))
        return;
    if (buffer_length(&s->out) > 0) {
        size_t done = push(s, buffer_bytes(&s->out), buffer_length(&s->out));
        if (s->reason != CLOSE_NONE || s->out_state == OUT_ENDED)
            return;
        buffer_consume(&s->out, done);
        if (s->last_mark)
            engine_defer(s->engine, &s->deferred);
        if (buffer_length(&s->out) > 0)
            return;
    }
    end_direction(s);
    if (s->reason == CLOSE_NONE)
        relay_resume(s);
}

static void add_mark(struct iostream *s, struct write_mark *mark)
{
    struct write_mark *last = s->last_mark;
    mark->next = last ? last->next : mark;
    if (last)
        last->next = mark;
    s->last_mark = mark;
}

static struct write_mark *remove_first_mark(struct iostream *s)
{
    struct write_mark *last = s->last_mark, *first = last->next;
    last->next = first->next;
    if (first == last)
        s->last_mark = NULL;
    return first;
}

static bool is_done(const struct iostream *s, const struct write_mark *mark)
{
    return mark->position <= s->bytes_out || s->reason != CLOSE_NONE;
}

static unsigned count_done(const struct iostream *s)
{
    const struct write_mark *mark = s->last_mark;
    unsigned count = 0;
    while (mark && is_done(s, mark->next)) {
        count++;
        mark = mark->next == s->last_mark ? NULL : mark->next;
    }
    return count;
}

void write_complete(struct iostream *s)
{
    /* Counted first: a callback may write again, and that has to wait for its turn. */
    for (unsigned due = count_done(s); due > 0; due--) {
        struct write_mark *mark = remove_first_mark(s);
        int error = mark->position <= s->bytes_out ? 0 : s->error ? s->error : EPIPE;
        mark->callback(s, mark->arg, error);
        free(mark);
    }
}

int iostream_write(struct iostream *s, const void *data, size_t length, iostream_write_cb *callback, void *arg)
{
    if (s->reason != CLOSE_NONE || s->out_state != OUT_OPEN || s->relay_from) {
        errno = EPIPE;
        return -1;
    }
    if (length > s->max_buffer_bytes || buffer_length(&s->out) > s->max_buffer_bytes - length) {
        errno = ENOBUFS;
        return -1;
    }
    if (s->limits)
        engine_catch_up(s->engine);
    struct write_mark *mark = NULL;
    if (callback) {
        mark = malloc(sizeof *mark);
        if (!mark)
            return -1;
        *mark = (struct write_mark){.position = s->bytes_out + buffer_length(&s->out) + length, .callback = callback, .arg = arg};
        add_mark(s, mark);
    }
    write_bytes(s, data, length);
    if (mark)
        engine_defer(s->engine, &s->deferred);
    iostream_update(s);
    return 0;
}

size_t iostream_write_pending(const struct iostream *s)
{
    return buffer_length(&s->out) + splice_pending(s);
}

void iostream_finish(struct iostream *s)
{
    if (s->reason != CLOSE_NONE || s->out_state != OUT_OPEN || (s->lent && s->child))
        return;
    s->out_state = OUT_FINISHING;
    relay_starve(s);
    end_direction(s);
    iostream_update(s);
}
