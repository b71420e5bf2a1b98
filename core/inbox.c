/* inbox.c - descriptors from a parent to its workers.
 *
 * The parent never waits for a worker, and never closes what is not with all of them. A worker that is short of descriptors gets its
 * own all the same: it keeps a place free for it, since the kernel would drop what finds none. */
#include "inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hark.h"

enum { LEAST_BUFFER = 1 }; /* bytes: the kernel makes some messages of it; so much may be under way to one that does not look */

static int inbox = -1, spare = -1;
static bool taking; /* what was taken last is being worked on */

/* ---- in the parent ---- */

static void close_end(int *fd)
{
    if (*fd != -1)
        close(*fd);
    *fd = -1;
}

void outbox_init(struct outbox *o)
{
    *o = (struct outbox){.fds = {-1, -1}};
}

int outbox_open(struct outbox *o)
{
    const int size = LEAST_BUFFER;
    outbox_close(o);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, o->fds) != 0)
        return -1;
    setsockopt(o->fds[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    return 0;
}

void outbox_forked(struct outbox *o)
{
    close_end(&o->fds[1]);
}

void outbox_close(struct outbox *o)
{
    close_end(&o->fds[0]);
    close_end(&o->fds[1]);
    o->due = o->owed = 0;
}

union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

void outbox_send(struct outbox *o, int kind, int fd)
{
    unsigned char byte = (unsigned char)kind;
    struct iovec piece = {.iov_base = &byte, .iov_len = sizeof byte};
    union control control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    if (!(o->due & 1U << kind))
        return;
    *part = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof fd)};
    memcpy(CMSG_DATA(part), &fd, sizeof fd);
    bool gone = sendmsg(o->fds[0], &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
    if (!gone || errno == EPIPE || errno == ECONNRESET) /* it will be seen that it has ended */
        o->due &= ~(1U << kind);
    o->owed += !gone;
}

void outbox_receive(struct outbox *o)
{
    char byte;
    ssize_t n;
    while (o->owed > 0 && (n = recv(o->fds[0], &byte, sizeof byte, MSG_DONTWAIT)) != -1)
        o->owed = n == 0 ? 0 : o->owed - 1;
}

bool outbox_is_settled(const struct outbox *o)
{
    return !o->due && !o->owed;
}

/* ---- in a worker ---- */

static void keep_place(void)
{
    if (spare == -1)
        spare = fcntl(inbox, F_DUPFD_CLOEXEC, 0);
}

void inbox_open(struct outbox *o)
{
    inbox = o->fds[1];
    o->fds[1] = -1;
    if (inbox != -1)
        keep_place();
}

int fork_inbox(void)
{
    return inbox;
}

static void tell_taken(void)
{
    const char byte = 0;
    taking = false;
    if (send(inbox, &byte, sizeof byte, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        return; /* the parent has ended, or does not care to hear */
}

int fork_take(int *kind)
{
    unsigned char byte = 0;
    struct iovec piece = {.iov_base = &byte, .iov_len = sizeof byte};
    union control control;
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    if (taking)
        tell_taken();
    close_end(&spare);
    ssize_t n = recvmsg(inbox, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *part = n == sizeof byte ? CMSG_FIRSTHDR(&message) : NULL;
    if (!part || part->cmsg_type != SCM_RIGHTS) {
        int error = errno;
        keep_place();
        if (n > 0)
            tell_taken(); /* that it did not arrive is all there is to know */
        errno = n == 0 ? EPIPE : n < 0 ? error : EMFILE;
        return -1;
    }
    int fd;
    memcpy(&fd, CMSG_DATA(part), sizeof fd);
    *kind = byte;
    taking = true;
    return fd;
}
