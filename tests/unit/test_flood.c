/* test_flood.c - how many lines of a kind are written, by a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "../../cmd/flood.h"

static unsigned allowed(struct flood *f, unsigned lines, double now)
{
    unsigned count = 0;
    while (lines-- > 0)
        count += flood_allows(f, now);
    return count;
}

static void test_so_many_in_so_long(void **state)
{
    (void)state;
    struct flood f = {0};
    assert_int_equal(allowed(&f, FLOOD_LINES, 100), FLOOD_LINES);
    assert_int_equal(allowed(&f, 1000, 100 + FLOOD_SECONDS - 0.1), 0);
    assert_int_equal(allowed(&f, 1000, 100 + FLOOD_SECONDS), FLOOD_LINES);
}

/* A steady trickle is never cut. */
static void test_trickle(void **state)
{
    (void)state;
    struct flood f = {0};
    for (unsigned i = 0; i < 1000; i++)
        assert_true(flood_allows(&f, 100 + i * (double)FLOOD_SECONDS / FLOOD_LINES));
    assert_int_equal(flood_suppressed(&f, 1e6, true), 0);
}

static void test_count(void **state)
{
    (void)state;
    struct flood f = {0};
    assert_int_equal(flood_suppressed(&f, 50, true), 0);
    allowed(&f, FLOOD_LINES + 7, 100);
    assert_int_equal(flood_suppressed(&f, 101, false), 0); /* there may be more */
    assert_int_equal(flood_suppressed(&f, 100 + FLOOD_SECONDS, false), 7);
    assert_int_equal(flood_suppressed(&f, 100 + FLOOD_SECONDS, false), 0); /* told once */
    allowed(&f, FLOOD_LINES + 3, 200);
    assert_int_equal(flood_suppressed(&f, 200, true), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_so_many_in_so_long),
        cmocka_unit_test(test_trickle),
        cmocka_unit_test(test_count),
    };
    return cmocka_run_group_tests_name("flood", tests, NULL, NULL);
}
