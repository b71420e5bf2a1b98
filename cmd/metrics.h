/* metrics.h - the process that answers at --metrics.
 *
 * It is a helper of the supervisor (hark_shared.h), and runs this program anew: whatever memory a fork would give it, private keys among
 * it, is left behind, and so is every descriptor but its listening sockets and the shared memory, which it cannot write to. */
#ifndef HARK_METRICS_H
#define HARK_METRICS_H

#include "board.h"

#define METRICS_NAME "hark: metrics" /* argv[0] of that process: main goes to metrics_main then */

struct metrics {
    struct listeners listeners;
    int program_fd; /* this very program, whatever is at its path by now; -1: there are no metrics */
};

/* Nothing without --metrics. All of the service's sockets are still to be opened then. */
int metrics_open(struct metrics *, const struct settings *, struct errbuf *);
int metrics_check(const struct settings *, struct errbuf *); /* the `metrics` line, binding nothing */
void metrics_log(const struct metrics *);
void metrics_close(struct metrics *); /* in workers, and at the end */
void metrics_unlink(const struct metrics *);

/* In the helper: returns its exit status, if it cannot begin. */
int metrics_execute(const struct metrics *, const struct shared *, int task);
int metrics_main(char **arguments);

/* ---- what it says ---- */

struct metrics_source {
    const struct shared *shared;
    const struct board *board;
    double now; /* CLOCK_MONOTONIC */
};
/* The caller frees it; NULL: ENOMEM. */
char *metrics_text(const struct metrics_source *, size_t *length); /* Prometheus' text format 0.0.4 */
char *metrics_json(const struct metrics_source *, size_t *length);

extern const char metrics_page[], metrics_page_end[]; /* status.html */

#endif
