/* A server of TLS: who comes to the handler and who is rejected, handshakes at a time, and contexts that change while it serves. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tls_peer.h"

enum { MANY = 30 };

struct caller {
    int fd;
    SSL *ssl;
    bool open;
};

static struct site {
    struct tcpserver *server;
    int port;
    struct tls_context *context; /* the test's own hold */
    struct caller callers[MANY];
    int dialled, served;
    struct party *parties[MANY];
    char told[DIARY_BYTES];
    void (*inside)(const char *callback);
    SSL_CTX *ctx;
} site;

static void tell(const char *what, struct iostream *s)
{
    size_t used = strlen(site.told);
    snprintf(site.told + used, sizeof site.told - used, "%s%s:%d/%s", used ? " " : "", what, (int)iostream_id(s),
             close_reason_name(iostream_reason(s)));
    if (site.inside)
        site.inside(what);
}

static void closed(struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    tell("closed", s);
}

static void rejected(struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    assert_non_null(iostream_tls(s));
    tell("rejected", s);
}

static void empty(void *arg)
{
    assert_ptr_equal(arg, &site);
    strcat(site.told, " empty");
}

static int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    assert_ptr_equal(iostream_server(s), server);
    struct party *p = site.parties[site.served++] = host(s);
    p->far = (struct ends){-1, -1};
    assert_int_equal(iostream_relay(s, s), 0);
    if (site.inside)
        site.inside("handle");
    return 0;
}

static void close_site(void)
{
    if (site.server)
        tcpserver_free(site.server);
    for (int i = 0; i < site.dialled; i++) {
        SSL_free(site.callers[i].ssl);
        if (site.callers[i].fd >= 0)
            close(site.callers[i].fd);
    }
    tls_context_free(site.context);
    SSL_CTX_free(site.ctx);
    memset(&site, 0, sizeof site);
}

static int set_up_site(void **state)
{
    int result = set_up(state);
    memset(&site, 0, sizeof site);
    site.context = new_server_context(NULL);
    site.ctx = client_ctx(0);
    at_tear_down = close_site;
    return result;
}

#define SITE_TEST(function) cmocka_unit_test_setup_teardown(function, set_up_site, tear_down)

static void open_site(struct tcpserver_options options)
{
    struct errbuf err = {""};
    options.tls = site.context;
    options.stream_closed = closed;
    options.rejected = rejected;
    site.server = tcpserver_new(loop, handle_stream, &site, &options, &err);
    site.port = tcpserver_listen(site.server, "127.0.0.1", "0", NULL, &err);
    assert_string_equal(err.text, "");
}

/* ---- callers ---- */

static int dial_port(int port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static struct caller *dial(void)
{
    assert_true(site.dialled < MANY);
    struct caller *c = &site.callers[site.dialled++];
    *c = (struct caller){.fd = dial_port(site.port), .ssl = SSL_new(site.ctx)};
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    SSL_set_fd(c->ssl, c->fd);
    return c;
}

static bool go_on(struct caller *c)
{
    ERR_clear_error();
    c->open = c->open || SSL_connect(c->ssl) == 1;
    return c->open;
}

static void open_all(void)
{
    bool all = false;
    for (int turn = 0; !all && turn < 100000; turn++) {
        all = true;
        for (int i = 0; i < site.dialled; i++)
            all &= site.callers[i].fd < 0 || go_on(&site.callers[i]);
        ev_run(loop, EVRUN_NOWAIT);
    }
    assert_true(all);
    run_until(site.served >= 1);
}

static void talk(struct caller *c)
{
    char byte = 0;
    assert_int_equal(SSL_write(c->ssl, "x", 1), 1);
    run_until(SSL_read(c->ssl, &byte, 1) == 1);
    assert_int_equal(byte, 'x');
}

static void hang_up(struct caller *c)
{
    close(c->fd);
    c->fd = -1;
}

static const char *subject_of(struct caller *c)
{
    static char name[64];
    X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(c->ssl)), NID_commonName, name, sizeof name);
    return name;
}

