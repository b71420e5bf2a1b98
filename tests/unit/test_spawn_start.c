/* Children: their environment, and what cannot be started. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "shop.h"

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

static int find(const char *name, char found[PATH_MAX], struct errbuf *err)
{
    char *argv[] = {(char *)(uintptr_t)name, NULL};
    return spawn_find_program(&(struct spawner_options){.argv = argv}, found, PATH_MAX, err);
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
        assert_int_equal(find(path, found, &err), cases[i].why ? -1 : 0);
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
    assert_int_equal(find("hark-test", found, &err), 0);
    assert_string_equal(found, program);
    assert_int_equal(find("hark-no-such-test", found, &err), -1);
    assert_non_null(strstr(err.text, "hark-no-such-test"));
    assert_int_equal(find("", found, &err), -1);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHILD_TEST(it_knows_its_connection),
        CHILD_TEST(it_knows_its_unix_peer),
        CHILD_TEST(variables_take_the_place_of_inherited_ones),
        CHILD_TEST(a_failed_start_says_why_and_leaves_nothing),
        CHILD_TEST(without_descriptors_nothing_is_started),
        CHILD_TEST(a_stream_has_to_be_free_for_it),
        SHOP_TEST(programs_are_checked_at_start, SPAWN_SOCKET),
        SHOP_TEST(programs_are_looked_up_in_path, SPAWN_SOCKET),
        SHOP_TEST(variables_are_checked_at_start, SPAWN_SOCKET),
    };
    return cmocka_run_group_tests_name("spawn_start", tests, NULL, NULL);
}
