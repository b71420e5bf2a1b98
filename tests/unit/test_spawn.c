/* Children: what they find when they start, what becomes of what they write, and how they and their stream end. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "../../core/child.h"
#include "harness.h"

enum { TEXT_BYTES = 64 * 1024, MANY_DESCRIPTORS = 300, MAX_INHERITED = 1024 };

/* ---- system calls, of which one may be missing ---- */

static bool without_pidfds;

long __real_syscall(long number, ...);
__attribute__((no_sanitize("address"))) long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list arguments;
    long values[6];
    if (number == SYS_pidfd_open && without_pidfds) {
        errno = ENOSYS;
        return -1;
    }
    va_start(arguments, number);
    for (size_t i = 0; i < COUNT(values); i++)
        values[i] = va_arg(arguments, long); /* more than there are, but nobody looks at those */
    va_end(arguments);
    return __real_syscall(number, values[0], values[1], values[2], values[3], values[4], values[5]);
}

/* ---- a spawner of shell scripts ---- */

static struct shop {
    struct spawner *spawner;
    enum spawn_io io;
    char *argv[4];
    char lines[2 * TEXT_BYTES]; /* of standard error: "1:text|1:more|" */
    char failure[256];
    void (*inside)(struct iostream *); /* ends it when a line comes */
    struct party *party;
    struct tcpserver *server;
} shop;

static void on_stderr(void *arg, uint64_t id, const char *line, size_t length)
{
    size_t used = strlen(shop.lines);
    assert_ptr_equal(arg, &shop);
    snprintf(shop.lines + used, sizeof shop.lines - used, "%d:%.*s|", (int)id, (int)length, line);
    if (shop.inside && shop.party->stream)
        shop.inside(shop.party->stream);
}

static void on_failure(void *arg, const char *why)
{
    assert_ptr_equal(arg, &shop);
    snprintf(shop.failure, sizeof shop.failure, "%s", why);
}

static void close_shop(void)
{
    if (shop.server)
        tcpserver_free(shop.server);
    if (shop.spawner) {
        assert_int_equal(spawner_children(shop.spawner), 0);
        spawner_free(shop.spawner);
    }
    memset(&shop, 0, sizeof shop);
}

static int set_up_shop(void **state)
{
    enum spawn_io io = (enum spawn_io)(intptr_t)*state;
    for (int fd = 3; fd < MAX_INHERITED; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC); /* what we have inherited ourselves, from make for one */
    *state = (void *)TCP;
    int result = set_up(state);
    memset(&shop, 0, sizeof shop);
    shop.io = io;
    without_pidfds = false;
    at_tear_down = close_shop;
    return result;
}

static void open_shop(const char *script, struct spawner_options options)
{
    static char shell[] = "sh", option[] = "-c", text[1024];
    struct errbuf err = {""};
    snprintf(text, sizeof text, "%s", script);
    char *argv[] = {shell, option, text, NULL};
    memcpy(shop.argv, argv, sizeof argv);
    options.argv = shop.argv;
    options.io = shop.io;
    options.on_stderr = on_stderr;
    options.on_failure = on_failure;
    options.arg = &shop;
    shop.spawner = spawner_new(loop, &options, &err);
    assert_string_equal(err.text, "");
}

/* How the child ended is the last word of the diary. */
static void note_child(struct party *p, const char *word)
{
    if (strcmp(word, "end") != 0)
        return;
    const struct child_result *result = iostream_child(p->stream);
    if (!result)
        write_down(p, "no child");
    else if (WIFSIGNALED(result->status))
        write_down(p, "signal:%d", WTERMSIG(result->status));
    else
        write_down(p, "exit:%d", WEXITSTATUS(result->status));
}

static struct party *start_child(void)
{
    struct party *p = meet(0);
    p->inside = note_child;
    assert_int_equal(spawner_start(shop.spawner, p->stream), 0);
    return p;
}

static struct party *run_script(const char *script, struct spawner_options options)
{
    open_shop(script, options);
    return start_child();
}

static void expect_answer(struct party *p, const char *answer, const char *end)
{
    far_receive(p, answer);
    far_receive_end(p);
    far_close(p);
    expect(p, end);
}

/* ---- looking at a child that waits: its script begins with `echo $$` ---- */

static pid_t learn_pid(struct party *p)
{
    char text[16];
    size_t have = 0;
    do {
        ssize_t n;
        run_until((n = read(p->far.in, text + have, 1)) > 0);
        have++;
    } while (text[have - 1] != '\n' && have < sizeof text);
    return (pid_t)atoi(text);
}

/* A file of /proc/PID; what is in it has no end but the returned length. */
static size_t read_proc(pid_t pid, const char *name, char *bytes, size_t size)
{
    char path[64];
    size_t have = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    for (ssize_t n; (n = read(fd, bytes + have, size - 1 - have)) > 0;)
        have += (size_t)n;
    close(fd);
    bytes[have] = '\0';
    return have;
}

static uint64_t read_signal_set(pid_t pid, const char *name)
{
    char status[8192];
    read_proc(pid, "status", status, sizeof status);
    const char *line = strstr(status, name);
    assert_non_null(line);
    return strtoull(line + strlen(name) + 1, NULL, 16);
}

/* "0 1 2" */
static void list_descriptors(pid_t pid, char *text, size_t size)
{
    char path[64];
    struct stat st;
    *text = '\0';
    for (int fd = 0; fd < 2 * MANY_DESCRIPTORS; fd++) {
        size_t used = strlen(text);
        snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
        if (lstat(path, &st) == 0)
            snprintf(text + used, size - used, "%s%d", used ? " " : "", fd);
    }
}

