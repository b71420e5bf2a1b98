/* TestReadWriteMixin of Tornado's iostream_test.py, and what its callback-era versions had beside it. */
#include "conformance.h"

#include <regex.h>
#include <stdio.h>

#define ROW(name) static void name(void **state __attribute__((unused)))

/* length bytes of the pattern, as the reader will compare them; to be freed. */
static char *make_pattern(size_t length)
{
    char *bytes = malloc(length);
    pattern(bytes, length, 0);
    return bytes;
}

/* ---- writes ---- */

ROW(test_write_zero_bytes)
{
    pair(0, 0);
    write_text(rs, "");
    expect_nothing(rs);
    expect(rs, "wrote");
    unsigned before = ev_iteration(loop);
    watch_begin();
    while (ev_iteration(loop) - before < 3) /* the watchdog's ticks, and nothing that spins */
        ev_run(loop, EVRUN_ONCE);
    watch_end();
    expect_nothing(rs);
}

/* Its C form: what is written is copied, so the caller's memory is free at once. */
ROW(test_write_memoryview)
{
    enum { LENGTH = 2 * 1024 * 1024 };
    pair(2 * LENGTH, LENGTH);
    char *bytes = make_pattern(LENGTH), *right = make_pattern(LENGTH);
    send_bytes(ws, bytes, LENGTH);
    memset(bytes, '!', LENGTH);
    read_bytes(rs, LENGTH);
    expect_read(rs, right, LENGTH);
    free(bytes);
    free(right);
}

/* ---- the peer's end ---- */

ROW(test_future_delayed_close_callback)
{
    pair(0, 0);
    send_text(ws, "12");
    read_bytes(rs, 1);
    expect(rs, "read:1");
    leave(ws);
    read_bytes(rs, 1);
    expect(rs, "read:2");
}

/* The key rule of order: reads that the buffer can serve come before the peer's end. */
static void read_the_next(struct party *p, const char *word)
{
    if (strcmp(word, "read") == 0 && !strstr(p->diary, "read:2"))
        read_bytes(p, 1);
}

ROW(test_delayed_close_callback)
{
    pair(0, 0);
    watch_eof(rs);
    rs->inside = read_the_next;
    send_text(ws, "12");
    leave(ws);
    run_quietly();
    read_bytes(rs, 1);
    expect(rs, "read:1 read:2 eof");
}

ROW(test_close_buffered_data)
{
    char *right = make_pattern(512);
    pair(256, 0);
    send_bytes(ws, right, 512);
    read_bytes(rs, 256);
    expect_read(rs, right, 256);
    leave(ws);
    run_quietly();
    read_bytes(rs, 256);
    expect_read(rs, right + 256, 256);
    free(right);
}

ROW(test_read_until_close_after_close)
{
    pair(0, 0);
    send_text(ws, "1234");
    read_bytes(rs, 1);
    expect(rs, "read:1");
    leave(ws);
    run_quietly();
    read_until_close(rs);
    expect(rs, "read:234");
}

ROW(test_read_until_with_close_after_second_packet)
{
    char right[2048 + 5];
    memset(right, 'x', 2048);
    strcpy(right + 2048, "done");
    pair(0, 0);
    read_until(rs, "done", 0);
    send_bytes(ws, right, 2048);
    run_quietly();
    expect_nothing(rs);
    send_text(ws, "done");
    leave(ws);
    expect_read(rs, right, 2048 + 4);
}

ROW(test_read_until_unsatisfied_after_close)
{
    pair(0, 0);
    read_until(rs, "done", 0);
    send_text(ws, "xxxxx");
    leave(ws);
    expect(rs, "read-eof");
}

/* The peer's end is on_eof's here; on_close comes once our side has ended, too. */
ROW(test_close_callback_with_pending_read)
{
    pair(0, 0);
    watch_eof(rs);
    read_until(rs, "done", 0);
    leave(ws);
    expect(rs, "read-eof eof");
    iostream_close(rs->stream);
    expect(rs, "end:eof");
}

ROW(test_future_close_callback)
{
    pair(0, 0);
    watch_eof(rs);
    send_text(ws, "x");
    read_bytes(rs, 1);
    expect(rs, "read:x");
    run_quietly();
    expect_nothing(rs);
    leave(ws);
    expect(rs, "eof");
    iostream_close(rs->stream);
    expect(rs, "end:eof");
    run_quietly();
    assert_int_equal(rs->ends, 1);
}

