/* test_connect.c - from a target to a stream: addresses in turn, time limits, cancelling. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "loop.h"
#include "valgrind.h"

/* ---- places to connect to */

static int listen_on(const char *ip, unsigned port, int backlog)
{
    struct address a = inet(ip, port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &a.any, a.length), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

/* A port that nobody listens on and nobody gets, since it is bound. */
static int closed_port(unsigned *port)
{
    struct address a = inet("127.0.0.1", 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &a.any, a.length), 0);
    *port = port_of(fd);
    return fd;
}

/* An address that does not answer: the backlog is full, so the kernel drops every further SYN. */
struct black_hole {
    struct address address;
    int fds[3];
};

static void dig_black_hole(struct black_hole *hole)
{
    hole->fds[0] = listen_on("127.0.0.1", 0, 0);
    hole->address = inet("127.0.0.1", port_of(hole->fds[0]));
    for (size_t i = 1; i < COUNT(hole->fds); i++) {
        hole->fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(hole->fds[i], &hole->address.any, hole->address.length);
    }
    struct pollfd last = {.fd = hole->fds[COUNT(hole->fds) - 1], .events = POLLOUT};
    assert_int_equal(poll(&last, 1, 0), 0);
}

static void fill_black_hole(struct black_hole *hole)
{
    for (size_t i = 0; i < COUNT(hole->fds); i++)
        close(hole->fds[i]);
}

/* ---- one connect */

struct outcome {
    struct target *target;
    struct connecting *connecting;
    unsigned calls;
    struct iostream *stream;
    char why[sizeof(((struct errbuf *)0)->text)];
};

static void on_outcome(struct iostream *stream, void *arg, const char *why)
{
    struct outcome *r = arg;
    r->calls++;
    r->stream = stream;
    assert_true(!stream != !why);
    snprintf(r->why, sizeof r->why, "%s", why ? why : "");
}

__attribute__((format(printf, 3, 4))) static void begin(struct outcome *r, double timeout_seconds, const char *format, ...)
{
    struct errbuf err = {""};
    const struct connect_options options = {.timeout_seconds = timeout_seconds};
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);

    *r = (struct outcome){.target = target_parse(text, &err)};
    assert_string_equal(err.text, "");
    r->connecting = iostream_connect(loop, r->target, &options, on_outcome, r);
    assert_non_null(r->connecting);
    assert_int_equal(r->calls, 0); /* never inside the call */
}

static void begin_list(struct outcome *r, double timeout_seconds, const struct address *addresses, size_t count)
{
    const struct connect_options options = {.timeout_seconds = timeout_seconds};
    struct address_list *list = malloc(sizeof *list + count * sizeof *addresses);
    list->count = count;
    memcpy(list->items, addresses, count * sizeof *addresses);
    *r = (struct outcome){.calls = 0};
    r->connecting = connect_addresses(loop, list, &options, on_outcome, r);
    assert_non_null(r->connecting);
    assert_int_equal(r->calls, 0);
}

static void wait_for(struct outcome *r)
{
    while (r->calls == 0)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(r->calls, 1);
}

static void end(struct outcome *r)
{
    if (r->stream)
        iostream_abort(r->stream, CLOSE_FINISHED);
    target_free(r->target);
}

__attribute__((format(printf, 2, 3))) static void assert_failed(struct outcome *r, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assert_null(r->stream);
    assert_string_equal(r->why, text);
    end(r);
}

/* The stream is joined with what `listener` accepts. */
static void assert_connected(struct outcome *r, int listener)
{
    char byte = 0;
    assert_string_equal(r->why, "");
    assert_non_null(r->stream);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(iostream_write(r->stream, "!", 1, NULL, NULL), 0);
    assert_int_equal(read(fd, &byte, 1), 1);
    assert_int_equal(byte, '!');
    close(fd);
    end(r);
}

/* ---- addresses that are known */

