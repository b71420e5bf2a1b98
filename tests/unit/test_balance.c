/* test_balance.c - which target a connection goes to, by a clock of the test's own. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../handlers/balance.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { TARGETS = 4 };
static const char *const names[TARGETS] = {"a:1", "b:1", "c:1", "d:1"};
static const double T0 = 1000;

static uint64_t client_of(const char *ip)
{
    union {
        struct sockaddr any;
        struct sockaddr_in in4;
        struct sockaddr_in6 in6;
    } address;
    memset(&address, 0, sizeof address);
    address.any.sa_family = strchr(ip, ':') ? AF_INET6 : AF_INET;
    void *bytes = strchr(ip, ':') ? (void *)&address.in6.sin6_addr : (void *)&address.in4.sin_addr;
    assert_int_equal(inet_pton(address.any.sa_family, ip, bytes), 1);
    return balance_client(&address.any);
}

static uint64_t nth_client(unsigned n)
{
    char ip[32];
    snprintf(ip, sizeof ip, "10.%u.%u.%u", n >> 16 & 255, n >> 8 & 255, n & 255);
    return client_of(ip);
}

/* The letters of the targets, in the order in which one connection would try them; it stays at none. */
static const char *order(struct balance *b, uint64_t client)
{
    static char text[TARGETS + 1];
    bool tried[TARGETS] = {false};
    size_t length = 0;
    for (int i; (i = balance_pick(b, client, tried)) >= 0; balance_left(b, (unsigned)i))
        text[length++] = names[i][0];
    text[length] = '\0';
    return text;
}

/* As many connections that find their target at once, and stay there. */
static const char *first_choices(struct balance *b, unsigned count)
{
    static char text[64];
    for (unsigned i = 0; i < count; i++) {
        bool tried[TARGETS] = {false};
        text[i] = names[balance_pick(b, nth_client(i), tried)][0];
    }
    text[count] = '\0';
    return text;
}

static void test_round_robin(void **state)
{
    (void)state;
    struct balance *b = balance_new(BALANCE_ROUND_ROBIN, names, 3);
    assert_string_equal(first_choices(b, 7), "abcabca");
    balance_failed(b, 2, T0);
    assert_string_equal(first_choices(b, 5), "babab"); /* those that are left share evenly */
    balance_free(b);
}

static void test_first(void **state)
{
    (void)state;
    struct balance *b = balance_new(BALANCE_FIRST, names, 3);
    assert_string_equal(first_choices(b, 3), "aaa");
    balance_failed(b, 0, T0);
    assert_string_equal(first_choices(b, 3), "bbb");
    assert_true(balance_reached(b, 0));
    assert_string_equal(first_choices(b, 3), "aaa");
    balance_free(b);
}

static void test_least(void **state)
{
    (void)state;
    struct balance *b = balance_new(BALANCE_LEAST, names, 3);
    assert_string_equal(first_choices(b, 5), "abcab"); /* equally many: in turn */
    assert_int_equal(balance_connections(b, 1), 2);
    balance_left(b, 1);
    balance_left(b, 1);
    assert_int_equal(balance_connections(b, 1), 0);
    assert_string_equal(first_choices(b, 2), "bc"); /* 2 0 1; then b has one again, as c has */
    balance_left(b, 0);
    balance_left(b, 0);
    assert_string_equal(first_choices(b, 2), "ab"); /* 0 1 2 */
    balance_free(b);
}

static void test_each_once(void **state)
{
    (void)state;
    static const enum balance_policy policies[] = {BALANCE_ROUND_ROBIN, BALANCE_LEAST, BALANCE_SOURCE, BALANCE_FIRST};
    for (size_t i = 0; i < COUNT(policies); i++) {
        struct balance *b = balance_new(policies[i], names, TARGETS);
        for (unsigned down = 0; down <= TARGETS; down++) {
            const char *tried = order(b, nth_client(7));
            assert_int_equal(strlen(tried), TARGETS);
            for (unsigned t = 0; t < TARGETS; t++)
                assert_non_null(strchr(tried, names[t][0]));
            if (down < TARGETS)
                balance_failed(b, down, T0);
        }
        balance_free(b);
    }
}

/* What is down comes last: it is tried when there is nothing else. */
static void test_down_comes_last(void **state)
{
    (void)state;
    struct balance *b = balance_new(BALANCE_FIRST, names, 3);
    balance_failed(b, 0, T0);
    assert_string_equal(order(b, 0), "bca");
    balance_failed(b, 1, T0);
    assert_string_equal(order(b, 0), "cab");
    balance_failed(b, 2, T0);
    assert_string_equal(order(b, 0), "abc");
    balance_free(b);
}

/* ---- source */

enum { CLIENTS = 4000 };

static void choose(struct balance *b, char *choices)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        choices[i] = order(b, nth_client(i))[0];
}

