/* add_accept_handler: its bursts, what ends them, and how it gets over a shortage.
 *
 * The listeners are unix sockets, where a connection is in the backlog as soon as connect returns: each turn of the loop is exact. */
#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/hark.h"
#include "valgrind.h"

enum { MANY = 64, SAFETY_SECONDS = 120, MAX_QUIET_TURNS = 50 }; /* a loop that spins makes thousands */

static struct fixture {
    struct ev_loop *loop;
    struct accept_handler *handler;
    int listener;
    int accepted[MANY], clients[MANY];
    int accepted_count, client_count;
    socklen_t last_length;
    int told_count, told_error;
    void (*in_callback)(void), (*in_exhausted)(void);
} f;

/* ---- accept4, counted, and made to fail ---- */

static int calls, calls_to_fail, error_of_calls;

int __real_accept4(int, struct sockaddr *, socklen_t *, int);
int __wrap_accept4(int, struct sockaddr *, socklen_t *, int);
int __wrap_accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    calls++;
    if (calls_to_fail > 0) {
        calls_to_fail--;
        errno = error_of_calls;
        return -1;
    }
    return __real_accept4(fd, address, length, flags);
}

static void fail_calls(int count, int error)
{
    calls_to_fail = count;
    error_of_calls = error;
}

/* ---- the fixture ---- */

static void on_accept(void *arg, int fd, const struct sockaddr *address, socklen_t length)
{
    assert_ptr_equal(arg, &f);
    assert_true(f.accepted_count < MANY);
    assert_int_equal(address->sa_family, AF_UNIX);
    f.accepted[f.accepted_count++] = fd;
    f.last_length = length;
    if (f.in_callback)
        f.in_callback();
}

static void on_exhausted(void *arg, int error)
{
    assert_ptr_equal(arg, &f);
    f.told_count++;
    f.told_error = error;
    if (f.in_exhausted)
        f.in_exhausted();
}

static struct accept_handler *add_handler(int fd)
{
    struct errbuf err;
    struct accept_handler *handler = add_accept_handler(f.loop, fd, on_accept, on_exhausted, &f, &err);
    assert_non_null(handler);
    return handler;
}

static int new_listener(void)
{
    struct sockaddr_un any = {.sun_family = AF_UNIX}; /* no name: the kernel finds an abstract one */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(fd, MANY), 0);
    return fd;
}

static int setup(void **state)
{
    (void)state;
    limit_time(SAFETY_SECONDS);
    memset(&f, 0, sizeof f);
    calls = calls_to_fail = 0;
    f.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    f.listener = new_listener();
    f.handler = add_handler(f.listener);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (f.handler)
        remove_accept_handler(f.handler);
    for (int i = 0; i < f.accepted_count; i++)
        close(f.accepted[i]);
    for (int i = 0; i < f.client_count; i++)
        close(f.clients[i]);
    close(f.listener);
    ev_loop_destroy(f.loop);
    return 0;
}

static void connect_clients(int count)
{
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(f.listener, (struct sockaddr *)&address, &length), 0);
    while (count-- > 0) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (struct sockaddr *)&address, length), 0);
        f.clients[f.client_count++] = fd;
    }
}

static void turn(void)
{
    ev_run(f.loop, EVRUN_NOWAIT);
}

static void on_end(struct ev_loop *loop, ev_timer *timer, int revents)
{
    (void)timer, (void)revents;
    ev_break(loop, EVBREAK_ALL);
}

static void run_for(double seconds)
{
    ev_timer end;
    ev_now_update(f.loop);
    ev_timer_init(&end, on_end, seconds, 0);
    ev_timer_start(f.loop, &end);
    ev_run(f.loop, 0);
    ev_timer_stop(f.loop, &end);
}

static void remove_handler(void)
{
    remove_accept_handler(f.handler);
    f.handler = NULL;
}

static void pause_handler(void)
{
    accept_handler_pause(f.handler, true);
}

/* ---- bursts ---- */

static void test_lone_connection_costs_one_call(void **state)
{
    (void)state;
    for (int i = 1; i <= 5; i++) {
        connect_clients(1);
        turn();
        turn(); /* a server that serves it has other things to do by now */
        assert_int_equal(f.accepted_count, i);
        assert_int_equal(calls, i);
    }
}

