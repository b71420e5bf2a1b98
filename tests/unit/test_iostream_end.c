/* How a stream ends: by which of its two sides, by an ender, a time limit, a reset; and what may be done meanwhile, which is everything. */
#include "harness.h"

static const char zeros[KIB(64)];

static void write_pattern(struct party *p, size_t length)
{
    char *bytes = malloc(length);
    pattern(bytes, length, 0);
    assert_int_equal(iostream_write(p->stream, bytes, length, on_wrote, p), 0);
    free(bytes);
}

static void drain_all(struct party *p, uint64_t length)
{
    run_until(far_drain(p, KIB(8192)) + 1 && p->drained == length);
}

/* Read from before, and now not: what its peer does is seen without reading. */
static struct party *meet_paused(void)
{
    struct party *p = meet(0);
    read_some(p, 1);
    assert_int_equal(iostream_read_cancel(p->stream), 0);
    return p;
}

/* ---- in order ---- */

static void the_peer_first_is_eof(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_finish(p);
    read_some(p, 1);
    expect(p, "read-eof");
    iostream_finish(p->stream);
    assert_int_equal(iostream_reason(p->stream), CLOSE_EOF);
    expect_nothing(p);
    expect(p, "end:eof");
    far_receive_end(p);
}

static void our_side_first_is_finished(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    iostream_finish(p->stream);
    far_receive_end(p);
    run_quietly();
    expect_nothing(p);
    far_finish(p);
    expect(p, "eof end:finished");
}

/* Both have ended, but nobody has looked at what has come. */
static void it_does_not_end_before_all_is_read(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_send(p, "abcdef");
    far_finish(p);
    read_bytes(p, 100);
    expect(p, "read-eof");
    iostream_finish(p->stream);
    far_receive_end(p);
    run_quietly();
    assert_int_equal(iostream_reason(p->stream), CLOSE_NONE);
    read_bytes(p, 4);
    expect(p, "read:abcd");
    run_quietly();
    expect_nothing(p);
    read_some(p, 100);
    expect(p, "read:ef end:eof");
}

/* ... and nobody is going to: there are three ways to say so. */
static void it_ends_when_the_rest_is_not_wanted(void **state)
{
    (void)state;
    for (int way = 0; way < 3; way++) {
        struct party *p = meet(0), *q = meet(0);
        far_send(p, "abcdef");
        far_finish(p);
        read_bytes(p, 100);
        expect(p, "read-eof");
        iostream_finish(p->stream);
        run_quietly();
        if (way == 0)
            assert_int_equal(iostream_discard(p->stream), 0);
        else if (way == 1)
            iostream_close(p->stream);
        else
            assert_int_equal(iostream_relay(p->stream, q->stream), 0);
        expect_nothing(p);
        expect(p, "end:eof");
        if (way == 2)
            far_receive(q, "abcdef");
    }
}

/* ---- close ---- */

static void close_flushes_finishes_and_waits_for_the_peer(void **state)
{
    (void)state;
    struct party *p = meet(KIB(4096));
    write_pattern(p, KIB(4096));
    iostream_close(p->stream);
    iostream_close(p->stream);  /* twice is once */
    iostream_finish(p->stream); /* which it does already */
    expect_nothing(p);
    drain_all(p, KIB(4096));
    far_receive_end(p);
    far_close(p);
    expect(p, "wrote end:finished");
}

static void close_after_the_peers_end_ends(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_finish(p);
    read_some(p, 1);
    expect(p, "read-eof");
    iostream_close(p->stream);
    expect_nothing(p);
    expect(p, "end:eof");
}

/* A request that nobody reads must not turn the answer into a reset. The peer sends on while it reads, even. */
static void close_with_unread_input_does_not_destroy_the_answer(void **state)
{
    (void)state;
    static const size_t requests[] = {1, KIB(100), KIB(20000)};
    for (size_t i = 0; i < COUNT(requests); i++) {
        struct party *p = meet(KIB(1024));
        far_pour(p, requests[i]);
        run_quietly();
        write_pattern(p, KIB(1024));
        iostream_close(p->stream);
        while (p->drained < KIB(1024)) {
            far_drain(p, KIB(64));
            far_pour(p, KIB(64));
            ev_run(loop, EVRUN_NOWAIT);
        }
        far_receive_end(p);
        far_finish(p);
        expect(p, "wrote end:finished");
    }
}

