/* conformance.c - what the conformance tests share. */
#include "conformance.h"

#include <stdio.h>

#include "memory_wire.h"

struct party *rs, *ws;

static void shaken(struct iostream *s)
{
    (void)s;
}

static void connect_in_memory(const struct iostream_options options[2], struct iostream *streams[2])
{
    struct transport *ends[2];
    memory_wire_new(loop, 1, ends);
    for (int i = 0; i < 2; i++) {
        streams[i] = iostream_over(engine, ends[i], &options[i]);
        iostream_start(streams[i], shaken);
    }
}

static void connect_in_kernel(const struct iostream_options options[2], struct iostream *streams[2])
{
    struct ends ends[2];
    struct errbuf err;
    connect_ends(wire, &ends[0], &ends[1]);
    for (int i = 0; i < 2; i++)
        streams[i] = iostream_new(loop, ends[i].in, ends[i].out, &options[i], &err);
}

void pair(size_t rs_buffer_bytes, size_t ws_buffer_bytes)
{
    const struct iostream_options options[2] = {{.max_buffer_bytes = rs_buffer_bytes}, {.max_buffer_bytes = ws_buffer_bytes}};
    struct iostream *streams[2];
    if ((int)wire == MEMORY)
        connect_in_memory(options, streams);
    else
        connect_in_kernel(options, streams);
    rs = host(streams[0]);
    ws = host(streams[1]);
}

void send_bytes(struct party *p, const void *bytes, size_t length)
{
    assert_int_equal(iostream_write(p->stream, bytes, length, NULL, NULL), 0);
}

void send_text(struct party *p, const char *text)
{
    send_bytes(p, text, strlen(text));
}

static void on_left(struct iostream *s, void *arg)
{
    struct party *p = arg;
    (void)s;
    p->ends++;
    p->stream = NULL;
}

void ignore_end(struct party *p)
{
    iostream_on_close(p->stream, on_left, p);
}

void leave(struct party *p)
{
    ignore_end(p);
    iostream_close(p->stream);
}

void read_into(struct party *p, void *memory, size_t size, bool partial)
{
    assert_int_equal(iostream_read_into(p->stream, memory, size, partial, on_read, p), 0);
}

void expect_read(struct party *p, const char *bytes, size_t length)
{
    char words[128];
    snprintf(words, sizeof words, "read:%s", digest(bytes, length));
    expect(p, words);
}
