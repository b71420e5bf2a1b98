/* The server: how it stops, from inside any callback. */
#include <netinet/tcp.h>

#include "site.h"

/* ---- stopping ---- */

static void stop_ends_listening_and_nothing_else(void **state)
{
    (void)state;
    open_site(NULL);
    dial_and_serve(1);
    tcpserver_stop(site.server);
    assert_nobody_listens();
    write_text(site.parties[0], "still here");
    far_receive(site.parties[0], "still here");
    expect(site.parties[0], "wrote");
    for (int i = 0; i < 2; i++) { /* and again, as often as one likes */
        listen_on_any_port();
        dial_and_serve(1);
        tcpserver_stop(site.server);
        assert_nobody_listens();
    }
    assert_int_equal(tcpserver_connections(site.server), 3);
}

/* Tornado #1901: the second stop took away who had the descriptors' numbers by then. */
static void stop_twice_leaves_others_alone(void **state)
{
    (void)state;
    open_site(NULL);
    tcpserver_stop(site.server);
    struct party *p = meet_over(PIPES, 0);
    read_some(p, 10);
    tcpserver_stop(site.server);
    far_send(p, "alive");
    expect(p, "read:alive");
}

static void stop_closes_what_is_only_bound(void **state)
{
    (void)state;
    struct errbuf err;
    open_site_on(NULL, NULL);
    site.port = tcpserver_bind(site.server, "127.0.0.1", "0", NULL, &err);
    tcpserver_stop(site.server);
    assert_nobody_listens();
}

static void stop_in_handler(const char *callback)
{
    if (strcmp(callback, "handle") == 0)
        tcpserver_stop(site.server);
}

static void stop_while_many_wait(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.exhausted = exhausted});
    site.inside = stop_in_handler;
    dial_site(MANY);
    run_until(site.served > 0);
    run_quietly();
    assert_int_equal(site.served, 1);
    assert_string_equal(site.told, ""); /* no error of accept, either */
    char byte;
    for (int i = 1; i < MANY; i++)
        run_until(read(site.clients[i], &byte, 1) <= 0 && errno != EAGAIN);
}

static void drain_serves_who_has_come(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.max_connections = 2, .empty = empty});
    site.serve = watch;
    dial_site(20);
    run_until(site.served == 2);
    tcpserver_drain(site.server);
    assert_int_equal(site.served, 20);
    assert_nobody_listens();
    for (int i = 0; i < 20; i++) {
        assert_string_equal(site.told, "");
        hang_up(i);
    }
    expect_told("empty");
}

/* The handshake is over for who comes, but not for us before he says something. */
static void listen_for_who_speaks(void)
{
    struct errbuf err = {""};
    const int seconds = 10;
    int fd;
    assert_int_equal(bind_sockets("127.0.0.1", "0", NULL, &fd, 1, &err), 1);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof seconds), 0);
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    site.port = ntohs(address.sin_port);
    assert_int_equal(tcpserver_add_socket(site.server, fd, &err), 0);
}

static void drain_anew(const char *callback)
{
    if (strcmp(callback, "handle") != 0 || site.served > 1)
        return;
    tcpserver_stop(site.server);
    listen_for_who_speaks();
    dial_site(1);
    tcpserver_drain(site.server);
}

/* Whoever came to either is served: one does not cut the other's time short. */
static void drain_anew_inside_a_drain(void **state)
{
    (void)state;
    open_site(NULL);
    site.inside = drain_anew;
    dial_site(1);
    tcpserver_drain(site.server);
    assert_int_equal(site.served, 1);
    assert_true(tcpserver_listening(site.server));
    assert_int_equal(write(site.clients[1], "x", 1), 1);
    run_until(!tcpserver_listening(site.server));
    assert_int_equal(site.served, 2);
}

static int depth, deepest;

