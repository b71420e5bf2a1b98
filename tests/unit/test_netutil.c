/* Error texts, addresses as text, and bind_sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/hark.h"
#include "valgrind.h"

enum { MAX_FDS = 8, SAFETY_SECONDS = 60 };

/* ---- system calls, made to fail; all off at the beginning of each test ---- */

struct fault {
    int family, error, times;
};

static struct {
    struct fault socket, bind, listen;
    int binds;
    bool take_port; /* the next IPv6 port is taken just before it is bound */
    int taken;      /* by this socket */
} bent;

static bool fails(struct fault *fault, int family)
{
    if (fault->times <= 0 || fault->family != family)
        return false;
    fault->times--;
    errno = fault->error;
    return true;
}

int __real_socket(int, int, int);
int __wrap_socket(int, int, int);
int __wrap_socket(int family, int type, int protocol)
{
    return fails(&bent.socket, family) ? -1 : __real_socket(family, type, protocol);
}

int __real_listen(int, int);
int __wrap_listen(int, int);
int __wrap_listen(int fd, int backlog)
{
    int family = 0;
    socklen_t length = sizeof family;
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &length);
    return fails(&bent.listen, family) ? -1 : __real_listen(fd, backlog);
}

int __real_bind(int, const struct sockaddr *, socklen_t);
int __wrap_bind(int, const struct sockaddr *, socklen_t);

static void take_port(const struct sockaddr *address, socklen_t length)
{
    bent.taken = __real_socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (__real_bind(bent.taken, address, length) == 0) /* else somebody else has taken it: just as good */
        __real_listen(bent.taken, 1);
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    bent.binds++;
    if (fails(&bent.bind, address->sa_family))
        return -1;
    if (bent.take_port && address->sa_family == AF_INET6) {
        bent.take_port = false;
        take_port(address, length);
    }
    return __real_bind(fd, address, length);
}

/* Names that need no resolver. */
static const struct {
    const char *host, *addresses[5];
} hosts[] = {
    {"localhost", {"::1", "127.0.0.1"}},
    {"both.test", {"::1", "127.0.0.1"}},
    {"twice.test", {"::1", "127.0.0.1", "::1", "127.0.0.1"}},
    {"missing.test", {NULL}},
};

int __real_getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int __wrap_getaddrinfo(const char *, const char *, const struct addrinfo *, struct addrinfo **);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list)
{
    for (size_t i = 0; host && i < sizeof hosts / sizeof *hosts; i++) {
        if (strcmp(host, hosts[i].host) != 0)
            continue;
        *list = NULL;
        for (const char *const *address = hosts[i].addresses; *address; address++) {
            assert_int_equal(__real_getaddrinfo(*address, port, hints, list), 0);
            list = &(*list)->ai_next;
        }
        return hosts[i].addresses[0] ? 0 : EAI_NONAME;
    }
    return __real_getaddrinfo(host, port, hints, list);
}

/* ---- the fixture ---- */

static int start(void **state)
{
    (void)state;
    limit_time(SAFETY_SECONDS);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    memset(&bent, 0, sizeof bent);
    bent.taken = -1;
    return 0;
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

static void close_all(const int *fds, int count)
{
    for (int i = 0; i < count; i++)
        close(fds[i]);
}

static struct sockaddr_storage local_address(int fd, socklen_t *length)
{
    struct sockaddr_storage address;
    *length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, length), 0);
    return address;
}

static unsigned local_port(int fd)
{
    socklen_t length;
    struct sockaddr_storage address = local_address(fd, &length);
    return address_port((struct sockaddr *)&address);
}

static const char *local_host(int fd)
{
    static char text[ADDRESS_TEXT];
    socklen_t length;
    struct sockaddr_storage address = local_address(fd, &length);
    return address_host((struct sockaddr *)&address, length, text, sizeof text);
}

static int flag(int fd, int level, int option)
{
    int value = -1;
    socklen_t length = sizeof value;
    assert_int_equal(getsockopt(fd, level, option, &value, &length), 0);
    return value;
}

