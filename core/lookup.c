/* lookup.c - what a target's name stands for: asked once for all who wait, kept while the answer is fresh, asked again as it ages. */
#include <stdlib.h>
#include <string.h>

#include "resolve.h"

static const double LEAST_SECONDS = 1, MOST_SECONDS = 3600; /* whatever the answer says; /etc/hosts says 0 */
static const double PATIENCE_SECONDS = 2;                   /* for a new answer while there is an old one (RFC 8767, section 5) */
static const double REST_SECONDS = 10;                      /* with the old one, before the next question */

struct lookup {
    LIST_ENTRY(lookup) entry; /* until there is an answer */
    struct engine *engine;
    struct target *target;
    struct deferred outcome;
    resolve_cb *callback;
    void *arg;
};

static struct address_list *copy(const struct address_list *list)
{
    size_t size = sizeof *list + list->count * sizeof list->items[0];
    struct address_list *new = malloc(size);
    return new ? memcpy(new, list, size) : NULL;
}

struct address_list *lookup_known(const struct target *t, double now)
{
    return t->known && now < t->fresh_until ? copy(t->known) : NULL;
}

void lookup_doubt(struct target *t)
{
    if (t->fresh_until > t->ask_after)
        t->fresh_until = t->ask_after;
}

static double bounded(double seconds)
{
    return seconds < LEAST_SECONDS ? LEAST_SECONDS : seconds > MOST_SECONDS ? MOST_SECONDS : seconds;
}

static void remember(struct target *t, double now, struct address_list *list, const char *why)
{
    t->ask_after = now + (list ? LEAST_SECONDS : REST_SECONDS);
    t->fresh_until = list ? now + bounded(list->ttl_seconds) : t->ask_after;
    if (list) {
        free(t->known);
        t->known = list;
    } else {
        errbuf_set(&t->why, "%s", why);
    }
}

static void on_answer(void *arg, struct address_list *list, const char *why)
{
    struct target *t = arg;
    struct lookup *l = LIST_FIRST(&t->lookups); /* the last one to leave takes the question with it */
    t->resolving = NULL;
    remember(t, engine_now(l->engine), list, why);
    while ((l = LIST_FIRST(&t->lookups))) {
        LIST_REMOVE(l, entry);
        engine_defer(l->engine, &l->outcome);
    }
}

static void deliver(struct deferred *d)
{
    struct lookup *l = container_of(d, struct lookup, outcome);
    const struct target *t = l->target;
    struct address_list *list = t->known ? copy(t->known) : NULL;
    l->callback(l->arg, list, list ? NULL : t->known ? "out of memory" : t->why.text);
    free(l);
}

struct lookup *lookup_start(struct engine *engine, struct target *t, double timeout_seconds, resolve_cb *callback, void *arg)
{
    double patience = t->known && timeout_seconds > PATIENCE_SECONDS ? PATIENCE_SECONDS : timeout_seconds;
    struct lookup *l = malloc(sizeof *l);
    if (l && !t->resolving)
        t->resolving = resolve_start(engine, t->host, t->port, patience, on_answer, t);
    if (!l || !t->resolving) {
        free(l);
        return NULL;
    }
    *l = (struct lookup){.engine = engine, .target = t, .outcome.run = deliver, .callback = callback, .arg = arg};
    LIST_INSERT_HEAD(&t->lookups, l, entry);
    return l;
}

void lookup_cancel(struct lookup *l)
{
    struct target *t = l->target;
    if (is_deferred(&l->outcome)) {
        deferred_cancel(l->engine, &l->outcome);
    } else {
        LIST_REMOVE(l, entry);
        if (LIST_EMPTY(&t->lookups)) {
            resolve_cancel(t->resolving);
            t->resolving = NULL;
        }
    }
    free(l);
}
