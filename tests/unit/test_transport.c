/* Streams and relays over transports that are not plain: every want, crossed or not, handshakes, bytes that no event announces, errors.
 * Nothing of it is about TLS, so that TLS needs nothing of it changed. */
#include "harness.h"
#include "memory_transport.h"

enum { ANY = EV_READ | EV_WRITE };

static struct memory_transport memories[2];
static struct memory_transport *const memory = &memories[0], *const other_memory = &memories[1];

static struct party *host_memory(struct memory_transport *m, bool secure, unsigned flags)
{
    const struct iostream_options options = {.flags = flags};
    memory_init(m, secure);
    return host(iostream_over(engine, &m->base, &options));
}

static void on_open(struct iostream *s, void *unused)
{
    (void)unused;
    write_down(iostream_data(s), "open");
}

static struct party *meet_plain(void)
{
    return host_memory(memory, false, TRANSPORT_SOCKET);
}

static struct party *meet_secure(void)
{
    struct party *p = host_memory(memory, true, TRANSPORT_SOCKET);
    iostream_set_data(p->stream, p);
    iostream_start(p->stream, 0, on_open, NULL);
    return p;
}

static struct party *meet_secured(void)
{
    struct party *p = meet_secure();
    memory_ready(memory, EV_READ);
    expect(p, "open");
    *memory->calls = '\0';
    return p;
}

/* ---- plain wants ---- */

static void bytes_come_and_go_piece_by_piece(void **state)
{
    (void)state;
    struct party *p = meet_plain();
    read_bytes(p, 8);
    assert_int_equal(memory->watched, EV_READ);
    memory_will_read(memory, "abc");
    memory_ready(memory, EV_READ);
    expect_nothing(p);
    memory_will_read(memory, "defghij");
    memory_ready(memory, EV_READ);
    expect(p, "read:abcdefgh");
    assert_int_equal(memory->watched, 0);

    memory_will(memory, MEMORY_WRITE, 3);
    memory_will(memory, MEMORY_WRITE, 4);
    memory_will(memory, MEMORY_WRITE, TRANSPORT_WANT_WRITE);
    write_text(p, "0123456789");
    run_quietly();
    expect_nothing(p);
    assert_int_equal(memory->watched, EV_WRITE);
    while (memory->watched) {
        memory_ready(memory, EV_WRITE);
        run_quietly();
    }
    expect(p, "wrote");
    assert_string_equal(memory->written, "0123456789");
}

/* No call that could only say "not now": after a short read or write of a socket, and before readiness. */
static void no_call_is_made_in_vain(void **state)
{
    (void)state;
    struct party *p = meet_plain();
    read_some(p, 100);
    assert_string_equal(memory->calls, "");
    memory_will_read(memory, "abc");
    memory_ready(memory, EV_READ);
    expect(p, "read:abc");
    memory_will(memory, MEMORY_WRITE, 4);
    write_text(p, "0123456789");
    write_text(p, "more");
    run_quietly();
    assert_string_equal(memory->calls, "read write:10");
    memory_ready(memory, EV_WRITE);
    expect(p, "wrote wrote");
    assert_string_equal(memory->calls, "read write:10 write:10");
    *memory->calls = '\0';
    read_bytes(p, 8);
    memory_will_read(memory, "abc");
    memory_ready(memory, EV_READ);
    assert_string_equal(memory->calls, "read");
}

/* ---- crossed wants ---- */

static void a_read_may_want_to_write(void **state)
{
    (void)state;
    struct party *p = meet_secured();
    read_some(p, 100);
    memory_will(memory, MEMORY_READ, TRANSPORT_WANT_WRITE);
    memory_ready(memory, EV_READ);
    assert_int_equal(memory->watched, EV_WRITE);
    memory_will(memory, MEMORY_READ, TRANSPORT_WANT_WRITE);
    memory_ready(memory, EV_WRITE);
    assert_int_equal(memory->watched, EV_WRITE);
    memory_will(memory, MEMORY_READ, TRANSPORT_WANT_READ);
    memory_ready(memory, EV_WRITE);
    assert_int_equal(memory->watched, EV_READ);
    memory_will_read(memory, "hello");
    memory_ready(memory, EV_READ);
    expect(p, "read:hello");
}