static void test_storm_is_drained_in_growing_bursts(void **state)
{
    (void)state;
    static const int after_turn[] = {1, 3, 7, 15, 31, 47, 50};
    connect_clients(50);
    for (size_t i = 0; i < sizeof after_turn / sizeof *after_turn; i++) {
        turn();
        assert_int_equal(f.accepted_count, after_turn[i]);
    }
    assert_int_equal(calls, 50 + 1); /* only the last burst met the end of the queue */
    turn();

    connect_clients(2);
    turn();
    assert_int_equal(f.accepted_count, 51); /* after a quiet turn from one again */
    turn();
    assert_int_equal(f.accepted_count, 52);
}

static void test_burst_shrinks_to_what_was_there(void **state)
{
    (void)state;
    static const int after_turn[] = {1, 3, 7, 10};
    connect_clients(10);
    for (size_t i = 0; i < sizeof after_turn / sizeof *after_turn; i++) {
        turn();
        assert_int_equal(f.accepted_count, after_turn[i]);
    }
    connect_clients(10); /* the last of those bursts found 3 where 8 were allowed */
    turn();
    assert_int_equal(f.accepted_count, 13);
    turn();
    assert_int_equal(f.accepted_count, 19);
}

static void test_wake_up_that_finds_nothing(void **state)
{
    (void)state;
    connect_clients(1);
    fail_calls(1, EAGAIN); /* another process was faster */
    turn();
    assert_int_equal(f.accepted_count, 0);
    turn();
    assert_int_equal(f.accepted_count, 1);
}

static void test_callback_never_runs_inside_add(void **state)
{
    (void)state;
    remove_handler();
    connect_clients(1);
    f.handler = add_handler(f.listener);
    assert_int_equal(f.accepted_count, 0);
    turn();
    assert_int_equal(f.accepted_count, 1);
    assert_int_equal(f.last_length, sizeof(sa_family_t)); /* the peer has no name */
}

static void test_flags_of_accepted_sockets(void **state)
{
    (void)state;
    for (int blocking = 0; blocking < 2; blocking++) {
        accept_handler_blocking(f.handler, blocking);
        connect_clients(1);
        turn();
        int fd = f.accepted[blocking];
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, blocking ? 0 : O_NONBLOCK);
    }
}

static void test_only_listening_sockets(void **state)
{
    (void)state;
    struct errbuf err;
    int closed = dup(f.listener), unbound = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    close(closed);
    closed = closed == unbound ? unbound + 1 : closed;
    assert_null(add_accept_handler(f.loop, unbound, on_accept, NULL, &f, &err));
    assert_non_null(strstr(err.text, "it is not a listening socket"));
    assert_null(add_accept_handler(f.loop, closed, on_accept, NULL, &f, &err));
    assert_non_null(strstr(err.text, "Bad file descriptor"));
    assert_null(add_accept_handler(f.loop, STDIN_FILENO, on_accept, NULL, &f, &err));
    close(unbound);
}

/* ---- calls inside the callback ---- */

static void test_remove_inside_callback_stops_the_burst(void **state)
{
    (void)state;
    connect_clients(10);
    turn();
    assert_int_equal(f.accepted_count, 1);
    f.in_callback = remove_handler; /* by the first of two */
    turn();
    turn();
    assert_int_equal(f.accepted_count, 2);
    assert_int_equal(calls, 2);
    int next = accept(f.listener, NULL, NULL); /* open, and the others wait in it */
    assert_true(next >= 0);
    close(next);
}

static void remove_and_close(void)
{
    remove_handler();
    close(f.listener);
    f.listener = -1;
}

static void test_descriptor_may_be_closed_after_remove(void **state)
{
    (void)state;
    int old = f.listener;
    connect_clients(3);
    f.in_callback = remove_and_close;
    turn();
    assert_int_equal(f.accepted_count, 1);

    f.in_callback = NULL;
    f.listener = new_listener();
    assert_int_equal(f.listener, old); /* a watcher keyed by number would now be the wrong one's */
    f.handler = add_handler(f.listener);
    connect_clients(1);
    turn();
    assert_int_equal(f.accepted_count, 2);
}

