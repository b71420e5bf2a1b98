/* worker.c - the life of one serving process: loop, signals, server, drain. */
#include "worker.h"

#include <errno.h>
#include <ev.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "access_log.h"
#include "handover.h"
#include "notify.h"
#include "report.h"
#include "sandbox.h"

/* A signal that reaches a process twice, through the terminal or systemd and through the supervisor, counts once. */
static const double SAME_SIGNAL_SECONDS = 1;

static const double PUBLISH_SECONDS = 1;
static const double FOR_EVER = 1e9; /* seconds */

struct worker {
    const struct worker_job *job;
    struct ev_loop *loop;
    struct tcpserver *server;
    struct handler_run run;
    ev_io signal_watcher;
    ev_timer watchdog, publisher;
    ev_timer drain_timer, idle_timer, first_turn;
    void (*drain)(struct tcpserver *); /* who waits on a socket that a service manager keeps is its next server's */
    ev_io end_watcher;                 /* another process saw that the server's work is done */
    ev_io drain_watcher;               /* SIGTERM came to another one */
    ev_io inbox_watcher;               /* the supervisor has read files again */
    pid_t parent;
    double term_at, status_at; /* when the first SIGTERM came, and the last SIGUSR2; 0: not yet */
    int exit_status;
    bool accepting_over; /* nothing listens any more */
    bool ending;         /* streams are being cut off */
};

/* Handlers talk to the program through functions without an argument of ours; there is one worker in a process. */
static struct worker *this_worker;

/* ---- the end ---- */

static void leave_if_done(struct worker *w)
{
    const struct handler *h = w->job->settings->handler;
    bool busy = h->busy && h->busy(&w->run) && !w->ending;
    if (tcpserver_connections(w->server) == 0 && w->accepting_over && !tcpserver_listening(w->server) && !busy)
        ev_break(w->loop, EVBREAK_ALL);
}

static void stop_accepting(struct worker *w, void (*stop)(struct tcpserver *))
{
    if (w->accepting_over)
        return;
    w->accepting_over = true;
    if (!w->job->supervised)
        listeners_unlink(w->job->listeners);
    stop(w->server);
}

static void end_now(struct worker *w)
{
    stop_accepting(w, tcpserver_stop);
    tcpserver_stop(w->server); /* it may be draining */
    w->ending = true;
    tcpserver_abort(w->server);
    leave_if_done(w);
}

static bool all_accepted(const struct worker *w)
{
    uint64_t wanted = (uint64_t)w->job->settings->max_accepts;
    return wanted && shared_count(w->job->shared, -1, COUNT_ACCEPTS) >= wanted;
}

/* The server's work is done: nobody is accepted any more, those who are there are served to their end. */
static void finish(struct worker *w)
{
    if (all_accepted(w)) {
        stop_accepting(w, tcpserver_stop);
        tcpserver_abort_handshakes(w->server); /* they would have been next */
    } else {
        stop_accepting(w, w->drain);
    }
    leave_if_done(w);
}

static void finish_everywhere(struct worker *w)
{
    shared_end(w->job->shared);
    finish(w);
}

/* The kernel had no room for a watcher that this process cannot do without. It is told in the first turn: nobody is served yet. */
static bool is_unwatched(struct worker *w, int events)
{
    if (!(events & EV_ERROR))
        return false;
    report_error("cannot wait for events: %s", strerror(ENOMEM));
    w->exit_status = 1;
    end_now(w);
    return true;
}

static void on_end(struct ev_loop *loop, ev_io *watcher, int events)
{
    if (is_unwatched(watcher->data, events))
        return;
    ev_io_stop(loop, watcher);
    finish(watcher->data);
}

/* --exit-idle: every process looks, again when the time can have passed. */
static void on_idle_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)events;
    struct worker *w = timer->data;
    const struct handler *h = w->job->settings->handler;
    double limit = w->job->settings->exit_idle, idle = shared_idle_seconds(w->job->shared);
    bool busy = h->busy && h->busy(&w->run);
    if (idle >= limit && !busy) {
        finish_everywhere(w);
        return;
    }
    ev_timer_set(timer, busy ? limit : limit - idle, 0);
    ev_timer_start(loop, timer);
}

