/* engine.c - what all streams of one loop share: scratch memory, deferred work, timeouts, and the set that notices hangups. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

enum {
    DEFERRED_BATCH = 256, /* callbacks that call for more callbacks must not keep the loop from its events */
    HANGUP_BATCH = 64
};

static _Thread_local LIST_HEAD(, engine) engines; /* in practice one: a loop belongs to a thread */

static void on_idle(struct ev_loop *loop, ev_idle *idle, int events)
{
    (void)loop, (void)events;
    struct engine *engine = container_of(idle, struct engine, idle);
    engine_enter(engine);
    engine_leave(engine);
}

static void on_hangup(struct ev_loop *loop, ev_io *watcher, int events)
{
    struct engine *engine = container_of(watcher, struct engine, hangup_watcher);
    struct epoll_event reported[HANGUP_BATCH];

    engine_enter(engine);
    if (events & EV_ERROR) /* the kernel had no room for the watcher, and libev has stopped it: hangup_watch starts it again */
        ev_ref(loop);
    int count = epoll_wait(engine->hangup_fd, reported, HANGUP_BATCH, 0);
    for (int i = 0; i < count; i++) {
        struct hangup *hangup = reported[i].data.ptr; /* alive until engine_leave, even if an earlier report ended it */
        if (hangup->fd >= 0)
            hangup->report(hangup, reported[i].events);
    }
    engine_leave(engine);
}

/* libev learns that the kernel has no room to watch something right before it waits, and would tell of it after the next event. */
static void before_waiting(struct ev_loop *loop) EV_NOEXCEPT
{
    struct engine *engine;
    if (ev_pending_count(loop) == 0)
        return;
    LIST_FOREACH (engine, &engines, entry) {
        if (engine->loop == loop)
            ev_async_send(loop, &engine->waker);
    }
}

static void on_wake(struct ev_loop *loop, ev_async *watcher, int events)
{
    (void)loop, (void)watcher, (void)events;
}

/* It wakes loops, and signals come through it, too: libev's own descriptor, an eventfd or else a pipe, which stays when the watcher is
 * stopped. libev ends the program where it gets neither, so there is to be room for a pipe. */
static int open_waker(struct engine *engine)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    close(ends[0]);
    close(ends[1]);
    ev_async_init(&engine->waker, on_wake);
    ev_async_start(engine->loop, &engine->waker);
    ev_async_stop(engine->loop, &engine->waker);
    ev_set_loop_release_cb(engine->loop, before_waiting, NULL);
    return 0;
}

static struct engine *engine_new(struct ev_loop *loop, struct errbuf *err)
{
    struct engine *engine = calloc(1, sizeof *engine);
    char *scratch = malloc(SCRATCH_BYTES);
    int hangup_fd = epoll_create1(EPOLL_CLOEXEC);
    if (engine)
        engine->loop = loop;
    if (!engine || !scratch || hangup_fd < 0 || memory_reserve() != 0 || open_waker(engine) != 0) {
        errbuf_set(err, "cannot set up the event engine: %s", strerror(errno));
        free(engine);
        free(scratch);
        if (hangup_fd >= 0)
            close(hangup_fd);
        return NULL;
    }
    engine->event = 1;
    engine->scratch = scratch;
    engine->hangup_fd = hangup_fd;
    TAILQ_INIT(&engine->queue);
    LIST_INIT(&engine->timeouts);
    ev_idle_init(&engine->idle, on_idle);
    ev_set_priority(&engine->idle, EV_MAXPRI);
    ev_io_init(&engine->hangup_watcher, on_hangup, hangup_fd, EV_READ);
    LIST_INSERT_HEAD(&engines, engine, entry);
    return engine;
}

static void engine_free(struct engine *engine)
{
    resolver_release(engine);
    splice_pool_free(engine);
    if (ev_is_active(&engine->hangup_watcher) || ev_is_pending(&engine->hangup_watcher)) /* pending alone: stopped by libev */
        ev_ref(engine->loop);
    ev_io_stop(engine->loop, &engine->hangup_watcher);
    ev_idle_stop(engine->loop, &engine->idle);
    ev_set_loop_release_cb(engine->loop, NULL, NULL);
    close(engine->hangup_fd);
    timeout_lists_free(engine);
    LIST_REMOVE(engine, entry);
    if (LIST_EMPTY(&engines))
        memory_release();
    free(engine->scratch);
    free(engine);
}

