/* The pump: everything arrives, in either direction, whoever ends first, however slow the other is, and a reset is passed on as one. */
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include "harness.h"

static void meet_joined(struct party **p, struct party **q)
{
    join(*p = meet(0), *q = meet(0));
}

/* ---- echo ---- */

static void echo_sends_back_what_it_gets(void **state)
{
    (void)state;
    struct party *p = meet(0);
    relay(p, p);
    run_quietly();
    far_send(p, "hello");
    far_receive(p, "hello");
    far_send(p, "again");
    far_receive(p, "again");
    carry(p, p, KIB(1024));
    assert_int_equal(iostream_bytes_in(p->stream), KIB(1024) + 10);
    assert_int_equal(iostream_bytes_out(p->stream), KIB(1024) + 10);
    far_finish(p);
    far_receive_end(p);
    expect(p, "end:eof");
}

static void echo_delivers_all_to_one_who_half_closes_before_reading(void **state)
{
    (void)state;
    struct party *p = meet(0);
    relay(p, p);
    jam(p);
    far_finish(p);
    run_quietly();
    expect_nothing(p);
    drain(p, p);
    far_receive_end(p);
    expect(p, "end:eof");
}

/* ---- two ways ---- */

static void both_ways_over_every_kind_of_stream(void **state)
{
    (void)state;
    for (int i = 0; i < 9; i++) {
        struct party *p = meet_over((enum wire)(i / 3), 0), *q = meet_over((enum wire)(i % 3), 0);
        join(p, q);
        carry(p, q, KIB(300));
        carry(q, p, KIB(300));
        assert_int_equal(iostream_bytes_in(p->stream), iostream_bytes_out(q->stream));
        assert_int_equal(iostream_bytes_in(q->stream), iostream_bytes_out(p->stream));
        far_finish(p); /* the answer comes late, and is long */
        far_receive_end(q);
        carry(q, p, KIB(300));
        far_finish(q);
        far_receive_end(p);
        expect(p, "end:eof");
        expect(q, "end:finished");
        dismiss_all();
    }
}

static void an_end_reaches_a_slow_reader_after_all_bytes(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    jam(p);
    far_finish(p);
    far_finish(q);
    far_receive_end(p);
    run_quietly();
    drain(p, q);
    far_receive_end(q);
    expect(p, "end:finished");
    expect(q, "end:eof");
}

/* ---- back-pressure ---- */

static void a_slow_reader_stops_the_writer(void **state)
{
    (void)state;
    enum { PIECE = 64 * 1024 };
    struct party *p = meet(PIECE), *q = meet(PIECE);
    join(p, q);
    size_t most = 0;
    for (int quiet = 0; quiet < 20; quiet++) {
        if (far_pour(p, KIB(8192)) > 0)
            quiet = 0;
        ev_run(loop, EVRUN_NOWAIT);
        most = iostream_write_pending(q->stream) > most ? iostream_write_pending(q->stream) : most;
        assert_int_equal(buffer_length(&p->stream->in), 0);
    }
    assert_true(most > 0 && most <= PIECE);
    far_send(q, "the other way is free");
    far_receive(p, "the other way is free");
    drain(p, q);
    assert_int_equal(iostream_write_pending(q->stream), 0);
    carry(p, q, KIB(1024)); /* and it goes on */
}

static void buffers_may_be_tiny(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 10, 4095};
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct party *p = meet(sizes[i]), *q = meet(sizes[i]);
        join(p, q);
        carry(p, q, KIB(10));
        carry(q, p, KIB(10));
        if (wire == PIPES) { /* the others would take a million writes to fill */
            jam(p);
            assert_true(iostream_write_pending(q->stream) <= sizes[i]);
        }
        far_finish(p);
        far_finish(q);
        drain(p, q);
        far_receive_end(q);
        far_receive_end(p);
        run_until(!p->stream && !q->stream);
        dismiss_all();
    }
}

/* ---- what was there before ---- */

static void bytes_read_ahead_go_first(void **state)
{
    (void)state;
    struct party *p = meet(0), *q = meet(0);
    far_send(p, "CONNECT target\nhello ");
    read_until(p, "\n", 0);
    expect(p, "read:CONNECT target\n");
    join(p, q);
    far_send(p, "world");
    far_receive(q, "hello world");
}

