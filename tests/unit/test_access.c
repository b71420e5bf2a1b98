/* test_access.c - sets of IP addresses: what is in them, what is no rule, and what a file may hold. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "loop.h"

static struct networks *made_of(const char *const *rules)
{
    struct errbuf err = {""};
    struct networks *n = networks_new(rules, NULL, &err);
    assert_string_equal(err.text, "");
    assert_non_null(n);
    return n;
}

static bool holds(const struct networks *n, const char *ip)
{
    struct address a = {0};
    if (strchr(ip, ':')) {
        a.in6.sin6_family = AF_INET6;
        assert_int_equal(inet_pton(AF_INET6, ip, &a.in6.sin6_addr), 1);
    } else {
        a = inet(ip, 80);
    }
    return networks_contain(n, &a.any);
}

static void test_members(void **state)
{
    (void)state;
    static const struct {
        const char *rules[5], *in[6], *out[6];
    } rows[] = {
        {{NULL}, {NULL}, {"0.0.0.0", "127.0.0.1", "::", "::1"}},
        {{"192.0.2.7"}, {"192.0.2.7", "::ffff:192.0.2.7"}, {"192.0.2.6", "192.0.2.8", "::192.0.2.7", "::ffff:192.0.2.6"}},
        {{"192.0.2.0/24"}, {"192.0.2.0", "192.0.2.255", "::ffff:192.0.2.1"}, {"192.0.1.255", "192.0.3.0", "2001:db8::"}},
        {{"0.0.0.0/0"}, {"0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"}, {"::", "::1", "ffff::", "::1.2.3.4"}},
        {{"::/0"}, {"::", "::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}, {"1.2.3.4", "::ffff:1.2.3.4"}},
        {{"2001:db8::/33"}, {"2001:db8::", "2001:db8:7fff:ffff::"}, {"2001:db8:8000::", "2001:db7::", "1.2.3.4"}},
        {{"::ffff:10.0.0.0/104"}, {"10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"}, {"11.0.0.0", "9.255.255.255"}},
        {{"::ffff:0.0.0.0/96"}, {"1.2.3.4"}, {"::1"}},
        {{"10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16", "10.0.0.0/32"}, {"10.0.0.0", "10.1.2.3", "10.2.0.0", "10.255.255.255"}, {"11.0.0.0"}},
        {{"10.0.0.0/31", "10.0.0.2", "10.0.0.4/31"}, {"10.0.0.1", "10.0.0.2", "10.0.0.5"}, {"10.0.0.3", "10.0.0.6", "9.255.255.255"}},
        {{"128.0.0.0/1", "8000::/1"}, {"128.0.0.0", "255.255.255.255", "8000::", "ffff::"}, {"127.255.255.255", "7fff::"}},
        {{"fe80::1"}, {"fe80::1"}, {"fe80::2", "fe80::"}},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct networks *n = made_of(rows[i].rules);
        for (const char *const *ip = rows[i].in; *ip; ip++)
            assert_true(holds(n, *ip));
        for (const char *const *ip = rows[i].out; *ip; ip++)
            assert_false(holds(n, *ip));
        networks_free(n);
    }
}

static void test_only_ip_addresses_are_members(void **state)
{
    (void)state;
    static const char *const all[] = {"0.0.0.0/0", "::/0", NULL};
    struct networks *n = made_of(all);
    assert_int_equal(networks_rules(n), 2);
    assert_false(networks_contain(n, &(struct sockaddr){.sa_family = AF_UNIX}));
    assert_false(networks_contain(n, &(struct sockaddr){.sa_family = AF_UNSPEC}));
    networks_free(n);
    networks_free(NULL);
}

/* Rules and addresses from a small world, where much is nested and much is next to each other; said by the definition itself. */
static void test_against_the_definition(void **state)
{
    (void)state;
    enum { RULES = 12, ROUNDS = 3000 };
    srandom(5);
    for (int round = 0; round < ROUNDS; round++) {
        char text[RULES][32];
        const char *rules[RULES + 1];
        unsigned first[RULES], last[RULES], count = (unsigned)random() % (RULES + 1);
        for (unsigned i = 0; i < count; i++) {
            unsigned bits = 24 + (unsigned)random() % 9;
            first[i] = (unsigned)random() % 256 & ~0U << (32 - bits);
            last[i] = first[i] | ~(~0U << (32 - bits));
            snprintf(text[i], sizeof text[i], "10.0.0.%u/%u", first[i], bits);
            rules[i] = text[i];
        }
        rules[count] = NULL;
        struct networks *n = made_of(rules);
        for (unsigned ip = 0; ip < 256; ip++) {
            struct address a = inet("10.0.0.0", 1);
            a.in4.sin_addr.s_addr |= htonl(ip);
            bool in = false;
            for (unsigned i = 0; i < count; i++)
                in |= first[i] <= ip && ip <= last[i];
            assert_int_equal(networks_contain(n, &a.any), in);
        }
        networks_free(n);
    }
}

static void assert_refused(const char *rule, const char *why)
{
    struct errbuf err = {""};
    const char *rules[] = {"10.0.0.0/8", rule, NULL};
    assert_null(networks_new(rules, NULL, &err));
    assert_string_equal(err.text, why);
}

