/* The server: its three ways to start, whom it lets in, and how it stops, from inside any callback. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "../../core/shared.h"
#include "harness.h"

enum { MANY = 40 };

/* ---- a server with its clients, in the order in which they have come ---- */

static struct site {
    struct tcpserver *server;
    int port;
    int clients[MANY]; /* those without a stream yet; -1: it is its party's far end now */
    int dialled, served;
    struct party *parties[MANY];
    int (*serve)(struct party *);
    char told[DIARY_BYTES]; /* by callbacks of the server */
    unsigned most;          /* connections at once */
    void (*inside)(const char *callback);
    bool refusing;
} site;

static void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void tell(const char *format, ...)
{
    size_t used = strlen(site.told);
    va_list arguments;
    if (used > 0)
        site.told[used++] = ' ';
    va_start(arguments, format);
    vsnprintf(site.told + used, sizeof site.told - used, format, arguments);
    va_end(arguments);
}

static void expect_told(const char *words)
{
    run_until(strlen(site.told) >= strlen(words));
    assert_string_equal(site.told, words);
    *site.told = '\0';
}

static void look_inside(const char *callback)
{
    if (site.inside)
        site.inside(callback);
}

static void in_stream(struct party *p, const char *word)
{
    (void)p;
    look_inside(word);
}

static int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    assert_ptr_equal(server, site.server);
    assert_ptr_equal(iostream_server(s), server);
    assert_true(site.served < site.dialled);
    unsigned connections = tcpserver_connections(server);
    site.most = connections > site.most ? connections : site.most;
    struct party *p = site.parties[site.served] = host(s);
    p->far = (struct ends){site.clients[site.served], site.clients[site.served]};
    site.clients[site.served++] = -1;
    p->inside = in_stream;
    int result = site.serve ? site.serve(p) : 0;
    look_inside("handle");
    return result;
}

static bool refuse(const struct sockaddr *address, socklen_t length, void *arg)
{
    char text[ADDRESS_TEXT];
    assert_ptr_equal(arg, &site);
    tell("refuse:%s", address_host(address, length, text, sizeof text));
    look_inside("refuse");
    return site.refusing;
}

static void stream_closed(struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    tell("closed:%d/%s", (int)iostream_id(s), close_reason_name(iostream_reason(s)));
    look_inside("closed");
}

static void exhausted(void *arg, int error)
{
    assert_ptr_equal(arg, &site);
    tell("exhausted:%s", strerrorname_np(error));
    look_inside("exhausted");
}

static void empty(void *arg)
{
    assert_ptr_equal(arg, &site);
    tell("empty");
    look_inside("empty");
}

static void close_site(void)
{
    if (site.server)
        tcpserver_free(site.server);
    for (int i = 0; i < site.dialled; i++) {
        if (site.clients[i] >= 0)
            close(site.clients[i]);
    }
    memset(&site, 0, sizeof site);
}

static int set_up_site(void **state)
{
    int result = set_up(state);
    memset(&site, 0, sizeof site);
    at_tear_down = close_site;
    return result;
}

static void open_site_on(struct ev_loop *on, const struct tcpserver_options *options)
{
    struct errbuf err = {""};
    site.server = tcpserver_new(on, handle_stream, &site, options, &err);
    assert_string_equal(err.text, "");
    assert_ptr_equal(tcpserver_loop(site.server), on);
}

static void listen_on_any_port(void)
{
    struct errbuf err = {""};
    site.port = tcpserver_listen(site.server, "127.0.0.1", "0", NULL, &err);
    assert_string_equal(err.text, "");
    assert_true(site.port > 0);
}

static void open_site(const struct tcpserver_options *options)
{
    open_site_on(loop, options);
    listen_on_any_port();
}

