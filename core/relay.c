/* relay.c - the pump: what one stream reads is written to another, or to itself. */
#include <errno.h>

#include "internal.h"

void relay_unlink(struct iostream *from)
{
    from->relay_to->relay_from = NULL;
    from->relay_to = NULL;
    from->read = (struct read_request){0};
}

void relay_input(struct iostream *from, const char *bytes, size_t length)
{
    struct iostream *to = from->relay_to;
    write_bytes(to, bytes, length);
    if (buffer_length(&to->out) > 0)
        iostream_update(to); /* and `from` waits: read_wanted */
}

void relay_starve(struct iostream *to)
{
    struct iostream *from = to->relay_from;
    if (!from)
        return;
    relay_unlink(from);
    read_discard(from);
    iostream_update(from);
}

void relay_eof(struct iostream *from)
{
    struct iostream *to = from->relay_to;
    relay_unlink(from);
    iostream_finish(to);
}

void relay_resume(struct iostream *to)
{
    struct iostream *from = to->relay_from;
    if (!from || !read_wanted(from))
        return;
    read_take(from);
    iostream_update(from);
}

/* s ends or closes. What that means for the stream at the other end of its relays: if s had still to send there, that direction is cut
 * off, which only a reset can say. If s had ended that direction in order, what it sent is delivered first. */
void relay_break(struct iostream *s)
{
    enum close_reason reason = s->reason == CLOSE_TLS ? CLOSE_RESET : s->reason; /* it was not theirs that failed */
    struct iostream *to = s->relay_to, *from = s->relay_from;
    if (to)
        relay_unlink(s);
    if (from && from != s)
        relay_unlink(from);
    bool closing = reason == CLOSE_NONE || reason == CLOSE_EOF || reason == CLOSE_FINISHED;
    if (to && to != s) {
        if (closing)
            iostream_close(to);
        else if (!to->is_socket)
            iostream_hang_up(to, reason); /* a pipe or file cannot be reset; what came before is worth having */
        else
            iostream_fail(to, reason, s->error);
    }
    if (from && from != s && from != to) {
        if (closing)
            iostream_close(from);
        else if (from->out_state == OUT_OPEN) /* joined one way only: its own output was not s's to end */
            iostream_fail(from, reason, s->error);
        else
            iostream_hang_up(from, reason);
    }
}

int iostream_relay(struct iostream *from, struct iostream *to)
{
    if (from->reason != CLOSE_NONE || to->reason != CLOSE_NONE || from->dropping || to->out_state != OUT_OPEN) {
        errno = EPIPE;
        return -1;
    }
    if (from->read.kind != NO_READ || to->relay_from) {
        errno = EBUSY;
        return -1;
    }
    from->read.kind = RELAY;
    from->relay_to = to;
    to->relay_from = from;
    if (buffer_length(&from->in) > 0) {
        struct buffer ahead = from->in;
        from->in = (struct buffer){0};
        relay_input(from, buffer_bytes(&ahead), buffer_length(&ahead));
        buffer_release(&ahead);
    }
    if (from->in_ended) {
        if (from->relay_to)
            relay_eof(from);
        engine_defer(from->engine, &from->deferred); /* tells on_eof, and settles */
    }
    engine_defer(to->engine, &to->deferred); /* not at once: a relay back may follow, and save watching it for a reset */
    iostream_update(from);
    return 0;
}
