/* test_proxied.c - a server behind proxies: whom it takes for the peer, and what becomes of those who do not say. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>

#include "harness.h"

#define LINE "PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n"
#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BINARY SIGNATURE "\x21\x11\0\x10\xc0\x00\x02\x01\xc6\x33\x64\x02\xc8\x22\x01\xbb\x04\0\x01z"
#define LOCAL SIGNATURE "\x20\0\0\0"

static const time_t HEADER_SECONDS = 5;

static struct site {
    struct tcpserver *server;
    int port, client; /* client: -1 once it is the party's far end */
    struct party *party;
    char told[DIARY_BYTES];
    bool refusing, plain;
    void (*in_refuse)(void);
} site;

static void tell(const char *what, const struct sockaddr *peer, socklen_t length)
{
    char host[ADDRESS_TEXT];
    size_t used = strlen(site.told);
    snprintf(site.told + used, sizeof site.told - used, "%s%s:%s", used ? " " : "", what, address_host(peer, length, host, sizeof host));
}

static void tell_of(const char *what, const struct iostream *s)
{
    socklen_t length;
    const struct sockaddr *peer = iostream_peer(s, &length);
    tell(what, peer, length);
}

static void expect_told(const char *words)
{
    run_until(strlen(site.told) >= strlen(words));
    run_quietly();
    assert_string_equal(site.told, words);
    *site.told = '\0';
}

static int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)arg;
    assert_ptr_equal(server, site.server);
    tell_of("served", s);
    site.party = host(s);
    site.party->far = (struct ends){site.client, site.client};
    site.client = -1;
    return 0;
}

static bool refuse(const struct sockaddr *peer, socklen_t length, void *arg)
{
    (void)arg;
    tell("refuse", peer, length);
    if (site.in_refuse)
        site.in_refuse();
    return site.refusing;
}

static bool is_proxied(const struct sockaddr *peer, socklen_t length, void *arg)
{
    char text[ADDRESS_TEXT];
    (void)arg;
    assert_string_equal(address_host(peer, length, text, sizeof text), "127.0.0.1");
    return !site.plain;
}

static void stream_closed(struct iostream *s, void *arg)
{
    (void)arg;
    tell_of(close_reason_name(iostream_reason(s)), s);
}

static void rejected(struct iostream *s, void *arg)
{
    char what[40];
    (void)arg;
    snprintf(what, sizeof what, "rejected-%s", close_reason_name(iostream_reason(s)));
    tell_of(what, s);
}

static void hang_up(void)
{
    if (site.client >= 0)
        close(site.client);
    site.client = -1;
}

static void close_site(void)
{
    if (site.server)
        tcpserver_free(site.server);
    hang_up();
}

static void dial(void)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)site.port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    site.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(site.client, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(fcntl(site.client, F_SETFL, O_NONBLOCK), 0);
}

static int set_up_site(void **state)
{
    int result = set_up(state);
    const struct tcpserver_options options = {
        .count_addresses = true, .refuse = refuse, .is_proxied = is_proxied, .stream_closed = stream_closed, .rejected = rejected};
    struct errbuf err = {""};
    site = (struct site){.client = -1};
    at_tear_down = close_site;
    site.server = tcpserver_new(loop, handle_stream, NULL, &options, &err);
    assert_string_equal(err.text, "");
    site.port = tcpserver_listen(site.server, "127.0.0.1", "0", NULL, &err);
    assert_string_equal(err.text, "");
    dial();
    return result;
}

static void say(const char *bytes, size_t length)
{
    assert_int_equal(send(site.client, bytes, length, MSG_NOSIGNAL), length);
}
#define SAY(literal) say(literal, sizeof(literal) - 1)

static void expect_closed(void)
{
    char byte;
    ssize_t n;
    run_until((n = read(site.client, &byte, 1)) == 0 || (n < 0 && errno == ECONNRESET));
    assert_int_equal(tcpserver_connections(site.server), 0);
    hang_up();
}

static unsigned connections_from(const char *ip)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    assert_int_equal(inet_pton(AF_INET, ip, &address.sin_addr), 1);
    return tcpserver_connections_from(site.server, (struct sockaddr *)&address);
}

/* ---- headers as they should be ---- */

static void what_follows_is_the_clients(void)
{
    struct party *p = site.party;
    read_some(p, 100);
    expect(p, "read:hello");
    write_text(p, "bye");
    far_receive(p, "bye");
    expect(p, "wrote");
    assert_int_equal(iostream_bytes_in(p->stream), 5);
    far_reset(p);
    expect(p, "end:reset/ECONNRESET");
}

