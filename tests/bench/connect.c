/* connect.c - each client connects, sends a message, waits for it to come back, and ends its connection, one way or another. */
#include <stdlib.h>
#include <sys/epoll.h>

#include "load.h"

struct visit {
    struct wire wire;
    size_t got;
    double began_at;
};

static struct visit *visits;
static int poll;

static void begin(struct visit *visit, const struct load *load, struct result *result)
{
    visit->got = 0;
    visit->began_at = now_seconds();
    wire_open(&visit->wire);
    if (wire_was_resumed(&visit->wire))
        result->resumed++;
    wire_write_all(&visit->wire, pattern_at(0), load->size);
    if (load->ending == END_EOF)
        wire_finish(&visit->wire);
    poll_add(poll, visit->wire.fd, EPOLLIN, visit);
}

/* Whether the client has what it came for: its message, and the end if that is what it waits for. */
static bool is_over(struct visit *visit, const struct load *load)
{
    char bytes[PATTERN_CHUNK];
    for (;;) {
        if (visit->got == load->size && load->ending != END_EOF)
            return true;
        ssize_t n = wire_read(&visit->wire, bytes, sizeof bytes);
        if (n == WIRE_WAIT)
            return false;
        if (n == WIRE_END && (visit->got != load->size || load->ending != END_EOF))
            die("the server ended a connection after %zu bytes", visit->got);
        if (n == WIRE_END)
            return true;
        if ((size_t)n > load->size - visit->got)
            die("more came back than was sent");
        pattern_check(bytes, (size_t)n, visit->got);
        visit->got += (size_t)n;
    }
}

static void slice(const struct load *load, struct result *result)
{
    uint64_t begun = 0;
    uint32_t events;
    for (; begun < load->connections && begun < load->count; begun++)
        begin(&visits[begun], load, result);
    while (result->count < load->count) {
        struct visit *visit = poll_next(poll, &events);
        if (!is_over(visit, load))
            continue;
        wire_close(&visit->wire, load->ending);
        result->latency_seconds[result->count++] = now_seconds() - visit->began_at;
        if (begun < load->count) {
            begin(visit, load, result);
            begun++;
        }
    }
    if (load->resume && result->resumed != load->count)
        die("only %ju of %ju handshakes were resumed", (uintmax_t)result->resumed, (uintmax_t)load->count);
}

/* One visit, which also gets the first ticket. */
static void prepare(const struct load *load)
{
    poll = poll_new();
    visits = allocate(load->connections, sizeof *visits);
    struct load once = *load;
    once.connections = once.count = 1;
    once.resume = false;
    struct result result = {.latency_seconds = allocate(1, sizeof(double))};
    slice(&once, &result);
    free(result.latency_seconds);
}

const struct test connect_test = {"connect", prepare, slice};
