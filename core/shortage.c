/* shortage.c - descriptors, memory or processes do not suffice for a connection: it waits, and so do all that come after it.
 *
 * Who has been accepted is not sent away for that. As long as one waits, and for some time after, its server is short: what fails then
 * is no news. */
#include <errno.h>

#include "tcpserver.h"

static const double FIRST_SECONDS = 0.05, LONGEST_SECONDS = 1;

bool is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == EAGAIN;
}

void tcpserver_tell_exhausted(struct tcpserver *server, int error)
{
    struct listener *listener;
    tcpserver_enter(server);
    LIST_FOREACH (listener, &server->listeners, entry) {
        if (listener->handler)
            accept_handler_exhausted(listener->handler, error);
    }
    tcpserver_leave(server);
}

/* All of them, since one may want less than another. None leaves the list before the engine is left. */
static void try_those_waiting(struct tcpserver *server)
{
    struct iostream *s;
    LIST_FOREACH (s, &server->streams, server_entry) {
        struct handler_slot again = s->on_open;
        if (!s->waiting)
            continue;
        s->waiting = false;
        server->waiting--;
        if (s->reason == CLOSE_NONE)
            again.callback(s, again.arg);
    }
    tcpserver_look(server);
}

static void on_again_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)events;
    struct tcpserver *server = container_of(timer, struct tcpserver, again_timer);
    struct engine *engine = server->engine;
    if (!server->waiting) {
        ev_timer_stop(loop, timer);
        return;
    }
    timer->repeat = timer->repeat < LONGEST_SECONDS / 2 ? timer->repeat * 2 : LONGEST_SECONDS;
    ev_timer_again(loop, timer);
    engine_enter(engine);
    tcpserver_enter(server);
    try_those_waiting(server);
    tcpserver_leave(server);
    engine_leave(engine);
}

void tcpserver_init_again(struct tcpserver *server)
{
    ev_init(&server->again_timer, on_again_timer);
}

void tcpserver_again_soon(struct tcpserver *server)
{
    if (!server->waiting)
        return;
    server->again_timer.repeat = FIRST_SECONDS / 2; /* it will be doubled */
    ev_feed_event(server->loop, &server->again_timer, EV_TIMER);
}

void iostream_try_again(struct iostream *s, int error, iostream_cb *again, void *arg)
{
    struct tcpserver *server = s->server;
    if (!server) {
        iostream_fail(s, CLOSE_ERROR, error);
        return;
    }
    s->on_open = (struct handler_slot){again, arg};
    server->waiting += !s->waiting;
    s->waiting = true;
    tcpserver_look(server);
    if (ev_is_active(&server->again_timer))
        return;
    server->again_timer.repeat = FIRST_SECONDS;
    ev_timer_again(server->loop, &server->again_timer);
    tcpserver_tell_exhausted(server, error);
}
