/* The server: its three ways to start, and the streams it makes. Whom it lets in is in test_tcpserver_admit.c, how it stops in
 * test_tcpserver_stop.c. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "site.h"

/* ---- ways to start ---- */

static void listen_accepts_as_soon_as_the_loop_runs(void **state)
{
    (void)state;
    open_site(NULL);
    dial_site(2);
    assert_int_equal(site.served, 0);
    run_until(site.served == 2);
    assert_int_equal(tcpserver_connections(site.server), 2);
    for (int i = 0; i < 2; i++) {
        write_text(site.parties[i], "hello");
        far_receive(site.parties[i], "hello");
        expect(site.parties[i], "wrote");
    }
}

static void bind_waits_for_start(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status = -1;
    open_site_on(NULL, NULL);
    int other_port = tcpserver_bind(site.server, "127.0.0.1", "0", NULL, &err);
    site.port = tcpserver_bind(site.server, "127.0.0.1", "0", NULL, &err);
    assert_true(site.port > 0 && other_port > 0 && site.port != other_port);
    dial_site(2); /* the kernel listens */
    site.port = other_port;
    dial_site(1);
    assert_int_equal(tcpserver_start(site.server, 1, 0, &status, &err), 0);
    assert_string_equal(err.text, "");
    assert_non_null(tcpserver_loop(site.server));
    assert_int_equal(task_id(), -1);
    assert_int_equal(site.served, 0);
    while (site.served < 3)
        ev_run(tcpserver_loop(site.server), EVRUN_ONCE);
    tcpserver_free(site.server); /* its loop goes too, and not before the streams */
    site.server = NULL;
    for (int i = 0; i < 3; i++)
        expect(site.parties[i], "end:shutdown");
}

static void sockets_can_be_added(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int fds[4];
    open_site_on(loop, NULL);
    int count = bind_sockets("127.0.0.1", "0", NULL, fds, 4, &err);
    assert_int_equal(count, 1);
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&address, &length), 0);
    site.port = ntohs(address.sin_port);
    assert_int_equal(tcpserver_add_sockets(site.server, fds, count, &err), 0);
    dial_and_serve(3);
}

static void start_can_follow_listen(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status;
    open_site(NULL);
    assert_int_equal(tcpserver_start(site.server, 1, 0, &status, &err), 0);
    dial_and_serve(1);
}

/* Workers that only say who they are. What they say is sorted: they come in any order. */
static void say_task_id(int fd, int task)
{
    char digit = (char)('0' + task);
    _exit(write(fd, &digit, 1) == 1 ? 0 : 1);
}

static void assert_digits(int fd, const char *sorted)
{
    char digits[16] = "";
    for (size_t have = 0; have < strlen(sorted); have++)
        assert_int_equal(read(fd, digits + have, 1), 1);
    for (const char *digit = sorted; *digit; digit++)
        assert_non_null(strchr(digits, *digit));
}

static void start_forks_and_numbers_the_workers(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status = -1, digits[2];
    assert_int_equal(pipe2(digits, O_CLOEXEC), 0);
    open_site_on(NULL, NULL);
    assert_true(tcpserver_bind(site.server, "127.0.0.1", "0", NULL, &err) > 0);
    int task = tcpserver_start(site.server, 3, 0, &status, &err);
    if (task >= 0)
        say_task_id(digits[1], tcpserver_loop(site.server) && task == task_id() ? task : 9);
    assert_int_equal(status, 0);
    assert_digits(digits[0], "012");
    close(digits[0]);
    close(digits[1]);
}

static void each_worker_may_have_the_port_for_itself(void **state)
{
    (void)state;
    const struct bind_options shared = {.reuse_port = true};
    struct errbuf err = {""};
    int status = -1, digits[2];
    assert_int_equal(pipe2(digits, O_CLOEXEC), 0);
    open_site_on(loop, NULL);
    char port[8];
    snprintf(port, sizeof port, "%d", tcpserver_listen(site.server, "127.0.0.1", "0", &shared, &err));
    int task = fork_processes(3, NULL, &status);
    if (task >= 0) {
        struct tcpserver *own = tcpserver_new(ev_loop_new(0), handle_stream, NULL, NULL, &err);
        say_task_id(digits[1], tcpserver_listen(own, "127.0.0.1", port, &shared, &err) == atoi(port) ? task : 9);
    }
    assert_int_equal(status, 0);
    assert_digits(digits[0], "012");
    close(digits[0]);
    close(digits[1]);
}

