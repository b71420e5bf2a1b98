/* spawn.c - one child program on a stream: its start, its standard error, its end. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "internal.h"
#include "launch.h"

static const double END_NOW_SECONDS = 1; /* from TERM to KILL when the server ends */

struct spawner {
    struct engine *engine;
    struct spawner_options options;
    char path[PATH_MAX];
    struct environment *environment;
    struct launcher *launcher;
    unsigned children;
};

struct child {
    pid_t pid; /* first: the key in the reaper's tree */
    struct spawner *spawner;
    struct iostream *stream;
    struct line_reader *stderr_reader; /* NULL when there is none any more */
    ev_io exit_watcher;                /* its pidfd; fd -1: SIGCHLD tells */
    struct timeout timer;
    bool terminated; /* TERM was sent, KILL is next */
};

/* ---- reaping ----
 * A pidfd says which child has exited. waitpid(-1) would have to find out, and walks over all children each time: with 2000 asleep a
 * connection cost 1.25 times as much. It is there for pid 1, which inherits orphans, and where the kernel has no pidfd to give. */

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

static void child_exited(struct child *c, int status)
{
    struct iostream *s = c->stream;
    tdelete(c, &s->engine->reaper->children, by_pid);
    timeout_stop(&c->timer);
    if (c->exit_watcher.fd >= 0) {
        ev_io_stop(s->engine->loop, &c->exit_watcher);
        close(c->exit_watcher.fd);
    }
    c->spawner->children--;
    if (c->stderr_reader)
        line_reader_catch_up(c->stderr_reader); /* its last words come before the end of its connection */
    if (c->stderr_reader)
        line_reader_on_end(c->stderr_reader, NULL); /* background processes may write on */
    free(c);
    s->child_status = status;
    iostream_release_child(s);
}

static void on_sigchld(struct ev_loop *loop, ev_signal *watcher, int events)
{
    (void)loop, (void)events;
    struct engine *engine = watcher->data;
    struct reaper *reaper = container_of(watcher, struct reaper, watcher);
    pid_t pid;
    int status;

    engine_enter(engine);
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct child **found = tfind(&pid, &reaper->children, by_pid);
        if (found)
            child_exited(*found, status);
        /* else somebody's orphan: pid 1 inherits those */
    }
    engine_leave(engine);
}