static void close_does_not_wait_for_ever(void **state)
{
    (void)state;
    for (size_t queued = 0; queued <= KIB(8192); queued += KIB(8192)) {
        struct party *p = meet(KIB(8192));
        write_pattern(p, queued);
        iostream_close(p->stream);
        drain_all(p, queued);
        far_receive_end(p);
        pass(1);
        expect(p, "wrote");
        pass(2);
        expect(p, "end:finished");
    }
}

static void close_flushes_for_as_long_as_bytes_move(void **state)
{
    (void)state;
    struct party *p = meet(KIB(16384));
    write_pattern(p, KIB(16384));
    iostream_close(p->stream);
    for (int i = 0; i < 3; i++) {
        size_t before = iostream_write_pending(p->stream);
        pass(20);
        run_until(far_drain(p, KIB(1024)) + 1 && iostream_write_pending(p->stream) < before);
    }
    run_quietly();
    pass(20);
    expect_nothing(p);
    assert_true(iostream_write_pending(p->stream) > 0);
    pass(11);
    expect(p, "wrote:EPIPE end:timeout");
}

static void close_takes_a_pending_read_back(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    read_until(p, "\n", 0);
    iostream_close(p->stream);
    expect_nothing(p);
    far_send(p, "a line\n");
    far_close(p);
    expect(p, "read-closed end:finished");
}

static void close_answers_a_pending_read_before_the_peer_ends(void **state)
{
    (void)state;
    struct party *p = meet(0);
    read_until(p, "\n", 0);
    iostream_close(p->stream);
    expect(p, "read-closed");
    far_close(p);
    expect(p, "end:finished");
}

/* ---- abort ---- */

static void abort_is_a_reset(void **state)
{
    (void)state;
    struct party *p = meet(0);
    iostream_abort(p->stream, CLOSE_DENIED);
    assert_int_equal(iostream_reason(p->stream), CLOSE_DENIED);
    iostream_abort(p->stream, CLOSE_ERROR); /* the first one counts */
    expect_nothing(p);
    expect(p, "end:denied");
    far_receive_reset(p);
}

static void abort_drops_what_is_queued(void **state)
{
    (void)state;
    struct party *p = meet(KIB(16384));
    watch_eof(p);
    read_some(p, 1);
    write_pattern(p, KIB(16384));
    write_text(p, "");
    run_quietly();
    iostream_abort(p->stream, CLOSE_ERROR);
    expect(p, "read-closed wrote:EPIPE wrote:EPIPE end:error");
    size_t arrived = 0;
    for (ssize_t n; (n = read(p->far.in, engine->scratch, SCRATCH_BYTES)) > 0;)
        arrived += (size_t)n;
    assert_true(arrived < KIB(16384));
}

/* ---- the peer's reset ---- */

static void a_reset_ends_everything(void **state)
{
    (void)state;
    struct party *p = meet(KIB(16384));
    watch_eof(p);
    read_until_close(p);
    write_pattern(p, KIB(16384));
    write_text(p, "more");
    run_quietly();
    far_reset(p);
    expect(p, "read-closed wrote:ECONNRESET wrote:ECONNRESET end:reset/ECONNRESET");
}

