/* process.c - worker processes, and the rules of the parent that supervises them.
 *
 * The parent runs no loop. The signals it acts on are blocked and read from a signalfd, so that whatever can happen to it (a signal,
 * a worker that ended or is ready, the time of a restart) is the end of one poll, and nothing happens in between. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "inbox.h"
#include "shared.h"

static const double FIRST_DELAY = 0.1, LONGEST_DELAY = 10; /* from a crash to the restart */
static const double STEADY_SECONDS = 10;                   /* who has lived so long begins with the first delay again */
static const double KILL_SECONDS = 5;                      /* from SIGTERM to SIGKILL, after giving up */
enum {
    OWN_DESCRIPTORS = 3, /* that a supervisor polls beside its workers' */
    READY_TRIES = 50
};
static const int AGAIN_MILLISECONDS = 100; /* until a worker that has no room is sent something again */

struct worker {
    pid_t pid;      /* 0: not running */
    double due;     /* when to start it; INFINITY: it runs, or is not to be started */
    double started; /* when it was started last */
    double delay;   /* before its latest restart; 0: it never crashed */
    bool ready;     /* it has called fork_ready */
    struct outbox outbox;
};

struct supervisor {
    const struct fork_options *options;
    struct worker *workers;       /* and behind them the helpers */
    int serving, count, restarts; /* how many workers, how many in all */
    pid_t pid;
    int signal_fd;
    int ready_fds[2]; /* a worker sends its task id into the second: a socket, since writing to a pipe might raise SIGPIPE */
    sigset_t caller_mask;
    struct sigaction caller_sigchld;

    bool announced;                     /* options->ready was called */
    bool ending;                        /* nothing is started any more */
    bool stopped;                       /* options->stopping was called */
    bool dismissed;                     /* no worker is left, and the helpers know */
    bool failed;                        /* it gave up, or a worker failed while ending */
    int stop_signal;                    /* the signal that ends the server, or 0 */
    int error;                          /* why the workers could not be started, or 0 */
    double kill_at, tick_at, settle_at; /* settle_at: options->taken is called by then; INFINITY: not before fork_hand_out */
    struct pollfd *polled;
    int handed_out[FORK_KINDS]; /* the latest of each kind, while a worker has yet to get it; -1: none */
};

static struct supervisor *supervising; /* NULL: this process does not */
static int current_task = -1;
static int worker_ready_fd = -1;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool stops_server(int signal)
{
    return signal == SIGTERM || signal == SIGINT || signal == SIGQUIT;
}

/* What is ignored (SIGHUP under nohup) stays so: it is left out, since a blocked signal is reported even if it is ignored. */
static void supervised_signals(sigset_t *set)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    sigemptyset(set);
    sigaddset(set, SIGCHLD);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            sigaddset(set, signals[i]);
    }
}

static int supervisor_init(struct supervisor *s, int serving, const struct fork_options *options)
{
    int count = serving + options->helpers;
    *s = (struct supervisor){
        .options = options,
        .workers = calloc((size_t)count, sizeof *s->workers), /* each is due at once */
        .polled = calloc((size_t)count + OWN_DESCRIPTORS, sizeof *s->polled),
        .serving = serving,
        .count = count,
        .pid = getpid(),
        .signal_fd = -1,
        .ready_fds = {-1, -1},
        .kill_at = INFINITY,
        .settle_at = INFINITY,
        .tick_at = options->tick_seconds > 0 ? 0 : INFINITY,
        .handed_out = {-1, -1, -1, -1},
    };
    supervising = s;
    for (int task = 0; s->workers && task < count; task++)
        outbox_init(&s->workers[task].outbox);
    /* Were SIGCHLD ignored, the kernel would drop the workers' statuses. */
    sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &s->caller_sigchld);
    sigset_t signals;
    supervised_signals(&signals);
    sigprocmask(SIG_BLOCK, &signals, &s->caller_mask);

    if (options->shared && options->shared->options.processes < serving) {
        errno = EINVAL;
        return -1;
    }
    if (!s->workers || !s->polled || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s->ready_fds) == -1)
        return -1;
    s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd == -1 ? -1 : 0;
}

