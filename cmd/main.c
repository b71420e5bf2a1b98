/* main.c - the command line, from argv to the exit status. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "handover.h"
#include "metrics.h"
#include "notify.h"
#include "privileges.h"
#include "report.h"
#include "sink.h"
#include "worker.h"

enum {
    EXIT_NOT_STARTED = 2,
    USUAL_DESCRIPTORS = 1024,
    RESERVED_DESCRIPTORS = 64 /* listeners, the loop, the log, the resolver: not for connections */
};

static const double TAKEN_SECONDS = 10; /* a worker that hangs does not keep a reload from being over */

struct program {
    struct settings settings;
    struct handler_options handler_options;
    struct listeners listeners;
    struct metrics metrics;
    struct ssl ssl;
    struct files loaded;
    struct privileges privileges; /* of what serves */
    void *handler_config;
    struct board *board; /* NULL: there are no metrics */
    int processes;
    struct rlimit files;
    rlim_t inherited_max_files; /* for children */
    int null_fd;                /* /dev/null, with --chroot, which puts it out of sight; else 0 */
    bool had_terminal;          /* there was a controlling terminal at start */
    bool stopping;              /* as a supervisor: no more connections */
    bool reloading;             /* as a supervisor: a service manager is to hear when that is over */
};

static int refuse(const char *reason)
{
    report_error("%s", reason);
    return EXIT_NOT_STARTED;
}

/* ---- the process around us ---- */

/* Closed ones would be given to the first sockets, and then be read and written as if they were terminals. */
static void open_standard_descriptors(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

static void do_nothing(int number)
{
    (void)number;
}

/* Until the loop reads it from a descriptor. */
static void hold_back(int number)
{
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, number);
    sigprocmask(SIG_BLOCK, &held, NULL);
}

static bool set_up_signals(void)
{
    struct sigaction hangup;
    sigset_t none;
    sigaction(SIGHUP, NULL, &hangup);
    for (int number = 1; number < NSIG; number++) {
        if (number != SIGHUP)
            signal(number, SIG_DFL); /* whatever was inherited; fails for KILL and STOP */
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGUSR1, do_nothing); /* not ignored: a supervisor passes it on */
    signal(SIGXFSZ, SIG_IGN);    /* a log that has reached its limit is no reason to end */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    hold_back(SIGHUP);
    hold_back(SIGUSR2);
    return hangup.sa_handler == SIG_IGN;
}

static bool has_terminal(void)
{
    int fd = open("/dev/tty", O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

static bool hangup_is_term(void *arg)
{
    const struct program *p = arg;
    return p->had_terminal && !has_terminal();
}

/* Workers get what comes of these, and not the signals. */
static int counts_as(void *arg, int number)
{
    struct program *p = arg;
    if (number != SIGHUP && number != SIGUSR1)
        return number;
    if (number == SIGHUP && hangup_is_term(p))
        return SIGTERM;
    if (number == SIGUSR1) {
        handover_log();
    } else if (!p->stopping) {
        notify_reloading();
        p->reloading = true;
        handover_files(&p->loaded, &p->ssl);
    }
    return 0;
}

/* A service manager is told only now, when the next client will meet what is new. */
static void workers_have_taken(void *arg, int late)
{
    struct program *p = arg;
    if (!p->reloading || p->stopping)
        return;
    p->reloading = false;
    if (late)
        report_warning("reload: %d of %d processes have not taken what is new within %g s", late, p->processes, TAKEN_SECONDS);
    notify_ready(NULL);
}

static void raise_descriptor_limit(struct program *p)
{
    if (getrlimit(RLIMIT_NOFILE, &p->files) != 0) { /* a filter of system calls may forbid to ask: it stays, whatever it is */
        p->files.rlim_cur = USUAL_DESCRIPTORS;
        return;
    }
    p->inherited_max_files = p->files.rlim_cur;
    p->files.rlim_cur = p->files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &p->files) != 0)
        getrlimit(RLIMIT_NOFILE, &p->files);
}

/* For how many connections one process has descriptors. */
static unsigned most_connections(const struct program *p)
{
    unsigned long spare = p->files.rlim_cur > RESERVED_DESCRIPTORS ? p->files.rlim_cur - RESERVED_DESCRIPTORS : 1;
    unsigned long most = spare / p->settings.handler->descriptors;
    return most > UINT_MAX ? 0 : most ? (unsigned)most : 1;
}

/* Over all processes; 0 = no limit. */
static unsigned max_connections(const struct program *p)
{
    if (p->settings.max_connections >= 0)
        return (unsigned)p->settings.max_connections;
    return p->settings.handler->max_connections;
}

