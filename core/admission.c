/* admission.c - whether a server may accept one more connection, and when it may again. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "shared.h"

static void rest_for_place(struct admission *a)
{
    a->resting = a->wants_place = true;
    shared_set_resting(a->shared, a->task, true);
}

static void go_on(struct admission *a)
{
    if (a->wants_place)
        shared_set_resting(a->shared, a->task, false);
    a->resting = a->wants_place = false;
}

static void look_for_place(struct admission *a)
{
    if (a->wants_place && shared_has_room(a->shared))
        go_on(a);
}

void admission_look(struct admission *a)
{
    if (a->wants_place && shared_has_place(a->shared))
        go_on(a);
}

static void on_pause_over(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct admission *a = container_of(timer, struct admission, pause);
    go_on(a);
    a->changed(a);
}

static void on_wake(struct hangup *hangup, unsigned events)
{
    (void)events;
    struct admission *a = container_of(hangup, struct admission, wake);
    bool rested = a->resting;
    look_for_place(a);
    if (rested && !a->resting)
        a->changed(a);
}

static bool take_place(struct admission *a)
{
    while (!shared_take_place(a->shared, a->task, a->always)) {
        rest_for_place(a);
        look_for_place(a); /* one may have come free before we said that we wait */
        if (a->resting)
            return false;
    }
    a->places++;
    return true;
}

static void give_place(struct admission *a, bool served)
{
    if (a->places == 0)
        return; /* stopped: it was given back with the others */
    a->places--;
    shared_give_place(a->shared, a->task, served);
}

void admission_force(struct admission *a)
{
    shared_take_place(a->shared, a->task, true);
    a->places++;
}

bool admission_ask(struct admission *a)
{
    if (!take_place(a))
        return false;
    double early = a->always ? 0 : shared_take_turn(a->shared, &a->turn);
    if (early <= 0)
        return true;
    give_place(a, false);
    a->resting = true;
    ev_timer_set(&a->pause, early, 0);
    ev_timer_start(a->engine->loop, &a->pause);
    return false;
}

void admission_unused(struct admission *a)
{
    if (!a->always)
        shared_give_turn(a->shared, &a->turn);
    give_place(a, false);
}

void admission_over(struct admission *a, bool served)
{
    give_place(a, served);
    look_for_place(a);
}

int admission_init(struct admission *a, struct shared *shared, struct errbuf *err)
{
    *a = (struct admission){.shared = shared, .wake.fd = -1};
    return shared ? 0 : admission_share(a, 1, err);
}

int admission_share(struct admission *a, int processes, struct errbuf *err)
{
    if (a->shared && !a->own)
        return 0;
    shared_free(a->own);
    a->shared = a->own = shared_new(&(struct shared_options){.processes = processes}, err);
    return a->own ? 0 : -1;
}

int admission_start(struct admission *a, struct engine *engine, void (*changed)(struct admission *), struct errbuf *err)
{
    a->engine = engine;
    a->changed = changed;
    a->task = shared_task(a->shared);
    ev_init(&a->pause, on_pause_over);
    a->wake.report = on_wake;
    if (a->shared->wake_fd < 0)
        return 0;
    int fd = fcntl(a->shared->wake_fd, F_DUPFD_CLOEXEC, 3); /* a server's own: one epoll set cannot hold one descriptor twice */
    if (fd >= 0 && wake_watch(engine, &a->wake, fd) == 0)
        return 0;
    errbuf_set(err, "cannot watch for free places: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

void admission_stop(struct admission *a)
{
    ev_timer_stop(a->engine->loop, &a->pause);
    while (a->places > 0)
        give_place(a, true);
    go_on(a);
    if (a->wake.fd < 0)
        return;
    int fd = a->wake.fd;
    wake_unwatch(a->engine, &a->wake);
    close(fd);
}
