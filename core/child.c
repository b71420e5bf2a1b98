/* child.c - the end of a child: its exit, or that of the stream it is on.
 *
 * A pidfd says which child has exited. waitpid(-1) would have to find out, and walks over all children each time: with 2000 asleep a
 * connection cost 1.25 times as much. It is there for pid 1, which inherits orphans, and where the kernel has no pidfd to give. */
#include <errno.h>
#include <search.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"

static const double END_NOW_SECONDS = 1; /* from TERM to KILL when the server ends */

struct reaper {
    ev_signal watcher;
    void *children; /* tsearch(3), by pid */
    unsigned spawners;
};

static int by_pid(const void *a, const void *b)
{
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return x < y ? -1 : x > y;
}

void child_forget(struct child *c)
{
    struct engine *engine = c->spawner->engine;
    tdelete(c, &engine->reaper->children, by_pid);
    timeout_stop(&c->timer);
    if (c->exit_watcher.fd >= 0) {
        ev_io_stop(engine->loop, &c->exit_watcher);
        close(c->exit_watcher.fd);
    }
    if (c->stderr_reader)
        line_reader_catch_up(c->stderr_reader); /* its last words come before the end of its connection */
    if (c->stderr_reader)
        line_reader_on_end(c->stderr_reader, NULL); /* background processes may write on */
    if (c->pipes)
        iostream_on_close(c->pipes, NULL, NULL);
    free(c);
}

/* ---- its exit ---- */

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void keep_result(struct iostream *s, int status, const struct rusage *usage)
{
    s->child_result = malloc(sizeof *s->child_result);
    if (s->child_result)
        *s->child_result = (struct child_result){
            .status = status, .cpu_seconds = seconds_of(usage->ru_utime) + seconds_of(usage->ru_stime), .max_rss_kib = usage->ru_maxrss};
}

/* What it wrote is in the pipe, and goes to the client still; what the client sends has no reader any more. */
static void empty_pipes(struct iostream *pipes)
{
    pipes->dry_is_eof = true;
    write_abandon(pipes);
    if (read_wanted(pipes))
        read_take(pipes);
    iostream_settle(pipes);
    iostream_update(pipes);
}

static void child_exited(struct child *c, int status, const struct rusage *usage)
{
    struct iostream *s = c->stream, *pipes = c->pipes;
    struct spawner *spawner = c->spawner;

    if (!s) {
        warm_exited(c);
        return;
    }
    keep_result(s, status, usage);
    s->child = NULL; /* what on_stderr does to the stream now, it does to one without a child; and it may free the spawner */
    spawner->children--;
    child_forget(c);
    if (!spawner->freed)
        warm_hold_back(spawner);
    iostream_release_child(s, pipes && s->relay_from == pipes);
    if (pipes)
        empty_pipes(pipes);
}

