/* live.c - what a serving process tells of its connections, for a program that only looks.
 *
 * Each process has a table that it alone writes, now and then and not when something happens, so that no connection pays for it. The table
 * has a version, which is odd while it is being written; who has read it while that changed reads it again. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tcpserver.h"

enum { TRIES = 100 };

struct live_table {
    _Atomic unsigned version;
    unsigned count;
    struct live_stream streams[]; /* the newest first */
};

size_t live_size(unsigned streams)
{
    return streams ? (sizeof(struct live_table) + streams * sizeof(struct live_stream) + 63) / 64 * 64 : 0;
}

static struct live_table *table_of(const struct shared *s, int task)
{
    return (void *)((char *)(uintptr_t)s + s->live_at + (size_t)task * live_size(s->options.live));
}

static void begin(struct live_table *t)
{
    atomic_store_explicit(&t->version, t->version | 1, memory_order_relaxed); /* it is odd already if who began before was killed */
    atomic_thread_fence(memory_order_release);
}

static void end(struct live_table *t, unsigned count)
{
    t->count = count;
    atomic_store_explicit(&t->version, t->version + 1, memory_order_release);
}

void live_forget(struct shared *s, int task)
{
    if (s->options.live == 0)
        return;
    begin(table_of(s, task));
    end(table_of(s, task), 0);
}

static void describe(struct live_stream *row, const struct iostream *s, int task)
{
    *row = (struct live_stream){
        .id = s->id, .bytes_in = s->bytes_in, .bytes_out = s->bytes_out, .accepted_at = s->opened, .task = task, .open = s->served};
    switch (s->peer.any.sa_family) {
    case AF_INET:
        row->peer.in4 = s->peer.in4;
        break;
    case AF_INET6:
        row->peer.in6 = s->peer.in6;
        break;
    default:
        row->peer.any.sa_family = s->peer.any.sa_family;
    }
}

void tcpserver_publish(struct tcpserver *server)
{
    struct shared *shared = server->admission.shared;
    struct bytes living = {0};
    struct iostream *s;
    unsigned count = 0;
    if (shared->options.live == 0)
        return;
    struct live_table *t = table_of(shared, server->admission.task);
    begin(t);
    LIST_FOREACH (s, &server->streams, server_entry) {
        if (s->lent && s->transport)
            iostream_count_lent(s);
        if (count < shared->options.live)
            describe(&t->streams[count++], s, server->admission.task);
        living.in += s->bytes_in;
        living.out += s->bytes_out;
    }
    end(t, count);
    tcpserver_count_bytes(server, &living);
}

void tcpserver_bytes(const struct tcpserver *server, uint64_t *in, uint64_t *out)
{
    const struct iostream *s;
    *in = shared_count(server->admission.shared, server->admission.task, COUNT_BYTES_IN) - server->counted.in + server->ended.in;
    *out = shared_count(server->admission.shared, server->admission.task, COUNT_BYTES_OUT) - server->counted.out + server->ended.out;
    LIST_FOREACH (s, &server->streams, server_entry) {
        *in += s->bytes_in;
        *out += s->bytes_out;
    }
}

/* ---- reading ---- */

static unsigned copy(const struct live_table *t, struct live_stream *streams, unsigned max)
{
    for (int i = 0; i < TRIES; i++) {
        unsigned before = atomic_load_explicit(&t->version, memory_order_acquire), count = t->count;
        if (count > max)
            count = max;
        memcpy(streams, t->streams, count * sizeof *streams);
        atomic_thread_fence(memory_order_acquire);
        if (before % 2 == 0 && before == atomic_load_explicit(&t->version, memory_order_relaxed))
            return count;
        sched_yield();
    }
    return 0; /* its process stands still in the middle of writing */
}

static int newer_first(const void *one, const void *other)
{
    const struct live_stream *a = one, *b = other;
    return (a->id < b->id) - (a->id > b->id);
}

unsigned shared_live_streams(const struct shared *s, struct live_stream *streams, unsigned max)
{
    unsigned count = 0, each = s->options.live < max ? s->options.live : max;
    struct live_stream *both = calloc((size_t)max + each, sizeof *both);
    for (int task = 0; both && task < s->options.processes; task++) {
        count += copy(table_of(s, task), both + count, each);
        qsort(both, count, sizeof *both, newer_first);
        count = count < max ? count : max;
    }
    if (both)
        memcpy(streams, both, count * sizeof *both);
    free(both);
    return count;
}
