/* notify.c - the protocol of sd_notify(3): a datagram of NAME=VALUE lines to a unix socket. */
#include "notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "number.h"
#include "report.h"

enum { MESSAGE_BYTES = 512, USEC = 1000000 };

static struct {
    int fd; /* -1: nobody wants to know */
    double watchdog_seconds;
} manager = {.fd = -1};

static void say_failure(const char *socket)
{
    report_error("cannot tell NOTIFY_SOCKET=%s how things are: %s", socket, strerror(errno));
}

/* Connected at start: a chroot or another user may be in its way later. */
static int open_socket(const char *text, struct errbuf *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || length < 2)
        return errbuf_set(err, "NOTIFY_SOCKET=\"%s\" is neither an absolute path nor @NAME", text);
    if (length >= sizeof address.sun_path)
        return errbuf_set(err, "NOTIFY_SOCKET has %zu bytes, a unix socket's path has at most %zu", length, sizeof address.sun_path - 1);
    memcpy(address.sun_path, text, length);
    if (text[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) == 0) {
        manager.fd = fd;
        return 0;
    }
    say_failure(text); /* no reason not to serve */
    if (fd >= 0)
        close(fd);
    return 0;
}

static int parse_watchdog(const char *usec, const char *pid, struct errbuf *err)
{
    long long interval = whole_number(usec, 10), meant = pid ? whole_number(pid, 10) : getpid();
    if (interval <= 0)
        return errbuf_set(err, "WATCHDOG_USEC=\"%s\" is not a number of microseconds", usec);
    if (meant <= 0)
        return errbuf_set(err, "WATCHDOG_PID=\"%s\" is not the number of a process", pid);
    if (meant == getpid())
        manager.watchdog_seconds = (double)interval / USEC / 2;
    return 0;
}

int notify_setup(struct errbuf *err)
{
    const char *socket = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC");
    if (!socket || !*socket)
        return 0;
    if (open_socket(socket, err) != 0)
        return -1;
    return usec ? parse_watchdog(usec, getenv("WATCHDOG_PID"), err) : 0;
}

static void __attribute__((format(printf, 1, 2))) notify(const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list arguments;
    if (manager.fd < 0)
        return;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    ssize_t n;
    while ((n = send(manager.fd, message, strlen(message), MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    if (n >= 0 || errno == EAGAIN)
        return;
    say_failure(getenv("NOTIFY_SOCKET"));
    close(manager.fd);
    manager.fd = -1;
}

void notify_ready(const char *status)
{
    notify(status ? "READY=1\nSTATUS=%s" : "READY=1", status);
}

void notify_reloading(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    notify("RELOADING=1\nMONOTONIC_USEC=%lld", (long long)t.tv_sec * USEC + t.tv_nsec / 1000);
}

void notify_stopping(const char *status)
{
    notify("STOPPING=1\nSTATUS=%s", status);
}

double notify_watchdog_seconds(void)
{
    return manager.watchdog_seconds;
}

void notify_watchdog(void)
{
    notify("WATCHDOG=1");
}
