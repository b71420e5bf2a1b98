/* test_sandbox.c - what a process in the sandbox can do, what it cannot, and what becomes of it on kernels that lack something. */
#include "../../cmd/sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/ethernet.h>
#include <sched.h>
#include <seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../cmd/report.h"
#include "valgrind.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { MAX_WORDS = 16, SAID_BYTES = 2048, API_OF_KILL_PROCESS = 3 };

/* ---- a kernel that lacks something ---- */

static struct {
    int landlock_error; /* of landlock_create_ruleset; 0: none */
    int landlock_abi;   /* at most; 0: what there is */
    int seccomp_error, prctl_error;
} lacking;

long __real_syscall(long number, ...);
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list arguments;
    long v[4];
    va_start(arguments, number);
    for (size_t i = 0; i < COUNT(v); i++)
        v[i] = va_arg(arguments, long); /* more than there are, but nobody looks at those */
    va_end(arguments);
    if (number == SYS_landlock_create_ruleset && lacking.landlock_error) {
        errno = lacking.landlock_error;
        return -1;
    }
    long result = __real_syscall(number, v[0], v[1], v[2], v[3]);
    bool asks_version = number == SYS_landlock_create_ruleset && v[0] == 0;
    return asks_version && lacking.landlock_abi && result > lacking.landlock_abi ? lacking.landlock_abi : result;
}

int __real_seccomp_load(const scmp_filter_ctx filter);
int __wrap_seccomp_load(const scmp_filter_ctx filter);
int __wrap_seccomp_load(const scmp_filter_ctx filter)
{
    return lacking.seccomp_error ? -lacking.seccomp_error : __real_seccomp_load(filter);
}

int __real_prctl(int option, ...);
int __wrap_prctl(int option, ...);
int __wrap_prctl(int option, ...)
{
    va_list arguments;
    va_start(arguments, option);
    unsigned long value = va_arg(arguments, unsigned long);
    va_end(arguments);
    errno = lacking.prctl_error;
    return lacking.prctl_error ? -1 : __real_prctl(option, value, 0UL, 0UL, 0UL);
}

/* What this machine's kernel has, of which some of what is tested here is. */
static int real_abi(void)
{
    long abi = __real_syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    return abi > 0 ? (int)abi : 0;
}

static void need_landlock(int abi)
{
    if (real_abi() < abi)
        skip();
}

/* Valgrind lets nobody load one. */
static void need_filter(void)
{
    if (is_on_valgrind())
        skip();
}

/* ---- a process in the sandbox ---- */

static char said[SAID_BYTES]; /* by the process, on stderr */

static const char TO_ANSWER[] = "--metrics 0"; /* the process that answers there */

/* Becomes a process of `hark --port 0 --sandbox WORDS`, and acts. */
static void enter_and_act(const char *words, int (*act)(void))
{
    char text[256], *argv[MAX_WORDS + 1] = {NULL}, *rest = text;
    int argc = 0;
    struct settings settings;
    struct errbuf err;
    snprintf(text, sizeof text, "hark --port 0 -vv --sandbox %s", words);
    while (argc < MAX_WORDS && (argv[argc] = strtok_r(rest, " ", &rest)))
        argc++;
    if (options_parse(argc, argv, &settings, &err) != OPTIONS_RUN) {
        dprintf(STDERR_FILENO, "%s\n", err.text);
        _exit(255);
    }
    report_setup((enum report_level)settings.verbosity, false);
    if (strcmp(words, TO_ANSWER) == 0)
        sandbox_enter_to_answer();
    else
        sandbox_enter(&settings);
    _exit(act() == 0 ? 0 : errno);
}

