/* bind_unix_socket and unlink_unix_socket, in a directory of their own. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/hark.h"
#include "valgrind.h"

enum { SAFETY_SECONDS = 60 };

/* ---- what happens between two system calls; nothing at the beginning of each test ---- */

static struct {
    void (*after_bind)(void);
    void (*after_connect)(void); /* once */
    int error_of_listen;
} bent;

int __real_bind(int, const struct sockaddr *, socklen_t);
int __wrap_bind(int, const struct sockaddr *, socklen_t);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    int result = __real_bind(fd, address, length);
    if (result == 0 && bent.after_bind)
        bent.after_bind();
    return result;
}

int __real_connect(int, const struct sockaddr *, socklen_t);
int __wrap_connect(int, const struct sockaddr *, socklen_t);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    int result = __real_connect(fd, address, length);
    int error = errno;
    void (*after_connect)(void) = bent.after_connect;
    bent.after_connect = NULL;
    if (after_connect)
        after_connect();
    errno = error;
    return result;
}

int __real_listen(int, int);
int __wrap_listen(int, int);
int __wrap_listen(int fd, int backlog)
{
    if (bent.error_of_listen) {
        errno = bent.error_of_listen;
        return -1;
    }
    return __real_listen(fd, backlog);
}

/* ---- the fixture ---- */

static char directory[] = "/tmp/hark-unix-XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    limit_time(SAFETY_SECONDS);
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return chdir("/") == 0 && rmdir(directory) == 0 ? 0 : -1; /* which has to be empty: every test cleans up */
}

