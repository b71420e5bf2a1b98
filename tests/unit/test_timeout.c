/* Timeouts: that they strike, in which order, and that one timer a length is all they take. */
#include <stdio.h>

#include "harness.h"

enum { MAX_CLOCKS = 8, MANY = 1000 };
static const double SHORT = 0.02, LONG = 0.05, SLACK = 0.002;

/* ---- clocks that write down their name when they strike ---- */

static struct alarm_clock {
    struct timeout timeout;
    double began, struck;
    void (*when_struck)(void);
} clocks[MAX_CLOCKS];
static char struck[MAX_CLOCKS * 4]; /* "0 1": in this order */

static void on_strike(struct timeout *t)
{
    struct alarm_clock *c = container_of(t, struct alarm_clock, timeout);
    c->struck = seconds_now();
    snprintf(struck + strlen(struck), sizeof struck - strlen(struck), "%s%td", *struck ? " " : "", c - clocks);
    if (c->when_struck)
        c->when_struck();
}

static void on_other_strike(struct timeout *t)
{
    on_strike(t);
}

static void start(int i, double seconds)
{
    clocks[i].began = seconds_now();
    ev_now_update(loop);
    assert_int_equal(timeout_start(engine, &clocks[i].timeout, seconds, on_strike), 0);
}

static void expect_struck(const char *order)
{
    run_until(strlen(struck) >= strlen(order));
    run_quietly();
    assert_string_equal(struck, order);
    for (int i = 0; i < MAX_CLOCKS; i++) {
        if (clocks[i].struck > 0)
            assert_null(clocks[i].timeout.list);
    }
    assert_false(ev_run(loop, EVRUN_NOWAIT)); /* nothing is left that would keep the loop running */
}

static void assert_took(int i, double seconds)
{
    assert_true(clocks[i].struck - clocks[i].began >= seconds - SLACK);
}

static int set_clocks(void **state)
{
    memset(clocks, 0, sizeof clocks);
    *struck = '\0';
    return set_up(state);
}

/* ---- the tests ---- */

static void strikes_once_and_not_before_its_time(void **state)
{
    (void)state;
    start(0, SHORT);
    expect_struck("0");
    assert_took(0, SHORT);
}

static void strikes_in_order_of_time(void **state)
{
    (void)state;
    if (is_on_valgrind()) /* between two starts more time passes than that */
        skip();
    start(0, LONG);
    start(1, SHORT);
    start(2, 2 * SHORT);
    expect_struck("1 2 0");
}

static void of_one_length_the_first_started_strikes_first(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        start(i, SHORT);
    expect_struck("0 1 2 3");
}

static void a_callback_of_its_own_has_a_list_of_its_own(void **state)
{
    (void)state;
    start(0, SHORT);
    assert_int_equal(timeout_start(engine, &clocks[1].timeout, SHORT, on_other_strike), 0);
    start(2, SHORT);
    run_until(strlen(struck) == strlen("0 1 2"));
    assert_ptr_not_equal(strchr(struck, '0'), NULL);
    assert_true(strchr(struck, '0') < strchr(struck, '2'));
}

static void strikes_at_once_when_the_time_is_nothing(void **state)
{
    (void)state;
    start(0, 0);
    expect_struck("0");
}

static void starting_again_moves_it_to_the_new_length(void **state)
{
    (void)state;
    start(0, SHORT);
    start(1, 2 * SHORT);
    start(0, LONG);
    expect_struck("1 0");
    assert_took(0, LONG);
}

static void stopped_it_never_strikes(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++)
        start(i, SHORT);
    timeout_stop(&clocks[0].timeout); /* the first, one in the middle, the last */
    timeout_stop(&clocks[2].timeout);
    timeout_stop(&clocks[3].timeout);
    timeout_stop(&clocks[3].timeout); /* twice is once */
    timeout_stop(&clocks[4].timeout); /* it never ran */
    expect_struck("1");
}

static void all_stopped_the_loop_has_nothing_to_wait_for(void **state)
{
    (void)state;
    start(0, LONG);
    start(1, LONG);
    start(2, SHORT);
    for (int i = 0; i < 3; i++)
        timeout_stop(&clocks[i].timeout);
    ev_run(loop, 0);
    assert_string_equal(struck, "");
}