static void on_sigchld(struct ev_loop *loop, ev_signal *watcher, int events)
{
    (void)loop, (void)events;
    struct engine *engine = watcher->data;
    struct reaper *reaper = container_of(watcher, struct reaper, watcher);
    struct rusage usage;
    pid_t pid;
    int status;

    engine_enter(engine);
    while (engine->reaper && (pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        struct child **found = tfind(&pid, &reaper->children, by_pid);
        if (found)
            child_exited(*found, status, &usage);
        /* else somebody's orphan: pid 1 inherits those */
    }
    engine_leave(engine);
}

static void watch_sigchld(struct engine *engine)
{
    struct reaper *reaper = engine->reaper;
    if (ev_is_active(&reaper->watcher))
        return;
    ev_signal_start(engine->loop, &reaper->watcher);
    ev_unref(engine->loop);                                   /* the streams keep the loop running while they have children */
    ev_feed_event(engine->loop, &reaper->watcher, EV_SIGNAL); /* for those that have exited already */
}

static void on_exit_watcher(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop;
    struct child *c = container_of(watcher, struct child, exit_watcher);
    struct engine *engine = c->spawner->engine;
    struct rusage usage = {0};
    int status = 0;

    engine_enter(engine);
    if (events & EV_ERROR) /* the kernel had no room for the watcher */
        watch_sigchld(engine);
    if (wait4(c->pid, &status, WNOHANG, &usage) != 0) /* an error: somebody else has reaped it */
        child_exited(c, status, &usage);
    engine_leave(engine);
}

int child_watch(struct child *c)
{
    struct engine *engine = c->spawner->engine;
    int fd = (int)syscall(SYS_pidfd_open, c->pid, 0); /* close-on-exec by itself */
    ev_io_init(&c->exit_watcher, on_exit_watcher, fd, EV_READ);
    if (!tsearch(c, &engine->reaper->children, by_pid)) {
        kill(-c->pid, SIGKILL);
        waitpid(c->pid, NULL, 0);
        if (fd >= 0)
            close(fd);
        errno = ENOMEM;
        return -1;
    }
    if (fd >= 0)
        ev_io_start(engine->loop, &c->exit_watcher);
    else
        watch_sigchld(engine);
    return 0;
}

int reaper_get(struct engine *engine)
{
    struct reaper *reaper = engine->reaper;
    if (!reaper) {
        reaper = calloc(1, sizeof *reaper);
        if (!reaper)
            return -1;
        ev_signal_init(&reaper->watcher, on_sigchld, SIGCHLD);
        reaper->watcher.data = engine;
        engine->reaper = reaper;
        if (getpid() == 1)
            watch_sigchld(engine);
    }
    reaper->spawners++;
    return 0;
}

void reaper_put(struct engine *engine)
{
    struct reaper *reaper = engine->reaper;
    if (--reaper->spawners > 0)
        return;
    if (ev_is_active(&reaper->watcher)) {
        ev_ref(engine->loop);
        ev_signal_stop(engine->loop, &reaper->watcher);
    }
    free(reaper);
    engine->reaper = NULL;
}

/* ---- the end of its stream ---- */

static void on_kill_timer(struct timeout *t)
{
    struct child *c = container_of(t, struct child, timer);
    kill(-c->pid, c->terminated ? SIGKILL : SIGTERM);
    if (!c->terminated) {
        c->terminated = true;
        timeout_start(c->spawner->engine, t, c->spawner->options.kill_after_seconds, on_kill_timer);
    }
}

static void kill_after(struct child *c, double seconds)
{
    if (timeout_start(c->spawner->engine, &c->timer, seconds, on_kill_timer) != 0)
        kill(-c->pid, SIGKILL);
}

void child_end_now(struct child *c)
{
    double delay = c->spawner->options.kill_after_seconds;
    kill(-c->pid, SIGTERM);
    c->terminated = true;
    kill_after(c, delay > 0 && delay < END_NOW_SECONDS ? delay : END_NOW_SECONDS);
}

/* The child's copies are the same socket, so it finds the end there. Disconnecting a TCP socket resets it, whoever shares it. */
static void cut_off(struct iostream *s)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    int fd = s->transport->read_fd;
    if (s->reason == CLOSE_FINISHED || connect(fd, &nobody, sizeof nobody) != 0)
        shutdown(fd, SHUT_RDWR);
}

void child_orphaned(struct iostream *s)
{
    struct child *c = s->child;
    if (s->lent && !s->peer_gone)
        cut_off(s);
    if (s->reason == CLOSE_SHUTDOWN)
        child_end_now(c);
    else if (c->spawner->options.kill_after_seconds > 0)
        kill_after(c, c->spawner->options.kill_after_seconds);
}

/* ---- its pipes ---- */

static void on_pipes_close(struct iostream *pipes, void *arg)
{
    (void)pipes;
    struct child *c = arg;
    c->pipes = NULL;
}

void child_relay(struct child *c, struct iostream *s)
{
    c->pipes->write_may_end = true;
    iostream_on_close(c->pipes, on_pipes_close, c);
    if (iostream_relay(s, c->pipes) != 0 || iostream_relay(c->pipes, s) != 0)
        iostream_fail(s, CLOSE_ERROR, errno);
}
