/* workers.h - what the tests of fork_processes share.
 *
 * The test itself is the parent in most cases, since fork_processes returns to it when all is over. What its workers do is written in
 * a script, see `play`; what they have to report goes to shared memory. Signals come from callbacks: these run in the parent where
 * signals are blocked, at a known moment. fork and clock_gettime are bent: such a test is linked with --wrap. */
#ifndef TEST_WORKERS_H
#define TEST_WORKERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <cmocka.h>

#include "../../core/hark.h"
#include "valgrind.h"

enum { MAX_TASKS = 3, MAX_LIVES = 128, SAFETY_SECONDS = 30 };

struct task {
    int lives;
    pid_t pids[MAX_LIVES];
    bool marked;
};

/* Between the test and all its workers. */
struct shared {
    struct task tasks[MAX_TASKS];
    int seconds_ahead; /* of the clock */
};
extern struct shared *shared;

/* What the callbacks were told. */
extern struct told {
    int ready, fds_when_ready, stopping, restarts, give_up, given_up_after;
    int tasks[MAX_LIVES], statuses[MAX_LIVES], ends[MAX_TASKS];
    double delays[MAX_LIVES];
} told;

#define TEST(name) static void name(void **state __attribute__((unused)))
int set_up_workers(void **);
int run_process_tests(const struct CMUnitTest *, size_t count);

extern int forks_before_failure; /* -1: none fails */
extern int forks_that_outlast_the_child;
extern void (*in_child)(void);
extern int signals_when_ready[3], signal_at_restart; /* to the parent */
extern pid_t parent;

/* Callbacks that note what they are told; those of max_restarts skip the delay of a restart. */
void on_ready(void *arg);
void on_restart(void *arg, int task, int status, double delay_seconds);
void on_ended(void *arg, int task);
struct fork_options max_restarts(int count);

/* Runs workers whose exit status is what `work` returns. Returns the parent's. */
int run(int processes, const struct fork_options *, int (*work)(void));
/* Runs one worker, or helper, for each script that is not NULL. A script has a word for each life of a worker, the last one for all further lives
 * too; a word has a letter for each action, see workers.c. */
int play(const struct fork_options *, const char *task_0, const char *task_1, const char *task_2);
extern const char *scripts[MAX_TASKS];
int follow_script(void);
int act(const char *actions);

int count_fds(int flags); /* how many descriptors have these flags: FD_CLOEXEC or 0 */
void block(int signal);
void await(int signal); /* it has to be blocked */
double monotonic_seconds(void);

#endif