static bool is_alive(pid_t pid)
{
    char status[8192], path[64];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    if (access(path, F_OK) != 0)
        return false;
    read_proc(pid, "status", status, sizeof status);
    return !strstr(status, "State:\tZ") && !strstr(status, "State:\tX");
}

static void let_go(struct party *p, const char *end)
{
    far_send(p, "\n");
    far_receive_end(p);
    far_close(p);
    expect(p, end);
}

static const char waiting[] = "echo $$; read line";

/* ---- what it finds ---- */

static void a_child_is_its_streams_other_end(void **state)
{
    (void)state;
    struct party *p = run_script("read line; echo \"got $line\"; exit 3", (struct spawner_options){0});
    assert_int_equal(spawner_children(shop.spawner), 1);
    expect_nothing(p);
    far_send(p, "hello\n");
    expect_answer(p, "got hello\n", "end:child exit:3");
    assert_int_equal(spawner_children(shop.spawner), 0);
}

static void assert_has_three_descriptors(struct party *p)
{
    char descriptors[256];
    list_descriptors(learn_pid(p), descriptors, sizeof descriptors);
    assert_string_equal(descriptors, "0 1 2");
}

static void it_has_three_descriptors_and_no_more(void **state)
{
    (void)state;
    const enum spawn_stderr ways[] = {SPAWN_STDERR_LINES, SPAWN_STDERR_CLIENT, SPAWN_STDERR_NULL};
    for (size_t i = 0; i < COUNT(ways); i++) {
        struct party *p = run_script(waiting, (struct spawner_options){.stderr_to = ways[i]});
        assert_has_three_descriptors(p);
        let_go(p, "end:child exit:0");
        spawner_free(shop.spawner);
        shop.spawner = NULL;
    }
}

/* What is in our table, but for pidfds. */
static void list_own_table(char *text, size_t size)
{
    *text = '\0';
    for (int fd = 0; fd < 2 * MANY_DESCRIPTORS; fd++) {
        char path[64], link[128] = "";
        size_t used = strlen(text);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, link, sizeof link - 1) > 0 && !strstr(link, "pidfd"))
            snprintf(text + used, size - used, "%d %s %d\n", fd, link, fcntl(fd, F_GETFD));
    }
}

static void from_a_large_table_it_gets_no_more_and_leaves_it_alone(void **state)
{
    (void)state;
    int many[MANY_DESCRIPTORS];
    static char idle[TEXT_BYTES], before[TEXT_BYTES], after[TEXT_BYTES];
    if (is_on_valgrind()) /* it knows no clone with CLONE_FILES */
        skip();
    for (int i = 0; i < MANY_DESCRIPTORS; i++)
        many[i] = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    open_shop(waiting, (struct spawner_options){.stderr_to = SPAWN_STDERR_NULL});
    list_own_table(idle, sizeof idle);
    for (int i = 0; i < 3; i++) {
        struct party *p = meet(0);
        p->inside = note_child;
        list_own_table(before, sizeof before);
        assert_int_equal(spawner_start(shop.spawner, p->stream), 0);
        list_own_table(after, sizeof after);
        if (shop.io == SPAWN_SOCKET) /* else there are pipes */
            assert_string_equal(after, before);
        assert_has_three_descriptors(p);
        let_go(p, "end:child exit:0");
        dismiss_all();
        list_own_table(after, sizeof after);
        assert_string_equal(after, idle);
    }
    for (int i = 0; i < MANY_DESCRIPTORS; i++)
        close(many[i]);
}

static void its_signals_are_as_a_program_expects_them(void **state)
{
    (void)state;
    sigset_t blocked, before;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR2);
    sigaddset(&blocked, SIGTERM);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGRTMIN + 1, SIG_IGN); /* and SIGPIPE, by the harness */
    struct party *p = run_script(waiting, (struct spawner_options){0});
    pid_t pid = learn_pid(p);
    assert_int_equal(read_signal_set(pid, "SigBlk:"), 0);
    assert_int_equal(read_signal_set(pid, "SigIgn:"), 0);
    let_go(p, "end:child exit:0");
    sigset_t now;
    sigprocmask(SIG_SETMASK, &before, &now);
    assert_true(sigismember(&now, SIGUSR2) && !sigismember(&now, SIGINT)); /* ours were not touched */
    assert_ptr_equal(signal(SIGUSR1, SIG_DFL), SIG_IGN);
    signal(SIGRTMIN + 1, SIG_DFL);
}

static void it_is_a_process_group_of_its_own_and_blocks_as_usual(void **state)
{
    (void)state;
    struct party *p = run_script(waiting, (struct spawner_options){.max_files = 123, .directory = "/"});
    pid_t pid = learn_pid(p);
    char text[8192], link[64] = "";
    unsigned flags = O_NONBLOCK;
    assert_int_equal(getpgid(pid), pid);
    for (int fd = 0; fd < 3; fd++) {
        char name[32];
        snprintf(name, sizeof name, "fdinfo/%d", fd);
        read_proc(pid, name, text, sizeof text);
        assert_int_equal(sscanf(strstr(text, "flags:"), "flags: %o", &flags), 1);
        assert_false(flags & O_NONBLOCK);
    }
    read_proc(pid, "limits", text, sizeof text);
    int limit = 0;
    assert_int_equal(sscanf(strstr(text, "Max open files"), "Max open files %d", &limit), 1);
    assert_true(limit == 123 || is_on_valgrind()); /* which keeps limits to itself */
    snprintf(text, sizeof text, "/proc/%d/cwd", (int)pid);
    assert_true(readlink(text, link, sizeof link - 1) > 0);
    assert_string_equal(link, "/");
    let_go(p, "end:child exit:0");
}

