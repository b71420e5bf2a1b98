/* System calls fail: in every scene each call of one kind fails once, the first in the first run, the second in the second, with each
 * error that it may have. Of what passes (EINTR, EAGAIN, a short read or write, a shortage while accepting) nobody may notice anything;
 * of all else at most one connection ends, and the next one is served. Those that are made fail are of hark, libev and c-ares. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#include "scenes.h"
#include "valgrind.h"

enum call {
    ACCEPT,
    BIND,
    CONNECT,
    EPOLL_CREATE,
    EPOLL_CTL,
    EPOLL_WAIT,
    EVENTFD,
    FCNTL,
    FSTAT,
    GETPEERNAME,
    GETSOCKNAME,
    GETSOCKOPT,
    IOCTL,
    KILL,
    LISTEN,
    PIDFD_OPEN,
    PIPE,
    READ,
    RECV,
    SEND,
    SETSOCKOPT,
    SHUTDOWN,
    SOCKET,
    WAIT,
    WRITE
};
static const char *const names[] = {"accept4",  "bind",       "connect",     "epoll_create1", "epoll_ctl",  "epoll_wait", "eventfd",
                                    "fcntl",    "fstat",      "getpeername", "getsockname",   "getsockopt", "ioctl",      "kill",
                                    "listen",   "pidfd_open", "pipe2",       "read",          "recv",       "send",       "setsockopt",
                                    "shutdown", "socket",     "wait4",       "write"};

enum { SHORT = 0 }; /* instead of an error: one byte */
static const struct fault {
    enum call call;
    int error;
    bool harmless;
} faults[] = {
    {ACCEPT, ECONNABORTED, true},
    {ACCEPT, EINTR, true},
    {ACCEPT, EAGAIN, true},
    {ACCEPT, EMFILE, true},
    {ACCEPT, ENFILE, true},
    {ACCEPT, ENOBUFS, true},
    {ACCEPT, ENOMEM, true},
    {ACCEPT, EPROTO, true},
    {BIND, EADDRINUSE, false},
    {BIND, EACCES, false},
    {CONNECT, ECONNREFUSED, false},
    {CONNECT, ENETUNREACH, false},
    {CONNECT, EADDRNOTAVAIL, false},
    {CONNECT, EACCES, false},
    {EPOLL_CREATE, EMFILE, false},
    {EPOLL_CREATE, ENOMEM, false},
    {EPOLL_CTL, ENOMEM, false},
    {EPOLL_CTL, ENOSPC, false},
    {EPOLL_WAIT, EINTR, true},
    {EVENTFD, EMFILE, true},
    {FCNTL, EMFILE, false},
    {FSTAT, ENOMEM, false},
    {GETSOCKNAME, ENOBUFS, false},
    {GETSOCKOPT, ENOBUFS, false},
    {LISTEN, EADDRINUSE, false},
    {PIDFD_OPEN, EMFILE, true},
    {PIDFD_OPEN, ENFILE, true},
    {PIDFD_OPEN, ENOMEM, true},
    {PIDFD_OPEN, ENOSYS, true},
    {PIPE, EMFILE, false},
    {PIPE, ENFILE, false},
    {READ, EINTR, true},
    {READ, EAGAIN, true},
    {READ, SHORT, true},
    {READ, EIO, false},
    {RECV, EINTR, true},
    {RECV, EAGAIN, true},
    {RECV, SHORT, true},
    {RECV, ECONNRESET, false},
    {RECV, ETIMEDOUT, false},
    {RECV, ENOMEM, false},
    {SEND, EINTR, true},
    {SEND, EAGAIN, true},
    {SEND, SHORT, true},
    {SEND, EPIPE, false},
    {SEND, ENOBUFS, false},
    {SEND, ENOMEM, false},
    {SETSOCKOPT, ENOMEM, false},
    {SHUTDOWN, ENOTCONN, false},
    {SOCKET, EMFILE, false},
    {SOCKET, ENOBUFS, false},
    {WAIT, ECHILD, false},
    {WRITE, EINTR, true},
    {WRITE, EAGAIN, true},
    {WRITE, SHORT, true},
    {WRITE, EPIPE, false},
    {WRITE, EIO, false},
};

/* ---- what stands in for the C library's ---- */

static const struct fault *fault; /* the one of this test */
static int countdown;             /* 1: the next such call fails */

long __real_syscall(long number, ...);

static bool fails(enum call call)
{
    if (!trouble.on || call != fault->call || --countdown != 0)
        return false;
    trouble.hit = true;
    errno = fault->error;
    return true;
}

static long done(enum call call, long number, long a, const void *b, long c, long d, const void *e)
{
    return fails(call) ? -1 : __real_syscall(number, a, b, c, d, e, 0);
}

