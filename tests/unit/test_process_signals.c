/* fork_processes: signals, the parent's death, and the parent as pid 1. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workers.h"

/* ---- signals */

TEST(signals_end_all_workers)
{
    static const struct {
        int signals[3];
        bool blocked; /* in the workers, which have the caller's mask */
        const char *script[3];
        int exit_status;
    } cases[] = {
        {{SIGTERM}, false, {"rw", "rw", "rw"}, 0},
        {{SIGQUIT}, false, {"rw", "rw", "rw"}, 0},
        {{SIGINT}, false, {"rw", "rw", "rw"}, 130},
        {{SIGTERM}, true, {"rT0", "rT0", "rT0"}, 0},
        {{SIGTERM}, true, {"rT0", "rT1", "rT0"}, 1},
        {{SIGTERM}, true, {"rT0", "rTs", "rT0"}, 1},
        {{SIGINT, SIGTERM}, true, {"rT0", "rT0", "rT0"}, 130},
        {{SIGUSR1, SIGTERM}, true, {"rT0", "rT0", "rT0"}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up_workers(state);
        memcpy(signals_when_ready, cases[i].signals, sizeof signals_when_ready);
        for (int j = 0; cases[i].blocked && j < 3 && signals_when_ready[j]; j++)
            block(signals_when_ready[j]);
        struct fork_options o = max_restarts(100);
        assert_int_equal(play(&o, cases[i].script[0], cases[i].script[1], cases[i].script[2]), cases[i].exit_status);
        assert_int_equal(told.ready, 1);
        assert_int_equal(told.stopping, 1);
        assert_int_equal(told.restarts, 0);
    }
}

TEST(a_worker_that_a_signal_ends_has_not_crashed)
{
    block(SIGTERM); /* it waits for the parent */
    raise(SIGTERM);
    struct fork_options o = max_restarts(100);
    assert_int_equal(play(&o, "r1", "r1", NULL), 1);
    assert_int_equal(told.restarts, 0);
    assert_int_equal(told.ready, 0);
}

TEST(a_signal_cancels_restarts)
{
    struct fork_options o = max_restarts(100);
    o.restart = on_restart;
    signal_at_restart = SIGTERM;
    assert_int_equal(play(&o, "1", NULL, NULL), 0); /* no worker was left to fail */
    assert_int_equal(shared->tasks[0].lives, 1);
}

TEST(other_signals_are_passed_on_and_stop_nothing)
{
    block(SIGHUP);
    block(SIGUSR1);
    block(SIGUSR2);
    memcpy(signals_when_ready, (int[]){SIGHUP, SIGUSR1, SIGUSR2}, sizeof signals_when_ready);
    struct fork_options o = max_restarts(1);
    assert_int_equal(play(&o, "rHUV1 0", "rHUV0", "rHUV0"), 0);
    assert_int_equal(shared->tasks[0].lives, 2);
    assert_int_equal(told.stopping, 0);
}

static int get_no_sighup(void)
{
    fork_ready();
    await(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGHUP);
}

/* As under nohup. While it is blocked, an ignored signal is pending like any other. */
TEST(ignored_signals_stay_ignored)
{
    block(SIGHUP);
    block(SIGUSR1);
    signal(SIGHUP, SIG_IGN);
    memcpy(signals_when_ready, (int[]){SIGHUP, SIGUSR1, 0}, sizeof signals_when_ready);
    struct fork_options o = max_restarts(0);
    int status = run(2, &o, get_no_sighup);
    signal(SIGHUP, SIG_DFL);
    assert_int_equal(status, 0);
    await(SIGHUP); /* it is still pending here */
}

/* ---- the parent's death, and the parent as pid 1 */

/* The worker comes to itself only after its parent has died. */
static void kill_parent_first(void)
{
    kill(parent, SIGKILL);
    while (getppid() == parent)
        sched_yield();
}

/* Plays under a parent that is killed, when ready or by `first`. This process then inherits the worker and
 * returns its wait(2) status. */
static int play_orphan(void (*first)(void), const char *script)
{
    pid_t pid = fork();
    if (pid == 0) {
        limit_time(SAFETY_SECONDS);
        in_child = first;
        signals_when_ready[0] = SIGKILL;
        struct fork_options o = max_restarts(0);
        play(&o, script, NULL, NULL);
        _exit(99);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_true(waitpid(-1, &status, 0) > 0);
    return status;
}

TEST(workers_get_sigterm_when_the_parent_is_killed)
{
    block(SIGTERM);
    assert_int_equal(play_orphan(NULL, "rT7"), W_EXITCODE(7, 0));
}

TEST(workers_end_when_the_parent_dies_too_early)
{
    assert_int_equal(play_orphan(kill_parent_first, "0"), SIGTERM);
}

/* Leaves an orphan to pid 1, and ends pid 1 when the orphan is reaped. */
static int leave_an_orphan(void)
{
    int fds[2];
    if (pipe(fds) == -1)
        return 1;
    pid_t middle = fork();
    if (middle == 0) {
        pid_t orphan = fork();
        if (orphan > 0 && write(fds[1], &orphan, sizeof orphan) != sizeof orphan)
            _exit(2);
        _exit(1); /* not a crash, since neither is a worker */
    }
    pid_t orphan;
    if (waitpid(middle, NULL, 0) != middle || read(fds[0], &orphan, sizeof orphan) != sizeof orphan)
        return 3;
    while (kill(orphan, 0) == 0) /* a zombie can be signalled, too */
        sched_yield();
    kill(parent, SIGTERM);
    return act("w");
}

TEST(pid_1_reaps_orphans_and_heeds_signals)
{
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == -1 && errno == EPERM)
        skip();
    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        limit_time(SAFETY_SECONDS);
        struct fork_options o = max_restarts(0);
        _exit(getpid() == 1 ? run(1, &o, leave_an_orphan) : 99);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(signals_end_all_workers, set_up_workers),
        cmocka_unit_test_setup(a_worker_that_a_signal_ends_has_not_crashed, set_up_workers),
        cmocka_unit_test_setup(a_signal_cancels_restarts, set_up_workers),
        cmocka_unit_test_setup(other_signals_are_passed_on_and_stop_nothing, set_up_workers),
        cmocka_unit_test_setup(ignored_signals_stay_ignored, set_up_workers),
        cmocka_unit_test_setup(workers_get_sigterm_when_the_parent_is_killed, set_up_workers),
        cmocka_unit_test_setup(workers_end_when_the_parent_dies_too_early, set_up_workers),
        cmocka_unit_test_setup(pid_1_reaps_orphans_and_heeds_signals, set_up_workers),
    };
    return run_process_tests(tests, sizeof tests / sizeof *tests);
}