static void on_inbox(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct worker *w = watcher->data;
    if (is_unwatched(w, events))
        return;
    if (handover_take(w->job->files, w->job->ssl) != 0)
        ev_io_stop(loop, watcher);
    if (w->job->ssl->context)
        tcpserver_set_tls(w->server, w->job->ssl->context);
}

static void on_drain_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    end_now(timer->data);
}

static void limit_drain(struct worker *w)
{
    if (w->job->settings->drain_timeout > 0 && !ev_is_active(&w->drain_timer))
        ev_timer_start(w->loop, &w->drain_timer);
}

static void on_drain(struct ev_loop *loop, ev_io *watcher, int events)
{
    if (is_unwatched(watcher->data, events))
        return;
    ev_io_stop(loop, watcher);
    limit_drain(watcher->data);
}

/* The first turn does not wait: what wakes the loop when something could not be watched may be what could not be watched. */
static void on_first_turn(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)timer, (void)events;
}

static void start_timers(struct worker *w)
{
    const struct settings *s = w->job->settings;
    int end_fd = shared_end_fd(w->job->shared), drain_fd = shared_drain_fd(w->job->shared), inbox = fork_inbox();
    ev_timer_init(&w->drain_timer, on_drain_timer, s->drain_timeout, 0);
    ev_timer_init(&w->idle_timer, on_idle_timer, s->exit_idle, 0);
    ev_io_init(&w->end_watcher, on_end, end_fd, EV_READ);
    ev_io_init(&w->drain_watcher, on_drain, drain_fd, EV_READ);
    ev_io_init(&w->inbox_watcher, on_inbox, inbox, EV_READ);
    w->drain_timer.data = w->idle_timer.data = w->end_watcher.data = w->drain_watcher.data = w->inbox_watcher.data = w;
    if (s->exit_idle > 0)
        ev_timer_start(w->loop, &w->idle_timer);
    if (end_fd >= 0)
        ev_io_start(w->loop, &w->end_watcher);
    if (drain_fd >= 0)
        ev_io_start(w->loop, &w->drain_watcher);
    if (inbox >= 0)
        ev_io_start(w->loop, &w->inbox_watcher);
}

static void tell_stop(const struct worker *w, const char *signal)
{
    struct report r;
    if (w->job->supervised || w->term_at > 0 || w->ending)
        return;
    char status[64];
    snprintf(status, sizeof status, "no more connections, still open: %u", tcpserver_connections(w->server));
    notify_stopping(status);
    if (!report_wants(REPORT_NORMAL))
        return;
    report_begin(&r, "stop");
    report_text(&r, "signal", signal);
    report_number(&r, "connections", tcpserver_connections(w->server));
    report_end(&r);
}

/* ---- signals ---- */

static bool parent_has_gone(const struct worker *w)
{
    return w->job->supervised && getppid() != w->parent;
}

static double monotonic_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void on_term(struct worker *w)
{
    bool again = w->term_at > 0 && monotonic_seconds() - w->term_at >= SAME_SIGNAL_SECONDS;
    tell_stop(w, "TERM");
    if (w->term_at <= 0)
        w->term_at = monotonic_seconds();
    if (again || parent_has_gone(w)) {
        end_now(w);
        return;
    }
    if (w->job->supervised) /* the others have the same listeners, which let nobody in from now on */
        shared_drain(w->job->shared);
    bool one_at_a_time = w->job->settings->handler->flags & HANDLER_ONE_AT_A_TIME; /* who waits might wait for ever */
    stop_accepting(w, w->job->settings->max_accepts || one_at_a_time ? tcpserver_stop : w->drain);
    limit_drain(w);
    leave_if_done(w);
}