/* Of reading and writing: may be short. */
static long moved(enum call call, long number, int fd, const void *bytes, size_t length, int flags)
{
    if (!fails(call))
        return __real_syscall(number, fd, bytes, length, flags, NULL, 0);
    return fault->error == SHORT && length > 0 ? __real_syscall(number, fd, bytes, (size_t)1, flags, NULL, 0) : -1;
}

/* By the name that the linker knows, since headers may have put something else there. */
#define STANDS_IN(result, name, ...)              \
    result my_##name(__VA_ARGS__) __asm__(#name); \
    result my_##name(__VA_ARGS__)

STANDS_IN(int, accept4, int fd, void *address, void *length, int flags)
{
    return (int)done(ACCEPT, SYS_accept4, fd, address, (long)length, flags, NULL);
}

STANDS_IN(int, bind, int fd, const void *address, socklen_t length)
{
    return (int)done(BIND, SYS_bind, fd, address, length, 0, NULL);
}

STANDS_IN(int, connect, int fd, const void *address, socklen_t length)
{
    return (int)done(CONNECT, SYS_connect, fd, address, length, 0, NULL);
}

/* While it runs, the loop makes its own anew now and then, with the descriptor that it has just closed. */
STANDS_IN(int, epoll_create1, int flags)
{
    return trouble.on && ev_depth(scene_loop()) == 0 && fails(EPOLL_CREATE) ? -1 : (int)__real_syscall(SYS_epoll_create1, flags);
}

/* An end only fails where there is nothing to do, and libev does not get over the loss of its own eventfd, which is watched once, at start. */
static int libevs_own = -1;

STANDS_IN(int, epoll_ctl, int set, int operation, int fd, void *event)
{
    if (operation != EPOLL_CTL_DEL && fd != libevs_own && fails(EPOLL_CTL))
        return -1;
    return (int)__real_syscall(SYS_epoll_ctl, set, operation, fd, event);
}

STANDS_IN(int, epoll_wait, int set, void *events, int most, int milliseconds)
{
    return (int)done(EPOLL_WAIT, SYS_epoll_wait, set, events, most, milliseconds, NULL);
}

STANDS_IN(int, eventfd, unsigned value, int flags)
{
    return libevs_own = fails(EVENTFD) ? -1 : (int)__real_syscall(SYS_eventfd2, value, flags);
}

STANDS_IN(int, fcntl, int fd, int command, long argument)
{
    return fails(FCNTL) ? -1 : (int)__real_syscall(SYS_fcntl, fd, command, argument);
}

STANDS_IN(int, fstat, int fd, void *status)
{
    return (int)done(FSTAT, SYS_fstat, fd, status, 0, 0, NULL);
}

STANDS_IN(int, getpeername, int fd, void *address, void *length)
{
    return (int)done(GETPEERNAME, SYS_getpeername, fd, address, (long)length, 0, NULL);
}

STANDS_IN(int, getsockname, int fd, void *address, void *length)
{
    return (int)done(GETSOCKNAME, SYS_getsockname, fd, address, (long)length, 0, NULL);
}

STANDS_IN(int, getsockopt, int fd, int level, int option, void *value, void *length)
{
    return fails(GETSOCKOPT) ? -1 : (int)__real_syscall(SYS_getsockopt, fd, level, option, value, length);
}

STANDS_IN(int, ioctl, int fd, unsigned long request, void *argument)
{
    return fails(IOCTL) ? -1 : (int)__real_syscall(SYS_ioctl, fd, request, argument);
}

STANDS_IN(int, kill, pid_t pid, int number)
{
    return fails(KILL) ? -1 : (int)__real_syscall(SYS_kill, pid, number);
}

STANDS_IN(int, listen, int fd, int backlog)
{
    return fails(LISTEN) ? -1 : (int)__real_syscall(SYS_listen, fd, backlog);
}

STANDS_IN(int, pipe2, int *ends, int flags)
{
    return fails(PIPE) ? -1 : (int)__real_syscall(SYS_pipe2, ends, flags);
}

STANDS_IN(ssize_t, read, int fd, void *bytes, size_t length)
{
    return length == sizeof(uint64_t) ? __real_syscall(SYS_read, fd, bytes, length) /* an eventfd's */
                                      : moved(READ, SYS_read, fd, bytes, length, 0);
}

STANDS_IN(ssize_t, recv, int fd, void *bytes, size_t length, int flags)
{
    return moved(RECV, SYS_recvfrom, fd, bytes, length, flags);
}

STANDS_IN(ssize_t, send, int fd, const void *bytes, size_t length, int flags)
{
    return moved(SEND, SYS_sendto, fd, bytes, length, flags);
}

STANDS_IN(int, setsockopt, int fd, int level, int option, const void *value, socklen_t length)
{
    return fails(SETSOCKOPT) ? -1 : (int)__real_syscall(SYS_setsockopt, fd, level, option, value, (long)length);
}