static unsigned max_connections_of_one(const struct program *p)
{
    unsigned total = max_connections(p), most = p->settings.max_connections == 0 ? 0 : most_connections(p);
    if (p->settings.handler->flags & HANDLER_ONE_AT_A_TIME)
        return 1;
    return total && total < most ? total : most;
}

static void warn_of_root_in_chroot(const struct settings *s)
{
    if (s->root && !s->user && geteuid() == 0)
        report_warning("root finds a way out of --chroot %s: give --user, too", s->root);
}

static void warn_of_few_descriptors(const struct program *p)
{
    uint64_t most = (uint64_t)most_connections(p) * (uint64_t)p->processes;
    if (p->settings.max_connections > 0 && most && (uint64_t)p->settings.max_connections > most)
        report_warning("there are descriptors for %" PRIu64 " connections only, not for --max-connections %d (ulimit -Hn is %llu)", most,
                       p->settings.max_connections, (unsigned long long)p->files.rlim_cur);
}

/* ---- serving ---- */

/* Nobody may keep it: who reads from the other end waits for its end. */
static void close_ready_fd(struct program *p)
{
    int fd = p->settings.ready_fd;
    p->settings.ready_fd = -1;
    if (fd < 0)
        return;
    if (fd > STDERR_FILENO) {
        close(fd);
        return;
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        dup2(null, fd);
        close(null);
    }
}

static void tell_ready(void *arg)
{
    struct program *p = arg;
    if (p->settings.ready_fd >= 0)
        listeners_write_ready(&p->listeners, p->settings.ready_fd);
    close_ready_fd(p);
    char status[128];
    snprintf(status, sizeof status, "%s, sockets: %d, processes: %d", p->settings.handler->name, p->listeners.per_set, p->processes);
    notify_ready(status);
}

/* In the supervisor: a connection that was handed over is a worker's now, and ends when that one closes it. */
static void workers_serve(void *arg)
{
    struct program *p = arg;
    tell_ready(p);
    if (p->settings.handed_over.connected >= 0)
        close(p->settings.handed_over.connected);
}

static void tick(void *unused)
{
    (void)unused;
    notify_watchdog();
}

static void worker_serves(void *unused)
{
    (void)unused;
    fork_ready();
}

static void log_restart(void *arg, int task, int status, double delay)
{
    const struct program *p = arg;
    struct report r;
    if (!report_wants(REPORT_NORMAL))
        return;
    report_begin(&r, "restart");
    if (task < p->processes)
        report_number(&r, "process", (uint64_t)task);
    else
        report_text(&r, "process", "metrics");
    report_number(&r, WIFSIGNALED(status) ? "signal" : "status", (uint64_t)(WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)));
    report_seconds(&r, "delay", delay);
    report_end(&r);
}

static void worker_ended(void *arg, int task)
{
    const struct program *p = arg;
    if (p->board)
        board_forget(p->board, task);
}

static void log_give_up(void *unused, int restarts)
{
    (void)unused;
    report_error("a process crashed once more after %d restarts: giving up (--max-restarts)", restarts);
}

static void stop_supervisor(void *arg)
{
    struct program *p = arg;
    struct report r;
    p->stopping = true;
    notify_stopping("no more connections");
    listeners_unlink(&p->listeners);
    listeners_close(&p->listeners); /* before the workers', who take those who wait: the last one to close it resets them */
    if (!report_wants(REPORT_NORMAL))
        return;
    report_begin(&r, "stop");
    report_number(&r, "processes", (uint64_t)p->processes);
    report_end(&r);
}

/* With --once and --max-accepts, 0 means that all were served and ended in order. */
static int outcome(const struct worker_job *job, int exit_status)
{
    uint64_t wanted = (uint64_t)job->settings->max_accepts;
    return exit_status == 0 && wanted && shared_count(job->shared, -1, COUNT_IN_ORDER) < wanted ? 1 : exit_status;
}

static int most_restarts(const struct settings *s)
{
    if (s->handed_over.connected >= 0) /* a connection cannot be served again */
        return 0;
    return s->max_restarts ? s->max_restarts : INT_MAX;
}

static int serve(struct program *p, struct worker_job *job)
{
    const struct settings *s = &p->settings;
    const struct fork_options options = {.max_restarts = most_restarts(s),
                                         .ready = workers_serve,
                                         .restart = log_restart,
                                         .ended = worker_ended,
                                         .give_up = log_give_up,
                                         .counts_as = counts_as,
                                         .stopping = stop_supervisor,
                                         .tick = tick,
                                         .tick_seconds = notify_watchdog_seconds(),
                                         .shared = job->shared,
                                         .hands_out = true,
                                         .taken = workers_have_taken,
                                         .taken_seconds = TAKEN_SECONDS,
                                         .helpers = settings_have_metrics(s),
                                         .arg = p};
    int exit_status;
    if (!settings_need_supervisor(s)) {
        job->serving = tell_ready;
        return outcome(job, worker_run(job));
    }
    int task = fork_processes(p->processes, &options, &exit_status);
    if (task < 0) {
        if (errno)
            report_error("cannot start %d processes: %s", p->processes, strerror(errno));
        listeners_unlink(&p->listeners);
        metrics_unlink(&p->metrics);
        return outcome(job, exit_status);
    }
    close_ready_fd(p);
    if (task == p->processes)
        return metrics_execute(&p->metrics, job->shared, task);
    metrics_close(&p->metrics);
    listeners_keep_set(&p->listeners, task);
    job->supervised = true;
    job->serving = worker_serves;
    return worker_run(job);
}