static void on_reload(struct worker *w)
{
    if (w->accepting_over)
        return;
    notify_reloading();
    if (files_reload(w->job->files, w->job->ssl, NULL) == 0 && w->job->ssl->context)
        tcpserver_set_tls(w->server, w->job->ssl->context);
    notify_ready(NULL);
}

/* A supervisor sees to these itself, and sends what comes of it (on_inbox). */
static bool is_for_supervisor(const struct worker *w, uint32_t number)
{
    return w->job->supervised && (number == SIGHUP || number == SIGUSR1);
}

static void on_watchdog(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)timer, (void)events;
    notify_watchdog();
}

/* A supervisor does it itself. */
static void start_watchdog(struct worker *w)
{
    double seconds = notify_watchdog_seconds();
    if (w->job->supervised || seconds <= 0)
        return;
    ev_timer_init(&w->watchdog, on_watchdog, 0, seconds);
    ev_timer_start(w->loop, &w->watchdog);
}

static void on_publish(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    const struct worker *w = timer->data;
    tcpserver_publish(w->server);
}

/* For --metrics. Whatever the load, it costs the same: nothing is told when something happens. */
static void start_publisher(struct worker *w)
{
    if (!w->job->board)
        return;
    ev_timer_init(&w->publisher, on_publish, PUBLISH_SECONDS, PUBLISH_SECONDS);
    w->publisher.data = w;
    ev_timer_start(w->loop, &w->publisher);
}

static void log_status(const struct worker *w)
{
    struct report r;
    struct shared *shared = w->job->shared;
    int task = task_id() > 0 ? task_id() : 0;
    uint64_t in, out, rejects = 0;
    if (!report_wants(REPORT_NORMAL))
        return;
    for (int reason = 0; reason < REJECT_REASONS; reason++)
        rejects += shared_count(shared, task, (enum shared_count)(COUNT_REJECTS + reason));
    tcpserver_bytes(w->server, &in, &out);
    report_begin(&r, "status");
    report_number(&r, "process", (uint64_t)task);
    report_number(&r, "pid", (uint64_t)getpid());
    report_number(&r, "connections", tcpserver_connections(w->server));
    report_number(&r, "in", in);
    report_number(&r, "out", out);
    report_number(&r, "accepts", shared_count(shared, task, COUNT_ACCEPTS));
    report_number(&r, "rejects", rejects);
    report_number(&r, "restarts", shared_count(shared, task, COUNT_RESTARTS));
    report_end(&r);
}

static void on_status(struct worker *w)
{
    double now = monotonic_seconds();
    if (w->status_at <= 0 || now - w->status_at >= SAME_SIGNAL_SECONDS)
        log_status(w);
    w->status_at = now;
}

static void on_signal(struct worker *w, uint32_t number)
{
    if (is_for_supervisor(w, number))
        return;
    switch (number) {
    case SIGTERM:
        on_term(w);
        break;
    case SIGINT:
        tell_stop(w, "INT");
        w->exit_status = 128 + SIGINT;
        end_now(w);
        break;
    case SIGQUIT:
        tell_stop(w, "QUIT");
        end_now(w);
        break;
    case SIGHUP:
        if (w->job->hangup_is_term(w->job->arg))
            on_term(w);
        else
            on_reload(w);
        break;
    case SIGUSR1:
        report_reopen();
        break;
    case SIGUSR2:
        on_status(w);
        break;
    }
}

static void on_signals(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop;
    struct worker *w = watcher->data;
    struct signalfd_siginfo info;
    if (is_unwatched(w, events))
        return;
    while (read(watcher->fd, &info, sizeof info) == sizeof info)
        on_signal(w, info.ssi_signo);
}

/* They come through a descriptor: no handler runs anywhere, and a child has nothing to undo but the signal mask. Not libev's descriptor,
 * since libev keeps it to itself if that cannot be watched. */