/* ---- read_until ---- */

ROW(test_large_read_until)
{
    enum { WRITES = 4 * 1024, LENGTH = WRITES * 1024 };
    char *right = malloc(LENGTH + 2);
    memset(right, 'a', LENGTH);
    memcpy(right + LENGTH, "\r\n", 2);
    pair(2 * LENGTH, 2 * LENGTH);
    read_until(rs, "\r\n", 0);
    for (size_t i = 0; i < WRITES; i++)
        send_bytes(ws, right + i * KIB(1), KIB(1));
    send_text(ws, "\r\n");
    while (!*rs->diary) {
        ev_run(loop, EVRUN_ONCE);
        if (rs->stream->read.kind == UNTIL && !rs->stream->read.ready && buffer_length(&rs->stream->in) > 0)
            assert_int_equal(rs->stream->read.scanned, buffer_length(&rs->stream->in) - 1); /* no byte is looked at twice */
    }
    expect_read(rs, right, LENGTH + 2);
    free(right);
}

typedef void read_up_to(struct party *, size_t max_bytes); /* "def" */

static void up_to_text(struct party *p, size_t max_bytes)
{
    read_until(p, "def", max_bytes);
}

static size_t shown; /* to the matcher, so far */

/* A regular expression, as a program would have it: with regexec(3) for the match. */
static size_t match_regex(void *arg, const char *data, size_t length, size_t seen)
{
    static regex_t regex;
    static bool compiled;
    regmatch_t match;
    char *text = strndup(data, length); /* REG_STARTEND would do, but not for AddressSanitizer */
    (void)arg;
    assert_int_equal(seen, shown);
    shown = length;
    if (!compiled)
        assert_int_equal(regcomp(&regex, "d+ef", REG_EXTENDED), 0);
    compiled = true;
    size_t end = regexec(&regex, text, 1, &match, 0) == 0 ? (size_t)match.rm_eo : 0;
    free(text);
    return end;
}

static void up_to_regex(struct party *p, size_t max_bytes)
{
    shown = 0;
    assert_int_equal(iostream_read_until_match(p->stream, match_regex, max_bytes, on_read, p), 0);
}