static void on_exit_watcher(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop, (void)events;
    struct child *c = container_of(watcher, struct child, exit_watcher);
    struct engine *engine = c->stream->engine;
    int status = 0;

    engine_enter(engine);
    if (waitpid(c->pid, &status, WNOHANG) != 0) /* an error: somebody else has reaped it */
        child_exited(c, status);
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

static void watch_exit(struct child *c)
{
    struct engine *engine = c->spawner->engine;
    int fd = (int)syscall(SYS_pidfd_open, c->pid, 0); /* close-on-exec by itself */
    ev_io_init(&c->exit_watcher, on_exit_watcher, fd, EV_READ);
    if (fd >= 0)
        ev_io_start(engine->loop, &c->exit_watcher);
    else
        watch_sigchld(engine);
}

static int reaper_get(struct engine *engine)
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

static void reaper_put(struct engine *engine)
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

/* ---- ending a child that has lost its client ---- */

static void on_kill_timer(struct timeout *t)
{
    struct child *c = container_of(t, struct child, timer);
    kill(-c->pid, c->terminated ? SIGKILL : SIGTERM);
    if (!c->terminated) {
        c->terminated = true;
        timeout_start(c->spawner->engine, t, c->spawner->options.kill_after_seconds, on_kill_timer);
    }
}

void child_orphaned(struct iostream *s)
{
    struct child *c = s->child;
    double delay = c->spawner->options.kill_after_seconds;
    if (!s->peer_gone)
        shutdown(s->transport->read_fd, SHUT_RDWR); /* the child's copies are the same socket: it finds the end there */
    if (s->reason == CLOSE_SHUTDOWN) {
        kill(-c->pid, SIGTERM);
        c->terminated = true;
        delay = delay < END_NOW_SECONDS ? delay : END_NOW_SECONDS;
    }
    if (timeout_start(s->engine, &c->timer, delay, on_kill_timer) != 0)
        kill(-c->pid, SIGKILL);
}

/* ---- starting one ---- */

static void close_pipe(int ends[2])
{
    int saved = errno;
    for (int i = 0; i < 2; i++) {
        if (ends[i] >= 0)
            close(ends[i]);
    }
    errno = saved;
}

static int open_stderr(const struct spawner *spawner, int ends[2])
{
    ends[0] = ends[1] = -1;
    if (spawner->options.stderr_null) {
        ends[1] = open("/dev/null", O_WRONLY | O_CLOEXEC);
        return ends[1] < 0 ? -1 : 0;
    }
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    return fcntl(ends[0], F_SETFL, O_NONBLOCK); /* not the writing end: that is the child's */
}

static int enter(struct spawner *spawner, struct child *c)
{
    if (!tsearch(c, &spawner->engine->reaper->children, by_pid)) {
        kill(-c->pid, SIGKILL); /* reaped as an orphan is */
        watch_sigchld(spawner->engine);
        errno = ENOMEM;
        return -1;
    }
    watch_exit(c);
    spawner->children++;
    c->stream->child = c;
    c->stream->lent = true;
    iostream_update(c->stream);
    return 0;
}

int spawner_start(struct spawner *spawner, struct iostream *s)
{
    struct child *c = calloc(1, sizeof *c);
    int ends[2] = {-1, -1};
    if (!c || open_stderr(spawner, ends) != 0)
        goto fail;
    c->spawner = spawner;
    c->stream = s;
    if (ends[0] >= 0) {
        c->stderr_reader = line_reader_new(spawner->engine, ends[0], s->id, spawner->options.on_stderr, spawner->options.arg);
        if (!c->stderr_reader)
            goto fail;
        ends[0] = -1; /* the reader's now */
        line_reader_on_end(c->stderr_reader, &c->stderr_reader);
    }
    if (!s->lent && fcntl(s->transport->read_fd, F_SETFL, 0) != 0) /* blocking, as programs expect it */
        goto fail;
    c->pid = launch(spawner->launcher, s->transport->read_fd, ends[1], environment_for(spawner->environment, s));
    close_pipe(ends);
    ends[1] = -1;
    if (c->pid < 0 || enter(spawner, c) != 0)
        goto fail;
    return 0;

fail:
    close_pipe(ends);
    if (c && c->stderr_reader) {
        int saved = errno;
        line_reader_catch_up(c->stderr_reader); /* finds the end of the pipe, and goes */
        errno = saved;
    }
    free(c);
    return -1;
}

unsigned spawner_children(const struct spawner *spawner)
{
    return spawner->children;
}

struct spawner *spawner_new(struct ev_loop *loop, const struct spawner_options *options, struct errbuf *err)
{
    struct spawner *spawner = calloc(1, sizeof *spawner);
    if (!spawner || !(spawner->engine = engine_get(loop, err))) {
        free(spawner);
        return NULL;
    }
    spawner->options = *options;
    if (spawn_find_program(options->argv[0], spawner->path, sizeof spawner->path, err) != 0)
        goto fail;
    spawner->environment = environment_new();
    spawner->launcher = launcher_new(spawner->path, options->argv, options->max_files);
    if (!spawner->environment || !spawner->launcher || reaper_get(spawner->engine) != 0) {
        errbuf_set(err, "cannot prepare to run \"%s\": %s", options->argv[0], strerror(errno));
        goto fail;
    }
    return spawner;

fail:
    launcher_free(spawner->launcher);
    environment_free(spawner->environment);
    engine_put(spawner->engine);
    free(spawner);
    return NULL;
}

void spawner_free(struct spawner *spawner)
{
    reaper_put(spawner->engine);
    launcher_free(spawner->launcher);
    environment_free(spawner->environment);
    engine_put(spawner->engine);
    free(spawner);
}