static int hold_signals(struct worker *w, struct errbuf *err)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i] != SIGHUP || !w->job->hangup_ignored)
            sigaddset(&set, numbers[i]);
    }
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0)
        return errbuf_set(err, "cannot wait for signals: %s", strerror(errno));
    ev_io_init(&w->signal_watcher, on_signals, fd, EV_READ);
    w->signal_watcher.data = w;
    return 0;
}

/* ---- what the server calls ---- */

static bool is_refused(const struct sockaddr *peer, socklen_t length, void *arg)
{
    (void)length;
    const struct worker *w = arg;
    return !files_admit(w->job->files, peer);
}

static bool is_proxied(const struct sockaddr *peer, socklen_t length, void *arg)
{
    (void)length;
    const struct worker *w = arg;
    return networks_contain(w->job->files->proxies, peer);
}

static int on_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server;
    struct worker *w = arg;
    access_log_accept(s);
    if (all_accepted(w))
        finish_everywhere(w);
    return w->job->settings->handler->serve(&w->run, s);
}

static void on_stream_closed(struct iostream *s, void *arg)
{
    const struct worker *w = arg;
    access_log_close(s, w->run.lends_sockets);
}

static void on_refused(const struct sockaddr *peer, socklen_t length, enum reject_reason reason, void *unused)
{
    (void)unused;
    access_log_refuse(peer, length, reason);
}

static void on_rejected(struct iostream *s, void *arg)
{
    const struct worker *w = arg;
    enum close_reason reason = iostream_reason(s);
    if (reason == CLOSE_DENIED || reason == CLOSE_LIMIT)
        return;                        /* on_refused has told of that */
    bool late = !w->job->ssl->context; /* as many as were to be served had come first */
    access_log_reject(s, reason == CLOSE_PROXY ? REJECT_PROXY : late ? REJECT_LIMIT : REJECT_HANDSHAKE);
}

static void on_exhausted(void *arg, int error)
{
    (void)arg;
    report_error("cannot accept connections for now: %s", strerror(error));
}

static void on_empty(void *arg)
{
    leave_if_done(arg);
}

/* ---- what handlers call ---- */

static void on_child_line(void *unused, uint64_t id, const char *line, size_t length)
{
    (void)unused;
    struct report r;
    report_begin(&r, "stderr");
    report_number(&r, "id", id);
    report_bytes(&r, "text", line, length);
    report_end(&r);
}

static void on_target(const char *name, double retry_seconds, const char *why)
{
    struct report r;
    if (this_worker->job->board)
        board_set_target(this_worker->job->board, task_id(), name, why ? monotonic_seconds() + retry_seconds : 0);
    if (!report_wants(REPORT_DEBUG))
        return;
    report_begin(&r, "target");
    report_text(&r, "name", name);
    report_text(&r, "state", why ? "down" : "up");
    if (why) {
        report_seconds(&r, "retry", retry_seconds);
        report_text(&r, "error", why);
    }
    report_end(&r);
}

static void on_target_connections(unsigned target, unsigned connections)
{
    if (this_worker->job->board)
        board_set_connections(this_worker->job->board, task_id(), target, connections);
}

static void on_handler_idle(void)
{
    leave_if_done(this_worker);
}

static void on_handler_failure(void)
{
    this_worker->exit_status = 1;
    shared_end(this_worker->job->shared); /* it would be no better after a restart */
    end_now(this_worker);
}

static const struct handler_host host = {.error = report_error,
                                         .child_line = on_child_line,
                                         .target = on_target,
                                         .target_connections = on_target_connections,
                                         .progress = report_progress,
                                         .idle = on_handler_idle,
                                         .fail = on_handler_failure};

/* ---- start ---- */

