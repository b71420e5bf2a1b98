/* test_target.c - what is a target, what is not, and what the user is told. */
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#include "loop.h"
#include "valgrind.h"

static void test_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *text, *address; /* as address_text gives it */
        int family;
    } rows[] = {
        {"127.0.0.1:80", "127.0.0.1:80", AF_INET},
        {"255.255.255.255:65535", "255.255.255.255:65535", AF_INET},
        {"0.0.0.0:1", "0.0.0.0:1", AF_INET},
        {"10.0.0.1:000080", "10.0.0.1:80", AF_INET},
        {"[::1]:443", "[::1]:443", AF_INET6},
        {"[2001:db8:0:0::1]:65535", "[2001:db8::1]:65535", AF_INET6},
        {"[fe80::1%lo]:22", "[fe80::1%lo]:22", AF_INET6},
        {"unix:/run/app.sock", "unix:/run/app.sock", AF_UNIX},
        {"unix:app.sock", "unix:app.sock", AF_UNIX},
        {"unix:/odd:name:80", "unix:/odd:name:80", AF_UNIX},
        {"unix:@app", "unix:@app", AF_UNIX},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct errbuf err = {""};
        char text[ADDRESS_TEXT];
        struct target *t = target_parse(rows[i].text, &err);
        assert_string_equal(err.text, "");
        assert_non_null(t);
        assert_string_equal(target_text(t), rows[i].text);
        assert_int_equal(t->address.any.sa_family, rows[i].family);
        assert_string_equal(address_text(&t->address.any, t->address.length, text, sizeof text), rows[i].address);
        assert_int_equal(target_resolve(t, &err), 0); /* nothing to resolve */
        target_free(t);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        unsigned port;
    } rows[] = {
        {"localhost:8080", "localhost", 8080},       {"db-1.example.org:5432", "db-1.example.org", 5432},
        {"example.org.:80", "example.org.", 80},     {"_srv.x_y:1", "_srv.x_y", 1},
        {"1password.com:443", "1password.com", 443}, {"xn--bcher-kva.example:80", "xn--bcher-kva.example", 80},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct errbuf err = {""};
        struct target *t = target_parse(rows[i].text, &err);
        assert_string_equal(err.text, "");
        assert_non_null(t);
        assert_int_equal(t->address.length, 0);
        assert_string_equal(t->host, rows[i].host);
        assert_int_equal(ntohs(t->port), rows[i].port);
        target_free(t);
    }
}

static void test_service_name(void **state)
{
    (void)state;
    struct errbuf err = {""};
    if (!getservbyname("https", "tcp"))
        skip(); /* a system without /etc/services */
    struct target *t = target_parse("localhost:https", &err);
    assert_non_null(t);
    assert_int_equal(ntohs(t->port), 443);
    target_free(t);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"", "target \"\": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"foo", "target \"foo\": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"foo:", "target \"foo:\": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"8080", "target \"8080\": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"[::1]", "target \"[::1]\": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"[::1]80", "target \"[::1]80\": no port (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {":80", "target \":80\": no host (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"[]:80", "target \"[]:80\": no host (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"::1:80", "target \"::1:80\": an IPv6 address needs brackets (write [IPV6]:PORT)"},
        {"fe80::1", "target \"fe80::1\": an IPv6 address needs brackets (write [IPV6]:PORT)"},
        {"[::1:80", "target \"[::1:80\": no \"]\" after the IPv6 address (write [IPV6]:PORT)"},
        {"http://h:80/", "target \"http://h:80/\" is a URL (write HOST:PORT, [IPV6]:PORT or unix:PATH)"},
        {"h:0", "target \"h:0\": port 0 is out of range (1 to 65535)"},
        {"h:65536", "target \"h:65536\": port 65536 is out of range (1 to 65535)"},
        {"h:4294967376", "target \"h:4294967376\": port 4294967376 is out of range (1 to 65535)"},
        {"h:99999999999999999999", "target \"h:99999999999999999999\": port 99999999999999999999 is out of range (1 to 65535)"},
        {"h:-1", "target \"h:-1\": unknown service \"-1\" (a port is 1 to 65535 or a name in /etc/services)"},
        {"h:80x", "target \"h:80x\": unknown service \"80x\" (a port is 1 to 65535 or a name in /etc/services)"},
        {"h: 80", "target \"h: 80\": unknown service \" 80\" (a port is 1 to 65535 or a name in /etc/services)"},
        {"[foo]:80", "target \"[foo]:80\": \"foo\" is no IPv6 address"},
        {"[127.0.0.1]:80", "target \"[127.0.0.1]:80\": \"127.0.0.1\" is no IPv6 address"},
        {"127.0.0.256:80", "target \"127.0.0.256:80\": \"127.0.0.256\" is no IPv4 address"},
        {"127.1:80", "target \"127.1:80\": \"127.1\" is no IPv4 address"},
        {"a b:80", "target \"a b:80\": \"a b\" is no host name"},
        {"a..b:80", "target \"a..b:80\": \"a..b\" is no host name"},
        {".:80", "target \".:80\": \".\" is no host name"},
        {"b\303\274cher:80", "target \"b\303\274cher:80\": \"b\303\274cher\" is no host name"},
        {"unix:", "target \"unix:\": no path (write unix:PATH, or unix:@NAME for an abstract socket)"},
        {"unix:@", "target \"unix:@\": no path (write unix:PATH, or unix:@NAME for an abstract socket)"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct errbuf err = {""};
        assert_null(target_parse(rows[i].text, &err));
        assert_string_equal(err.text, rows[i].error);
    }
}

/* A text of the form prefix, `length` times 'x', suffix. */
static const char *long_text(const char *prefix, int length, const char *suffix)
{
    static char text[512];
    char body[400];
    memset(body, 'x', sizeof body);
    snprintf(text, sizeof text, "%s%.*s%s", prefix, length, body, suffix);
    return text;
}

static void test_lengths(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *suffix, *error; /* error NULL: accepted */
        int length;
    } rows[] = {
        {"unix:", "", NULL, 107},
        {"unix:", "", ": the path has 108 bytes, a unix socket's has at most 107", 108},
        {"unix:@", "", NULL, 106},
        {"unix:@", "", ": the path has 108 bytes, a unix socket's has at most 107", 107},
        {"", ":80", NULL, 63},
        {"", ":80", "is no host name", 64},
        {"", ":80", ": the host has 300 bytes, a host name has at most 254", 300},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct errbuf err = {""};
        struct target *t = target_parse(long_text(rows[i].prefix, rows[i].length, rows[i].suffix), &err);
        if (rows[i].error)
            assert_non_null(strstr(err.text, rows[i].error));
        else
            assert_string_equal(err.text, "");
        assert_int_equal(t == NULL, rows[i].error != NULL);
        target_free(t);
    }
}

/* Neither asks a name server: localhost is local by definition, and .onion is nobody's to resolve (RFC 6761, RFC 7686). */
static void test_resolve(void **state)
{
    (void)state;
    struct errbuf err = {""};
    struct target *t = target_parse("localhost:80", &err);
    assert_int_equal(target_resolve(t, &err), 0);
    target_free(t);
    t = target_parse("nobody.onion:80", &err);
    assert_int_equal(target_resolve(t, &err), -1);
    assert_string_equal(err.text, "resolve nobody.onion: Domain name not found");
    target_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_names),   cmocka_unit_test(test_service_name),
        cmocka_unit_test(test_refused),   cmocka_unit_test(test_lengths), LOOP_TEST(test_resolve),
    };
    limit_time(20);
    return cmocka_run_group_tests_name("target", tests, NULL, NULL);
}