static void need_ipv6(void)
{
    struct sockaddr_in6 loopback = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = __real_socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool works = fd >= 0 && __real_bind(fd, (struct sockaddr *)&loopback, sizeof loopback) == 0;
    if (fd >= 0)
        close(fd);
    if (!works)
        skip();
}

/* Fails to bind, with this text, and leaves nothing open. */
static void assert_no_sockets(const char *host, const char *port, const struct bind_options *options, const char *text)
{
    struct errbuf err = {""};
    int fds[MAX_FDS], before = open_descriptors();
    assert_int_equal(bind_sockets(host, port, options, fds, MAX_FDS, &err), -1);
    assert_string_equal(err.text, text);
    assert_int_equal(open_descriptors(), before);
}

/* ---- errbuf ---- */

static void test_errbuf(void **state)
{
    (void)state;
    struct errbuf err;
    char longer[2 * sizeof err.text];
    errno = EXDEV;
    assert_int_equal(errbuf_set(&err, "%s %d", "number", 1), -1);
    assert_int_equal(errno, EXDEV);
    assert_string_equal(err.text, "number 1");
    errbuf_set(&err, "<%s>", err.text);
    assert_string_equal(err.text, "<number 1>");

    memset(longer, 'x', sizeof longer);
    longer[sizeof err.text - 1] = '\0';
    errbuf_set(&err, "%s", longer);
    assert_string_equal(err.text, longer); /* just fits */
    errbuf_set(&err, "%sy", longer);
    assert_int_equal(strlen(err.text), sizeof err.text - 1);
    assert_string_equal(err.text + sizeof err.text - 5, "x...");
}

/* ---- addresses as text ---- */

static void assert_address(const void *address, socklen_t length, const char *host, const char *text)
{
    char out[ADDRESS_TEXT];
    assert_string_equal(address_host(address, length, out, sizeof out), host);
    assert_string_equal(address_text(address, length, out, sizeof out), text);
}

static void test_inet_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *address, *host, *text;
    } rows[] = {
        {"2001:db8::1", "2001:db8::1", "[2001:db8::1]:80"},
        {"::", "::", "[::]:80"},
        {"::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1:80"},
        {"2001:db8:1111:2222:3333:4444:5555:6666", "2001:db8:1111:2222:3333:4444:5555:6666", "[2001:db8:1111:2222:3333:4444:5555:6666]:80"},
    };
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(65535)};
    inet_pton(AF_INET, "192.0.2.1", &in4.sin_addr);
    assert_address(&in4, sizeof in4, "192.0.2.1", "192.0.2.1:65535");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(80)};
        assert_int_equal(inet_pton(AF_INET6, rows[i].address, &in6.sin6_addr), 1);
        assert_address(&in6, sizeof in6, rows[i].host, rows[i].text);
    }

    struct sockaddr_in6 local = {.sin6_family = AF_INET6, .sin6_scope_id = if_nametoindex("lo")};
    inet_pton(AF_INET6, "fe80::1", &local.sin6_addr);
    assert_address(&local, sizeof local, "fe80::1%lo", "[fe80::1%lo]:0");
}

static void test_unix_addresses(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t length;
        const char *text;
    } rows[] = {
        {"", 0, "unix:"},
        {"/run/s", 7, "unix:/run/s"},
        {"/run/s", 6, "unix:/run/s"},
        {"\0name", 5, "unix:@name"},
        {"\0a\0b\0", 5, "unix:@a@b@"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        memcpy(un.sun_path, rows[i].path, rows[i].length);
        assert_address(&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + rows[i].length), rows[i].text + 5, rows[i].text);
        assert_int_equal(address_port((struct sockaddr *)&un), 0);
    }

    struct sockaddr_un full = {.sun_family = AF_UNIX};
    char text[ADDRESS_TEXT], small[8];
    memset(full.sun_path, 'x', sizeof full.sun_path); /* no NUL at all */
    address_text((struct sockaddr *)&full, sizeof full, text, sizeof text);
    assert_int_equal(strlen(text), 5 + sizeof full.sun_path);
    assert_string_equal(address_text((struct sockaddr *)&full, sizeof full, small, sizeof small), "unix:xx");
    assert_string_equal(address_host((struct sockaddr *)&full, sizeof full, small, sizeof small), "xxxxxxx");
}

