/* hark_shared.h - the part of hark.h that is about a server of several processes: limits and counters over all of them. */
#ifndef HARK_SHARED_COUNTS_H
#define HARK_SHARED_COUNTS_H

#include "hark.h"

enum shared_count {
    COUNT_ACCEPTS,  /* connections that came to handle_stream */
    COUNT_IN_ORDER, /* those among them that ended in order: CLOSE_EOF, CLOSE_FINISHED, or CLOSE_CHILD with status 0 */
    COUNT_BYTES_IN, /* of connections that have ended */
    COUNT_BYTES_OUT,
    COUNT_RESTARTS,
    COUNT_REJECTS, /* + enum reject_reason */
    SHARED_COUNTS = COUNT_REJECTS + REJECT_REASONS
};
/* 0 = no limit. None is ever passed: a place is taken before a connection is accepted. Who waits for one waits in the backlog. */
struct shared_options {
    int processes;            /* as many as are forked; without forking 1 */
    bool supervised;          /* one that is forked, whose parent is to see the end: shared_end_fd is there with one process, too */
    unsigned max_connections; /* at the limit all listeners rest, until one has left; at 32 and more, some */
    unsigned max_per_ip;      /* further connections from that IP address are closed at once */
    unsigned max_rate;        /* accepts in any second */
    uint64_t max_accepts;     /* COUNT_ACCEPTS goes so far; the callers end then */
};
struct shared *shared_new(const struct shared_options *, struct errbuf *); /* before the processes are forked */
void shared_free(struct shared *);
uint64_t shared_count(const struct shared *, int task, enum shared_count); /* task -1: the sum */
unsigned shared_connections(const struct shared *);
double shared_idle_seconds(const struct shared *); /* since the last connection ended, or the start; 0: there is one */
/* One process tells the others that the server is to end: from then on the descriptor (-1 with one process that is not supervised) is readable for all. */
void shared_end(struct shared *);
int shared_end_fd(const struct shared *);

#endif