static void more_bytes_than_the_other_takes_may_be_there(void **state)
{
    (void)state;
    struct party *p = meet(KIB(8192)), *q = meet(10);
    read_bytes(p, KIB(8192));
    while (buffer_length(&p->stream->in) < KIB(6000)) {
        far_pour(p, KIB(64));
        run_quietly();
    }
    assert_int_equal(iostream_read_cancel(p->stream), 0);
    join(p, q);
    carry(p, q, KIB(100));
    drain(p, q);
}

static void an_end_seen_before_is_passed_on(void **state)
{
    (void)state;
    for (int with_bytes = 0; with_bytes < 2; with_bytes++) {
        struct party *p = meet(0), *q = meet(0);
        far_send(p, with_bytes ? "abc" : "");
        far_finish(p);
        read_bytes(p, 100);
        expect(p, "read-eof");
        join(p, q);
        far_receive(q, with_bytes ? "abc" : "");
        far_receive_end(q);
        far_send(q, "answer");
        far_finish(q);
        far_receive(p, "answer");
        far_receive_end(p);
        expect(p, "end:eof");
        expect(q, "end:finished");
    }
}

static void on_eof_is_told_beside_a_relay(void **state)
{
    (void)state;
    for (int seen_before = 0; seen_before < 2; seen_before++) {
        struct party *p = meet(0), *q = meet(0);
        if (seen_before) {
            far_send(p, "abc");
            far_finish(p);
            read_bytes(p, 100);
            expect(p, "read-eof");
        }
        watch_eof(p);
        run_quietly();
        expect_nothing(p);
        join(p, q);
        if (!seen_before) {
            far_send(p, "abc");
            far_finish(p);
        }
        expect(p, "eof");
        far_receive(q, "abc");
        far_receive_end(q);
        far_finish(q);
        expect(p, "end:eof");
        expect(q, "end:finished");
    }
}

/* As for stdin when nobody wants more of it. */
static void stop_reading_ends_a_relay(void **state)
{
    (void)state;
    struct party *p = meet(0), *stdio = meet_over(PIPES, 0);
    join(p, stdio);
    far_send(stdio, "hello");
    far_receive(p, "hello");
    assert_int_equal(iostream_stop_reading(stdio->stream), 0);
    far_receive_end(p);
    far_send(stdio, "unread");
    far_send(p, "answer");
    far_receive(stdio, "answer");
    far_finish(p);
    far_receive_end(stdio);
    expect(p, "end:finished");
    expect(stdio, "end:eof");
}

/* ---- resets ---- */

/* Whoever resets, and whether what it sent is under way, stuck, or nothing: the other one sees a reset, not an end. */
static void a_reset_is_passed_on_as_one(void **state)
{
    (void)state;
    enum { IDLE, CLOGGED_AWAY, CLOGGED_TOWARDS, JUST_SENT, STATES };
    for (int i = 0; i < 2 * STATES; i++) {
        struct party *p, *q;
        meet_joined(&p, &q);
        struct party *one = i % 2 ? p : q, *other = i % 2 ? q : p;
        run_quietly();
        if (i / 2 == CLOGGED_AWAY)
            jam(one);
        if (i / 2 == CLOGGED_TOWARDS)
            jam(other);
        if (i / 2 == JUST_SENT)
            far_send(one, "last words");
        far_reset(one);
        expect(one, "end:reset/ECONNRESET");
        expect(other, "end:reset/ECONNRESET");
        char bytes[KIB(64)];
        ssize_t n;
        run_until((n = read(other->far.in, bytes, sizeof bytes)) < 0 && errno != EAGAIN);
        assert_int_equal(errno, ECONNRESET);
        dismiss_all();
    }
}

static void a_reset_is_passed_on_through_one_relay(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct party *from = meet(0), *to = meet(0);
        relay(from, to);
        far_send(from, "hello");
        far_receive(to, "hello");
        run_quietly();
        struct party *one = i ? from : to, *other = i ? to : from;
        far_reset(one);
        expect(one, "end:reset/ECONNRESET");
        expect(other, "end:reset/ECONNRESET");
        far_receive_reset(other);
    }
}

