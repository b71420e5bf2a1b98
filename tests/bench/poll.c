/* poll.c - epoll, one event at a time for its users and many for the kernel. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "load.h"

enum { EVENTS = 64, SILENCE_SECONDS = 8 };

int poll_new(void)
{
    int poll = epoll_create1(EPOLL_CLOEXEC);
    if (poll == -1)
        die("epoll_create1: %s", strerror(errno));
    return poll;
}

static void control(int poll, int operation, int fd, uint32_t events, void *data)
{
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poll, operation, fd, &event) != 0)
        die("epoll_ctl: %s", strerror(errno));
}

void poll_add(int poll, int fd, uint32_t events, void *data)
{
    control(poll, EPOLL_CTL_ADD, fd, events, data);
}

void poll_change(int poll, int fd, uint32_t events, void *data)
{
    control(poll, EPOLL_CTL_MOD, fd, events, data);
}

void *poll_next(int poll, uint32_t *events)
{
    static struct epoll_event queue[EVENTS];
    static int next, count;
    if (next == count) {
        next = 0;
        do
            count = epoll_wait(poll, queue, EVENTS, SILENCE_SECONDS * 1000);
        while (count == -1 && errno == EINTR);
        if (count == 0)
            die("nothing came for %d seconds", SILENCE_SECONDS);
        if (count == -1)
            die("epoll_wait: %s", strerror(errno));
    }
    *events = queue[next].events;
    return queue[next++].data.ptr;
}
