/* transport.c - the plain transport: a socket, or a pair of pipes, files or terminals. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

static ssize_t result(ssize_t n, int want)
{
    if (n >= 0)
        return n;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? want : TRANSPORT_ERROR;
}

/* ---- sockets: the flag instead of O_NONBLOCK also serves those that a child had, which are blocking. There are many, so they are small */

struct socket {
    struct transport base;
    ev_io watcher;
};

static struct socket *socket_of(struct transport *t)
{
    return container_of(t, struct socket, base);
}

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

static void socket_watch(struct transport *t, int events)
{
    struct ev_loop *loop = t->owner->engine->loop;
    ev_io *watcher = &socket_of(t)->watcher;
    ev_io_stop(loop, watcher);
    ev_io_modify(watcher, events);
    if (events)
        ev_io_start(loop, watcher);
}

static void socket_let_go(struct transport *t, bool reset)
{
    if (t->owner)
        socket_watch(t, 0);
    if (reset) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        setsockopt(t->read_fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    free(socket_of(t));
}

static void socket_free(struct transport *t, bool reset)
{
    int fd = t->read_fd;
    socket_let_go(t, reset);
    close(fd);
}

static const struct transport_ops socket_ops = {
    .read = socket_read, .write = socket_write, .shutdown = socket_shutdown, .watch = socket_watch, .free = socket_free};
static const struct transport_ops kept_socket_ops = {
    .read = socket_read, .write = socket_write, .shutdown = socket_shutdown, .watch = socket_watch, .free = socket_let_go};

static void on_socket(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop;
    transport_ready(&container_of(watcher, struct socket, watcher)->base, events);
}

bool transport_can_splice(const struct transport *t)
{
    return t->ops == &socket_ops || t->ops == &kept_socket_ops;
}

static struct transport *socket_new(int fd, unsigned flags)
{
    struct socket *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->base.ops = flags & IOSTREAM_KEEP ? &kept_socket_ops : &socket_ops;
    s->base.read_fd = s->base.write_fd = fd;
    ev_io_init(&s->watcher, on_socket, fd, EV_READ);
    return &s->base;
}

/* ---- pipes, files and terminals ---- */

struct files {
    struct transport base;
    struct ev_loop *loop;
    ev_io reader, writer;
    bool keep;
    size_t piece; /* shared descriptors: how much one write may carry */
};

static struct files *files_of(struct transport *t)
{
    return container_of(t, struct files, base);
}

static ssize_t file_read(struct transport *t, void *bytes, size_t length)
{
    ssize_t n;
    while ((n = read(t->read_fd, bytes, length)) < 0 && errno == EINTR)
        ; /* what a child that has exited left in its pipe is read until there is no more, which is what EAGAIN says then */
    return result(n, TRANSPORT_WANT_READ);
}

static ssize_t file_write(struct transport *t, const void *bytes, size_t length)
{
    return result(write(t->write_fd, bytes, length), TRANSPORT_WANT_WRITE);
}

static void close_writer(struct files *f)
{
    ev_io_stop(f->loop, &f->writer);
    if (!f->keep && f->base.write_fd != f->base.read_fd && f->base.write_fd >= 0)
        close(f->base.write_fd);
    f->base.write_fd = -1;
}

static int file_shutdown(struct transport *t, bool last)
{
    (void)last;
    close_writer(files_of(t));
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
        size_t most = files_of(t)->piece;
        size_t piece = length - done < most ? length - done : most;
        ssize_t n = file_write(t, (const char *)bytes + done, piece);
        if (n < 0)
            return done ? (ssize_t)done : n;
        done += (size_t)n;
    }
    return done ? (ssize_t)done : TRANSPORT_WANT_WRITE;
}

static void files_watch(struct transport *t, int events)
{
    struct files *f = files_of(t);
    if (events & EV_READ)
        ev_io_start(f->loop, &f->reader);
    else
        ev_io_stop(f->loop, &f->reader);
    if (events & EV_WRITE && t->write_fd >= 0)
        ev_io_start(f->loop, &f->writer);
    else
        ev_io_stop(f->loop, &f->writer);
}

static void files_free(struct transport *t, bool reset)
{
    (void)reset;
    struct files *f = files_of(t);
    files_watch(t, 0);
    close_writer(f);
    if (!f->keep)
        close(t->read_fd);
    free(f);
}

static const struct transport_ops file_ops = {
    .read = file_read, .write = file_write, .shutdown = file_shutdown, .watch = files_watch, .free = files_free};
static const struct transport_ops shared_ops = {
    .read = shared_read, .write = shared_write, .shutdown = file_shutdown, .watch = files_watch, .free = files_free};

static void on_file(struct ev_loop *loop, ev_io *watcher, int events)
{
    (void)loop;
    struct transport *t = watcher->data;
    transport_ready(t, events);
}

static struct transport *files_new(struct ev_loop *loop, int read_fd, int write_fd, unsigned flags)
{
    struct files *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->base = (struct transport){.ops = flags & IOSTREAM_SHARED ? &shared_ops : &file_ops, .read_fd = read_fd, .write_fd = write_fd};
    f->loop = loop;
    f->keep = flags & IOSTREAM_KEEP;
    f->piece = flags & IOSTREAM_SHARED ? safe_piece(write_fd) : 0;
    ev_io_init(&f->reader, on_file, read_fd, EV_READ);
    ev_io_init(&f->writer, on_file, write_fd, EV_WRITE);
    f->reader.data = f->writer.data = f;
    return &f->base;
}

struct transport *transport_plain_new(struct ev_loop *loop, int read_fd, int write_fd, unsigned flags)
{
    bool is_socket = flags & TRANSPORT_SOCKET && !(flags & IOSTREAM_SHARED);
    return is_socket ? socket_new(read_fd, flags) : files_new(loop, read_fd, write_fd, flags);
}