static void test_connects(void **state)
{
    (void)state;
    struct outcome r;
    int listener = listen_on("127.0.0.1", 0, 5);
    begin(&r, 0, "127.0.0.1:%u", port_of(listener));
    wait_for(&r);

    int fd = r.stream->transport->write_fd, on = 0;
    socklen_t length = sizeof on;
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &length), 0);
    assert_true(on);
    assert_int_equal(address_port(iostream_peer(r.stream, &length)), port_of(listener));
    assert_connected(&r, listener);
    close(listener);
}

static void test_refused(void **state)
{
    (void)state;
    struct outcome r;
    unsigned port;
    int fd = closed_port(&port);
    begin(&r, 0, "127.0.0.1:%u", port);
    wait_for(&r);
    assert_failed(&r, "connect to 127.0.0.1:%u: Connection refused", port);
    close(fd);
}

static void test_no_descriptors(void **state)
{
    (void)state;
    struct outcome r;
    struct rlimit limit, none_left;
    ev_run(loop, EVRUN_NOWAIT); /* libev opens what it needs */
    int next = dup(0);
    close(next);
    getrlimit(RLIMIT_NOFILE, &limit);
    none_left = limit;
    none_left.rlim_cur = (rlim_t)next;
    setrlimit(RLIMIT_NOFILE, &none_left);
    begin(&r, 0, "127.0.0.1:1");
    wait_for(&r);
    setrlimit(RLIMIT_NOFILE, &limit);
    assert_failed(&r, "connect to 127.0.0.1:1: Too many open files");
}

static void test_time_limit(void **state)
{
    (void)state;
    struct outcome r;
    struct black_hole hole;
    dig_black_hole(&hole);
    unsigned port = address_port(&hole.address.any);
    begin(&r, 0.05, "127.0.0.1:%u", port);
    wait_for(&r);
    assert_failed(&r, "connect to 127.0.0.1:%u: timed out after 0.05 s", port);
    fill_black_hole(&hole);
}

/* ---- unix sockets */

/* A target of nobody else's, even with this test running twice. */
static const char *abstract_path(void)
{
    static char path[64];
    snprintf(path, sizeof path, "unix:@test_connect.%d", (int)getpid());
    return path;
}

static int listen_unix(const char *path, int backlog)
{
    struct errbuf err;
    struct target *t = target_parse(path, &err);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &t->address.any, t->address.length), 0);
    assert_int_equal(listen(fd, backlog), 0);
    target_free(t);
    return fd;
}

static void test_unix(void **state)
{
    (void)state;
    struct outcome r;
    char directory[] = "/tmp/test_connect.XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "unix:%s/socket", directory);

    begin(&r, 0, "%s", path);
    wait_for(&r);
    assert_failed(&r, "connect to %s: No such file or directory", path);

    int listener = listen_unix(path, 5);
    begin(&r, 0, "%s", path);
    wait_for(&r);
    assert_connected(&r, listener);
    close(listener);

    begin(&r, 0, "%s", path);
    wait_for(&r);
    assert_failed(&r, "connect to %s: Connection refused", path);
    unlink(path + strlen("unix:"));
    rmdir(directory);
}

/* A full backlog: connect says EAGAIN, and nothing will announce a free place. */
static void test_unix_backlog(void **state)
{
    (void)state;
    struct outcome first, second, third;
    const char *path = abstract_path();
    int listener = listen_unix(path, 0);
    begin(&first, 0, "%s", path);
    wait_for(&first);

    begin(&third, 0.05, "%s", path);
    wait_for(&third);
    assert_failed(&third, "connect to %s: timed out after 0.05 s", path);

    begin(&second, 0, "%s", path);
    ev_run(loop, EVRUN_ONCE); /* a retry or more have failed */
    ev_run(loop, EVRUN_ONCE);
    assert_int_equal(second.calls, 0);
    assert_connected(&first, listener);
    wait_for(&second);
    assert_connected(&second, listener);
    close(listener);
}

/* ---- several addresses */