static void test_pause_inside_callback_stops_the_burst(void **state)
{
    (void)state;
    connect_clients(10);
    turn();
    f.in_callback = pause_handler;
    turn();
    turn();
    assert_int_equal(f.accepted_count, 2);
    assert_int_equal(calls, 2);

    f.in_callback = NULL;
    accept_handler_pause(f.handler, true);
    accept_handler_pause(f.handler, false);
    accept_handler_pause(f.handler, false);
    for (int i = 0; i < 5; i++)
        turn();
    assert_int_equal(f.accepted_count, 10);
}

static void test_drain_takes_all_even_while_paused(void **state)
{
    (void)state;
    accept_handler_pause(f.handler, true);
    connect_clients(40);
    turn();
    assert_int_equal(f.accepted_count, 0);
    accept_handler_drain(f.handler);
    assert_int_equal(f.accepted_count, 40);
    connect_clients(1);
    unsigned turns = ev_iteration(f.loop);
    run_for(0.05);
    assert_int_equal(f.accepted_count, 40); /* still paused */
    assert_in_range(ev_iteration(f.loop) - turns, 1, MAX_QUIET_TURNS);
}

static void drain_and_remove(void)
{
    f.in_callback = NULL;
    accept_handler_drain(f.handler);
    f.in_callback = remove_handler;
}

static void test_drain_and_remove_inside_callbacks(void **state)
{
    (void)state;
    connect_clients(5);
    f.in_callback = drain_and_remove;
    turn();
    assert_int_equal(f.accepted_count, 5);
    connect_clients(5);
    accept_handler_drain(f.handler);
    assert_int_equal(f.accepted_count, 6);
    assert_null(f.handler);
}

/* ---- errors ---- */

static void test_errors_of_one_connection_are_passed_over(void **state)
{
    (void)state;
    static const int errors[] = {ECONNABORTED, EINTR,       EPERM,  EPROTO,    ENOPROTOOPT,  EOPNOTSUPP,
                                 ENETDOWN,     ENETUNREACH, ENONET, EHOSTDOWN, EHOSTUNREACH, ETIMEDOUT};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        fail_calls(1, errors[i]);
        connect_clients(1);
        turn();
        turn();
        turn();
        assert_int_equal(f.accepted_count, i + 1);
    }
    assert_int_equal(f.told_count, 0);
}

static void test_shortage_rests_and_is_told_once(void **state)
{
    (void)state;
    static const int errors[] = {EMFILE, ENFILE, ENOBUFS, ENOMEM, EBADF, EINVAL};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        fail_calls(2, errors[i]);
        calls = 0;
        connect_clients(1);
        while (f.accepted_count < (int)i + 1)
            ev_run(f.loop, EVRUN_ONCE);
        assert_int_equal(calls, 3); /* the event, and two rests later */
        assert_int_equal(f.told_count, i + 1);
        assert_int_equal(f.told_error, errors[i]);
    }
}

static void test_rests_grow_and_begin_anew(void **state)
{
    (void)state;
    fail_calls(3, EMFILE);
    connect_clients(1);
    ev_now_update(f.loop);
    double start = ev_now(f.loop);
    while (f.accepted_count < 1)
        ev_run(f.loop, EVRUN_ONCE);
    assert_true(ev_now(f.loop) - start > 0.05 + 0.1 + 0.2 - 0.01);

    fail_calls(1, EMFILE);
    connect_clients(1);
    turn();
    run_for(0.2); /* the next of the row would have been 0.4 */
    turn();
    assert_int_equal(f.accepted_count, 2);
}