static void a_reset_is_noticed_while_nothing_is_read(void **state)
{
    (void)state;
    enum { CANCELLED, UNREAD_INPUT, BUFFERED_INPUT, FINISHED, BLOCKED_OUTPUT, JUST_WATCHED, WAYS };
    for (int way = 0; way < WAYS; way++) {
        struct party *p = way == JUST_WATCHED ? meet(0) : meet_paused();
        if (way == UNREAD_INPUT)
            far_pour(p, KIB(100));
        if (way == BUFFERED_INPUT) {
            watch_eof(p);
            far_send(p, "abc");
        }
        if (way == FINISHED)
            iostream_finish(p->stream);
        while (way == BLOCKED_OUTPUT && iostream_write_pending(p->stream) == 0)
            assert_int_equal(iostream_write(p->stream, zeros, sizeof zeros, NULL, NULL), 0);
        if (way == JUST_WATCHED)
            iostream_watch(p->stream);
        run_quietly();
        far_reset(p);
        expect(p, "end:reset/ECONNRESET");
        dismiss_all();
    }
}

static void a_reset_after_the_peers_end_is_noticed(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    far_finish(p);
    expect(p, "eof");
    far_reset(p);
    expect(p, "end:reset/EPIPE"); /* as the kernel calls it then */
}

static void a_unix_peer_that_leaves_bytes_unread_is_noticed(void **state)
{
    (void)state;
    struct party *p = meet_paused();
    write_text(p, "unread");
    expect(p, "wrote");
    far_close(p);
    expect(p, "end:reset/ECONNRESET");
}

static void an_end_in_order_is_not_mistaken_for_a_reset(void **state)
{
    (void)state;
    struct party *p = meet_paused(), *q = meet_paused();
    far_send(p, "last words");
    far_finish(p);
    far_send(q, "last words");
    far_close(q);
    run_quietly();
    expect_nothing(p);
    expect_nothing(q);
    read_until_close(p);
    expect(p, "read:last words");
    read_until_close(q);
    expect(q, "read:last words");
}

static void writing_to_one_who_has_gone_is_a_reset(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_close(p);
    while (p->stream) { /* over TCP the first write is the question, a reset the answer */
        iostream_write(p->stream, "x", 1, NULL, NULL);
        run_quietly();
    }
    expect(p, "end:reset/EPIPE");
}

/* ---- time limits ---- */

static void far_says(struct party *p, const char *text)
{
    char words[64] = "read:";
    read_some(p, 100);
    far_send(p, text);
    expect(p, strcat(words, text));
}

static void set_timer(struct party *p, enum iostream_timer which, double seconds)
{
    assert_int_equal(iostream_set_timer(p->stream, which, seconds), 0);
}

static void idle_time_begins_anew_with_every_byte(void **state)
{
    (void)state;
    struct party *p = meet(0);
    set_timer(p, TIMER_IDLE, 60);
    for (int i = 0; i < 3; i++) {
        pass(50);
        far_says(p, "in");
        pass(50);
        write_text(p, "out");
        expect(p, "wrote");
    }
    pass(50);
    expect_nothing(p);
    pass(11);
    expect(p, "end:timeout");
}

static void so_it_does_with_what_is_written_while_the_loop_does_not_run(void **state)
{
    (void)state;
    struct party *p = meet(0);
    set_timer(p, TIMER_IDLE, 60);
    write_text(p, "out");
    pass_unseen(50);
    write_text(p, "out");
    pass(12);
    expect(p, "wrote wrote");
    pass(2);
    pass(45);
    expect_nothing(p);
    pass(2);
    expect(p, "end:timeout");
}

static void queued_bytes_that_do_not_move_are_idle(void **state)
{
    (void)state;
    struct party *p = meet(KIB(16384));
    set_timer(p, TIMER_IDLE, 60);
    write_pattern(p, KIB(16384));
    run_quietly();
    pass(50);
    size_t before = iostream_write_pending(p->stream);
    run_until(far_drain(p, KIB(1024)) + 1 && iostream_write_pending(p->stream) < before);
    run_quietly();
    pass(50);
    expect_nothing(p);
    pass(11);
    expect(p, "wrote:EPIPE end:timeout");
}