static void the_announced_client_is_the_peer(void **state)
{
    (void)state;
    SAY(LINE "hello");
    expect_told("refuse:192.0.2.1 served:192.0.2.1");
    assert_int_equal(connections_from("192.0.2.1"), 1);
    assert_int_equal(connections_from("127.0.0.1"), 0);
    what_follows_is_the_clients();
    expect_told("reset:192.0.2.1");
    assert_int_equal(connections_from("192.0.2.1"), 0);
}

static void one_that_names_nobody_is_the_proxy_uncounted(void **state)
{
    (void)state;
    site.refusing = true; /* it is not asked about */
    SAY(LOCAL "hello");
    expect_told("served:127.0.0.1");
    assert_int_equal(connections_from("127.0.0.1"), 0);
    what_follows_is_the_clients();
    expect_told("reset:127.0.0.1");
}

static void from_elsewhere_it_is_not_looked_for(void **state)
{
    (void)state;
    site.plain = true;
    SAY("hello");
    expect_told("refuse:127.0.0.1 served:127.0.0.1");
    assert_int_equal(connections_from("127.0.0.1"), 1);
    what_follows_is_the_clients();
    expect_told("reset:127.0.0.1");
}

static void split_at_every_byte(const char *header, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        run_quietly();
        assert_string_equal(site.told, "");
        say(header + i, 1);
    }
    expect_told("refuse:192.0.2.1 served:192.0.2.1");
    far_send(site.party, "hello");
    what_follows_is_the_clients();
    expect_told("reset:192.0.2.1");
}

static void a_header_may_come_byte_by_byte(void **state)
{
    (void)state;
    split_at_every_byte(LINE, sizeof LINE - 1);
    dial();
    split_at_every_byte(BINARY, sizeof BINARY - 1);
}

static void a_header_may_come_in_two(void **state)
{
    (void)state;
    static const char bytes[] = BINARY "hello";
    for (size_t first = 1; first < sizeof bytes - 1; first++) {
        if (first > 1)
            dial();
        int fd = site.client;
        say(bytes, first);
        run_quietly();
        assert_int_equal(send(fd, bytes + first, sizeof bytes - 1 - first, 0), sizeof bytes - 1 - first);
        expect_told("refuse:192.0.2.1 served:192.0.2.1");
        read_bytes(site.party, 5);
        expect(site.party, "read:hello");
        far_reset(site.party);
        expect(site.party, "end:reset/ECONNRESET");
        expect_told("reset:192.0.2.1");
    }
}

static void a_header_may_be_long(void **state)
{
    (void)state;
    static char bytes[16 + 65535] = SIGNATURE "\x21\x11\xff\xff\xc0\x00\x02\x01\xc6\x33\x64\x02\xc8\x22\x01\xbb\x04\xff\xf0";
    for (size_t sent = 0; sent < sizeof bytes; sent += 4096) {
        say(bytes + sent, sizeof bytes - sent < 4096 ? sizeof bytes - sent : 4096);
        run_quietly();
    }
    expect_told("refuse:192.0.2.1 served:192.0.2.1");
    far_send(site.party, "hello");
    what_follows_is_the_clients();
    expect_told("reset:192.0.2.1");
}

/* A child that is given the socket finds the client's first byte first. */
static void not_a_byte_more_is_taken(void **state)
{
    (void)state;
    char bytes[10];
    SAY(LINE LINE);
    expect_told("refuse:192.0.2.1 served:192.0.2.1");
    assert_int_equal(recv(site.party->stream->transport->read_fd, bytes, sizeof bytes, 0), 10);
    assert_memory_equal(bytes, LINE, 10);
    far_reset(site.party);
    iostream_abort(site.party->stream, CLOSE_FINISHED);
    expect(site.party, "end:finished");
    expect_told("finished:192.0.2.1");
}

/* ---- headers as they should not be ---- */

static void a_wrong_one_ends_the_connection(void **state)
{
    (void)state;
    static const char *const wrong[] = {"hello", "\n", "PROXY \r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\n", "\x16\x03\x01"};
    for (size_t i = 0; i < COUNT(wrong); i++) {
        if (i > 0)
            dial();
        say(wrong[i], strlen(wrong[i]));
        expect_told("rejected-proxy:127.0.0.1");
        expect_closed();
    }
}

