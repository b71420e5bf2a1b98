/* limits.c - for how long a stream may be idle, half-closed, alive, or on its way out. Many streams have no such limit, so what it takes
 * is made with the first one. */
#include <errno.h>
#include <linux/tcp.h>
#include <math.h>
#include <stdlib.h>

#include "internal.h"

static struct time_limits *limits_of(struct iostream *s)
{
    if (!s->limits && (s->limits = calloc(1, sizeof *s->limits)))
        s->limits->stream = s;
    return s->limits;
}

/* ---- idle and half-closed time ---- */

static __attribute__((noinline)) void restart_timers(struct iostream *s, double now)
{
    struct time_limits *l = s->limits;
    l->moved_at = now;
    for (int which = TIMER_IDLE; which <= TIMER_HALF_CLOSE; which++)
        if (l->timers[which].list)
            iostream_set_timer(s, (enum iostream_timer)which, l->seconds[which]);
    l->moved_until = s->moved_step > 0 ? now + s->moved_step : HUGE_VAL; /* none of them is there */
}

/* The timers are moved only when some of their time has gone by; they look at the bytes before they strike. */
void time_limits_moved(struct time_limits *l, struct engine *engine)
{
    l->moved_event = engine->event;
    double now = ev_now(engine->loop);
    if (now >= l->moved_until || now < l->moved_at)
        restart_timers(l->stream, now);
}

/* How long a lent socket has been idle; a child reads and writes it unseen. */
static double lent_idle_seconds(const struct iostream *s)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(s->transport->read_fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return HUGE_VAL;
    uint32_t idle = info.tcpi_last_data_recv < info.tcpi_last_data_sent ? info.tcpi_last_data_recv : info.tcpi_last_data_sent;
    return idle / 1000.0;
}

/* How much longer to wait, since bytes have moved; of a lent socket the kernel knows. 0: none, the limit is reached. */
static double time_left(struct iostream *s, enum iostream_timer which, double lent_seconds)
{
    double limit = s->limits->seconds[which];
    uint64_t bytes = s->bytes_in + s->bytes_out;
    bool moved = bytes != s->limits->moved_bytes[which];
    s->limits->moved_bytes[which] = bytes;
    if (s->lent) /* looked at ten times as often: one more list of timeouts, not many */
        return lent_seconds >= limit ? 0 : limit / 10;
    return moved ? s->moved_step : 0;
}

static void on_idle_timer(struct timeout *t)
{
    struct iostream *s = container_of(t, struct time_limits, timers[TIMER_IDLE])->stream;
    double left = time_left(s, TIMER_IDLE, s->lent ? lent_idle_seconds(s) : 0);
    if (left <= 0 || timeout_start(s->engine, t, left, on_idle_timer) != 0)
        iostream_fail(s, CLOSE_TIMEOUT, 0);
}

/* For how long one direction of a lent socket has ended and nothing moved; 0: both are open, or both have ended. The kernel does not
 * tell since when, so it counts from when we see it. */
static double lent_half_closed_seconds(struct iostream *s)
{
    double *at = &s->limits->half_closed_at;
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (getsockopt(s->transport->read_fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0)
        return 0;
    if (info.tcpi_state != CLOSE_WAIT && info.tcpi_state != FIN_WAIT1 && info.tcpi_state != FIN_WAIT2)
        return 0;
    if (*at <= 0)
        *at = engine_now(s->engine);
    double idle = lent_idle_seconds(s), since = engine_now(s->engine) - *at;
    return idle < since ? idle : since;
}

static void on_half_close_timer(struct timeout *t)
{
    struct iostream *s = container_of(t, struct time_limits, timers[TIMER_HALF_CLOSE])->stream;
    double left = time_left(s, TIMER_HALF_CLOSE, s->lent ? lent_half_closed_seconds(s) : 0);
    if (left <= 0 || timeout_start(s->engine, t, left, on_half_close_timer) != 0)
        iostream_fail(s, CLOSE_TIMEOUT, 0);
}

void iostream_direction_ended(struct iostream *s)
{
    if (s->limits && iostream_set_timer(s, TIMER_HALF_CLOSE, s->limits->seconds[TIMER_HALF_CLOSE]) != 0)
        iostream_fail(s, CLOSE_ERROR, ENOMEM);
}

/* ---- all of them ---- */

static void on_lifetime_timer(struct timeout *t)
{
    iostream_fail(container_of(t, struct time_limits, timers[TIMER_LIFETIME])->stream, CLOSE_TIMEOUT, 0);
}

/* How exact the two are: a 64th of the shorter one. */
static float moved_step(float a, float b)
{
    return (a > 0 && (b <= 0 || a < b) ? a : b) / 64;
}

int iostream_set_timer(struct iostream *s, enum iostream_timer which, double seconds)
{
    static timeout_cb *const callbacks[] = {on_idle_timer, on_half_close_timer, on_lifetime_timer};
    if (!s->limits && seconds <= 0)
        return 0;
    struct time_limits *l = limits_of(s);
    if (!l)
        return -1;
    timeout_stop(&l->timers[which]);
    l->seconds[which] = (float)seconds;
    s->moved_step = moved_step(l->seconds[TIMER_IDLE], l->seconds[TIMER_HALF_CLOSE]);
    l->moved_until = 0; /* which may be sooner now */
    l->moved_bytes[which] = s->bytes_in + s->bytes_out;
    if (seconds <= 0 || s->reason != CLOSE_NONE)
        return 0;
    if (which == TIMER_HALF_CLOSE && s->lent)
        return timeout_start(s->engine, &l->timers[which], l->seconds[which] / 10, callbacks[which]);
    if (which == TIMER_HALF_CLOSE && s->in_ended == (s->out_state == OUT_ENDED))
        return 0; /* begins when one direction ends */
    return timeout_start(s->engine, &l->timers[which], l->seconds[which], callbacks[which]);
}

int linger_start(struct iostream *s, double seconds, timeout_cb *too_late)
{
    struct time_limits *l = limits_of(s);
    return l ? timeout_start(s->engine, &l->linger, seconds, too_late) : -1;
}

void time_limits_stop(struct iostream *s, bool all)
{
    if (!s->limits)
        return;
    timeout_stop(&s->limits->timers[TIMER_IDLE]);
    timeout_stop(&s->limits->timers[TIMER_HALF_CLOSE]);
    if (!all)
        return;
    timeout_stop(&s->limits->timers[TIMER_LIFETIME]);
    timeout_stop(&s->limits->linger);
}
