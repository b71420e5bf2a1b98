/* launch.c - vfork, dup2, execve.
 *
 * vfork shares our memory with the child until it execs, so its cost does not grow with ours. It does copy the descriptor table,
 * though, and execve then closes all of it: with 5000 descriptors that makes a spawn 1.6 times as dear. So from some 256 on the table
 * is shared too (CLONE_FILES), and the child's first act is to unshare the few low descriptors that it needs. Not always, since
 * valgrind ends the program on such clone flags. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"

enum { SHARE_FROM = 256, STACK_BYTES = 64 * 1024, EXIT_NOT_RUN = 127 };

struct launcher {
    const char *path;
    char *const *argv;
    struct rlimit files; /* rlim_cur 0: leave it */
    sigset_t to_reset;   /* signals whose disposition a new program must not inherit */
    pid_t parent;
    int low_socket, low_stderr; /* places kept for the child's descriptors in a large table; -1: never shared */
    char *stack;                /* of the child that shares the table; it runs while we are suspended */

    /* one launch: written by us, read by the child in the same memory, and its error back */
    int socket_fd, stderr_fd;
    char **environment;
    volatile int error;
};

/* ---- in the child: async-signal-safe calls only, and nothing that changes memory we go on with ---- */

static void reset_signals(const struct launcher *l)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    for (int number = 1; number < NSIG; number++) {
        if (sigismember(&l->to_reset, number) == 1)
            sigaction(number, &action, NULL);
    }
}

static int become_program(struct launcher *l)
{
    sigset_t none;
    reset_signals(l);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != l->parent) /* it died before we asked to be told */
        _exit(EXIT_NOT_RUN);
    if (dup2(l->socket_fd, 0) < 0 || dup2(l->socket_fd, 1) < 0 || dup2(l->stderr_fd, 2) < 0)
        goto fail;
    if (l->files.rlim_cur)
        setrlimit(RLIMIT_NOFILE, &l->files);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(l->path, l->argv, l->environment);

fail:
    l->error = errno;
    _exit(EXIT_NOT_RUN);
}

static int run_with_shared_table(void *arg)
{
    struct launcher *l = arg;
    unsigned last = (unsigned)(l->low_socket > l->low_stderr ? l->low_socket : l->low_stderr);
    if (syscall(SYS_close_range, last + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) {
        l->error = errno;
        _exit(EXIT_NOT_RUN);
    }
    return become_program(l);
}

/* ---- in the parent ---- */

static pid_t start_copying_table(struct launcher *l)
{
    pid_t pid = vfork();
    if (pid == 0)
        become_program(l);
    return pid;
}

static pid_t start_sharing_table(struct launcher *l)
{
    int keep = l->low_socket;
    if (dup3(l->socket_fd, l->low_socket, O_CLOEXEC) < 0 || dup3(l->stderr_fd, l->low_stderr, O_CLOEXEC) < 0)
        return -1;
    l->socket_fd = l->low_socket;
    l->stderr_fd = l->low_stderr;
    pid_t pid = clone(run_with_shared_table, l->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, l);
    int saved = errno;
    dup3(STDIN_FILENO, keep, O_CLOEXEC); /* the places stay taken, but no longer hold the connection open */
    dup3(STDIN_FILENO, l->low_stderr, O_CLOEXEC);
    errno = saved;
    return pid;
}

pid_t launch(struct launcher *l, int socket_fd, int stderr_fd, char **environment)
{
    sigset_t all, before;
    l->socket_fd = socket_fd;
    l->stderr_fd = stderr_fd;
    l->environment = environment;
    l->error = 0;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* a handler must not run in the child, on our memory */
    bool large = l->low_socket >= 0 && (socket_fd >= SHARE_FROM || stderr_fd >= SHARE_FROM);
    pid_t pid = large ? start_sharing_table(l) : -1;
    if (pid < 0) {
        l->socket_fd = socket_fd;
        l->stderr_fd = stderr_fd;
        pid = start_copying_table(l);
    }
    int error = pid < 0 ? errno : l->error;
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        return pid;
    if (pid > 0)
        waitpid(pid, NULL, 0); /* it could not exec, and has exited */
    errno = error;
    return -1;
}

static void find_signals_to_reset(sigset_t *set)
{
    struct sigaction action;
    sigemptyset(set);
    for (int number = 1; number < NSIG; number++) {
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
            sigaddset(set, number);
    }
}

static bool can_unshare_table(void)
{
    return syscall(SYS_close_range, ~0U, ~0U, CLOSE_RANGE_UNSHARE) == 0; /* closes nothing */
}

struct launcher *launcher_new(const char *path, char *const *argv, unsigned long max_files)
{
    struct launcher *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->path = path;
    l->argv = argv;
    l->parent = getpid();
    l->low_socket = l->low_stderr = -1;
    if (max_files && getrlimit(RLIMIT_NOFILE, &l->files) == 0)
        l->files.rlim_cur = max_files;
    find_signals_to_reset(&l->to_reset);
    if (can_unshare_table() && (l->stack = malloc(STACK_BYTES))) {
        l->low_socket = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
        l->low_stderr = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    }
    return l;
}

void launcher_free(struct launcher *l)
{
    if (!l)
        return;
    if (l->low_socket >= 0)
        close(l->low_socket);
    if (l->low_stderr >= 0)
        close(l->low_stderr);
    free(l->stack);
    free(l);
}