static void restart_first(void)
{
    clocks[0].began = seconds_now();
    timeout_restart(&clocks[0].timeout);
}

static void restarted_it_waits_its_whole_length_again(void **state)
{
    (void)state;
    start(0, LONG);
    start(1, LONG);
    start(2, SHORT);
    clocks[2].when_struck = restart_first;
    expect_struck("2 1 0");
    assert_took(0, LONG);
    assert_took(1, LONG);
}

static void restarting_what_does_not_run_does_nothing(void **state)
{
    (void)state;
    timeout_restart(&clocks[0].timeout);
    assert_null(clocks[0].timeout.list);
    start(1, SHORT);
    timeout_stop(&clocks[1].timeout);
    timeout_restart(&clocks[1].timeout);
    assert_false(ev_run(loop, EVRUN_NOWAIT));
}

static void stop_the_next(void)
{
    timeout_stop(&clocks[1].timeout);
}

static void one_may_stop_the_next_from_its_callback(void **state)
{
    (void)state;
    clocks[0].when_struck = stop_the_next;
    for (int i = 0; i < 3; i++)
        start(i, SHORT);
    expect_struck("0 2");
}

static void start_itself_once_more(void)
{
    clocks[0].when_struck = NULL;
    start(0, SHORT);
}

static void one_may_start_itself_from_its_callback(void **state)
{
    (void)state;
    clocks[0].when_struck = start_itself_once_more;
    start(0, SHORT);
    start(1, SHORT);
    expect_struck("0 1 0");
    assert_took(0, SHORT);
}

static void move_the_next_on(void)
{
    start(1, LONG);
}

static void one_may_move_the_next_to_another_list(void **state)
{
    (void)state;
    clocks[0].when_struck = move_the_next_on;
    for (int i = 0; i < 3; i++)
        start(i, SHORT);
    expect_struck("0 2 1");
    assert_took(1, LONG);
}

/* The cost: restarted on every byte of every stream. */
static void a_thousand_of_one_length_share_one_list(void **state)
{
    (void)state;
    static struct timeout many[MANY];
    for (int i = 0; i < MANY; i++)
        assert_int_equal(timeout_start(engine, &many[i], LONG, on_strike), 0);
    for (int i = 0; i < MANY; i++) {
        timeout_restart(&many[i]);
        assert_ptr_equal(many[i].list, many[0].list);
    }
    for (int i = 0; i < MANY; i++)
        timeout_stop(&many[i]);
}

/* Somebody sets the clock, as happens at every start of a machine that has none of its own: a limit of a minute must neither strike now
 * nor wait for an hour. */
static void the_time_of_day_does_not_matter(void **state)
{
    (void)state;
    const time_t jumps[] = {-3600, 3600};
    for (int i = 0; i < 2; i++) {
        start(i, 60);
        pass(30);
        timeout_restart(&clocks[i].timeout);
        set_clock_ahead(jumps[i]);
        pass(50);
        assert_true(clocks[i].struck == 0);
        pass(20);
        assert_true(clocks[i].struck > 0);
    }
}

#define CLOCK_TEST(function) cmocka_unit_test_setup_teardown(function, set_clocks, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CLOCK_TEST(strikes_once_and_not_before_its_time),
        CLOCK_TEST(strikes_in_order_of_time),
        CLOCK_TEST(of_one_length_the_first_started_strikes_first),
        CLOCK_TEST(a_callback_of_its_own_has_a_list_of_its_own),
        CLOCK_TEST(strikes_at_once_when_the_time_is_nothing),
        CLOCK_TEST(starting_again_moves_it_to_the_new_length),
        CLOCK_TEST(stopped_it_never_strikes),
        CLOCK_TEST(all_stopped_the_loop_has_nothing_to_wait_for),
        CLOCK_TEST(restarted_it_waits_its_whole_length_again),
        CLOCK_TEST(restarting_what_does_not_run_does_nothing),
        CLOCK_TEST(one_may_stop_the_next_from_its_callback),
        CLOCK_TEST(one_may_start_itself_from_its_callback),
        CLOCK_TEST(one_may_move_the_next_to_another_list),
        CLOCK_TEST(a_thousand_of_one_length_share_one_list),
        CLOCK_TEST(the_time_of_day_does_not_matter),
    };
    return cmocka_run_group_tests_name("timeout", tests, NULL, NULL);
}
