/* What a stream reads and writes, and what is known of it. How it ends is in test_iostream_end.c. */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>

#include "harness.h"

static const char zeros[KIB(64) + 1];

/* Until the kernel takes no more. */
static void fill_up(struct party *p)
{
    while (iostream_write_pending(p->stream) == 0)
        assert_int_equal(iostream_write(p->stream, zeros, KIB(64), NULL, NULL), 0);
}

static void write_pattern(struct party *p, size_t length)
{
    char *bytes = malloc(length);
    pattern(bytes, length, 0);
    assert_int_equal(iostream_write(p->stream, bytes, length, on_wrote, p), 0);
    free(bytes);
}

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
    assert_true(p->stream->in.length > 0 && p->stream->in.length <= KIB(64) + 1);
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
    if (iostream_bytes_in(p->stream) < KIB(64) || p->stream->in.length > 0)
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
    run_until(iostream_bytes_in(p->stream) == KIB(64) && p->stream->in.length == 0);
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

/* ---- writing ---- */

static void write_copies(void **state)
{
    (void)state;
    struct party *p = meet(0);
    char text[] = "original";
    fill_up(p);
    size_t ahead = (size_t)iostream_bytes_out(p->stream) + iostream_write_pending(p->stream);
    write_text(p, text);
    memset(text, '!', strlen(text));
    char *all = calloc(1, ahead + sizeof text);
    for (size_t have = 0; have < ahead + strlen(text);) {
        ssize_t n = read(p->far.in, all + have, ahead + sizeof text - have);
        have += n > 0 ? (size_t)n : 0;
        ev_run(loop, EVRUN_NOWAIT);
    }
    assert_string_equal(all + ahead, "original");
    free(all);
    expect(p, "wrote");
}

static void writes_complete_in_order(void **state)
{
    (void)state;
    struct party *p = meet(0);
    write_text(p, "one ");
    assert_int_equal(iostream_write(p->stream, "two ", 4, NULL, NULL), 0);
    write_text(p, "");
    write_text(p, "three");
    expect_nothing(p);
    far_receive(p, "one two three");
    expect(p, "wrote wrote wrote");
    write_text(p, "");
    expect_nothing(p);
    expect(p, "wrote");
}

static void a_write_completes_when_the_kernel_has_it_all(void **state)
{
    (void)state;
    struct party *p = meet(KIB(8192));
    write_pattern(p, KIB(8192));
    write_text(p, "");
    run_quietly();
    size_t pending = iostream_write_pending(p->stream);
    assert_true(pending > 0);
    assert_int_equal(iostream_bytes_out(p->stream) + pending, KIB(8192));
    expect_nothing(p); /* not even the empty one, which comes after */
    run_until(far_drain(p, KIB(64)) && *p->diary);
    assert_int_equal(iostream_write_pending(p->stream), 0);
    run_until(far_drain(p, KIB(8192)) == 0 && p->drained == KIB(8192));
    expect(p, "wrote wrote");
}

static void a_full_queue_takes_nothing(void **state)
{
    (void)state;
    struct party *p = meet(KIB(64));
    errno = 0;
    assert_int_equal(iostream_write(p->stream, zeros, sizeof zeros, on_wrote, p), -1); /* more than ever fits */
    assert_int_equal(errno, ENOBUFS);
    fill_up(p);
    size_t room = KIB(64) - iostream_write_pending(p->stream);
    errno = 0;
    assert_int_equal(iostream_write(p->stream, zeros, room + 1, on_wrote, p), -1);
    assert_int_equal(errno, ENOBUFS);
    assert_int_equal(iostream_write_pending(p->stream), KIB(64) - room);
    assert_int_equal(iostream_write(p->stream, zeros, room, on_wrote, p), 0);
    assert_int_equal(iostream_write_pending(p->stream), KIB(64));
    write_text(p, "");
    char sink[KIB(64)];
    run_until(read(p->far.in, sink, sizeof sink) < 0 && *p->diary);
    expect(p, "wrote wrote");
}