struct engine *engine_get(struct ev_loop *loop, struct errbuf *err)
{
    struct engine *engine;
    LIST_FOREACH (engine, &engines, entry) {
        if (engine->loop == loop)
            break;
    }
    if (!engine)
        engine = engine_new(loop, err);
    if (engine)
        engine->users++;
    return engine;
}

void engine_put(struct engine *engine)
{
    if (--engine->users == 0 && engine->depth == 0)
        engine_free(engine);
}

void engine_run_out(struct engine *engine)
{
    struct deferred *d;
    while ((d = TAILQ_FIRST(&engine->queue))) {
        deferred_cancel(engine, d);
        d->run(d);
    }
}

static void run_deferred(struct engine *engine)
{
    struct deferred *d;
    for (int left = DEFERRED_BATCH; left > 0 && (d = TAILQ_FIRST(&engine->queue)); left--) {
        deferred_cancel(engine, d);
        d->run(d);
    }
    if (TAILQ_EMPTY(&engine->queue))
        ev_idle_stop(engine->loop, &engine->idle);
    else
        ev_idle_start(engine->loop, &engine->idle);
}

void engine_enter(struct engine *engine)
{
    if (engine->depth++ == 0)
        engine->now = 0;
}

double engine_now(struct engine *engine)
{
    struct timespec t;
    if (engine->now == 0 || engine->depth == 0) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        engine->now = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    }
    return engine->now;
}

void engine_leave(struct engine *engine)
{
    if (engine->depth == 1 && (!TAILQ_EMPTY(&engine->queue) || ev_is_active(&engine->idle)))
        run_deferred(engine);
    if (--engine->depth > 0)
        return;
    engine->event++;
    if (engine->users == 0)
        engine_free(engine);
}

void engine_catch_up(struct engine *engine)
{
    if (engine->depth > 0)
        return;
    engine->event++;
    ev_now_update(engine->loop);
}

void engine_defer(struct engine *engine, struct deferred *d)
{
    if (is_deferred(d))
        return;
    TAILQ_INSERT_TAIL(&engine->queue, d, entry);
    if (engine->depth == 0)
        ev_idle_start(engine->loop, &engine->idle);
}

void engine_let_go(struct engine *engine, struct deferred *d, void (*run)(struct deferred *))
{
    d->run = run;
    if (engine->depth == 0)
        run(d);
    else
        engine_defer(engine, d);
}

void deferred_cancel(struct engine *engine, struct deferred *d)
{
    if (!is_deferred(d))
        return;
    TAILQ_REMOVE(&engine->queue, d, entry);
    d->entry.tqe_prev = NULL;
    if (engine->depth == 0 && TAILQ_EMPTY(&engine->queue)) /* nothing is left to keep the loop running for */
        ev_idle_stop(engine->loop, &engine->idle);
}

static int watch(struct engine *engine, struct hangup *hangup, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = hangup};
    if (epoll_ctl(engine->hangup_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return -1;
    hangup->fd = fd;
    if (!ev_is_active(&engine->hangup_watcher)) {
        ev_io_start(engine->loop, &engine->hangup_watcher);
        ev_unref(engine->loop);
    }
    return 0;
}

int hangup_watch(struct engine *engine, struct hangup *hangup, int fd, bool readable)
{
    /* EPOLLERR and EPOLLHUP come unasked; by edge, since nothing that we do would take them away. */
    if (watch(engine, hangup, fd, readable ? EPOLLIN : EPOLLET) != 0)
        return -1;
    ev_ref(engine->loop); /* a stream that only waits for a hangup still keeps the loop running */
    return 0;
}

void hangup_unwatch(struct engine *engine, struct hangup *hangup)
{
    if (hangup->fd < 0)
        return;
    wake_unwatch(engine, hangup);
    ev_unref(engine->loop);
}

int wake_watch(struct engine *engine, struct hangup *hangup, int fd)
{
    return watch(engine, hangup, fd, EPOLLIN | EPOLLET);
}

void wake_unwatch(struct engine *engine, struct hangup *hangup)
{
    epoll_ctl(engine->hangup_fd, EPOLL_CTL_DEL, hangup->fd, NULL);
    hangup->fd = -1;
}
