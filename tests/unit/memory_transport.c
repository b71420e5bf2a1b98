/* memory_transport.c - a transport that answers by script. */
#include "memory_transport.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static struct memory_transport *memory_of(struct transport *t)
{
    return container_of(t, struct memory_transport, base);
}

static void log_call(struct memory_transport *m, const char *call)
{
    size_t used = strlen(m->calls);
    snprintf(m->calls + used, sizeof m->calls - used, "%s%s", used ? " " : "", call);
}

static struct memory_answer *front(struct memory_transport *m, enum memory_call call)
{
    struct memory_script *script = &m->scripts[call];
    return script->next < script->count ? &script->answers[script->next] : NULL;
}

static int take(struct memory_transport *m, enum memory_call call, int otherwise)
{
    struct memory_answer *answer = front(m, call);
    if (!answer)
        return otherwise;
    m->scripts[call].next++;
    errno = answer->error;
    return answer->result;
}

static ssize_t memory_read(struct transport *t, void *bytes, size_t size)
{
    struct memory_transport *m = memory_of(t);
    struct memory_answer *answer = front(m, MEMORY_READ);
    log_call(m, "read");
    if (!answer || !answer->bytes)
        return take(m, MEMORY_READ, TRANSPORT_WANT_READ);
    size_t length = strlen(answer->bytes);
    size_t n = length < size ? length : size;
    memcpy(bytes, answer->bytes, n);
    answer->bytes += n;
    if (n == length)
        take(m, MEMORY_READ, 0);
    return (ssize_t)n;
}

static ssize_t memory_write(struct transport *t, const void *bytes, size_t length)
{
    struct memory_transport *m = memory_of(t);
    char call[32];
    snprintf(call, sizeof call, "write:%zu", length);
    log_call(m, call);
    int result = take(m, MEMORY_WRITE, (int)length);
    if (result <= 0)
        return result;
    size_t n = (size_t)result < length ? (size_t)result : length;
    assert_true(strlen(m->written) + n < sizeof m->written);
    strncat(m->written, bytes, n);
    return (ssize_t)n;
}

static int memory_handshake(struct transport *t)
{
    log_call(memory_of(t), "handshake");
    return take(memory_of(t), MEMORY_HANDSHAKE, 0);
}

static int memory_shutdown(struct transport *t, bool last)
{
    log_call(memory_of(t), last ? "shutdown:last" : "shutdown");
    return take(memory_of(t), MEMORY_SHUTDOWN, 0);
}

static bool memory_pending(struct transport *t)
{
    return memory_of(t)->has_pending && front(memory_of(t), MEMORY_READ);
}

static void memory_watch(struct transport *t, int events)
{
    assert_int_not_equal(memory_of(t)->watched, events); /* for nothing */
    memory_of(t)->watched = events;
}

static void memory_free(struct transport *t, bool reset)
{
    log_call(memory_of(t), reset ? "free:reset" : "free");
    memory_of(t)->watched = 0;
}

void memory_init(struct memory_transport *m, bool secure)
{
    *m = (struct memory_transport){.base = {.read_fd = -1, .write_fd = -1}};
    m->ops = (struct transport_ops){
        .read = memory_read, .write = memory_write, .shutdown = memory_shutdown, .watch = memory_watch, .free = memory_free};
    if (secure) {
        m->ops.handshake = memory_handshake;
        m->ops.pending = memory_pending;
    }
    m->base.ops = &m->ops;
}

static void add(struct memory_transport *m, enum memory_call call, struct memory_answer answer)
{
    struct memory_script *script = &m->scripts[call];
    assert_true(script->count < MEMORY_ANSWERS);
    script->answers[script->count++] = answer;
}

void memory_will(struct memory_transport *m, enum memory_call call, int result)
{
    add(m, call, (struct memory_answer){.result = result});
}

void memory_will_fail(struct memory_transport *m, enum memory_call call, int error)
{
    add(m, call, (struct memory_answer){.result = TRANSPORT_ERROR, .error = error});
}

void memory_will_read(struct memory_transport *m, const char *text)
{
    add(m, MEMORY_READ, (struct memory_answer){.bytes = text});
}

void memory_ready(struct memory_transport *m, int events)
{
    assert_int_equal(m->watched & events, events);
    transport_ready(&m->base, events);
}
