/* TestIOStreamWebMixin of Tornado's iostream_test.py: a client that connects to a server, which answers HTTP from a can. */
#include "conformance.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROW(name) static void name(void **state __attribute__((unused)))

static const char request[] = "GET / HTTP/1.0\r\n\r\n";
static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nHello";

/* ---- the server ---- */

static struct tcpserver *server;
static struct target *target;
static struct errbuf err;
static bool keep_alive; /* the server answers, and leaves the end to the client */

static void on_request(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    (void)arg;
    assert_int_equal(status, READ_OK);
    assert_int_equal(length, strlen(request));
    assert_memory_equal(data, request, length);
    assert_int_equal(iostream_write(s, answer, strlen(answer), NULL, NULL), 0);
    if (!keep_alive)
        iostream_close(s);
}

static int handle_stream(struct tcpserver *t, struct iostream *s, void *arg)
{
    (void)t, (void)arg;
    assert_int_equal(iostream_tls(s) != NULL, (int)wire == TLS); /* the handshake is over */
    ws = host(s);
    ignore_end(ws);
    return iostream_read_until(s, "\r\n\r\n", 4, 0, on_request, NULL);
}

static void close_server(void)
{
    tcpserver_free(server);
    target_free(target);
}

static int listen_there(char *where, size_t size)
{
    struct unix_file file;
    if (wire != UNIX)
        return snprintf(where, size, "127.0.0.1:%d", tcpserver_listen(server, "127.0.0.1", "0", NULL, &err));
    snprintf(where, size, "unix:@hark-conformance-%d", (int)getpid());
    return tcpserver_add_socket(server, bind_unix_socket(where + 5, 0600, 0, &file, &err), &err);
}

/* ---- the client ---- */

static char dialled[64]; /* of what comes before there is a stream */

static void on_connect(struct iostream *s, void *arg, const char *why)
{
    void (*then)(void) = arg;
    strcat(dialled, s ? "connected" : strerrorname_np(errno));
    assert_int_equal(!s, !!why);
    if (!s)
        return;
    rs = host(s);
    then();
}

/* Connects, and goes on from there. */
static void visit(void (*then)(void))
{
    char where[64];
    *dialled = '\0';
    const bool secure = (int)wire == TLS;
    const struct tcpserver_options options = {.tls = secure ? server_context() : NULL};
    const struct connect_options how = {.tls = secure ? client_context() : NULL};
    server = tcpserver_new(loop, handle_stream, NULL, &options, &err);
    at_tear_down = close_server;
    assert_true(listen_there(where, sizeof where) >= 0);
    target = target_parse(where, &err);
    assert_non_null(iostream_connect(loop, target, &how, on_connect, (void *)then));
    assert_string_equal(dialled, ""); /* never inside the call */
    run_until(*dialled);
}

static void ask(void)
{
    send_text(rs, request);
}

static void ask_and_read_until_close(void)
{
    ask();
    watch_eof(rs);
    read_until_close(rs);
}

ROW(test_connection_closed)
{
    visit(ask_and_read_until_close);
    run_until(strstr(rs->diary, "eof"));
    assert_ptr_equal(strstr(rs->diary, " eof"), rs->diary + strlen(rs->diary) - 4); /* all bytes, then the end */
    assert_non_null(strstr(rs->diary, "read:"));
    *rs->diary = '\0';
    iostream_close(rs->stream);
    expect(rs, "end:eof");
}

ROW(test_read_until_close)
{
    visit(ask_and_read_until_close);
    char words[128];
    snprintf(words, sizeof words, "read:%s eof", digest(answer, strlen(answer)));
    expect(rs, words);
}

ROW(test_read_zero_bytes)
{
    visit(ask);
    read_bytes(rs, 9);
    expect(rs, "read:HTTP/1.1 ");
    read_bytes(rs, 0);
    expect(rs, "read:");
    read_bytes(rs, 3);
    expect(rs, "read:200");
}