static int serve_task_id(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server, (void)arg;
    char digit = (char)('0' + task_id());
    iostream_write(s, &digit, 1, NULL, NULL);
    iostream_close(s);
    return 0;
}

static void call_and_terminate(int port, int report, pid_t server)
{
    char digit = '?';
    int fd = dial_port(port);
    fcntl(fd, F_SETFL, 0);
    if (read(fd, &digit, 1) == 1 && write(report, &digit, 1) == 1)
        kill(server, SIGTERM);
    _exit(0);
}

static void workers_serve_on_sockets_bound_before(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status = -1, digits[2], fds[4];
    assert_int_equal(pipe2(digits, O_CLOEXEC), 0);
    int count = bind_sockets("127.0.0.1", "0", NULL, fds, 4, &err);
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&address, &length), 0);
    pid_t test = getpid(), client = fork();
    if (client == 0)
        call_and_terminate(ntohs(address.sin_port), digits[1], test);
    if (fork_processes(2, NULL, &status) >= 0) {
        struct ev_loop *own = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
        struct tcpserver *server = tcpserver_new(own, serve_task_id, NULL, NULL, &err);
        tcpserver_add_sockets(server, fds, count, &err);
        ev_run(own, 0);
        _exit(1);
    }
    assert_int_equal(status, 0);
    char digit;
    assert_int_equal(read(digits[0], &digit, 1), 1);
    assert_true(digit == '0' || digit == '1');
    waitpid(client, NULL, 0);
    close(digits[0]);
    close(digits[1]);
    close(fds[0]);
}

/* ---- what cannot be started ---- */

static void errors_are_told_in_words(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status = -1;
    char port[8];
    open_site(NULL);
    snprintf(port, sizeof port, "%d", site.port);
    assert_int_equal(tcpserver_listen(site.server, "127.0.0.1", port, NULL, &err), -1);
    assert_non_null(strstr(err.text, port));
    assert_non_null(strstr(err.text, strerror(EADDRINUSE)));
    assert_int_equal(tcpserver_start(site.server, 2, 0, &status, &err), -1); /* there is a loop already */
    assert_int_equal(status, 1);
    assert_non_null(strstr(err.text, "loop"));

    struct tcpserver *loopless = tcpserver_new(NULL, handle_stream, &site, NULL, &err);
    *err.text = '\0';
    assert_int_equal(tcpserver_listen(loopless, "127.0.0.1", "0", NULL, &err), -1);
    assert_non_null(strstr(err.text, "loop"));
    assert_true(tcpserver_bind(loopless, "127.0.0.1", "0", NULL, &err) > 0);
    tcpserver_free(loopless); /* closes what was bound */
}

static void what_does_not_listen_is_not_taken(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int fds[2];
    open_site_on(loop, NULL);
    connect_tcp(fds);
    assert_int_equal(tcpserver_add_socket(site.server, fds[0], &err), -1);
    assert_true(*err.text != '\0');
    assert_int_equal(close(fds[0]), 0); /* it stayed ours */
    assert_int_equal(close(fds[1]), 0);
}

/* ---- the streams ---- */

static void streams_know_where_they_come_from(void **state)
{
    (void)state;
    char text[ADDRESS_TEXT], right[ADDRESS_TEXT];
    open_site(&(struct tcpserver_options){.max_buffer_bytes = 10});
    dial_and_serve(2);
    for (int i = 0; i < 2; i++) {
        struct party *p = site.parties[i];
        struct sockaddr_in own;
        struct sockaddr_storage local;
        socklen_t length = sizeof own;
        assert_int_equal(iostream_id(p->stream), 1 + i);
        assert_int_equal(getsockname(p->far.in, (struct sockaddr *)&own, &length), 0);
        const struct sockaddr *peer = iostream_peer(p->stream, &length);
        address_text((struct sockaddr *)&own, sizeof own, right, sizeof right);
        assert_string_equal(address_text(peer, length, text, sizeof text), right);
        assert_int_equal(iostream_local(p->stream, &local, &length), 0);
        assert_int_equal(address_port((struct sockaddr *)&local), site.port);
        assert_int_equal(iostream_write(p->stream, "12345678901", 11, NULL, NULL), -1); /* max_buffer_bytes is passed on */
        int fd = p->stream->transport->read_fd;
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    }
}

