/* TestIOStreamStartTLS, WaitForHandshakeTest and TestIOStreamCheckHostname of Tornado's iostream_test.py: from plain to TLS, over every
 * transport below it, and whom the client believes. What a stream does once it speaks TLS is in the other conformance tests. */
#include "conformance.h"

#include <arpa/inet.h>
#include <stdio.h>

#define ROW(name) static void name(void **state __attribute__((unused)))

static struct errbuf err;

/* A client that believes nobody but the one who has our certificate; or, with ca NULL, those whom the system does. */
static struct tls_context *believer(bool knows_us)
{
    char path[] = "/tmp/hark-conformance-XXXXXX";
    char *pem = tls_identity_pem(identity());
    int fd = mkstemp(path);
    assert_int_equal(write(fd, pem, strlen(pem)), strlen(pem));
    close(fd);
    free(pem);
    struct tls_context *client = tls_client_new(knows_us ? path : NULL, false, &err);
    assert_non_null(client);
    unlink(path);
    return client;
}

static void on_open(struct iostream *s, void *arg)
{
    const struct tls_info *info = iostream_tls(s);
    assert_non_null(info);
    assert_non_null(info->cipher);
    write_down(arg, "open:%s", info->version);
}

/* rs is the server. It takes over the client's context. */
static void start_tls(struct tls_context *client, const char *name)
{
    assert_int_equal(iostream_start_tls(rs->stream, server_context(), NULL, HANDSHAKE_SECONDS, on_open, rs), 0);
    assert_int_equal(iostream_start_tls(ws->stream, client, name, HANDSHAKE_SECONDS, on_open, ws), 0);
    tls_context_free(client);
    assert_null(iostream_tls(rs->stream));
}

static void expect_both_open(void)
{
    expect(rs, "open:TLSv1.3");
    expect(ws, "open:TLSv1.3");
}

/* ---- TestIOStreamStartTLS ---- */

ROW(test_start_tls_smtp)
{
    pair(0, 0);
    send_text(rs, "220 hello\r\n");
    read_until(ws, "\r\n", 0);
    expect(ws, "read:220 hello\r\n");
    send_text(ws, "STARTTLS\r\n");
    read_until(rs, "\r\n", 0);
    expect(rs, "read:STARTTLS\r\n");
    send_text(rs, "220 go on\r\n");
    read_until(ws, "\r\n", 0);
    expect(ws, "read:220 go on\r\n");
    start_tls(believer(true), "foo.example.com");
    expect_both_open();
    send_text(ws, "QUIT\r\n");
    read_until(rs, "\r\n", 0);
    expect(rs, "read:QUIT\r\n");
    send_text(rs, "221 bye\r\n");
    read_until(ws, "\r\n", 0);
    expect(ws, "read:221 bye\r\n");
    iostream_close(rs->stream);
    read_some(ws, 1);
    expect(ws, "read-eof");
    iostream_close(ws->stream);
    expect(rs, "end:finished");
    expect(ws, "end:eof");
}

/* What was sent ahead in the clear must not be taken for something that was sent in secret. */
ROW(plaintext_ahead_is_refused)
{
    pair(0, 0);
    send_text(ws, "STARTTLS\r\nRCPT TO: me\r\n");
    read_until(rs, "\r\n", 0);
    expect(rs, "read:STARTTLS\r\n");
    assert_true(buffer_length(&rs->stream->in) > 0);
    assert_int_equal(iostream_start_tls(rs->stream, server_context(), NULL, 0, on_open, rs), -1);
    assert_int_equal(errno, EBUSY);
}

ROW(what_is_asked_before_on_open_waits)
{
    char name[] = "foo.example.com"; /* only the call looks at it */
    pair(0, 0);
    start_tls(believer(true), name);
    memset(name, 'x', strlen(name));
    write_text(ws, "QUIT\r\n");
    read_until(rs, "\r\n", 0);
    expect(ws, "open:TLSv1.3 wrote");
    expect(rs, "open:TLSv1.3 read:QUIT\r\n");
}

/* ---- whom the client believes ---- */

/* Why the handshake failed, in OpenSSL's words: they last. */
static void note_error(struct party *p, const char *word)
{
    if (strcmp(word, "end") == 0)
        p->arg = (void *)(uintptr_t)iostream_tls(p->stream)->error;
}