static void test_unknown_addresses(void **state)
{
    (void)state;
    struct sockaddr_in6 address = {.sin6_family = AF_UNSPEC};
    assert_address(&address, sizeof address, "unknown", "unknown");
    assert_address(&address, 0, "unknown", "unknown");
    address.sin6_family = AF_INET6;
    assert_address(&address, 0, "unknown", "unknown");
    assert_int_equal(address_port((struct sockaddr *)&address), 0);
    address.sin6_port = htons(80);
    assert_address(&address, sizeof address - 1, "unknown", "unknown"); /* cut off: its port is not looked at, either */
}

/* ---- bind_sockets: what it makes ---- */

static void test_same_port_allocation(void **state)
{
    (void)state;
    need_ipv6();
    for (int i = 0; i < 200; i++) {
        struct errbuf err;
        int fds[MAX_FDS];
        bent.take_port = true; /* the first number turns out to be taken in IPv6 */
        assert_int_equal(bind_sockets("localhost", "0", NULL, fds, MAX_FDS, &err), 2);
        assert_false(bent.take_port);
        assert_string_equal(local_host(fds[0]), "127.0.0.1");
        assert_string_equal(local_host(fds[1]), "::1");
        assert_int_equal(local_port(fds[0]), local_port(fds[1]));
        assert_int_not_equal(local_port(fds[0]), 0);
        assert_int_not_equal(local_port(fds[0]), local_port(bent.taken));
        close_all(fds, 2);
        close(bent.taken);
    }
}