/* ---- its environment ---- */

static int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server;
    struct party *p = *(struct party **)arg = host(s);
    p->inside = note_child;
    return spawner_start(shop.spawner, s);
}

static struct party *accept_and_start(int listener, const struct sockaddr *address, socklen_t length)
{
    struct errbuf err = {""};
    struct party *p = NULL;
    const struct tcpserver_options options = {.blocking = shop.io == SPAWN_SOCKET};
    shop.server = tcpserver_new(loop, handle_stream, &p, &options, &err);
    assert_int_equal(tcpserver_add_socket(shop.server, listener, &err), 0);
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, address, length), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    run_until(p);
    p->far = (struct ends){fd, fd};
    return p;
}

/* In a block of NUL-terminated NAME=VALUE: the value, NULL if there is none; *count: how often the name is there. */
static const char *find_variable(const char *block, size_t length, const char *name, int *count)
{
    const char *value = NULL;
    *count = 0;
    for (const char *at = block; at < block + length; at += strlen(at) + 1) {
        if (strncmp(at, name, strlen(name)) == 0 && at[strlen(name)] == '=') {
            value = at + strlen(name) + 1;
            ++*count;
        }
    }
    return value;
}

static void assert_variables(pid_t pid, const char *const (*expected)[2], size_t expected_count)
{
    static char block[TEXT_BYTES];
    size_t length = read_proc(pid, "environ", block, sizeof block);
    for (size_t i = 0; i < expected_count; i++) {
        int count;
        const char *value = find_variable(block, length, expected[i][0], &count);
        if (!expected[i][1]) {
            assert_null(value);
            continue;
        }
        assert_non_null(value);
        assert_string_equal(value, expected[i][1]);
        assert_int_equal(count, 1);
    }
}

static char kept_variable[] = "HARK_TEST_KEPT=as it was", other_variable[] = "HARK_TEST_OTHER=there"; /* setenv would copy them for good */

static void forget(const char *variable)
{
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(variable, "="), variable);
    unsetenv(name);
}

static void it_knows_its_connection(void **state)
{
    (void)state;
    static char stale[][32] = {"PROTO=a lie",      "TCPREMOTEHOST=a lie", "TCPREMOTEIP=a lie",   "REMOTE_HOST=a lie",
                               "HARK_ID=a lie",    "SSL_CIPHER=a lie",    "NOTIFY_SOCKET=a lie", "UNIXREMOTEPID=a lie",
                               "LISTEN_FDS=a lie", "WATCHDOG_PID=a lie",  "REMOTE_ADDR=a lie",   "SSL_CLIENT_S_DN=a lie"};
    for (size_t i = 0; i < COUNT(stale); i++)
        putenv(stale[i]);
    putenv(kept_variable);
    open_shop(waiting, (struct spawner_options){0});
    struct errbuf err;
    int listener;
    struct sockaddr_in own, there;
    socklen_t length = sizeof own;
    assert_int_equal(bind_sockets("127.0.0.1", "0", NULL, &listener, 1, &err), 1);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&there, &length), 0);
    struct party *p = accept_and_start(listener, (struct sockaddr *)&there, length);
    assert_int_equal(getsockname(p->far.in, (struct sockaddr *)&own, &length), 0);
    char peer_port[8], port[8];
    snprintf(peer_port, sizeof peer_port, "%d", ntohs(own.sin_port));
    snprintf(port, sizeof port, "%d", ntohs(there.sin_port));
    const char *const expected[][2] = {
        {"PROTO", "TCP"},
        {"TCPREMOTEIP", "127.0.0.1"},
        {"TCPREMOTEPORT", peer_port},
        {"REMOTE_ADDR", "127.0.0.1"},
        {"REMOTE_PORT", peer_port},
        {"TCPLOCALIP", "127.0.0.1"},
        {"TCPLOCALPORT", port},
        {"HARK_ID", "1"},
        {"TCPREMOTEHOST", NULL},
        {"REMOTE_HOST", NULL},
        {"SSL_CIPHER", NULL},
        {"NOTIFY_SOCKET", NULL},
        {"UNIXREMOTEPID", NULL},
        {"LISTEN_FDS", NULL},
        {"WATCHDOG_PID", NULL},
        {"SSL_CLIENT_S_DN", NULL},
        {"PATH", getenv("PATH")},
        {"HARK_TEST_KEPT", "as it was"},
    };
    assert_variables(learn_pid(p), expected, COUNT(expected));
    let_go(p, "end:child exit:0");
    for (size_t i = 0; i < COUNT(stale); i++)
        forget(stale[i]);
    forget(kept_variable);
}

static void it_knows_its_unix_peer(void **state)
{
    (void)state;
    struct unix_file file;
    struct errbuf err;
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    char name[64], pid[16], uid[16], gid[16];
    snprintf(name, sizeof name, "@hark-test-%d", (int)getpid());
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    snprintf(uid, sizeof uid, "%u", (unsigned)geteuid());
    snprintf(gid, sizeof gid, "%u", (unsigned)getegid());
    open_shop(waiting, (struct spawner_options){0});
    int listener = bind_unix_socket(name, 0600, 0, &file, &err);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    struct party *p = accept_and_start(listener, (struct sockaddr *)&address, length);
    const char *const expected[][2] = {
        {"PROTO", "UNIX"},       {"UNIXLOCALPATH", name}, {"UNIXREMOTEPID", pid}, {"UNIXREMOTEEUID", uid},
        {"UNIXREMOTEEGID", gid}, {"HARK_ID", "1"},        {"TCPREMOTEIP", NULL},  {"REMOTE_ADDR", NULL},
    };
    assert_variables(learn_pid(p), expected, COUNT(expected));
    let_go(p, "end:child exit:0");
}