static void ask_for_credentials(struct party *p, const char *word)
{
    pid_t pid = -1;
    uid_t uid = (uid_t)-1;
    gid_t gid = (gid_t)-1;
    assert_int_equal(iostream_peer_credentials(p->stream, &pid, &uid, &gid), 0);
    assert_int_equal(pid, getpid());
    assert_int_equal(uid, geteuid());
    assert_int_equal(gid, getegid());
    tell("asked:%s", word);
}

static int ask_now_and_later(struct party *p)
{
    socklen_t length;
    assert_int_equal(iostream_peer(p->stream, &length)->sa_family, AF_UNIX);
    ask_for_credentials(p, "handle");
    p->inside = ask_for_credentials;
    return 0;
}

static void unix_clients_have_credentials(void **state)
{
    (void)state;
    struct errbuf err = {""};
    struct unix_file file;
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    char name[64];
    snprintf(name, sizeof name, "@hark-test-%d", (int)getpid());
    open_site_on(loop, NULL);
    site.serve = ask_now_and_later;
    int fd = bind_unix_socket(name, 0600, 0, &file, &err);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    assert_int_equal(tcpserver_add_socket(site.server, fd, &err), 0);
    int client = site.clients[site.dialled++] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, length), 0);
    expect_told("asked:handle");
    iostream_abort(site.parties[0]->stream, CLOSE_SHUTDOWN);
    expect(site.parties[0], "end:shutdown");
    expect_told("asked:end");
}

static int answer_and_close(struct party *p)
{
    write_text(p, "data");
    iostream_close(p->stream);
    return 0;
}

static void an_answer_closed_at_once_arrives(void **state)
{
    (void)state;
    open_site(NULL);
    site.serve = answer_and_close;
    dial_site(1);
    assert_int_equal(write(site.clients[0], "a request that nobody reads", 27), 27);
    run_until(site.served == 1);
    far_receive(site.parties[0], "data");
    far_receive_end(site.parties[0]);
    far_close(site.parties[0]);
    expect(site.parties[0], "wrote end:finished");
}

static int fail_the_first(struct party *p)
{
    return site.served == 1 ? (read_some(p, 1), write_text(p, "x"), -1) : 0;
}

static void a_failing_handler_costs_one_connection(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.stream_closed = stream_closed});
    site.serve = fail_the_first;
    int before = count_descriptors();
    dial_and_serve(1);
    expect(site.parties[0], "read-closed wrote end:error");
    expect_told("closed:1/error");
    far_close(site.parties[0]);
    assert_int_equal(count_descriptors(), before);
    assert_int_equal(tcpserver_connections(site.server), 0);
    dial_and_serve(1);
    write_text(site.parties[1], "served");
    far_receive(site.parties[1], "served");
    expect(site.parties[1], "wrote");
}

static void blocking_sockets_are_left_blocking_and_can_be_ended(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.blocking = true});
    dial_and_serve(3);
    for (int i = 0; i < 3; i++) {
        struct party *p = site.parties[i];
        assert_false(fcntl(p->stream->transport->read_fd, F_GETFL) & O_NONBLOCK);
        i == 0 ? iostream_abort(p->stream, CLOSE_ERROR) : iostream_close(p->stream);
    }
    expect(site.parties[0], "end:error");
    far_receive_reset(site.parties[0]);
    far_receive_end(site.parties[1]);
    far_close(site.parties[1]);
    expect(site.parties[1], "end:finished"); /* without having to wait for the time limit */
    run_quietly();
    expect_nothing(site.parties[2]);
    pass(3);
    expect(site.parties[2], "end:finished");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(listen_accepts_as_soon_as_the_loop_runs),
        SITE_TEST(bind_waits_for_start),
        SITE_TEST(sockets_can_be_added),
        SITE_TEST(start_can_follow_listen),
        SITE_TEST(start_forks_and_numbers_the_workers),
        SITE_TEST(each_worker_may_have_the_port_for_itself),
        SITE_TEST(workers_serve_on_sockets_bound_before),
        SITE_TEST(errors_are_told_in_words),
        SITE_TEST(what_does_not_listen_is_not_taken),
        SITE_TEST(streams_know_where_they_come_from),
        SITE_TEST(unix_clients_have_credentials),
        SITE_TEST(an_answer_closed_at_once_arrives),
        SITE_TEST(a_failing_handler_costs_one_connection),
        SITE_TEST(blocking_sockets_are_left_blocking_and_can_be_ended),
    };
    return cmocka_run_group_tests_name("tcpserver", tests, NULL, NULL);
}
