/* Children: how they and their stream end. */
#include <signal.h>

#include "shop.h"

/* ---- when the client goes ---- */

static void a_reset_terminates_the_child_after_a_while(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    pid_t pid = learn_pid(p);
    run_quietly();
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(4);
    assert_true(is_alive(pid));
    expect_nothing(p);
    pass(2);
    expect(p, "end:reset/ECONNRESET signal:15");
}

static void what_ignores_that_is_killed(void **state)
{
    (void)state;
    struct party *p = run_script("trap '' TERM; echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    pid_t pid = learn_pid(p);
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(6);
    pass(4);
    assert_true(is_alive(pid));
    expect_nothing(p);
    pass(2);
    expect(p, "end:reset/ECONNRESET signal:9");
}

static void what_ends_in_time_is_left_alone(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; cat > /dev/null; exit 4", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    far_reset(p);
    run_until(!p->stream);
    assert_non_null(strstr(p->diary, " exit:4")); /* it may be gone before we know why */
    *p->diary = '\0';
}

static void the_whole_group_is_terminated(void **state)
{
    (void)state;
    struct party *p = run_script("sleep 1000 & echo $!; wait", (struct spawner_options){.kill_after_seconds = 5});
    pid_t background = learn_pid(p);
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(6);
    expect(p, "end:reset/ECONNRESET signal:15");
    run_until(!is_alive(background));
}

static void no_time_to_kill_is_never(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 0});
    pid_t pid = learn_pid(p);
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(100000);
    assert_true(is_alive(pid));
    expect_nothing(p);
    kill(pid, SIGKILL);
    expect(p, "end:reset/ECONNRESET signal:9");
}

/* ---- when we end it ---- */

static void an_ended_stream_waits_for_its_child(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; cat > /dev/null; exit 5", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    iostream_abort(p->stream, CLOSE_DENIED);
    expect_nothing(p);
    far_receive_reset(p); /* not dressed up as an end */
    expect(p, "end:denied exit:5");
}

static void a_closed_stream_ends_in_order(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    iostream_close(p->stream);
    far_receive_end(p);
    far_close(p);
    run_until(iostream_reason(p->stream) == CLOSE_FINISHED);
    pass(6);
    expect(p, "end:finished signal:15");
}

static void at_shutdown_children_end_now(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 1000});
    struct party *q = start_child();
    learn_pid(p);
    learn_pid(q);
    far_reset(q); /* its client has gone already */
    run_until(iostream_reason(q->stream) == CLOSE_RESET);
    iostream_abort(p->stream, CLOSE_SHUTDOWN);
    iostream_abort(q->stream, CLOSE_SHUTDOWN);
    expect(p, "end:shutdown signal:15");
    expect(q, "end:reset/ECONNRESET signal:15");
}

static void at_shutdown_the_stubborn_are_killed(void **state)
{
    (void)state;
    struct party *p = run_script("trap '' TERM; echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 1000});
    learn_pid(p);
    iostream_abort(p->stream, CLOSE_SHUTDOWN);
    run_quietly();
    expect_nothing(p);
    pass(2);
    expect(p, "end:shutdown signal:9");
}

static void time_limits_hold_for_children(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    assert_int_equal(iostream_set_timer(p->stream, TIMER_LIFETIME, 60), 0);
    pass(61);
    far_receive_reset(p);
    pass(6);
    expect(p, "end:timeout signal:15");
    p = start_child();
    learn_pid(p);
    assert_int_equal(iostream_set_timer(p->stream, TIMER_IDLE, 0.2), 0); /* of the kernel's own clock: this takes its time */
    run_until(iostream_reason(p->stream) == CLOSE_TIMEOUT);
    pass(6);
    expect(p, "end:timeout signal:15");
}

/* A child that has the socket itself: the kernel tells what state the connection is in. */
static void a_half_closed_connection_ends_after_its_time(void **state)
{
    (void)state;
    struct party *p = run_script("cat; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    assert_int_equal(iostream_set_timer(p->stream, TIMER_HALF_CLOSE, 0.2), 0);
    far_send(p, "both are open");
    far_receive(p, "both are open");
    double until = seconds_now() + 0.5; /* what is tested is that nothing happens */
    run_until(seconds_now() > until);
    expect_nothing(p);
    assert_int_equal(iostream_reason(p->stream), CLOSE_NONE);
    double half_closed = seconds_now();
    far_finish(p);
    run_until(iostream_reason(p->stream) == CLOSE_TIMEOUT);
    assert_true(seconds_now() - half_closed >= 0.19);
    pass(6);
    expect(p, "end:timeout signal:15");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHILD_TEST(a_reset_terminates_the_child_after_a_while),
        CHILD_TEST(what_ignores_that_is_killed),
        CHILD_TEST(what_ends_in_time_is_left_alone),
        CHILD_TEST(the_whole_group_is_terminated),
        CHILD_TEST(no_time_to_kill_is_never),
        CHILD_TEST(an_ended_stream_waits_for_its_child),
        CHILD_TEST(a_closed_stream_ends_in_order),
        CHILD_TEST(at_shutdown_children_end_now),
        CHILD_TEST(at_shutdown_the_stubborn_are_killed),
        CHILD_TEST(time_limits_hold_for_children),
        CHILD_TEST(a_half_closed_connection_ends_after_its_time),
    };
    return cmocka_run_group_tests_name("spawn_end", tests, NULL, NULL);
}
