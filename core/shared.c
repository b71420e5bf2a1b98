/* shared.c - what the processes of one server count together, in memory that all of them see.
 *
 * Each worker has a block that it alone writes, and a total is the sum of the blocks. So a worker can be killed at any moment: when its
 * parent clears its block, all that it held is given back. A place is counted first, and then the sum is looked at: of several who try
 * for the last one, the last to count sees all the others, so the limit is never passed. Who finds it passed steps back, and tries again
 * if that leaves room, since others may have stepped back as well.
 *
 * Who finds no room says that it rests, and then looks once more; who gives a place back does so first, and then looks who rests. One of
 * them sees the other, so no wake-up is lost. It goes through one eventfd that all watch by edge and nobody reads: a write wakes all. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "shared.h"

enum { MOST_PEERS = 1 << 20 };
static const uint64_t SECOND = 1000000000;

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

int shared_task(const struct shared *s)
{
    int task = task_id();
    return task > 0 && task < s->options.processes ? task : 0;
}

/* ---- places ---- */

unsigned resume_at(unsigned max)
{
    unsigned below = max < 32 ? 1 : max / 32;
    return max - (below < 64 ? below : 64);
}

static uint64_t places_held(const struct shared *s)
{
    uint64_t sum = 0;
    for (int i = 0; i < s->options.processes; i++)
        sum += s->blocks[i].held;
    return sum;
}

/* Is there room for so many more than are counted? */
static bool fits(const struct shared *s, unsigned more)
{
    return !s->options.max_connections || places_held(s) + more <= s->options.max_connections;
}

static bool all_accepted(const struct shared *s)
{
    return s->options.max_accepts && shared_count(s, -1, COUNT_ACCEPTS) >= s->options.max_accepts;
}

bool shared_has_room(const struct shared *s)
{
    const struct shared_options *o = &s->options;
    return (!o->max_connections || places_held(s) <= resume_at(o->max_connections)) && !all_accepted(s);
}

bool shared_has_place(const struct shared *s)
{
    return fits(s, 1) && !all_accepted(s);
}