static void variables_take_the_place_of_inherited_ones(void **state)
{
    (void)state;
    static char kept[] = "HARK_TEST_KEPT=new", first[] = "HARK_TEST_OWN=first", last[] = "HARK_TEST_OWN=last";
    static char *variables[] = {kept, first, last, NULL};
    putenv(kept_variable);
    putenv(other_variable);
    for (int clear = 0; clear < 2; clear++) {
        open_shop(waiting, (struct spawner_options){.variables = variables, .clear_environment = clear});
        struct party *p = start_child();
        const char *const expected[][2] = {
            {"HARK_TEST_KEPT", "new"}, {"HARK_TEST_OWN", "last"}, {"HARK_TEST_OTHER", clear ? NULL : "there"}, {"PROTO", "TCP"}};
        assert_variables(learn_pid(p), expected, COUNT(expected));
        let_go(p, "end:child exit:0");
        spawner_free(shop.spawner);
        shop.spawner = NULL;
    }
    forget(kept_variable);
    forget(other_variable);
}

/* ---- what it writes ---- */

static void its_answer_survives_a_request_it_does_not_read(void **state)
{
    (void)state;
    open_shop("printf answer", (struct spawner_options){0});
    for (int i = 0; i < 20; i++) {
        struct party *p = meet(0);
        p->inside = note_child;
        far_pour(p, KIB(100));
        assert_int_equal(spawner_start(shop.spawner, p->stream), 0);
        expect_answer(p, "answer", "end:child exit:0");
        dismiss_all();
    }
}

static void all_it_wrote_is_delivered_after_its_end(void **state)
{
    (void)state;
    struct party *p = run_script("head -c 1000000 /dev/zero", (struct spawner_options){0});
    size_t have = 0;
    char bytes[KIB(64)];
    run_until(iostream_child(p->stream) || shop.io == SPAWN_PIPES); /* nobody has read a byte yet */
    for (ssize_t n; have < 1000000;) {
        run_until((n = read(p->far.in, bytes, sizeof bytes)) >= 0 || errno != EAGAIN);
        assert_true(n > 0);
        have += (size_t)n;
    }
    assert_int_equal(have, 1000000);
    far_receive_end(p);
    far_close(p);
    expect(p, "end:child exit:0");
}

static void the_clients_end_is_the_end_of_its_input_and_no_more(void **state)
{
    (void)state;
    struct party *p = run_script("cat; echo; echo done", (struct spawner_options){0});
    far_send(p, "to the last byte");
    far_finish(p);
    expect_answer(p, "to the last byte\ndone\n", "end:child exit:0");
}

static void a_background_process_does_not_hold_the_connection(void **state)
{
    (void)state;
    struct party *p = run_script("sleep 1000 & echo $!", (struct spawner_options){0});
    pid_t background = learn_pid(p);
    far_receive_end(p);
    far_close(p);
    expect(p, "end:child exit:0");
    assert_true(is_alive(background));
    kill(background, SIGKILL);
}

static void note_bytes(struct party *p, const char *word)
{
    note_child(p, word);
    write_down(p, "in:%d out:%d", (int)iostream_bytes_in(p->stream), (int)iostream_bytes_out(p->stream));
}

static void its_bytes_are_counted(void **state)
{
    (void)state;
    struct party *p = run_script("read line; printf 1234567", (struct spawner_options){0});
    p->inside = note_bytes;
    far_send(p, "1234\n");
    expect_answer(p, "1234567", "end:child exit:0 in:5 out:7");
}

/* ---- its standard error ---- */

static void its_last_words_come_before_the_end(struct party *p, const char *word)
{
    note_child(p, word);
    assert_non_null(strstr(shop.lines, "last"));
}

static void stderr_is_told_line_by_line(void **state)
{
    (void)state;
    struct party *p = run_script("echo one >&2; printf 'two\\r\\n\\n' >&2; printf last >&2", (struct spawner_options){0});
    p->inside = its_last_words_come_before_the_end;
    expect_answer(p, "", "end:child exit:0");
    assert_string_equal(shop.lines, "0:one|0:two|0:|0:last|");
}

static void many_last_words_come_before_the_end(void **state)
{
    (void)state;
    struct party *p = run_script("i=0; while [ $i -lt 6000 ]; do echo $i; i=$((i + 1)); done | head -c 20000 >&2; echo last >&2",
                                 (struct spawner_options){0});
    p->inside = its_last_words_come_before_the_end;
    expect_answer(p, "", "end:child exit:0");
    assert_memory_equal(shop.lines, "0:0|0:1|0:2|", 12);
}