static void test_next_address_at_once(void **state)
{
    (void)state;
    struct outcome r;
    int listener = listen_on("127.0.0.2", 0, 5);
    struct address many[40];
    for (size_t i = 0; i < COUNT(many); i++)
        many[i] = inet("127.0.0.1", port_of(listener));
    many[COUNT(many) - 1] = inet("127.0.0.2", port_of(listener));
    ev_tstamp start = ev_time();
    begin_list(&r, 0, many, COUNT(many));
    wait_for(&r);
    assert_true(ev_time() - start < 5); /* it would be 10 s if each had to wait */
    assert_connected(&r, listener);
    close(listener);
}

static void test_next_address_after_a_while(void **state)
{
    (void)state;
    struct outcome r;
    struct black_hole hole;
    dig_black_hole(&hole);
    int listener = listen_on("127.0.0.2", 0, 5);
    const struct address both[] = {hole.address, inet("127.0.0.2", port_of(listener))};
    ev_tstamp start = ev_time();
    begin_list(&r, 0, both, 2);
    wait_for(&r);
    ev_tstamp seconds = ev_time() - start;
    assert_true(seconds > 0.2 && seconds < 5); /* it waits 0.25 s for the first, not until that has failed */
    assert_connected(&r, listener);
    close(listener);
    fill_black_hole(&hole);
}

/* The first address gets through after all, while the second is being tried: that one is dropped. */
static void test_slow_first_address_wins(void **state)
{
    (void)state;
    struct outcome first, r;
    struct black_hole hole;
    struct errbuf err;
    const char *slow = abstract_path();
    int listener = listen_unix(slow, 0);
    struct target *target = target_parse(slow, &err);
    begin(&first, 0, "%s", slow); /* takes the only place */
    wait_for(&first);
    dig_black_hole(&hole);
    const struct address both[] = {target->address, hole.address};
    target_free(target);

    ev_tstamp start = ev_time();
    begin_list(&r, 0, both, 2);
    while (ev_now(loop) < start + 0.3)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(r.calls, 0);
    assert_connected(&first, listener);
    wait_for(&r);
    assert_connected(&r, listener);
    close(listener);
    fill_black_hole(&hole);
}

/* The last address has failed, but an earlier one may answer still. */
static void test_failure_waits_for_the_others(void **state)
{
    (void)state;
    struct outcome r;
    struct black_hole hole;
    unsigned port;
    int fd = closed_port(&port);
    dig_black_hole(&hole);
    const struct address both[] = {hole.address, inet("127.0.0.1", port)};
    begin_list(&r, 0.4, both, 2);
    wait_for(&r);
    assert_failed(&r, "connect to 127.0.0.1:%u: timed out after 0.4 s", address_port(&hole.address.any));
    fill_black_hole(&hole);
    close(fd);
}

static void test_most_telling_error(void **state)
{
    (void)state;
    struct outcome r;
    unsigned port;
    int fd = closed_port(&port);
    const struct address no_such_family = {.length = sizeof(struct sockaddr), .any = {.sa_family = AF_ROSE}};
    const struct address around[] = {no_such_family, inet("127.0.0.1", port), no_such_family};
    begin_list(&r, 0, around, 3);
    wait_for(&r);
    assert_failed(&r, "connect to 127.0.0.1:%u: Connection refused", port);
    close(fd);
}

/* ---- a name */

static void test_localhost(void **state)
{
    (void)state;
    struct outcome r;
    int listener = listen_on("127.0.0.1", 0, 5); /* not on ::1, which localhost may be as well */
    begin(&r, 0, "localhost:%u", port_of(listener));
    wait_for(&r);
    assert_connected(&r, listener);
    close(listener);

    unsigned port;
    int fd = closed_port(&port);
    begin(&r, 0, "localhost:%u", port);
    wait_for(&r);
    char expected[64];
    snprintf(expected, sizeof expected, "connect to localhost:%u (", port);
    assert_memory_equal(r.why, expected, strlen(expected));
    assert_non_null(strstr(r.why, "): Connection refused"));
    end(&r);
    close(fd);
}