static void supervisor_release(struct supervisor *s)
{
    int fds[] = {s->signal_fd, s->ready_fds[0], s->ready_fds[1]};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] != -1)
            close(fds[i]);
    for (int kind = 0; kind < FORK_KINDS; kind++)
        if (s->handed_out[kind] != -1)
            close(s->handed_out[kind]);
    for (int task = 0; s->workers && task < s->count; task++)
        outbox_close(&s->workers[task].outbox);
    free(s->workers);
    free(s->polled);
    supervising = NULL;
    sigaction(SIGCHLD, &s->caller_sigchld, NULL);
    sigprocmask(SIG_SETMASK, &s->caller_mask, NULL);
}

/* The first so many. */
static void send_signal(const struct supervisor *s, int count, int signal)
{
    for (int task = 0; task < count; task++)
        if (s->workers[task].pid)
            kill(s->workers[task].pid, signal);
}

static void signal_workers(const struct supervisor *s, int signal)
{
    send_signal(s, s->serving, signal);
}

/* From now on workers only end. */
static void start_no_more(struct supervisor *s)
{
    s->ending = true;
    for (int task = 0; task < s->count; task++)
        s->workers[task].due = INFINITY;
}

/* Workers get what they are due; true: one of them has to wait. */
static bool hand_out(struct supervisor *s)
{
    unsigned due = 0;
    for (int kind = 0; kind < FORK_KINDS; kind++) {
        for (int task = 0; task < s->count; task++)
            outbox_send(&s->workers[task].outbox, kind, s->handed_out[kind]);
    }
    for (int task = 0; task < s->count; task++)
        due |= s->workers[task].outbox.due;
    for (int kind = 0; kind < FORK_KINDS; kind++) {
        if (s->handed_out[kind] != -1 && !(due & 1U << kind)) {
            close(s->handed_out[kind]);
            s->handed_out[kind] = -1;
        }
    }
    return due != 0;
}

static void end_workers(struct supervisor *s)
{
    start_no_more(s);
    s->failed = true;
    s->kill_at = now() + KILL_SECONDS;
    signal_workers(s, SIGTERM);
}

static void restart_later(struct worker *w)
{
    double longer = w->delay == 0 ? FIRST_DELAY : 2 * w->delay;
    w->delay = longer < LONGEST_DELAY ? longer : LONGEST_DELAY;
    w->due = now() + w->delay;
}

static void restart_crashed(struct worker *w)
{
    w->ready = false;
    if (now() - w->started >= STEADY_SECONDS)
        w->delay = 0;
    restart_later(w);
}

static void worker_crashed(struct supervisor *s, struct worker *w, int status)
{
    const struct fork_options *o = s->options;
    if (s->restarts >= o->max_restarts) {
        if (o->give_up)
            o->give_up(o->arg, s->restarts);
        end_workers(s);
        return;
    }
    s->restarts++;
    if (o->shared)
        shared_add(o->shared, (int)(w - s->workers), COUNT_RESTARTS, 1);
    restart_crashed(w);
    if (o->restart)
        o->restart(o->arg, (int)(w - s->workers), status, w->delay);
}

static void helper_ended(struct supervisor *s, struct worker *w, int status)
{
    const struct fork_options *o = s->options;
    w->pid = 0;
    if (s->ending)
        return;
    restart_crashed(w);
    if (o->restart)
        o->restart(o->arg, (int)(w - s->workers), status, w->delay);
}

static void worker_ended(struct supervisor *s, struct worker *w, int status)
{
    w->pid = 0;
    outbox_close(&w->outbox);
    if (s->options->shared)
        shared_worker_gone(s->options->shared, (int)(w - s->workers));
    if (s->options->ended)
        s->options->ended(s->options->arg, (int)(w - s->workers));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    if (!s->ending)
        worker_crashed(s, w, status);
    else if (!WIFSIGNALED(status) || !stops_server(WTERMSIG(status)))
        s->failed = true;
}

static bool all_ready(const struct supervisor *s)
{
    for (int task = 0; task < s->count; task++)
        if (!s->workers[task].ready)
            return false;
    return true;
}

static void receive_ready(struct supervisor *s)
{
    int task;
    while (recv(s->ready_fds[0], &task, sizeof task, MSG_DONTWAIT) == sizeof task)
        if (task >= 0 && task < s->count) /* workers talk to strangers, the parent does not rely on them */
            s->workers[task].ready = true;
    if (s->announced || s->ending || !all_ready(s))
        return;
    s->announced = true;
    if (s->options->ready)
        s->options->ready(s->options->arg);
}

