/* balance.c - round-robin, least, source, first; and which targets are down. */
#include "balance.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

static const double FIRST_DELAY = 1, LONGEST_DELAY = 30; /* seconds */

struct place {
    uint64_t hash;        /* of its name */
    unsigned connections; /* under way and joined */
    bool down;
    bool on_trial; /* down, and named by balance_due */
    double delay;  /* while down */
    double due;    /* when its next trial is */
};

struct balance {
    enum balance_policy policy;
    unsigned count, down;
    unsigned next; /* where the next search begins */
    struct place places[];
};

/* ---- hashing: FNV-1a, then a mix by which every bit of the input counts for every bit of the result */

static const uint64_t FNV_BASIS = 0xcbf29ce484222325, FNV_PRIME = 0x100000001b3;

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length)
{
    for (const unsigned char *b = bytes, *end = b + length; b < end; b++)
        hash = (hash ^ *b) * FNV_PRIME;
    return hash;
}

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 33) * 0xff51afd7ed558ccd;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53;
    return h ^ h >> 33;
}

uint64_t balance_client(const struct sockaddr *address)
{
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr;
    if (address->sa_family == AF_INET)
        return hash_bytes(FNV_BASIS, &((const struct sockaddr_in *)(const void *)address)->sin_addr, sizeof(struct in_addr));
    if (address->sa_family != AF_INET6)
        return FNV_BASIS;
    if (IN6_IS_ADDR_V4MAPPED(in6))
        return hash_bytes(FNV_BASIS, in6->s6_addr + 12, sizeof(struct in_addr));
    return hash_bytes(FNV_BASIS, in6, sizeof *in6);
}

/* ---- all of them */

struct balance *balance_new(enum balance_policy policy, const char *const *names, unsigned count)
{
    struct balance *b = calloc(1, sizeof *b + count * sizeof b->places[0]);
    if (!b)
        return NULL;
    b->policy = policy;
    b->count = count;
    for (unsigned i = 0; i < count; i++)
        b->places[i].hash = hash_bytes(FNV_BASIS, names[i], strlen(names[i]));
    return b;
}

void balance_free(struct balance *b)
{
    free(b);
}

/* ---- one of them */

static bool is_better(const struct balance *b, unsigned one, unsigned other, uint64_t client)
{
    const struct place *p = &b->places[one], *q = &b->places[other];
    switch (b->policy) {
    case BALANCE_LEAST:
        return p->connections < q->connections;
    case BALANCE_SOURCE:
        return mix(p->hash ^ mix(client)) > mix(q->hash ^ mix(client));
    case BALANCE_ROUND_ROBIN:
    case BALANCE_FIRST:
        break;
    }
    return false; /* the first that is found */
}

static int find(const struct balance *b, uint64_t client, const bool *tried, bool down_too)
{
    int best = -1;
    for (unsigned i = 0; i < b->count; i++) {
        unsigned at = (b->next + i) % b->count;
        if (tried[at] || (b->places[at].down && !down_too))
            continue;
        if (best < 0 || is_better(b, at, (unsigned)best, client))
            best = (int)at;
    }
    return best;
}

int balance_pick(struct balance *b, uint64_t client, bool *tried)
{
    int found = find(b, client, tried, false);
    if (found < 0)
        found = find(b, client, tried, true);
    if (found < 0)
        return -1;
    tried[found] = true;
    b->places[found].connections++;
    if (b->policy == BALANCE_ROUND_ROBIN || b->policy == BALANCE_LEAST)
        b->next = ((unsigned)found + 1) % b->count; /* those with equally many take turns, too */
    return found;
}

void balance_left(struct balance *b, unsigned target)
{
    b->places[target].connections--;
}

unsigned balance_connections(const struct balance *b, unsigned target)
{
    return b->places[target].connections;
}

/* ---- down and up */

bool balance_reached(struct balance *b, unsigned target)
{
    struct place *p = &b->places[target];
    bool was_down = p->down;
    b->down -= was_down;
    p->down = p->on_trial = false;
    return was_down;
}

double balance_failed(struct balance *b, unsigned target, double now)
{
    struct place *p = &b->places[target];
    if (p->down && !p->on_trial)
        return 0; /* others were on their way, or all are down: the delay grows by trials only */
    p->delay = p->down ? 2 * p->delay : FIRST_DELAY;
    if (p->delay > LONGEST_DELAY)
        p->delay = LONGEST_DELAY;
    p->due = now + p->delay;
    b->down += !p->down;
    p->down = true;
    p->on_trial = false;
    return p->delay;
}

int balance_due(struct balance *b, double now)
{
    if (b->down == 0 || b->down == b->count)
        return -1;
    for (unsigned i = 0; i < b->count; i++) {
        struct place *p = &b->places[i];
        if (p->down && !p->on_trial && p->due <= now) {
            p->on_trial = true;
            return (int)i;
        }
    }
    return -1;
}