static void expect_told(const char *words)
{
    run_until(strlen(site.told) >= strlen(words));
    run_quietly();
    assert_string_equal(site.told, words);
    *site.told = '\0';
}

static void forget_parties(void)
{
    for (int i = 0; i < site.served; i++)
        *site.parties[i]->diary = '\0';
}

/* ---- who comes to the handler ---- */

static void the_handler_sees_who_has_shaken_hands(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){.empty = empty});
    struct caller *c = dial();
    run_until(tcpserver_connections(site.server) == 1);
    run_quietly();
    assert_int_equal(site.served, 0);
    open_all();
    assert_int_equal(site.served, 1);
    talk(c);
    tcpserver_stop(site.server);
    SSL_shutdown(c->ssl);
    expect(site.parties[0], "end:eof");
    expect_told("closed:1/eof empty");
}

static void who_does_not_is_rejected(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){0});
    struct caller *c = dial();
    assert_int_equal(write(c->fd, "GET / HTTP/1.0\r\n\r\n", 18), 18);
    expect_told("rejected:1/tls");
    hang_up(dial());
    expect_told("rejected:2/tls");
    assert_int_equal(tcpserver_connections(site.server), 0);
    assert_int_equal(site.served, 0);
}

static void a_handshake_has_its_time(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){.handshake_seconds = 3});
    dial();
    run_until(tcpserver_connections(site.server) == 1);
    pass(2);
    assert_string_equal(site.told, "");
    pass(2);
    expect_told("rejected:1/timeout");
    struct caller *c = dial();
    site.callers[0].fd = (close(site.callers[0].fd), -1);
    open_all();
    pass(100); /* it was for the handshake only */
    talk(c);
}

static void who_is_refused_costs_no_handshake(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){.max_connections = 1});
    dial();
    open_all();
    struct caller *c = dial();
    assert_false(go_on(c));
    run_quietly();
    assert_int_equal(tcpserver_connections(site.server), 1);
    SSL_shutdown(site.callers[0].ssl);
    expect(site.parties[0], "end:eof");
    hang_up(&site.callers[0]);
    open_all();
    run_until(site.served == 2);
    expect_told("closed:1/eof");
}

/* ---- handshakes at a time ---- */

static void listeners_rest_while_handshakes_are_many(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){.max_handshakes = 2});
    for (int i = 0; i < 5; i++)
        dial();
    run_until(tcpserver_connections(site.server) == 2);
    run_quietly();
    assert_int_equal(tcpserver_connections(site.server), 2);
    hang_up(&site.callers[0]); /* one fails: the next one may try */
    expect_told("rejected:1/tls");
    run_until(tcpserver_connections(site.server) == 2);
    open_all(); /* one is done, and so on */
    run_until(site.served == 4);
    assert_int_equal(tcpserver_connections(site.server), 4);
    struct caller *c = dial();
    open_all();
    talk(c);
}

/* All speak at once. In a turn of the loop few are gone on with, and in the end all are served. */
/* All together, since an answer may be under way for more than a turn. */
static void a_turn_has_few_handshakes(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){.handshake_seconds = 300}); /* so long they take on valgrind, all at once */
    dial();
    open_all();
    for (int i = 1; i < MANY; i++)
        dial();
    run_until(tcpserver_connections(site.server) == MANY);
    for (int i = 1; i < MANY; i++)
        assert_false(go_on(&site.callers[i]));
    for (int turn = 1; turn <= 20; turn++) {
        int answered = 0;
        char byte;
        ev_run(loop, EVRUN_NOWAIT);
        for (int i = 1; i < MANY; i++)
            answered += recv(site.callers[i].fd, &byte, 1, MSG_PEEK) == 1;
        assert_true(answered <= 8 * turn);
    }
    open_all();
    run_until(site.served == MANY);
    forget_parties();
}

/* ---- other contexts ---- */