/* There is no stream to write to before it is connected, so the order is given. */
static void write_and_read(void)
{
    write_text(rs, request);
    assert_string_equal(dialled, "connected");
}

ROW(test_write_while_connecting)
{
    visit(write_and_read);
    expect(rs, "wrote");
    read_until(rs, "\r\n", 0);
    expect(rs, "read:HTTP/1.1 200 OK\r\n");
}

ROW(test_future_interface)
{
    keep_alive = true;
    visit(ask);
    read_until(rs, "\r\n", 0);
    expect(rs, "read:HTTP/1.1 200 OK\r\n");
    read_until(rs, "\r\n\r\n", 0);
    expect(rs, "read:Content-Length: 5\r\n\r\n");
    read_bytes(rs, 5);
    expect(rs, "read:Hello");
    keep_alive = false;
}

ROW(test_future_close_while_reading)
{
    visit(ask);
    read_bytes(rs, KIB(1024));
    expect(rs, "read-eof");
    read_bytes(rs, strlen(answer)); /* what came is still there */
    expect_read(rs, answer, strlen(answer));
}

/* A read after the end fails; here the peer's end is told as any read's. Where our side has ended, too, the call itself fails. */
ROW(test_future_read_until_close)
{
    visit(ask_and_read_until_close);
    char words[128];
    snprintf(words, sizeof words, "read:%s eof", digest(answer, strlen(answer)));
    expect(rs, words);
    read_bytes(rs, 1);
    expect(rs, "read-eof");
    iostream_close(rs->stream);
    assert_int_equal(iostream_read_bytes(rs->stream, 1, on_read, rs), -1);
    assert_int_equal(errno, EPIPE);
    expect(rs, "end:eof");
}

/* ---- nobody is there ---- */

ROW(test_connection_refused)
{
    char where[64];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* so that nobody else gets the port; it does not listen */
    assert_int_equal(bind(bound, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(bound, (struct sockaddr *)&address, &length), 0);
    if (wire == UNIX)
        snprintf(where, sizeof where, "unix:@hark-nobody-%d", (int)getpid());
    else
        snprintf(where, sizeof where, "127.0.0.1:%u", ntohs(address.sin_port));
    *dialled = '\0';
    const struct connect_options how = {.tls = (int)wire == TLS ? client_context() : NULL};
    struct target *nobody = target_parse(where, &err);
    assert_non_null(iostream_connect(loop, nobody, &how, on_connect, NULL));
    run_until(*dialled);
    run_quietly();
    assert_string_equal(dialled, "ECONNREFUSED"); /* once */
    target_free(nobody);
    close(bound);
}

/* ---- tcpserver_test.py ---- */

ROW(test_listen_single)
{
    int said[2], status = -1;
    char text[256];
    assert_int_equal(pipe2(said, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(said[1], STDERR_FILENO);
        dup2(said[1], STDOUT_FILENO);
        int before = count_descriptors();
        struct ev_loop *own = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
        struct tcpserver *single = tcpserver_new(own, handle_stream, NULL, NULL, &err);
        int port = tcpserver_listen(single, "127.0.0.1", "0", NULL, &err);
        tcpserver_free(single);
        ev_loop_destroy(own);
        _exit(port > 0 && count_descriptors() == before ? 0 : 1);
    }
    close(said[1]);
    assert_int_equal(read(said[0], text, sizeof text), 0); /* it says nothing */
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(said[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH_CONNECTED(test_connection_closed),       EACH_CONNECTED(test_read_until_close),
        EACH_CONNECTED(test_read_zero_bytes),         EACH_CONNECTED(test_write_while_connecting),
        EACH_CONNECTED(test_future_interface),        EACH_CONNECTED(test_future_close_while_reading),
        EACH_CONNECTED(test_future_read_until_close), EACH_CONNECTED(test_connection_refused),
        WIRE_TEST(test_listen_single, TCP),
    };
    return cmocka_run_group_tests_name("conformance_web", tests, NULL, forget_secrets);
}