/* They are cut, and lose nothing. */
static void long_lines_are_told_in_pieces(void **state)
{
    (void)state;
    static const size_t lengths[] = {4095, 4096, 4097, 10000, 60000};
    for (size_t i = 0; i < COUNT(lengths); i++) {
        char script[128];
        size_t have = 0;
        snprintf(script, sizeof script, "head -c %zu /dev/zero | tr '\\0' x >&2; echo >&2; echo last >&2", lengths[i]);
        struct party *p = run_script(script, (struct spawner_options){0});
        expect_answer(p, "", "end:child exit:0");
        for (const char *piece = strtok(shop.lines, "|"); piece; piece = strtok(NULL, "|")) {
            size_t length = strlen(piece) - strlen("0:");
            if (strcmp(piece, "0:last") == 0)
                break;
            assert_int_equal(strspn(piece + strlen("0:"), "x"), length);
            assert_true(length > 0 && length <= 2 * 4096); /* no empty line that was not there */
            have += length;
        }
        assert_int_equal(have, lengths[i]);
        spawner_free(shop.spawner);
        shop.spawner = NULL;
        *shop.lines = '\0';
    }
}

static void a_background_process_may_still_complain(void **state)
{
    (void)state;
    static const char script[] = "(while kill -0 $$; do :; done 2> /dev/null; echo late >&2) > /dev/null < /dev/null & echo answer";
    struct party *p = run_script(script, (struct spawner_options){0});
    expect_answer(p, "answer\n", "end:child exit:0");
    run_until(*shop.lines);
    assert_string_equal(shop.lines, "0:late|");
}

static void deny(struct iostream *s)
{
    iostream_abort(s, CLOSE_DENIED);
}

static void shut_down(struct iostream *s)
{
    iostream_abort(s, CLOSE_SHUTDOWN);
}

/* Its last words, without a newline, are told when it has exited: there is no child to wait for, or to kill, any more. */
static void a_stream_may_be_ended_by_a_line(void **state)
{
    (void)state;
    void (*const enders[])(struct iostream *) = {deny, shut_down, iostream_close};
    for (size_t i = 0; i < COUNT(enders); i++) {
        open_shop("printf 'last words' >&2", (struct spawner_options){.kill_after_seconds = 5});
        shop.inside = enders[i];
        for (int k = 0; k < 5; k++) {
            struct party *p = shop.party = start_child();
            run_until(*shop.lines);
            far_close(p);
            run_until(!p->stream);
            assert_null(strstr(p->diary, "signal"));
            *p->diary = *shop.lines = '\0';
            assert_false(ev_run(loop, EVRUN_NOWAIT)); /* no clock is left running */
            pass(100);
        }
        spawner_free(shop.spawner);
        shop.spawner = NULL;
        shop.inside = NULL;
    }
}

static void stderr_may_go_to_the_client_or_nowhere(void **state)
{
    (void)state;
    struct party *p = run_script("echo oops >&2", (struct spawner_options){.stderr_to = SPAWN_STDERR_CLIENT});
    expect_answer(p, "oops\n", "end:child exit:0");
    spawner_free(shop.spawner);
    p = run_script("echo oops >&2; echo fine", (struct spawner_options){.stderr_to = SPAWN_STDERR_NULL});
    expect_answer(p, "fine\n", "end:child exit:0");
    assert_string_equal(shop.lines, "");
}

static void after_the_spawner_nobody_listens_to_background_processes(void **state)
{
    (void)state;
    struct party *p = run_script("(while kill -0 $$; do :; done 2> /dev/null; echo late >&2) > /dev/null < /dev/null & echo $!; read go",
                                 (struct spawner_options){0});
    pid_t background = learn_pid(p);
    kill(background, SIGSTOP);
    far_send(p, "\n");
    far_receive_end(p);
    far_close(p);
    expect(p, "end:child exit:0");
    spawner_free(shop.spawner);
    shop.spawner = NULL;
    kill(background, SIGCONT);
    run_until(!is_alive(background));
    assert_string_equal(shop.lines, "");
}

/* ---- what cannot be started ---- */

/* A program that was there when the spawner was made. */
static void make_program(char *path, mode_t mode)
{
    strcpy(path, "/tmp/hark-test-XXXXXX");
    int fd = mkostemp(path, O_CLOEXEC);
    assert_int_equal(write(fd, "#!/bin/sh\n", 10), 10);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void assert_start_fails(struct party *p, int error)
{
    errno = 0;
    assert_int_equal(spawner_start(shop.spawner, p->stream), -1);
    assert_int_equal(errno, error);
}

static void a_failed_start_says_why_and_leaves_nothing(void **state)
{
    (void)state;
    char path[64];
    char *argv[] = {path, NULL};
    struct errbuf err = {""};
    if (is_on_valgrind()) /* its vfork is a fork: the child cannot tell us */
        skip();
    make_program(path, 0700);
    const struct spawner_options options = {.argv = argv, .io = shop.io, .on_stderr = on_stderr, .arg = &shop};
    shop.spawner = spawner_new(loop, &options, &err);
    assert_non_null(shop.spawner);
    struct party *p = meet(0);
    int before = count_descriptors();
    unsigned users = engine->users;
    assert_int_equal(chmod(path, 0600), 0);
    assert_start_fails(p, EACCES);
    unlink(path);
    for (int i = 0; i < 200; i++)
        assert_start_fails(p, ENOENT);
    run_until(count_descriptors() == before && engine->users == users);
    run_quietly();
    expect_nothing(p);
    assert_string_equal(shop.lines, "");
    assert_int_equal(spawner_children(shop.spawner), 0);
    errno = 0;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no zombie */
    assert_int_equal(errno, ECHILD);
    write_text(p, "sorry"); /* the stream is as good as before */
    far_receive(p, "sorry");
    expect(p, "wrote");
}

static void without_descriptors_nothing_is_started(void **state)
{
    (void)state;
    struct rlimit before;
    open_shop("echo now", (struct spawner_options){0});
    struct party *p = meet(0);
    int count = count_descriptors();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    for (rlim_t more = 0; more < 2; more++) { /* no end of a pipe, or just one pipe and no more */
        int next = dup(STDIN_FILENO);
        close(next);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)next + 2 * more * (shop.io == SPAWN_PIPES), before.rlim_max}),
                         0);
        assert_start_fails(p, EMFILE);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        run_quietly();
        assert_int_equal(count_descriptors(), count);
    }
    assert_int_equal(spawner_start(shop.spawner, p->stream), 0);
    p->inside = note_child;
    expect_answer(p, "now\n", "end:child exit:0");
}