static void half_closed_for_too_long(void **state)
{
    (void)state;
    for (int ours = 0; ours < 2; ours++) {
        struct party *p = meet(0);
        set_timer(p, TIMER_HALF_CLOSE, 60);
        pass(1000); /* it is open both ways */
        pass(59);
        watch_eof(p);
        if (ours) {
            iostream_finish(p->stream);
            far_receive_end(p);
        } else {
            far_finish(p);
            expect(p, "eof");
        }
        pass(50); /* the time begins with the half-close ... */
        expect_nothing(p);
        if (ours) {
            far_says(p, "on and on");
        } else {
            write_text(p, "on and on");
            expect(p, "wrote");
        }
        pass(59); /* ... and anew with every byte */
        expect_nothing(p);
        pass(2);
        expect(p, "end:timeout");
    }
}

static void a_lifetime_is_not_prolonged(void **state)
{
    (void)state;
    struct party *p = meet(0);
    set_timer(p, TIMER_LIFETIME, 60);
    pass(50);
    far_says(p, "hello");
    write_text(p, "hello");
    expect(p, "wrote");
    read_some(p, 1);
    pass(11);
    expect(p, "read-closed end:timeout");
}

static void a_limit_can_be_changed_and_taken_away(void **state)
{
    (void)state;
    struct party *p = meet(0);
    for (int which = 0; which < IOSTREAM_TIMERS; which++) {
        set_timer(p, (enum iostream_timer)which, 60);
        pass(50);
        set_timer(p, (enum iostream_timer)which, 100); /* from now on */
        pass(90);
        set_timer(p, (enum iostream_timer)which, 0);
        pass(1000);
        expect_nothing(p);
    }
    set_timer(p, TIMER_IDLE, 60);
    set_timer(p, TIMER_LIFETIME, 30); /* each is by itself */
    pass(31);
    expect(p, "end:timeout");
}

static void set_timers_in_vain(struct party *p, const char *word)
{
    if (strcmp(word, "end") == 0) {
        for (int which = 0; which < IOSTREAM_TIMERS; which++)
            set_timer(p, (enum iostream_timer)which, 1);
    }
}

static void an_ended_stream_has_no_limits(void **state)
{
    (void)state;
    struct party *p = meet(0);
    p->inside = set_timers_in_vain;
    iostream_abort(p->stream, CLOSE_SHUTDOWN);
    expect(p, "end:shutdown");
    pass(10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(the_peer_first_is_eof),
        STREAM_TEST(our_side_first_is_finished),
        STREAM_TEST(it_does_not_end_before_all_is_read),
        STREAM_TEST(it_ends_when_the_rest_is_not_wanted),
        SOCKET_TEST(close_flushes_finishes_and_waits_for_the_peer),
        STREAM_TEST(close_after_the_peers_end_ends),
        SOCKET_TEST(close_with_unread_input_does_not_destroy_the_answer),
        SOCKET_TEST(close_does_not_wait_for_ever),
        STREAM_TEST(close_flushes_for_as_long_as_bytes_move),
        SOCKET_TEST(close_takes_a_pending_read_back),
        SOCKET_TEST(close_answers_a_pending_read_before_the_peer_ends),
        LOOP_TEST(abort_is_a_reset),
        STREAM_TEST(abort_drops_what_is_queued),
        LOOP_TEST(a_reset_ends_everything),
        LOOP_TEST(a_reset_is_noticed_while_nothing_is_read),
        LOOP_TEST(a_reset_after_the_peers_end_is_noticed),
        WIRE_TEST(a_unix_peer_that_leaves_bytes_unread_is_noticed, UNIX),
        STREAM_TEST(an_end_in_order_is_not_mistaken_for_a_reset),
        STREAM_TEST(writing_to_one_who_has_gone_is_a_reset),
        STREAM_TEST(idle_time_begins_anew_with_every_byte),
        STREAM_TEST(so_it_does_with_what_is_written_while_the_loop_does_not_run),
        STREAM_TEST(queued_bytes_that_do_not_move_are_idle),
        STREAM_TEST(half_closed_for_too_long),
        STREAM_TEST(a_lifetime_is_not_prolonged),
        STREAM_TEST(a_limit_can_be_changed_and_taken_away),
        LOOP_TEST(an_ended_stream_has_no_limits),
    };
    return cmocka_run_group_tests_name("iostream_end", tests, NULL, NULL);
}