static void no_write_after_finish(void **state)
{
    (void)state;
    struct party *p = meet(0);
    write_text(p, "last");
    iostream_finish(p->stream);
    errno = 0;
    assert_int_equal(iostream_write(p->stream, "x", 1, on_wrote, p), -1);
    assert_int_equal(errno, EPIPE);
    expect(p, "wrote");
    far_receive(p, "last");
    far_receive_end(p);
}

/* 1000 writes of 5000 bytes, as fast as the queue takes them. */
struct scribbler {
    unsigned written, completed;
};
enum { SCRIBBLES = 1000, SCRIBBLE_BYTES = 5000 };

static void scribble(struct iostream *, struct scribbler *);

static void on_scribbled(struct iostream *s, void *arg, int error)
{
    struct scribbler *w = arg;
    assert_int_equal(error, 0);
    assert_true(w->completed < w->written);
    assert_true(iostream_bytes_out(s) >= ++w->completed * (uint64_t)SCRIBBLE_BYTES);
    scribble(s, w);
}

static void scribble(struct iostream *s, struct scribbler *w)
{
    char bytes[SCRIBBLE_BYTES];
    while (w->written < SCRIBBLES) {
        pattern(bytes, sizeof bytes, (uint64_t)w->written * SCRIBBLE_BYTES);
        if (iostream_write(s, bytes, sizeof bytes, on_scribbled, w) != 0) {
            assert_int_equal(errno, ENOBUFS);
            return;
        }
        w->written++;
    }
}

static void every_one_of_many_writes_completes(void **state)
{
    (void)state;
    struct party *p = meet(KIB(64));
    struct scribbler w = {0};
    scribble(p->stream, &w);
    run_until(far_drain(p, KIB(256)) + 1 && w.completed == SCRIBBLES);
    run_until(far_drain(p, KIB(256)) + 1 && p->drained == (uint64_t)SCRIBBLES * SCRIBBLE_BYTES);
}

static void write_once_more(struct party *p, const char *word)
{
    unsigned *count = p->arg;
    (void)word;
    *p->diary = '\0';
    if (++*count < 5000)
        write_text(p, "");
}

/* Nor does one whose every callback writes, and has it taken at once. */
static void writes_leave_the_loop_its_turns(void **state)
{
    (void)state;
    struct party *p = meet(0);
    unsigned count = 0, before = ev_iteration(loop);
    p->inside = write_once_more;
    p->arg = &count;
    write_text(p, "");
    run_until(count == 5000);
    assert_true(ev_iteration(loop) - before >= 5);
}

/* ---- half-close ---- */

static void after_finish_reading_goes_on(void **state)
{
    (void)state;
    struct party *p = meet(KIB(4096));
    write_pattern(p, KIB(4096));
    iostream_finish(p->stream);
    iostream_finish(p->stream); /* twice is once */
    read_until_close(p);
    run_until(far_drain(p, KIB(8192)) + 1 && p->drained == KIB(4096)); /* nothing queued is lost */
    far_receive_end(p);
    expect(p, "wrote");
    far_send(p, "late ");
    run_quietly();
    far_send(p, "answer");
    far_finish(p);
    expect(p, "read:late answer end:finished");
}

static void after_the_peers_eof_writing_goes_on(void **state)
{
    (void)state;
    struct party *p = meet(KIB(4096));
    far_send(p, "request");
    far_finish(p);
    read_until_close(p);
    expect(p, "read:request");
    run_quietly();
    write_pattern(p, KIB(4096));
    iostream_finish(p->stream);
    run_until(far_drain(p, KIB(8192)) + 1 && p->drained == KIB(4096));
    far_receive_end(p);
    expect(p, "wrote end:eof");
}

/* ---- what is known of it ---- */

