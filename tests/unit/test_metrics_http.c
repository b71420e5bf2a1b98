/* How long a request at --metrics may take; tests/metrics.bats has the rest. */
#include <string.h>
#include <sys/socket.h>

#include "../../cmd/metrics_http.h"
#include "loop.h"
#include "valgrind.h"

static const double LIMIT = 0.5;
static struct board board; /* of a unix socket: any name will do */

static void on_empty(void *unused)
{
    (void)unused;
}

/* Connections are kept only while one listens: at a name that the kernel makes up. */
static struct metrics_http *serve(void)
{
    struct errbuf err = {""};
    const struct sockaddr any = {.sa_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(listener, &any, sizeof any.sa_family), 0);
    assert_int_equal(listen(listener, 1), 0);
    struct metrics_http *http = metrics_http_new(loop, &(struct metrics_source){.board = &board}, LIMIT, on_empty, NULL, &err);
    assert_string_equal(err.text, "");
    assert_int_equal(tcpserver_add_socket(metrics_http_server(http), listener, &err), 0);
    return http;
}

/* A client that has sent this already. */
static int join(struct metrics_http *http, const char *request)
{
    int fds[2], least = 1;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &least, sizeof least), 0);
    assert_int_equal(write(fds[0], request, strlen(request)), strlen(request));
    tcpserver_add_connection(metrics_http_server(http), fds[1]);
    return fds[0];
}

static bool is_closed(struct metrics_http *http)
{
    return tcpserver_connections(metrics_http_server(http)) == 0;
}

static double seconds_until_closed(struct metrics_http *http)
{
    double begin = ev_time();
    while (!is_closed(http))
        ev_run(loop, EVRUN_ONCE);
    return ev_time() - begin;
}

static void end(struct metrics_http *http, int fd)
{
    metrics_http_free(http);
    close(fd);
}

static void who_says_nothing_is_closed(void **state)
{
    (void)state;
    struct metrics_http *http = serve();
    int fd = join(http, "");
    assert_true(seconds_until_closed(http) > 0.9 * LIMIT);
    end(http, fd);
}

static void who_asks_for_ever_is_closed(void **state)
{
    (void)state;
    struct metrics_http *http = serve();
    int fd = join(http, "GET / HTTP/1.1\r\nHost: a\r\nA: ");
    double begin = ev_time();
    for (double next = begin; !is_closed(http); ev_run(loop, EVRUN_NOWAIT)) { /* slowly: less than a head may have */
        if (ev_time() >= next && send(fd, "b", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == 1)
            next += 0.01;
    }
    assert_true(ev_time() - begin > 0.9 * LIMIT);
    end(http, fd);
}

static void who_does_not_read_the_answer_is_closed(void **state)
{
    (void)state;
    struct metrics_http *http = serve();
    int fd = join(http, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); /* the page, which fits in no socket so small */
    assert_true(seconds_until_closed(http) > 0.9 * LIMIT);
    end(http, fd);
}

static void get_answer(int fd)
{
    char answer[4096];
    ssize_t n;
    while ((n = recv(fd, answer, sizeof answer, MSG_DONTWAIT)) < 0)
        ev_run(loop, EVRUN_ONCE);
    assert_true(n > 0);
}

/* Whoever asks again and again is not cut off. */
static void each_request_has_its_own_time(void **state)
{
    (void)state;
    static const char request[] = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    struct metrics_http *http = serve();
    int fd = join(http, request);
    get_answer(fd);
    for (double later = ev_time() + LIMIT / 4; ev_time() < later;) /* some of the first one's time has passed */
        ev_run(loop, EVRUN_NOWAIT);
    assert_int_equal(write(fd, request, strlen(request)), strlen(request));
    get_answer(fd);
    assert_true(seconds_until_closed(http) > 0.9 * LIMIT);
    end(http, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(who_says_nothing_is_closed),
        LOOP_TEST(who_asks_for_ever_is_closed),
        LOOP_TEST(who_does_not_read_the_answer_is_closed),
        LOOP_TEST(each_request_has_its_own_time),
    };
    limit_time(20);
    return cmocka_run_group_tests_name("metrics_http", tests, NULL, NULL);
}
