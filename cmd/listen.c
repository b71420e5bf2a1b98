/* listen.c - opens, names and closes the listening sockets. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "report.h"
#include "sink.h"

enum { MAX_PER_ENDPOINT = 64, PORT_TRIES = 32 };

static int add_socket(struct listeners *l, struct listener_socket socket, struct errbuf *err)
{
    struct listener_socket *more = realloc(l->sockets, (size_t)(l->per_set + 1) * sizeof *more);
    if (!more) {
        close(socket.fd);
        return errbuf_set(err, "cannot listen: %s", strerror(ENOMEM));
    }
    more[l->per_set++] = socket;
    l->sockets = more;
    return 0;
}

static struct bind_options bind_options(const struct settings *s)
{
    return (struct bind_options){.family = s->family,
                                 .backlog = s->backlog,
                                 .reuse_port = s->reuse_port,
                                 .interface = s->interface,
                                 .keepalive_idle = s->keepalive[0],
                                 .keepalive_interval = s->keepalive[1],
                                 .keepalive_count = s->keepalive[2]};
}

static int add_tcp(struct listeners *l, const struct settings *s, const char *host, const char *port, struct errbuf *err)
{
    const struct bind_options options = bind_options(s);
    int fds[MAX_PER_ENDPOINT];
    int count = bind_sockets(host, port, &options, fds, MAX_PER_ENDPOINT, err);
    for (int i = 0; i < count; i++) {
        if (add_socket(l, (struct listener_socket){.fd = fds[i]}, err) == 0)
            continue;
        while (++i < count)
            close(fds[i]);
        return -1;
    }
    return count < 0 ? -1 : 0;
}

static void host_and_port(int fd, char *host, size_t host_size, char *port, size_t port_size)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    getsockname(fd, (struct sockaddr *)&address, &length);
    address_host((struct sockaddr *)&address, length, host, host_size);
    snprintf(port, port_size, "%u", address_port((struct sockaddr *)&address));
}

/* One port, on every address. The first one settles what port 0 is. */
static int add_port_once(struct listeners *l, const struct settings *s, const char *port, struct errbuf *err)
{
    char host[ADDRESS_TEXT], settled[16];
    int first = l->per_set;
    for (int i = 0; i < s->bind_count || i == 0; i++) {
        if (add_tcp(l, s, s->bind_count ? s->binds[i] : NULL, port, err) != 0)
            return -1;
        host_and_port(l->sockets[first].fd, host, sizeof host, settled, sizeof settled);
        port = settled;
    }
    return 0;
}

/* Port 0 may settle on one that is taken on another of the addresses. Then all of them try again, while the first one's socket is kept,
 * since the kernel would gladly offer the same port again. */
static int add_port(struct listeners *l, const struct settings *s, const char *port, struct errbuf *err)
{
    int first = l->per_set, result, held[PORT_TRIES], tries = 0;
    bool any_port = strtoul(port, NULL, 10) == 0;
    while ((result = add_port_once(l, s, port, err)) != 0 && errno == EADDRINUSE && any_port && tries < PORT_TRIES && l->per_set > first) {
        held[tries++] = l->sockets[first].fd;
        while (--l->per_set > first)
            close(l->sockets[l->per_set].fd);
    }
    while (tries > 0)
        close(held[--tries]);
    return result;
}

static int add_unix(struct listeners *l, const struct settings *s, const char *path, struct errbuf *err)
{
    struct listener_socket socket = {.unix_path = path};
    socket.fd = bind_unix_socket(path, s->unix_mode, s->backlog, &socket.unix_file, err);
    return socket.fd < 0 ? -1 : add_socket(l, socket, err);
}

static int add_handed_over(struct listeners *l, const struct settings *s, struct errbuf *err)
{
    for (int i = 0; i < s->handed_over.listening; i++) {
        activation_prepare(FIRST_HANDED_OVER + i);
        if (add_socket(l, (struct listener_socket){.fd = FIRST_HANDED_OVER + i, .handed_over = true}, err) != 0)
            return -1;
    }
    return 0;
}

/* --reuse-port: what one more process listens on, beside the first one. A unix socket cannot be bound twice: that one is shared, and so is
 * one that was handed over. */
static int open_beside(const struct listener_socket *first, const struct settings *s, struct errbuf *err)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    char host[ADDRESS_TEXT], port[16];
    int fd;

    if (first->unix_path || first->handed_over) {
        fd = fcntl(first->fd, F_DUPFD_CLOEXEC, 0);
        return fd < 0 ? errbuf_set(err, "cannot share a listening socket: %s", strerror(errno)) : fd;
    }
    getsockname(first->fd, (struct sockaddr *)&address, &length);
    host_and_port(first->fd, host, sizeof host, port, sizeof port);
    struct bind_options options = bind_options(s);
    options.family = address.ss_family;
    return bind_sockets(host, port, &options, &fd, 1, err) < 0 ? -1 : fd;
}

static int add_sets(struct listeners *l, int processes, const struct settings *s, struct errbuf *err)
{
    int wanted = processes * l->per_set;
    struct listener_socket *all = realloc(l->sockets, (size_t)wanted * sizeof *all);
    if (!all)
        return errbuf_set(err, "cannot listen: %s", strerror(ENOMEM));
    l->sockets = all;
    for (int i = l->per_set; i < wanted; i++) {
        all[i] = all[i - l->per_set];
        all[i].fd = open_beside(&all[i], s, err);
        if (all[i].fd < 0)
            return -1;
        l->count = i + 1;
    }
    return 0;
}