static void test_search_for_a_port_ends(void **state)
{
    (void)state;
    struct errbuf err;
    int fds[MAX_FDS], before = open_descriptors();
    bent.listen = (struct fault){AF_INET, EADDRINUSE, 1000}; /* two sockets that do not listen yet may be bound to one port */
    assert_int_equal(bind_sockets("127.0.0.1", "0", NULL, fds, MAX_FDS, &err), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_in_range(bent.binds, 10, 100);
    assert_int_equal(open_descriptors(), before);
}

static void test_reuse_port(void **state)
{
    (void)state;
    struct bind_options shared = {.reuse_port = true};
    struct errbuf err;
    char port[8], text[128];
    int first, second;
    assert_int_equal(bind_sockets("127.0.0.1", "0", &shared, &first, 1, &err), 1);
    snprintf(port, sizeof port, "%u", local_port(first));
    assert_int_equal(bind_sockets("127.0.0.1", port, &shared, &second, 1, &err), 1);
    assert_int_equal(local_port(second), local_port(first));
    snprintf(text, sizeof text, "cannot listen on 127.0.0.1 port %s: Address already in use", port);
    assert_no_sockets("127.0.0.1", port, NULL, text);
    assert_int_equal(bent.binds, 3); /* no other number will do */
    close(first);
    close(second);
}

static void assert_options(int fd, int family)
{
    assert_int_equal(flag(fd, SOL_SOCKET, SO_DOMAIN), family);
    assert_int_equal(flag(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
    assert_int_equal(flag(fd, SOL_SOCKET, SO_REUSEADDR), 1);
    assert_int_equal(flag(fd, SOL_SOCKET, SO_REUSEPORT), 0);
    assert_int_equal(flag(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    if (family == AF_INET6)
        assert_int_equal(flag(fd, IPPROTO_IPV6, IPV6_V6ONLY), 1);
}

static void test_every_interface(void **state)
{
    (void)state;
    need_ipv6();
    struct errbuf err;
    int fds[MAX_FDS];
    assert_int_equal(bind_sockets(NULL, "0", NULL, fds, MAX_FDS, &err), 2); /* on one port, so IPv6 has to be IPv6 only */
    assert_options(fds[0], AF_INET);
    assert_options(fds[1], AF_INET6);
    assert_int_equal(local_port(fds[0]), local_port(fds[1]));
    close_all(fds, 2);
}

static void test_accepted_sockets_inherit_nodelay(void **state)
{
    (void)state;
    struct errbuf err;
    socklen_t length;
    int fd;
    assert_int_equal(bind_sockets("127.0.0.1", "0", NULL, &fd, 1, &err), 1);
    struct sockaddr_storage address = local_address(fd, &length);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, length), 0);
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, -1);
    int accepted = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(flag(accepted, IPPROTO_TCP, TCP_NODELAY), 1);
    close(accepted);
    close(client);
    close(fd);
}

static void test_backlog(void **state)
{
    (void)state;
    static const struct bind_options seven = {.backlog = 7};
    struct errbuf err;
    struct tcp_info info;
    socklen_t length = sizeof info;
    int fd;
    assert_int_equal(bind_sockets("127.0.0.1", "0", &seven, &fd, 1, &err), 1);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
    assert_int_equal(info.tcpi_sacked, 7); /* where the kernel shows a listener's */
    close(fd);
}

static void test_family_order_and_duplicates(void **state)
{
    (void)state;
    need_ipv6();
    struct bind_options ipv6 = {.family = AF_INET6};
    struct errbuf err;
    int fds[MAX_FDS];
    assert_int_equal(bind_sockets("twice.test", "0", NULL, fds, MAX_FDS, &err), 2);
    assert_string_equal(local_host(fds[0]), "127.0.0.1");
    assert_string_equal(local_host(fds[1]), "::1");
    close_all(fds, 2);
    assert_int_equal(bind_sockets(NULL, "0", &ipv6, fds, MAX_FDS, &err), 1);
    assert_options(fds[0], AF_INET6);
    close(fds[0]);
}

static void test_scope(void **state)
{
    (void)state;
    struct ifaddrs *list, *i;
    char host[ADDRESS_TEXT], text[256];
    assert_int_equal(getifaddrs(&list), 0);
    for (i = list; i; i = i->ifa_next)
        if (i->ifa_addr && i->ifa_addr->sa_family == AF_INET6 && i->ifa_flags & IFF_UP &&
            IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr))
            break;
    if (i)
        address_host(i->ifa_addr, sizeof(struct sockaddr_in6), host, sizeof host);
    freeifaddrs(list);
    if (!i)
        skip();

    struct errbuf err;
    int fd;
    assert_int_equal(bind_sockets(host, "0", NULL, &fd, 1, &err), 1);
    assert_string_equal(local_host(fd), host);
    close(fd);
    *strchr(host, '%') = '\0';
    snprintf(text, sizeof text, "cannot listen on %s port 0: a link-local address needs its interface, as in fe80::1%%eth0", host);
    assert_no_sockets(host, "0", NULL, text);
}

/* ---- bind_sockets: what it leaves out ---- */

static void assert_only_ipv4(const char *host)
{
    struct errbuf err;
    int fds[MAX_FDS];
    assert_int_equal(bind_sockets(host, "0", NULL, fds, MAX_FDS, &err), 1);
    assert_options(fds[0], AF_INET);
    close(fds[0]);
}

static void test_family_the_kernel_lacks(void **state)
{
    (void)state;
    struct bind_options ipv6 = {.family = AF_INET6};
    bent.socket = (struct fault){AF_INET6, EAFNOSUPPORT, 3};
    assert_only_ipv4(NULL);
    assert_only_ipv4("both.test");
    assert_no_sockets(NULL, "80", &ipv6, "cannot listen on :: port 80: Address family not supported by protocol");
    bent.socket = (struct fault){AF_INET6, EMFILE, 1};
    assert_no_sockets("::1", "0", NULL, "cannot listen on ::1 port 0: Too many open files");
}

static void test_addresses_that_may_be_missing(void **state)
{
    (void)state;
    struct bind_options ipv6 = {.family = AF_INET6};
    bent.bind = (struct fault){AF_INET6, EADDRNOTAVAIL, 4};
    assert_only_ipv4(NULL);
    assert_only_ipv4("localhost");
    assert_no_sockets(NULL, "80", &ipv6, "cannot listen on :: port 80: not an address of this machine");
    assert_no_sockets("::1", "80", NULL, "cannot listen on ::1 port 80: not an address of this machine");
    bent.bind = (struct fault){AF_INET, EADDRNOTAVAIL, 1};
    assert_no_sockets("localhost", "80", NULL, "cannot listen on 127.0.0.1 port 80: not an address of this machine");
}

static void test_failure_closes_what_was_open(void **state)
{
    (void)state;
    struct errbuf err;
    int fds[MAX_FDS], before = open_descriptors();
    bent.bind = (struct fault){AF_INET6, EADDRNOTAVAIL, 1};
    assert_int_equal(bind_sockets("both.test", "0", NULL, fds, MAX_FDS, &err), -1);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_int_equal(open_descriptors(), before);
}

/* ---- bind_sockets: what it says ---- */

static void test_bad_ports(void **state)
{
    (void)state;
    static const char *const ports[] = {"", "-1", "+80", " 80", "65536", "99999999999999999999999"};
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        char text[128];
        snprintf(text, sizeof text, "port \"%s\" is not a number from 0 to 65535, nor the name of a service", ports[i]);
        assert_no_sockets("127.0.0.1", ports[i], NULL, text);
    }
    assert_no_sockets("127.0.0.1", "no-such-service", NULL,
                      "unknown service \"no-such-service\": give a port number, or a name from /etc/services");
}

