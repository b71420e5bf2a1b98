/* The server: whom it lets in, and whom it makes wait. */
#include <arpa/inet.h>
#include <fcntl.h>

#include "site.h"

/* ---- whom it lets in ---- */

static void who_is_refused_is_never_seen(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.refuse = refuse, .stream_closed = stream_closed});
    site.refusing = true;
    dial_site(1);
    expect_told("refuse:127.0.0.1");
    char byte;
    run_until(read(site.clients[0], &byte, 1) == 0);
    assert_int_equal(site.served, 0);
    assert_int_equal(tcpserver_connections(site.server), 0);
    close(site.clients[0]);
    site.dialled = 0;
    site.refusing = false;
    dial_and_serve(1);
    expect_told("refuse:127.0.0.1");
    assert_int_equal(iostream_id(site.parties[0]->stream), 1);
}

/* Both ends of a connection that was accepted elsewhere. */
static int accepted_elsewhere(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    site.clients[site.dialled++] = fds[1];
    fcntl(fds[1], F_SETFD, FD_CLOEXEC);
    return fds[0];
}

static void connections_can_be_added(void **state)
{
    (void)state;
    open_site_on(loop, &(struct tcpserver_options){.stream_closed = stream_closed, .empty = empty});
    int fd = accepted_elsewhere();
    fcntl(fd, F_SETFL, 0);
    tcpserver_add_connection(site.server, fd);
    assert_int_equal(site.served, 1);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    write_text(site.parties[0], "hello");
    far_receive(site.parties[0], "hello");
    expect(site.parties[0], "wrote");
    iostream_abort(site.parties[0]->stream, CLOSE_SHUTDOWN);
    expect(site.parties[0], "end:shutdown");
    expect_told("closed:1/shutdown empty");
}

static void an_added_connection_can_be_refused(void **state)
{
    (void)state;
    open_site_on(loop, &(struct tcpserver_options){.refuse = refuse, .empty = empty});
    site.refusing = true;
    tcpserver_add_connection(site.server, accepted_elsewhere());
    expect_told("refuse: empty");
    assert_int_equal(site.served, 0);
}

static void at_the_limit_clients_wait(void **state)
{
    (void)state;
    struct errbuf err = {""};
    open_site(&(struct tcpserver_options){.max_connections = 2});
    site.serve = watch;
    dial_site(5);
    run_until(site.served == 2);
    run_quietly();
    assert_int_equal(site.served, 2);
    hang_up(1);
    run_until(site.served == 3);
    site.port = tcpserver_listen(site.server, "127.0.0.1", "0", NULL, &err); /* rests as well */
    run_quietly();
    assert_int_equal(site.served, 3);
    hang_up(0);
    hang_up(2);
    run_until(site.served == 5);
    hang_up(3);
    dial_and_serve(1);
    assert_int_equal(site.most, 2);
}

static void shared_limits_hold(void **state)
{
    (void)state;
    struct errbuf err = {""};
    struct shared *shared = shared_new(&(struct shared_options){.processes = 2, .max_connections = 3, .max_per_ip = 2}, &err);
    open_site(&(struct tcpserver_options){.shared = shared, .refused = refused});
    site.serve = watch;
    dial_and_serve(2);
    dial_site(1);
    expect_told("refused:127.0.0.1:limit");
    assert_int_equal(shared_connections(shared), 2);
    assert_true(shared_take_place(shared, 1, false));
    dial_site(1);
    run_quietly();
    expect_told(""); /* nobody is accepted, so nobody is refused */
    shared_give_place(shared, 1, true);
    expect_told("refused:127.0.0.1:limit"); /* the other process woke us */
    assert_int_equal(shared_count(shared, -1, (enum shared_count)(COUNT_REJECTS + REJECT_LIMIT)), 2);
    assert_int_equal(shared_count(shared, -1, COUNT_ACCEPTS), 2);
    hang_up(0);
    run_until(shared_connections(shared) == 1);
    assert_int_equal(shared_count(shared, 0, COUNT_IN_ORDER), 0); /* it was a reset */
    tcpserver_free(site.server);
    site.server = NULL;
    assert_int_equal(shared_connections(shared), 0);
    dismiss_all();
    shared_free(shared);
}

static void accepts_are_as_many_as_wanted_and_wait_for_their_turn(void **state)
{
    (void)state;
    struct errbuf err = {""};
    struct shared *shared = shared_new(&(struct shared_options){.processes = 1, .max_accepts = 3, .max_rate = 2}, &err);
    open_site(&(struct tcpserver_options){.shared = shared});
    site.serve = watch;
    dial_site(5);
    double start = seconds_now();
    run_until(site.served == 2);
    run_until(site.served == 3);
    assert_true(seconds_now() - start >= 0.9);
    run_quietly();
    assert_int_equal(site.served, 3);
    tcpserver_free(site.server);
    site.server = NULL;
    dismiss_all();
    shared_free(shared);
}

static int do_nothing(struct party *p)
{
    (void)p;
    return 0;
}

static void streams_get_the_servers_time_limits(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.timers = {[TIMER_IDLE] = 60, [TIMER_LIFETIME] = 100}});
    site.serve = do_nothing;
    dial_and_serve(1);
    pass(61);
    expect(site.parties[0], "end:timeout");
}