static struct shared *make_shared(const struct program *p, struct errbuf *err)
{
    const struct settings *s = &p->settings;
    const struct shared_options options = {.processes = p->processes,
                                           .supervised = settings_need_supervisor(s),
                                           .max_connections = max_connections(p),
                                           .max_per_ip = (unsigned)s->max_per_ip,
                                           .max_rate = (unsigned)s->max_rate,
                                           .max_accepts = (uint64_t)s->max_accepts,
                                           .live = settings_have_metrics(s) ? BOARD_ROWS : 0,
                                           .annex_bytes = settings_have_metrics(s) ? board_size(s) : 0};
    return shared_new(&options, err);
}

/* Whoever has to show a certificate is known. */
static bool asks_everyone(const struct settings *s)
{
    bool all = settings_use_tls(s);
    for (int i = s->self_signed ? 0 : 1; i <= s->certificate_count; i++)
        all &=
            s->certificates[i].ca && (s->certificates[i].verify == TLS_VERIFY_DEFAULT || s->certificates[i].verify == TLS_VERIFY_REQUIRE);
    return all;
}

static void warn_if_open_to_all(const struct settings *s)
{
    bool tcp = false;
    for (int i = 0; i < s->endpoint_count; i++)
        tcp |= s->endpoints[i].port != NULL;
    if (tcp && s->bind_count == 0 && !s->allow[0] && !asks_everyone(s) && s->handler->flags & HANDLER_RUNS_PROGRAMS)
        report_warning("everyone who can reach this machine can run \"%s\" (--bind 127.0.0.1 for this machine only, "
                       "--allow CIDR for some, --bind 0.0.0.0 --bind :: if it is meant)",
                       s->handler_arguments[0]);
}

static void fill_handler_options(struct program *p)
{
    const struct settings *s = &p->settings;
    if (s->root)
        p->null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    p->handler_options.max_buffer_bytes = s->max_buffer_bytes;
    p->handler_options.send_proxy = s->send_proxy;
    p->handler_options.recv_only = s->recv_only;
    p->handler_options.send_only = s->send_only;
    p->handler_options.balance = s->balance;
    p->handler_options.connect_timeout = s->connect_timeout;
    p->handler_options.once = s->max_accepts == 1;
    p->handler_options.tls = settings_use_tls(s);
    p->handler_options.forward_tls = s->forward_ssl;
    p->handler_options.forward_insecure = s->forward_insecure;
    p->handler_options.forward_tls_ca = s->forward_ca;
    p->handler_options.forward_tls_name = s->forward_name;
    p->handler_options.exec_io = s->exec_io;
    p->handler_options.watch_bytes = settings_watch_bytes(s);
    p->handler_options.spawn = (struct spawner_options){.stderr_to = (enum spawn_stderr)s->stderr_to,
                                                        .directory = s->directory,
                                                        .clear_environment = s->clear_environment,
                                                        .variables = s->variables,
                                                        .warm = (unsigned)s->warm,
                                                        .kill_after_seconds = s->kill_after,
                                                        .null_fd = p->null_fd,
                                                        .max_files = p->inherited_max_files};
    p->handler_options.root = s->root;
    p->handler_options.show_progress = s->verbosity >= 0 && isatty(STDERR_FILENO);
}

static int examine(void *arg, struct errbuf *err)
{
    struct program *p = arg;
    const struct handler *h = p->settings.handler;
    return h->examine ? h->examine(p->handler_config, &p->handler_options, err) : 0;
}

static int configure(struct program *p, struct errbuf *err)
{
    const struct settings *s = &p->settings;
    const struct handler *h = s->handler;
    if (h->configure && h->configure(s->handler_arguments, &p->handler_options, s->check, &p->handler_config, err) != 0)
        return -1;
    if (privileges_rehearse(&p->privileges, examine, p, err) == 0)
        return 0;
    if (h->release)
        h->release(p->handler_config);
    return -1;
}

static int confine(void *arg, struct errbuf *err)
{
    struct program *p = arg;
    return privileges_give_up(&p->privileges, err);
}