static void test_bad_hosts(void **state)
{
    (void)state;
    struct bind_options ipv4 = {.family = AF_INET};
    char text[128];
    snprintf(text, sizeof text, "unknown host \"missing.test\": %s", gai_strerror(EAI_NONAME));
    assert_no_sockets("missing.test", "0", NULL, text);
    snprintf(text, sizeof text, "unknown host \"\": %s", gai_strerror(EAI_NONAME));
    assert_no_sockets("", "0", NULL, text);
    assert_no_sockets("::1", "0", &ipv4, "host \"::1\" has no IPv4 address");
    assert_no_sockets("203.0.113.1", "80", NULL, "cannot listen on 203.0.113.1 port 80: not an address of this machine");
}

static void test_privileged_port(void **state)
{
    (void)state;
    bent.bind = (struct fault){AF_INET, EACCES, 2};
    assert_no_sockets("127.0.0.1", "80", NULL,
                      "cannot listen on 127.0.0.1 port 80: Permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)");
    assert_no_sockets("127.0.0.1", "8080", NULL, "cannot listen on 127.0.0.1 port 8080: Permission denied");
}

static void test_too_many_addresses(void **state)
{
    (void)state;
    struct errbuf err;
    int fd, before = open_descriptors();
    assert_int_equal(bind_sockets("both.test", "0", NULL, &fd, 1, &err), -1);
    assert_string_equal(err.text, "host \"both.test\" has more than 1 addresses");
    assert_int_equal(open_descriptors(), before);
}

#define TEST(function) cmocka_unit_test_setup(function, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_errbuf),
        TEST(test_inet_addresses),
        TEST(test_unix_addresses),
        TEST(test_unknown_addresses),
        TEST(test_same_port_allocation),
        TEST(test_search_for_a_port_ends),
        TEST(test_reuse_port),
        TEST(test_every_interface),
        TEST(test_accepted_sockets_inherit_nodelay),
        TEST(test_backlog),
        TEST(test_family_order_and_duplicates),
        TEST(test_scope),
        TEST(test_family_the_kernel_lacks),
        TEST(test_addresses_that_may_be_missing),
        TEST(test_failure_closes_what_was_open),
        TEST(test_bad_ports),
        TEST(test_bad_hosts),
        TEST(test_privileged_port),
        TEST(test_too_many_addresses),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
