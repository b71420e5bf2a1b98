/* test_resolve.c - names to addresses. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "name_server.h"
#include "valgrind.h"

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
    limit_time(20);
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