static void addresses_are_counted(void **state)
{
    (void)state;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, there = here;
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};
    there.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr);
    open_site(&(struct tcpserver_options){.count_addresses = true});
    site.serve = watch;
    for (unsigned i = 0; i <= 3; i++) {
        assert_int_equal(tcpserver_connections_from(site.server, (struct sockaddr *)&here), i);
        if (i < 3)
            dial_and_serve(1);
    }
    assert_int_equal(tcpserver_connections_from(site.server, (struct sockaddr *)&mapped), 3);
    assert_int_equal(tcpserver_connections_from(site.server, (struct sockaddr *)&there), 0);
    hang_up(0);
    assert_int_equal(tcpserver_connections_from(site.server, (struct sockaddr *)&here), 2);
}

static void without_descriptors_clients_wait(void **state)
{
    (void)state;
    struct rlimit before;
    if (is_on_valgrind()) /* it accepts them, and then says EMFILE */
        skip();
    open_site(&(struct tcpserver_options){.exhausted = exhausted});
    dial_site(3);
    limit_descriptors_to_what_is_open(&before);
    expect_told("exhausted:EMFILE");
    for (int i = 0; i < 10; i++)
        pass(1); /* it tries again, and says no more of it */
    assert_string_equal(site.told, "");
    assert_int_equal(site.served, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    pass(2);
    run_until(site.served == 3);
}

static int fail_for_want_of_descriptors(struct party *p)
{
    (void)p;
    errno = EMFILE;
    return site.served <= 1 ? -1 : 0;
}

/* The handler needs some itself. */
static void a_handler_without_descriptors_makes_clients_wait(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.exhausted = exhausted});
    site.serve = fail_for_want_of_descriptors;
    dial_site(3);
    expect_told("exhausted:EMFILE");
    expect(site.parties[0], "end:error/EMFILE");
    run_quietly();
    assert_int_equal(site.served, 1);
    pass(2);
    run_until(site.served == 3);
    assert_string_equal(site.told, "");
}

static int tries, tries_in_vain;

static void try_to_serve(struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &tries);
    if (++tries <= tries_in_vain)
        iostream_try_again(s, EMFILE, try_to_serve, arg);
}

static int serve_when_possible(struct party *p)
{
    try_to_serve(p->stream, &tries);
    return 0;
}

static void open_short_site(int in_vain)
{
    tries = 0;
    tries_in_vain = in_vain;
    site.serve = serve_when_possible;
    open_site(&(struct tcpserver_options){.exhausted = exhausted});
}

/* It is told once, the client keeps its place, and nobody overtakes it. */
static void a_client_waits_for_what_its_handler_needs(void **state)
{
    (void)state;
    open_short_site(3);
    dial_site(3);
    expect_told("exhausted:EMFILE");
    for (int i = 1; i <= tries_in_vain; i++) {
        assert_int_equal(tries, i);
        assert_int_equal(site.served, 1);
        pass(1);
    }
    run_until(site.served == 3);
    assert_int_equal(tries, tries_in_vain + 3);
    expect(site.parties[0], "");
    assert_string_equal(site.told, "");
}

static void it_is_tried_when_another_one_has_ended(void **state)
{
    (void)state;
    open_short_site(0);
    dial_and_serve(1);
    tries_in_vain = 1000;
    dial_site(1);
    expect_told("exhausted:EMFILE");
    for (int i = 0; i < 10; i++)
        pass(1);
    int before = tries;
    tries_in_vain = 0;
    iostream_abort(site.parties[0]->stream, CLOSE_FINISHED);
    expect(site.parties[0], "end:finished");
    run_quietly();
    assert_int_equal(tries, before + 1);
    expect(site.parties[1], "");
}

static void one_that_waits_can_end(void **state)
{
    (void)state;
    open_short_site(1);
    dial_site(2);
    expect_told("exhausted:EMFILE");
    iostream_abort(site.parties[0]->stream, CLOSE_ERROR);
    expect(site.parties[0], "end:error");
    pass(1);
    run_until(site.served == 2);
    assert_int_equal(tries, 2); /* the other one's */
}

/* What it waits for is not to come. */
static void without_its_server_it_ends(void **state)
{
    (void)state;
    open_short_site(1000);
    dial_site(1);
    expect_told("exhausted:EMFILE");
    tcpserver_free(site.server);
    site.server = NULL;
    expect(site.parties[0], "end:shutdown");
    pass(1);
    assert_int_equal(tries, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(who_is_refused_is_never_seen),
        SITE_TEST(connections_can_be_added),
        SITE_TEST(an_added_connection_can_be_refused),
        SITE_TEST(at_the_limit_clients_wait),
        SITE_TEST(shared_limits_hold),
        SITE_TEST(accepts_are_as_many_as_wanted_and_wait_for_their_turn),
        SITE_TEST(streams_get_the_servers_time_limits),
        SITE_TEST(addresses_are_counted),
        SITE_TEST(without_descriptors_clients_wait),
        SITE_TEST(a_handler_without_descriptors_makes_clients_wait),
        SITE_TEST(a_client_waits_for_what_its_handler_needs),
        SITE_TEST(it_is_tried_when_another_one_has_ended),
        SITE_TEST(one_that_waits_can_end),
        SITE_TEST(without_its_server_it_ends),
    };
    return cmocka_run_group_tests_name("tcpserver_admit", tests, NULL, NULL);
}