static int check(struct program *p)
{
    struct errbuf err;
    bool good = listeners_check(&p->settings, p->processes, &err) == 0 && metrics_check(&p->settings, &err) == 0;
    return good ? 0 : refuse(err.text);
}

/* Those of the service last: nothing of it is there before all else is well. */
static int open_sockets(struct program *p, struct errbuf *err)
{
    if (metrics_open(&p->metrics, &p->settings, err) != 0)
        return -1;
    if (listeners_open(&p->listeners, &p->settings, p->processes, err) == 0) {
        if (ssl_save_certificate(&p->ssl, err) == 0)
            return 0;
        listeners_unlink(&p->listeners);
        listeners_close(&p->listeners);
    }
    metrics_unlink(&p->metrics);
    metrics_close(&p->metrics);
    return -1;
}

static int listen_and_serve(struct program *p, struct worker_job *job)
{
    struct errbuf err;
    hold_back(SIGTERM); /* whom the kernel lets in from now on is served */
    job->shared = make_shared(p, &err);
    if (!job->shared)
        return refuse(err.text);
    if (open_sockets(p, &err) != 0)
        return refuse(err.text);
    if (settings_have_metrics(&p->settings)) {
        p->board = job->board = shared_annex(job->shared);
        unsigned total = max_connections(p);
        board_fill(p->board, &p->settings, &p->listeners, p->processes, total ? total : job->max_connections * (unsigned)p->processes);
    }
    sink_use();
    listeners_log(&p->listeners, &p->settings, p->processes);
    metrics_log(&p->metrics);
    ssl_log_certificate(&p->ssl);
    warn_if_open_to_all(&p->settings);
    warn_of_few_descriptors(p);
    warn_of_root_in_chroot(&p->settings);
    int status = serve(p, job);
    listeners_close(&p->listeners);
    metrics_close(&p->metrics);
    shared_free(job->shared);
    return status;
}

static int run(struct program *p, bool hangup_ignored)
{
    struct settings *s = &p->settings;
    struct errbuf err;
    struct worker_job job = {.settings = s,
                             .handler_options = &p->handler_options,
                             .listeners = &p->listeners,
                             .ssl = &p->ssl,
                             .files = &p->loaded,
                             .max_connections = max_connections_of_one(p),
                             .hangup_ignored = hangup_ignored,
                             .hangup_is_term = hangup_is_term,
                             .confine = confine,
                             .arg = p};

    if (notify_setup(&err) != 0)
        return refuse(err.text);
    fill_handler_options(p);
    p->processes = s->processes ? s->processes : cpu_count();
    if (sink_open(s->log_to, s->check, &err) != 0)
        return refuse(err.text);
    if (privileges_find(&p->privileges, s, &err) != 0)
        return refuse(err.text);
    if (files_read(&p->loaded, s, NULL, &err) != 0 || ssl_open(&p->ssl, s, &err) != 0 || configure(p, &err) != 0)
        return refuse(err.text);
    job.handler_config = p->handler_config;
    int status = s->check ? check(p) : listen_and_serve(p, &job);
    if (s->handler->release)
        s->handler->release(p->handler_config);
    ssl_close(&p->ssl);
    return status;
}

static int act(struct program *p, int todo, bool hangup_ignored, const struct errbuf *err)
{
    switch (todo) {
    case OPTIONS_RUN:
        raise_descriptor_limit(p);
        return run(p, hangup_ignored);
    case OPTIONS_HELP:
        options_help(stdout);
        break;
    case OPTIONS_VERSION:
        puts("hark " HARK_VERSION);
        break;
    default:
        return refuse(err->text);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

static void die_of(int number)
{
    sigset_t none;
    sigemptyset(&none);
    signal(number, SIG_DFL);
    raise(number);
    sigprocmask(SIG_SETMASK, &none, NULL); /* the loop had blocked it, to read it from a descriptor */
}

int main(int argc, char **argv)
{
    struct program p = {.metrics.program_fd = -1};
    struct errbuf err;

    if (argc > 0 && strcmp(argv[0], METRICS_NAME) == 0)
        return metrics_main(argv);
    open_standard_descriptors();
    p.had_terminal = has_terminal();
    syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC); /* whatever was inherited is not for children */
    bool hangup_ignored = set_up_signals();
    int todo = options_parse(argc, argv, &p.settings, &err);
    report_setup((enum report_level)p.settings.verbosity, p.settings.json);
    int status = act(&p, todo, hangup_ignored, &err);
    report_finish();
    files_release(&p.loaded);
    privileges_release(&p.privileges);
    settings_release(&p.settings);
    if (status == 128 + SIGINT && getpid() != 1)
        die_of(SIGINT); /* so that a shell loop stops as well */
    return status;
}