static void a_write_may_want_to_read(void **state)
{
    (void)state;
    struct party *p = meet_secured();
    memory_will(memory, MEMORY_WRITE, TRANSPORT_WANT_READ);
    write_text(p, "hello");
    assert_int_equal(memory->watched, EV_READ); /* though nobody reads */
    run_quietly();
    expect_nothing(p);
    memory_will(memory, MEMORY_WRITE, TRANSPORT_WANT_WRITE);
    memory_ready(memory, EV_READ);
    assert_int_equal(memory->watched, EV_WRITE);
    memory_ready(memory, EV_WRITE);
    expect(p, "wrote");
    assert_string_equal(memory->written, "hello");
    assert_int_equal(memory->watched, 0);
    assert_null(strstr(memory->calls, "read"));
}

/* Each waits for the other's event; then for the same one. */
static void both_may_want_the_other(void **state)
{
    (void)state;
    static const struct {
        int read_want, write_want, watched;
    } cases[] = {
        {TRANSPORT_WANT_READ, TRANSPORT_WANT_WRITE, ANY},
        {TRANSPORT_WANT_WRITE, TRANSPORT_WANT_READ, ANY},
        {TRANSPORT_WANT_READ, TRANSPORT_WANT_READ, EV_READ},
        {TRANSPORT_WANT_WRITE, TRANSPORT_WANT_WRITE, EV_WRITE},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct party *p = meet_secured();
        read_some(p, 100);
        memory_will(memory, MEMORY_READ, cases[i].read_want);
        memory_ready(memory, EV_READ);
        memory_will(memory, MEMORY_WRITE, cases[i].write_want);
        write_text(p, "out");
        assert_int_equal(memory->watched, cases[i].watched);
        memory_will_read(memory, "in");
        memory_ready(memory, cases[i].read_want == TRANSPORT_WANT_WRITE ? EV_WRITE : EV_READ);
        if (cases[i].watched == ANY) {
            expect(p, "read:in"); /* and the write still waits */
            memory_ready(memory, cases[i].write_want == TRANSPORT_WANT_WRITE ? EV_WRITE : EV_READ);
            expect(p, "wrote");
        } else {
            expect(p, "wrote read:in");
        }
        assert_string_equal(memory->written, "out");
        dismiss_all();
    }
}

static void a_shutdown_may_want_either(void **state)
{
    (void)state;
    struct party *p = meet_secured();
    memory_will(memory, MEMORY_SHUTDOWN, TRANSPORT_WANT_WRITE);
    iostream_finish(p->stream);
    assert_int_equal(memory->watched, EV_WRITE);
    memory_will(memory, MEMORY_SHUTDOWN, TRANSPORT_WANT_READ);
    memory_ready(memory, EV_WRITE);
    assert_int_equal(memory->watched, EV_READ);
    memory_ready(memory, EV_READ);
    assert_int_equal(memory->watched, 0);
    assert_string_equal(memory->calls, "shutdown shutdown shutdown");
    memory_will(memory, MEMORY_READ, 0);
    read_some(p, 1);
    memory_ready(memory, EV_READ);
    expect(p, "read-eof end:finished");
}

/* ---- handshakes ---- */

