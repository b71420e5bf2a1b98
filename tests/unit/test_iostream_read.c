/* What a stream reads. */
#include "harness.h"

/* A chunk of its own, which is in the stream's buffer. */
static void send_chunk(struct party *p, const char *text)
{
    far_send(p, text);
    run_quietly();
}

/* ---- reading ---- */

static void read_some_takes_what_has_come(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_send(p, "hello");
    read_some(p, 3);
    expect_nothing(p);
    expect(p, "read:hel");
    read_some(p, 100);
    expect_nothing(p);
    expect(p, "read:lo");
}

static void read_some_waits_for_the_first_byte(void **state)
{
    (void)state;
    struct party *p = meet(0);
    read_some(p, 100);
    run_quietly();
    expect_nothing(p);
    far_send(p, "x");
    expect(p, "read:x");
}

static void read_bytes_waits_for_all_of_them(void **state)
{
    (void)state;
    struct party *p = meet(0);
    read_bytes(p, 6);
    send_chunk(p, "abc");
    expect_nothing(p);
    send_chunk(p, "defgh");
    expect(p, "read:abcdef");
    read_bytes(p, 2);
    expect(p, "read:gh");
}

static void read_of_no_bytes_needs_none(void **state)
{
    (void)state;
    struct party *p = meet(0);
    read_bytes(p, 0);
    expect_nothing(p);
    expect(p, "read:");
    far_send(p, "HTTP/1.1 200");
    read_bytes(p, 9);
    expect(p, "read:HTTP/1.1 ");
    read_bytes(p, 0);
    expect(p, "read:");
    read_bytes(p, 3);
    expect(p, "read:200");
}

