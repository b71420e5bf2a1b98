/* fork_processes: its workers, and the supervisor's rules.
 *
 * The test itself is the parent in most cases, since fork_processes returns to it when all is over. What its workers do is written in
 * a script, see `play`; what they have to report goes to shared memory. Signals come from callbacks: these run in the parent where
 * signals are blocked, at a known moment. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/hark.h"

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
static struct shared *shared;

/* What the callbacks were told. */
static struct told {
    int ready, fds_when_ready, stopping, restarts, give_up, given_up_after;
    int tasks[MAX_LIVES], statuses[MAX_LIVES];
    double delays[MAX_LIVES];
} told;

/* ---- the system calls that tests bend: a fork that fails or is slow, a clock that jumps */

static int forks_before_failure;
static int forks_that_outlast_the_child;
static void (*in_child)(void);

pid_t fork(void)
{
    if (forks_before_failure-- == 0) {
        errno = EAGAIN;
        return -1;
    }
    pid_t pid = _Fork();
    if (pid == 0 && in_child)
        in_child();
    if (pid > 0 && forks_that_outlast_the_child-- > 0)
        waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT);
    return pid;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, id, t);
    if (id == CLOCK_MONOTONIC && shared)
        t->tv_sec += shared->seconds_ahead;
    return result;
}

/* ---- signals and callbacks */

/* How many descriptors have these flags: FD_CLOEXEC or 0. */
static int count_fds(int flags)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) == flags;
    return count;
}

static sigset_t set_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    return set;
}

