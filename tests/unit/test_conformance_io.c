/* The rest of Tornado's iostream_test.py over a connected pair: errors, many writes, pipes. */
#include "conformance.h"

#include <stdio.h>

#include "../../core/resolve.h"
#include "memory_transport.h"

#define ROW(name) static void name(void **state __attribute__((unused)))

/* ---- errors of reads, by script ---- */

static struct memory_transport scripted;

static void open_scripted(void)
{
    memory_init(&scripted, false);
    rs = host(iostream_over(engine, &scripted.base, NULL));
}

ROW(test_read_until_close_with_error)
{
    open_scripted();
    memory_will_fail(&scripted, MEMORY_READ, EIO);
    read_until_close(rs);
    memory_ready(&scripted, EV_READ);
    expect(rs, "read-closed end:error/EIO");
}

ROW(test_inline_read_error)
{
    open_scripted();
    memory_will_fail(&scripted, MEMORY_READ, EBADF);
    read_bytes(rs, 1);
    memory_ready(&scripted, EV_READ);
    expect(rs, "read-closed end:error/EBADF");
}

/* The library logs nothing: that the callbacks tell it once is the C form. */
ROW(test_async_read_error_logging)
{
    open_scripted();
    memory_will(&scripted, MEMORY_READ, TRANSPORT_WANT_READ);
    memory_will_read(&scripted, "ab");
    memory_will_fail(&scripted, MEMORY_READ, EIO);
    read_bytes(rs, 3);
    memory_ready(&scripted, EV_READ);
    memory_ready(&scripted, EV_READ);
    run_quietly();
    expect_nothing(rs);
    memory_ready(&scripted, EV_READ);
    expect(rs, "read-closed end:error/EIO");
    assert_int_equal(rs->ends, 1);
}

/* ---- 10 writers, 1000 writes each, 5000 bytes a write ---- */

enum { WRITERS = 10, WRITES = 1000, WRITE_BYTES = 5000 };

struct writer {
    unsigned number, completed;
};

static unsigned turn; /* whose write completes next: they complete in order */

static void on_written(struct iostream *s, void *arg, int error)
{
    struct writer *w = arg;
    char bytes[WRITE_BYTES];
    assert_int_equal(error, 0);
    assert_int_equal(turn++ % WRITERS, w->number);
    if (++w->completed == WRITES)
        return;
    memset(bytes, (int)('a' + w->number), sizeof bytes);
    assert_int_equal(iostream_write(s, bytes, sizeof bytes, on_written, w), 0);
}

static void on_written_read(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    uint64_t *position = arg;
    if (status == READ_CLOSED)
        return;
    for (size_t i = 0; i < length; i++)
        assert_int_equal(data[i], 'a' + (*position + i) / WRITE_BYTES % WRITERS);
    *position += length;
    assert_int_equal(iostream_read_some(s, KIB(64), on_written_read, position), 0);
}

ROW(test_future_write)
{
    const uint64_t total = (uint64_t)WRITERS * WRITES * WRITE_BYTES;
    struct writer writers[WRITERS];
    uint64_t position = 0;
    char bytes[WRITE_BYTES];
    pair(0, (size_t)2 * WRITERS * WRITE_BYTES);
    turn = 0;
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){.number = i};
        memset(bytes, (int)('a' + i), sizeof bytes);
        assert_int_equal(iostream_write(ws->stream, bytes, sizeof bytes, on_written, &writers[i]), 0);
    }
    assert_int_equal(iostream_read_some(rs->stream, KIB(64), on_written_read, &position), 0);
    run_until(position == total);
    run_until(turn == WRITERS * WRITES);
    assert_int_equal(iostream_bytes_out(ws->stream), total);
}

/* ---- pipes ---- */

ROW(test_pipe_iostream)
{
    pair(0, 0);
    read_until(rs, "ld", 0);
    send_text(ws, "hel");
    send_text(ws, "lo world");
    expect(rs, "read:hello world");
    read_bytes(rs, 3);
    send_text(ws, "abcd");
    expect(rs, "read:abc");
    read_until_close(rs);
    send_text(ws, "efgh");
    leave(ws);
    expect(rs, "read:defgh");
}

ROW(test_pipe_iostream_big_write)
{
    enum { LENGTH = 1024 * 1024 };
    char *bytes = malloc(LENGTH);
    pattern(bytes, LENGTH, 0);
    pair(LENGTH, LENGTH);
    send_bytes(ws, bytes, LENGTH);
    assert_true(wire != PIPES || iostream_write_pending(ws->stream) > 0); /* a pipe does not hold it all */
    read_bytes(rs, LENGTH);
    expect_read(rs, bytes, LENGTH);
    free(bytes);
}

/* ---- addresses ---- */

ROW(test_is_valid_ip)
{
    static const struct {
        const char *text;
        bool valid;
    } cases[] = {
        {"127.0.0.1", true},
        {"4.4.4.4", true},
        {"[::1]", true},
        {"[2620:0:1cfe:face:b00c::3]", true},
        {"www.google.com", false},
        {"nobody", false},
        {"4.4.4.4<", false},
        {" 127.0.0.1", false},
        {"", false},
        {" ", false},
        {"\n", false},
        {"\001", false}, /* no NUL ends up in a string here */
    };
    char text[200], long_name[101];
    memset(long_name, 'a', 100);
    long_name[100] = '\0';
    for (size_t i = 0; i <= COUNT(cases); i++) {
        struct errbuf err;
        snprintf(text, sizeof text, "%s:80", i < COUNT(cases) ? cases[i].text : long_name);
        struct target *target = target_parse(text, &err);
        bool is_address = target && target->address.length > 0;
        assert_int_equal(is_address, i < COUNT(cases) && cases[i].valid);
        target_free(target);
    }
}

ROW(test_bad_host)
{
    struct errbuf err = {""};
    assert_null(target_parse("an invalid domain:80", &err));
    assert_string_equal(err.text, "target \"an invalid domain:80\": \"an invalid domain\" is no host name");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WIRE_TEST(test_read_until_close_with_error, MEMORY),
        WIRE_TEST(test_inline_read_error, MEMORY),
        WIRE_TEST(test_async_read_error_logging, MEMORY),
        EACH(test_future_write),
        EACH(test_pipe_iostream),
        EACH(test_pipe_iostream_big_write),
        LOOP_TEST(test_is_valid_ip),
        LOOP_TEST(test_bad_host),
    };
    return cmocka_run_group_tests_name("conformance_io", tests, NULL, forget_secrets);
}