static int start_server(struct worker *w, struct errbuf *err)
{
    const struct worker_job *job = w->job;
    const struct handler *h = job->settings->handler;
    if (h->open && h->open(&w->run, err) != 0)
        return -1;
    struct tcpserver_options options = {.max_buffer_bytes = job->settings->max_buffer_bytes,
                                        .max_connections = job->max_connections,
                                        .blocking = w->run.lends_sockets,
                                        .count_addresses = h->flags & HANDLER_RUNS_PROGRAMS,
                                        .shared = job->shared,
                                        .tls = job->ssl->context,
                                        .handshake_seconds =
                                            job->settings->handshake_timeout > 0 ? job->settings->handshake_timeout : FOR_EVER,
                                        .max_handshakes = (unsigned)job->settings->max_handshakes,
                                        .refuse = job->files->allow || job->files->deny ? is_refused : NULL,
                                        .is_proxied = job->files->proxies ? is_proxied : NULL,
                                        .rejected = on_rejected,
                                        .refused = on_refused,
                                        .stream_closed = on_stream_closed,
                                        .exhausted = on_exhausted,
                                        .empty = on_empty};
    memcpy(options.timers, job->settings->timers, sizeof options.timers);
    w->server = tcpserver_new(w->loop, on_stream, w, &options, err);
    if (!w->server)
        return -1;
    w->drain = tcpserver_drain;
    for (int i = 0; i < job->listeners->count; i++) {
        if (job->listeners->sockets[i].handed_over)
            w->drain = tcpserver_stop;
        if (tcpserver_add_socket(w->server, job->listeners->sockets[i].fd, err) != 0)
            return -1;
    }
    listeners_give_away(job->listeners);
    if (job->settings->handed_over.connected >= 0) {
        w->accepting_over = true;
        tcpserver_add_connection(w->server, job->settings->handed_over.connected);
    }
    return 0;
}

static void log_process(const struct worker_job *job)
{
    struct report r;
    if (!report_wants(REPORT_DEBUG))
        return;
    report_begin(&r, "process");
    report_number(&r, "pid", (uint64_t)getpid());
    report_number(&r, "max_connections", job->max_connections);
    report_end(&r);
}

static int fail(const struct worker *w, const struct errbuf *err)
{
    report_error("%s", err->text);
    if (!w->job->supervised)
        listeners_unlink(w->job->listeners);
    return 1;
}

/* Those that pid 1 inherits. Who ended before it was said stays for us to reap. */
static void leave_children_to_the_kernel(void)
{
    signal(SIGCHLD, SIG_IGN);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

int worker_run(const struct worker_job *job)
{
    struct worker w = {.job = job, .parent = getppid()};
    const struct handler *h = job->settings->handler;
    struct errbuf err;

    this_worker = &w;
    /* A signal of the loop's own, that of children, comes through a descriptor, too. */
    w.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV | EVFLAG_SIGNALFD);
    if (!w.loop) {
        errbuf_set(&err, "cannot make an event loop: %s", strerror(errno));
        return fail(&w, &err);
    }
    if (hold_signals(&w, &err) != 0)
        return fail(&w, &err);
    w.run = (struct handler_run){.options = job->handler_options, .host = &host, .loop = w.loop, .config = job->handler_config};
    if ((h->prepare && h->prepare(&w.run, &err) != 0) || (job->confine && job->confine(job->arg, &err) != 0))
        return fail(&w, &err);
    if (!(h->flags & HANDLER_RUNS_PROGRAMS))
        leave_children_to_the_kernel();
    if (start_server(&w, &err) != 0)
        return fail(&w, &err);
    log_process(job);
    ev_io_start(w.loop, &w.signal_watcher); /* not before libev has a reserve of memory, which the server gives it */
    start_timers(&w);
    start_watchdog(&w);
    start_publisher(&w);
    if (job->settings->sandbox)
        sandbox_enter(job->settings);
    job->serving(job->arg);
    ev_timer_init(&w.first_turn, on_first_turn, 0, 0);
    ev_timer_start(w.loop, &w.first_turn);
    ev_run(w.loop, 0);
    if (h->close)
        h->close(&w.run);
    tcpserver_free(w.server);
    ev_loop_destroy(w.loop);
    close(w.signal_watcher.fd);
    return w.exit_status;
}