/* From a signal, or a worker that has seen the server's work done, or cannot go on with it. */
static void stop(struct supervisor *s)
{
    start_no_more(s);
    if (!s->stopped && s->options->stopping)
        s->options->stopping(s->options->arg);
    s->stopped = true;
}

static int end_fd_of(const struct supervisor *s)
{
    return s->options->shared ? shared_end_fd(s->options->shared) : -1;
}

static void receive_end(struct supervisor *s)
{
    struct pollfd end = {.fd = end_fd_of(s), .events = POLLIN};
    if (!s->stopped && poll(&end, 1, 0) == 1)
        stop(s);
}

static void receive_signals(struct supervisor *s)
{
    const struct fork_options *o = s->options;
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == sizeof info) {
        int signal = (int)info.ssi_signo;
        if (signal == SIGCHLD)
            continue;
        if (o->counts_as)
            signal = o->counts_as(o->arg, signal);
        if (signal == 0)
            continue;
        if (stops_server(signal)) {
            stop(s);
            if (s->stop_signal != SIGINT) /* ^C stays: the caller has to die of it */
                s->stop_signal = signal;
        }
        signal_workers(s, signal);
    }
}

static void reap(struct supervisor *s)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        receive_ready(s); /* before its task is another worker's: it may have been ready until now */
        receive_end(s);   /* it may have said so with its last breath */
        for (int task = 0; task < s->count; task++) {
            if (s->workers[task].pid != pid)
                continue;
            if (task < s->serving)
                worker_ended(s, &s->workers[task], status);
            else
                helper_ended(s, &s->workers[task], status);
        }
    }
}

/* Returns the task id in each new worker, -1 in the parent. */
static int start_due(struct supervisor *s)
{
    for (int task = 0; task < s->count; task++) {
        struct worker *w = &s->workers[task];
        double at = now();
        if (w->due > at)
            continue;
        bool gets = s->options->hands_out && task < s->serving;
        pid_t pid = !gets || outbox_open(&w->outbox) == 0 ? fork() : -1;
        if (pid == 0)
            return task;
        if (pid > 0) {
            w->pid = pid;
            w->started = at;
            w->due = INFINITY;
            outbox_forked(&w->outbox);
        } else if (w->delay > 0) {
            restart_later(w); /* the others go on serving meanwhile */
        } else {
            s->error = errno;
            end_workers(s);
        }
    }
    return -1;
}

void fork_hand_out(int kind, int fd)
{
    struct supervisor *s = supervising;
    s->settle_at = now() + s->options->taken_seconds;
    if (fd == -1)
        return;
    if (s->handed_out[kind] != -1)
        close(s->handed_out[kind]);
    s->handed_out[kind] = fd;
    for (int task = 0; task < s->serving; task++)
        if (s->workers[task].pid)
            s->workers[task].outbox.due |= 1U << kind;
    hand_out(s);
}

static bool none_left(const struct supervisor *s, int first, int end)
{
    for (int task = first; task < end; task++)
        if (s->workers[task].pid || s->workers[task].due < INFINITY)
            return false;
    return true;
}

static void dismiss_helpers(struct supervisor *s)
{
    s->dismissed = true;
    start_no_more(s);
    shutdown(s->ready_fds[0], SHUT_RDWR);
    s->kill_at = now() + KILL_SECONDS;
}

static bool finished(struct supervisor *s)
{
    if (!none_left(s, 0, s->serving))
        return false;
    if (!s->dismissed)
        dismiss_helpers(s);
    return none_left(s, s->serving, s->count);
}

static double earlier(double a, double b)
{
    return a < b ? a : b;
}

/* How long to wait for an event, in milliseconds; -1: for ever. */
static int time_left(const struct supervisor *s)
{
    double due = earlier(earlier(s->kill_at, s->tick_at), s->settle_at);
    for (int task = 0; task < s->count; task++)
        due = earlier(due, s->workers[task].due);
    double left = due - now();
    return due == INFINITY ? -1 : left > 0 ? (int)(left * 1000) + 1 : 0;
}

