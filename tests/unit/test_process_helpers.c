/* fork_processes: helpers beside the workers. */
#include <signal.h>

#include "workers.h"

static struct fork_options with_helper(void)
{
    struct fork_options o = max_restarts(0);
    o.helpers = 1;
    return o;
}

TEST(a_helper_is_waited_for_and_ends_after_the_workers)
{
    struct fork_options o = with_helper();
    assert_int_equal(play(&o, "r0", "r0", "hem3"), 0);
    assert_true(shared->tasks[2].marked);
    assert_int_equal(told.restarts + told.give_up, 0);
}

TEST(a_helper_gets_no_signal_and_is_part_of_ready)
{
    struct fork_options o = with_helper();
    signals_when_ready[0] = SIGTERM;
    block(SIGTERM);
    assert_int_equal(play(&o, "rTm0", "hep0", NULL), 0);
    assert_int_equal(told.ready, 1);
    assert_true(shared->tasks[0].marked);
    assert_false(shared->tasks[1].marked);
}

TEST(a_helper_is_restarted_without_being_counted)
{
    struct fork_options o = with_helper();
    signals_when_ready[0] = SIGTERM;
    assert_int_equal(play(&o, "rT0", "k 3 0 he0", NULL), 0);
    assert_int_equal(shared->tasks[1].lives, 4); /* and it is waited for, though the last one ends with 0 */
    assert_int_equal(told.restarts, 3);
    assert_int_equal(told.tasks[0], 1);
    assert_int_equal(told.give_up, 0);
}

static void pass_time(void *arg)
{
    (void)arg;
    shared->seconds_ahead++;
}

TEST(a_helper_that_does_not_end_is_killed)
{
    struct fork_options o = with_helper();
    double start = monotonic_seconds();
    o.tick = pass_time;
    o.tick_seconds = 0.05;
    assert_int_equal(play(&o, "r0", "hw", NULL), 0);
    assert_true(monotonic_seconds() - start >= 5);
    assert_int_equal(shared->tasks[1].lives, 1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_helper_is_waited_for_and_ends_after_the_workers, set_up_workers),
        cmocka_unit_test_setup(a_helper_gets_no_signal_and_is_part_of_ready, set_up_workers),
        cmocka_unit_test_setup(a_helper_is_restarted_without_being_counted, set_up_workers),
        cmocka_unit_test_setup(a_helper_that_does_not_end_is_killed, set_up_workers),
    };
    return run_process_tests(tests, sizeof tests / sizeof *tests);
}
