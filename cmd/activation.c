/* activation.c - LISTEN_FDS and LISTEN_PID, and what the descriptors are. */
#include "activation.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "number.h"

enum { MOST = 1024 };

static int socket_option(int fd, int option)
{
    int value = -1;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &length) == 0 ? value : -1;
}

static bool is_stream(int fd)
{
    int domain = socket_option(fd, SO_DOMAIN);
    return socket_option(fd, SO_TYPE) == SOCK_STREAM && (domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX);
}

/* 0: none for this process. */
static long long count(struct errbuf *err)
{
    const char *fds = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");
    if (!fds || !pid) /* as sd_listen_fds has it */
        return 0;
    if (whole_number(pid, 10) <= 0)
        return errbuf_set(err, "LISTEN_PID=\"%s\" is not the number of a process", pid);
    if (whole_number(pid, 10) != getpid())
        return 0;
    if (whole_number(fds, 10) <= 0 || whole_number(fds, 10) > MOST)
        return errbuf_set(err, "LISTEN_FDS=\"%s\" is not a number of descriptors from 1 to %d", fds, MOST);
    return whole_number(fds, 10);
}

int activation_read(struct activation *a, struct errbuf *err)
{
    *a = (struct activation){.connected = -1};
    long long handed_over = count(err);
    for (int fd = FIRST_HANDED_OVER; fd < FIRST_HANDED_OVER + handed_over; fd++) {
        if (fcntl(fd, F_GETFD) < 0)
            return errbuf_set(err, "LISTEN_FDS=%lld, and descriptor %d is not open", handed_over, fd);
        if (!is_stream(fd))
            return errbuf_set(err, "LISTEN_FDS=%lld, and descriptor %d is not a stream socket (ListenStream=)", handed_over, fd);
        if (socket_option(fd, SO_ACCEPTCONN) == 1)
            a->listening++;
        else
            a->connected = fd;
    }
    if (a->connected >= 0 && handed_over > 1)
        return errbuf_set(err, "LISTEN_FDS=%lld, and descriptor %d is a connection: hark serves one of these, and nothing beside it",
                          handed_over, a->connected);
    return handed_over < 0 ? -1 : 0;
}

void activation_prepare(int fd)
{
    const int on = 1;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (socket_option(fd, SO_DOMAIN) != AF_UNIX)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}
