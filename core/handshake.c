/* handshake.c - from a connection to a stream that is ready to talk. */
#include <errno.h>

#include "internal.h"

/* A handshake costs what hundreds of messages do. Who is connected already waits for a few of them at most in one turn of the loop:
 * epoll reports the others again. */
enum { HANDSHAKES_A_TURN = 8 };

static bool is_their_turn(struct engine *engine)
{
    unsigned turn = ev_iteration(engine->loop);
    if (engine->turn != turn)
        engine->handshakes = 0;
    engine->turn = turn;
    return engine->handshakes++ < HANDSHAKES_A_TURN;
}

static void open_now(struct iostream *s)
{
    struct handler_slot slot = s->on_open;
    s->handshaking = false;
    s->on_open = (struct handler_slot){0};
    if (s->dropping) /* closed meanwhile: what is queued goes out, within the time that was set for it */
        return;
    if (s->limits)
        timeout_stop(&s->limits->linger);
    slot.callback(s, slot.arg);
    if (s->reason == CLOSE_NONE)
        relay_resume(s);
}

void handshake_go_on(struct iostream *s)
{
    if (!is_their_turn(s->engine))
        return;
    int result = s->transport->ops->handshake(s->transport);
    if (result == TRANSPORT_ERROR) {
        s->engine->handshakes--; /* it has cost little: junk and resets need not wait for each other */
        iostream_fail_io(s, errno);
    } else if (result == 0) {
        open_now(s);
    } else {
        s->handshake_want = result == TRANSPORT_WANT_WRITE ? EV_WRITE : EV_READ;
    }
}

static void on_too_late(struct timeout *t)
{
    iostream_fail(container_of(t, struct time_limits, linger)->stream, CLOSE_TIMEOUT, ETIMEDOUT);
}

int handshake_start(struct iostream *s, int want, double seconds, iostream_cb *on_open, void *arg)
{
    s->on_open = (struct handler_slot){on_open, arg};
    s->handshaking = true;
    s->handshake_want = (unsigned char)want;
    if (seconds > 0 && linger_start(s, seconds, on_too_late) != 0)
        return -1;
    iostream_update(s);
    return 0;
}

void iostream_start(struct iostream *s, double seconds, iostream_cb *on_open, void *arg)
{
    if (!s->transport->ops->handshake)
        on_open(s, arg);
    else if (handshake_start(s, EV_READ, seconds, on_open, arg) != 0)
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
}

int iostream_start_tls(struct iostream *s, struct tls_context *context, const char *name, double seconds, iostream_cb *on_open, void *arg)
{
    if (s->reason != CLOSE_NONE || s->dropping || s->in_ended || s->out_state != OUT_OPEN) {
        errno = EPIPE;
        return -1;
    }
    /* What came in the clear must not be taken for what comes after (CVE-2011-0411). */
    if (s->read.kind != NO_READ || s->relay_from || s->lent || s->transport->ops->handshake || buffer_length(&s->in) > 0 ||
        buffer_length(&s->out) > 0) {
        errno = EBUSY;
        return -1;
    }
    struct transport *plain = s->transport;
    struct transport *secure = transport_tls_new(plain, context, name);
    if (!secure)
        return -1;
    plain->ops->watch(plain, 0);
    s->watching = 0;
    s->transport = secure;
    secure->owner = s;
    bool speaks_first = tls_is_client(context);
    if (handshake_start(s, speaks_first ? EV_WRITE : EV_READ, seconds, on_open, arg) == 0)
        return 0;
    iostream_fail(s, CLOSE_ERROR, ENOMEM);
    return -1;
}
