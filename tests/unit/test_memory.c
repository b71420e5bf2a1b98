/* Memory runs out: every allocation of a scene fails once, the first in the first run, the second in the second, until a run needs no
 * more of them (of those of a handshake, thousands, every 23rd). Whoever allocated it, hark, libev, c-ares or the C library: at most one connection ends, and nothing leaks. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "scenes.h"
#include "valgrind.h"

/* ---- the allocator ---- */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t);
void *REAL(calloc)(size_t, size_t);
void *REAL(realloc)(void *, size_t);
void REAL(free)(void *);

static int countdown; /* in trouble, 1: the next allocation fails */
static int blocks;    /* allocated and not freed */
static bool dry;      /* there is only what is given back from now on */
static size_t given_back;

/* AddressSanitizer allocates before it can look at globals. */
__attribute__((no_sanitize("address"))) static bool fails(size_t size)
{
    if (dry && size > given_back) {
        errno = ENOMEM;
        return true;
    }
    given_back -= dry ? size : 0;
    if (!trouble.on || --countdown != 0)
        return false;
    trouble.hit = true;
    errno = ENOMEM;
    return true;
}

static void *counted(void *block)
{
    blocks += block != NULL;
    return block;
}

void *malloc(size_t size)
{
    return fails(size) ? NULL : counted(REAL(malloc)(size));
}

void *calloc(size_t count, size_t size)
{
    return fails(count * size) ? NULL : counted(REAL(calloc)(count, size));
}

void *realloc(void *block, size_t size)
{
    if (fails(size))
        return NULL;
    blocks -= block != NULL;
    return counted(REAL(realloc)(block, size));
}

void free(void *block)
{
    blocks -= block != NULL;
    given_back += dry && block ? malloc_usable_size(block) : 0;
    REAL(free)(block);
}

char *strdup(const char *text) /* AddressSanitizer's own would not come by here */
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

/* ---- the walk ---- */

enum { MOST_ALLOCATIONS = 50000, OF_OPENSSL = 23 };

static void walk(void **state)
{
    const struct scene *scene = *state;
    if (is_on_valgrind()) /* which cannot follow blocks of an allocator of our own */
        skip();
    limit_time(100);
    play_scene(scene->play, false); /* what is allocated once and kept */
    play_scene(scene->play, false);
    int before = blocks, n = 0, stride = scene->caches ? OF_OPENSSL : 1;
    do {
        n += stride;
        countdown = n;
        play_scene(scene->play, true);
        assert_true(n < MOST_ALLOCATIONS);
        if (blocks != before && !scene->caches) {
            print_error("after allocation %d has failed, %d blocks are left\n", n, blocks - before);
            assert_int_equal(blocks, before);
        }
    } while (trouble.hit);
    print_message("# %d allocations\n", (n - 1) / stride);
    alarm(0);
}

/* ---- libev's arrays ---- */

static int shortage; /* what `exhausted` was told */

static void on_exhausted(void *arg, int error)
{
    (void)arg;
    assert_int_equal(shortage, 0); /* once */
    shortage = error;
}

static void on_event(struct ev_loop *l, ev_io *io, int events)
{
    (void)l, (void)io, (void)events;
}

/* A descriptor whose number is beyond all that libev has an array for. */
static void watch_high_descriptor(ev_io *io, int number)
{
    int never_ready = eventfd(0, EFD_CLOEXEC), fd = fcntl(never_ready, F_DUPFD_CLOEXEC, number);
    close(never_ready);
    assert_true(fd >= number);
    ev_io_init(io, on_event, fd, EV_READ);
    ev_io_start(scene_loop(), io);
}

static void grow_array(void)
{
    struct errbuf err;
    ev_io high;
    const struct tcpserver_options options = {.exhausted = on_exhausted};
    struct tcpserver *server = open_server(serve_relay, &options, &err);
    shortage = 0;
    assert_non_null(server);
    dry = true;
    given_back = 0;
    watch_high_descriptor(&high, 500);
    int client = dial();
    while (!shortage)
        ev_run(scene_loop(), EVRUN_ONCE);
    assert_int_equal(shortage, ENOMEM);
    dry = false;
    assert_true(talk(client)); /* it has waited in the backlog */
    close(client);
    ev_io_stop(scene_loop(), &high);
    close(high.fd);
    tcpserver_free(server);
}

static void listeners_rest_when_libev_used_up_its_reserve(void **state)
{
    (void)state;
    if (is_on_valgrind()) /* it never gets dry: the allocator is valgrind's */
        skip();
    limit_time(60);
    play_scene(grow_array, false);
    alarm(0);
}

int main(void)
{
    struct CMUnitTest tests[SCENES + 1] = {[SCENES] = cmocka_unit_test(listeners_rest_when_libev_used_up_its_reserve)};
    for (int i = 0; i < SCENES; i++)
        tests[i] = (struct CMUnitTest){.name = scenes[i].name, .test_func = walk, .initial_state = (void *)(uintptr_t)&scenes[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