static void test_source_moves_only_its_clients(void **state)
{
    (void)state;
    static char before[CLIENTS], after[CLIENTS];
    struct balance *b = balance_new(BALANCE_SOURCE, names, TARGETS);
    unsigned share[TARGETS] = {0}, moved_to[TARGETS] = {0};

    choose(b, before);
    balance_failed(b, 2, T0);
    choose(b, after);
    for (unsigned i = 0; i < CLIENTS; i++) {
        share[before[i] - 'a']++;
        if (before[i] == 'c')
            moved_to[after[i] - 'a']++;
        else
            assert_int_equal(after[i], before[i]);
    }
    for (unsigned t = 0; t < TARGETS; t++) {
        assert_in_range(share[t], CLIENTS / TARGETS * 85 / 100, CLIENTS / TARGETS * 115 / 100);
        if (t != 2) /* its clients spread over the others */
            assert_in_range(moved_to[t], CLIENTS / TARGETS / 3 * 75 / 100, CLIENTS / TARGETS / 3 * 125 / 100);
    }
    assert_int_equal(moved_to[2], 0);
    balance_reached(b, 2);
    choose(b, after);
    assert_memory_equal(before, after, sizeof before);
    balance_free(b);
}

/* Other processes, and a command line in another order, choose alike. */
static void test_source_goes_by_names(void **state)
{
    (void)state;
    static const char *const backwards[TARGETS] = {"d:1", "c:1", "b:1", "a:1"};
    struct balance *b = balance_new(BALANCE_SOURCE, names, TARGETS), *other = balance_new(BALANCE_SOURCE, backwards, TARGETS);
    for (unsigned i = 0; i < 100; i++) {
        bool tried[TARGETS] = {false}, others[TARGETS] = {false};
        uint64_t client = nth_client(i);
        int picked = balance_pick(b, client, tried), same = balance_pick(other, client, others);
        assert_string_equal(names[picked], backwards[same]);
    }
    balance_free(b);
    balance_free(other);
}

static void test_source_sees_addresses(void **state)
{
    (void)state;
    const struct sockaddr local = {.sa_family = AF_UNIX};
    assert_int_equal(client_of("192.0.2.1"), client_of("::ffff:192.0.2.1"));
    assert_int_not_equal(client_of("192.0.2.1"), client_of("192.0.2.2"));
    assert_int_not_equal(client_of("2001:db8::1"), client_of("2001:db8::2"));
    assert_int_equal(balance_client(&local), balance_client(&local));
}

/* ---- down and up */

static void test_delay_grows(void **state)
{
    (void)state;
    static const double delays[] = {2, 4, 8, 16, 30, 30};
    struct balance *b = balance_new(BALANCE_FIRST, names, 2);
    double now = T0, delay = balance_failed(b, 0, now);
    assert_float_equal(delay, 1, 0);
    for (size_t i = 0; i < COUNT(delays); i++) {
        assert_int_equal(balance_due(b, now + delay - 0.001), -1);
        now += delay;
        assert_int_equal(balance_due(b, now), 0);
        assert_int_equal(balance_due(b, now), -1); /* one trial at a time */
        delay = balance_failed(b, 0, now);
        assert_float_equal(delay, delays[i], 0);
    }
    now += delay;
    assert_int_equal(balance_due(b, now), 0);
    assert_true(balance_reached(b, 0));
    assert_false(balance_reached(b, 0));
    assert_int_equal(balance_due(b, now + 1000), -1);
    assert_float_equal(balance_failed(b, 0, now), 1, 0); /* from the start again */
    balance_free(b);
}

/* Connections that were on their way when it failed do not make it worse. */
static void test_failures_together_count_once(void **state)
{
    (void)state;
    struct balance *b = balance_new(BALANCE_FIRST, names, 2);
    assert_float_equal(balance_failed(b, 0, T0), 1, 0);
    for (int i = 0; i < 100; i++)
        assert_float_equal(balance_failed(b, 0, T0 + 0.5), 0, 0);
    assert_int_equal(balance_due(b, T0 + 1), 0);
    balance_free(b);
}

/* While all are down it is the connections that find out. */
static void test_no_trial_while_all_are_down(void **state)
{
    (void)state;
    struct balance *b = balance_new(BALANCE_FIRST, names, 2);
    balance_failed(b, 0, T0);
    balance_failed(b, 1, T0);
    assert_int_equal(balance_due(b, T0 + 100), -1);
    assert_true(balance_reached(b, 1));
    assert_int_equal(balance_due(b, T0 + 100), 0);
    balance_free(b);

    b = balance_new(BALANCE_FIRST, names, 1);
    balance_failed(b, 0, T0);
    assert_int_equal(balance_due(b, T0 + 100), -1);
    assert_string_equal(order(b, 0), "a");
    balance_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_first),
        cmocka_unit_test(test_least),
        cmocka_unit_test(test_each_once),
        cmocka_unit_test(test_down_comes_last),
        cmocka_unit_test(test_source_moves_only_its_clients),
        cmocka_unit_test(test_source_goes_by_names),
        cmocka_unit_test(test_source_sees_addresses),
        cmocka_unit_test(test_delay_grows),
        cmocka_unit_test(test_failures_together_count_once),
        cmocka_unit_test(test_no_trial_while_all_are_down),
    };
    return cmocka_run_group_tests_name("balance", tests, NULL, NULL);
}