static void a_handshake_waits_for_what_it_wants(void **state)
{
    (void)state;
    struct party *p = meet_secure();
    assert_int_equal(memory->watched, EV_READ); /* the client speaks first */
    memory_will(memory, MEMORY_HANDSHAKE, TRANSPORT_WANT_READ);
    memory_ready(memory, EV_READ);
    assert_int_equal(memory->watched, EV_READ);
    memory_will(memory, MEMORY_HANDSHAKE, TRANSPORT_WANT_WRITE);
    memory_ready(memory, EV_READ);
    assert_int_equal(memory->watched, EV_WRITE);
    memory_will(memory, MEMORY_HANDSHAKE, TRANSPORT_WANT_READ);
    memory_ready(memory, EV_WRITE);
    assert_int_equal(memory->watched, EV_READ);
    expect_nothing(p);
    memory_ready(memory, EV_READ);
    expect(p, "open");
    assert_string_equal(memory->calls, "handshake handshake handshake handshake");
}

/* Tornado #2373: a server that speaks first to a silent client span. */
static void while_handshaking_a_queued_write_asks_for_nothing(void **state)
{
    (void)state;
    struct party *p = meet_secure();
    write_text(p, "welcome");
    read_some(p, 100);
    iostream_finish(p->stream);
    watch_eof(p);
    assert_int_equal(memory->watched, EV_READ);
    memory_will(memory, MEMORY_HANDSHAKE, TRANSPORT_WANT_READ);
    memory_ready(memory, EV_READ);
    run_quietly();
    assert_int_equal(memory->watched, EV_READ);
    assert_string_equal(memory->calls, "handshake");
    assert_int_equal(iostream_write_pending(p->stream), strlen("welcome"));

    memory_ready(memory, EV_READ); /* done */
    assert_int_equal(memory->watched, ANY);
    memory_ready(memory, EV_WRITE);
    expect(p, "open wrote");
    assert_string_equal(memory->calls, "handshake handshake write:7 shutdown");
    memory_will_read(memory, "thanks");
    memory_ready(memory, EV_READ);
    expect(p, "read:thanks");
    memory_will(memory, MEMORY_READ, 0);
    memory_ready(memory, EV_READ);
    expect(p, "eof end:finished");
}

static void a_failed_handshake_ends_the_stream(void **state)
{
    (void)state;
    struct party *p = meet_secure();
    write_text(p, "welcome");
    read_some(p, 100);
    memory_will_fail(memory, MEMORY_HANDSHAKE, EPROTO);
    memory_ready(memory, EV_READ);
    expect(p, "read-closed wrote:EPROTO end:tls/EPROTO");
    assert_string_equal(memory->written, "");
}

static void close_and_abort_are_good_in_a_handshake(void **state)
{
    (void)state;
    struct party *p = meet_secure();
    iostream_abort(p->stream, CLOSE_DENIED);
    expect(p, "end:denied");
    assert_string_equal(memory->calls, "free:reset");

    p = meet_secure();
    write_text(p, "welcome"); /* is delivered, if the client goes on */
    iostream_close(p->stream);
    memory_ready(memory, EV_READ);
    memory_ready(memory, EV_WRITE);
    memory_will(memory, MEMORY_READ, 0);
    memory_ready(memory, EV_READ);
    run_until(!p->stream);
    assert_string_equal(memory->written, "welcome");
    assert_non_null(strstr(p->diary, "wrote end:finished"));
    *p->diary = '\0';

    p = meet_secure();
    iostream_close(p->stream);
    pass(40); /* and if it does not, not for ever */
    expect(p, "end:timeout");
}

/* ---- bytes that no event announces ---- */

static void pending_bytes_need_no_event(void **state)
{
    (void)state;
    struct party *p = meet_secured();
    memory->has_pending = true;
    for (int i = 0; i < 20; i++)
        memory_will_read(memory, "abc");
    read_some(p, 3);
    expect(p, "read:abc");
    run_quietly();
    assert_true(memory->scripts[MEMORY_READ].next < 20); /* nobody asks for more than a read-ahead */
    read_bytes(p, 57);
    run_until(*p->diary);
    assert_int_equal(memory->scripts[MEMORY_READ].next, 20);
    *p->diary = '\0';
}

