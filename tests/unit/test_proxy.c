/* test_proxy.c - PROXY headers: every kind, every prefix, whatever can be wrong with one, and what we write ourselves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../core/proxy.h"
#include "loop.h"

#define BYTES(literal) literal, sizeof(literal) - 1
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define IN4 "\xc0\x00\x02\x01\xc6\x33\x64\x02\xc8\x22\x01\xbb" /* 192.0.2.1:51234, 198.51.100.2:443 */
#define IN6 "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x00\x01\xff\xff"
#define SIXTY "............................................................"

/* In memory of just that size, so that sanitizers see a read beyond it. */
static ssize_t parse(const char *bytes, size_t length, struct address *client)
{
    char *copy = malloc(length ? length : 1);
    memcpy(copy, bytes, length);
    ssize_t result = proxy_parse(copy, length, client);
    free(copy);
    return result;
}

static const char *name_of(const struct address *client)
{
    static char text[ADDRESS_TEXT];
    return client->length ? address_text(&client->any, client->length, text, sizeof text) : "none";
}

struct row {
    const char *header;
    size_t length;
    const char *client; /* or "none" */
};

static const struct row good[] = {
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n"), "192.0.2.1:51234"},
    {BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), "255.255.255.255:65535"},
    {BYTES("PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n"), "0.0.0.0:0"},
    {BYTES("PROXY TCP6 2001:db8::1 ::1 1 2\r\n"), "[2001:db8::1]:1"},
    {BYTES("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"), "192.0.2.1:1"},
    {BYTES("PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
     "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
    {BYTES("PROXY UNKNOWN\r\n"), "none"},
    {BYTES("PROXY UNKNOWN whatever  it says \r here\r\n"), "none"},
    {BYTES("PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n"),
     "none"}, /* 107 */
    {BYTES(SIGNATURE "\x21\x11\0\x0c" IN4), "192.0.2.1:51234"},
    {BYTES(SIGNATURE "\x21\x12\0\x0c" IN4), "192.0.2.1:51234"}, /* datagrams */
    {BYTES(SIGNATURE "\x21\x21\0\x24" IN6), "[2001:db8::1]:1"},
    {BYTES(SIGNATURE "\x21\x11\0\x0f" IN4 "\x04\0\0"), "192.0.2.1:51234"},
    {BYTES(SIGNATURE "\x21\x11\0\x14" IN4 "\xee\0\x02zz\x04\0\0"), "192.0.2.1:51234"},
    {BYTES(SIGNATURE "\x21\x11\0\x18" IN4 "\x01\0\x02h2\x03\0\x04\xbf\x20\x45\xbe"),
     "192.0.2.1:51234"},                                             /* its sum was worked out by another program */
    {BYTES(SIGNATURE "\x20\0\0\0"), "none"},                         /* LOCAL */
    {BYTES(SIGNATURE "\x20\x11\0\x0c" IN4), "none"},                 /* whatever it says */
    {BYTES(SIGNATURE "\x20\xff\0\x05\x01\xff\xff\xff\xff"), "none"}, /* families and TLVs do not count in it */
    {BYTES(SIGNATURE "\x21\0\0\0"), "none"},
    {BYTES(SIGNATURE "\x21\0\0\x05zzzzz"), "none"},
    {BYTES(SIGNATURE "\x21\x10\0\x0c" IN4), "none"},
    {BYTES(SIGNATURE "\x21\x31\0\xd8" SIXTY SIXTY SIXTY IN6), "none"}, /* unix sockets: 216 bytes */
};

static void test_headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct address client;
        assert_int_equal(parse(good[i].header, good[i].length, &client), good[i].length);
        assert_string_equal(name_of(&client), good[i].client);
    }
}

static void test_a_part_is_no_header_yet(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct address client;
        for (size_t length = 0; length < good[i].length; length++)
            assert_int_equal(parse(good[i].header, length, &client), 0);
    }
}