static void start_in_vain(struct party *p, const char *word)
{
    if (strcmp(word, "end") == 0)
        assert_start_fails(p, EPIPE);
}

static void a_stream_has_to_be_free_for_it(void **state)
{
    (void)state;
    open_shop(waiting, (struct spawner_options){0});
    struct party *ended = meet(0), *closing = meet(0), *finished = meet(0), *reading = meet(0), *taken = start_child();
    ended->inside = start_in_vain;
    iostream_abort(ended->stream, CLOSE_ERROR);
    expect(ended, "end:error");
    iostream_close(closing->stream);
    assert_start_fails(closing, EPIPE);
    iostream_finish(finished->stream);
    assert_start_fails(finished, EPIPE);
    read_some(reading, 1);
    assert_start_fails(reading, EBUSY);
    assert_start_fails(taken, EBUSY);
    learn_pid(taken);
    let_go(taken, "end:child exit:0");
    far_close(closing);
    expect(closing, "end:finished");
    assert_int_equal(iostream_read_cancel(reading->stream), 0);
}

static void programs_are_checked_at_start(void **state)
{
    (void)state;
    static const struct {
        const char *name, *content;
        mode_t mode;
        const char *why;
    } cases[] = {
        {"good", "#!/bin/sh\n", 0755, NULL},
        {"spaced", "#! /bin/sh -e\n", 0755, NULL},
        {"unreadable", "#!/bin/sh\n", 0111, NULL},
        {"plain", "#!/bin/sh\n", 0644, "no execute permission"},
        {"empty", "", 0755, "the file is empty"},
        {"windows", "#!/bin/sh\r\n", 0755, "carriage return"},
        {"lost", "#!/no/such/interpreter\n", 0755, "/no/such/interpreter"},
        {"bare", "echo hello\n", 0755, "without an interpreter line"},
        {"missing", NULL, 0, "No such file"},
        {".", NULL, 0, "directory"},
    };
    char directory[] = "/tmp/hark-test-XXXXXX", path[PATH_MAX], found[PATH_MAX];
    struct errbuf err;
    assert_non_null(mkdtemp(directory));
    for (size_t i = 0; i < COUNT(cases); i++) {
        snprintf(path, sizeof path, "%s/%s", directory, cases[i].name);
        if (cases[i].content) {
            int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
            assert_int_equal(write(fd, cases[i].content, strlen(cases[i].content)), strlen(cases[i].content));
            assert_int_equal(fchmod(fd, cases[i].mode), 0);
            close(fd);
        }
        *err.text = '\0';
        assert_int_equal(spawn_find_program(path, found, sizeof found, &err), cases[i].why ? -1 : 0);
        if (cases[i].why) {
            assert_non_null(strstr(err.text, cases[i].why));
            assert_non_null(strstr(err.text, path));
            char *argv[] = {path, NULL};
            assert_null(spawner_new(loop, &(struct spawner_options){.argv = argv}, &err));
        } else {
            assert_string_equal(found, path);
        }
        if (cases[i].content)
            unlink(path);
    }
    rmdir(directory);
}

static void programs_are_looked_up_in_path(void **state)
{
    (void)state;
    char directory[] = "/tmp/hark-test-XXXXXX", program[64], list[128], found[PATH_MAX];
    char *old = getenv("PATH") - strlen("PATH="); /* as it is in the environment */
    struct errbuf err;
    assert_non_null(mkdtemp(directory));
    snprintf(program, sizeof program, "%s/hark-test", directory);
    assert_int_equal(symlink("/bin/sh", program), 0);
    snprintf(list, sizeof list, "PATH=/no/such/directory:/tmp:%s:/bin", directory);
    putenv(list);
    assert_int_equal(spawn_find_program("hark-test", found, sizeof found, &err), 0);
    assert_string_equal(found, program);
    assert_int_equal(spawn_find_program("hark-no-such-test", found, sizeof found, &err), -1);
    assert_non_null(strstr(err.text, "hark-no-such-test"));
    assert_int_equal(spawn_find_program("", found, sizeof found, &err), -1);
    unlink(program);
    rmdir(directory);
    putenv(old);
}

static void variables_are_checked_at_start(void **state)
{
    (void)state;
    static const struct {
        const char *variable;
        bool good;
    } cases[] = {
        {"NAME=value", true}, {"NAME=", true},      {"NAME=a=b", true},   {"_x9=", true},       {"NAME", false},
        {"", false},          {"=value", false},    {"PROTO=UDP", false}, {"HARK_ID=1", false}, {"TCPREMOTEIP=::1", false},
        {"PATH=/bin", true},  {"PROTOCOL=x", true},
    };
    struct errbuf err;
    for (size_t i = 0; i < COUNT(cases); i++) {
        *err.text = '\0';
        assert_int_equal(spawn_check_variable(cases[i].variable, &err), cases[i].good ? 0 : -1);
        assert_int_equal(*err.text == '\0', cases[i].good);
    }
}

/* ---- when the client goes ---- */

