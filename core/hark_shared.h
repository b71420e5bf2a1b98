/* hark_shared.h - the part of hark.h that is about a server of several processes: limits and counters over all of them. */
#ifndef HARK_SHARED_COUNTS_H
#define HARK_SHARED_COUNTS_H

#include <netinet/in.h>

#include "hark.h"

enum { CLOSE_REASONS = CLOSE_SHUTDOWN + 1, TIME_LIMITS = 14 };
enum shared_count {
    COUNT_ACCEPTS,  /* connections that came to handle_stream */
    COUNT_IN_ORDER, /* those among them that ended in order: CLOSE_EOF, CLOSE_FINISHED, or CLOSE_CHILD with status 0 */
    COUNT_BYTES_IN, /* of connections that have ended; tcpserver_publish adds what the living ones have moved */
    COUNT_BYTES_OUT,
    COUNT_RESTARTS,
    COUNT_REJECTS, /* + enum reject_reason */
    /* From here on only with shared_options.live. */
    COUNT_HANDSHAKES = COUNT_REJECTS + REJECT_REASONS, /* of TLS, that succeeded */
    COUNT_CHILDREN,                                    /* programs that got a connection */
    COUNT_SHORTAGES,                                   /* how often accepting had to rest for want of descriptors or memory */
    COUNT_MICROSECONDS,                                /* how long the connections that have ended had been accepted, in all */
    COUNT_CLOSES,                                      /* + enum close_reason: of those that came to handle_stream */
    COUNT_TIMES = COUNT_CLOSES + CLOSE_REASONS,        /* + the first of shared_time_limits that they did not outlast */
    SHARED_COUNTS = COUNT_TIMES + TIME_LIMITS
};
extern const double shared_time_limits[TIME_LIMITS]; /* seconds, rising; the last is INFINITY */
/* 0 = no limit. None is ever passed: a place is taken before a connection is accepted. Who waits for one waits in the backlog. */
struct shared_options {
    int processes;            /* as many as are forked; without forking 1 */
    bool supervised;          /* one that is forked, whose parent is to see the end: shared_end_fd is there with one process, too */
    unsigned max_connections; /* at the limit all listeners rest, until one has left; at 32 and more, some */
    unsigned max_per_ip;      /* further connections from that IP address are closed at once */
    unsigned max_rate;        /* accepts in any second */
    uint64_t max_accepts;     /* COUNT_ACCEPTS goes so far; the callers end then */
    unsigned live;      /* of how many connections a process tells in tcpserver_publish; 0: of none, and another program cannot read */
    size_t annex_bytes; /* of the callers' own, for shared_annex; zero at first */
};
struct shared *shared_new(const struct shared_options *, struct errbuf *); /* before the processes are forked */
void shared_free(struct shared *); /* once the servers that count in it are freed: even in a callback of theirs, right after that */
uint64_t shared_count(const struct shared *, int task, enum shared_count); /* task -1: the sum */
uint64_t shared_accepts(const struct shared *); /* COUNT_ACCEPTS of all, without those that will be taken back: it never goes down */
unsigned shared_connections(const struct shared *);
double shared_idle_seconds(const struct shared *); /* since the last connection ended, or the start; 0: there is one */
void *shared_annex(const struct shared *);
/* One process tells the others that the server is to end: from then on the descriptor (-1 with one process that is not supervised) is
 * readable for all. */
void shared_end(struct shared *);
int shared_end_fd(const struct shared *);
/* The same, and those who are there have a limited time, which is the callers' to set: another descriptor tells of that alone. */
void shared_drain(struct shared *);
int shared_drain_fd(const struct shared *);

/* ---- for another program, which only looks */

/* A connection, as it was when its process called tcpserver_publish last. */
struct live_stream {
    uint64_t id, bytes_in, bytes_out;
    double accepted_at; /* seconds of CLOCK_MONOTONIC */
    int task;
    bool open; /* it has come to handle_stream */
    union {
        struct sockaddr any; /* AF_INET, AF_INET6, AF_UNIX without its path, or AF_UNSPEC */
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } peer;
};
/* Tells of the server's newest connections, and counts the bytes that the living have moved: in the process that serves them, now and
 * then. What it costs grows with the number of connections. Nothing without shared_options.live. */
void tcpserver_publish(struct tcpserver *);
int shared_memory_fd(const struct shared *); /* for shared_open: nothing can be written through it */
/* In a program that has got that descriptor: counts, connections, idle seconds, annex and live streams can be asked for. NULL: it is none. */
const struct shared *shared_open(int fd, struct errbuf *);
/* The newest of all processes, the newest first; returns how many. */
unsigned shared_live_streams(const struct shared *, struct live_stream *, unsigned max);

/* ---- helpers: processes beside the workers, which serve nobody (fork_options.helpers)
 *
 * fork_processes returns the task ids behind the workers' in them. They are waited for before `ready`, and restarted for as long as a
 * worker is left, which counts nowhere; no signal is passed on to them, and how they end does not matter. Once no worker is left,
 * fork_helper_fd reads as ended; they have 5 s then to end by themselves. */
int fork_helper_fd(void);                 /* in a helper; also open in the program that it executes */
void fork_helper_ready(int fd, int task); /* as fork_ready, in that program too */

#endif