/* A write waits to read, and nobody asks for what is there: the loop rests. */
static void pending_bytes_that_nobody_wants_keep_nobody_busy(void **state)
{
    (void)state;
    struct party *p = meet_secured();
    memory->has_pending = true;
    memory_will_read(memory, "abc");
    memory_will(memory, MEMORY_WRITE, TRANSPORT_WANT_READ);
    write_text(p, "x");
    assert_int_equal(memory->watched, EV_READ);
    run_quietly();
    assert_false(ev_is_active(&engine->idle));
    memory_ready(memory, EV_READ);
    expect(p, "wrote");
    read_some(p, 3);
    expect(p, "read:abc");
}

static void pending_bytes_are_relayed_without_an_event(void **state)
{
    (void)state;
    struct party *from = meet_secured(), *to = host_memory(other_memory, false, TRANSPORT_SOCKET);
    memory->has_pending = true;
    memory_will_read(memory, "one ");
    memory_will_read(memory, "two ");
    memory_will_read(memory, "three");
    memory_will(other_memory, MEMORY_WRITE, TRANSPORT_WANT_WRITE);
    assert_int_equal(iostream_relay(from->stream, to->stream), 0);
    run_quietly();
    assert_int_equal(memory->scripts[MEMORY_READ].next, 1); /* `to` is slow: no more than one piece */
    memory_ready(other_memory, EV_WRITE);
    run_quietly();
    assert_string_equal(other_memory->written, "one two three");
}

/* ---- relays ---- */

static void a_relay_goes_through_every_want(void **state)
{
    (void)state;
    struct party *from = meet_secured(), *to = host_memory(other_memory, true, TRANSPORT_SOCKET);
    assert_int_equal(iostream_relay(from->stream, to->stream), 0);
    memory_will(memory, MEMORY_READ, TRANSPORT_WANT_WRITE);
    memory_ready(memory, EV_READ);
    assert_int_equal(memory->watched, EV_WRITE);
    memory_will_read(memory, "hello");
    memory_will(other_memory, MEMORY_WRITE, 2);
    memory_will(other_memory, MEMORY_WRITE, TRANSPORT_WANT_READ);
    memory_ready(memory, EV_WRITE);
    assert_int_equal(memory->watched, 0); /* while the other waits */
    assert_int_equal(other_memory->watched, EV_READ);
    memory_will_read(memory, " world");
    memory_will(memory, MEMORY_READ, 0);
    memory_ready(other_memory, EV_READ);
    run_quietly();
    if (memory->watched) /* what it had may have been read already */
        memory_ready(memory, memory->watched);
    assert_string_equal(other_memory->written, "hello world");
    assert_non_null(strstr(other_memory->calls, "shutdown"));
}

static void a_relay_waits_for_the_handshake_of_either(void **state)
{
    (void)state;
    for (int shaking_from = 0; shaking_from < 2; shaking_from++) {
        struct party *p = meet_secure(), *q = host_memory(other_memory, false, TRANSPORT_SOCKET);
        struct memory_transport *from = shaking_from ? memory : other_memory, *to = shaking_from ? other_memory : memory;
        memory_will_read(from, "hello");
        assert_int_equal(iostream_relay(shaking_from ? p->stream : q->stream, shaking_from ? q->stream : p->stream), 0);
        run_quietly();
        assert_string_equal(memory->calls, "");
        assert_string_equal(other_memory->calls, "");
        assert_int_equal(memory->watched, EV_READ);
        assert_int_equal(other_memory->watched, 0);
        memory_ready(memory, EV_READ);
        expect(p, "open");
        memory_ready(from, EV_READ);
        assert_string_equal(to->written, "hello");
        dismiss_all();
    }
}

/* ---- errors ---- */