/* It had ended its side in order before: what it sent counts. */
static void a_reset_after_its_end_lets_the_rest_arrive(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    far_pour(p, KIB(512));
    far_finish(p);
    run_until(iostream_read_ended(p->stream)); /* all of it is under way to one who does not read yet */
    assert_int_equal(p->poured, KIB(512));
    far_reset(p);
    expect(p, "end:reset/EPIPE");
    run_quietly();
    expect_nothing(q);
    drain(p, q);
    far_receive_end(q); /* p's, which was one in order */
    pass(3);
    expect(q, "end:reset");
    int error = 0;
    socklen_t length = sizeof error;
    run_until(getsockopt(q->far.in, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error != 0);
    assert_int_equal(error, EPIPE); /* what it has to say, it cannot: reset after an end */
}

/* ... and if it has arrived, nobody has to wait. */
static void a_reset_after_its_end_is_passed_on_at_once(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    far_send(p, "all of it");
    far_finish(p);
    far_receive(q, "all of it");
    far_receive_end(q);
    int unacknowledged = 1;
    run_until(ioctl(q->stream->transport->write_fd, SIOCOUTQ, &unacknowledged) == 0 && unacknowledged == 0);
    far_reset(p);
    expect(p, "end:reset/EPIPE");
    pass(1);
    assert_null(q->stream);
    expect(q, "end:reset");
}

/* Data and a reset in one turn: the echo fails while its source is being read. */
static void a_write_that_fails_takes_its_source_along(void **state)
{
    (void)state;
    struct party *p = meet(0), *q, *r;
    relay(p, p);
    run_quietly();
    far_send(p, "hello");
    wire == TCP ? far_reset(p) : far_close(p);
    run_until(!p->stream);
    *p->diary = '\0';

    for (int with_end = 0; with_end < 2; with_end++) {
        meet_joined(&q, &r);
        run_quietly();
        far_close(r); /* writing to it fails, at once or the second time */
        far_send(q, "hello");
        if (with_end)
            far_finish(q);
        run_quietly();
        if (!with_end && q->stream) {
            if (write(q->far.out, "again", 5) == 5)
                run_quietly();
        }
        far_close(q);
        run_until(!q->stream && !r->stream);
        *q->diary = *r->diary = '\0';
    }
}

/* ---- ended by us ---- */

static void close_closes_both_and_delivers(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct party *p, *q;
        meet_joined(&p, &q);
        jam(p);
        iostream_close(i ? p->stream : q->stream);
        run_quietly();
        size_t accepted = (size_t)iostream_bytes_in(p->stream);
        expect_nothing(p);
        if (i) /* p is read and dropped from now on */
            assert_true(accepted > 0);
        far_receive_end(p);
        for (size_t n = 1; n > 0;) {
            run_quietly();
            n = far_drain(q, KIB(8192));
        }
        far_receive_end(q);
        far_close(p);
        far_close(q);
        expect(p, "end:finished");
        expect(q, "end:finished");
    }
}

static void abort_aborts_both(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct party *p, *q;
        meet_joined(&p, &q);
        run_quietly();
        iostream_abort(i ? p->stream : q->stream, CLOSE_SHUTDOWN);
        expect(p, "end:shutdown");
        expect(q, "end:shutdown");
        far_receive_reset(p);
        far_receive_reset(q);
    }
}

static void a_time_limit_strikes_both(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    assert_int_equal(iostream_set_timer(p->stream, TIMER_IDLE, 60), 0);
    for (int i = 0; i < 3; i++) { /* whichever way they go, bytes are moving */
        pass(50);
        far_send(i % 2 ? p : q, "x");
        far_receive(i % 2 ? q : p, "x");
    }
    pass(50);
    expect_nothing(p);
    pass(11);
    expect(p, "end:timeout");
    expect(q, "end:timeout");
}

/* What comes for it has nowhere to go, and is dropped; the other direction is as good as ever. */
static void finishing_a_stream_that_is_fed_does_no_harm(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    jam(p);
    iostream_finish(q->stream);
    while (far_drain(q, KIB(8192)) > 0)
        run_quietly();
    far_receive_end(q);
    far_send(p, "for nobody");
    far_send(q, "still here");
    far_receive(p, "still here");
    far_finish(p);
    far_finish(q);
    far_receive_end(p);
    run_until(!p->stream && !q->stream);
    assert_string_equal(q->diary, "end:finished");
    *p->diary = *q->diary = '\0';
}

/* ---- rows of streams ---- */

