/* pingpong.c - each client sends a message, waits for all of it to come back, and sends the next. */
#include <sys/epoll.h>

#include "load.h"

struct player {
    struct wire wire;
    size_t got;
    double sent_at;
    bool waits;
};

static struct player *players;
static int poll;

static void serve_ball(struct player *player, const struct load *load)
{
    player->got = 0;
    player->waits = true;
    player->sent_at = now_seconds();
    wire_write_all(&player->wire, pattern_at(0), load->size);
}

/* Whether the whole message is back. */
static bool take(struct player *player, const struct load *load)
{
    char bytes[PATTERN_CHUNK];
    ssize_t n;
    while (player->got < load->size && (n = wire_read(&player->wire, bytes, sizeof bytes)) != WIRE_WAIT) {
        if (n == WIRE_END)
            die("the server ended a connection");
        if ((size_t)n > load->size - player->got)
            die("more came back than was sent");
        pattern_check(bytes, (size_t)n, player->got);
        player->got += (size_t)n;
    }
    return player->got == load->size;
}

/* No message goes out once as many are on their way as a slice has. */
static void slice(const struct load *load, struct result *result)
{
    uint64_t sent = 0;
    uint32_t events;
    for (unsigned i = 0; i < load->connections && sent < load->count; i++, sent++)
        serve_ball(&players[i], load);
    while (result->count < load->count) {
        struct player *player = poll_next(poll, &events);
        if (!player->waits && wire_read(&player->wire, (char[1]){0}, 1) != WIRE_WAIT) /* under TLS it may be a ticket */
            die("the server said something unasked");
        if (!player->waits || !take(player, load))
            continue;
        player->waits = false;
        result->latency_seconds[result->count++] = now_seconds() - player->sent_at;
        if (sent < load->count) {
            serve_ball(player, load);
            sent++;
        }
    }
}

/* The first message of each client is sent here, so that a slice finds servers that know their clients. */
static void prepare(const struct load *load)
{
    uint32_t events;
    poll = poll_new();
    players = allocate(load->connections, sizeof *players);
    for (unsigned i = 0; i < load->connections; i++) {
        struct player *player = &players[i];
        wire_open(&player->wire);
        poll_add(poll, player->wire.fd, EPOLLIN, player);
        serve_ball(player, load);
        do
            poll_next(poll, &events);
        while (!take(player, load));
        player->waits = false;
    }
}

static void sit(const struct load *load, struct result *result)
{
    (void)load;
    (void)result;
}

const struct test pingpong_test = {"pingpong", prepare, slice};
const struct test idle_test = {"idle", prepare, sit};
