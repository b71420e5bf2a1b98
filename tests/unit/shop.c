#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "shop.h"

enum { MAX_INHERITED = 1024 };

const char waiting[] = "echo $$; read line";
struct shop shop;

void on_stderr(void *arg, uint64_t id, const char *line, size_t length)
{
    size_t used = strlen(shop.lines);
    assert_ptr_equal(arg, &shop);
    snprintf(shop.lines + used, sizeof shop.lines - used, "%d:%.*s|", (int)id, (int)length, line);
    if (shop.inside && shop.party->stream)
        shop.inside(shop.party->stream);
    if (shop.look)
        shop.look();
}

static void on_failure(void *arg, const char *why)
{
    assert_ptr_equal(arg, &shop);
    snprintf(shop.failure, sizeof shop.failure, "%s", why);
    if (shop.look)
        shop.look();
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

int set_up_shop(void **state)
{
    enum spawn_io io = (enum spawn_io)(intptr_t)*state;
    for (int fd = 3; fd < MAX_INHERITED; fd++)
        fcntl(fd, F_SETFD, FD_CLOEXEC); /* what we have inherited ourselves, from make for one */
    *state = (void *)TCP;
    int result = set_up(state);
    memset(&shop, 0, sizeof shop);
    shop.io = io;
    at_tear_down = close_shop;
    return result;
}

void open_shop(const char *script, struct spawner_options options)
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
void note_child(struct party *p, const char *word)
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

struct party *start_child(void)
{
    struct party *p = meet(0);
    p->inside = note_child;
    assert_int_equal(spawner_start(shop.spawner, p->stream), 0);
    return p;
}

struct party *run_script(const char *script, struct spawner_options options)
{
    open_shop(script, options);
    return start_child();
}

void expect_answer(struct party *p, const char *answer, const char *end)
{
    far_receive(p, answer);
    far_receive_end(p);
    far_close(p);
    expect(p, end);
}

/* ---- looking at a child that waits: its script begins with `echo $$` ---- */

pid_t learn_pid(struct party *p)
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
size_t read_proc(pid_t pid, const char *name, char *bytes, size_t size)
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

uint64_t read_signal_set(pid_t pid, const char *name)
{
    char status[8192];
    read_proc(pid, "status", status, sizeof status);
    const char *line = strstr(status, name);
    assert_non_null(line);
    return strtoull(line + strlen(name) + 1, NULL, 16);
}

/* "0 1 2" */
void list_descriptors(pid_t pid, char *text, size_t size)
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

bool is_alive(pid_t pid)
{
    char status[8192], path[64];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    if (access(path, F_OK) != 0)
        return false;
    read_proc(pid, "status", status, sizeof status);
    return !strstr(status, "State:\tZ") && !strstr(status, "State:\tX");
}

void let_go(struct party *p, const char *end)
{
    far_send(p, "\n");
    far_receive_end(p);
    far_close(p);
    expect(p, end);
}
