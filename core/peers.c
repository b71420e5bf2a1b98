/* peers.c - how many connections there are from each IP address, over all processes: a hash table in shared memory.
 *
 * An entry belongs to one worker and one address, so that a dead worker's entries can be told from the others. A worker may be killed
 * between any two stores, also while it holds the lock: the chains can be walked at every moment, and what is then in no chain and in
 * no free list is found by peers_forget, which makes both anew from the counts. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "shared.h"

struct peer {
    struct in6_addr address; /* IPv4 as IPv4-mapped, so that both spellings are one */
    unsigned count;          /* 0: nobody's */
    int task;
    uint32_t next; /* in its chain or the free list; an index from 1, 0 at the end */
};

struct peers {
    pthread_mutex_t lock;
    uint64_t key[2]; /* so that nobody can choose addresses that make one long chain */
    uint32_t capacity, buckets, used, free;
    struct peer entries[]; /* then the buckets */
};

static uint32_t *buckets_of(struct peers *p)
{
    return (uint32_t *)(void *)(p->entries + p->capacity + 1);
}

static uint32_t bucket_count(unsigned capacity)
{
    uint32_t count = 64;
    while (count < capacity)
        count *= 2;
    return count;
}

size_t peers_size(unsigned capacity)
{
    return sizeof(struct peers) + (capacity + 1) * sizeof(struct peer) + bucket_count(capacity) * sizeof(uint32_t);
}

int peers_init(struct peers *p, unsigned capacity)
{
    pthread_mutexattr_t attributes;
    p->capacity = capacity;
    p->buckets = bucket_count(capacity);
    if (getrandom(p->key, sizeof p->key, 0) != sizeof p->key)
        return -1;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    errno = pthread_mutex_init(&p->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return errno ? -1 : 0;
}

static void lock(struct peers *p)
{
    if (pthread_mutex_lock(&p->lock) == EOWNERDEAD)
        pthread_mutex_consistent(&p->lock);
}

static void unlock(struct peers *p)
{
    pthread_mutex_unlock(&p->lock);
}

/* The store before it is done before the one after it, if we are killed between them. */
static void in_order(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

static uint32_t *chain_of(struct peers *p, const struct in6_addr *address)
{
    uint64_t half[2];
    memcpy(half, address, sizeof half);
    unsigned __int128 product = (unsigned __int128)(half[0] ^ p->key[0]) * (half[1] ^ p->key[1]);
    uint64_t mixed = (uint64_t)product ^ (uint64_t)(product >> 64);
    return &buckets_of(p)[(mixed ^ mixed >> 32) & (p->buckets - 1)];
}

static bool is_of(const struct peer *e, const struct in6_addr *address)
{
    return memcmp(&e->address, address, sizeof *address) == 0;
}

static unsigned count_chain(const struct peers *p, const uint32_t *chain, const struct in6_addr *address)
{
    unsigned count = 0;
    for (uint32_t i = *chain; i; i = p->entries[i].next)
        if (is_of(&p->entries[i], address))
            count += p->entries[i].count;
    return count;
}

/* Where the index of the worker's entry stands; at the end of the chain if there is none. */
static uint32_t *find(struct peers *p, uint32_t *chain, int task, const struct in6_addr *address)
{
    while (*chain && !(p->entries[*chain].task == task && is_of(&p->entries[*chain], address)))
        chain = &p->entries[*chain].next;
    return chain;
}

unsigned peers_count(struct peers *p, const struct sockaddr *address)
{
    struct in6_addr key;
    if (!address_key(address, &key))
        return 0;
    lock(p);
    unsigned count = count_chain(p, chain_of(p, &key), &key);
    unlock(p);
    return count;
}

static uint32_t new_entry(struct peers *p)
{
    uint32_t i = p->free;
    if (i)
        p->free = p->entries[i].next;
    else if (p->used < p->capacity)
        i = ++p->used;
    return i;
}

static int add_entry(struct peers *p, uint32_t *chain, int task, const struct in6_addr *address)
{
    uint32_t i = new_entry(p);
    if (!i)
        return -1;
    p->entries[i] = (struct peer){.address = *address, .task = task, .next = *chain};
    in_order();
    *chain = i;
    in_order();
    p->entries[i].count = 1;
    return 0;
}

int peers_add(struct peers *p, int task, const struct sockaddr *address, unsigned limit)
{
    struct in6_addr key;
    int error = 0;
    if (!address_key(address, &key))
        return 0;
    lock(p);
    uint32_t *chain = chain_of(p, &key), *found = find(p, chain, task, &key);
    if (limit && count_chain(p, chain, &key) >= limit)
        error = EUSERS;
    else if (*found)
        p->entries[*found].count++;
    else if (add_entry(p, chain, task, &key) != 0)
        error = ENOMEM;
    unlock(p);
    errno = error;
    return error ? -1 : 0;
}

static void remove_entry(struct peers *p, uint32_t *place)
{
    uint32_t i = *place;
    *place = p->entries[i].next;
    in_order();
    p->entries[i].next = p->free;
    in_order();
    p->free = i;
}

void peers_remove(struct peers *p, int task, const struct sockaddr *address)
{
    struct in6_addr key;
    if (!address_key(address, &key))
        return;
    lock(p);
    uint32_t *found = find(p, chain_of(p, &key), task, &key);
    if (*found && --p->entries[*found].count == 0)
        remove_entry(p, found);
    unlock(p);
}

void peers_forget(struct peers *p, int task)
{
    lock(p);
    p->free = 0;
    memset(buckets_of(p), 0, p->buckets * sizeof(uint32_t));
    for (uint32_t i = 1; i <= p->used; i++) {
        struct peer *e = &p->entries[i];
        if (e->task == task)
            e->count = 0;
        uint32_t *list = e->count ? chain_of(p, &e->address) : &p->free;
        e->next = *list;
        *list = i;
    }
    unlock(p);
}
