/* test_resolve.c - names to addresses, with a name server in the test. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loop.h"

/* ---- the name server: it knows the addresses below, loses the first queries for "lossy", all for "silent", and talks nonsense of "garbage" */

struct name_server {
    ev_io io;
    unsigned queries;
};

enum { LOST = 3, TYPE_A = 1, TYPE_AAAA = 28, NXDOMAIN = 3 };
enum { ANSWERS = 7, FIRST_LABEL = 12, HEADER_BYTES = 12 }; /* where, in a message (RFC 1035, section 4.1.1) */

static const struct {
    const char *label;
    const char *ip;
} zone[] = {
    {"four", "127.0.0.1"},    {"mixed", "127.0.0.1"}, {"mixed", "127.0.0.2"}, {"mixed", "127.0.0.3"}, {"mixed", "2001:db8::1"},
    {"mixed", "2001:db8::2"}, {"mixed", "::1"},       {"six", "::1"},         {"lossy", "127.0.0.1"},
};

static size_t append_record(unsigned char *at, int type, const char *ip)
{
    const unsigned char head[] = {0xc0, HEADER_BYTES, 0, (unsigned char)type, 0, 1, 0, 0, 0, 60, 0, type == TYPE_A ? 4 : 16};
    memcpy(at, head, sizeof head);
    assert_int_equal(inet_pton(type == TYPE_A ? AF_INET : AF_INET6, ip, at + sizeof head), 1);
    return sizeof head + head[sizeof head - 1];
}

static bool is_about(const unsigned char *message, const char *label)
{
    return message[FIRST_LABEL] == strlen(label) && !memcmp(message + FIRST_LABEL + 1, label, strlen(label));
}

/* Turns the query in `message` into its answer; returns the answer's length, 0 for none. */
static size_t answer(unsigned char *message, size_t length, unsigned queries)
{
    const int type = message[length - 3];
    bool known = false;
    size_t end = length;

    if (is_about(message, "silent") || (is_about(message, "lossy") && queries <= LOST))
        return 0;
    for (size_t i = 0; i < COUNT(zone); i++) {
        if (!is_about(message, zone[i].label))
            continue;
        known = true;
        if (strchr(zone[i].ip, ':') ? type != TYPE_AAAA : type != TYPE_A)
            continue;
        end += append_record(message + end, type, zone[i].ip);
        message[ANSWERS]++;
    }
    message[2] = 0x81; /* a response, recursion desired */
    message[3] = known ? 0x80 : 0x80 | NXDOMAIN;
    if (is_about(message, "garbage")) {
        message[3] = 0x80;
        message[ANSWERS] = 200; /* so many, and then there is none */
    }
    return end;
}

static void on_query(struct ev_loop *l, ev_io *io, int events)
{
    (void)l, (void)events;
    struct name_server *server = container_of(io, struct name_server, io);
    unsigned char message[1024];
    struct address from = {.length = sizeof from.in6};
    ssize_t length = recvfrom(io->fd, message, 256, 0, &from.any, &from.length);
    assert_true(length > HEADER_BYTES + 4);
    server->queries++;
    size_t end = answer(message, (size_t)length, server->queries);
    if (end)
        sendto(io->fd, message, end, 0, &from.any, from.length);
}

static void use_name_server(unsigned port)
{
    char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%u", port);
    assert_int_equal(resolver_set_servers(engine, text), 0);
}

static void name_server_start(struct name_server *server)
{
    struct address a = inet("127.0.0.1", 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &a.any, a.length), 0);
    server->queries = 0;
    ev_io_init(&server->io, on_query, fd, EV_READ);
    ev_io_start(loop, &server->io);
    use_name_server(port_of(fd));
}

static void name_server_stop(struct name_server *server)
{
    ev_io_stop(loop, &server->io);
    close(server->io.fd);
}

/* ---- one question */

struct result {
    struct resolving *resolving;
    unsigned calls;
    struct address_list *list;
    char why[sizeof(((struct errbuf *)0)->text)];
};

static void on_result(void *arg, struct address_list *list, const char *why)
{
    struct result *r = arg;
    r->calls++;
    r->list = list;
    assert_true(!list != !why);
    snprintf(r->why, sizeof r->why, "%s", why ? why : "");
}

static void ask(struct result *r, const char *host, double timeout_seconds)
{
    *r = (struct result){.calls = 0};
    r->resolving = resolve_start(engine, host, htons(80), timeout_seconds, on_result, r);
    assert_non_null(r->resolving);
    assert_int_equal(r->calls, 0); /* never inside the call */
}

static void wait_for(struct result *r)
{
    while (r->calls == 0)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(r->calls, 1);
}