int listeners_open(struct listeners *l, const struct settings *s, int processes, struct errbuf *err)
{
    *l = (struct listeners){0};
    for (int i = 0; i < s->endpoint_count; i++) {
        const struct endpoint *e = &s->endpoints[i];
        if ((e->port ? add_port(l, s, e->port, err) : add_unix(l, s, e->unix_path, err)) != 0)
            goto fail;
    }
    if (add_handed_over(l, s, err) != 0)
        goto fail;
    l->count = l->per_set;
    if (s->reuse_port && processes > 1 && add_sets(l, processes, s, err) != 0)
        goto fail;
    return 0;

fail:
    listeners_unlink(l);
    listeners_close(l);
    return -1;
}

/* ---- saying which ---- */

static void log_listen(const char *host, const char *port, const char *path, const struct settings *s, int processes)
{
    struct report r;
    if (!report_wants(REPORT_NORMAL))
        return;
    if (s->handler)
        report_begin(&r, "listen");
    else
        report_begin(&r, "metrics");
    if (path) {
        report_text(&r, "path", path);
    } else {
        report_text(&r, "address", host);
        report_number(&r, "port", strtoul(port, NULL, 10));
    }
    if (s->handler) {
        report_text(&r, "handler", s->handler->name);
        report_number(&r, "processes", (uint64_t)processes);
    }
    report_end(&r);
}

/* The path of a unix socket, or NULL with host and port filled in. */
static const char *path_or_port(const struct listener_socket *socket, char *host, size_t host_size, char *port, size_t port_size)
{
    if (socket->unix_path)
        return socket->unix_path;
    host_and_port(socket->fd, host, host_size, port, port_size);
    return strcmp(port, "0") == 0 ? host : NULL; /* nothing listens on port 0 */
}

static void log_socket(const struct listener_socket *socket, const struct settings *s, int processes)
{
    char host[ADDRESS_TEXT], port[16];
    const char *path = path_or_port(socket, host, sizeof host, port, sizeof port);
    log_listen(host, port, path, s, processes);
}

void listeners_log(const struct listeners *l, const struct settings *s, int processes)
{
    for (int i = 0; i < l->per_set; i++)
        log_socket(&l->sockets[i], s, processes);
}

static int log_unbound(const char *host, const char *port, const struct settings *s, int processes, struct errbuf *err)
{
    const struct addrinfo hints = {.ai_family = s->family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found;
    char text[ADDRESS_TEXT], number[16];
    int result = getaddrinfo(host, port, &hints, &found);
    if (result != 0)
        return errbuf_set(err, "cannot resolve --bind %s: %s", host ? host : "", gai_strerror(result));
    for (struct addrinfo *ai = found; ai; ai = ai->ai_next) {
        snprintf(number, sizeof number, "%u", address_port(ai->ai_addr));
        log_listen(address_host(ai->ai_addr, ai->ai_addrlen, text, sizeof text), number, NULL, s, processes);
    }
    freeaddrinfo(found);
    return 0;
}

int listeners_check(const struct settings *s, int processes, struct errbuf *err)
{
    for (int i = 0; i < s->endpoint_count; i++) {
        const struct endpoint *e = &s->endpoints[i];
        if (e->unix_path)
            log_listen(NULL, NULL, e->unix_path, s, processes);
        for (int j = 0; e->port && (j < s->bind_count || j == 0); j++) {
            if (log_unbound(s->bind_count ? s->binds[j] : NULL, e->port, s, processes, err) != 0)
                return -1;
        }
    }
    for (int i = 0; i < s->handed_over.listening; i++)
        log_socket(&(struct listener_socket){.fd = FIRST_HANDED_OVER + i}, s, processes);
    return 0;
}

int listeners_name(const struct listeners *l, int index, char *text, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (index >= l->per_set || getsockname(l->sockets[index].fd, (struct sockaddr *)&address, &length) != 0)
        return -1;
    address_text((struct sockaddr *)&address, length, text, size);
    return 0;
}

void listeners_write_ready(const struct listeners *l, int fd)
{
    char host[ADDRESS_TEXT], port[16], line[ADDRESS_TEXT + sizeof port];
    for (int i = 0; i < l->per_set; i++) {
        const char *path = path_or_port(&l->sockets[i], host, sizeof host, port, sizeof port);
        int length = path ? snprintf(line, sizeof line, "unix %s\n", path) : snprintf(line, sizeof line, "%s %s\n", host, port);
        if (!write_all(fd, line, (size_t)length))
            return; /* who asked has gone */
    }
}

/* ---- the end ---- */

void listeners_unlink(const struct listeners *l)
{
    for (int i = 0; i < l->per_set; i++) {
        const struct listener_socket *socket = &l->sockets[i];
        if (socket->unix_path && unlink_unix_socket(socket->unix_path, &socket->unix_file) != 0)
            report_warning("cannot remove unix socket \"%s\": %s", socket->unix_path, strerror(errno));
    }
}

void listeners_close(struct listeners *l)
{
    for (int i = 0; i < l->count; i++)
        close(l->sockets[i].fd);
    free(l->sockets);
    *l = (struct listeners){0};
}

void listeners_keep_set(struct listeners *l, int process)
{
    int first = l->count > l->per_set ? process * l->per_set : 0;
    for (int i = 0; i < l->count; i++) {
        if (i < first || i >= first + l->per_set)
            close(l->sockets[i].fd);
    }
    if (l->count > 0) /* there may be nothing but a connection that was handed over */
        memmove(l->sockets, l->sockets + first, (size_t)l->per_set * sizeof *l->sockets);
    l->count = l->per_set;
}

void listeners_give_away(struct listeners *l)
{
    l->count = 0;
}
