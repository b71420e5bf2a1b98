/* bulk.c - each client sends a stream as fast as it goes, and reads it back at the same time. */
#include <sys/epoll.h>

#include "load.h"

struct stream {
    struct wire wire;
    uint64_t sent, got; /* since the connection began */
    bool wants_room;
};

static struct stream *streams;
static int poll;

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void want_room(struct stream *stream, bool wants)
{
    if (wants == stream->wants_room)
        return;
    stream->wants_room = wants;
    poll_change(poll, stream->wire.fd, wants ? EPOLLIN | EPOLLOUT : EPOLLIN, stream);
}

static void push(struct stream *stream, uint64_t goal)
{
    while (stream->sent < goal) {
        size_t length = (size_t)smaller(PATTERN_CHUNK, goal - stream->sent);
        ssize_t n = wire_write(&stream->wire, pattern_at(stream->sent), length);
        if (n == WIRE_WAIT)
            break;
        stream->sent += (uint64_t)n;
    }
    want_room(stream, stream->sent < goal);
}

/* How much came. As much as is there is taken under TLS, which may hold some that the socket no longer shows. */
static uint64_t pull(struct stream *stream)
{
    char bytes[PATTERN_CHUNK];
    uint64_t before = stream->got;
    ssize_t n;
    while ((n = wire_read(&stream->wire, bytes, sizeof bytes)) != WIRE_WAIT) {
        if (n == WIRE_END)
            die("the server ended a connection");
        if ((uint64_t)n > stream->sent - stream->got)
            die("more came back than was sent");
        pattern_check(bytes, (size_t)n, stream->got);
        stream->got += (uint64_t)n;
    }
    return stream->got - before;
}

static void slice(const struct load *load, struct result *result)
{
    uint64_t share = load->count / load->connections, total = share * load->connections, goal = streams[0].sent + share;
    uint32_t events;
    for (unsigned i = 0; i < load->connections; i++)
        push(&streams[i], goal);
    while (result->count < total) {
        struct stream *stream = poll_next(poll, &events);
        if (events & ~(uint32_t)EPOLLOUT)
            result->count += pull(stream);
        if (events & EPOLLOUT)
            push(stream, goal);
    }
}

static void prepare(const struct load *load)
{
    poll = poll_new();
    streams = allocate(load->connections, sizeof *streams);
    for (unsigned i = 0; i < load->connections; i++) {
        wire_open(&streams[i].wire);
        poll_add(poll, streams[i].wire.fd, EPOLLIN, &streams[i]);
    }
}

const struct test bulk_test = {"bulk", prepare, slice};
