/* limit.c - the practical limit: as little as an echo server or a forwarder on epoll can do.
 *
 *   limit PORT                   echoes
 *   limit PORT TARGET            forwards to that port
 *   limit --splice PORT TARGET   the same, and no byte comes to user space
 *
 * One read and one write a message, no timers, no limits, no log, no choice of address. The echo server is also what forwarders are
 * pointed at. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 20000, SCRATCH = 65536, PIPE = 256 * 1024, EVENTS = 64, BACKLOG = 4096 };

struct end { /* of a connection; an echoed one is its own other end */
    int other;
    uint32_t watched;
    bool in_ended;
    char *rest; /* what could not be written yet, or is in the pipe */
    size_t length, done;
    int pipe[2];
};

static struct end ends[MAX_DESCRIPTORS]; /* by descriptor */
static char scratch[SCRATCH];
static int poll;
static uint16_t target;
static bool splicing;

static void check(int result, const char *what)
{
    if (result != -1)
        return;
    fprintf(stderr, "limit: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void watch(int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    check(epoll_ctl(poll, operation, fd, &event), "epoll_ctl");
    ends[fd].watched = events;
}

/* It is read while there is nothing left for the other end to write. */
static void update(int fd)
{
    struct end *e = &ends[fd];
    uint32_t events = (e->in_ended || ends[e->other].length > 0 ? 0 : EPOLLIN) | (e->length > 0 ? EPOLLOUT : 0);
    if (events != e->watched)
        watch(EPOLL_CTL_MOD, fd, events);
}

static void end_one(int fd)
{
    free(ends[fd].rest);
    if (splicing) {
        close(ends[fd].pipe[0]);
        close(ends[fd].pipe[1]);
    }
    ends[fd] = (struct end){.other = -1};
    close(fd);
}

static void end(int fd)
{
    int other = ends[fd].other;
    end_one(fd);
    if (other != fd)
        end_one(other);
}

/* ---- moving bytes: false if the connection is over ---- */

static bool is_over(ssize_t n)
{
    return n == -1 && errno != EAGAIN;
}

/* What is left stays in e->length. */
static bool push(int fd)
{
    struct end *e = &ends[fd];
    ssize_t n = splicing ? splice(e->pipe[0], NULL, fd, NULL, e->length, SPLICE_F_NONBLOCK | SPLICE_F_MOVE)
                         : send(fd, e->rest + e->done, e->length, MSG_NOSIGNAL);
    if (is_over(n))
        return false;
    e->done += n > 0 ? (size_t)n : 0;
    e->length -= n > 0 ? (size_t)n : 0;
    return true;
}

/* At once from the scratch buffer; only what the kernel does not take is copied. */
static bool send_and_keep(int fd, size_t length)
{
    struct end *e = &ends[fd];
    ssize_t n = send(fd, scratch, length, MSG_NOSIGNAL);
    if (is_over(n))
        return false;
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == length)
        return true;
    e->rest = realloc(e->rest, length - sent);
    check(e->rest ? 0 : -1, "realloc");
    memcpy(e->rest, scratch + sent, length - sent);
    e->length = length - sent;
    e->done = 0;
    return true;
}

static bool take(int fd)
{
    int other = ends[fd].other;
    ssize_t n = splicing ? splice(fd, NULL, ends[other].pipe[1], NULL, PIPE, SPLICE_F_NONBLOCK | SPLICE_F_MOVE)
                         : recv(fd, scratch, sizeof scratch, 0);
    if (is_over(n) || n == -1)
        return !is_over(n);
    if (n == 0) {
        ends[fd].in_ended = true;
        return !ends[other].in_ended && shutdown(other, SHUT_WR) == 0;
    }
    if (!splicing)
        return send_and_keep(other, (size_t)n);
    ends[other].length = (size_t)n;
    return push(other);
}

static void serve(int fd, uint32_t events)
{
    int other = ends[fd].other;
    bool alive = !(events & EPOLLOUT) || ends[fd].length == 0 || push(fd);
    if (alive && events & ~(uint32_t)EPOLLOUT && ends[other].length == 0)
        alive = take(fd);
    if (!alive) {
        end(fd);
        return;
    }
    update(fd);
    if (other != fd)
        update(other);
}

/* ---- connections ---- */

static struct sockaddr_in address_of(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void set_nodelay(int fd)
{
    int on = 1;
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
}

static int connect_to_target(void)
{
    struct sockaddr_in address = address_of(target);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(fd, "socket");
    set_nodelay(fd);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == -1 && errno != EINPROGRESS)
        check(-1, "connect");
    return fd;
}

static void join(int fd, int other)
{
    struct end *e = &ends[fd];
    *e = (struct end){.other = other};
    if (splicing) {
        check(pipe2(e->pipe, O_CLOEXEC | O_NONBLOCK), "pipe2");
        fcntl(e->pipe[0], F_SETPIPE_SZ, PIPE);
    }
}

static void welcome(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1)
        return;
    int other = target ? connect_to_target() : fd;
    if (fd >= MAX_DESCRIPTORS || other >= MAX_DESCRIPTORS) {
        close(fd);
        if (other != fd)
            close(other);
        return;
    }
    join(fd, other);
    watch(EPOLL_CTL_ADD, fd, EPOLLIN);
    if (other != fd) {
        join(other, fd);
        watch(EPOLL_CTL_ADD, other, EPOLLIN);
    }
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = address_of(port);
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(fd, "socket");
    check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
    set_nodelay(fd);
    check(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(fd, BACKLOG), "listen");
    return fd;
}

int main(int argc, char **argv)
{
    splicing = argc == 4 && strcmp(argv[1], "--splice") == 0;
    argv += splicing;
    argc -= splicing;
    if (argc < 2 || argc > 3) {
        fputs("usage: limit [--splice] PORT [TARGET]\n", stderr);
        return 2;
    }
    target = argc == 3 ? (uint16_t)atoi(argv[2]) : 0;
    int listener = listen_on((uint16_t)atoi(argv[1]));
    check(poll = epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                welcome(fd);
            else if (ends[fd].other >= 0) /* and not ended by an event before it */
                serve(fd, events[i].events);
        }
    }
}