static void block(int signal)
{
    sigset_t set = set_of(signal);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

/* The signal has to be blocked. */
static void await(int signal)
{
    sigset_t set = set_of(signal);
    sigwait(&set, &signal);
}

static int signals_when_ready[3], signal_at_restart; /* to the parent */

static void on_ready(void *arg)
{
    struct told *t = arg;
    t->ready++;
    t->fds_when_ready = count_fds(0);
    for (int i = 0; i < 3 && signals_when_ready[i]; i++)
        raise(signals_when_ready[i]);
}

static void on_stopping(void *arg)
{
    ((struct told *)arg)->stopping++;
}

static void on_restart(void *arg, int task, int status, double delay_seconds)
{
    struct told *t = arg;
    t->tasks[t->restarts] = task;
    t->statuses[t->restarts] = status;
    t->delays[t->restarts++] = delay_seconds;
    if (signal_at_restart)
        raise(signal_at_restart);
}

static void on_restart_skip_delay(void *arg, int task, int status, double delay_seconds)
{
    on_restart(arg, task, status, delay_seconds);
    shared->seconds_ahead += (int)delay_seconds + 1;
}

static void on_give_up(void *arg, int restarts)
{
    struct told *t = arg;
    t->give_up++;
    t->given_up_after = restarts;
}

static struct fork_options max_restarts(int count)
{
    return (struct fork_options){.max_restarts = count,
                                 .ready = on_ready,
                                 .restart = on_restart_skip_delay,
                                 .give_up = on_give_up,
                                 .stopping = on_stopping,
                                 .arg = &told};
}

/* ---- tests */

#define TEST(name) static void name(void **state __attribute__((unused)))

static sigset_t mask_at_start;

static int set_up(void **state)
{
    (void)state;
    *shared = (struct shared){0};
    told = (struct told){0};
    memset(signals_when_ready, 0, sizeof signals_when_ready);
    signal_at_restart = 0;
    forks_before_failure = -1;
    forks_that_outlast_the_child = 0;
    in_child = NULL;
    return sigprocmask(SIG_SETMASK, &mask_at_start, NULL);
}

/* ---- workers */

static pid_t parent;

static bool children_left(void)
{
    return waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
}

/* Runs workers whose exit status is what `work` returns. Returns the parent's. */
static int run(int processes, const struct fork_options *options, int (*work)(void))
{
    int exit_status = -1;
    parent = getpid();
    int id = fork_processes(processes, options, &exit_status);
    if (id != -1) {
        alarm(SAFETY_SECONDS);
        struct task *t = &shared->tasks[id];
        t->pids[t->lives++] = getpid();
        _exit(task_id() == id ? work() : 99);
    }
    int error = errno;
    assert_int_equal(task_id(), -1);
    assert_false(children_left());
    errno = error;
    return exit_status;
}

static int die_of(int signal)
{
    struct sigaction by_default = {.sa_handler = SIG_DFL}; /* sanitizers catch SIGSEGV */
    sigaction(signal, &by_default, NULL);
    raise(signal);
    return 98;
}

static int act(const char *actions)
{
    static const int awaited[128] = {['T'] = SIGTERM, ['H'] = SIGHUP, ['U'] = SIGUSR1, ['V'] = SIGUSR2};
    static const int deaths[128] = {['k'] = SIGKILL, ['s'] = SIGSEGV};
    for (; *actions; actions++) {
        int action = *actions;
        if (action >= '0' && action <= '9') /* end with this status */
            return action - '0';
        if (deaths[action])
            return die_of(deaths[action]);
        if (awaited[action])
            await(awaited[action]);
        if (action == 'r')
            fork_ready();
        for (int fd = 0; action == 'x' && fd < 256; fd++) /* tell the parent of a task that there is not */
            if (fcntl(fd, F_GETFD) == FD_CLOEXEC)
                send(fd, &(int){1 << 28}, sizeof(int), MSG_NOSIGNAL);
        if (action == 'm') /* leave a mark */
            shared->tasks[task_id()].marked = true;
        if (action == '+') { /* ten seconds pass, and the parent looks at the clock */
            shared->seconds_ahead += 10;
            kill(parent, SIGUSR1);
        }
        while (action == 'w') /* for ever */
            pause();
    }
    return 97;
}

static const char *scripts[MAX_TASKS];

/* A script has a word for each life of a worker, the last one for all further lives too; a word has a letter for each action. */
static int follow_script(void)
{
    const char *word = scripts[task_id()];
    for (int life = 1; life < shared->tasks[task_id()].lives && strchr(word, ' '); life++)
        word = strchr(word, ' ') + 1;
    return act(word);
}

/* Runs one worker for each script that is not NULL. */
static int play(const struct fork_options *options, const char *task_0, const char *task_1, const char *task_2)
{
    scripts[0] = task_0;
    scripts[1] = task_1;
    scripts[2] = task_2;
    return run(task_2 ? 3 : task_1 ? 2 : 1, options, follow_script);
}

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

static double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

TEST(crashed_workers_are_restarted_with_their_ids)
{
    struct fork_options o = max_restarts(4);
    o.restart = on_restart;
    double start = monotonic_seconds();
    assert_int_equal(play(&o, "2 0", "3 0", "k s 0"), 0);
    assert_true(monotonic_seconds() - start >= 0.3); /* task 2 waited 0.1 s and 0.2 s */

    static const int lives[] = {2, 2, 3}, crashes[][2] = {{W_EXITCODE(2, 0)}, {W_EXITCODE(3, 0)}, {SIGKILL, SIGSEGV}};
    int seen[3] = {0};
    assert_int_equal(told.restarts, 4);
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
        set_up(state);
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
        set_up(state);
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
        alarm(SAFETY_SECONDS);
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
        alarm(SAFETY_SECONDS);
        struct fork_options o = max_restarts(0);
        _exit(getpid() == 1 ? run(1, &o, leave_an_orphan) : 99);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
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

/* ---- */

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(ids_are_numbered_and_all_ending_well_is_status_0, set_up),
        cmocka_unit_test_setup(one_process_is_forked_too, set_up),
        cmocka_unit_test_setup(the_parent_ticks, set_up),
        cmocka_unit_test_setup(workers_cannot_fork_workers, set_up),
        cmocka_unit_test_setup(no_number_is_one_a_cpu, set_up),
        cmocka_unit_test_setup(a_fork_that_fails_ends_the_others, set_up),
        cmocka_unit_test_setup(workers_hold_one_descriptor_until_they_are_ready, set_up),
        cmocka_unit_test_setup(signal_mask_and_sigchld_are_given_back, set_up),
        cmocka_unit_test_setup(ready_comes_once_all_are_ready, set_up),
        cmocka_unit_test_setup(ready_comes_once_only, set_up),
        cmocka_unit_test_setup(ready_does_not_count_the_dead, set_up),
        cmocka_unit_test_setup(crashed_workers_are_restarted_with_their_ids, set_up),
        cmocka_unit_test_setup(delays_grow_and_begin_again, set_up),
        cmocka_unit_test_setup(a_restart_that_fails_is_tried_again, set_up),
        cmocka_unit_test_setup(too_many_crashes_end_all, set_up),
        cmocka_unit_test_setup(giving_up_kills_what_stays, set_up),
        cmocka_unit_test_setup(signals_end_all_workers, set_up),
        cmocka_unit_test_setup(a_worker_that_a_signal_ends_has_not_crashed, set_up),
        cmocka_unit_test_setup(a_signal_cancels_restarts, set_up),
        cmocka_unit_test_setup(other_signals_are_passed_on_and_stop_nothing, set_up),
        cmocka_unit_test_setup(ignored_signals_stay_ignored, set_up),
        cmocka_unit_test_setup(workers_get_sigterm_when_the_parent_is_killed, set_up),
        cmocka_unit_test_setup(workers_end_when_the_parent_dies_too_early, set_up),
        cmocka_unit_test_setup(pid_1_reaps_orphans_and_heeds_signals, set_up),
    };
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    sigprocmask(SIG_SETMASK, NULL, &mask_at_start);
    alarm(SAFETY_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
