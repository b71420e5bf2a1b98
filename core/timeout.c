/* timeout.c - timeouts in lists, one a length: a list is in order of time by itself, so only its head needs an ev_timer. */
#include <stdlib.h>

#include "internal.h"

TAILQ_HEAD(timeout_queue, timeout);

struct timeout_list {
    struct engine *engine;
    double seconds;
    timeout_cb *callback;
    struct timeout_queue queue;
    ev_timer timer;
    LIST_ENTRY(timeout_list) entry;
};

static void arm(struct timeout_list *list)
{
    struct timeout *first = TAILQ_FIRST(&list->queue);
    ev_timer_stop(list->engine->loop, &list->timer);
    if (!first)
        return;
    double delay = first->due - engine_now(list->engine);
    ev_timer_set(&list->timer, delay > 0 ? delay : 0, 0);
    ev_timer_start(list->engine->loop, &list->timer);
}

static void on_timer(struct ev_loop *loop, ev_timer *timer, int events)
{
    (void)loop, (void)events;
    struct timeout_list *list = container_of(timer, struct timeout_list, timer);
    struct engine *engine = list->engine;
    struct timeout *first;

    engine_enter(engine);
    while ((first = TAILQ_FIRST(&list->queue)) && first->due <= engine_now(engine)) {
        timeout_stop(first);
        list->callback(first);
    }
    arm(list);
    engine_leave(engine);
}

static struct timeout_list *find_list(struct engine *engine, double seconds, timeout_cb *callback)
{
    struct timeout_list *list;
    LIST_FOREACH (list, &engine->timeouts, entry) {
        if (list->seconds == seconds && list->callback == callback)
            return list;
    }
    list = calloc(1, sizeof *list);
    if (!list)
        return NULL;
    list->engine = engine;
    list->seconds = seconds;
    list->callback = callback;
    TAILQ_INIT(&list->queue);
    ev_timer_init(&list->timer, on_timer, 0, 0);
    LIST_INSERT_HEAD(&engine->timeouts, list, entry);
    return list;
}

static void append(struct timeout_list *list, struct timeout *t)
{
    t->list = list;
    t->due = engine_now(list->engine) + list->seconds;
    TAILQ_INSERT_TAIL(&list->queue, t, entry);
}

int timeout_start(struct engine *engine, struct timeout *t, double seconds, timeout_cb *callback)
{
    struct timeout_list *list = find_list(engine, seconds, callback);
    if (!list)
        return -1;
    timeout_stop(t);
    append(list, t);
    if (!ev_is_active(&list->timer))
        arm(list);
    return 0;
}

void timeout_restart(struct timeout *t)
{
    struct timeout_list *list = t->list;
    if (!list)
        return;
    TAILQ_REMOVE(&list->queue, t, entry); /* the timer may now come early: it looks at the head and arms itself again */
    append(list, t);
}

void timeout_stop(struct timeout *t)
{
    struct timeout_list *list = t->list;
    if (!list)
        return;
    t->list = NULL;
    TAILQ_REMOVE(&list->queue, t, entry);
    if (TAILQ_EMPTY(&list->queue))
        ev_timer_stop(list->engine->loop, &list->timer); /* it would keep the loop alive */
}

void timeout_lists_free(struct engine *engine)
{
    struct timeout_list *list;
    while ((list = LIST_FIRST(&engine->timeouts))) {
        LIST_REMOVE(list, entry);
        free(list);
    }
}
