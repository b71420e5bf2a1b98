/* The bulk of a relay between sockets goes through a pipe, and everything ends there as it does without one. */
#include <signal.h>

#include "harness.h"

ssize_t __real_splice(int, off_t *, int, off_t *, size_t, unsigned);
ssize_t __wrap_splice(int, off_t *, int, off_t *, size_t, unsigned);

static int refused_with; /* the errno of every splice; 0: it works */

ssize_t __wrap_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t length, unsigned flags)
{
    if (!refused_with)
        return __real_splice(in, in_offset, out, out_offset, length, flags);
    errno = refused_with;
    return -1;
}

static void meet_joined(struct party **p, struct party **q)
{
    join(*p = meet(0), *q = meet(0));
}

/* The receiver does not read: what its kernel does not take is in a pipe. */
static void meet_with_a_full_pipe(struct party **p, struct party **q)
{
    enum { TRIES = 100 };
    meet_joined(p, q);
    carry(*p, *q, KIB(2048)); /* a flow has to prove itself */
    jam(*p);
    for (int i = 0; i < TRIES && !(*q)->stream->piped; i++) { /* on a busy machine it may have come in drops */
        drain(*p, *q);
        carry(*p, *q, KIB(2048));
        jam(*p);
    }
    assert_non_null((*q)->stream->piped);
    assert_true(iostream_write_pending((*q)->stream) > 0);
}

static void bulk_goes_through_a_pipe(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_with_a_full_pipe(&p, &q);
    drain(p, q);
    run_quietly();
    assert_null(q->stream->piped); /* nothing in it: anyone may have it */
    carry(p, q, KIB(4096));
    assert_int_equal(iostream_bytes_in(p->stream), p->poured);
    assert_int_equal(iostream_bytes_out(q->stream), p->poured);
}

static void messages_do_not(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    for (int i = 0; i < 100; i++)
        carry(p, q, KIB(32));
    assert_null(engine->splice_pool);
}

static void a_flow_that_ebbs_is_copied_again(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_with_a_full_pipe(&p, &q);
    drain(p, q);
    for (int i = 0; i < 10; i++)
        carry(p, q, 100);
    assert_int_equal(p->stream->bulky, 0);
}

/* What comes in between two turns is often a little more than a pipe takes at once. */
static void a_little_in_between_does_not_stop_it(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    for (int i = 0; i < 3; i++)
        splice_notice(p->stream, SCRATCH_BYTES);
    carry(p, q, 100);
    assert_true(splice_is_worth_it(p->stream));
    splice_drop(q->stream);
}

static void an_echo_of_bulk_is_whole(void **state)
{
    (void)state;
    struct party *p = meet(0);
    relay(p, p);
    carry(p, p, KIB(4096));
    jam(p);
    assert_non_null(p->stream->piped);
    far_finish(p);
    drain(p, p);
    far_receive_end(p);
    expect(p, "end:eof");
}

static void the_end_comes_after_what_is_in_the_pipe(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_with_a_full_pipe(&p, &q);
    far_finish(p);
    far_finish(q);
    run_quietly();
    drain(p, q);
    far_receive_end(q);
    far_receive_end(p);
    expect(p, "end:finished");
    expect(q, "end:eof");
}

static void both_ways_at_once(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_joined(&p, &q);
    for (int i = 0; i < 20; i++) {
        carry(p, q, KIB(300));
        carry(q, p, KIB(500));
    }
    jam(p);
    jam(q);
    assert_non_null(p->stream->piped);
    assert_non_null(q->stream->piped);
    drain(p, q);
    drain(q, p);
}

static void a_reset_by_who_reads_passes_the_pipe(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) { /* a pipe with bytes of a dead connection goes, and makes room for another */
        struct party *p, *q;
        meet_with_a_full_pipe(&p, &q);
        far_reset(q);
        expect(q, "end:reset/ECONNRESET");
        expect(p, "end:reset/ECONNRESET");
        dismiss_all();
    }
}

static void a_reset_by_who_writes_passes_the_pipe(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_with_a_full_pipe(&p, &q);
    far_reset(p);
    expect(p, "end:reset/ECONNRESET");
    expect(q, "end:reset/ECONNRESET");
}

