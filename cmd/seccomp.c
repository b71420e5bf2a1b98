/* seccomp.c - which system calls are left.
 *
 * Those that hark and its libraries make while serving (found with strace, and in the sources of libev, c-ares, OpenSSL and the C library
 * for rarer paths) are allowed, with the arguments that they need. Others fail with ENOSYS, and the kernel's log names them: that is what
 * a library hears from an older kernel when it tries something new, so that its next version does without, and is no outage. A few
 * kill the process instead. No version of any library makes them on behalf of a server: who makes them has broken in. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox.h"

enum {
    LEVEL_TLS = 282, /* SOL_TLS */
    DIAGNOSIS = 4,   /* NETLINK_SOCK_DIAG */
    SOCKET_TYPE = 0xf
};

/* Whatever the arguments. These cost least: since Linux 5.11 the kernel remembers that it need not run the filter for them. */
static const int allowed[] = {
    SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_ctl), SCMP_SYS(read), SCMP_SYS(write),
    SCMP_SYS(accept4), SCMP_SYS(close), SCMP_SYS(shutdown), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg), SCMP_SYS(readv), SCMP_SYS(writev),
    SCMP_SYS(accept), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(epoll_pwait2), SCMP_SYS(poll), SCMP_SYS(ppoll),
    SCMP_SYS(fstat), SCMP_SYS(newfstatat),
    /* memory */
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(futex),
    /* time and chance */
    SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
    SCMP_SYS(getrandom),
    /* who and where we are */
    SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid),
    SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrusage), SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_yield),
    /* signals, and the end */
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack), SCMP_SYS(restart_syscall),
    SCMP_SYS(exit), SCMP_SYS(exit_group)};

/* Not for a process that only answers from its memory. */
static const int allowed_to_serve[] = {SCMP_SYS(splice), SCMP_SYS(connect), SCMP_SYS(pipe2), SCMP_SYS(epoll_create1), SCMP_SYS(eventfd2),
                                       SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(signalfd4), SCMP_SYS(lseek),
                                       SCMP_SYS(pread64), SCMP_SYS(getdents64),
                                       /* files, as far as Landlock lets them */
                                       SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx), SCMP_SYS(access), SCMP_SYS(faccessat),
                                       SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat)};

/* With one argument that is right. */
struct condition {
    int call;
    struct scmp_arg_cmp argument;
};
#define IS(call_, number, value)          \
    {                                     \
        SCMP_SYS(call_),                  \
        {                                 \
            number, SCMP_CMP_EQ, value, 0 \
        }                                 \
    }
#define LACKS(call_, number, bits)              \
    {                                           \
        SCMP_SYS(call_),                        \
        {                                       \
            number, SCMP_CMP_MASKED_EQ, bits, 0 \
        }                                       \
    }
static const struct condition conditions[] = {
    LACKS(mmap, 2, PROT_EXEC),       LACKS(mprotect, 2, PROT_EXEC), IS(fcntl, 1, F_GETFL),
    IS(fcntl, 1, F_SETFL),           IS(fcntl, 1, F_GETFD),         IS(fcntl, 1, F_SETFD),
    IS(fcntl, 1, F_DUPFD_CLOEXEC),   IS(fcntl, 1, F_SETPIPE_SZ),    IS(fcntl, 1, F_GETPIPE_SZ),
    IS(fcntl, 1, F_GET_SEALS),       IS(ioctl, 1, FIONBIO),         IS(ioctl, 1, FIONREAD),
    IS(ioctl, 1, TIOCOUTQ),          IS(ioctl, 1, TCGETS),          IS(setsockopt, 1, IPPROTO_TCP),
    IS(setsockopt, 1, SOL_SOCKET),   IS(setsockopt, 1, LEVEL_TLS),  IS(setsockopt, 1, IPPROTO_IPV6),
    IS(getsockopt, 1, IPPROTO_TCP),  IS(getsockopt, 1, SOL_SOCKET), IS(getsockopt, 1, LEVEL_TLS),
    IS(getsockopt, 1, IPPROTO_IPV6), IS(prlimit64, 2, 0), /* no new limits */
};
static const struct condition conditions_to_serve[] = {
    LACKS(openat, 2, O_ACCMODE | O_CREAT | O_TRUNC),
    LACKS(open, 1, O_ACCMODE | O_CREAT | O_TRUNC),
};
#undef IS
#undef LACKS