/* ---- answers */

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *host, *address;
    } rows[] = {{"four.test", "127.0.0.1:80"}, {"six.test", "[::1]:80"}};
    struct name_server server;
    name_server_start(&server);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct result r;
        char text[ADDRESS_TEXT];
        ask(&r, rows[i].host, 5);
        wait_for(&r);
        assert_string_equal(r.why, "");
        assert_int_equal(r.list->count, 1);
        assert_string_equal(address_text(&r.list->items[0].any, r.list->items[0].length, text, sizeof text), rows[i].address);
        free(r.list);
    }
    name_server_stop(&server);
}

/* c-ares has to be called when its time has come, or it never asks again. */
static void test_lost_queries(void **state)
{
    (void)state;
    struct result r;
    struct name_server server;
    setenv("RES_OPTIONS", "retrans:50", 1); /* milliseconds, not the 5 s that c-ares waits else */
    name_server_start(&server);
    ask(&r, "lossy.test", 5);
    wait_for(&r);
    unsetenv("RES_OPTIONS");
    assert_string_equal(r.why, "");
    assert_true(server.queries > LOST);
    free(r.list);
    name_server_stop(&server);
}

static void test_families_take_turns(void **state)
{
    (void)state;
    struct result r;
    struct name_server server;
    name_server_start(&server);
    ask(&r, "mixed.test", 5);
    wait_for(&r);
    assert_non_null(r.list);
    assert_int_equal(r.list->count, 6);
    for (size_t i = 1; i < 6; i++)
        assert_int_not_equal(r.list->items[i].any.sa_family, r.list->items[i - 1].any.sa_family);
    free(r.list);
    name_server_stop(&server);
}

static void test_hosts_file(void **state)
{
    (void)state;
    struct result r;
    ask(&r, "localhost", 5);
    wait_for(&r);
    assert_non_null(r.list);
    assert_int_equal(address_port(&r.list->items[0].any), 80);
    free(r.list);
}

static void test_failures(void **state)
{
    (void)state;
    static const struct {
        const char *host, *why;
        double timeout_seconds;
    } rows[] = {
        {"nobody.test", "resolve nobody.test: Domain name not found", 5},
        {"garbage.test", "resolve garbage.test: Misformatted DNS reply", 5},
        {"silent.test", "resolve silent.test: timed out after 0.05 s", 0.05},
    };
    struct name_server server;
    name_server_start(&server);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct result r;
        ask(&r, rows[i].host, rows[i].timeout_seconds);
        wait_for(&r);
        assert_string_equal(r.why, rows[i].why);
    }
    name_server_stop(&server);
}

static void test_no_name_server(void **state)
{
    (void)state;
    struct result r;
    struct name_server server;
    name_server_start(&server);
    name_server_stop(&server); /* its port is closed now */
    ask(&r, "no.such.invalid", 5);
    wait_for(&r);
    assert_string_equal(r.why, "resolve no.such.invalid: Could not contact DNS servers");
}

/* ---- cancelling */

static void test_cancel_at_once(void **state)
{
    (void)state;
    static const char *const hosts[] = {"localhost", "silent.test", "four.test"}; /* the first has its answer already */
    struct name_server server;
    name_server_start(&server);
    for (size_t i = 0; i < COUNT(hosts); i++) {
        struct result r;
        ask(&r, hosts[i], 5);
        resolve_cancel(r.resolving);
        ev_run(loop, EVRUN_NOWAIT);
        assert_int_equal(r.calls, 0);
    }
    name_server_stop(&server);
}

static void test_cancel_one_of_two(void **state)
{
    (void)state;
    struct result silent, other;
    struct name_server server;
    name_server_start(&server);
    ask(&silent, "silent.test", 5);
    ask(&other, "nobody.test", 5);
    resolve_cancel(silent.resolving);
    wait_for(&other); /* none the worse */
    assert_string_equal(other.why, "resolve nobody.test: Domain name not found");
    assert_int_equal(silent.calls, 0);
    name_server_stop(&server);
}

/* With nobody waiting any more c-ares has to forget them all, or tear_down would run the loop until they time out. */
static void test_cancel_all(void **state)
{
    (void)state;
    struct result one, two;
    struct name_server server;
    name_server_start(&server);
    ask(&one, "silent.test", 5);
    ask(&two, "silent.test", 5);
    while (server.queries < 4)
        ev_run(loop, EVRUN_ONCE);
    resolve_cancel(one.resolving);
    resolve_cancel(two.resolving);
    name_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(test_addresses),      LOOP_TEST(test_lost_queries),      LOOP_TEST(test_families_take_turns),
        LOOP_TEST(test_hosts_file),     LOOP_TEST(test_failures),          LOOP_TEST(test_no_name_server),
        LOOP_TEST(test_cancel_at_once), LOOP_TEST(test_cancel_one_of_two), LOOP_TEST(test_cancel_all),
    };
    alarm(20);
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
