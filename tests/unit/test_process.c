/* fork_processes: how workers start, what they have, and when they are started again. Signals, and the parent's death, are in
 * test_process_signals.c. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "workers.h"

/* ---- starting and ending */

TEST(ids_are_numbered_and_all_ending_well_is_status_0)
{
    struct fork_options o = max_restarts(3);
    errno = EDOM;
    assert_int_equal(play(&o, "0", "0", "0"), 0);
    assert_int_equal(errno, 0);
    for (int task = 0; task < 3; task++)
        assert_int_equal(shared->tasks[task].lives, 1);
    assert_int_equal(told.restarts + told.give_up + told.stopping, 0);
}

TEST(one_process_is_forked_too)
{
    assert_int_equal(play(NULL, "1 0", NULL, NULL), 0);
    assert_int_not_equal(shared->tasks[0].pids[0], getpid());
}

static int fork_again(void)
{
    int exit_status = -1;
    errno = 0;
    return fork_processes(1, NULL, &exit_status) == -1 && errno == EINVAL && exit_status == 1 ? 0 : 1;
}

TEST(workers_cannot_fork_workers)
{
    struct fork_options o = max_restarts(0);
    assert_int_equal(run(1, &o, fork_again), 0);
}

TEST(no_number_is_one_a_cpu)
{
    cpu_set_t all, one;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_int_equal(cpu_count(), CPU_COUNT(&all));
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; cpu++)
        if (CPU_ISSET(cpu, &all))
            CPU_SET(cpu, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cpu_count(), 1);
    scripts[0] = "0";
    assert_int_equal(run(0, NULL, follow_script), 0);
    assert_int_equal(run(-1, NULL, follow_script), 0);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(shared->tasks[0].lives, 2);
    assert_int_equal(shared->tasks[1].lives, 0);
}

TEST(a_fork_that_fails_ends_the_others)
{
    struct fork_options o = max_restarts(100);
    forks_before_failure = 2;
    assert_int_equal(play(&o, "rw", "rw", "rw"), 1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(told.ready + told.restarts + told.give_up + told.stopping, 0);
}

/* ---- what a worker has */

static int private_fds, inherited_fds;

static int check_fds(void)
{
    if (count_fds(FD_CLOEXEC) != private_fds + 1 || count_fds(0) != inherited_fds)
        return 1;
    fork_ready();
    fork_ready(); /* the second does nothing */
    return count_fds(FD_CLOEXEC) == private_fds ? 0 : 2;
}

TEST(workers_hold_one_descriptor_until_they_are_ready)
{
    if (is_on_valgrind()) /* it opens its log anew in a child */
        skip();
    fork_ready(); /* nothing in the parent */
    private_fds = count_fds(FD_CLOEXEC);
    inherited_fds = count_fds(0);
    struct fork_options o = max_restarts(0);
    assert_int_equal(run(2, &o, check_fds), 0);
    assert_int_equal(told.fds_when_ready, inherited_fds);
    assert_int_equal(count_fds(FD_CLOEXEC), private_fds);
    assert_int_equal(count_fds(0), inherited_fds);
}

static int check_signals(void)
{
    sigset_t mask;
    sigprocmask(SIG_SETMASK, NULL, &mask);
    for (int signal = 1; signal < NSIG; signal++)
        if (sigismember(&mask, signal) != (signal == SIGUSR2 || signal == SIGWINCH))
            return 1;
    struct sigaction sigchld;
    int death_signal = 0;
    sigaction(SIGCHLD, NULL, &sigchld);
    prctl(PR_GET_PDEATHSIG, &death_signal);
    return sigchld.sa_handler == SIG_IGN && death_signal == (getpid() == parent ? 0 : SIGTERM) ? 0 : 2;
}

/* An ignored SIGCHLD, as some programs leave it to their children, must not hide how workers ended. */
TEST(signal_mask_and_sigchld_are_given_back)
{
    block(SIGUSR2);
    block(SIGWINCH);
    signal(SIGCHLD, SIG_IGN);
    struct fork_options o = max_restarts(0);
    int good = run(2, &o, check_signals), bad = play(&o, "1", NULL, NULL), after = check_signals();
    signal(SIGCHLD, SIG_DFL);
    assert_int_equal(good, 0);
    assert_int_equal(bad, 1);
    assert_int_equal(after, 0);
}

/* ---- ready */

static int marked_when_ready;

static void on_ready_count_marks(void *arg)
{
    for (int task = 0; task < 3; task++)
        marked_when_ready += shared->tasks[task].marked;
    on_ready(arg);
}

TEST(ready_comes_once_all_are_ready)
{
    struct fork_options o = max_restarts(1);
    o.ready = on_ready_count_marks;
    signals_when_ready[0] = SIGTERM;
    assert_int_equal(play(&o, "1 mrw", "xmrw", "mrw"), 0);
    assert_int_equal(told.ready, 1);
    assert_int_equal(marked_when_ready, 3);
    assert_int_equal(told.restarts, 1);
}

TEST(ready_comes_once_only)
{
    struct fork_options o = max_restarts(1);
    assert_int_equal(play(&o, "r1 r0", NULL, NULL), 0);
    assert_int_equal(told.ready, 1);
}

/* Task 0 was ready, but has crashed before task 1 is; its successor never is. */
TEST(ready_does_not_count_the_dead)
{
    block(SIGUSR1);
    signal_at_restart = SIGUSR1;
    forks_that_outlast_the_child = 1; /* even if what it said is read after its death */
    struct fork_options o = max_restarts(1);
    assert_int_equal(play(&o, "r1 0", "Ur0", NULL), 0);
    assert_int_equal(told.restarts, 1);
    assert_int_equal(told.ready, 0);
}

/* ---- restarts */

TEST(crashed_workers_are_restarted_with_their_ids)
{
    struct fork_options o = max_restarts(4);
    o.restart = on_restart;
    o.ended = on_ended;
    double start = monotonic_seconds();
    assert_int_equal(play(&o, "2 0", "3 0", "k s 0"), 0);
    assert_true(monotonic_seconds() - start >= 0.3); /* task 2 waited 0.1 s and 0.2 s */

    static const int lives[] = {2, 2, 3}, crashes[][2] = {{W_EXITCODE(2, 0)}, {W_EXITCODE(3, 0)}, {SIGKILL, SIGSEGV}};
    int seen[3] = {0};
    assert_int_equal(told.restarts, 4);
    for (int task = 0; task < 3; task++) /* also when it ends in order */
        assert_int_equal(told.ends[task], lives[task]);
    for (int i = 0; i < 4; i++)
        assert_int_equal(told.statuses[i], crashes[told.tasks[i]][seen[told.tasks[i]]++]);
    for (int task = 0; task < 3; task++) {
        const struct task *t = &shared->tasks[task];
        assert_int_equal(seen[task], lives[task] - 1);
        assert_int_equal(t->lives, lives[task]);
        for (int life = 1; life < t->lives; life++)
            assert_int_not_equal(t->pids[life], t->pids[life - 1]);
    }
    assert_int_equal(told.give_up, 0);
}

TEST(delays_grow_and_begin_again)
{
    static const double expected[] = {0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 0.1};
    block(SIGUSR1);
    struct fork_options o = max_restarts(10);
    assert_int_equal(play(&o, "1 1 1 1 1 1 1 1 1 +1 0", NULL, NULL), 0);
    assert_int_equal(told.restarts, 10);
    for (int i = 0; i < 10; i++)
        assert_float_equal(told.delays[i], expected[i], 1e-6);
}

TEST(a_restart_that_fails_is_tried_again)
{
    struct fork_options o = max_restarts(1);
    forks_before_failure = 1;
    assert_int_equal(play(&o, "1 0", NULL, NULL), 0);
    assert_int_equal(shared->tasks[0].lives, 2);
    assert_int_equal(told.restarts, 1);
}

TEST(too_many_crashes_end_all)
{
    static const int cases[][2] = {{2, 2}, {0, 0}, {-1, 0}}; /* max_restarts, restarts */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_up_workers(state);
        struct fork_options o = max_restarts(cases[i][0]);
        errno = EDOM;
        assert_int_equal(play(&o, "rw", "1", "rw"), 1);
        assert_int_equal(errno, 0);
        assert_int_equal(shared->tasks[1].lives, cases[i][1] + 1);
        assert_int_equal(told.restarts, cases[i][1]);
        assert_int_equal(told.give_up, 1);
        assert_int_equal(told.given_up_after, cases[i][1]);
        assert_int_equal(told.stopping, 0);
    }
}