static void test_what_follows_is_left_alone(void **state)
{
    (void)state;
    static const char *const after[] = {"x", "\r\n", "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n", SIGNATURE, "\x03\0\x04zzzz"};
    for (size_t i = 0; i < COUNT(good); i++) {
        for (size_t j = 0; j < COUNT(after); j++) {
            struct address client;
            char bytes[600];
            memcpy(bytes, good[i].header, good[i].length);
            memcpy(bytes + good[i].length, after[j], strlen(after[j]));
            assert_int_equal(parse(bytes, good[i].length + strlen(after[j]), &client), good[i].length);
            assert_string_equal(name_of(&client), good[i].client);
        }
    }
}

static const struct {
    const char *header;
    size_t length;
} bad[] = {
    {BYTES("x")},
    {BYTES("\n")},
    {BYTES("\0")},
    {BYTES("GET / HTTP/1.1\r\n")},
    {BYTES("\x16\x03\x01")}, /* TLS */
    {BYTES("PROXX")},
    {BYTES("proxy TCP4 192.0.2.1 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY  TCP4 192.0.2.1 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY TCP4  192.0.2.1 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234  443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234 443 \r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234 443 x\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1\r\n")},
    {BYTES("PROXY TCP4\r\n")},
    {BYTES("PROXY \r\n")},
    {BYTES("PROXY \n")},
    {BYTES("PROXY UNKNOWNS\r\n")},
    {BYTES("PROXY UNKNOW\r\n")},
    {BYTES("PROXY UDP4 192.0.2.1 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 65536 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 51234 99999\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 051234 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 00 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 0x1 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.2 4294967297 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.256 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY TCP4 192.0.02.1 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100 51234 443\r\n")},
    {BYTES("PROXY TCP4 2001:db8::1 ::1 51234 443\r\n")},
    {BYTES("PROXY TCP6 192.0.2.1 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY TCP6 fe80::1%lo ::1 51234 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1\0 198.51.100.2 51234 443\r\n")},
    {BYTES("PROXY UNKNOWN \0\r\n")},
    {BYTES("PROXY UNKNOWN .ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n")}, /* 108 */
    {BYTES("PROXY " SIXTY SIXTY)},
    {BYTES("\r\n\r\n\0\r\nQUIX")},
    {BYTES(SIGNATURE "\x11")}, /* version 1 */
    {BYTES(SIGNATURE "\x31")},
    {BYTES(SIGNATURE "\x22")}, /* no such command */
    {BYTES(SIGNATURE "\x2f")},
    {BYTES(SIGNATURE "\x21\x41\0\x0c" IN4)}, /* no such family */
    {BYTES(SIGNATURE "\x21\x13\0\x0c" IN4)}, /* no such transport */
    {BYTES(SIGNATURE "\x21\x11\0\x0b" IN4)}, /* too short for its addresses */
    {BYTES(SIGNATURE "\x21\x11\0\0")},
    {BYTES(SIGNATURE "\x21\x21\0\x23" IN6)},
    {BYTES(SIGNATURE "\x21\x21\0\x0c" IN4)},
    {BYTES(SIGNATURE "\x21\x31\0\x0c" IN4)},
    {BYTES(SIGNATURE "\x21\x11\0\x0d" IN4 "\x04")}, /* TLVs that do not fit */
    {BYTES(SIGNATURE "\x21\x11\0\x0e" IN4 "\x04\0")},
    {BYTES(SIGNATURE "\x21\x11\0\x0f" IN4 "\x04\0\x01")},
    {BYTES(SIGNATURE "\x21\x11\0\x10" IN4 "\x04\0\x02z")},
    {BYTES(SIGNATURE "\x21\x11\0\x0f" IN4 "\x04\xff\xff")},
    {BYTES(SIGNATURE "\x21\x11\0\x13" IN4 "\x04\0\x01z\x05\xff\xff")},
    {BYTES(SIGNATURE "\x21\x11\0\x13" IN4 "\x03\0\x04zzzz")}, /* not its checksum */
    {BYTES(SIGNATURE "\x21\x11\0\x12" IN4 "\x03\0\x03zzz")},
};

static void test_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct address client;
        assert_int_equal(parse(bad[i].header, bad[i].length, &client), -1);
    }
}