static void wait_for_event(struct supervisor *s)
{
    bool waits = hand_out(s);
    int milliseconds = time_left(s), count = OWN_DESCRIPTORS;
    if (waits && (milliseconds < 0 || milliseconds > AGAIN_MILLISECONDS))
        milliseconds = AGAIN_MILLISECONDS;
    s->polled[0] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    s->polled[1] = (struct pollfd){.fd = s->dismissed ? -1 : s->ready_fds[0], .events = POLLIN};
    s->polled[2] = (struct pollfd){.fd = s->stopped ? -1 : end_fd_of(s), .events = POLLIN};
    for (int task = 0; task < s->serving; task++) {
        if (s->workers[task].outbox.owed)
            s->polled[count++] = (struct pollfd){.fd = s->workers[task].outbox.fds[0], .events = POLLIN};
    }
    poll(s->polled, (nfds_t)count, milliseconds);
}

static void settle(struct supervisor *s)
{
    int late = 0;
    if (s->settle_at == INFINITY)
        return;
    for (int task = 0; task < s->serving; task++) {
        outbox_receive(&s->workers[task].outbox);
        late += !outbox_is_settled(&s->workers[task].outbox);
    }
    if (late && s->settle_at > now())
        return;
    s->settle_at = INFINITY;
    if (s->options->taken)
        s->options->taken(s->options->arg, late);
}

/* Returns the task id in each worker, and -1 in the parent once none is left. */
static int supervise(struct supervisor *s)
{
    for (;;) {
        int task = start_due(s);
        if (task != -1 || finished(s))
            return task;
        wait_for_event(s);
        receive_signals(s); /* first: a worker that it ended has not crashed */
        receive_end(s);
        reap(s);
        receive_ready(s);
        settle(s);
        if (s->tick_at <= now()) {
            s->options->tick(s->options->arg);
            s->tick_at = now() + s->options->tick_seconds;
        }
        if (s->kill_at <= now()) {
            send_signal(s, s->count, SIGKILL);
            s->kill_at = INFINITY;
        }
    }
}

static void become_worker(struct supervisor *s, int task)
{
    current_task = task;
    inbox_open(&s->workers[task].outbox);
    worker_ready_fd = s->ready_fds[1];
    s->ready_fds[1] = -1;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != s->pid) /* it died before that */
        raise(SIGTERM);
}

int fork_processes(int processes, const struct fork_options *options, int *exit_status)
{
    static const struct fork_options defaults = {.max_restarts = 100};
    *exit_status = 1;
    if (current_task != -1) {
        errno = EINVAL;
        return -1;
    }
    struct supervisor s;
    int task = -1;
    if (supervisor_init(&s, processes > 0 ? processes : cpu_count(), options ? options : &defaults) == 0) {
        task = supervise(&s);
        *exit_status = s.stop_signal == SIGINT ? 128 + SIGINT : s.failed;
    } else {
        s.error = errno;
    }
    if (task != -1)
        become_worker(&s, task);
    supervisor_release(&s);
    errno = s.error;
    return task;
}

int fork_helper_fd(void)
{
    fcntl(worker_ready_fd, F_SETFD, 0);
    return worker_ready_fd;
}

/* Nobody would learn that all are ready if it were given up: the kernel may be short of memory for a moment. */
void fork_helper_ready(int fd, int task)
{
    for (int i = 0; i < READY_TRIES && send(fd, &task, sizeof task, MSG_NOSIGNAL) < 0 && errno != EPIPE; i++)
        poll(NULL, 0, AGAIN_MILLISECONDS);
}

void fork_ready(void)
{
    if (worker_ready_fd == -1)
        return;
    fork_helper_ready(worker_ready_fd, current_task);
    close(worker_ready_fd);
    worker_ready_fd = -1;
}

int task_id(void)
{
    return current_task;
}

/* The size of the set is tried, since the kernel refuses one with less room than it has CPUs. */
int cpu_count(void)
{
    int count = 0;
    errno = EINVAL;
    for (int cpus = CPU_SETSIZE; count == 0 && errno == EINVAL && cpus <= 1024 * CPU_SETSIZE; cpus *= 2) {
        size_t size = CPU_ALLOC_SIZE(cpus);
        cpu_set_t *set = CPU_ALLOC(cpus);
        if (set && sched_getaffinity(0, size, set) == 0)
            count = CPU_COUNT_S(size, set);
        CPU_FREE(set);
    }
    return count > 0 ? count : 1;
}
