/* warm.c - children started ahead, so that a connection finds one ready.
 *
 * The pool is filled one child at a time and only in quiet moments: starting a child takes the CPU from those at work. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "child.h"

static const double QUIET_SECONDS = 0.004, RETRY_SECONDS = 1;

static void refill_after(struct spawner *spawner, double seconds)
{
    ev_timer_stop(spawner->engine->loop, &spawner->refill);
    ev_timer_set(&spawner->refill, seconds, 0);
    ev_timer_start(spawner->engine->loop, &spawner->refill);
}

static void fail(struct spawner *spawner, const char *why)
{
    bool again = spawner->warm_failed;
    spawner->warm_failed = true;
    refill_after(spawner, RETRY_SECONDS);
    if (!again && spawner->options.on_failure)
        spawner->options.on_failure(spawner->options.arg, why);
}

static void on_refill(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct spawner *spawner = container_of(timer, struct spawner, refill);
    struct engine *engine = spawner->engine;
    engine_enter(engine);
    struct child *c = child_start(spawner, NULL, -1);
    if (!c) {
        fail(spawner, strerror(errno));
    } else {
        LIST_INSERT_HEAD(&spawner->warm, c, entry);
        if (++spawner->warm_count < spawner->options.warm)
            refill_after(spawner, QUIET_SECONDS);
    }
    engine_leave(engine);
}

void warm_init(struct spawner *spawner)
{
    ev_timer_init(&spawner->refill, on_refill, 0, 0);
    warm_hold_back(spawner);
}

void warm_hold_back(struct spawner *spawner)
{
    if (spawner->warm_count < spawner->options.warm)
        refill_after(spawner, QUIET_SECONDS);
}

static void leave_pool(struct child *c)
{
    LIST_REMOVE(c, entry);
    c->spawner->warm_count--;
}

struct child *warm_take(struct spawner *spawner)
{
    struct child *c = LIST_FIRST(&spawner->warm);
    if (!c)
        return NULL;
    leave_pool(c);
    spawner->warm_failed = false;
    return c;
}

/* At once if no callback is at work: the loop of a spawner that is freed may not turn again. */
static void end_pipes(struct iostream *pipes)
{
    iostream_abort(pipes, CLOSE_SHUTDOWN);
    deferred_cancel(pipes->engine, &pipes->deferred);
    engine_let_go(pipes->engine, &pipes->deferred, pipes->deferred.run);
}

static void drop(struct child *c)
{
    struct iostream *pipes = c->pipes;
    leave_pool(c);
    child_forget(c);
    if (pipes)
        end_pipes(pipes);
}

void warm_exited(struct child *c)
{
    struct spawner *spawner = c->spawner;
    drop(c);
    if (!spawner->freed) /* by its last words */
        fail(spawner, "it ended without waiting for its input");
}

void warm_release(struct spawner *spawner)
{
    struct child *c;
    ev_timer_stop(spawner->engine->loop, &spawner->refill);
    while ((c = LIST_FIRST(&spawner->warm))) {
        kill(-c->pid, SIGKILL); /* it has nothing to lose: it waits for its first byte */
        kill(c->pid, SIGKILL);  /* it may have left its group, and is waited for */
        waitpid(c->pid, NULL, 0);
        drop(c);
    }
}