/* Returns its errno, 0 if it succeeded, or minus the signal that it died of. */
static int attempt(const char *words, int (*act)(void))
{
    int status, log = memfd_create("said", 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(log, STDERR_FILENO);
        enter_and_act(words, act);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    ssize_t length = pread(log, said, sizeof said - 1, 0);
    said[length > 0 ? length : 0] = '\0';
    close(log);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

struct expectation {
    const char *what;
    int (*act)(void);
    int result;
};

static void expect(const char *words, const struct expectation *e, size_t count)
{
    for (; count > 0; count--, e++) {
        int result = attempt(words, e->act);
        if (result != e->result)
            fail_msg("%s, with %s: %d and not %d; %s", e->what, words, result, e->result, said);
    }
}

/* ---- what it tries ---- */

static int succeed_at(int fd)
{
    return fd < 0 ? -1 : close(fd);
}

static int open_passwd(void)
{
    return succeed_at(open("/etc/passwd", O_RDONLY));
}

static int open_hosts(void)
{
    return succeed_at(open("/etc/hosts", O_RDONLY));
}

static int open_directory(void)
{
    return succeed_at(open("/", O_RDONLY | O_DIRECTORY));
}

static int open_to_write(void)
{
    return succeed_at(open("/dev/null", O_WRONLY));
}

static int open_to_create(void)
{
    return succeed_at(open("/tmp/hark.sandbox", O_RDONLY | O_CREAT, 0600));
}

static int remove_file(void)
{
    return unlink("/tmp/hark.sandbox");
}

static int inet_stream(void)
{
    return succeed_at(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

static int inet6_stream(void)
{
    return succeed_at(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

static int inet_datagram(void)
{
    return succeed_at(socket(AF_INET, SOCK_DGRAM, 0));
}

static int inet_raw(void)
{
    return succeed_at(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
}

static int packet_socket(void)
{
    return succeed_at(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));
}

static int unix_stream(void)
{
    return succeed_at(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int unix_datagram(void)
{
    return succeed_at(socket(AF_UNIX, SOCK_DGRAM, 0));
}

static int ask_for_sockets(void)
{
    return succeed_at(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_SOCK_DIAG));
}

static int ask_for_routes(void)
{
    return succeed_at(socket(AF_NETLINK, SOCK_DGRAM, NETLINK_ROUTE));
}

static int run_program(void)
{
    return execl("/bin/true", "true", NULL);
}

static int run_descriptor(void)
{
    return (int)__real_syscall(SYS_execveat, STDERR_FILENO, "", NULL, NULL);
}

static int trace(void)
{
    return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int become_user(void)
{
    return setuid(getuid());
}

static int new_namespace(void)
{
    return (int)__real_syscall(SYS_unshare, 0L);
}

static int load_filter(void)
{
    return (int)__real_syscall(SYS_bpf, 0L, 0L, 0L);
}

static int set_up_ring(void)
{
    return (int)__real_syscall(SYS_io_uring_setup, 1L, 0L);
}

static int fork_another(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    return pid < 0 ? -1 : 0;
}

static int signal_parent(void)
{
    return kill(getppid(), 0);
}

static int map_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int turn_into_code(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static int type_on_terminal(void)
{
    return ioctl(STDERR_FILENO, TIOCSTI, "x");
}

static int raise_limit(void)
{
    const struct rlimit none = {0, 0};
    return setrlimit(RLIMIT_CORE, &none);
}

static int unknown_call(void)
{
    return (int)__real_syscall(999L);
}

static int die(void)
{
    return raise(SIGTERM);
}

/* Some of what serving does, and what libraries do at rarer times. */
static int live_on(void)
{
    char bytes[16];
    int fds[2], epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    char *memory = malloc(64 << 20);
    if (!memory || pipe2(fds, O_CLOEXEC) != 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fds[0], &event) != 0)
        return -1;
    memset(memory, 1, 64 << 20);
    free(memory);
    if (write(fds[1], "x", 1) != 1 || epoll_wait(epoll, &event, 1, 1000) != 1 || read(fds[0], bytes, 1) != 1)
        return -1;
    return getrandom(bytes, sizeof bytes, 0) == sizeof bytes && sysconf(_SC_PHYS_PAGES) > 0 ? 0 : -1;
}

/* ---- servers to connect to ---- */

static struct {
    int fds[2];
    in_port_t ports[2]; /* of the target, and of another */
    struct sockaddr_un local;
    socklen_t local_length;
    int local_fd;
} around;

static int listen_on_any(in_port_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(fd, 100), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static int listen_around(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        around.fds[i] = listen_on_any(&around.ports[i]);
    around.local.sun_family = AF_UNIX; /* a name that the kernel makes up */
    around.local_length = sizeof around.local;
    around.local_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(around.local_fd, (struct sockaddr *)&around.local, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(around.local_fd, 100), 0);
    return getsockname(around.local_fd, (struct sockaddr *)&around.local, &around.local_length);
}

static int close_around(void **state)
{
    (void)state;
    return close(around.fds[0]) | close(around.fds[1]) | close(around.local_fd);
}

static int connect_to(in_port_t port)
{
    const struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    return connect(socket(AF_INET, SOCK_STREAM, 0), (const struct sockaddr *)&address, sizeof address);
}

static int connect_to_target(void)
{
    return connect_to(around.ports[0]);
}

static int connect_elsewhere(void)
{
    return connect_to(around.ports[1]);
}

static int connect_to_abstract(void)
{
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (const struct sockaddr *)&around.local, around.local_length);
}

static int bind_port(void)
{
    const struct sockaddr_in address = {.sin_family = AF_INET};
    return bind(socket(AF_INET, SOCK_STREAM, 0), (const struct sockaddr *)&address, sizeof address);
}

static const char *forward_to(const char *host)
{
    static char words[128];
    snprintf(words, sizeof words, "--handler forward %s:%d", host, around.ports[0]);
    return words;
}

/* ---- tests ---- */

static void test_calls(void **state)
{
    (void)state;
    static const struct expectation all[] = {
        {"serving", live_on, 0},
        {"a file to write", open_to_write, ENOSYS},
        {"a file to create", open_to_create, ENOSYS},
        {"removing a file", remove_file, ENOSYS},
        {"a raw socket", packet_socket, ENOSYS},
        {"routes", ask_for_routes, ENOSYS},
        {"handshakes under way", ask_for_sockets, 0},
        {"a program", run_program, -SIGSYS},
        {"a program by descriptor", run_descriptor, -SIGSYS},
        {"ptrace", trace, -SIGSYS},
        {"setuid", become_user, -SIGSYS},
        {"unshare", new_namespace, -SIGSYS},
        {"bpf", load_filter, -SIGSYS},
        {"io_uring", set_up_ring, -SIGSYS},
        {"a process", fork_another, ENOSYS},
        {"a signal to another", signal_parent, ENOSYS},
        {"a signal to itself", die, -SIGTERM},
        {"memory to execute", map_code, ENOSYS},
        {"memory turned into code", turn_into_code, ENOSYS},
        {"the terminal's input", type_on_terminal, ENOSYS},
        {"a limit", raise_limit, ENOSYS},
        {"a call that is not known yet", unknown_call, ENOSYS},
    };
    need_filter();
    expect("", all, COUNT(all));
    expect("--handler discard", all, COUNT(all));
    expect("--handler forward localhost:80 unix:/s", all, COUNT(all));
}

/* What it does all day: a client, its request, an answer. */
static int answer(void)
{
    char byte;
    int fd = accept4(around.fds[0], NULL, NULL, SOCK_CLOEXEC);
    char *text = malloc(1 << 20);
    if (fd < 0 || read(fd, &byte, 1) != 1 || !text || write(fd, text, 1 << 20) <= 0 || getrandom(&byte, 1, 0) != 1)
        return -1;
    free(text);
    return close(fd);
}

static int make_pipe(void)
{
    int fds[2];
    return pipe2(fds, O_CLOEXEC);
}

static int look_at_file(void)
{
    struct stat st;
    return (int)__real_syscall(SYS_statx, AT_FDCWD, "/", 0L, 0L, &st);
}

static int connect_any(void)
{
    return connect(STDERR_FILENO, (const struct sockaddr *)&around.local, around.local_length);
}

static void test_one_that_answers(void **state)
{
    (void)state;
    static const struct expectation all[] = {
        {"a file", open_hosts, ENOSYS},
        {"a directory", open_directory, ENOSYS},
        {"what a file is", look_at_file, ENOSYS},
        {"a socket", inet_stream, ENOSYS},
        {"a unix socket", unix_stream, ENOSYS},
        {"asking for sockets", ask_for_sockets, ENOSYS},
        {"connecting", connect_any, ENOSYS},
        {"a pipe", make_pipe, ENOSYS},
        {"a process", fork_another, ENOSYS},
        {"a program", run_program, -SIGSYS},
        {"ptrace", trace, -SIGSYS},
        {"setuid", become_user, -SIGSYS},
        {"memory to execute", map_code, ENOSYS},
        {"a signal to itself", die, -SIGTERM},
    };
    need_filter();
    expect(TO_ANSWER, all, COUNT(all));
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(around.ports[0])};
    assert_int_equal(connect(client, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(write(client, "x", 1), 1);
    assert_int_equal(attempt(TO_ANSWER, answer), 0);
    assert_null(strstr(said, "warning"));
    close(client);
}

static void test_sockets(void **state)
{
    (void)state;
    static const struct expectation none[] = {{"IPv4", inet_stream, ENOSYS},
                                              {"IPv6", inet6_stream, ENOSYS},
                                              {"UDP", inet_datagram, ENOSYS},
                                              {"ICMP", inet_raw, ENOSYS},
                                              {"unix", unix_stream, ENOSYS}};
    static const struct expectation tcp[] = {{"IPv4", inet_stream, 0},   {"IPv6", inet6_stream, 0},     {"UDP", inet_datagram, ENOSYS},
                                             {"ICMP", inet_raw, ENOSYS}, {"unix", unix_stream, ENOSYS}, {"bind", bind_port, ENOSYS}};
    static const struct expectation names[] = {
        {"IPv4", inet_stream, 0}, {"UDP", inet_datagram, 0}, {"ICMP", inet_raw, ENOSYS}, {"unix", unix_stream, ENOSYS}};
    static const struct expectation local[] = {{"IPv4", inet_stream, ENOSYS}, {"UDP", inet_datagram, ENOSYS}, {"unix", unix_stream, 0}};
    static const struct expectation syslog[] = {{"IPv4", inet_stream, ENOSYS}, {"unix", unix_datagram, 0}};
    need_filter();
    expect("", none, COUNT(none));
    expect("--handler forward 127.0.0.1:80 [::1]:http", tcp, COUNT(tcp));
    expect("--handler forward 127.0.0.1:80 example.org:80", names, COUNT(names));
    expect("--handler forward unix:/s", local, COUNT(local));
    expect("--log-to syslog", syslog, COUNT(syslog));
}

static void test_files(void **state)
{
    (void)state;
    static const struct expectation none[] = {
        {"passwd", open_passwd, EACCES}, {"hosts", open_hosts, EACCES}, {"a directory", open_directory, EACCES}};
    static const struct expectation names[] = {{"passwd", open_passwd, EACCES}, {"hosts", open_hosts, 0}};
    need_landlock(1);
    expect("", none, COUNT(none));
    expect("--handler forward 127.0.0.1:80 [::1]:80 unix:/s", none, COUNT(none));
    expect("--handler forward localhost:80", names, COUNT(names));
}

static int open_name_servers(void)
{
    return succeed_at(open("/etc/resolv.conf", O_RDONLY));
}

static int open_next_name_servers(void)
{
    return succeed_at(open("/etc/resolved/next", O_RDONLY));
}

/* As systemd-resolved has it: a link, out of /etc; here nobody has more of /etc than that. */
static bool have_own_etc(void)
{
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("none", "/etc", "tmpfs", 0, NULL) != 0)
        return false;
    return mkdir("/etc/resolved", 0755) == 0 && symlink("resolved/now", "/etc/resolv.conf") == 0 &&
           succeed_at(open("/etc/resolved/now", O_WRONLY | O_CREAT, 0644)) == 0 &&
           succeed_at(open("/etc/resolved/next", O_WRONLY | O_CREAT, 0644)) == 0 &&
           succeed_at(open("/etc/passwd", O_WRONLY | O_CREAT, 0644)) == 0;
}

static void test_name_servers(void **state)
{
    (void)state;
    static const struct expectation names[] = {{"the name servers", open_name_servers, 0},
                                               {"those that take their place", open_next_name_servers, 0},
                                               {"passwd", open_passwd, EACCES}};
    int status;
    need_landlock(1);
    pid_t pid = fork();
    if (pid == 0) {
        if (!have_own_etc())
            _exit(77);
        expect("--handler forward localhost:80", names, COUNT(names));
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(status, 0);
}

static void test_ports(void **state)
{
    (void)state;
    static const struct expectation all[] = {{"the target", connect_to_target, 0}, {"another port", connect_elsewhere, EACCES}};
    need_landlock(LANDLOCK_ABI_PORTS);
    expect(forward_to("127.0.0.1"), all, COUNT(all));
    expect(forward_to("localhost"), all, COUNT(all));
    assert_null(strstr(said, "warning"));
}

static void test_abstract_sockets(void **state)
{
    (void)state;
    need_landlock(6);
    assert_int_equal(attempt("--handler forward unix:/s", connect_to_abstract), EPERM);
    assert_int_equal(attempt("--handler forward unix:@s", connect_to_abstract), 0);
}

static void test_older_landlock(void **state)
{
    (void)state;
    for (int abi = 1; abi <= 6; abi++) {
        char on[32];
        need_landlock(abi);
        lacking.landlock_abi = abi;
        assert_int_equal(attempt(forward_to("127.0.0.1"), open_passwd), EACCES);
        snprintf(on, sizeof on, "sandbox landlock=%d ", abi);
        assert_non_null(strstr(said, on));
        bool warned = strstr(said, "warning: --sandbox has to do without limits on TCP ports (the kernel's Landlock has ABI ");
        assert_int_equal(warned, abi < LANDLOCK_ABI_PORTS);
        assert_int_equal(attempt(forward_to("127.0.0.1"), connect_elsewhere), abi < LANDLOCK_ABI_PORTS ? 0 : EACCES);
        assert_int_equal(attempt("", open_passwd), EACCES);
        assert_null(strstr(said, "warning")); /* it makes no connections, whatever Landlock says */
    }
}

static void test_without_landlock(void **state)
{
    (void)state;
    static const int errors[] = {ENOSYS, EOPNOTSUPP};
    need_filter();
    for (size_t i = 0; i < COUNT(errors); i++) {
        lacking.landlock_error = errors[i];
        assert_int_equal(attempt("", open_passwd), 0);
        assert_non_null(strstr(said, "warning: --sandbox has to do without Landlock"));
        assert_non_null(strstr(said, strerror(errors[i])));
        assert_non_null(strstr(said, "sandbox landlock=no seccomp=yes no_new_privs=yes"));
        assert_int_equal(attempt("", run_program), -SIGSYS);
        assert_int_equal(attempt("", live_on), 0);
    }
}

static void test_without_seccomp(void **state)
{
    (void)state;
    lacking.seccomp_error = EINVAL;
    assert_int_equal(attempt("", unknown_call), ENOSYS);
    assert_int_equal(attempt("", inet_datagram), 0);
    assert_non_null(strstr(said, "warning: --sandbox has to do without "));
    assert_non_null(strstr(said, "a filter of system calls (Invalid argument)\n"));
    assert_non_null(strstr(said, " seccomp=no no_new_privs=yes"));
    need_landlock(1);
    assert_int_equal(attempt("", open_passwd), EACCES);
}

static void test_without_anything(void **state)
{
    (void)state;
    lacking.seccomp_error = lacking.landlock_error = lacking.prctl_error = ENOSYS;
    assert_int_equal(attempt("", live_on), 0);
    assert_non_null(strstr(said, "do without no_new_privs (Function not implemented); Landlock, "));
    assert_non_null(strstr(said, "; a filter of system calls (Function not implemented)\n"));
    assert_non_null(strstr(said, "sandbox landlock=no seccomp=no no_new_privs=no"));
    assert_null(strstr(strstr(said, "warning") + 1, "warning"));
}

static int lack_nothing(void **state)
{
    (void)state;
    memset(&lacking, 0, sizeof lacking);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_one_that_answers),
        cmocka_unit_test(test_sockets),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_name_servers),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_abstract_sockets),
        cmocka_unit_test_teardown(test_older_landlock, lack_nothing),
        cmocka_unit_test_teardown(test_without_landlock, lack_nothing),
        cmocka_unit_test_teardown(test_without_seccomp, lack_nothing),
        cmocka_unit_test_teardown(test_without_anything, lack_nothing),
    };
    if (is_on_valgrind()) /* which hides what the kernel can: filters are made there too, if not loaded */
        seccomp_api_set(API_OF_KILL_PROCESS);
    return cmocka_run_group_tests(tests, listen_around, close_around);
}