static void a_reset_terminates_the_child_after_a_while(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    pid_t pid = learn_pid(p);
    run_quietly();
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(4);
    assert_true(is_alive(pid));
    expect_nothing(p);
    pass(2);
    expect(p, "end:reset/ECONNRESET signal:15");
}

static void what_ignores_that_is_killed(void **state)
{
    (void)state;
    struct party *p = run_script("trap '' TERM; echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    pid_t pid = learn_pid(p);
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(6);
    pass(4);
    assert_true(is_alive(pid));
    expect_nothing(p);
    pass(2);
    expect(p, "end:reset/ECONNRESET signal:9");
}

static void what_ends_in_time_is_left_alone(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; cat > /dev/null; exit 4", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    far_reset(p);
    run_until(!p->stream);
    assert_non_null(strstr(p->diary, " exit:4")); /* it may be gone before we know why */
    *p->diary = '\0';
}

static void the_whole_group_is_terminated(void **state)
{
    (void)state;
    struct party *p = run_script("sleep 1000 & echo $!; wait", (struct spawner_options){.kill_after_seconds = 5});
    pid_t background = learn_pid(p);
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(6);
    expect(p, "end:reset/ECONNRESET signal:15");
    run_until(!is_alive(background));
}

static void no_time_to_kill_is_never(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 0});
    pid_t pid = learn_pid(p);
    far_reset(p);
    run_until(iostream_reason(p->stream) == CLOSE_RESET);
    pass(100000);
    assert_true(is_alive(pid));
    expect_nothing(p);
    kill(pid, SIGKILL);
    expect(p, "end:reset/ECONNRESET signal:9");
}

/* ---- when we end it ---- */

static void an_ended_stream_waits_for_its_child(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; cat > /dev/null; exit 5", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    iostream_abort(p->stream, CLOSE_DENIED);
    expect_nothing(p);
    far_receive_reset(p); /* not dressed up as an end */
    expect(p, "end:denied exit:5");
}

static void a_closed_stream_ends_in_order(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    iostream_close(p->stream);
    far_receive_end(p);
    far_close(p);
    run_until(iostream_reason(p->stream) == CLOSE_FINISHED);
    pass(6);
    expect(p, "end:finished signal:15");
}

static void at_shutdown_children_end_now(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 1000});
    struct party *q = start_child();
    learn_pid(p);
    learn_pid(q);
    far_reset(q); /* its client has gone already */
    run_until(iostream_reason(q->stream) == CLOSE_RESET);
    iostream_abort(p->stream, CLOSE_SHUTDOWN);
    iostream_abort(q->stream, CLOSE_SHUTDOWN);
    expect(p, "end:shutdown signal:15");
    expect(q, "end:reset/ECONNRESET signal:15");
}

