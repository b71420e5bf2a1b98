/* name_server.h - a name server in the test's own loop. It knows the addresses below, loses the first queries for "lossy", all for
 * "silent", and talks nonsense of "garbage". */
#ifndef TEST_NAME_SERVER_H
#define TEST_NAME_SERVER_H

#include <stdio.h>
#include <string.h>

#include "loop.h"

struct name_server {
    ev_io io;
    unsigned queries;
    const char *moving; /* the address of "moving", which a test changes; NULL: the server has failed */
    int ttl;            /* of every record, up to 255 s */
};

enum { LOST = 3, TYPE_A = 1, TYPE_AAAA = 28, SERVFAIL = 2, NXDOMAIN = 3 };
enum { ANSWERS = 7, FIRST_LABEL = 12, HEADER_BYTES = 12 }; /* where, in a message (RFC 1035, section 4.1.1) */

static const struct {
    const char *label;
    const char *ip;
} zone[] = {
    {"four", "127.0.0.1"},    {"mixed", "127.0.0.1"}, {"mixed", "127.0.0.2"}, {"mixed", "127.0.0.3"}, {"mixed", "2001:db8::1"},
    {"mixed", "2001:db8::2"}, {"mixed", "::1"},       {"six", "::1"},         {"lossy", "127.0.0.1"},
};

static inline size_t append_record(unsigned char *at, int type, const char *ip, int ttl)
{
    const unsigned char head[] = {0xc0, HEADER_BYTES,       0, (unsigned char)type,    0, 1, 0, 0,
                                  0,    (unsigned char)ttl, 0, type == TYPE_A ? 4 : 16};
    memcpy(at, head, sizeof head);
    assert_int_equal(inet_pton(type == TYPE_A ? AF_INET : AF_INET6, ip, at + sizeof head), 1);
    return sizeof head + head[sizeof head - 1];
}

static inline bool is_about(const unsigned char *message, const char *label)
{
    return message[FIRST_LABEL] == strlen(label) && !memcmp(message + FIRST_LABEL + 1, label, strlen(label));
}

/* Turns the query in `message` into its answer; returns the answer's length, 0 for none. */
static inline size_t answer(const struct name_server *server, unsigned char *message, size_t length)
{
    const int type = message[length - 3];
    bool known = false;
    size_t end = length;

    if (is_about(message, "silent") || (is_about(message, "lossy") && server->queries <= LOST))
        return 0;
    for (size_t i = 0; i < COUNT(zone); i++) {
        if (!is_about(message, zone[i].label))
            continue;
        known = true;
        if (strchr(zone[i].ip, ':') ? type != TYPE_AAAA : type != TYPE_A)
            continue;
        end += append_record(message + end, type, zone[i].ip, server->ttl);
        message[ANSWERS]++;
    }
    if (is_about(message, "moving")) {
        known = true;
        if (type == TYPE_A && server->moving) {
            end += append_record(message + end, type, server->moving, server->ttl);
            message[ANSWERS]++;
        }
    }
    message[2] = 0x81; /* a response, recursion desired */
    message[3] = known ? 0x80 : 0x80 | NXDOMAIN;
    if (is_about(message, "moving") && !server->moving)
        message[3] = 0x80 | SERVFAIL;
    if (is_about(message, "garbage")) {
        message[3] = 0x80;
        message[ANSWERS] = 200; /* so many, and then there is none */
    }
    return end;
}

static inline void on_query(struct ev_loop *l, ev_io *io, int events)
{
    (void)l, (void)events;
    struct name_server *server = container_of(io, struct name_server, io);
    unsigned char message[1024];
    struct address from = {.length = sizeof from.in6};
    ssize_t length = recvfrom(io->fd, message, 256, 0, &from.any, &from.length);
    assert_true(length > HEADER_BYTES + 4);
    server->queries++;
    size_t end = answer(server, message, (size_t)length);
    if (end)
        sendto(io->fd, message, end, 0, &from.any, from.length);
}

static inline void use_name_server(unsigned port)
{
    char text[64];
    snprintf(text, sizeof text, "127.0.0.1:%u", port);
    assert_int_equal(resolver_set_servers(engine, text), 0);
}

static inline void name_server_start(struct name_server *server)
{
    struct address a = inet("127.0.0.1", 0);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &a.any, a.length), 0);
    *server = (struct name_server){.ttl = 60};
    ev_io_init(&server->io, on_query, fd, EV_READ);
    ev_io_start(loop, &server->io);
    use_name_server(port_of(fd));
}

static inline void name_server_stop(struct name_server *server)
{
    ev_io_stop(loop, &server->io);
    close(server->io.fd);
}

#endif