static struct tls_context *made_up_context(const char *name)
{
    struct errbuf err = {""};
    struct tls_identity *identity = tls_self_signed(name, &err);
    const struct tls_certificate none = {0};
    struct tls_context *context = tls_server_new(&(struct tls_options){.certificates = &none, .count = 1, .identity = identity}, &err);
    tls_identity_free(identity);
    assert_string_equal(err.text, "");
    return context;
}

/* A handshake that has begun ends with the certificate that it began with; the context lives until then. */
static void a_context_changes_for_who_comes_later(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){0});
    struct caller *first = dial(), *silent = dial();
    assert_false(go_on(first));
    run_until(tcpserver_connections(site.server) == 2);
    run_quietly();
    struct tls_context *fresh = made_up_context("fresh.test");
    tcpserver_set_tls(site.server, fresh);
    tls_context_free(fresh);
    tls_context_free(site.context);
    site.context = NULL;
    struct caller *later = dial();
    open_all();
    run_until(site.served == 3);
    assert_string_equal(subject_of(first), "server");
    assert_string_equal(subject_of(silent), "server");
    assert_string_equal(subject_of(later), "fresh.test");
    for (int i = 0; i < 3; i++)
        talk(&site.callers[i]);
}

static void a_server_may_turn_plain_and_back(void **state)
{
    (void)state;
    char byte = 0;
    open_site((struct tcpserver_options){0});
    tcpserver_set_tls(site.server, NULL);
    int fd = dial_port(site.port);
    assert_int_equal(write(fd, "x", 1), 1);
    run_until(recv(fd, &byte, 1, MSG_DONTWAIT) == 1);
    tcpserver_set_tls(site.server, site.context);
    struct caller *c = dial();
    open_all();
    run_until(site.served == 2);
    talk(c);
    close(fd);
    expect(site.parties[0], "end:eof");
    expect_told("closed:1/eof");
}

/* ---- ends ---- */

static void handshakes_can_be_aborted_alone(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){0});
    struct caller *c = dial();
    open_all();
    dial();
    dial();
    run_until(tcpserver_connections(site.server) == 3);
    tcpserver_abort_handshakes(site.server);
    run_until(tcpserver_connections(site.server) == 1);
    assert_true(strcmp(site.told, "rejected:3/shutdown rejected:2/shutdown") == 0 ||
                strcmp(site.told, "rejected:2/shutdown rejected:3/shutdown") == 0);
    talk(c);
}

static void free_inside(const char *callback)
{
    (void)callback;
    site.inside = NULL;
    tcpserver_free(site.server);
    site.server = NULL;
}

static void a_server_may_go_inside_its_callbacks(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){0});
    site.inside = free_inside;
    dial();
    hang_up(dial());
    expect_told("rejected:2/tls"); /* and the other one ends without a word */
}

static void a_server_may_go_in_its_handler(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){0});
    site.inside = free_inside;
    dial();
    dial();
    go_on(&site.callers[1]);
    for (int i = 0; site.server && i < 100000; i++) {
        go_on(&site.callers[0]);
        ev_run(loop, EVRUN_NOWAIT);
    }
    assert_null(site.server);
    expect(site.parties[0], "end:shutdown");
    assert_string_equal(site.told, "");
}

static void who_waits_is_taken_when_the_server_drains(void **state)
{
    (void)state;
    open_site((struct tcpserver_options){.max_handshakes = 1, .empty = empty});
    for (int i = 0; i < 4; i++)
        dial();
    run_until(tcpserver_connections(site.server) == 1);
    tcpserver_drain(site.server);
    assert_int_equal(tcpserver_connections(site.server), 4);
    open_all();
    run_until(site.served == 4);
    for (int i = 0; i < 4; i++)
        talk(&site.callers[i]);
    assert_string_equal(site.told, "");
}

/* ---- three ways to start; the first is in all the tests above ---- */