static void refuse(struct tls_context *client, const char *name, const char *why)
{
    pair(0, 0);
    rs->inside = ws->inside = note_error;
    start_tls(client, name);
    expect(ws, "end:tls/EPROTO");
    expect(rs, "end:tls/EPROTO");
    assert_string_equal(ws->arg, why);
    assert_non_null(strstr(rs->arg, "alert")); /* the server is told */
}

static void believe(struct tls_context *client, const char *name)
{
    pair(0, 0);
    start_tls(client, name);
    expect_both_open();
}

ROW(test_handshake_fail)
{
    refuse(believer(false), "localhost", "self-signed certificate");
}

ROW(test_check_hostname)
{
    refuse(believer(true), "127.0.0.2", "IP address mismatch");
}

ROW(test_match)
{
    believe(believer(true), "foo.example.com");
}

ROW(test_no_match)
{
    refuse(believer(true), "bar.example.com", "hostname mismatch");
}

ROW(test_check_disabled)
{
    believe(tls_client_new(NULL, true, &err), "bar.example.com");
}

/* ---- WaitForHandshakeTest: on_open is what tells ---- */

ROW(test_wait_for_handshake_future)
{
    pair(0, 0);
    start_tls(believer(true), "localhost");
    expect_nothing(rs); /* never inside the call */
    send_text(ws, "queued");
    read_bytes(rs, 6);
    expect(rs, "open:TLSv1.3 read:queued");
    expect(ws, "open:TLSv1.3");
}

static void assert_busy(struct party *p)
{
    assert_int_equal(iostream_start_tls(p->stream, server_context(), NULL, 0, on_open, p), -1);
    assert_int_equal(errno, EBUSY);
}

ROW(test_wait_for_handshake_already_waiting_error)
{
    pair(0, 0);
    start_tls(believer(true), "localhost");
    assert_busy(rs);
    expect_both_open();
}

ROW(test_wait_for_handshake_already_connected)
{
    believe(tls_client_new(NULL, true, &err), "bar.example.com");
    assert_busy(rs);
}

/* ---- what Tornado does not test ---- */

ROW(a_handshake_has_a_time_limit)
{
    struct party *p = meet(0);
    assert_int_equal(iostream_start_tls(p->stream, server_context(), NULL, 5, on_open, p), 0);
    pass(4);
    expect_nothing(p);
    pass(2);
    expect(p, "end:timeout/ETIMEDOUT");
}

ROW(a_bad_certificate_is_told_at_construction)
{
    static const struct tls_certificate missing = {.cert_file = "/nonexistent.pem"}, senseless = {.cert_file = "/dev/null"};
    assert_null(tls_server_new(&(struct tls_options){.certificates = &missing, .count = 1}, &err));
    assert_non_null(strstr(err.text, "/nonexistent.pem"));
    assert_null(tls_server_new(&(struct tls_options){.certificates = &senseless, .count = 1}, &err));
    assert_non_null(strstr(err.text, "/dev/null"));
    assert_null(tls_server_new(&(struct tls_options){.count = 0}, &err));
    assert_non_null(strstr(err.text, "no certificate"));
}

/* ---- any call, in on_open ---- */

static int echo_back(struct party *p)
{
    return iostream_relay(p->stream, p->stream);
}

static int read_one(struct party *p)
{
    return iostream_read_some(p->stream, 1, on_read, p);
}

static int write_one(struct party *p)
{
    return iostream_write(p->stream, "x", 1, on_wrote, p);
}

static int discard(struct party *p)
{
    return iostream_discard(p->stream);
}

static int start_again(struct party *p)
{
    return iostream_start_tls(p->stream, server_context(), NULL, HANDSHAKE_SECONDS, on_open, p);
}

static int finish(struct party *p)
{
    iostream_finish(p->stream);
    return 0;
}

static int close_there(struct party *p)
{
    iostream_close(p->stream);
    return 0;
}

static int abort_there(struct party *p)
{
    iostream_abort(p->stream, CLOSE_ERROR);
    return 0;
}

typedef int act(struct party *);
static act *const acts[] = {echo_back, read_one, write_one, discard, start_again, finish, close_there, abort_there};
static act *first, *second;