static int drain_always(struct party *p)
{
    (void)p;
    depth++;
    deepest = depth > deepest ? depth : deepest;
    tcpserver_drain(site.server);
    depth--;
    return 0;
}

/* Who has come may be many: no handler is called inside another's for each of them. */
static void drain_inside_every_callback(void **state)
{
    (void)state;
    depth = deepest = 0;
    open_site(NULL);
    site.serve = drain_always;
    dial_site(20);
    tcpserver_drain(site.server);
    run_until(!tcpserver_listening(site.server));
    assert_int_equal(site.served, 20);
    assert_int_equal(deepest, 1);
}

static void a_limit_outlives_a_drain(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.max_connections = 1});
    tcpserver_drain(site.server);
    listen_on_any_port();
    dial_site(3);
    run_quietly();
    assert_int_equal(site.served, 1);
}

static void abort_ends_every_stream(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.stream_closed = stream_closed});
    dial_and_serve(2);
    read_some(site.parties[1], 1);
    tcpserver_abort(site.server);
    expect(site.parties[0], "end:shutdown");
    expect(site.parties[1], "read-closed end:shutdown");
    expect_told("closed:2/shutdown closed:1/shutdown");
    far_receive_reset(site.parties[0]);
    far_receive_reset(site.parties[1]);
    dial_and_serve(1); /* it listens still */
}

/* The server's word for it comes first. */
static void note_the_end(const char *callback)
{
    if (strcmp(callback, "end") == 0)
        tell("end");
}

static void closing_is_told_to_the_server_first(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.stream_closed = stream_closed});
    site.serve = watch;
    site.inside = note_the_end;
    dial_and_serve(1);
    hang_up(0);
    expect_told("closed:1/reset end");
    assert_int_equal(tcpserver_connections(site.server), 0);
}

static void empty_is_told_when_nothing_is_left(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.empty = empty});
    site.serve = watch;
    dial_and_serve(2);
    hang_up(0);
    hang_up(1);
    run_quietly();
    assert_string_equal(site.told, ""); /* it listens */
    tcpserver_stop(site.server);
    assert_string_equal(site.told, ""); /* not inside the call */
    expect_told("empty");

    listen_on_any_port();
    dial_and_serve(1);
    tcpserver_stop(site.server);
    run_quietly();
    assert_string_equal(site.told, ""); /* there is a stream */
    hang_up(2);
    expect_told("empty");

    listen_on_any_port();
    tcpserver_stop(site.server);
    listen_on_any_port(); /* in the same turn */
    run_quietly();
    assert_string_equal(site.told, "");
}

/* ---- free: inside callbacks, see test_enders.c ---- */

static void free_ends_every_stream_without_the_server(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.stream_closed = stream_closed, .empty = empty});
    dial_and_serve(3);
    iostream_abort(site.parties[1]->stream, CLOSE_ERROR); /* on its way out already */
    tcpserver_free(site.server);
    site.server = NULL;
    expect(site.parties[0], "end:shutdown");
    expect(site.parties[1], "end:error");
    expect(site.parties[2], "end:shutdown");
    assert_nobody_listens();
    assert_string_equal(site.told, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(stop_ends_listening_and_nothing_else),
        SITE_TEST(stop_twice_leaves_others_alone),
        SITE_TEST(stop_closes_what_is_only_bound),
        SITE_TEST(stop_while_many_wait),
        SITE_TEST(drain_serves_who_has_come),
        SITE_TEST(drain_anew_inside_a_drain),
        SITE_TEST(drain_inside_every_callback),
        SITE_TEST(a_limit_outlives_a_drain),
        SITE_TEST(abort_ends_every_stream),
        SITE_TEST(closing_is_told_to_the_server_first),
        SITE_TEST(empty_is_told_when_nothing_is_left),
        SITE_TEST(free_ends_every_stream_without_the_server),
    };
    return cmocka_run_group_tests_name("tcpserver_stop", tests, NULL, NULL);
}
