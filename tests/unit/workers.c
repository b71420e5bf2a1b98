#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "workers.h"

struct shared *shared;
struct told told;

/* ---- the system calls that tests bend: a fork that fails or is slow, a clock that jumps */

int forks_before_failure;
int forks_that_outlast_the_child;
void (*in_child)(void);

pid_t __wrap_fork(void);
pid_t __wrap_fork(void)
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

int __wrap_clock_gettime(clockid_t id, struct timespec *t);
int __wrap_clock_gettime(clockid_t id, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, id, t);
    if (id == CLOCK_MONOTONIC && shared)
        t->tv_sec += shared->seconds_ahead;
    return result;
}

/* ---- signals and callbacks */

int count_fds(int flags)
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

void block(int signal)
{
    sigset_t set = set_of(signal);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

void await(int signal)
{
    sigset_t set = set_of(signal);
    sigwait(&set, &signal);
}

int signals_when_ready[3], signal_at_restart;

void on_ready(void *arg)
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

void on_restart(void *arg, int task, int status, double delay_seconds)
{
    struct told *t = arg;
    t->tasks[t->restarts] = task;
    t->statuses[t->restarts] = status;
    t->delays[t->restarts++] = delay_seconds;
    if (signal_at_restart)
        raise(signal_at_restart);
}

void on_ended(void *arg, int task)
{
    ((struct told *)arg)->ends[task]++;
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

struct fork_options max_restarts(int count)
{
    return (struct fork_options){.max_restarts = count,
                                 .ready = on_ready,
                                 .restart = on_restart_skip_delay,
                                 .give_up = on_give_up,
                                 .stopping = on_stopping,
                                 .arg = &told};
}

static sigset_t mask_at_start;

int set_up_workers(void **state)
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

pid_t parent;

static bool children_left(void)
{
    return waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD;
}

int run(int processes, const struct fork_options *options, int (*work)(void))
{
    int exit_status = -1;
    parent = getpid();
    int id = fork_processes(processes, options, &exit_status);
    if (id != -1) {
        limit_time(SAFETY_SECONDS);
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

static bool is_pending(int signal)
{
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, signal);
}

int act(const char *actions)
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
        if (action == 'h') /* as a helper that is ready */
            fork_helper_ready(fork_helper_fd(), task_id());
        while (action == 'e' && recv(fork_helper_fd(), &(int){0}, sizeof(int), 0) != 0) /* until no worker is left */
            ;
        if (action == 'm' || (action == 'p' && is_pending(SIGTERM))) /* leave a mark; only if there is such a signal */
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

const char *scripts[MAX_TASKS];

int follow_script(void)
{
    const char *word = scripts[task_id()];
    for (int life = 1; life < shared->tasks[task_id()].lives && strchr(word, ' '); life++)
        word = strchr(word, ' ') + 1;
    return act(word);
}

int play(const struct fork_options *options, const char *task_0, const char *task_1, const char *task_2)
{
    scripts[0] = task_0;
    scripts[1] = task_1;
    scripts[2] = task_2;
    return run((task_2 ? 3 : task_1 ? 2 : 1) - (options ? options->helpers : 0), options, follow_script);
}

double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int run_process_tests(const struct CMUnitTest *tests, size_t count)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    sigprocmask(SIG_SETMASK, NULL, &mask_at_start);
    limit_time(SAFETY_SECONDS);
    return _cmocka_run_group_tests("process", tests, count, NULL, NULL);
}