static void test_what_is_no_rule(void **state)
{
    (void)state;
    static const char *const words[] = {"localhost",
                                        "",
                                        " 10.0.0.1",
                                        "10.0.0.1 ",
                                        "10.0.0",
                                        "10.0.0.0.0",
                                        "10.0.0.256",
                                        "010.0.0.1",
                                        "1.2.3.4,::1",
                                        "/8",
                                        "[::1]",
                                        "fe80::1%lo",
                                        ":::",
                                        "2001:db8::g",
                                        "1.2.3.4-1.2.3.9",
                                        "*",
                                        "10.0.0.0\\24",
                                        "0x7f.0.0.1",
                                        "1:2:3:4:5:6:7:8:9",
                                        "1111:2222:3333:4444:5555:6666:7777:8888:9999:0000"};
    for (size_t i = 0; i < COUNT(words); i++) {
        char why[200];
        snprintf(why, sizeof why, "\"%s\" is not an IP address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32", words[i]);
        assert_refused(words[i], why);
    }
    static const char *const lengths[] = {"10.0.0.0/33",   "10.0.0.0/",           "10.0.0.0/-1",       "10.0.0.0/+8",
                                          "10.0.0.0/8 ",   "10.0.0.0/8/8",        "10.0.0.0/x",        "10.0.0.0/0x8",
                                          "10.0.0.0/1000", "10.0.0.0/4294967304", "10.0.0.0/255.0.0.0"};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char why[200];
        snprintf(why, sizeof why, "\"%s\": after the slash stands a number from 0 to 32", lengths[i]);
        assert_refused(lengths[i], why);
    }
    static const char *const octal[] = {"10.0.0.0/08", "10.0.0.0/010", "0.0.0.0/00", "::1/0128"};
    for (size_t i = 0; i < COUNT(octal); i++) {
        char why[200];
        snprintf(why, sizeof why, "\"%s\": after the slash stands a number without leading zeros, which elsewhere mean octal", octal[i]);
        assert_refused(octal[i], why);
    }
    assert_refused("::/129", "\"::/129\": after the slash stands a number from 0 to 128");
    assert_refused("10.1.2.3/8", "\"10.1.2.3/8\" names one address and a whole network; write 10.0.0.0/8 for the network");
    assert_refused("10.0.0.1/0", "\"10.0.0.1/0\" names one address and a whole network; write 0.0.0.0/0 for the network");
    assert_refused("2001:db8::1/64", "\"2001:db8::1/64\" names one address and a whole network; write 2001:db8::/64 for the network");
    assert_refused("::ffff:10.0.0.0/90",
                   "\"::ffff:10.0.0.0/90\" names one address and a whole network; write ::ffc0:0:0/90 for the network");
}

/* ---- files ---- */

static char directory[] = "/tmp/hark-access.XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

static const char *in_directory(const char *name)
{
    static char path[200];
    snprintf(path, sizeof path, "@%s/%s", directory, name);
    return path;
}

/* Returns the rule that names it. */
static const char *file_of(const char *bytes, size_t length)
{
    const char *rule = in_directory("rules");
    FILE *file = fopen(rule + 1, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    return rule;
}

static void test_files(void **state)
{
    (void)state;
    static const char text[] = "# who may\n\n10.0.0.0/8\n  192.0.2.7 \t# the office\r\n\t\n#10.9.0.0/16\n2001:db8::/32#v6\n\f172.16.0.0/12";
    const char *rules[] = {"203.0.113.0/24", file_of(text, sizeof text - 1), "198.51.100.1", NULL};
    struct networks *n = made_of(rules);
    assert_int_equal(networks_rules(n), 6);
    static const char *const in[] = {"10.9.1.1", "192.0.2.7", "2001:db8::1", "172.16.0.1", "203.0.113.9", "198.51.100.1"};
    for (size_t i = 0; i < COUNT(in); i++)
        assert_true(holds(n, in[i]));
    assert_false(holds(n, "192.0.2.8"));
    networks_free(n);
    const char *none[] = {file_of("", 0), NULL};
    n = made_of(none);
    assert_int_equal(networks_rules(n), 0);
    assert_false(holds(n, "10.9.1.1"));
    networks_free(n);
    unlink(rules[1] + 1);
}

static void assert_file_refused(const char *bytes, size_t length, const char *why)
{
    char expected[400];
    const char *rule = file_of(bytes, length);
    snprintf(expected, sizeof expected, "%s%s", rule + 1, why);
    assert_refused(rule, expected);
    unlink(rule + 1);
}

static void test_bad_files(void **state)
{
    (void)state;
    assert_file_refused("10.0.0.0/8\n\n# x\n10.0.0\n", 23,
                        ":4: \"10.0.0\" is not an IP address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32");
    assert_file_refused("10.0.0.1 10.0.0.2", 17,
                        ":1: \"10.0.0.1 10.0.0.2\" is not an IP address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32");
    assert_file_refused("@other\n", 7,
                        ":1: \"@other\" is not an IP address or a network, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32");
    assert_file_refused("10.0.0.1\n10.0.0.1\0/8\n", 21, ":2: there is a zero byte: this is not a text file");

    char why[300];
    const char *rule = in_directory("missing");
    snprintf(why, sizeof why, "cannot read \"%s\": No such file or directory", rule + 1);
    assert_refused(rule, why);
    rule = in_directory("pipe"); /* opening it must not wait for a writer */
    assert_int_equal(mkfifo(rule + 1, 0600), 0);
    snprintf(why, sizeof why, "cannot read \"%s\": it is not a regular file", rule + 1);
    assert_refused(rule, why);
    unlink(rule + 1);
    assert_refused("@/", "cannot read \"/\": it is not a regular file");
    assert_refused("@", "cannot read \"\": No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_only_ip_addresses_are_members),
        cmocka_unit_test(test_against_the_definition),
        cmocka_unit_test(test_what_is_no_rule),
        LOOP_TEST(test_files),
        LOOP_TEST(test_bad_files),
    };
    return cmocka_run_group_tests_name("access", tests, make_directory, remove_directory);
}
