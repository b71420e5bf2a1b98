/* loop.h - an event loop for a test, and the proof that nothing is left of it. */
#ifndef TEST_LOOP_H
#define TEST_LOOP_H

#include <arpa/inet.h>
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/resolve.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])
#define LOOP_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

static struct ev_loop *loop;
static struct engine *engine; /* the test's own hold on it, so that it outlives what is tested */
static int descriptors;

static inline int count_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

static inline int set_up(void **state)
{
    (void)state;
    struct errbuf err;
    descriptors = count_descriptors();
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    engine = engine_get(loop, &err);
    return engine ? 0 : -1;
}

/* Whatever happened, nothing is left: no watcher keeps the loop running, no descriptor is open. */
static inline int tear_down(void **state)
{
    (void)state;
    ev_run(loop, 0);
    assert_int_equal(engine->users, 1);
    engine_put(engine);
    ev_loop_destroy(loop);
    assert_int_equal(count_descriptors(), descriptors);
    return 0;
}

static inline struct address inet(const char *ip, unsigned port)
{
    struct address a = {.length = sizeof a.in4};
    a.in4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
    assert_int_equal(inet_pton(AF_INET, ip, &a.in4.sin_addr), 1);
    return a;
}

static inline unsigned port_of(int fd)
{
    struct address a = {.length = sizeof a.in6};
    assert_int_equal(getsockname(fd, &a.any, &a.length), 0);
    return address_port(&a.any);
}

#endif