static void tell(int eventfd)
{
    const uint64_t one = 1;
    while (eventfd >= 0 && write(eventfd, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static void wake(const struct shared *s)
{
    tell(s->wake_fd);
}

static void wake_resting(const struct shared *s, int task)
{
    bool somebody_rests = false;
    for (int i = 0; i < s->options.processes; i++)
        somebody_rests |= i != task && s->blocks[i].resting;
    if (somebody_rests && shared_has_room(s))
        wake(s);
}

static void give_back(struct shared *s, int task)
{
    s->blocks[task].held--;
    if (s->options.max_connections)
        wake_resting(s, task);
}

bool shared_take_place(struct shared *s, int task, bool always)
{
    if (!always && all_accepted(s))
        return false;
    do {
        s->blocks[task].held++;
        if (always || fits(s, 0))
            return true;
        give_back(s, task);
    } while (fits(s, 1));
    return false;
}

void shared_give_place(struct shared *s, int task, bool served)
{
    if (served)
        s->blocks[task].idle_since = now();
    give_back(s, task);
}

/* The same, counted when it comes to its handler: that many handshakes may be under way, and who is first is served. */
bool shared_count_accept(struct shared *s, int task)
{
    _Atomic uint64_t *accepts = &s->blocks[task].counts[COUNT_ACCEPTS];
    uint64_t max = s->options.max_accepts;
    do {
        (*accepts)++;
        if (!max || shared_count(s, -1, COUNT_ACCEPTS) <= max)
            return true;
        (*accepts)--;
    } while (!all_accepted(s));
    return false;
}

void shared_set_resting(struct shared *s, int task, bool resting)
{
    if (resting)
        s->blocks[task].resting++;
    else
        s->blocks[task].resting--;
}

/* ---- turns: each may be taken once in a second, by whoever sets its time ---- */

double shared_take_turn(struct shared *s, struct turn *turn)
{
    uint64_t count = s->options.max_rate;
    while (count) {
        uint64_t number = s->next_turn, at = now();
        uint64_t before = s->turns[number % count];
        if (before && at < before + SECOND) {
            if (s->turns[(number + 1) % count] >= before)
                return (double)(before + SECOND - at) / 1e9;
        } else if (atomic_compare_exchange_strong(&s->turns[number % count], &before, at)) {
            *turn = (struct turn){.number = number, .taken = at, .before = before};
            atomic_compare_exchange_strong(&s->next_turn, &number, number + 1);
            return 0;
        }
        /* It was taken by somebody who has not moved on to the next one yet, and may have been killed. */
        atomic_compare_exchange_strong(&s->next_turn, &number, number + 1);
    }
    return 0;
}

void shared_give_turn(struct shared *s, const struct turn *turn)
{
    if (s->options.max_rate == 0)
        return;
    uint64_t taken = turn->taken, after = turn->number + 1;
    atomic_compare_exchange_strong(&s->turns[turn->number % s->options.max_rate], &taken, turn->before);
    atomic_compare_exchange_strong(&s->next_turn, &after, turn->number);
}

/* ---- counters ---- */

const double shared_time_limits[TIME_LIMITS] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600, INFINITY};

const char *reject_reason_name(enum reject_reason reason)
{
    static const char *const names[REJECT_REASONS] = {"denied", "limit", "proxy", "handshake"};
    return names[reason];
}

void shared_add(struct shared *s, int task, enum shared_count which, uint64_t more)
{
    s->blocks[task].counts[which] += more;
}

uint64_t shared_count(const struct shared *s, int task, enum shared_count which)
{
    if (task >= 0)
        return s->blocks[task].counts[which];
    uint64_t sum = 0;
    for (int i = 0; i < s->options.processes; i++)
        sum += s->blocks[i].counts[which];
    return sum;
}

uint64_t shared_accepts(const struct shared *s)
{
    uint64_t accepts = shared_count(s, -1, COUNT_ACCEPTS), max = s->options.max_accepts;
    return max && accepts > max ? max : accepts;
}

unsigned shared_connections(const struct shared *s)
{
    return (unsigned)places_held(s);
}

double shared_idle_seconds(const struct shared *s)
{
    uint64_t latest = 0;
    for (int i = 0; i < s->options.processes; i++) {
        if (s->blocks[i].idle_since > latest)
            latest = s->blocks[i].idle_since;
    }
    return places_held(s) ? 0 : (double)(now() - latest) / 1e9;
}

/* ---- ends ---- */

void shared_end(struct shared *s)
{
    tell(s->end_fd);
}

void shared_drain(struct shared *s)
{
    tell(s->drain_fd);
    shared_end(s);
}

int shared_end_fd(const struct shared *s)
{
    return s->end_fd;
}

int shared_drain_fd(const struct shared *s)
{
    return s->drain_fd;
}

void shared_worker_gone(struct shared *s, int task)
{
    struct shared_block *b = &s->blocks[task];
    if (b->held)
        b->idle_since = now();
    b->held = 0;
    b->resting = 0;
    peers_forget(s->peers, task);
    live_forget(s, task);
    wake(s); /* it may have died between giving a place back and saying so */
    if (all_accepted(s))
        shared_end(s);
}

/* ---- making it ---- */

static unsigned most_peers(const struct shared_options *o)
{
    struct rlimit files = {.rlim_cur = MOST_PEERS};
    getrlimit(RLIMIT_NOFILE, &files);
    uint64_t most = (uint64_t)(files.rlim_cur < MOST_PEERS ? files.rlim_cur : MOST_PEERS) * (uint64_t)o->processes;
    return (unsigned)(most < MOST_PEERS ? most : MOST_PEERS);
}

static size_t aligned(size_t size)
{
    return (size + 63) / 64 * 64;
}

/* With a descriptor for readers, who cannot write: from the seal on no mapping but this one can. */
static void *map_memory(size_t size, bool readable, int *fd)
{
    *fd = -1;
    if (!readable)
        return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *fd = memfd_create("hark", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0 || ftruncate(*fd, (off_t)size) != 0)
        return MAP_FAILED;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *fd, 0);
    bool sealed = memory != MAP_FAILED && fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
    if (sealed || memory == MAP_FAILED)
        return memory;
    munmap(memory, size);
    return MAP_FAILED;
}

static int make_eventfds(struct shared *s)
{
    if (s->options.processes == 1 && !s->options.supervised)
        return 0;
    s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->drain_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return s->wake_fd >= 0 && s->end_fd >= 0 && s->drain_fd >= 0 ? 0 : -1;
}

struct shared *shared_new(const struct shared_options *o, struct errbuf *err)
{
    unsigned peers = most_peers(o);
    size_t turns_at = aligned(sizeof(struct shared) + (size_t)o->processes * sizeof(struct shared_block));
    size_t peers_at = turns_at + aligned(o->max_rate * sizeof(uint64_t)), live_at = peers_at + aligned(peers_size(peers));
    size_t annex_at = live_at + aligned((size_t)o->processes * live_size(o->live)), size = annex_at + aligned(o->annex_bytes);
    int memory_fd;
    struct shared *s = map_memory(size, o->live > 0, &memory_fd);

    if (s == MAP_FAILED) {
        errbuf_set(err, "cannot share memory between processes: %s", strerror(errno));
        if (memory_fd >= 0)
            close(memory_fd);
        return NULL;
    }
    s->options = *o;
    s->size = size;
    s->wake_fd = s->end_fd = s->drain_fd = -1;
    s->memory_fd = memory_fd;
    s->live_at = live_at;
    s->annex_at = annex_at;
    s->turns = (void *)((char *)s + turns_at);
    s->peers = (void *)((char *)s + peers_at);
    for (int i = 0; i < o->processes; i++)
        s->blocks[i].idle_since = now();
    if (peers_init(s->peers, peers) == 0 && make_eventfds(s) == 0)
        return s;
    errbuf_set(err, "cannot make what processes share: %s", strerror(errno));
    shared_free(s);
    return NULL;
}

void *shared_annex(const struct shared *s)
{
    return (char *)(uintptr_t)s + s->annex_at;
}

int shared_memory_fd(const struct shared *s)
{
    return s->memory_fd;
}

const struct shared *shared_open(int fd, struct errbuf *err)
{
    struct stat st;
    size_t size = fstat(fd, &st) == 0 ? (size_t)st.st_size : 0;
    const struct shared *s = size >= sizeof *s ? mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (s != MAP_FAILED && s->size == size)
        return s;
    errbuf_set(err, "descriptor %d is not the memory that processes share", fd);
    return NULL;
}

void shared_free(struct shared *s)
{
    if (!s)
        return;
    const int fds[] = {s->wake_fd, s->end_fd, s->drain_fd, s->memory_fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    munmap(s, s->size);
}