static void a_row_of_relays_ends_as_one(void **state)
{
    (void)state;
    for (int orderly = 0; orderly < 2; orderly++) {
        struct party *a = meet(0), *b = meet(0), *c = meet(0);
        relay(a, b);
        relay(b, c);
        run_quietly();
        if (orderly)
            iostream_close(b->stream);
        else
            far_reset(b);
        if (orderly) {
            far_receive_end(a);
            far_receive_end(c);
            far_close(a);
            far_close(b);
            far_close(c);
        }
        const char *end = orderly ? "end:finished" : "end:reset/ECONNRESET";
        expect(a, end);
        expect(b, end);
        expect(c, end);
    }
}

/* ---- errors of use ---- */

static void assert_refused(struct party *from, struct party *to, int error)
{
    errno = 0;
    assert_int_equal(iostream_relay(from->stream, to->stream), -1);
    assert_int_equal(errno, error);
}

static void a_relay_needs_both_for_itself(void **state)
{
    (void)state;
    struct party *p = meet(0), *q = meet(0), *r = meet(0);
    relay(p, q);
    assert_refused(p, r, EBUSY); /* is relayed already */
    assert_refused(r, q, EBUSY); /* is fed already */
    assert_int_equal(iostream_write(q->stream, "x", 1, on_wrote, q), -1);
    assert_int_equal(errno, EPIPE);
    assert_int_equal(iostream_read_cancel(p->stream), -1);
    read_some(r, 1);
    assert_refused(r, p, EBUSY); /* is being read */
    assert_int_equal(iostream_read_cancel(r->stream), 0);
    iostream_finish(r->stream);
    assert_refused(q, r, EPIPE); /* has finished */
    iostream_close(r->stream);
    assert_refused(r, p, EPIPE); /* is closing */
    far_close(r);
    run_until(!r->stream);
    *r->diary = '\0';
}

/* ---- descriptors that others share ---- */

