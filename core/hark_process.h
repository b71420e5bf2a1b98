/* hark_process.h - the part of hark.h that is about worker processes, and their parent. */
#ifndef HARK_PROCESS_H
#define HARK_PROCESS_H

#include "hark.h"

struct fork_options {
    int max_restarts;         /* of workers that crashed, over all; then the rest is ended and exit status is 1 */
    void (*ready)(void *arg); /* in the parent, once every worker has called fork_ready; may be NULL */
    void (*restart)(void *arg, int task, int status, double delay_seconds); /* wait(2) status; may be NULL */
    void (*ended)(void *arg, int task);       /* in the parent: a worker has, however that came about; may be NULL */
    void (*give_up)(void *arg, int restarts); /* may be NULL */
    int (*counts_as)(void *arg, int signal);  /* the signal that one is treated and passed on as, 0: none; may be NULL: as it is */
    void (*stopping)(void *arg);              /* a signal ends the server, before it is passed on, or shared_end; may be NULL */
    struct shared *shared;                    /* what a worker held is given back when it ends; may be NULL */
    void (*tick)(void *arg);                  /* every tick_seconds, unless that is 0 */
    double tick_seconds;
    bool hands_out; /* fork_hand_out will be called */
    /* After fork_hand_out: each worker has taken all it was given, but for the `late` that have not within taken_seconds; may be NULL. */
    void (*taken)(void *arg, int late);
    double taken_seconds;
    int helpers; /* how many processes beside the workers: hark_shared.h */
    void *arg;
};
/* Forks processes workers (0: one a CPU this process may use) and returns the task id, 0 .. n-1, in each. The parent stays inside
 * until none is left: restarts those that end with a status other than 0 or by a signal, after a growing delay; passes TERM, INT, QUIT,
 * HUP, USR1 and USR2 on, unless ignored; reaps what is not its own (as pid 1 has to). After TERM, INT or QUIT nothing is restarted.
 * Then it returns -1 and *exit_status: 130 (128 + SIGINT) after INT, of which the caller then dies; else 0 when all ended with 0, or,
 * after TERM or QUIT, by such a signal; else 1. errno is 0, or says why the workers could not be started (then status 1; EINVAL in a
 * worker). A worker has the caller's signal mask (block signals for as long as their handlers are missing) and gets SIGTERM when the
 * parent dies. Make loops after this call. options may be NULL: 100 restarts. */
int fork_processes(int processes, const struct fork_options *, int *exit_status);
void fork_ready(void); /* in a worker: it serves now; nothing elsewhere */

/* A parent that can do what its workers cannot (open a file) does it for them. */
enum { FORK_KINDS = 4 };
/* In the parent, from a callback of fork_options: every worker that runs gets the descriptor, which is taken over. Of those of a kind
 * (0 .. FORK_KINDS-1) that a slow worker has yet to be sent, it gets the latest only. Workers that are started later have what the parent
 * has. fd -1: nothing, but `taken` will be called. */
void fork_hand_out(int kind, int fd);
/* In a worker: readable when there is something to take; -1: nothing will ever be. The process's, not to be closed. */
int fork_inbox(void);
/* The next one, which is the caller's; -1 with EAGAIN: none is left. The call after it tells the parent that it was taken. */
int fork_take(int *kind);
int task_id(void);   /* this worker's, or -1 */
int cpu_count(void); /* CPUs this process may run on */

#endif
