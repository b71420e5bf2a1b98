/* board.h - what the metrics process has to know beside the counts, in memory that all processes share (shared_annex): what was set at
 * start, and what the workers find out about targets. */
#ifndef HARK_BOARD_H
#define HARK_BOARD_H

#include "listen.h"

enum { BOARD_TEXT = 256, BOARD_LISTENERS = 32, BOARD_ROWS = 1000 /* connections shown, of each process */ };

/* One target as one process sees it, which alone writes it. */
struct board_view {
    _Atomic uint64_t failures; /* how often it was found to be down */
    _Atomic double retry_at;   /* when it is tried again, on CLOCK_MONOTONIC; 0: it is up */
    _Atomic unsigned connections;
};

struct board {
    char handler[BOARD_TEXT];
    char host[BOARD_TEXT]; /* that --metrics names; "": a unix socket */
    char listeners[BOARD_LISTENERS][ADDRESS_TEXT];
    int listener_count, processes;
    double started_at;        /* seconds since 1970 */
    unsigned max_connections; /* over all processes; 0 = no limit, here and below */
    unsigned max_per_ip, max_rate;
    uint64_t max_accepts;
    double timers[IOSTREAM_TIMERS], drain_timeout;
    bool tls, json, quiet, sandbox;
    int target_count;
    _Alignas(8) char targets[]; /* target_count names of BOARD_TEXT bytes, then as many views for each process */
};

size_t board_size(const struct settings *);
/* Before the fork. */
void board_fill(struct board *, const struct settings *, const struct listeners *, int processes, unsigned max_connections);

/* In a worker. */
void board_set_target(struct board *, int task, const char *name, double retry_at);
void board_set_connections(struct board *, int task, unsigned target, unsigned connections);
void board_forget(struct board *, int task); /* in the supervisor: it has ended, and the next one has seen nothing yet */

const char *board_target(const struct board *, int target);
/* Seconds until a process that passes it over tries it again; 0: the next client does; INFINITY: it is up for all. */
double board_target_retry(const struct board *, int target, double now);
unsigned board_target_connections(const struct board *, int target);
uint64_t board_target_failures(const struct board *, int target);

#endif
