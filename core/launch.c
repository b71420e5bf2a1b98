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
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"

/* The child leaves the stack without returning; AddressSanitizer has to be told that it is clean again. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)0)
#endif

enum { SHARE_FROM = 256, STACK_BYTES = 64 * 1024, EXIT_NOT_RUN = 127 };

struct launcher {
    struct launch_options options;
    struct rlimit files; /* rlim_cur 0: leave it */
    bool to_reset[NSIG]; /* signals whose disposition a new program must not inherit */
    pid_t parent;
    int low[3];  /* places kept for the child's descriptors in a large table, in rising order; -1: never shared */
    char *stack; /* of the child that shares the table; it runs while we are suspended */

    /* one launch: written by us, read by the child in the same memory, and its error back */
    int fds[3];
    char **environment;
    volatile int error;
};

/* rt_sigaction(2) itself: glibc refuses to touch the two signals that it keeps to itself, which may have been inherited ignored all the
 * same (GNU make's children have them so). All zero is the default action, whatever else an architecture has in there. */
struct kernel_action {
    void (*handler)(int);
    unsigned long rest[7];
};

static int kernel_sigaction(int number, const struct kernel_action *action, struct kernel_action *before)
{
    return (int)syscall(SYS_rt_sigaction, number, action, before, (NSIG - 1) / 8);
}

/* ---- in the child: async-signal-safe calls only, and nothing that changes memory we go on with ---- */

static void reset_signals(const struct launcher *l)
{
    static const struct kernel_action as_new;
    for (int number = 1; number < NSIG; number++) {
        if (l->to_reset[number])
            kernel_sigaction(number, &as_new, NULL);
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
    if (dup2(l->fds[0], 0) < 0 || dup2(l->fds[1], 1) < 0 || dup2(l->fds[2], 2) < 0)
        goto fail;
    if (l->options.directory && chdir(l->options.directory) != 0)
        goto fail;
    if (l->files.rlim_cur)
        setrlimit(RLIMIT_NOFILE, &l->files);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(l->options.path, l->options.argv, l->environment);

fail:
    l->error = errno;
    _exit(EXIT_NOT_RUN);
}

static int run_with_shared_table(void *arg)
{
    struct launcher *l = arg;
    if (syscall(SYS_close_range, (unsigned)l->low[2] + 1, ~0U, CLOSE_RANGE_UNSHARE) != 0) {
        l->error = errno;
        _exit(EXIT_NOT_RUN);
    }
    return become_program(l);
}

/* ---- in the parent ---- */

static void free_places(struct launcher *l)
{
    for (int i = 0; i < 3; i++) {
        if (l->low[i] >= 0)
            close(l->low[i]);
        l->low[i] = -1;
    }
}

static pid_t start_copying_table(struct launcher *l)
{
    pid_t pid = vfork();
    if (pid == 0)
        become_program(l);
    return pid;
}

static pid_t start_sharing_table(struct launcher *l)
{
    ASAN_UNPOISON_MEMORY_REGION(l->stack, STACK_BYTES);
    pid_t pid = -1;
    int saved, i;
    for (i = 0; i < 3 && dup3(l->fds[i], l->low[i], O_CLOEXEC) >= 0; i++)
        l->fds[i] = l->low[i];
    if (i == 3)
        pid = clone(run_with_shared_table, l->stack + STACK_BYTES, CLONE_VM | CLONE_VFORK | CLONE_FILES | SIGCHLD, l);
    saved = errno;
    bool kept = true;
    while (i-- > 0) /* the places stay taken, but no longer hold the connection open */
        kept &= dup3(STDIN_FILENO, l->low[i], O_CLOEXEC) >= 0;
    if (!kept)
        free_places(l);
    errno = saved;
    return pid;
}

static bool is_table_large(const int fds[3])
{
    return fds[0] >= SHARE_FROM || fds[1] >= SHARE_FROM || fds[2] >= SHARE_FROM;
}

pid_t launch(struct launcher *l, const int fds[3], char **environment)
{
    sigset_t all, before;
    pid_t pid = -1;
    l->environment = environment;
    l->error = 0;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* a handler must not run in the child, on our memory */
    memcpy(l->fds, fds, sizeof l->fds);
    if (l->low[0] >= 0 && is_table_large(fds))
        pid = start_sharing_table(l);
    if (pid < 0) {
        memcpy(l->fds, fds, sizeof l->fds);
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

static void find_signals_to_reset(bool set[NSIG])
{
    struct kernel_action action;
    for (int number = 1; number < NSIG; number++)
        set[number] = kernel_sigaction(number, NULL, &action) == 0 && action.handler != SIG_DFL;
}

static bool can_unshare_table(void)
{
    return syscall(SYS_close_range, ~0U, ~0U, CLOSE_RANGE_UNSHARE) == 0; /* closes nothing */
}

static int reserve_places(struct launcher *l)
{
    for (int i = 0; i < 3; i++) {
        l->low[i] = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, i ? l->low[i - 1] + 1 : 3);
        if (l->low[i] < 0)
            return -1;
    }
    return 0;
}

struct launcher *launcher_new(const struct launch_options *options)
{
    struct launcher *l = calloc(1, sizeof *l);
    if (!l)
        return NULL;
    l->options = *options;
    l->parent = getpid();
    l->low[0] = l->low[1] = l->low[2] = -1;
    if (options->max_files && getrlimit(RLIMIT_NOFILE, &l->files) == 0) /* left as it is when that is right already */
        l->files.rlim_cur = l->files.rlim_cur == options->max_files ? 0 : options->max_files;
    find_signals_to_reset(l->to_reset);
    if (can_unshare_table()) {
        l->stack = malloc(STACK_BYTES);
        if (!l->stack || reserve_places(l) != 0)
            free_places(l);
    }
    return l;
}

void launcher_free(struct launcher *l)
{
    if (!l)
        return;
    free_places(l);
    free(l->stack);
    free(l);
}