static void test_lack_of_descriptors(void **state)
{
    (void)state;
    struct rlimit before, tight;
    if (is_on_valgrind()) /* it accepts them, and then says EMFILE */
        skip();
    int spare = dup(f.listener);
    connect_clients(2);
    int last = dup(spare); /* the lowest free number: all below are in use */
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = (struct rlimit){.rlim_cur = (rlim_t)last + 1, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);

    unsigned turns = ev_iteration(f.loop);
    run_for(0.4); /* tries at 0, 0.05, 0.15 and 0.35 s */
    assert_in_range(calls, 1, 4);
    assert_in_range(ev_iteration(f.loop) - turns, 1, MAX_QUIET_TURNS);
    assert_int_equal(f.accepted_count, 0);
    assert_int_equal(f.told_count, 1);
    assert_int_equal(f.told_error, EMFILE);

    close(spare);
    while (f.accepted_count < 1)
        ev_run(f.loop, EVRUN_ONCE);
    while (f.told_count < 2) /* the second connection finds none left again */
        ev_run(f.loop, EVRUN_ONCE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    while (f.accepted_count < 2)
        ev_run(f.loop, EVRUN_ONCE);
    assert_int_equal(f.told_count, 2);
    close(last);
}

static void test_end_of_rest_does_not_end_pause(void **state)
{
    (void)state;
    fail_calls(1, EMFILE);
    connect_clients(1);
    turn();
    accept_handler_pause(f.handler, true);
    run_for(0.1);
    assert_int_equal(calls, 1);
    accept_handler_pause(f.handler, false);
    turn();
    assert_int_equal(f.accepted_count, 1);
}

static void test_end_of_pause_does_not_end_rest(void **state)
{
    (void)state;
    fail_calls(1, EMFILE);
    connect_clients(1);
    ev_now_update(f.loop);
    double start = ev_now(f.loop);
    turn();
    accept_handler_pause(f.handler, true);
    accept_handler_pause(f.handler, false);
    turn();
    turn();
    assert_true(calls == 1 || ev_now(f.loop) >= start + 0.05); /* on a machine this slow the rest may be over */
    while (f.accepted_count < 1)
        ev_run(f.loop, EVRUN_ONCE);
}

static void test_remove_inside_exhausted(void **state)
{
    (void)state;
    fail_calls(1, ENFILE);
    connect_clients(1);
    f.in_exhausted = remove_handler;
    turn();
    run_for(0.1);
    assert_int_equal(f.told_count, 1);
    assert_int_equal(calls, 1);
}

static void test_drain_ends_at_a_shortage(void **state)
{
    (void)state;
    fail_calls(1, EMFILE);
    connect_clients(2);
    accept_handler_drain(f.handler);
    assert_int_equal(calls, 1);
    assert_int_equal(f.told_count, 1);
    while (f.accepted_count < 2)
        ev_run(f.loop, EVRUN_ONCE);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

/* By another process that has it, too: it is readable for ever, and there is nobody. */
static void test_listener_shut_down_by_others_does_not_spin(void **state)
{
    (void)state;
    shutdown(f.listener, SHUT_RD);
    for (int i = 0; i < 1000; i++)
        ev_run(f.loop, EVRUN_NOWAIT);
    assert_in_range(calls, 1, 2 * MANY);
    assert_int_equal(f.told_count, 0);
}

/* Each time another process has taken whoever came. */
static void test_listener_that_others_are_faster_at_does_not_rest(void **state)
{
    (void)state;
    connect_clients(1);
    fail_calls(3 * MANY, EAGAIN);
    for (int i = 0; i < 4 * MANY; i++)
        ev_run(f.loop, EVRUN_NOWAIT);
    assert_int_equal(f.accepted_count, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lone_connection_costs_one_call),
        TEST(test_storm_is_drained_in_growing_bursts),
        TEST(test_burst_shrinks_to_what_was_there),
        TEST(test_wake_up_that_finds_nothing),
        TEST(test_callback_never_runs_inside_add),
        TEST(test_flags_of_accepted_sockets),
        TEST(test_only_listening_sockets),
        TEST(test_remove_inside_callback_stops_the_burst),
        TEST(test_descriptor_may_be_closed_after_remove),
        TEST(test_pause_inside_callback_stops_the_burst),
        TEST(test_drain_takes_all_even_while_paused),
        TEST(test_drain_and_remove_inside_callbacks),
        TEST(test_errors_of_one_connection_are_passed_over),
        TEST(test_shortage_rests_and_is_told_once),
        TEST(test_rests_grow_and_begin_anew),
        TEST(test_lack_of_descriptors),
        TEST(test_end_of_rest_does_not_end_pause),
        TEST(test_end_of_pause_does_not_end_rest),
        TEST(test_remove_inside_exhausted),
        TEST(test_drain_ends_at_a_shortage),
        TEST(test_listener_shut_down_by_others_does_not_spin),
        TEST(test_listener_that_others_are_faster_at_does_not_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