STANDS_IN(int, shutdown, int fd, int how)
{
    return fails(SHUTDOWN) ? -1 : (int)__real_syscall(SYS_shutdown, fd, how);
}

STANDS_IN(int, socket, int family, int type, int protocol)
{
    return fails(SOCKET) ? -1 : (int)__real_syscall(SYS_socket, family, type, protocol);
}

STANDS_IN(pid_t, wait4, pid_t pid, int *status, int options, void *usage)
{
    return fails(WAIT) ? -1 : (pid_t)__real_syscall(SYS_wait4, pid, status, options, usage);
}

STANDS_IN(ssize_t, write, int fd, const void *bytes, size_t length)
{
    return length == sizeof(uint64_t) ? __real_syscall(SYS_write, fd, bytes, length) : moved(WRITE, SYS_write, fd, bytes, length, 0);
}

__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list arguments;
    long values[6];
    if (number == SYS_pidfd_open && fails(PIDFD_OPEN))
        return -1;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++)
        values[i] = va_arg(arguments, long); /* more than there are, but nobody looks at those */
    va_end(arguments);
    return __real_syscall(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}

/* ---- the walk ---- */

enum { MOST_CALLS = 3000 };

/* Children take their time: of one call's errors only the first goes through every scene with them. */
static bool is_skipped(const struct scene *scene)
{
    bool first = fault == faults || fault[-1].call != fault->call;
    return !first && (strcmp(scene->name, "spawn_on_sockets") == 0 || strcmp(scene->name, "spawn_ahead") == 0);
}

static void walk(void **state)
{
    int failed = 0, stride = is_on_valgrind() ? 7 : 1;
    fault = *state;
    trouble.harmless = fault->harmless;
    limit_time(100);
    for (int i = 0; i < SCENES; i++) {
        int n = 0;
        if (is_skipped(&scenes[i]))
            continue;
        do {
            n += stride;
            countdown = n;
            play_scene(scenes[i].play, true);
            assert_true(n < MOST_CALLS);
        } while (trouble.hit);
        failed += (n - 1) / stride;
    }
    print_message("# %d calls\n", failed);
    assert_true(failed > 0 || stride > 1);
    alarm(0);
}

/* ---- one of its own ---- */

static struct spawner *spawner;
static bool stderr_came;

static void on_stderr(void *arg, uint64_t id, const char *line, size_t length)
{
    (void)arg, (void)id, (void)line, (void)length;
    stderr_came = true;
}

static int serve_program(struct iostream *s)
{
    return spawner_start(spawner, s);
}

static void play_unwatched_stderr(void)
{
    struct errbuf err;
    char sh[] = "sh", c[] = "-c", script[] = "read line; echo on stderr >&2; echo $line";
    char *argv[] = {sh, c, script, NULL};
    const struct spawner_options options = {.argv = argv, .io = SPAWN_PIPES, .on_stderr = on_stderr, .warm = 1};
    trouble.on = stderr_came = false;
    spawner = spawner_new(scene_loop(), &options, &err);
    assert_non_null(spawner);
    countdown = 1; /* the first that is watched of a child is its standard error */
    for (trouble.on = true; !trouble.hit;)
        ev_run(scene_loop(), EVRUN_ONCE);
    trouble.on = false;
    struct tcpserver *server = open_server(serve_program, NULL, &err);
    assert_non_null(server);
    int client = dial();
    assert_true(talk(client));
    while (!stderr_came || tcpserver_connections(server))
        ev_run(scene_loop(), EVRUN_ONCE);
    close(client);
    tcpserver_free(server);
    spawner_free(spawner);
}

/* A pipe that were closed for it would end the child at its first word there. */
static void stderr_is_read_once_there_is_room_to_watch_it(void **state)
{
    (void)state;
    static const struct fault no_room = {EPOLL_CTL, ENOMEM, false};
    fault = &no_room;
    alarm(100);
    play_scene(play_unwatched_stderr, false);
    alarm(0);
}

int main(void)
{
    enum { COUNT = sizeof faults / sizeof faults[0] };
    static char titles[COUNT][64];
    struct CMUnitTest tests[COUNT + 1];
    for (int i = 0; i < COUNT; i++) {
        snprintf(titles[i], sizeof titles[i], "%s: %s", names[faults[i].call],
                 faults[i].error == SHORT ? "one byte" : strerrorname_np(faults[i].error));
        tests[i] = (struct CMUnitTest){.name = titles[i], .test_func = walk, .initial_state = (void *)(uintptr_t)&faults[i]};
    }
    tests[COUNT] = (struct CMUnitTest)cmocka_unit_test(stderr_is_read_once_there_is_room_to_watch_it);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