static void test_the_longest_header(void **state)
{
    (void)state;
    static char bytes[16 + 65535 + 100] = SIGNATURE "\x21\x11\xff\xff" IN4 "\x04\xff\xf0";
    struct address client;
    assert_int_equal(parse(bytes, 16 + 65534, &client), 0);
    assert_int_equal(parse(bytes, 16 + 65535, &client), 16 + 65535);
    assert_int_equal(parse(bytes, sizeof bytes, &client), 16 + 65535);
    assert_string_equal(name_of(&client), "192.0.2.1:51234");
}

/* Headers with some bytes changed, cut or doubled: nothing is read beyond the end (sanitizers see to that), what is said of the whole
 * was not denied of a part, and does not depend on what follows. */
static void test_random_bytes(void **state)
{
    (void)state;
    enum { ROUNDS = 200000 };
    srandom(7);
    for (int round = 0; round < ROUNDS; round++) {
        const struct row *row = &good[(unsigned)random() % COUNT(good)];
        char bytes[512];
        size_t length = row->length, most = (unsigned)random() % (length + 30);
        memset(bytes, (int)random(), sizeof bytes);
        memcpy(bytes, row->header, length);
        for (long changes = random() % 4; changes > 0; changes--)
            bytes[(unsigned)random() % length] = (char)(random() % 3 ? random() : random() % 4);
        struct address client, other;
        ssize_t result = parse(bytes, most, &client);
        assert_in_range(result + 1, 0, most + 1);
        size_t part = (unsigned)random() % (most + 1);
        ssize_t before = parse(bytes, part, &other);
        assert_true(before == result || before == 0);
        if (result > 0) {
            assert_true((size_t)result <= part ? before == result : before == 0);
            assert_int_equal(parse(bytes, (size_t)result, &other), result);
            assert_string_equal(name_of(&client), client.length ? name_of(&other) : "none");
        }
    }
}

/* ---- what we write ---- */

static const struct address *any_inet(const char *ip, unsigned port)
{
    static struct address made[4];
    static unsigned next;
    struct address *a = &made[next++ % COUNT(made)];
    *a = strchr(ip, ':') ? (struct address){.length = sizeof a->in6, .in6 = {.sin6_family = AF_INET6, .sin6_port = htons((in_port_t)port)}}
                         : inet(ip, port);
    if (strchr(ip, ':'))
        assert_int_equal(inet_pton(AF_INET6, ip, &a->in6.sin6_addr), 1);
    return a;
}