static void an_errno_has_its_reason(void **state)
{
    (void)state;
    static const struct {
        int error;
        const char *by_read, *by_write;
    } cases[] = {
        {ECONNRESET, "read-closed end:reset/ECONNRESET", "wrote:ECONNRESET end:reset/ECONNRESET"},
        {EPIPE, "read-closed end:reset/EPIPE", "wrote:EPIPE end:reset/EPIPE"},
        {ETIMEDOUT, "read-closed end:timeout/ETIMEDOUT", "wrote:ETIMEDOUT end:timeout/ETIMEDOUT"},
        {EIO, "read-closed end:error/EIO", "wrote:EIO end:error/EIO"},
        {ENOSPC, "read-closed end:error/ENOSPC", "wrote:ENOSPC end:error/ENOSPC"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct party *p = meet_plain();
        memory_will_fail(memory, MEMORY_READ, cases[i].error);
        read_some(p, 1);
        memory_ready(memory, EV_READ);
        expect(p, cases[i].by_read);

        p = meet_plain();
        memory_will_fail(memory, MEMORY_WRITE, cases[i].error);
        write_text(p, "x"); /* the call succeeds: it has a callback to tell the rest */
        expect_nothing(p);
        expect(p, cases[i].by_write);

        p = meet_plain();
        memory_will_fail(memory, MEMORY_SHUTDOWN, cases[i].error);
        iostream_finish(p->stream);
        expect(p, strstr(cases[i].by_read, "end:"));
    }
}

static void a_peer_that_is_gone_is_not_reset(void **state)
{
    (void)state;
    static const struct {
        unsigned flags;
        int error; /* of a read; 0: none, it is aborted */
        const char *calls;
    } cases[] = {
        {TRANSPORT_SOCKET, 0, "free:reset"},
        {TRANSPORT_SOCKET, EIO, "read free:reset"},
        {TRANSPORT_SOCKET, ECONNRESET, "read free"},
        {0, 0, "free"}, /* a pipe or file cannot be */
        {0, EIO, "read free"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct party *p = host_memory(memory, false, cases[i].flags);
        read_some(p, 1);
        if (cases[i].error) {
            memory_will_fail(memory, MEMORY_READ, cases[i].error);
            memory_ready(memory, EV_READ);
        } else {
            iostream_abort(p->stream, CLOSE_ERROR);
        }
        assert_string_equal(memory->calls, cases[i].calls);
        run_until(!p->stream);
        *p->diary = '\0';
    }
}

static void an_orderly_end_is_no_reset(void **state)
{
    (void)state;
    struct party *p = meet_plain();
    write_text(p, "x");
    iostream_finish(p->stream);
    assert_string_equal(memory->calls, "write:1 shutdown"); /* the peer is still to end */
    memory_will(memory, MEMORY_READ, 0);
    read_some(p, 1);
    memory_ready(memory, EV_READ);
    expect(p, "wrote read-eof end:finished");
    assert_string_equal(memory->calls, "write:1 shutdown read free");

    p = meet_plain();
    memory_will(memory, MEMORY_READ, 0);
    read_some(p, 1);
    memory_ready(memory, EV_READ);
    expect(p, "read-eof");
    iostream_finish(p->stream);
    expect(p, "end:eof");
    assert_string_equal(memory->calls, "read shutdown:last free"); /* closing says it too: no system call for it */
}

static void the_end_is_said_after_the_last_byte(void **state)
{
    (void)state;
    struct party *p = meet_plain();
    memory_will(memory, MEMORY_WRITE, 2);
    memory_will(memory, MEMORY_WRITE, TRANSPORT_WANT_WRITE);
    write_text(p, "hello");
    iostream_finish(p->stream);
    assert_null(strstr(memory->calls, "shutdown"));
    memory_ready(memory, EV_WRITE);
    assert_null(strstr(memory->calls, "shutdown"));
    memory_ready(memory, EV_WRITE);
    assert_string_equal(memory->written, "hello");
    assert_non_null(strstr(memory->calls, "shutdown"));
    expect(p, "wrote");
}

/* ---- a transport around another one ---- */

/* Reads and writes a few bytes a call, and every other read first wants to write. */
struct dripping {
    struct transport base;
    struct transport *inner;
    bool balked;
};

static struct dripping *dripping_of(struct transport *t)
{
    return container_of(t, struct dripping, base);
}

static ssize_t drip_read(struct transport *t, void *bytes, size_t size)
{
    struct dripping *d = dripping_of(t);
    d->balked = !d->balked;
    return d->balked ? TRANSPORT_WANT_WRITE : d->inner->ops->read(d->inner, bytes, size < 700 ? size : 700);
}

static ssize_t drip_write(struct transport *t, const void *bytes, size_t length)
{
    struct transport *inner = dripping_of(t)->inner;
    return inner->ops->write(inner, bytes, length < 500 ? length : 500);
}

static int drip_shutdown(struct transport *t, bool last)
{
    struct transport *inner = dripping_of(t)->inner;
    return inner->ops->shutdown(inner, last);
}

static void drip_watch(struct transport *t, int events)
{
    struct transport *inner = dripping_of(t)->inner;
    inner->owner = t->owner;
    inner->ops->watch(inner, events);
}

static void drip_free(struct transport *t, bool reset)
{
    struct transport *inner = dripping_of(t)->inner;
    inner->ops->free(inner, reset);
    free(dripping_of(t));
}

static const struct transport_ops drip_ops = {
    .read = drip_read, .write = drip_write, .shutdown = drip_shutdown, .watch = drip_watch, .free = drip_free};

static void one_transport_may_wrap_another(void **state)
{
    (void)state;
    struct ends near, far;
    connect_ends(TCP, &near, &far);
    struct dripping *outer = calloc(1, sizeof *outer);
    outer->base = (struct transport){.ops = &drip_ops, .read_fd = near.in, .write_fd = near.out};
    outer->inner = transport_plain_new(loop, near.in, near.out, TRANSPORT_SOCKET);
    const struct iostream_options options = {.flags = TRANSPORT_SOCKET};
    struct party *p = host(iostream_over(engine, &outer->base, &options));
    p->far = far;
    assert_int_equal(iostream_relay(p->stream, p->stream), 0);
    watch_begin();
    while (p->drained < KIB(256)) {
        far_pour(p, (size_t)(KIB(256) - p->poured));
        far_drain(p, KIB(256));
        watch_turn("the echo", __FILE__, __LINE__);
    }
    watch_end();
    far_finish(p);
    far_receive_end(p);
    expect(p, "end:eof");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(bytes_come_and_go_piece_by_piece),
        LOOP_TEST(no_call_is_made_in_vain),
        LOOP_TEST(a_read_may_want_to_write),
        LOOP_TEST(a_write_may_want_to_read),
        LOOP_TEST(both_may_want_the_other),
        LOOP_TEST(a_shutdown_may_want_either),
        LOOP_TEST(a_handshake_waits_for_what_it_wants),
        LOOP_TEST(while_handshaking_a_queued_write_asks_for_nothing),
        LOOP_TEST(a_failed_handshake_ends_the_stream),
        LOOP_TEST(close_and_abort_are_good_in_a_handshake),
        LOOP_TEST(pending_bytes_need_no_event),
        LOOP_TEST(pending_bytes_that_nobody_wants_keep_nobody_busy),
        LOOP_TEST(pending_bytes_are_relayed_without_an_event),
        LOOP_TEST(a_relay_goes_through_every_want),
        LOOP_TEST(a_relay_waits_for_the_handshake_of_either),
        LOOP_TEST(an_errno_has_its_reason),
        LOOP_TEST(a_peer_that_is_gone_is_not_reset),
        LOOP_TEST(an_orderly_end_is_no_reset),
        LOOP_TEST(the_end_is_said_after_the_last_byte),
        LOOP_TEST(one_transport_may_wrap_another),
    };
    return cmocka_run_group_tests_name("transport", tests, NULL, NULL);
}