static bool is_nonblocking(int fd)
{
    return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

/* As for a netcat in a pipeline: from one blocking pipe to the stream, from the stream to another, which is read slowly. */
static void shared_pipes_are_joined_with_a_stream(void **state)
{
    (void)state;
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct party *p = meet(0), *stdio = adopt(in[0], out[1], IOSTREAM_SHARED | IOSTREAM_KEEP);
    stdio->far = (struct ends){.in = out[0], .out = in[1]};
    assert_int_equal(fcntl(in[1], F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(fcntl(out[0], F_SETFL, O_NONBLOCK), 0);
    join(p, stdio);
    jam(p);
    assert_true(iostream_write_pending(stdio->stream) > 0);
    carry(stdio, p, KIB(300));
    drain(p, stdio);
    assert_false(is_nonblocking(in[0]) || is_nonblocking(out[1]));
    far_finish(stdio);
    far_receive_end(p);
    far_finish(p);
    expect(stdio, "end:eof");
    expect(p, "end:finished");
    assert_false(is_nonblocking(in[0]) || is_nonblocking(out[1])); /* and still open */
    close(in[0]);
    close(out[1]);
}

static void a_file_is_sent_and_another_received(void **state)
{
    (void)state;
    enum { LENGTH = 300 * 1024 };
    FILE *from = tmpfile(), *to = tmpfile();
    static char bytes[LENGTH], copy[LENGTH];
    pattern(bytes, sizeof bytes, 0);
    assert_int_equal(fwrite(bytes, 1, sizeof bytes, from), sizeof bytes);
    rewind(from);
    struct party *p = meet(0), *files = adopt(fileno(from), fileno(to), IOSTREAM_SHARED | IOSTREAM_KEEP);
    join(p, files);
    run_until(far_drain(p, LENGTH) + 1 && p->drained == LENGTH);
    far_receive_end(p);
    while (p->poured < LENGTH) {
        far_pour(p, LENGTH - (size_t)p->poured);
        run_quietly();
    }
    far_finish(p);
    expect(p, "end:finished");
    expect(files, "end:eof");
    assert_int_equal(pread(fileno(to), copy, sizeof copy, 0), LENGTH);
    assert_memory_equal(copy, bytes, LENGTH);
    fclose(from);
    fclose(to);
}

static void a_full_disk_is_told_to_the_sender(void **state)
{
    (void)state;
    for (int with_end = 0; with_end < 2; with_end++) {
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC), full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        struct party *p = meet(0), *files = adopt(null, full, IOSTREAM_SHARED);
        relay(p, files);
        far_send(p, "hello");
        if (with_end)
            far_finish(p);
        expect(files, "end:error/ENOSPC");
        run_until(!p->stream);
        assert_non_null(strstr(p->diary, "end:error"));
        *p->diary = '\0';
        if (!with_end && wire == TCP)
            far_receive_reset(p);
    }
}

/* ---- all of it at once ---- */

struct exchange {
    struct party *sides[2];
    uint64_t lengths[2];
};

static void take_a_random_step(struct exchange *x, unsigned *seed)
{
    int side = rand_r(seed) % 2;
    struct party *one = x->sides[side];
    size_t amount = (size_t)rand_r(seed) % KIB(200);
    if (rand_r(seed) % 2) {
        far_drain(one, amount);
        return;
    }
    uint64_t left = x->lengths[side] - one->poured;
    far_pour(one, left < amount ? (size_t)left : amount);
    if (one->poured == x->lengths[side] && one->far.out >= 0 && !one->arg) {
        one->arg = x; /* has finished */
        far_finish(one);
    }
}

static void many_at_once_lose_nothing(void **state)
{
    (void)state;
    enum { EXCHANGES = 16 };
    struct exchange all[EXCHANGES];
    unsigned seed = 11;
    for (int i = 0; i < EXCHANGES; i++) {
        struct exchange *x = &all[i];
        size_t piece = (size_t)rand_r(&seed) % KIB(100) + 1;
        x->sides[0] = meet_over((enum wire)(rand_r(&seed) % 3), piece);
        x->sides[1] = meet_over((enum wire)(rand_r(&seed) % 3), piece);
        x->lengths[0] = (uint64_t)rand_r(&seed) % KIB(1000);
        x->lengths[1] = (uint64_t)rand_r(&seed) % KIB(1000);
        join(x->sides[0], x->sides[1]);
    }
    int open = EXCHANGES;
    watch_begin();
    while (open > 0) {
        open = 0;
        for (int i = 0; i < EXCHANGES; i++) {
            if (all[i].sides[0]->stream || all[i].sides[1]->stream) {
                take_a_random_step(&all[i], &seed);
                open++;
            }
        }
        watch_turn("all exchanges", __FILE__, __LINE__);
    }
    watch_end();
    for (int i = 0; i < EXCHANGES; i++) {
        for (int side = 0; side < 2; side++) {
            struct party *one = all[i].sides[side];
            far_drain(one, KIB(8192));
            assert_int_equal(one->drained, all[i].lengths[!side]);
            assert_true(strcmp(one->diary, "end:eof") == 0 || strcmp(one->diary, "end:finished") == 0);
            *one->diary = '\0';
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(echo_sends_back_what_it_gets),
        STREAM_TEST(echo_delivers_all_to_one_who_half_closes_before_reading),
        LOOP_TEST(both_ways_over_every_kind_of_stream),
        STREAM_TEST(an_end_reaches_a_slow_reader_after_all_bytes),
        STREAM_TEST(a_slow_reader_stops_the_writer),
        STREAM_TEST(buffers_may_be_tiny),
        STREAM_TEST(bytes_read_ahead_go_first),
        STREAM_TEST(more_bytes_than_the_other_takes_may_be_there),
        STREAM_TEST(an_end_seen_before_is_passed_on),
        STREAM_TEST(on_eof_is_told_beside_a_relay),
        SOCKET_TEST(stop_reading_ends_a_relay),
        LOOP_TEST(a_reset_is_passed_on_as_one),
        LOOP_TEST(a_reset_is_passed_on_through_one_relay),
        LOOP_TEST(a_reset_after_its_end_lets_the_rest_arrive),
        LOOP_TEST(a_reset_after_its_end_is_passed_on_at_once),
        STREAM_TEST(a_write_that_fails_takes_its_source_along),
        SOCKET_TEST(close_closes_both_and_delivers),
        LOOP_TEST(abort_aborts_both),
        STREAM_TEST(a_time_limit_strikes_both),
        STREAM_TEST(finishing_a_stream_that_is_fed_does_no_harm),
        LOOP_TEST(a_row_of_relays_ends_as_one),
        STREAM_TEST(a_relay_needs_both_for_itself),
        STREAM_TEST(shared_pipes_are_joined_with_a_stream),
        STREAM_TEST(a_file_is_sent_and_another_received),
        STREAM_TEST(a_full_disk_is_told_to_the_sender),
        LOOP_TEST(many_at_once_lose_nothing),
    };
    return cmocka_run_group_tests_name("relay", tests, NULL, NULL);
}