static void it_knows_its_numbers(void **state)
{
    (void)state;
    struct party *p = meet(0);
    struct iostream *s = p->stream;
    assert_ptr_equal(iostream_loop(s), loop);
    assert_int_equal(iostream_id(s), 0);
    assert_int_equal(iostream_reason(s), CLOSE_NONE);
    assert_int_equal(iostream_error(s), 0);
    assert_null(iostream_child(s));
    assert_null(iostream_data(s));
    iostream_set_data(s, &loop);
    assert_ptr_equal(iostream_data(s), &loop);
    far_send(p, "12345");
    read_bytes(p, 3);
    expect(p, "read:123");
    write_text(p, "1234567");
    expect(p, "wrote");
    assert_int_equal(iostream_bytes_in(s), 5); /* read ahead */
    assert_int_equal(iostream_bytes_out(s), 7);
    assert_int_equal(iostream_write_pending(s), 0);
    assert_true(iostream_seconds(s) < 10);
    pass(100);
    assert_true(iostream_seconds(s) >= 100 && iostream_seconds(s) < 110);
    set_clock_ahead(-3600);
    pass(1);
    assert_true(iostream_seconds(s) >= 101 && iostream_seconds(s) < 111);
}

static void a_tcp_stream_knows_its_addresses(void **state)
{
    (void)state;
    struct party *p = meet(0);
    struct sockaddr_storage local, peers;
    socklen_t length, peers_length = sizeof peers;
    assert_int_equal(iostream_local(p->stream, &local, &length), 0);
    assert_int_equal(getpeername(p->far.in, (struct sockaddr *)&peers, &peers_length), 0);
    assert_int_equal(length, peers_length);
    assert_memory_equal(&local, &peers, length);
    assert_int_equal(iostream_peer(p->stream, &length)->sa_family, AF_UNSPEC); /* nobody has told it */
}

static void nodelay_is_for_tcp(void **state)
{
    (void)state;
    for (int on = 1; on >= 0; on--) {
        struct party *p = meet(0);
        int value = -1;
        socklen_t length = sizeof value;
        assert_int_equal(iostream_set_nodelay(p->stream, on), 0);
        if (wire == TCP) {
            assert_int_equal(getsockopt(p->stream->transport->write_fd, IPPROTO_TCP, TCP_NODELAY, &value, &length), 0);
            assert_int_equal(!!value, on);
        }
    }
}

static void each_reason_has_a_word(void **state)
{
    (void)state;
    static const char *const words[] = {
        [CLOSE_NONE] = "none",       [CLOSE_EOF] = "eof",     [CLOSE_FINISHED] = "finished", [CLOSE_CHILD] = "child",
        [CLOSE_TIMEOUT] = "timeout", [CLOSE_LIMIT] = "limit", [CLOSE_DENIED] = "denied",     [CLOSE_RESET] = "reset",
        [CLOSE_TLS] = "tls",         [CLOSE_PROXY] = "proxy", [CLOSE_ERROR] = "error",       [CLOSE_SHUTDOWN] = "shutdown",
    };
    for (size_t i = 0; i < COUNT(words); i++)
        assert_string_equal(close_reason_name((enum close_reason)i), words[i]);
}

/* ---- making one ---- */

static void a_stream_registers_nothing_until_it_has_to(void **state)
{
    (void)state;
    struct party *p = meet(0);
    assert_false(ev_run(loop, EVRUN_NOWAIT));
    read_some(p, 1);
    assert_true(ev_run(loop, EVRUN_NOWAIT));
}

static void a_bad_descriptor_is_refused(void **state)
{
    (void)state;
    int ends[2];
    struct errbuf err;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    const int pairs[][2] = {{-1, ends[1]}, {ends[0], -1}, {1000000, 1000000}};
    for (size_t i = 0; i < COUNT(pairs); i++) {
        *err.text = '\0';
        assert_null(iostream_new(loop, pairs[i][0], pairs[i][1], NULL, &err));
        assert_non_null(strstr(err.text, "Bad file descriptor"));
    }
    assert_int_equal(close(ends[0]), 0); /* they stayed ours */
    assert_int_equal(close(ends[1]), 0);
}

static bool is_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    assert_true(flags >= 0);
    return flags & O_NONBLOCK;
}

