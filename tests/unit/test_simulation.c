/* Streams under thousands of random schedules: what peers send and take, which events come when, what the user does and where, how much
 * time passes. HARK_SEED=N runs one schedule again, and prints its steps; HARK_SCHEDULES=N runs that many of each kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "world.h"

enum { SCHEDULES = 2500 };

static unsigned long seed;

static void fail_with_seed(const char *what, const char *file, int line)
{
    print_error("%s:%d: not so: %s\n# to see it again: HARK_SEED=%lu build/default/unit/test_simulation\n", file, line, what, seed);
    _fail(file, line);
}

static unsigned long number_from(const char *variable, unsigned long otherwise)
{
    const char *text = getenv(variable);
    return text ? strtoul(text, NULL, 10) : otherwise;
}

/* The seed says how many streams there are, too. */
static void run_seed(unsigned long number)
{
    struct choices choices = {.state = seed = number};
    world_run(&choices, 1 + (int)(number % WORLD_STREAMS));
}

static void run_schedules(int streams)
{
    unsigned long count = number_from("HARK_SCHEDULES", SCHEDULES), only = number_from("HARK_SEED", 0);
    world_failed = fail_with_seed;
    world_begin();
    for (unsigned long i = 0; i < count && !only; i++)
        run_seed((i + 1) * WORLD_STREAMS + (unsigned long)streams - 1);
    if (only % WORLD_STREAMS + 1 == (unsigned long)streams && only) {
        world_traced = true;
        run_seed(only);
    }
    world_end();
}

static void one_stream(void **state)
{
    (void)state;
    run_schedules(1);
}

static void two_streams(void **state)
{
    (void)state;
    run_schedules(2);
}

static void three_streams(void **state)
{
    (void)state;
    run_schedules(3);
}

static void four_streams(void **state)
{
    (void)state;
    run_schedules(4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_stream),
        cmocka_unit_test(two_streams),
        cmocka_unit_test(three_streams),
        cmocka_unit_test(four_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
