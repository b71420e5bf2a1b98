/* inject.c - for LD_PRELOAD: the system calls of the hark that it is loaded into are counted, and one of them fails.
 *
 * HARK_FAULT_FILE is a file for an array of `struct place`, which the process and all that it forks count in, so that the nth call is
 * the nth of them all. HARK_FAULT is "CALL ERRNO N": the Nth CALL fails with that. ERRNO 0: it moves one byte only. What other programs
 * do is neither counted nor changed. Headers' prototypes do not matter here: words go in as they come, and one comes back. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Calls by their name in the C library, and those that come through syscall(2). */
enum call {
#define NAMED(name) CALL_##name,
#define NUMBERED(name) CALL_##name,
#include "calls.def"
    CALL_vfork,
    CALLS
};
static const char *const names[CALLS] = {
#define NAMED(name) #name,
#define NUMBERED(name) #name,
#include "calls.def"
    "vfork"};

struct place {
    char name[24];
    _Atomic unsigned calls, failed;
};
enum { WHOLE_BYTES = sizeof(uint64_t) }; /* those of an eventfd, or of a message between processes, come together */

static struct place *places;
static int wanted = -1, error;
static unsigned at;

typedef long function(long, long, long, long, long, long);
static function *real[CALLS];
static long (*real_syscall)(long, long, long, long, long, long, long);
static void *real_vfork;

__attribute__((constructor)) static void begin(void)
{
    char name[24] = "";
    const char *path = getenv("HARK_FAULT_FILE"), *fault = getenv("HARK_FAULT");
    *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
    real_vfork = dlsym(RTLD_NEXT, "vfork");
    if (!path || strncmp(program_invocation_short_name, "hark", 4) != 0)
        return;
    int fd = (int)real_syscall(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC, 0, 0, 0);
    void *memory = (void *)real_syscall(SYS_mmap, 0, sizeof *places * CALLS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || memory == MAP_FAILED)
        abort();
    real_syscall(SYS_close, fd, 0, 0, 0, 0, 0);
    places = memory;
    if (fault && sscanf(fault, "%23s %d %u", name, &error, &at) != 3)
        abort();
    for (int i = 0; i < CALLS; i++) {
        strcpy(places[i].name, names[i]);
        if (strcmp(names[i], name) == 0)
            wanted = i;
    }
}

static int fails(enum call call)
{
    if (!places || ++places[call].calls != at || (int)call != wanted)
        return 0;
    places[call].failed++;
    errno = error;
    return 1;
}

/* Where the length is, of those that may be short. */
static long *length_of(enum call call, long words[6])
{
    switch (call) {
    case CALL_read:
    case CALL_write:
    case CALL_recv:
    case CALL_send:
        return &words[2];
    case CALL_getrandom:
        return &words[1];
    case CALL_splice:
        return &words[4];
    default:
        return NULL;
    }
}

/* What changes or ends something that is there. */
static int cannot_fail(enum call call, long a, long b)
{
    return (call == CALL_epoll_ctl && b == EPOLL_CTL_DEL) || (call == CALL_signalfd && (int)a >= 0);
}

static int returns_pointer(enum call call)
{
    return call == CALL_malloc || call == CALL_calloc || call == CALL_realloc || call == CALL_getcwd;
}

static long pass(enum call call, long a, long b, long c, long d, long e, long f)
{
    if (!real[call]) /* other libraries' constructors may call it before ours has run */
        *(void **)&real[call] = dlsym(RTLD_NEXT, names[call]);
    long words[6] = {a, b, c, d, e, f};
    long *length = length_of(call, words);
    if (cannot_fail(call, a, b) || !fails(call))
        return real[call](a, b, c, d, e, f);
    if (call == CALL_close) { /* it is closed, whatever it says */
        real[call](a, b, c, d, e, f);
        errno = error;
    }
    if (error != 0)
        return returns_pointer(call) ? 0 : -1; /* NULL */
    if (length && *length > WHOLE_BYTES)
        *length = 1;
    return real[call](words[0], words[1], words[2], words[3], words[4], words[5]);
}

#define NAMED(name)                                                    \
    long my_##name(long, long, long, long, long, long) __asm__(#name); \
    long my_##name(long a, long b, long c, long d, long e, long f)     \
    {                                                                  \
        return pass(CALL_##name, a, b, c, d, e, f);                    \
    }
#define NUMBERED(name)
#include "calls.def"

/* FORTIFY's */
long my_recv_chk(long, long, long, long, long) __asm__("__recv_chk");
long my_recv_chk(long fd, long bytes, long length, long size, long flags)
{
    (void)size;
    return pass(CALL_recv, fd, bytes, length, flags, 0, 0);
}

long my_read_chk(long, long, long, long) __asm__("__read_chk");
long my_read_chk(long fd, long bytes, long length, long size)
{
    (void)size;
    return pass(CALL_read, fd, bytes, length, 0, 0, 0);
}

long my_syscall(long, long, long, long, long, long, long) __asm__("syscall");
long my_syscall(long number, long a, long b, long c, long d, long e, long f)
{
#define NAMED(name)
#define NUMBERED(name)                              \
    if (number == SYS_##name && fails(CALL_##name)) \
        return -1;
#include "calls.def"
    return real_syscall(number, a, b, c, d, e, f);
}

/* Its caller's frame is not to be left before the child has gone on: so it is jumped to. */
static int cannot_vfork(void)
{
    return -1;
}

void *vfork_to_jump_to(void);
__attribute__((used)) void *vfork_to_jump_to(void)
{
    return fails(CALL_vfork) ? (void *)cannot_vfork : real_vfork;
}

#if defined(__x86_64__)
__asm__(".globl vfork\n.type vfork, @function\nvfork:\n\tsub $8, %rsp\n\tcall vfork_to_jump_to@PLT\n\tadd $8, %rsp\n\tjmp *%rax\n");
#elif defined(__aarch64__)
__asm__(".globl vfork\n.type vfork, %function\nvfork:\n\tstp x29, x30, [sp, #-16]!\n\tbl vfork_to_jump_to\n\tldp x29, x30, [sp], #16\n\tbr "
        "x0\n");
#endif