static bool call_once(int port)
{
    char byte = 0;
    SSL_CTX *ctx = client_ctx(0);
    SSL *ssl = SSL_new(ctx);
    int fd = dial_port(port);
    SSL_set_fd(ssl, fd);
    bool good = SSL_connect(ssl) == 1 && SSL_write(ssl, "x", 1) == 1 && SSL_read(ssl, &byte, 1) == 1 && byte == 'x';
    SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    return good;
}

/* It tells by `report`, since who supervises reaps every child. */
static pid_t call_from_a_child(int port, int times, pid_t terminate, int report)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    int good = 0;
    for (int i = 0; i < times; i++)
        good += call_once(port);
    if (write(report, good == times ? "y" : "n", 1) == 1 && terminate)
        kill(terminate, SIGTERM);
    _exit(0);
}

static int echo(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server, (void)arg;
    return iostream_relay(s, s);
}

static void expect_good_calls(const int report[2])
{
    char word = 0;
    assert_int_equal(read(report[0], &word, 1), 1);
    assert_int_equal(word, 'y');
    close(report[0]);
    close(report[1]);
}

static void bind_and_start_here(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status, report[2];
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    const struct tcpserver_options options = {.tls = site.context};
    struct tcpserver *server = tcpserver_new(NULL, echo, NULL, &options, &err);
    int port = tcpserver_bind(server, "127.0.0.1", "0", NULL, &err);
    pid_t child = call_from_a_child(port, 3, 0, report[1]);
    assert_int_equal(tcpserver_start(server, 1, 0, &status, &err), 0);
    while (waitpid(child, NULL, WNOHANG) == 0)
        ev_run(tcpserver_loop(server), EVRUN_NOWAIT);
    expect_good_calls(report);
    tcpserver_free(server);
}

static void bind_and_start_workers(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status = -1, report[2];
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    const struct tcpserver_options options = {.tls = site.context};
    struct tcpserver *server = tcpserver_new(NULL, echo, NULL, &options, &err);
    int port = tcpserver_bind(server, "127.0.0.1", "0", NULL, &err);
    call_from_a_child(port, 4, getpid(), report[1]);
    if (tcpserver_start(server, 2, 0, &status, &err) >= 0) {
        ev_run(tcpserver_loop(server), 0);
        _exit(1);
    }
    assert_int_equal(status, 0);
    expect_good_calls(report);
    tcpserver_free(server);
}

static void fork_and_add_sockets(void **state)
{
    (void)state;
    struct errbuf err = {""};
    int status = -1, fd, report[2];
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    assert_int_equal(bind_sockets("127.0.0.1", "0", NULL, &fd, 1, &err), 1);
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    call_from_a_child(ntohs(address.sin_port), 4, getpid(), report[1]);
    if (fork_processes(2, NULL, &status) >= 0) {
        struct ev_loop *own = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
        const struct tcpserver_options options = {.tls = site.context};
        tcpserver_add_sockets(tcpserver_new(own, echo, NULL, &options, &err), &fd, 1, &err);
        ev_run(own, 0);
        _exit(1);
    }
    assert_int_equal(status, 0);
    expect_good_calls(report);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(the_handler_sees_who_has_shaken_hands),
        SITE_TEST(who_does_not_is_rejected),
        SITE_TEST(a_handshake_has_its_time),
        SITE_TEST(who_is_refused_costs_no_handshake),
        SITE_TEST(listeners_rest_while_handshakes_are_many),
        SITE_TEST(a_turn_has_few_handshakes),
        SITE_TEST(a_context_changes_for_who_comes_later),
        SITE_TEST(a_server_may_turn_plain_and_back),
        SITE_TEST(handshakes_can_be_aborted_alone),
        SITE_TEST(a_server_may_go_inside_its_callbacks),
        SITE_TEST(a_server_may_go_in_its_handler),
        SITE_TEST(who_waits_is_taken_when_the_server_drains),
        SITE_TEST(bind_and_start_here),
        SITE_TEST(bind_and_start_workers),
        SITE_TEST(fork_and_add_sockets),
    };
    return cmocka_run_group_tests_name("tls_server", tests, make_directory, remove_directory);
}