static int setup(void **state)
{
    (void)state;
    memset(&bent, 0, sizeof bent);
    return 0;
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

static const char *local_host(int fd)
{
    static char text[ADDRESS_TEXT];
    struct sockaddr_un address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    return address_host((struct sockaddr *)&address, length, text, sizeof text);
}

static bool is_listening(int fd)
{
    int value = 0;
    socklen_t length = sizeof value;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value;
}

static int bind_unix(const char *path, mode_t mode, struct unix_file *file)
{
    struct errbuf err = {""};
    int fd = bind_unix_socket(path, mode, 0, file, &err);
    assert_string_equal(err.text, "");
    assert_true(fd >= 0);
    return fd;
}

static void assert_no_unix_socket(const char *path, int error, const char *text)
{
    struct unix_file file;
    struct errbuf err = {""};
    int before = open_descriptors();
    assert_int_equal(bind_unix_socket(path, 0600, 0, &file, &err), -1);
    assert_int_equal(errno, error);
    assert_string_equal(err.text, text);
    assert_int_equal(open_descriptors(), before);
}

static struct sockaddr_un unix_address(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    return address;
}

static int bind_plainly(const char *path, int type)
{
    struct sockaddr_un address = unix_address(path);
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    assert_int_equal(__real_bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int try_connect(const char *path)
{
    struct sockaddr_un address = unix_address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = __real_connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : errno;
    close(fd);
    return error;
}

static bool exists(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0;
}

static mode_t file_mode(const char *path)
{
    struct stat status;
    assert_int_equal(lstat(path, &status), 0);
    return status.st_mode & 07777;
}

static mode_t mode_after_bind;

static void note_mode(void)
{
    mode_after_bind = file_mode("s");
}

static void test_mode_whatever_the_umask(void **state)
{
    (void)state;
    static const mode_t masks[] = {0, 022, 077, 0777}, modes[] = {0600, 0660, 0666, 0777, 0};
    bent.after_bind = note_mode;
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        for (size_t j = 0; j < sizeof modes / sizeof *modes; j++) {
            struct unix_file file;
            mode_t before = umask(masks[i]);
            int fd = bind_unix("s", modes[j], &file);
            assert_int_equal(umask(before), masks[i]); /* left alone: other threads make files too */
            assert_int_equal(mode_after_bind & ~modes[j], 0);
            assert_int_equal(file_mode("s"), modes[j]);
            assert_int_equal(unlink_unix_socket("s", &file), 0);
            close(fd);
        }
    }
}

static void test_unix_listener(void **state)
{
    (void)state;
    struct unix_file file;
    int fd = bind_unix("s", 0600, &file);
    assert_true(is_listening(fd));
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    assert_int_equal(try_connect("s"), 0);
    assert_int_equal(unlink_unix_socket("s", &file), 0);
    assert_false(exists("s"));
    assert_int_equal(unlink_unix_socket("s", &file), 0);
    close(fd);
}

/* Where it was is no directory any more. */
static void test_what_is_gone_needs_no_removal(void **state)
{
    (void)state;
    struct unix_file file = {0};
    assert_int_equal(mkdir("d", 0700), 0);
    int fd = bind_unix("d/s", 0600, &file);
    assert_int_equal(rename("d", "moved"), 0);
    assert_int_equal(unlink_unix_socket("d/s", &file), 0);
    close(open("d", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(unlink_unix_socket("d/s", &file), 0);
    assert_int_equal(unlink_unix_socket("moved/s", &file), 0);
    assert_false(exists("moved/s"));
    assert_int_equal(unlink("d"), 0);
    assert_int_equal(rmdir("moved"), 0);
    close(fd);
}

static void test_stale_socket_is_replaced(void **state)
{
    (void)state;
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct unix_file file;
        close(bind_plainly("s", types[i]));
        int fd = bind_unix("s", 0600, &file);
        assert_int_equal(try_connect("s"), 0);
        assert_int_equal(unlink_unix_socket("s", &file), 0);
        close(fd);
    }
}

static void test_live_server_is_left_alone(void **state)
{
    (void)state;
    static const char text[] = "cannot listen on unix socket \"s\": a server is listening on it";
    int fd = bind_plainly("s", SOCK_STREAM);
    listen(fd, 0);
    assert_no_unix_socket("s", EADDRINUSE, text);
    assert_int_equal(try_connect("s"), EAGAIN); /* the probe fills its backlog */
    assert_no_unix_socket("s", EADDRINUSE, text);
    close(accept(fd, NULL, NULL));
    assert_int_equal(try_connect("s"), 0);
    close(fd);
    unlink("s");

    fd = bind_plainly("s", SOCK_DGRAM);
    assert_no_unix_socket("s", EADDRINUSE, text);
    assert_true(exists("s"));
    close(fd);
    unlink("s");
}

static void test_other_files_are_left_alone(void **state)
{
    (void)state;
    static const char text[] = "cannot listen on unix socket \"s\": the file is not a socket";
    close(open("s", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_no_unix_socket("s", EEXIST, text);
    assert_true(exists("s"));
    unlink("s");

    assert_int_equal(symlink("elsewhere", "s"), 0);
    assert_no_unix_socket("s", EEXIST, text);
    assert_false(exists("elsewhere"));
    close(bind_plainly("elsewhere", SOCK_STREAM)); /* stale, but not what the path names */
    assert_no_unix_socket("s", EEXIST, text);
    assert_true(exists("elsewhere"));
    unlink("elsewhere");
    unlink("s");

    assert_int_equal(mkdir("s", 0700), 0);
    assert_no_unix_socket("s", EEXIST, text);
    assert_int_equal(rmdir("s"), 0);
}

static void test_unix_names(void **state)
{
    (void)state;
    struct sockaddr_un address;
    struct unix_file file;
    char path[sizeof address.sun_path + 1], text[256];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    snprintf(text, sizeof text, "the path of unix socket \"%.64s...\" is too long: 108 bytes, and at most 107 fit", path);
    assert_no_unix_socket(path, ENAMETOOLONG, text);
    path[0] = '@';
    snprintf(text, sizeof text, "the path of unix socket \"%.64s...\" is too long: 108 bytes, and at most 107 fit", path);
    assert_no_unix_socket(path, ENAMETOOLONG, text);
    path[0] = 'x';
    path[sizeof path - 2] = '\0';
    int fd = bind_unix(path, 0600, &file);
    assert_string_equal(local_host(fd), path);
    assert_int_equal(unlink_unix_socket(path, &file), 0);
    assert_false(exists(path));
    close(fd);

    assert_no_unix_socket("", EINVAL, "cannot listen on unix socket \"\": it has no name");
    assert_no_unix_socket("@", EINVAL, "cannot listen on unix socket \"@\": it has no name");
    assert_no_unix_socket("none/s", ENOENT, "cannot listen on unix socket \"none/s\": No such file or directory");
}

static void test_abstract_socket(void **state)
{
    (void)state;
    struct unix_file file, other;
    char name[64], text[160];
    snprintf(name, sizeof name, "@hark-test-%d", (int)getpid());
    int named = bind_unix("s", 0600, &other);
    assert_int_equal(rename("s", name), 0); /* a file of that name has nothing to do with it */
    int fd = bind_unix(name, 0600, &file);
    assert_string_equal(local_host(fd), name);
    snprintf(text, sizeof text, "cannot listen on unix socket \"%s\": Address already in use", name);
    assert_no_unix_socket(name, EADDRINUSE, text);
    assert_int_equal(unlink_unix_socket(name, &file), 0);
    assert_true(exists(name));
    unlink(name);
    close(fd);
    close(named);
}

static void test_unlink_only_if_ours(void **state)
{
    (void)state;
    struct unix_file file, other_file;
    int fd = bind_unix("s", 0600, &file);
    unlink("s");
    int other = bind_unix("s", 0600, &other_file);
    assert_int_equal(unlink_unix_socket("s", &file), 0);
    assert_int_equal(try_connect("s"), 0);
    assert_int_equal(unlink_unix_socket("s", &other_file), 0);
    assert_false(exists("s"));
    close(fd);
    close(other);
}

static int faster_server;

static void start_faster_server(void)
{
    unlink("s");
    faster_server = bind_plainly("s", SOCK_STREAM);
    listen(faster_server, 1);
}

static void test_race_for_a_stale_socket(void **state)
{
    (void)state;
    struct unix_file file;
    struct errbuf err;
    for (int i = 0; i < 20; i++) { /* file systems like to give the inode number of the removed file to the next */
        close(bind_plainly("s", SOCK_STREAM));
        bent.after_connect = start_faster_server;
        assert_int_equal(bind_unix_socket("s", 0600, 0, &file, &err), -1);
        assert_int_equal(errno, EADDRINUSE);
        assert_int_equal(try_connect("s"), 0);
        close(faster_server);
        unlink("s");
    }
}

static void test_failure_removes_the_file(void **state)
{
    (void)state;
    bent.error_of_listen = ENOBUFS;
    assert_no_unix_socket("s", ENOBUFS, "cannot listen on unix socket \"s\": No buffer space available");
    assert_false(exists("s"));
}

static void put_link_in_its_place(void)
{
    unlink("s");
    assert_int_equal(symlink("victim", "s"), 0);
}

static void test_mode_is_not_set_through_a_link(void **state)
{
    (void)state;
    struct unix_file file;
    struct errbuf err;
    close(open("victim", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    bent.after_bind = put_link_in_its_place;
    assert_int_equal(bind_unix_socket("s", 0666, 0, &file, &err), -1);
    assert_int_equal(file_mode("victim"), 0600);
    unlink("victim");
    unlink("s");
}

#define TEST(function) cmocka_unit_test_setup(function, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_mode_whatever_the_umask),
        TEST(test_unix_listener),
        TEST(test_what_is_gone_needs_no_removal),
        TEST(test_stale_socket_is_replaced),
        TEST(test_live_server_is_left_alone),
        TEST(test_other_files_are_left_alone),
        TEST(test_unix_names),
        TEST(test_abstract_socket),
        TEST(test_unlink_only_if_ours),
        TEST(test_race_for_a_stale_socket),
        TEST(test_failure_removes_the_file),
        TEST(test_mode_is_not_set_through_a_link),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