static void an_end_instead_ends_the_connection(void **state)
{
    (void)state;
    SAY("PROXY TCP4 192.0.2.1");
    run_quietly();
    shutdown(site.client, SHUT_WR);
    expect_told("rejected-proxy:127.0.0.1");
    expect_closed();
    dial();
    run_quietly();
    hang_up();
    expect_told("rejected-proxy:127.0.0.1");
}

static void silence_ends_the_connection(void **state)
{
    (void)state;
    run_until(tcpserver_connections(site.server) == 1);
    pass(HEADER_SECONDS - 1);
    run_quietly();
    assert_string_equal(site.told, "");
    pass(1);
    expect_told("rejected-proxy:127.0.0.1");
    expect_closed();
}

static void a_byte_now_and_then_is_no_help(void **state)
{
    (void)state;
    run_until(tcpserver_connections(site.server) == 1);
    for (time_t i = 0; i < HEADER_SECONDS; i++) {
        assert_string_equal(site.told, "");
        say(&LINE[i], 1);
        run_quietly();
        pass(1);
    }
    expect_told("rejected-proxy:127.0.0.1");
    expect_closed();
}

static void in_time_is_in_time(void **state)
{
    (void)state;
    run_until(tcpserver_connections(site.server) == 1);
    pass(HEADER_SECONDS - 1);
    SAY(LINE);
    expect_told("refuse:192.0.2.1 served:192.0.2.1");
    pass(HEADER_SECONDS);
    run_quietly();
    far_send(site.party, "hello");
    what_follows_is_the_clients();
    expect_told("reset:192.0.2.1");
}

static void an_announced_client_may_be_refused(void **state)
{
    (void)state;
    site.refusing = true;
    SAY(LINE "hello");
    expect_told("refuse:192.0.2.1 rejected-denied:192.0.2.1");
    expect_closed();
    assert_int_equal(connections_from("192.0.2.1"), 0);
}

/* ---- the server's end ---- */

static void those_without_a_header_can_be_aborted(void **state)
{
    (void)state;
    SAY(LINE);
    expect_told("refuse:192.0.2.1 served:192.0.2.1");
    struct party *first = site.party;
    dial();
    run_until(tcpserver_connections(site.server) == 2);
    tcpserver_abort_handshakes(site.server);
    expect_told("rejected-shutdown:127.0.0.1");
    assert_int_equal(tcpserver_connections(site.server), 1);
    expect_nothing(first);
}

static void abort_ends_those_without_a_header(void **state)
{
    (void)state;
    SAY("PROXY ");
    run_until(tcpserver_connections(site.server) == 1);
    tcpserver_abort(site.server);
    expect_told("rejected-shutdown:127.0.0.1");
    expect_closed();
}

static void free_server(void)
{
    tcpserver_free(site.server);
    site.server = NULL;
}

static void the_server_may_be_freed_while_one_waits(void **state)
{
    (void)state;
    SAY("PROXY ");
    run_until(tcpserver_connections(site.server) == 1);
    free_server();
    run_quietly();
    assert_string_equal(site.told, "");
}

static void the_server_may_be_freed_when_it_is_asked(void **state)
{
    (void)state;
    for (int refusing = 0; refusing < 2; refusing++) {
        if (refusing) {
            tear_down(state);
            set_up_site(state);
        }
        site.refusing = refusing;
        site.in_refuse = free_server;
        SAY(LINE "hello");
        expect_told("refuse:192.0.2.1");
    }
}

#define SITE_TEST(function) cmocka_unit_test_setup_teardown(function, set_up_site, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(the_announced_client_is_the_peer),
        SITE_TEST(one_that_names_nobody_is_the_proxy_uncounted),
        SITE_TEST(from_elsewhere_it_is_not_looked_for),
        SITE_TEST(a_header_may_come_byte_by_byte),
        SITE_TEST(a_header_may_come_in_two),
        SITE_TEST(a_header_may_be_long),
        SITE_TEST(not_a_byte_more_is_taken),
        SITE_TEST(a_wrong_one_ends_the_connection),
        SITE_TEST(an_end_instead_ends_the_connection),
        SITE_TEST(silence_ends_the_connection),
        SITE_TEST(a_byte_now_and_then_is_no_help),
        SITE_TEST(in_time_is_in_time),
        SITE_TEST(an_announced_client_may_be_refused),
        SITE_TEST(those_without_a_header_can_be_aborted),
        SITE_TEST(abort_ends_those_without_a_header),
        SITE_TEST(the_server_may_be_freed_while_one_waits),
        SITE_TEST(the_server_may_be_freed_when_it_is_asked),
    };
    return cmocka_run_group_tests_name("proxied", tests, NULL, NULL);
}