static const int fatal[] = {
    /* to become another program or user, or to get at other processes */
    SCMP_SYS(execve), SCMP_SYS(execveat), SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(pidfd_getfd),
    SCMP_SYS(kcmp), SCMP_SYS(setuid), SCMP_SYS(setgid), SCMP_SYS(setreuid), SCMP_SYS(setregid), SCMP_SYS(setresuid), SCMP_SYS(setresgid),
    SCMP_SYS(setfsuid), SCMP_SYS(setfsgid), SCMP_SYS(setgroups), SCMP_SYS(capset),
    /* to see other files */
    SCMP_SYS(chroot), SCMP_SYS(pivot_root), SCMP_SYS(mount), SCMP_SYS(umount2), SCMP_SYS(fsopen), SCMP_SYS(open_tree), SCMP_SYS(move_mount),
    SCMP_SYS(setns), SCMP_SYS(unshare), SCMP_SYS(open_by_handle_at),
    /* to get at the kernel */
    SCMP_SYS(bpf), SCMP_SYS(io_uring_setup), SCMP_SYS(userfaultfd), SCMP_SYS(perf_event_open), SCMP_SYS(add_key), SCMP_SYS(request_key),
    SCMP_SYS(keyctl), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module), SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load), SCMP_SYS(reboot)};

static struct scmp_arg_cmp equals(unsigned argument, scmp_datum_t value)
{
    return (struct scmp_arg_cmp){.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value};
}

static int allow_socket(scmp_filter_ctx filter, int family, int type)
{
    return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, equals(0, (scmp_datum_t)family),
                            SCMP_A1(SCMP_CMP_MASKED_EQ, SOCKET_TYPE, (scmp_datum_t)type));
}

/* And one kind that asks the kernel whether a listener, before it is closed, has handshakes under way. */
static int allow_sockets(scmp_filter_ctx filter, const struct sandbox_needs *needs)
{
    int result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 2, equals(0, AF_NETLINK), equals(2, DIAGNOSIS));
    static const int families[] = {AF_INET, AF_INET6};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        if (result == 0 && needs->tcp)
            result = allow_socket(filter, families[i], SOCK_STREAM);
        if (result == 0 && needs->names)
            result = allow_socket(filter, families[i], SOCK_DGRAM);
    }
    if (result == 0 && needs->local)
        result = allow_socket(filter, AF_UNIX, SOCK_STREAM);
    if (result == 0 && needs->local)
        result = allow_socket(filter, AF_UNIX, SOCK_DGRAM);
    return result;
}

static int treat(scmp_filter_ctx filter, uint32_t action, const int *calls, size_t count)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < count; i++)
        result = seccomp_rule_add(filter, action, calls[i], 0);
    return result;
}

static int allow_if(scmp_filter_ctx filter, const struct condition *conditions_of, size_t count)
{
    int result = 0;
    for (size_t i = 0; result == 0 && i < count; i++)
        result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, conditions_of[i].call, 1, &conditions_of[i].argument);
    return result;
}

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int add_rules(scmp_filter_ctx filter, const struct sandbox_needs *needs)
{
    int result = treat(filter, SCMP_ACT_ALLOW, allowed, COUNT(allowed));
    if (result == 0)
        result = allow_if(filter, conditions, COUNT(conditions));
    if (result == 0)
        result = treat(filter, SCMP_ACT_KILL_PROCESS, fatal, COUNT(fatal));
    if (result == 0) /* to die of a signal: raise(3), abort(3) */
        result = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, equals(0, (scmp_datum_t)getpid()));
    if (result != 0 || needs->answers_only)
        return result;
    result = treat(filter, SCMP_ACT_ALLOW, allowed_to_serve, COUNT(allowed_to_serve));
    if (result == 0)
        result = allow_if(filter, conditions_to_serve, COUNT(conditions_to_serve));
    return result == 0 ? allow_sockets(filter, needs) : result;
}

int seccomp_enter(const struct sandbox_needs *needs, struct errbuf *err)
{
    if (sizeof(void *) < 8)
        return errbuf_set(err, "there is none for 32-bit machines");
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(ENOSYS));
    if (!filter)
        return errbuf_set(err, "libseccomp cannot make one here");
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: getsockopt takes 70 ns longer, and not 90 as with a list */
    seccomp_attr_set(filter, SCMP_FLTATR_CTL_LOG, 1);      /* where the kernel can */
    int result = add_rules(filter, needs);
    if (result == 0)
        result = seccomp_load(filter);
    seccomp_release(filter);
    return result == 0 ? 0 : errbuf_set(err, "%s", strerror(-result));
}
