/* Children: what they find when they start, and what becomes of what they write. Their environment, and what cannot be started, is in
 * test_spawn_start.c; how they and their stream end in test_spawn_end.c. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "shop.h"

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

static bool without_stdin; /* to make copies of */

int __real_dup3(int, int, int);
int __wrap_dup3(int, int, int);
int __wrap_dup3(int old, int new, int flags)
{
    if (old == STDIN_FILENO && without_stdin) {
        errno = EMFILE;
        return -1;
    }
    return __real_dup3(old, new, flags);
}

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
    if (!is_on_valgrind()) /* which opens its log anew in a child */
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

static int count_own(const char *path) /* descriptors of that file */
{
    struct stat wanted, st;
    int count = 0;
    assert_int_equal(stat(path, &wanted), 0);
    for (int fd = 0; fd < 2 * MANY_DESCRIPTORS; fd++)
        count += fstat(fd, &st) == 0 && st.st_dev == wanted.st_dev && st.st_ino == wanted.st_ino;
    return count;
}

static void from_a_large_table_nothing_of_it_is_kept(void **state)
{
    (void)state;
    int many[MANY_DESCRIPTORS];
    char output[64];
    if (is_on_valgrind()) /* as above */
        skip();
    for (int i = 0; i < MANY_DESCRIPTORS; i++)
        many[i] = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0);
    without_stdin = true;
    struct party *p = run_script(waiting, (struct spawner_options){.stderr_to = SPAWN_STDERR_NULL});
    without_stdin = false;
    snprintf(output, sizeof output, "/proc/%d/fd/1", (int)learn_pid(p));
    assert_int_equal(count_own(output), 1);
    let_go(p, "end:child exit:0");
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

/* Whoever frees a spawner last of all does not run its loop again. */
static void those_that_wait_are_gone_when_it_has_been_freed(void **state)
{
    (void)state;
    open_shop("read line", (struct spawner_options){.warm = 2});
    run_until(shop.spawner->warm_count == 2);
    spawner_free(shop.spawner);
    shop.spawner = NULL;
    assert_int_equal(engine->users, 1); /* the test */
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

/* ---- the spawner, in its callbacks ---- */

static void shut_up_shop(void)
{
    struct spawner *spawner = shop.spawner;
    shop.look = NULL;
    shop.spawner = NULL;
    spawner_free(spawner);
}

static void shut_up_shop_without_children(void)
{
    assert_int_equal(spawner_children(shop.spawner), 0);
    shut_up_shop();
}

/* Of what comes after that in the same piece, nothing is told. */
static void it_may_be_freed_at_a_line_of_a_background_process(void **state)
{
    (void)state;
    static const char *const says[] = {"printf 'one\\ntwo\\nthr' >&2", "printf 'o' >&2; read go; printf 'ne\\ntwo' >&2",
                                       "printf 'one' >&2"};
    for (size_t i = 0; i < COUNT(says); i++) {
        int fds[2];
        char script[256];
        assert_int_equal(pipe(fds), 0);
        snprintf(script, sizeof script, "(exec <&%d %d>&-; read go; %s) >/dev/null & exit 0", fds[0], fds[1], says[i]);
        struct party *p = run_script(script, (struct spawner_options){0});
        far_receive_end(p);
        far_close(p);
        expect(p, "end:child exit:0");
        shop.look = shut_up_shop;
        for (int k = 0; k < 2; k++) {
            assert_int_equal(write(fds[1], "go\n", 3), 3);
            run_quietly();
        }
        run_until(!shop.spawner);
        assert_string_equal(shop.lines, "0:one|");
        *shop.lines = '\0';
        close(fds[0]);
        close(fds[1]);
        dismiss_all();
    }
}

/* One that waits, and one whose last words are read when it has gone. */
static void it_may_be_freed_at_a_line_of_one_that_waits(void **state)
{
    (void)state;
    static const char *const scripts[] = {"printf 'one\\ntwo\\nthr' >&2; read line", "printf 'one\\ntwo\\nthr' >&2"};
    for (size_t i = 0; i < COUNT(scripts); i++) {
        open_shop(scripts[i], (struct spawner_options){.warm = 2});
        shop.look = shut_up_shop;
        run_until(!shop.spawner);
        run_quietly();
        assert_memory_equal(shop.lines, "0:one|", 6);
        *shop.lines = '\0';
    }
}

static void it_may_be_freed_when_a_program_does_not_wait(void **state)
{
    (void)state;
    open_shop("exit 0", (struct spawner_options){.warm = 1});
    shop.look = shut_up_shop;
    run_until(!shop.spawner);
    assert_non_null(strstr(shop.failure, "without waiting"));
}

/* The stream has it no more by then; and none is started ahead any more, in its place. */
static void it_may_be_freed_at_the_last_words_of_one_on_a_stream(void **state)
{
    (void)state;
    static const char script[] = "read x; (while kill -0 $$; do :; done 2> /dev/null) > /dev/null < /dev/null & printf one >&2";
    struct party *p = run_script(script, (struct spawner_options){.warm = 1});
    shop.look = shut_up_shop_without_children;
    far_finish(p);
    expect(p, "end:child exit:0");
    far_close(p);
    assert_null(shop.spawner);
    pass(1); /* when that would be */
    assert_string_equal(shop.lines, "0:one|");
    *shop.lines = '\0';
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CHILD_TEST(a_child_is_its_streams_other_end),
        CHILD_TEST(it_has_three_descriptors_and_no_more),
        CHILD_TEST(from_a_large_table_it_gets_no_more_and_leaves_it_alone),
        CHILD_TEST(from_a_large_table_nothing_of_it_is_kept),
        CHILD_TEST(its_signals_are_as_a_program_expects_them),
        CHILD_TEST(it_is_a_process_group_of_its_own_and_blocks_as_usual),
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
        CHILD_TEST(each_has_its_own_connection),
        CHILD_TEST(the_end_of_ones_input_is_not_held_back_by_another),
        CHILD_TEST(without_pidfds_ends_are_learnt_of_all_the_same),
        SHOP_TEST(warm_children_wait_for_streams, SPAWN_PIPES),
        SHOP_TEST(those_that_wait_are_gone_when_it_has_been_freed, SPAWN_PIPES),
        SHOP_TEST(a_program_that_does_not_wait_is_told, SPAWN_PIPES),
        CHILD_TEST(it_may_be_freed_at_a_line_of_a_background_process),
        SHOP_TEST(it_may_be_freed_at_a_line_of_one_that_waits, SPAWN_PIPES),
        SHOP_TEST(it_may_be_freed_at_the_last_words_of_one_on_a_stream, SPAWN_PIPES),
        SHOP_TEST(it_may_be_freed_when_a_program_does_not_wait, SPAWN_PIPES),
    };
    return cmocka_run_group_tests_name("spawn", tests, NULL, NULL);
}
