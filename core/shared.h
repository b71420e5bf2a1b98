/* shared.h - what shared.c, peers.c, admission.c and process.c share. */
#ifndef HARK_SHARED_H
#define HARK_SHARED_H

#include <stdatomic.h>

#include "internal.h"

/* ---- shared.c: places and turns */

/* Of one worker, which alone writes it. */
struct shared_block {
    _Atomic unsigned held;       /* places: connections, and one about to be accepted */
    _Atomic unsigned resting;    /* servers that wait for a place */
    _Atomic uint64_t idle_since; /* when its last connection ended, in nanoseconds */
    _Atomic uint64_t counts[SHARED_COUNTS];
} __attribute__((aligned(64)));

struct shared {
    struct shared_options options;
    size_t size;              /* of the whole mapping */
    int wake_fd;              /* an eventfd, written when a place comes free while somebody rests; -1: there is one process */
    int end_fd, drain_fd;     /* eventfds, written by shared_end and shared_drain; -1: nobody else is to know */
    int memory_fd;            /* of this mapping, which is the last that can be written to; -1: nobody else is to read it */
    size_t live_at, annex_at; /* from the beginning of this: a reader has it elsewhere */
    _Atomic uint64_t last_id;
    _Atomic uint64_t next_turn;
    _Atomic uint64_t *turns; /* when each of max_rate turns was taken, in nanoseconds */
    struct peers *peers;
    struct shared_block blocks[];
};

/* The turn to accept that one connection takes, at most max_rate of them in any second. */
struct turn {
    uint64_t number, taken, before; /* before: what stood there */
};

int shared_task(const struct shared *); /* this process's block */
/* A place for one connection, before it is accepted. always: also beyond max_connections. */
bool shared_take_place(struct shared *, int task, bool always);
void shared_give_place(struct shared *, int task, bool served); /* served: it was a connection that came to its handler */
bool shared_count_accept(struct shared *, int task);            /* it comes there now; false: there were max_accepts before it */
bool shared_has_room(const struct shared *);                    /* enough of it to accept again after a rest */
bool shared_has_place(const struct shared *);                   /* for one */
void shared_set_resting(struct shared *, int task, bool);       /* true: wake_fd tells when there may be room; look once more then */
double shared_take_turn(struct shared *, struct turn *);        /* 0, or how many seconds it is too early */
void shared_give_turn(struct shared *, const struct turn *);
void shared_add(struct shared *, int task, enum shared_count, uint64_t);
void shared_worker_gone(struct shared *, int task); /* takes back what it held; in the parent */
unsigned resume_at(unsigned max);                   /* at how many connections to accept again, after max was reached */

/* ---- peers.c: how many connections there are from an IP address */

size_t peers_size(unsigned capacity);
int peers_init(struct peers *, unsigned capacity); /* -1 with errno */
unsigned peers_count(struct peers *, const struct sockaddr *);
/* limit: 0 = none. -1 with errno: EUSERS at the limit, ENOMEM: the table is full. Other addresses than of IP are not counted. */
int peers_add(struct peers *, int task, const struct sockaddr *, unsigned limit);
void peers_remove(struct peers *, int task, const struct sockaddr *);
void peers_forget(struct peers *, int task); /* all of a worker that has ended */

/* ---- live.c: what a process tells of its connections */

size_t live_size(unsigned streams);          /* of one process */
void live_forget(struct shared *, int task); /* it has ended */

/* ---- admission.c: whether a server may accept one more */

struct admission {
    struct shared *shared;
    int task;
    struct shared *own; /* made for this server alone, or NULL */
    bool always;        /* whoever waits is accepted, beyond all limits */
    bool resting;       /* no place or no turn: do not ask until `changed` */
    bool wants_place;   /* that is why */
    unsigned places;    /* taken, and not given back */
    struct turn turn;   /* of what was admitted last */
    struct engine *engine;
    ev_timer pause;                      /* until the next turn */
    struct hangup wake;                  /* on a duplicate of wake_fd */
    void (*changed)(struct admission *); /* resting is over */
};
int admission_init(struct admission *, struct shared *, struct errbuf *); /* shared NULL: one for this server alone */
int admission_share(struct admission *, int processes, struct errbuf *);  /* what was for this server alone is for so many now */
int admission_start(struct admission *, struct engine *, void (*changed)(struct admission *), struct errbuf *);
void admission_stop(
    struct admission *); /* all places are given back, nothing comes from it any more; then what it counts in may be freed */
void admission_force(struct admission *);             /* takes a place for one that is there already */
bool admission_ask(struct admission *);               /* before accept: takes a place and a turn; false: rest */
void admission_unused(struct admission *);            /* there was nothing to accept */
void admission_look(struct admission *);              /* a rest is over if there is a place for one */
void admission_over(struct admission *, bool served); /* the connection has ended, or was refused */

#endif