/* Task 0 outlives SIGTERM, but not the five seconds after it. */
TEST(giving_up_kills_what_stays)
{
    block(SIGTERM);
    block(SIGUSR1);
    struct fork_options o = max_restarts(0);
    assert_int_equal(play(&o, "Tm+w", "1", NULL), 1);
    assert_true(shared->tasks[0].marked);
}

/* ---- ticks */

static int ticks;

static void on_tick(void *arg)
{
    assert_ptr_equal(arg, &told);
    assert_false(task_id() >= 0);
    if (++ticks == 5)
        raise(SIGTERM);
}

TEST(the_parent_ticks)
{
    struct fork_options o = max_restarts(0);
    double start = monotonic_seconds();
    o.tick = on_tick;
    o.tick_seconds = 0.01;
    assert_int_equal(play(&o, "rw", "rw", NULL), 0);
    assert_true(ticks >= 5);
    assert_true(monotonic_seconds() - start >= 4 * 0.01);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(ids_are_numbered_and_all_ending_well_is_status_0, set_up_workers),
        cmocka_unit_test_setup(one_process_is_forked_too, set_up_workers),
        cmocka_unit_test_setup(the_parent_ticks, set_up_workers),
        cmocka_unit_test_setup(workers_cannot_fork_workers, set_up_workers),
        cmocka_unit_test_setup(no_number_is_one_a_cpu, set_up_workers),
        cmocka_unit_test_setup(a_fork_that_fails_ends_the_others, set_up_workers),
        cmocka_unit_test_setup(workers_hold_one_descriptor_until_they_are_ready, set_up_workers),
        cmocka_unit_test_setup(signal_mask_and_sigchld_are_given_back, set_up_workers),
        cmocka_unit_test_setup(ready_comes_once_all_are_ready, set_up_workers),
        cmocka_unit_test_setup(ready_comes_once_only, set_up_workers),
        cmocka_unit_test_setup(ready_does_not_count_the_dead, set_up_workers),
        cmocka_unit_test_setup(crashed_workers_are_restarted_with_their_ids, set_up_workers),
        cmocka_unit_test_setup(delays_grow_and_begin_again, set_up_workers),
        cmocka_unit_test_setup(a_restart_that_fails_is_tried_again, set_up_workers),
        cmocka_unit_test_setup(too_many_crashes_end_all, set_up_workers),
        cmocka_unit_test_setup(giving_up_kills_what_stays, set_up_workers),
    };
    return run_process_tests(tests, sizeof tests / sizeof *tests);
}