static void at_shutdown_the_stubborn_are_killed(void **state)
{
    (void)state;
    struct party *p = run_script("trap '' TERM; echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 1000});
    learn_pid(p);
    iostream_abort(p->stream, CLOSE_SHUTDOWN);
    run_quietly();
    expect_nothing(p);
    pass(2);
    expect(p, "end:shutdown signal:9");
}

static void time_limits_hold_for_children(void **state)
{
    (void)state;
    struct party *p = run_script("echo $$; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    learn_pid(p);
    assert_int_equal(iostream_set_timer(p->stream, TIMER_LIFETIME, 60), 0);
    pass(61);
    far_receive_reset(p);
    pass(6);
    expect(p, "end:timeout signal:15");
    p = start_child();
    learn_pid(p);
    assert_int_equal(iostream_set_timer(p->stream, TIMER_IDLE, 0.2), 0); /* of the kernel's own clock: this takes its time */
    run_until(iostream_reason(p->stream) == CLOSE_TIMEOUT);
    pass(6);
    expect(p, "end:timeout signal:15");
}

/* A child that has the socket itself: the kernel tells what state the connection is in. */
static void a_half_closed_connection_ends_after_its_time(void **state)
{
    (void)state;
    struct party *p = run_script("cat; exec sleep 1000", (struct spawner_options){.kill_after_seconds = 5});
    assert_int_equal(iostream_set_timer(p->stream, TIMER_HALF_CLOSE, 0.2), 0);
    far_send(p, "both are open");
    far_receive(p, "both are open");
    double until = seconds_now() + 0.5; /* what is tested is that nothing happens */
    run_until(seconds_now() > until);
    expect_nothing(p);
    assert_int_equal(iostream_reason(p->stream), CLOSE_NONE);
    double half_closed = seconds_now();
    far_finish(p);
    run_until(iostream_reason(p->stream) == CLOSE_TIMEOUT);
    assert_true(seconds_now() - half_closed >= 0.19);
    pass(6);
    expect(p, "end:timeout signal:15");
}

/* ---- several at once ---- */

static void each_has_its_own_connection(void **state)
{
    (void)state;
    enum { CHILDREN = 10 };
    struct party *parties[CHILDREN];
    open_shop("read line; echo \"$line\"; exit $line", (struct spawner_options){0});
    for (int i = 0; i < CHILDREN; i++)
        parties[i] = start_child();
    assert_int_equal(spawner_children(shop.spawner), CHILDREN);
    for (int i = CHILDREN - 1; i >= 0; i--) { /* the last one's end is not held back by those before it */
        char line[16], end[32];
        snprintf(line, sizeof line, "%d\n", i);
        snprintf(end, sizeof end, "end:child exit:%d", i);
        far_send(parties[i], line);
        expect_answer(parties[i], line, end);
    }
}

/* Neither has the other's descriptors. */
static void the_end_of_ones_input_is_not_held_back_by_another(void **state)
{
    (void)state;
    open_shop("cat", (struct spawner_options){0});
    struct party *p = start_child(), *q = start_child();
    far_finish(p);
    expect_answer(p, "", "end:child exit:0");
    far_send(q, "alive");
    far_receive(q, "alive");
    far_finish(q);
    expect_answer(q, "", "end:child exit:0");
}

/* An old kernel: SIGCHLD tells, for all children at once. */
static void without_pidfds_ends_are_learnt_of_all_the_same(void **state)
{
    (void)state;
    without_pidfds = true;
    open_shop("read line; exit $line", (struct spawner_options){0});
    struct party *p = start_child(), *q = start_child(), *r = start_child();
    far_send(p, "1\n");
    far_send(q, "2\n");
    expect_answer(q, "", "end:child exit:2");
    expect_answer(p, "", "end:child exit:1");
    far_send(r, "3\n");
    expect_answer(r, "", "end:child exit:3");
}

/* ---- those that were started before ---- */

static void warm_children_wait_for_streams(void **state)
{
    (void)state;
    open_shop("read line; echo \"$$ $line\"", (struct spawner_options){.warm = 2});
    run_until(shop.spawner->warm_count == 2);
    assert_int_equal(spawner_children(shop.spawner), 0);
    for (int i = 0; i < 3; i++) {
        struct party *p = start_child();
        assert_int_equal(spawner_children(shop.spawner), 1);
        far_send(p, "hello\n");
        assert_true(learn_pid(p) > 0);
        far_receive_end(p);
        far_close(p);
        expect(p, "end:child exit:0");
    }
    run_until(shop.spawner->warm_count == 2);
}

static void a_program_that_does_not_wait_is_told(void **state)
{
    (void)state;
    open_shop("exit 0", (struct spawner_options){.warm = 1});
    run_until(*shop.failure);
    *shop.failure = '\0';
    for (int i = 0; i < 10; i++)
        pass(2); /* it is tried again, and said once */
    assert_string_equal(shop.failure, "");
}

#define SHOP_TEST(function, how)                                                    \
    {                                                                               \
#function "/" #how, function, set_up_shop, tear_down, (void *)(intptr_t)how \
    }
#define CHILD_TEST(function) SHOP_TEST(function, SPAWN_SOCKET), SHOP_TEST(function, SPAWN_PIPES)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHILD_TEST(a_child_is_its_streams_other_end),
        CHILD_TEST(it_has_three_descriptors_and_no_more),
        CHILD_TEST(from_a_large_table_it_gets_no_more_and_leaves_it_alone),
        CHILD_TEST(its_signals_are_as_a_program_expects_them),
        CHILD_TEST(it_is_a_process_group_of_its_own_and_blocks_as_usual),
        CHILD_TEST(it_knows_its_connection),
        CHILD_TEST(it_knows_its_unix_peer),
        CHILD_TEST(variables_take_the_place_of_inherited_ones),
        CHILD_TEST(its_answer_survives_a_request_it_does_not_read),
        CHILD_TEST(all_it_wrote_is_delivered_after_its_end),
        CHILD_TEST(the_clients_end_is_the_end_of_its_input_and_no_more),
        CHILD_TEST(a_background_process_does_not_hold_the_connection),
        CHILD_TEST(its_bytes_are_counted),
        CHILD_TEST(stderr_is_told_line_by_line),
        CHILD_TEST(many_last_words_come_before_the_end),
        SHOP_TEST(long_lines_are_told_in_pieces, SPAWN_SOCKET),
        CHILD_TEST(a_background_process_may_still_complain),
        CHILD_TEST(a_stream_may_be_ended_by_a_line),
        CHILD_TEST(stderr_may_go_to_the_client_or_nowhere),
        CHILD_TEST(after_the_spawner_nobody_listens_to_background_processes),
        CHILD_TEST(a_failed_start_says_why_and_leaves_nothing),
        CHILD_TEST(without_descriptors_nothing_is_started),
        CHILD_TEST(a_stream_has_to_be_free_for_it),
        SHOP_TEST(programs_are_checked_at_start, SPAWN_SOCKET),
        SHOP_TEST(programs_are_looked_up_in_path, SPAWN_SOCKET),
        SHOP_TEST(variables_are_checked_at_start, SPAWN_SOCKET),
        CHILD_TEST(a_reset_terminates_the_child_after_a_while),
        CHILD_TEST(what_ignores_that_is_killed),
        CHILD_TEST(what_ends_in_time_is_left_alone),
        CHILD_TEST(the_whole_group_is_terminated),
        CHILD_TEST(no_time_to_kill_is_never),
        CHILD_TEST(an_ended_stream_waits_for_its_child),
        CHILD_TEST(a_closed_stream_ends_in_order),
        CHILD_TEST(at_shutdown_children_end_now),
        CHILD_TEST(at_shutdown_the_stubborn_are_killed),
        CHILD_TEST(time_limits_hold_for_children),
        CHILD_TEST(a_half_closed_connection_ends_after_its_time),
        CHILD_TEST(each_has_its_own_connection),
        CHILD_TEST(the_end_of_ones_input_is_not_held_back_by_another),
        CHILD_TEST(without_pidfds_ends_are_learnt_of_all_the_same),
        SHOP_TEST(warm_children_wait_for_streams, SPAWN_PIPES),
        SHOP_TEST(a_program_that_does_not_wait_is_told, SPAWN_PIPES),
    };
    return cmocka_run_group_tests_name("spawn", tests, NULL, NULL);
}
