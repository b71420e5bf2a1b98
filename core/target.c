/* target.c - HOST:PORT, [IPV6]:PORT and unix:PATH, taken apart. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#include "resolve.h"

#define WRITE_THIS "write HOST:PORT, [IPV6]:PORT or unix:PATH"

static const double CHECK_SECONDS = 10;

static int parse_unix(struct target *t, const char *path, struct errbuf *err)
{
    struct sockaddr_un *local = &t->address.local;
    size_t length = strlen(path);

    if (!length || !strcmp(path, "@"))
        return errbuf_set(err, "target \"%s\": no path (write unix:PATH, or unix:@NAME for an abstract socket)", t->text);
    if (length >= sizeof local->sun_path)
        return errbuf_set(err, "target \"%s\": the path has %zu bytes, a unix socket's has at most %zu", t->text, length,
                          sizeof local->sun_path - 1);
    local->sun_family = AF_UNIX;
    memcpy(local->sun_path, path, length);
    t->address.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (path[0] == '@')
        local->sun_path[0] = '\0'; /* abstract: the length is the name's end */
    else
        t->address.length++;
    return 0;
}

static int parse_port(struct target *t, const char *port, struct errbuf *err)
{
    char *end;
    if (!*port)
        return errbuf_set(err, "target \"%s\": no port (" WRITE_THIS ")", t->text);
    if (strspn(port, "0123456789") == strlen(port)) {
        unsigned long number = strtoul(port, &end, 10);
        if (number < 1 || number > 65535)
            return errbuf_set(err, "target \"%s\": port %s is out of range (1 to 65535)", t->text, port);
        t->port = htons((in_port_t)number);
        return 0;
    }
    const struct servent *service = getservbyname(port, "tcp");
    if (!service)
        return errbuf_set(err, "target \"%s\": unknown service \"%s\" (a port is 1 to 65535 or a name in /etc/services)", t->text, port);
    t->port = (in_port_t)service->s_port;
    return 0;
}

static int parse_ipv6(struct target *t, struct errbuf *err)
{
    /* Unlike inet_pton, getaddrinfo knows scopes: fe80::1%eth0. */
    const struct addrinfo hints = {.ai_family = AF_INET6, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *found;
    if (getaddrinfo(t->host, NULL, &hints, &found) != 0)
        return errbuf_set(err, "target \"%s\": \"%s\" is no IPv6 address", t->text, t->host);
    memcpy(&t->address.in6, found->ai_addr, sizeof t->address.in6);
    t->address.in6.sin6_port = t->port;
    t->address.length = sizeof t->address.in6;
    freeaddrinfo(found);
    return 0;
}

static bool is_host_name(const char *host)
{
    size_t label = 0;
    for (const char *c = host; *c; c++) {
        if (*c == '.' && label == 0)
            return false;
        if (*c != '.' && !isalnum((unsigned char)*c) && *c != '-' && *c != '_')
            return false;
        label = *c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return true;
}

/* No top-level domain is a number: what ends in one is a mistyped address, not a name to ask DNS for. */
static bool ends_in_number(const char *host)
{
    const char *dot = strrchr(host, '.');
    const char *last = dot ? dot + 1 : host;
    return *last && strspn(last, "0123456789") == strlen(last);
}

static int parse_host(struct target *t, struct errbuf *err)
{
    if (inet_pton(AF_INET, t->host, &t->address.in4.sin_addr) == 1) {
        t->address.in4.sin_family = AF_INET;
        t->address.in4.sin_port = t->port;
        t->address.length = sizeof t->address.in4;
        return 0;
    }
    if (!is_host_name(t->host))
        return errbuf_set(err, "target \"%s\": \"%s\" is no host name", t->text, t->host);
    if (ends_in_number(t->host))
        return errbuf_set(err, "target \"%s\": \"%s\" is no IPv4 address", t->text, t->host);
    return 0;
}

static int parse_inet(struct target *t, struct errbuf *err)
{
    const char *host = t->text, *colon = strrchr(t->text, ':');
    bool bracketed = *host == '[';
    const char *end = bracketed ? strchr(host, ']') : colon;

    if (strstr(t->text, "://"))
        return errbuf_set(err, "target \"%s\" is a URL (" WRITE_THIS ")", t->text);
    if (bracketed && !end)
        return errbuf_set(err, "target \"%s\": no \"]\" after the IPv6 address (write [IPV6]:PORT)", t->text);
    if (!bracketed && colon && strchr(host, ':') != colon)
        return errbuf_set(err, "target \"%s\": an IPv6 address needs brackets (write [IPV6]:PORT)", t->text);
    if (!end || end[bracketed] != ':')
        return errbuf_set(err, "target \"%s\": no port (" WRITE_THIS ")", t->text);
    host += bracketed;
    size_t length = (size_t)(end - host);
    if (!length)
        return errbuf_set(err, "target \"%s\": no host (" WRITE_THIS ")", t->text);
    if (length >= sizeof t->host)
        return errbuf_set(err, "target \"%.64s...\": the host has %zu bytes, a host name has at most %zu", t->text, length,
                          sizeof t->host - 1);
    memcpy(t->host, host, length);
    if (parse_port(t, end + bracketed + 1, err) != 0)
        return -1;
    return bracketed ? parse_ipv6(t, err) : parse_host(t, err);
}

struct target *target_parse(const char *text, struct errbuf *err)
{
    static const char unix_prefix[] = "unix:";
    const size_t prefix = sizeof unix_prefix - 1;
    struct target *t = calloc(1, sizeof *t + strlen(text) + 1);
    if (!t) {
        errbuf_set(err, "target \"%s\": %s", text, strerror(errno));
        return NULL;
    }
    LIST_INIT(&t->lookups);
    strcpy(t->text, text);
    if ((strncmp(text, unix_prefix, prefix) ? parse_inet(t, err) : parse_unix(t, text + prefix, err)) == 0)
        return t;
    free(t);
    return NULL;
}

const char *target_text(const struct target *t)
{
    return t->text;
}

struct check {
    bool done;
    int result;
    struct errbuf *err;
};

static void on_checked(void *arg, struct address_list *list, const char *why)
{
    struct check *check = arg;
    check->done = true;
    check->result = list ? 0 : errbuf_set(check->err, "%s", why);
    free(list);
}

/* On a loop of its own, and not with getaddrinfo: the answer is to be the one that connecting will get. */
int target_resolve(struct target *t, struct errbuf *err)
{
    if (t->address.length)
        return 0;
    struct check check = {.err = err};
    struct ev_loop *loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    if (!loop)
        return errbuf_set(err, "resolve %s: cannot make an event loop: %s", t->host, strerror(errno));
    struct engine *engine = engine_get(loop, err);
    if (!engine) {
        ev_loop_destroy(loop);
        return -1;
    }
    if (!lookup_start(engine, t, CHECK_SECONDS, on_checked, &check))
        on_checked(&check, NULL, "out of memory");
    while (!check.done)
        ev_run(loop, EVRUN_ONCE);
    engine_put(engine);
    ev_loop_destroy(loop);
    return check.result;
}

void target_free(struct target *t)
{
    if (t)
        free(t->known);
    free(t);
}
