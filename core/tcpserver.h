/* tcpserver.h - what tcpserver.c and start.c share. */
#ifndef HARK_TCPSERVER_H
#define HARK_TCPSERVER_H

#include "shared.h"

struct listener {
    LIST_ENTRY(listener) entry;
    struct tcpserver *server;
    int fd;
    struct accept_handler *handler; /* NULL: bound, not started; or closed */
    struct listener *next_closed;
};

LIST_HEAD(listener_list, listener);
LIST_HEAD(stream_list, iostream);

struct bytes {
    uint64_t in, out;
};

struct tcpserver {
    struct ev_loop *loop;
    bool own_loop;
    bool resting; /* the listeners are paused */
    struct admission admission;
    ev_timer drain_timer, look_timer, again_timer;
    double drain_until;         /* by engine_now */
    bool draining, drain_again; /* a drain is on the stack; a callback in it wants another, so it begins anew */
    struct engine *engine;
    handle_stream_cb *handle_stream;
    void *arg;
    struct tcpserver_options options;
    struct listener_list listeners;
    struct listener *closed; /* to be freed when no callback runs */
    struct stream_list streams;
    unsigned connections, handshakes; /* handshakes: how many of the connections are not open yet */
    unsigned waiting;                 /* iostream_try_again: how many of the connections */
    struct bytes ended, counted;      /* of streams that have ended; what of all was added to the shared counts */
    struct deferred deferred;         /* tells that it is empty */
    unsigned busy;                    /* how many of our functions that run callbacks are on the stack */
    bool freed;                       /* to go when no longer busy */
};

int tcpserver_set_loop(struct tcpserver *, struct ev_loop *, struct errbuf *);
/* What the streams have moved until now; living: since they were looked at. The counts never go back. */
void tcpserver_count_bytes(struct tcpserver *, const struct bytes *living);
int tcpserver_accept_from(struct listener *, struct errbuf *);
/* Every function that runs callbacks stands between these two: the server may be freed by one. */
void tcpserver_enter(struct tcpserver *);
void tcpserver_leave(struct tcpserver *);
void tcpserver_look(struct tcpserver *); /* listeners rest, or go on, as things are now */

/* ---- shortage.c */

void tcpserver_tell_exhausted(struct tcpserver *, int error); /* accepting rests for a while */
void tcpserver_init_again(struct tcpserver *);
void tcpserver_again_soon(struct tcpserver *); /* a stream has ended: there may be enough for those that wait */

#endif
