/* What a stream writes, and what is known of it. What it reads is in test_iostream_read.c, how it ends in test_iostream_end.c, and what may be
 * called inside its callbacks in test_iostream_inside.c. */
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