static void read_until_finds_the_delimiter(void **state)
{
    (void)state;
    static const struct {
        const char *chunks[4], *delimiter;
        size_t max_bytes;
        const char *said;
    } cases[] = {
        {{"one\ntwo\n"}, "\n", 0, "read:one\n"},
        {{"one\r", "\ntwo"}, "\r\n", 0, "read:one\r\n"},                  /* in two chunks */
        {{"a-", "-", "-end"}, "---", 0, "read:a---"},                     /* in three */
        {{"aab", "aabc"}, "aabc", 0, "read:aabaabc"},                     /* after a false start */
        {{"aaa", "ab"}, "aab", 0, "read:aaaab"},                          /* after false starts that overlap it */
        {{"", "x"}, "x", 0, "read:x"},                                    /* alone */
        {{"abcdef"}, "def", 50, "read:abcdef"},                           /* with room */
        {{"abcdef"}, "def", 6, "read:abcdef"},                            /* just within the limit */
        {{"abcdef"}, "def", 5, "read-limit end:limit"},                   /* beyond it, though it is here already */
        {{"abc", "de", "f"}, "def", 5, "read-limit end:limit"},           /* beyond it */
        {{"abc", "de", "f"}, "def", 6, "read:abcdef"},                    /* the limit without a match is not over it */
        {{"abcdefgh"}, "xyz", 5, "read-limit end:limit"},                 /* nowhere */
        {{"abc", "d", "defgh"}, "def", 0, "read:abcddef"},                /* max_bytes 0 is the buffer's size ... */
        {{"abcdefghijk", "lmnopq"}, "lmnopq", 0, "read-limit end:limit"}, /* ... which is 16 here */
        {{"abcdefghijk", "lmnop"}, "lmnop", 99, "read:abcdefghijklmnop"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct party *p = meet(16);
        read_until(p, cases[i].delimiter, cases[i].max_bytes);
        for (const char *const *chunk = cases[i].chunks; *chunk; chunk++)
            send_chunk(p, *chunk);
        expect(p, cases[i].said);
        if (p->stream)
            assert_int_equal(iostream_read_cancel(p->stream), -1);
    }
}

static void read_until_takes_any_bytes_for_a_delimiter(void **state)
{
    (void)state;
    struct party *p = meet(0);
    assert_int_equal(write(p->far.out, "a\0b\0\0cd", 7), 7);
    assert_int_equal(iostream_read_until(p->stream, "\0\0c", 3, 0, on_read, p), 0);
    expect(p, "read:a"); /* "a\0b\0\0c" */
    read_some(p, 10);
    expect(p, "read:d");
    errno = 0;
    assert_int_equal(iostream_read_until(p->stream, "", 0, 0, on_read, p), -1);
    assert_int_equal(errno, EINVAL);
}

static void the_delimiter_is_not_looked_for_twice_in_the_same_place(void **state)
{
    (void)state;
    struct party *p = meet(0);
    read_until(p, "\r\n", 0);
    for (size_t sent = 4; sent < 400; sent += 4) {
        send_chunk(p, "abcd");
        assert_int_equal(p->stream->read.scanned, sent - 1); /* of a delimiter of two bytes, one may be here */
    }
    send_chunk(p, "\r\n");
    run_until(*p->diary);
    *p->diary = '\0';
}

static void read_until_close_takes_everything(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_send(p, "1234");
    read_bytes(p, 1);
    expect(p, "read:1");
    read_until_close(p);
    send_chunk(p, "56");
    expect_nothing(p);
    far_finish(p);
    expect(p, "read:23456");
    read_until_close(p); /* and again: nothing more, which is no error */
    expect(p, "read:");
    read_some(p, 1);
    expect(p, "read-eof");
}

static void read_until_close_keeps_to_the_buffers_size(void **state)
{
    (void)state;
    struct party *just = meet(8), *over = meet(8);
    read_until_close(just);
    read_until_close(over);
    send_chunk(just, "12345678");
    far_finish(just);
    expect(just, "read:12345678");
    send_chunk(over, "123456789");
    expect(over, "read-limit end:limit");
}

static void at_eof_unread_bytes_stay(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_send(p, "abc");
    far_finish(p);
    read_bytes(p, 10);
    expect(p, "read-eof");
    read_until(p, "x", 1000);
    expect(p, "read-eof");
    read_bytes(p, 2);
    expect(p, "read:ab");
    read_until_close(p);
    expect(p, "read:c");
    read_bytes(p, 0);
    expect(p, "read:");
    read_bytes(p, 1);
    expect(p, "read-eof");
    assert_int_equal(iostream_reason(p->stream), CLOSE_NONE); /* half of it is still open */
}

static void one_read_at_a_time(void **state)
{
    (void)state;
    struct party *p = meet(0), *q = meet(0);
    read_bytes(p, 4);
    for (int i = 0; i < 2; i++) { /* unsatisfied, and satisfied but not told */
        const int results[] = {
            iostream_read_some(p->stream, 1, on_read, p),
            iostream_read_bytes(p->stream, 1, on_read, p),
            iostream_read_until(p->stream, "x", 1, 0, on_read, p),
            iostream_read_until_close(p->stream, on_read, p),
            iostream_discard(p->stream),
            iostream_relay(p->stream, q->stream),
        };
        for (size_t k = 0; k < COUNT(results); k++) {
            assert_int_equal(results[k], -1);
            assert_int_equal(errno, EBUSY);
        }
        if (i == 0) {
            far_send(p, "12345678");
            expect(p, "read:1234");
            read_bytes(p, 4);
        }
    }
    expect(p, "read:5678");
}

static void no_read_after_close(void **state)
{
    (void)state;
    struct party *p = meet(0);
    iostream_close(p->stream);
    const int results[] = {
        iostream_read_some(p->stream, 1, on_read, p),
        iostream_read_bytes(p->stream, 0, on_read, p),
        iostream_read_until(p->stream, "x", 1, 0, on_read, p),
        iostream_read_until_close(p->stream, on_read, p),
        iostream_discard(p->stream),
        iostream_relay(p->stream, p->stream),
        iostream_write(p->stream, "x", 1, on_wrote, p),
    };
    for (size_t k = 0; k < COUNT(results); k++) {
        assert_int_equal(results[k], -1);
        assert_int_equal(errno, EPIPE);
    }
    far_close(p);
    run_until(!p->stream);
    *p->diary = '\0';
}

static void assert_cancels(struct party *p, int result, int error)
{
    errno = 0;
    assert_int_equal(iostream_read_cancel(p->stream), result);
    assert_int_equal(errno, error);
}

static void a_cancelled_read_leaves_the_bytes(void **state)
{
    (void)state;
    struct party *p = meet(0);
    assert_cancels(p, -1, ENOENT);
    read_until(p, "\n", 0);
    send_chunk(p, "half a ");
    assert_cancels(p, 0, 0);
    assert_cancels(p, -1, ENOENT);
    send_chunk(p, "line\n");
    expect_nothing(p);
    read_until(p, "\n", 0);
    expect(p, "read:half a line\n");
}

static void a_read_can_be_cancelled_when_satisfied_already(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    send_chunk(p, "abc");
    read_some(p, 10); /* its callback is due */
    assert_cancels(p, 0, 0);
    run_quietly();
    expect_nothing(p);
    read_some(p, 10);
    expect(p, "read:abc");
}

/* One that reads `cut` in many ways and compares each piece with the pattern. */
struct taster {
    uint64_t position, end;
    unsigned seed;
};

static void taste(struct iostream *, struct taster *);

static void on_tasted(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    struct taster *t = arg;
    char right[KIB(8)];
    assert_int_equal(status, READ_OK);
    assert_true(length <= sizeof right);
    pattern(right, length, t->position);
    t->position += length;
    if (t->position < t->end)
        taste(s, t);
    assert_memory_equal(data, right, length); /* the data are there until we return, whatever we call */
}

static void taste(struct iostream *s, struct taster *t)
{
    size_t size = (size_t)rand_r(&t->seed) % KIB(8) + 1;
    size_t left = (size_t)(t->end - t->position);
    char byte;
    int result;
    switch (rand_r(&t->seed) % 3) {
    case 0:
        result = iostream_read_some(s, size, on_tasted, t);
        break;
    case 1:
        result = iostream_read_bytes(s, size < left ? size : left, on_tasted, t);
        break;
    default:
        pattern(&byte, 1, t->position + (size < left ? size : left) - 1); /* there it is, if not before */
        result = iostream_read_until(s, &byte, 1, 0, on_tasted, t);
    }
    assert_int_equal(result, 0);
}

/* A peer that sends and sends is stopped by the kernel, not by our memory. */
static void who_does_not_read_holds_one_piece(void **state)
{
    (void)state;
    struct party *p = meet(KIB(64));
    struct taster t = {.seed = 3};
    watch_eof(p);
    while (far_pour(p, KIB(65536)) > 0)
        run_quietly();
    assert_true(buffer_length(&p->stream->in) > 0 && buffer_length(&p->stream->in) <= KIB(64) + 1);
    assert_true(p->poured < KIB(65536));
    t.end = p->poured;
    taste(p->stream, &t);
    run_until(t.position == t.end);
}

/* Not even a stream whose every callback asks for the next read keeps the loop from other events. */
static void read_a_byte_more(struct party *p, const char *word)
{
    unsigned *turns = p->arg;
    (void)word;
    if (ev_iteration(loop) == turns[0])
        turns[1]++;
    else
        turns[1] = 0;
    turns[0] = ev_iteration(loop);
    assert_true(turns[1] < 1000);
    *p->diary = '\0';
    if (iostream_bytes_in(p->stream) < KIB(64) || buffer_length(&p->stream->in) > 0)
        read_some(p, 1);
}

static void reads_leave_the_loop_its_turns(void **state)
{
    (void)state;
    struct party *p = meet(0);
    unsigned turns[2] = {0};
    p->inside = read_a_byte_more;
    p->arg = turns;
    read_some(p, 1);
    far_pour(p, KIB(64));
    run_until(iostream_bytes_in(p->stream) == KIB(64) && buffer_length(&p->stream->in) == 0);
}

/* ---- discarding ---- */

static void discard_drops_everything_up_to_eof(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    send_chunk(p, "ahead ");
    assert_int_equal(iostream_discard(p->stream), 0);
    errno = 0;
    assert_int_equal(iostream_read_some(p->stream, 1, on_read, p), -1);
    assert_int_equal(errno, EBUSY);
    while (p->poured < KIB(1024)) {
        far_pour(p, KIB(1024) - p->poured);
        run_quietly();
    }
    far_finish(p);
    expect(p, "eof");
    assert_int_equal(iostream_bytes_in(p->stream), KIB(1024) + strlen("ahead "));
    read_some(p, 1); /* it is over with the peer's end */
    expect(p, "read-eof");
    write_text(p, "answer");
    expect(p, "wrote");
    far_receive(p, "answer");
}

static void discard_can_be_taken_back(void **state)
{
    (void)state;
    struct party *p = meet(0);
    assert_int_equal(iostream_discard(p->stream), 0);
    send_chunk(p, "dropped");
    assert_cancels(p, 0, 0);
    send_chunk(p, "kept");
    read_some(p, 10);
    expect(p, "read:kept");
}

static void discard_after_eof_is_over_at_once(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_send(p, "abc");
    far_finish(p);
    read_bytes(p, 10);
    expect(p, "read-eof");
    watch_eof(p);
    assert_int_equal(iostream_discard(p->stream), 0);
    expect_nothing(p);
    expect(p, "eof");
    read_some(p, 1);
    expect(p, "read-eof");
}

/* ---- EOF ---- */

static void eof_is_told_once_after_all_bytes(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    far_send(p, "abcdef");
    far_finish(p);
    run_quietly();
    expect_nothing(p);
    read_bytes(p, 4);
    expect(p, "read:abcd");
    run_quietly();
    expect_nothing(p);
    read_bytes(p, 2);
    expect(p, "read:ef eof");
    read_some(p, 1);
    expect(p, "read-eof");
    watch_eof(p);
    run_quietly();
    expect_nothing(p);
    assert_true(iostream_read_ended(p->stream));
}

static void eof_needs_no_read(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    assert_false(iostream_read_ended(p->stream));
    far_finish(p);
    expect(p, "eof");
}

static void eof_that_a_read_has_found_is_told_to_who_asks_later(void **state)
{
    (void)state;
    struct party *p = meet(0);
    far_finish(p);
    read_some(p, 1);
    expect(p, "read-eof");
    watch_eof(p);
    expect_nothing(p);
    expect(p, "eof");
}

static void on_wrong_eof(struct iostream *s, void *arg)
{
    (void)s, (void)arg;
    fail();
}

static void a_later_callback_replaces_the_earlier_one(void **state)
{
    (void)state;
    struct party *p = meet(0), *q = meet(0);
    iostream_on_eof(p->stream, on_wrong_eof, NULL);
    watch_eof(p);
    far_finish(p);
    expect(p, "eof");
    iostream_on_eof(q->stream, on_wrong_eof, NULL);
    iostream_on_eof(q->stream, NULL, NULL);
    far_finish(q);
    run_quietly();
    read_some(q, 1);
    expect(q, "read-eof");
}

static void stop_reading_counts_as_the_peers_end(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    far_send(p, "abc");
    read_bytes(p, 10);
    run_quietly();
    assert_int_equal(iostream_stop_reading(p->stream), 0);
    expect_nothing(p);
    assert_true(iostream_read_ended(p->stream));
    expect(p, "read-eof");
    far_send(p, "unread");
    read_until_close(p);
    expect(p, "read:abc eof");
    write_text(p, "answer");
    expect(p, "wrote");
    iostream_finish(p->stream);
    expect(p, "end:eof");
    far_receive(p, "answer");
}

static void stop_reading_is_not_for_sockets(void **state)
{
    (void)state;
    struct party *p = meet(0);
    errno = 0;
    assert_int_equal(iostream_stop_reading(p->stream), -1);
    assert_int_equal(errno, EINVAL);
    assert_false(iostream_read_ended(p->stream));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(read_some_takes_what_has_come),
        STREAM_TEST(read_some_waits_for_the_first_byte),
        STREAM_TEST(read_bytes_waits_for_all_of_them),
        STREAM_TEST(read_of_no_bytes_needs_none),
        STREAM_TEST(read_until_finds_the_delimiter),
        STREAM_TEST(read_until_takes_any_bytes_for_a_delimiter),
        LOOP_TEST(the_delimiter_is_not_looked_for_twice_in_the_same_place),
        STREAM_TEST(read_until_close_takes_everything),
        STREAM_TEST(read_until_close_keeps_to_the_buffers_size),
        STREAM_TEST(at_eof_unread_bytes_stay),
        STREAM_TEST(one_read_at_a_time),
        STREAM_TEST(no_read_after_close),
        STREAM_TEST(a_cancelled_read_leaves_the_bytes),
        STREAM_TEST(a_read_can_be_cancelled_when_satisfied_already),
        STREAM_TEST(who_does_not_read_holds_one_piece),
        LOOP_TEST(reads_leave_the_loop_its_turns),
        STREAM_TEST(discard_drops_everything_up_to_eof),
        STREAM_TEST(discard_can_be_taken_back),
        STREAM_TEST(discard_after_eof_is_over_at_once),
        STREAM_TEST(eof_is_told_once_after_all_bytes),
        STREAM_TEST(eof_needs_no_read),
        STREAM_TEST(eof_that_a_read_has_found_is_told_to_who_asks_later),
        STREAM_TEST(a_later_callback_replaces_the_earlier_one),
        WIRE_TEST(stop_reading_counts_as_the_peers_end, PIPES),
        SOCKET_TEST(stop_reading_is_not_for_sockets),
    };
    return cmocka_run_group_tests_name("iostream_read", tests, NULL, NULL);
}