static void test_lines(void **state)
{
    (void)state;
    static const struct {
        const char *client, *local, *line;
    } rows[] = {
        {"192.0.2.1", "198.51.100.2", "PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n"},
        {"2001:db8::1", "2001:db8::2", "PROXY TCP6 2001:db8::1 2001:db8::2 51234 443\r\n"},
        {"::ffff:192.0.2.1", "198.51.100.2", "PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n"},
        {"2001:db8::1", "198.51.100.2", "PROXY TCP6 2001:db8::1 ::ffff:198.51.100.2 51234 443\r\n"},
        {"192.0.2.1", "2001:db8::2", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 51234 443\r\n"},
    };
    char header[PROXY_HEADER_BYTES];
    for (size_t i = 0; i < COUNT(rows); i++) {
        size_t length = proxy_format(header, 1, &any_inet(rows[i].client, 51234)->any, &any_inet(rows[i].local, 443)->any, NULL);
        assert_int_equal(length, strlen(rows[i].line));
        assert_memory_equal(header, rows[i].line, length);
    }
    assert_int_equal(proxy_format(header, 1, NULL, NULL, NULL), 15);
    assert_memory_equal(header, "PROXY UNKNOWN\r\n", 15);
    const struct sockaddr unix_peer = {.sa_family = AF_UNIX};
    assert_int_equal(proxy_format(header, 1, &unix_peer, &any_inet("192.0.2.1", 1)->any, NULL), 15);
}

static void test_binary(void **state)
{
    (void)state;
    static const char expected[] = SIGNATURE "\x21\x11\0\x13" IN4 "\x03\0\x04";
    char header[PROXY_HEADER_BYTES];
    struct address client;
    size_t length = proxy_format(header, 2, &any_inet("192.0.2.1", 51234)->any, &any_inet("198.51.100.2", 443)->any, NULL);
    assert_int_equal(length, 35);
    assert_memory_equal(header, expected, sizeof expected - 1);
    assert_int_equal(parse(header, length, &client), length); /* and the checksum is right */
    for (size_t i = 16; i < length; i++) {
        if (i == 28)
            continue; /* the type: then it is no checksum */
        header[i] ^= 1;
        assert_true(parse(header, length, &client) < 0);
        header[i] ^= 1;
    }
    length = proxy_format(header, 2, &any_inet("2001:db8::1", 1)->any, &any_inet("192.0.2.1", 443)->any, NULL);
    assert_int_equal(parse(header, length, &client), length);
    assert_string_equal(name_of(&client), "[2001:db8::1]:1");
    const struct sockaddr *const nobody[] = {NULL, &(struct sockaddr){.sa_family = AF_UNIX}};
    for (int i = 0; i < 2; i++) {
        length = proxy_format(header, 2, nobody[i], NULL, NULL);
        assert_memory_equal(header, i ? SIGNATURE "\x21\0\0\x07\x03" : SIGNATURE "\x20\0\0\x07\x03", 17);
        assert_int_equal(parse(header, length, &client), length);
        assert_string_equal(name_of(&client), "none");
    }
}

static void test_tls(void **state)
{
    (void)state;
    static const char expected[] = "\x01\0\x02h2\x02\0\x0b"
                                   "example.org\x20\0\x28\x07\0\0\0\0\x21\0\x07TLSv1.3\x23\0\x0e"
                                   "TLS_AES_128_GC\x22\0\x05"
                                   "alice\x03\0\x04";
    const struct proxy_tls tls = {
        .version = "TLSv1.3", .cipher = "TLS_AES_128_GC", .alpn = "h2", .name = "example.org", .client = "alice", .certificate = true};
    char header[PROXY_HEADER_BYTES];
    struct address client;
    const struct sockaddr *one = &any_inet("192.0.2.1", 51234)->any, *other = &any_inet("198.51.100.2", 443)->any;
    size_t length = proxy_format(header, 2, one, other, &tls);
    assert_int_equal(length, 28 + sizeof expected - 1 + 4);
    assert_memory_equal(header + 28, expected, sizeof expected - 1);
    assert_int_equal(parse(header, length, &client), length);

    struct proxy_tls little = {.version = "TLSv1.2"};
    assert_int_equal(proxy_format(header, 2, one, other, &little), 28 + 8 + 10 + 7);
    assert_memory_equal(header + 28, "\x20\0\x0f\x01\0\0\0\x01\x21\0\x07TLSv1.2", 18);
    little.certificate = little.resumed = true;
    proxy_format(header, 2, one, other, &little);
    assert_memory_equal(header + 28, "\x20\0\x0f\x05\0\0\0\0", 8);
}

static void test_what_does_not_fit_is_left_out(void **state)
{
    (void)state;
    static char text[PROXY_HEADER_BYTES + 1];
    const struct sockaddr *one = &any_inet("2001:db8::1", 1)->any, *other = &any_inet("2001:db8::2", 2)->any;
    for (size_t size = 0; size < PROXY_HEADER_BYTES; size++) {
        struct address client;
        text[size] = 'x';
        const struct proxy_tls tls = {.version = "TLSv1.3", .cipher = text, .alpn = text, .name = text, .client = text};
        char *header = malloc(PROXY_HEADER_BYTES);
        size_t length = proxy_format(header, 2, one, other, &tls);
        assert_in_range(length, 16 + 36 + 8 + 7, PROXY_HEADER_BYTES);
        assert_int_equal(parse(header, length, &client), length);
        free(header);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_a_part_is_no_header_yet),
        cmocka_unit_test(test_what_follows_is_left_alone),
        cmocka_unit_test(test_what_is_wrong),
        cmocka_unit_test(test_the_longest_header),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_binary),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_what_does_not_fit_is_left_out),
    };
    return cmocka_run_group_tests_name("proxy", tests, NULL, NULL);
}