static void a_close_delivers_what_is_in_the_pipe(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_with_a_full_pipe(&p, &q);
    uint64_t taken = iostream_bytes_in(p->stream);
    iostream_close(q->stream);
    far_finish(q);
    run_until(far_drain(q, KIB(8192)) + 1 && q->drained == taken);
    far_receive_end(q);
    far_close(p);
    run_until(!p->stream && !q->stream);
    assert_non_null(strstr(q->diary, "end:"));
    dismiss_all();
}

static void an_abort_drops_it(void **state)
{
    (void)state;
    struct party *p, *q;
    meet_with_a_full_pipe(&p, &q);
    iostream_abort(q->stream, CLOSE_SHUTDOWN);
    expect(q, "end:shutdown");
    expect(p, "end:shutdown");
}

static void no_more_is_held_than_the_receiver_may(void **state)
{
    (void)state;
    struct party *p = meet(0), *q = meet(KIB(64));
    join(p, q);
    carry(p, q, KIB(2048));
    jam(p);
    assert_null(q->stream->piped);
    assert_in_range(iostream_write_pending(q->stream), 1, KIB(64));
    drain(p, q);
}

/* A user has 64 MiB in all pipes. */
static void there_are_sixteen_pipes_and_the_rest_is_copied(void **state)
{
    (void)state;
    enum { PAIRS = 20, PIPES_AT_MOST = 16 };
    struct party *senders[PAIRS], *receivers[PAIRS];
    int pipes = 0;
    for (int i = 0; i < PAIRS; i++) {
        meet_joined(&senders[i], &receivers[i]);
        carry(senders[i], receivers[i], KIB(2048));
        jam(senders[i]);
        pipes += receivers[i]->stream->piped != NULL;
    }
    assert_int_equal(pipes, PIPES_AT_MOST);
    for (int i = 0; i < PAIRS; i++)
        drain(senders[i], receivers[i]);
}

/* splice(2) has no MSG_NOSIGNAL. */
static void where_a_signal_would_kill_nothing_is_spliced(void **state)
{
    (void)state;
    struct party *p, *q;
    signal(SIGPIPE, SIG_DFL);
    meet_joined(&p, &q);
    carry(p, q, KIB(2048));
    jam(p);
    assert_null(q->stream->piped);
    drain(p, q);
    signal(SIGPIPE, SIG_IGN);
}

static void where_it_cannot_be_had_everything_is_copied(void **state)
{
    (void)state;
    static const int errors[] = {EINVAL, ENOSYS, EPERM};
    for (size_t i = 0; i < COUNT(errors); i++) {
        struct party *p, *q;
        refused_with = errors[i];
        meet_joined(&p, &q);
        carry(p, q, KIB(4096));
        jam(p);
        assert_null(q->stream->piped);
        drain(p, q);
        dismiss_all();
        splice_pool_free(engine); /* which has learned it */
        refused_with = 0;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOCKET_TEST(bulk_goes_through_a_pipe),
        SOCKET_TEST(messages_do_not),
        SOCKET_TEST(a_flow_that_ebbs_is_copied_again),
        SOCKET_TEST(a_little_in_between_does_not_stop_it),
        SOCKET_TEST(an_echo_of_bulk_is_whole),
        SOCKET_TEST(the_end_comes_after_what_is_in_the_pipe),
        SOCKET_TEST(both_ways_at_once),
        WIRE_TEST(a_reset_by_who_reads_passes_the_pipe, TCP),
        WIRE_TEST(a_reset_by_who_writes_passes_the_pipe, TCP),
        SOCKET_TEST(a_close_delivers_what_is_in_the_pipe),
        SOCKET_TEST(an_abort_drops_it),
        SOCKET_TEST(no_more_is_held_than_the_receiver_may),
        WIRE_TEST(there_are_sixteen_pipes_and_the_rest_is_copied, TCP),
        SOCKET_TEST(where_a_signal_would_kill_nothing_is_spliced),
        SOCKET_TEST(where_it_cannot_be_had_everything_is_copied),
    };
    return cmocka_run_group_tests_name("splice", tests, NULL, NULL);
}