static void act_twice(struct iostream *s, void *arg)
{
    (void)s;
    first(arg);
    second(arg);
}

static void nothing(struct iostream *s, void *arg)
{
    (void)s, (void)arg;
}

/* The one in whose on_open it happens, and the other, both come to their end. */
static void play(act *one, act *other, bool client)
{
    first = one;
    second = other;
    pair(0, 0);
    struct party *actor = client ? ws : rs, *peer = client ? rs : ws;
    int started =
        iostream_start_tls(actor->stream, client ? client_context() : server_context(), NULL, HANDSHAKE_SECONDS, act_twice, actor);
    started |= iostream_start_tls(peer->stream, client ? server_context() : client_context(), NULL, HANDSHAKE_SECONDS, nothing, NULL);
    assert_int_equal(started, 0);
    run_quietly();
    for (int i = 0; i < 2; i++) {
        struct party *p = i ? peer : actor;
        if (p->stream)
            iostream_close(p->stream);
    }
    run_until(!rs->stream && !ws->stream);
    assert_int_equal(rs->ends + ws->ends, 2);
    *rs->diary = *ws->diary = '\0';
    dismiss_all();
}

ROW(every_two_calls_in_on_open)
{
    for (size_t i = 0; i < 2 * COUNT(acts) * COUNT(acts); i++)
        play(acts[i / 2 / COUNT(acts)], acts[i / 2 % COUNT(acts)], i % 2);
}

/* ---- a TLS listener whose client is gone at once ---- */

static struct tcpserver *server;
static unsigned served, rejected;

static int handle_stream(struct tcpserver *t, struct iostream *s, void *arg)
{
    (void)t, (void)arg;
    assert_non_null(iostream_tls(s)->cipher); /* the handshake is over */
    served++;
    iostream_close(s);
    return 0;
}

static void on_rejected(struct iostream *s, void *arg)
{
    (void)arg;
    assert_int_equal(iostream_reason(s), CLOSE_RESET);
    rejected++;
}

static void close_server(void)
{
    tcpserver_free(server);
}

static void on_connect(struct iostream *s, void *arg, const char *why)
{
    (void)why;
    *(struct party **)arg = host(s);
}

ROW(a_reset_at_once_costs_one_connection)
{
    const struct tcpserver_options options = {.tls = server_context(), .rejected = on_rejected};
    char where[32];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    served = rejected = 0;
    server = tcpserver_new(loop, handle_stream, NULL, &options, &err);
    at_tear_down = close_server;
    int port = tcpserver_listen(server, "127.0.0.1", "0", NULL, &err);
    address.sin_port = htons((in_port_t)port);
    struct party resetter = {.far = {.in = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)}};
    resetter.far.out = resetter.far.in;
    assert_int_equal(connect(resetter.far.in, (struct sockaddr *)&address, sizeof address), 0);
    far_reset(&resetter);
    run_until(rejected == 1);
    snprintf(where, sizeof where, "127.0.0.1:%d", port);
    struct target *target = target_parse(where, &err);
    struct party *client = NULL;
    assert_non_null(iostream_connect(loop, target, &(struct connect_options){.tls = client_context()}, on_connect, &client));
    run_until(client && served == 1);
    target_free(target);
    read_some(client, 1);
    expect(client, "read-eof");
    assert_int_equal(rejected, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(test_start_tls_smtp),
        STREAM_TEST(plaintext_ahead_is_refused),
        STREAM_TEST(what_is_asked_before_on_open_waits),
        STREAM_TEST(test_handshake_fail),
        STREAM_TEST(test_check_hostname),
        STREAM_TEST(test_match),
        STREAM_TEST(test_no_match),
        STREAM_TEST(test_check_disabled),
        STREAM_TEST(test_wait_for_handshake_future),
        STREAM_TEST(test_wait_for_handshake_already_waiting_error),
        STREAM_TEST(test_wait_for_handshake_already_connected),
        STREAM_TEST(a_handshake_has_a_time_limit),
        STREAM_TEST(every_two_calls_in_on_open),
        LOOP_TEST(a_bad_certificate_is_told_at_construction),
        WIRE_TEST(a_reset_at_once_costs_one_connection, TLS),
    };
    return cmocka_run_group_tests_name("conformance_tls", tests, NULL, forget_secrets);
}