/* ---- cancelling */

static void test_cancel_at_once(void **state)
{
    (void)state;
    static const char *const texts[] = {"127.0.0.1:1", "unix:/no/such/socket", "localhost:1"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        struct outcome r;
        begin(&r, 0, "%s", texts[i]);
        connect_cancel(r.connecting);
        ev_run(loop, EVRUN_NOWAIT);
        assert_int_equal(r.calls, 0);
        end(&r);
    }
}

static void test_cancel_while_connecting(void **state)
{
    (void)state;
    struct black_hole one, two;
    dig_black_hole(&one);
    dig_black_hole(&two);
    const struct address both[] = {one.address, two.address};
    for (int started = 1; started <= 2; started++) {
        struct outcome r;
        begin_list(&r, 0, both, 2);
        if (started == 2)
            ev_run(loop, EVRUN_ONCE); /* until there is time for the second */
        assert_int_equal(r.calls, 0);
        connect_cancel(r.connecting);
    }
    fill_black_hole(&two);
    fill_black_hole(&one);
}

struct rival {
    struct outcome *other;
    unsigned calls;
    struct iostream *stream;
};

static void on_rival(struct iostream *stream, void *arg, const char *why)
{
    (void)why;
    struct rival *rival = arg;
    rival->calls++;
    rival->stream = stream;
    connect_cancel(rival->other->connecting);
}

/* Both outcomes are known in the same turn of the loop; the callback of the first cancels the second. */
static void test_cancel_from_a_callback(void **state)
{
    (void)state;
    struct errbuf err;
    struct outcome r;
    struct rival rival = {.other = &r};
    const char *path = abstract_path();
    int listener = listen_unix(path, 5);
    struct target *target = target_parse(path, &err);
    assert_non_null(iostream_connect(loop, target, NULL, on_rival, &rival));
    begin(&r, 0, "%s", path);
    while (rival.calls == 0)
        ev_run(loop, EVRUN_ONCE);
    ev_run(loop, EVRUN_NOWAIT);
    assert_int_equal(r.calls, 0);
    iostream_abort(rival.stream, CLOSE_FINISHED);
    end(&r);
    target_free(target);
    close(listener);
}

static void on_outcome_cancel(struct iostream *stream, void *arg, const char *why)
{
    struct outcome *r = arg;
    connect_cancel(r->connecting);
    on_outcome(stream, r, why); /* who reads what is told to it still */
}

/* There is nothing to cancel any more, which is no reason to fall over. */
static void test_cancel_inside_its_own_callback(void **state)
{
    (void)state;
    const char *path = abstract_path();
    int listener = listen_unix(path, 5);
    for (int listening = 1; listening >= 0; listening--) {
        struct outcome r = {.target = target_parse(path, &(struct errbuf){""})};
        r.connecting = iostream_connect(loop, r.target, NULL, on_outcome_cancel, &r);
        wait_for(&r);
        assert_int_equal(!r.stream, !listening);
        assert_int_equal(!strstr(r.why, "refused"), listening);
        if (listening)
            close(listener);
        end(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_connects),
        LOOP_TEST(test_refused),
        LOOP_TEST(test_no_descriptors),
        LOOP_TEST(test_time_limit),
        LOOP_TEST(test_unix),
        LOOP_TEST(test_unix_backlog),
        LOOP_TEST(test_next_address_at_once),
        LOOP_TEST(test_next_address_after_a_while),
        LOOP_TEST(test_slow_first_address_wins),
        LOOP_TEST(test_failure_waits_for_the_others),
        LOOP_TEST(test_most_telling_error),
        LOOP_TEST(test_localhost),
        LOOP_TEST(test_cancel_at_once),
        LOOP_TEST(test_cancel_while_connecting),
        LOOP_TEST(test_cancel_from_a_callback),
        LOOP_TEST(test_cancel_inside_its_own_callback),
    };
    limit_time(30);
    return cmocka_run_group_tests_name("connect", tests, NULL, NULL);
}