/* Both ways, with more than a pipe holds. */
static void shared_descriptors_are_left_as_they_are(void **state)
{
    (void)state;
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct party *p = adopt(in[0], out[1], IOSTREAM_SHARED | IOSTREAM_KEEP);
    assert_int_equal(fcntl(out[0], F_SETFL, O_NONBLOCK), 0);
    p->far = (struct ends){.in = out[0], .out = in[1]};
    read_some(p, 100);
    run_quietly();
    far_send(p, "hello");
    expect(p, "read:hello");
    write_pattern(p, KIB(1000));
    assert_false(is_nonblocking(in[0]) || is_nonblocking(out[1]));
    run_until(far_drain(p, KIB(64)) + 1 && p->drained == KIB(1000));
    expect(p, "wrote");
    iostream_finish(p->stream);
    far_finish(p);
    read_some(p, 1);
    expect(p, "read-eof end:finished");
    assert_false(is_nonblocking(in[0]) || is_nonblocking(out[1])); /* open, even */
    close(in[0]);
    close(out[1]);
}

static void files_can_be_read_and_written(void **state)
{
    (void)state;
    FILE *from = tmpfile(), *to = tmpfile();
    char text[32] = "";
    fputs("in a file", from);
    rewind(from);
    struct party *p = adopt(dup(fileno(from)), dup(fileno(to)), 0);
    read_until_close(p);
    expect(p, "read:in a file");
    write_text(p, "into a file");
    expect(p, "wrote");
    iostream_finish(p->stream);
    expect(p, "end:eof");
    assert_int_equal(pread(fileno(to), text, sizeof text, 0), strlen("into a file"));
    assert_string_equal(text, "into a file");
    fclose(from);
    fclose(to);
}

static void terminals_can_be_read_and_written(void **state)
{
    (void)state;
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    char name[64];
    assert_int_equal(grantpt(master), 0);
    assert_int_equal(unlockpt(master), 0);
    assert_int_equal(ptsname_r(master, name, sizeof name), 0);
    int terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    struct party *p = adopt(terminal, terminal, IOSTREAM_SHARED);
    p->far = (struct ends){master, master};
    read_some(p, 100);
    far_send(p, "typed\n\004"); /* ^D on a line of its own ends the input */
    expect(p, "read:typed\n");
    read_some(p, 100);
    expect(p, "read-eof");
    write_text(p, "shown");
    expect(p, "wrote");
    far_receive(p, "typed\r\nshown"); /* its echo is first */
    iostream_finish(p->stream);
    expect(p, "end:eof");
}

/* A limit may be as large as the type allows. */
static void a_buffer_may_be_unlimited(void **state)
{
    (void)state;
    struct party *p = meet(SIZE_MAX);
    read_bytes(p, KIB(128));
    write_text(p, "x");
    while (p->poured < KIB(128)) {
        far_pour(p, (size_t)(KIB(128) - p->poured));
        run_quietly();
    }
    char right[KIB(128)];
    pattern(right, sizeof right, 0);
    char words[128];
    snprintf(words, sizeof words, "wrote read:%s", digest(right, sizeof right));
    expect(p, words);
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
        STREAM_TEST(write_copies),
        STREAM_TEST(writes_complete_in_order),
        STREAM_TEST(a_write_completes_when_the_kernel_has_it_all),
        STREAM_TEST(a_full_queue_takes_nothing),
        STREAM_TEST(no_write_after_finish),
        STREAM_TEST(every_one_of_many_writes_completes),
        LOOP_TEST(writes_leave_the_loop_its_turns),
        STREAM_TEST(after_finish_reading_goes_on),
        STREAM_TEST(after_the_peers_eof_writing_goes_on),
        LOOP_TEST(it_knows_its_numbers),
        LOOP_TEST(a_tcp_stream_knows_its_addresses),
        STREAM_TEST(nodelay_is_for_tcp),
        LOOP_TEST(each_reason_has_a_word),
        STREAM_TEST(a_stream_registers_nothing_until_it_has_to),
        LOOP_TEST(a_bad_descriptor_is_refused),
        LOOP_TEST(shared_descriptors_are_left_as_they_are),
        LOOP_TEST(files_can_be_read_and_written),
        LOOP_TEST(terminals_can_be_read_and_written),
        LOOP_TEST(a_buffer_may_be_unlimited),
    };
    return cmocka_run_group_tests_name("iostream", tests, NULL, NULL);
}
