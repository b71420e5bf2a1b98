/* peers.c - how many streams there are from each IP address, in a tree of tsearch(3). */
#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct peer {
    struct in6_addr address;
    unsigned streams;
};

static bool make_key(struct peer *peer, const struct sockaddr *address)
{
    peer->streams = 0;
    return address_key(address, &peer->address);
}

static int compare(const void *a, const void *b)
{
    return memcmp(&((const struct peer *)a)->address, &((const struct peer *)b)->address, sizeof(struct in6_addr));
}

unsigned peers_count(void *const *peers, const struct sockaddr *address)
{
    struct peer key;
    struct peer **found = make_key(&key, address) ? tfind(&key, peers, compare) : NULL;
    return found ? (*found)->streams : 0;
}

int peers_add(void **peers, const struct sockaddr *address)
{
    struct peer key;
    if (!make_key(&key, address))
        return 0;
    struct peer **found = tfind(&key, peers, compare);
    if (found) {
        (*found)->streams++;
        return 0;
    }
    struct peer *peer = malloc(sizeof *peer);
    if (!peer)
        return -1;
    *peer = key;
    peer->streams = 1;
    if (tsearch(peer, peers, compare))
        return 0;
    free(peer);
    errno = ENOMEM;
    return -1;
}

void peers_remove(void **peers, const struct sockaddr *address)
{
    struct peer key;
    struct peer **found = make_key(&key, address) ? tfind(&key, peers, compare) : NULL;
    if (!found || --(*found)->streams > 0)
        return;
    struct peer *peer = *found;
    tdelete(peer, peers, compare);
    free(peer);
}