static void check_limits(read_up_to *read_up)
{
    static const struct {
        size_t max_bytes;
        const char *said;
    } cases[] = {{50, "read:abcdef"}, {6, "read:abcdef"}, {5, "read-limit end:limit"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        pair(0, 0);
        read_up(rs, cases[i].max_bytes);
        send_text(ws, "abc");
        run_quietly();
        expect_nothing(rs);
        send_text(ws, "def");
        expect(rs, cases[i].said);
    }
}

/* It is here already, and told later all the same. */
static void check_limit_inline(read_up_to *read_up)
{
    pair(0, 0);
    watch_eof(rs); /* reads ahead */
    send_text(ws, "123456");
    run_quietly();
    read_up(rs, 5);
    expect_nothing(rs);
    assert_int_equal(iostream_reason(rs->stream), CLOSE_NONE);
    expect(rs, "read-limit end:limit");
}

static void check_limit_ignores_extra(read_up_to *read_up)
{
    pair(0, 0);
    send_text(ws, "abcdef");
    run_quietly();
    read_up(rs, 5);
    expect(rs, "read-limit end:limit");
}

ROW(test_read_until_max_bytes)
{
    check_limits(up_to_text);
}

ROW(test_read_until_max_bytes_inline)
{
    check_limit_inline(up_to_text);
}

ROW(test_read_until_max_bytes_ignores_extra)
{
    check_limit_ignores_extra(up_to_text);
}

ROW(test_read_until_regex_max_bytes)
{
    check_limits(up_to_regex);
}

ROW(test_read_until_regex_max_bytes_inline)
{
    check_limit_inline(up_to_regex);
}

ROW(test_read_until_regex_max_bytes_ignores_extra)
{
    check_limit_ignores_extra(up_to_regex);
}

/* ---- partial reads, and into the caller's memory ---- */

ROW(test_read_bytes_partial)
{
    pair(0, 0);
    read_some(rs, 50);
    send_text(ws, "hello");
    expect(rs, "read:hello");
    send_text(ws, "world!");
    read_some(rs, 3);
    expect(rs, "read:wor");
    read_some(rs, 0);
    expect(rs, "read:");
    read_some(rs, 50);
    expect(rs, "read:ld!");
    read_some(rs, 0); /* nothing is there, and nothing needed */
    expect(rs, "read:");
}

ROW(test_read_into)
{
    char memory[10];
    pair(0, 0);
    read_into(rs, memory, 10, false);
    send_text(ws, "hello");
    run_quietly();
    expect_nothing(rs);
    assert_int_equal(iostream_read_some(rs->stream, 1, on_read, rs), -1);
    assert_int_equal(errno, EBUSY);
    send_text(ws, "world!!");
    expect(rs, "read:helloworld");
    watch_eof(rs); /* reads ahead: the rest comes from the buffer */
    run_quietly();
    read_into(rs, memory, 10, false);
    send_text(ws, "1234567890");
    expect(rs, "read:!!12345678");
    assert_memory_equal(memory, "!!12345678", 10);
    send_text(ws, "abcdefghi");
    read_into(rs, memory, 4, false);
    expect(rs, "read:90ab");
    assert_memory_equal(memory, "90ab345678", 10);
    read_bytes(rs, 7);
    expect(rs, "read:cdefghi");
}

ROW(test_read_into_partial)
{
    char memory[11] = "??????????";
    pair(0, 0);
    read_into(rs, memory, 10, true);
    send_text(ws, "hello");
    expect(rs, "read:hello");
    assert_string_equal(memory, "hello?????"); /* the rest of it is untouched */
    send_text(ws, "world!1234567890");
    read_into(rs, memory, 10, false);
    expect(rs, "read:world!1234");
    watch_eof(rs);
    run_quietly();
    read_into(rs, memory, 6, true);
    expect_nothing(rs);
    expect(rs, "read:567890");
    assert_string_equal(memory, "5678901234");
}

ROW(test_read_into_zero_bytes)
{
    char memory[1];
    pair(0, 0);
    read_into(rs, memory, 0, false);
    expect_nothing(rs);
    expect(rs, "read:");
    read_into(rs, memory, 0, true);
    expect(rs, "read:");
}

ROW(read_into_says_how_far_it_came)
{
    char memory[10];
    pair(0, 0);
    read_into(rs, memory, 10, false);
    assert_ptr_equal(rs->stream->read.memory, memory);
    send_text(ws, "hello");
    run_until(rs->stream->read.filled == 5);
    assert_int_equal(iostream_read_cancel(rs->stream), 0); /* these go back */
    memset(memory, '?', sizeof memory);
    read_bytes(rs, 2);
    expect(rs, "read:he");
    read_into(rs, memory, 10, false);
    send_text(ws, "!!");
    leave(ws);
    run_until(*rs->diary);
    expect(rs, "read-eof:llo!!");
    assert_memory_equal(memory, "llo!!?????", 10);
}

ROW(a_satisfied_read_into_gives_back_too)
{
    char memory[3];
    pair(0, 0);
    watch_eof(rs);
    send_text(ws, "abcdef");
    read_bytes(rs, 1);
    expect(rs, "read:a");
    run_until(buffer_length(&rs->stream->in) == 5);
    read_into(rs, memory, 3, false);
    assert_int_equal(iostream_read_cancel(rs->stream), 0);
    run_quietly();
    expect_nothing(rs);
    read_bytes(rs, 5);
    expect(rs, "read:bcdef");
}

/* Which is the caller's, so the stream's limit is not asked. */
ROW(read_into_may_be_larger_than_the_buffer)
{
    enum { LENGTH = 300 * 1024 };
    char *right = make_pattern(LENGTH), *memory = malloc(LENGTH);
    pair(16, LENGTH);
    send_bytes(ws, right, LENGTH);
    read_into(rs, memory, LENGTH, false);
    expect_read(rs, right, LENGTH);
    assert_memory_equal(memory, right, LENGTH);
    free(memory);
    free(right);
}

ROW(an_ended_read_into_leaves_the_memory_alone)
{
    char memory[10] = "?????????";
    pair(0, 0);
    read_into(rs, memory, 10, false);
    send_text(ws, "abc");
    run_until(rs->stream->read.filled == 3);
    ignore_end(ws);
    iostream_abort(rs->stream, CLOSE_SHUTDOWN);
    expect(rs, "read-closed:abc end:shutdown");
    assert_memory_equal(memory, "abc??????", 10);
    pair(0, 0);
    ignore_end(ws);
    read_into(rs, memory, 10, false);
    send_text(ws, "dropped");
    iostream_close(rs->stream);
    run_until(*rs->diary);
    assert_memory_equal(rs->diary, "read-closed", strlen("read-closed"));
    assert_memory_equal(memory, "abc??????", 10);
    if (wire == TCP || wire == UNIX || (int)wire == TLS) /* told at once, while the stream drops what comes, to the peer's end */
        assert_false(iostream_read_ended(rs->stream));
    *rs->diary = '\0';
}

/* ---- buffers ---- */

static size_t lines_left;

static void read_next_kib(struct party *p, const char *word)
{
    (void)word;
    assert_true(buffer_length(&p->stream->in) <= KIB(10) + 1);
    if (--lines_left > 0)
        p->arg ? read_until(p, "\n", KIB(4)) : read_bytes(p, KIB(1));
    *p->diary = '\0';
}

static void read_100_lines(bool by_delimiter)
{
    char line[KIB(1)];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    pair(KIB(10), KIB(100));
    lines_left = 100;
    rs->inside = read_next_kib;
    rs->arg = by_delimiter ? rs : NULL;
    for (size_t i = 0; i < 100; i++)
        send_bytes(ws, line, sizeof line);
    by_delimiter ? read_until(rs, "\n", KIB(4)) : read_bytes(rs, KIB(1));
    run_until(lines_left == 0);
    assert_int_equal(iostream_bytes_in(rs->stream), KIB(100));
}

ROW(test_small_reads_from_large_buffer)
{
    read_100_lines(false);
}

ROW(test_small_read_untils_from_large_buffer)
{
    read_100_lines(true);
}

ROW(test_flow_control)
{
    enum { MIB = 1024 * 1024, TOTAL = 16 };
    char *right = make_pattern(TOTAL * MIB);
    pair(5 * MIB, TOTAL * MIB);
    send_bytes(ws, right, TOTAL * MIB);
    read_bytes(rs, MIB);
    expect_read(rs, right, MIB);
    run_quietly();
    assert_true(buffer_length(&rs->stream->in) <= 5 * MIB + 1);
    assert_true(iostream_write_pending(ws->stream) > 0); /* it waits */
    for (size_t i = 1; i < TOTAL; i++) {
        read_bytes(rs, MIB);
        expect_read(rs, right + i * MIB, MIB);
    }
    free(right);
}

/* One that reads in every way there is, and compares each piece with the pattern. */
struct taster {
    uint64_t position, end;
    unsigned seed;
    char memory[KIB(8)];
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
    assert_memory_equal(data, right, length);
    if (t->position < t->end)
        taste(s, t);
    if (data != t->memory)
        assert_memory_equal(data, right, length); /* the data are there until we return, whatever we call */
}

static void taste(struct iostream *s, struct taster *t)
{
    size_t size = (size_t)rand_r(&t->seed) % KIB(8) + 1;
    size_t left = (size_t)(t->end - t->position);
    size_t at_most = size < left ? size : left;
    char byte;
    int result;
    switch (rand_r(&t->seed) / 16 % 5) {
    case 0:
        result = iostream_read_some(s, size, on_tasted, t);
        break;
    case 1:
        result = iostream_read_bytes(s, at_most, on_tasted, t);
        break;
    case 2:
        result = iostream_read_into(s, t->memory, size, true, on_tasted, t);
        break;
    case 3:
        result = iostream_read_into(s, t->memory, at_most, false, on_tasted, t);
        break;
    default:
        pattern(&byte, 1, t->position + at_most - 1); /* there it is, if not before */
        result = iostream_read_until(s, &byte, 1, 0, on_tasted, t);
    }
    assert_int_equal(result, 0);
}

ROW(test_many_mixed_reads)
{
    enum { LENGTH = 1024 * 1024 };
    char *bytes = make_pattern(LENGTH);
    struct taster t = {.end = LENGTH, .seed = 7};
    pair(KIB(8), LENGTH);
    taste(rs->stream, &t);
    send_bytes(ws, bytes, LENGTH);
    run_until(t.position == t.end);
    free(bytes);
}

/* ---- streaming: read_some again and again, in place of a callback for every chunk ---- */

ROW(test_streaming_callback)
{
    pair(0, 0);
    send_text(ws, "1234");
    read_some(rs, 6);
    expect(rs, "read:1234");
    send_text(ws, "5678");
    read_some(rs, 2);
    expect(rs, "read:56");
    read_some(rs, 2);
    expect(rs, "read:78");
}

ROW(test_streaming_callback_with_data_in_buffer)
{
    pair(0, 0);
    send_text(ws, "abcd\r\nefgh");
    read_until(rs, "\r\n", 0);
    expect(rs, "read:abcd\r\n");
    run_quietly();
    read_some(rs, 100);
    expect(rs, "read:efgh");
}

ROW(test_streaming_until_close)
{
    pair(0, 0);
    send_text(ws, "1234");
    read_some(rs, 100);
    expect(rs, "read:1234");
    read_some(rs, 100);
    send_text(ws, "5678");
    expect(rs, "read:5678");
    watch_eof(rs);
    read_some(rs, 100);
    leave(ws);
    expect(rs, "read-eof eof");
}

ROW(test_streaming_read_until_close_after_close)
{
    pair(0, 0);
    send_text(ws, "1234");
    read_bytes(rs, 1);
    expect(rs, "read:1");
    leave(ws);
    run_quietly();
    read_some(rs, 100);
    expect(rs, "read:234");
    read_some(rs, 100);
    expect(rs, "read-eof");
}

/* A callback that fails has one thing to do. */
static void fail_inside(struct party *p, const char *word)
{
    if (strcmp(word, "read") == 0 && iostream_reason(p->stream) == CLOSE_NONE)
        iostream_abort(p->stream, CLOSE_ERROR);
}

ROW(test_read_callback_error)
{
    pair(0, 0);
    rs->inside = fail_inside;
    ignore_end(ws);
    read_bytes(rs, 1);
    send_text(ws, "x");
    expect(rs, "read:x end:error");
    run_quietly();
    assert_int_equal(rs->ends, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(test_write_zero_bytes),
        EACH(test_write_memoryview),
        EACH(test_future_delayed_close_callback),
        EACH(test_delayed_close_callback),
        EACH(test_close_buffered_data),
        EACH(test_read_until_close_after_close),
        EACH(test_read_until_with_close_after_second_packet),
        EACH(test_read_until_unsatisfied_after_close),
        EACH(test_close_callback_with_pending_read),
        EACH(test_future_close_callback),
        EACH(test_large_read_until),
        EACH(test_read_until_max_bytes),
        EACH(test_read_until_max_bytes_inline),
        EACH(test_read_until_max_bytes_ignores_extra),
        EACH(test_read_until_regex_max_bytes),
        EACH(test_read_until_regex_max_bytes_inline),
        EACH(test_read_until_regex_max_bytes_ignores_extra),
        EACH_UNCUT(test_read_bytes_partial),
        EACH(test_read_into),
        EACH_UNCUT(test_read_into_partial),
        EACH(test_read_into_zero_bytes),
        EACH(read_into_says_how_far_it_came),
        EACH_UNCUT(a_satisfied_read_into_gives_back_too),
        EACH(read_into_may_be_larger_than_the_buffer),
        EACH(an_ended_read_into_leaves_the_memory_alone),
        EACH(test_small_reads_from_large_buffer),
        EACH(test_small_read_untils_from_large_buffer),
        EACH(test_flow_control),
        EACH(test_many_mixed_reads),
        EACH_UNCUT(test_streaming_callback),
        EACH_UNCUT(test_streaming_callback_with_data_in_buffer),
        EACH_UNCUT(test_streaming_until_close),
        EACH_UNCUT(test_streaming_read_until_close_after_close),
        EACH(test_read_callback_error),
    };
    return cmocka_run_group_tests_name("conformance_read_write", tests, NULL, forget_secrets);
}
