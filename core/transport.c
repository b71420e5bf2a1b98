/* transport.c - the plain transport: a socket, or a pair of pipes, files or terminals. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

struct plain {
    struct transport base;
    struct ev_loop *loop;
    ev_io reader, writer;
    bool keep;
    size_t piece; /* shared descriptors: how much one write may carry */
};

static struct plain *plain_of(struct transport *t)
{
    return container_of(t, struct plain, base);
}

static ssize_t result(ssize_t n, int want)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? want : TRANSPORT_ERROR;
}

/* Sockets: the flag instead of O_NONBLOCK also serves those that a child had, which are blocking. */

static ssize_t socket_read(struct transport *t, void *bytes, size_t length)
{
    return result(recv(t->read_fd, bytes, length, MSG_DONTWAIT), TRANSPORT_WANT_READ);
}

static ssize_t socket_write(struct transport *t, const void *bytes, size_t length)
{
    return result(send(t->write_fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL), TRANSPORT_WANT_WRITE);
}

static int socket_shutdown(struct transport *t, bool last)
{
    if (!last)
        shutdown(t->write_fd, SHUT_WR); /* fails only when the peer has reset, which reading tells */
    return 0;
}

/* Pipes, files and terminals of our own. */

static ssize_t file_read(struct transport *t, void *bytes, size_t length)
{
    return result(read(t->read_fd, bytes, length), TRANSPORT_WANT_READ);
}

static ssize_t file_write(struct transport *t, const void *bytes, size_t length)
{
    return result(write(t->write_fd, bytes, length), TRANSPORT_WANT_WRITE);
}

static void close_writer(struct plain *p)
{
    ev_io_stop(p->loop, &p->writer);
    if (!p->keep && p->base.write_fd != p->base.read_fd && p->base.write_fd >= 0)
        close(p->base.write_fd);
    p->base.write_fd = -1;
}

static int file_shutdown(struct transport *t, bool last)
{
    (void)last;
    close_writer(plain_of(t));
    return 0;
}

/* Those that other programs share are blocking, and have to stay so: each call is made only when poll(2) says that it will not block,
 * which for a pipe is good for PIPE_BUF bytes (pipe(7)), and for a terminal for one. */

static size_t safe_piece(int fd)
{
    return isatty(fd) && !(fcntl(fd, F_GETFL) & O_NONBLOCK) ? 1 : PIPE_BUF;
}

static bool is_ready(int fd, short events)
{
    struct pollfd p = {.fd = fd, .events = events};
    return poll(&p, 1, 0) == 1;
}

static ssize_t shared_read(struct transport *t, void *bytes, size_t length)
{
    return is_ready(t->read_fd, POLLIN) ? file_read(t, bytes, length) : TRANSPORT_WANT_READ;
}

static ssize_t shared_write(struct transport *t, const void *bytes, size_t length)
{
    size_t done = 0;
    while (done < length && is_ready(t->write_fd, POLLOUT)) {
        size_t most = plain_of(t)->piece;
        size_t piece = length - done < most ? length - done : most;
        ssize_t n = file_write(t, (const char *)bytes + done, piece);
        if (n < 0)
            return done ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return done ? (ssize_t)done : TRANSPORT_WANT_WRITE;
}

static void plain_watch(struct transport *t, int events)
{
    struct plain *p = plain_of(t);
    if (events & EV_READ)
        ev_io_start(p->loop, &p->reader);
    else
        ev_io_stop(p->loop, &p->reader);
    if (events & EV_WRITE && t->write_fd >= 0)
        ev_io_start(p->loop, &p->writer);
    else
        ev_io_stop(p->loop, &p->writer);
}

static void plain_free(struct transport *t, bool reset)
{
    struct plain *p = plain_of(t);
    plain_watch(t, 0);
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(t->read_fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close_writer(p);
    if (!p->keep)
        close(t->read_fd);
    free(p);
}

static const struct transport_ops socket_ops = {
    .read = socket_read, .write = socket_write, .shutdown = socket_shutdown, .watch = plain_watch, .free = plain_free};
static const struct transport_ops file_ops = {
    .read = file_read, .write = file_write, .shutdown = file_shutdown, .watch = plain_watch, .free = plain_free};
static const struct transport_ops shared_ops = {
    .read = shared_read, .write = shared_write, .shutdown = file_shutdown, .watch = plain_watch, .free = plain_free};

static void on_event(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop;
    struct transport *t = watcher->data;
    t->ready(t, events);
}

bool transport_can_splice(const struct transport *t)
{
    return t->ops == &socket_ops;
}

struct transport *transport_plain_new(struct ev_loop *loop, int read_fd, int write_fd, unsigned flags)
{
    struct plain *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->base.read_fd = read_fd;
    p->base.write_fd = write_fd;
    p->loop = loop;
    p->keep = flags & IOSTREAM_KEEP;
    p->piece = flags & IOSTREAM_SHARED ? safe_piece(write_fd) : 0;
    if (flags & IOSTREAM_SHARED)
        p->base.ops = &shared_ops;
    else if (flags & TRANSPORT_SOCKET)
        p->base.ops = &socket_ops;
    else
        p->base.ops = &file_ops;
    ev_io_init(&p->reader, on_event, read_fd, EV_READ);
    ev_io_init(&p->writer, on_event, write_fd, EV_WRITE);
    p->reader.data = p->writer.data = p;
    return &p->base;
}
