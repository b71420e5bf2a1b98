/* limit.c - the practical limit: as little as an echo server on epoll can do.
 *
 *   limit PORT
 *
 * One read and one write a message, no timers, no limits, no log, no choice of address. It is also what forwarders are pointed at. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_DESCRIPTORS = 20000, SCRATCH = 65536, EVENTS = 64, BACKLOG = 4096 };

struct rest { /* what could not be written yet */
    char *bytes;
    size_t length, done;
};

static struct rest rests[MAX_DESCRIPTORS]; /* by descriptor */
static char scratch[SCRATCH];
static int poll;

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
}

static void end(int fd)
{
    free(rests[fd].bytes);
    rests[fd] = (struct rest){0};
    close(fd);
}

static void keep(int fd, const char *bytes, size_t length)
{
    rests[fd] = (struct rest){.bytes = malloc(length), .length = length};
    check(rests[fd].bytes ? 0 : -1, "malloc");
    memcpy(rests[fd].bytes, bytes, length);
    watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
}

static void echo(int fd)
{
    ssize_t got = recv(fd, scratch, sizeof scratch, 0);
    if (got == -1 && errno == EAGAIN)
        return;
    if (got <= 0) {
        end(fd);
        return;
    }
    ssize_t sent = send(fd, scratch, (size_t)got, MSG_NOSIGNAL);
    if (sent == -1 && errno != EAGAIN)
        end(fd);
    else if (sent < got)
        keep(fd, scratch + (sent > 0 ? sent : 0), (size_t)(got - (sent > 0 ? sent : 0)));
}

static void go_on(int fd)
{
    struct rest *rest = &rests[fd];
    ssize_t sent = send(fd, rest->bytes + rest->done, rest->length - rest->done, MSG_NOSIGNAL);
    if (sent == -1 && errno != EAGAIN) {
        end(fd);
        return;
    }
    rest->done += sent > 0 ? (size_t)sent : 0;
    if (rest->done < rest->length)
        return;
    free(rest->bytes);
    *rest = (struct rest){0};
    watch(EPOLL_CTL_MOD, fd, EPOLLIN);
}

static void welcome(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -1)
        return;
    if (fd >= MAX_DESCRIPTORS)
        close(fd);
    else
        watch(EPOLL_CTL_ADD, fd, EPOLLIN);
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(fd, "socket");
    check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), "SO_REUSEADDR");
    check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on), "TCP_NODELAY");
    check(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
    check(listen(fd, BACKLOG), "listen");
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: limit PORT\n", stderr);
        return 2;
    }
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
            else if (rests[fd].bytes)
                go_on(fd);
            else
                echo(fd);
        }
    }
}