static int dial_port(int port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* The kernel takes them in: the server may know of them or not. */
static void dial(int count)
{
    while (count-- > 0) {
        assert_true(site.dialled < MANY);
        site.clients[site.dialled] = dial_port(site.port);
        assert_true(site.clients[site.dialled++] >= 0);
    }
}

static void dial_and_serve(int count)
{
    dial(count);
    run_until(site.served == site.dialled);
}

static void assert_nobody_listens(void)
{
    errno = 0;
    assert_int_equal(dial_port(site.port), -1);
    assert_int_equal(errno, ECONNREFUSED);
}

static void hang_up(int i)
{
    far_reset(site.parties[i]);
    expect(site.parties[i], "end:reset/ECONNRESET");
}

static int watch(struct party *p)
{
    iostream_watch(p->stream);
    return 0;
}

/* ---- ways to start ---- */

static void listen_accepts_as_soon_as_the_loop_runs(void **state)
{
    (void)state;
    open_site(NULL);
    dial(2);
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
    dial(2); /* the kernel listens */
    site.port = other_port;
    dial(1);
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
    dial(1);
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

/* ---- whom it lets in ---- */

static void who_is_refused_is_never_seen(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.refuse = refuse, .stream_closed = stream_closed});
    site.refusing = true;
    dial(1);
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
    dial(5);
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

static void refused(const struct sockaddr *address, socklen_t length, enum reject_reason reason, void *arg)
{
    char text[ADDRESS_TEXT];
    assert_ptr_equal(arg, &site);
    tell("refused:%s:%s", address_host(address, length, text, sizeof text), reject_reason_name(reason));
    look_inside("refused");
}

/* What is shared is as another process would see it. */
static void shared_limits_hold(void **state)
{
    (void)state;
    struct errbuf err = {""};
    struct shared *shared = shared_new(&(struct shared_options){.processes = 2, .max_connections = 3, .max_per_ip = 2}, &err);
    open_site(&(struct tcpserver_options){.shared = shared, .refused = refused});
    site.serve = watch;
    dial_and_serve(2);
    dial(1);
    expect_told("refused:127.0.0.1:limit");
    assert_int_equal(shared_connections(shared), 2);
    assert_true(shared_take_place(shared, 1, false));
    dial(1);
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
    dial(5);
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

static void limit_descriptors_to_what_is_open(struct rlimit *before)
{
    int next = dup(STDIN_FILENO);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
    const struct rlimit now = {.rlim_cur = (rlim_t)next, .rlim_max = before->rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
}

static void without_descriptors_clients_wait(void **state)
{
    (void)state;
    struct rlimit before;
    if (is_on_valgrind()) /* it accepts them, and then says EMFILE */
        skip();
    open_site(&(struct tcpserver_options){.exhausted = exhausted});
    dial(3);
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
    dial(3);
    expect_told("exhausted:EMFILE");
    expect(site.parties[0], "end:error/EMFILE");
    run_quietly();
    assert_int_equal(site.served, 1);
    pass(2);
    run_until(site.served == 3);
    assert_string_equal(site.told, "");
}

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
    dial(MANY);
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
    dial(20);
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

static void a_limit_outlives_a_drain(void **state)
{
    (void)state;
    open_site(&(struct tcpserver_options){.max_connections = 1});
    tcpserver_drain(site.server);
    listen_on_any_port();
    dial(3);
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

/* ---- free, everywhere ---- */

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

static const char *where;

static void free_there(const char *callback)
{
    if (site.server && strcmp(callback, where) == 0) {
        struct tcpserver *server = site.server;
        site.inside = NULL;
        site.server = NULL;
        tcpserver_free(server);
    }
}

static int watch_or_fail(struct party *p)
{
    iostream_watch(p->stream);
    read_some(p, 1);
    return site.served == 1 ? 0 : -1;
}

/* A life in which every callback runs; the server goes in one of them. */
static void live_and_free(const char *callback, bool refusing, bool draining)
{
    const struct tcpserver_options options = {
        .refuse = refuse, .stream_closed = stream_closed, .empty = empty, .exhausted = exhausted, .count_addresses = true};
    where = callback;
    open_site(&options);
    site.inside = free_there;
    site.serve = watch_or_fail;
    site.refusing = refusing;
    dial(3);
    if (draining)
        tcpserver_drain(site.server);
    for (int i = 0; i < 3 && site.server; i++)
        run_quietly();
    if (site.server && strcmp(where, "exhausted") == 0) {
        struct rlimit before;
        dial(1);
        limit_descriptors_to_what_is_open(&before);
        run_until(!site.server);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    }
    for (int i = 0; i < site.served; i++)
        far_reset(site.parties[i]);
    if (site.server)
        tcpserver_stop(site.server);
    run_until(!site.server);
    dismiss_all();
    close_site();
}

static void the_server_may_be_freed_in_any_callback(void **state)
{
    (void)state;
    static const struct {
        const char *callback;
        bool refusing, draining;
    } cases[] = {
        {"handle", false, false},    {"handle", false, true},  {"refuse", false, false}, {"refuse", true, false}, {"refuse", false, true},
        {"refuse", true, true},      {"closed", false, false}, {"closed", false, true},  {"end", false, false},   {"read", false, false},
        {"exhausted", false, false}, {"empty", false, true},   {"empty", true, false},   {"empty", false, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++)
        live_and_free(cases[i].callback, cases[i].refusing, cases[i].draining);
}

#define SITE_TEST(function) cmocka_unit_test_setup_teardown(function, set_up_site, tear_down)

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
        SITE_TEST(stop_ends_listening_and_nothing_else),
        SITE_TEST(stop_twice_leaves_others_alone),
        SITE_TEST(stop_closes_what_is_only_bound),
        SITE_TEST(stop_while_many_wait),
        SITE_TEST(drain_serves_who_has_come),
        SITE_TEST(a_limit_outlives_a_drain),
        SITE_TEST(abort_ends_every_stream),
        SITE_TEST(closing_is_told_to_the_server_first),
        SITE_TEST(empty_is_told_when_nothing_is_left),
        SITE_TEST(free_ends_every_stream_without_the_server),
        SITE_TEST(the_server_may_be_freed_in_any_callback),
    };
    return cmocka_run_group_tests_name("tcpserver", tests, NULL, NULL);
}
