/* test_inbox.c - descriptors that a parent hands out to its workers. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/hark.h"

enum { SAFETY_SECONDS = 120, MOST_WORKERS = 3, SLOTS = FORK_KINDS * MOST_WORKERS };

/* What workers saw, for the test to look at. */
static struct seen {
    volatile int lives[MOST_WORKERS], taken[SLOTS], last[SLOTS];
} * seen;

static int count_fds(void)
{
    int count = 0;
    for (int fd = 0; fd < 512; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

static int number_in_memory(int number)
{
    int fd = memfd_create("number", MFD_CLOEXEC);
    assert_int_equal(pwrite(fd, &number, sizeof number, 0), sizeof number);
    return fd;
}

/* ---- a worker's part */

static void take_all(void)
{
    int kind, number;
    for (int fd; (fd = fork_take(&kind)) >= 0; close(fd)) {
        int slot = kind * MOST_WORKERS + task_id();
        seen->taken[slot]++;
        if (pread(fd, &number, sizeof number, 0) == sizeof number)
            seen->last[slot] = number;
        if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
            _exit(3);
    }
    if (errno != EAGAIN)
        _exit(4);
}

static void wait_for_inbox(void)
{
    struct pollfd inbox = {.fd = fork_inbox(), .events = POLLIN};
    if (poll(&inbox, 1, SAFETY_SECONDS * 1000) != 1)
        _exit(5);
}

/* The last number of kind 1 says that this is all. */
static int take_to_the_end(void)
{
    fork_ready();
    int before = count_fds();
    while (seen->last[MOST_WORKERS + task_id()] != -1) {
        wait_for_inbox();
        take_all();
    }
    return count_fds() == before ? 0 : 6;
}

/* ---- running them */

struct plan {
    void (*hand_out)(void);
    int fds_after;
};

static void on_ready(void *arg)
{
    struct plan *plan = arg;
    plan->hand_out();
}

static int run(int processes, void (*hand_out)(void), int (*work)(void))
{
    int exit_status = -1, before = count_fds();
    struct plan plan = {.hand_out = hand_out};
    const struct fork_options options = {.max_restarts = 1, .ready = on_ready, .hands_out = true, .arg = &plan};
    int task = fork_processes(processes, &options, &exit_status);
    if (task >= 0) {
        alarm(SAFETY_SECONDS);
        seen->lives[task]++;
        _exit(work());
    }
    assert_int_equal(count_fds(), before);
    return exit_status;
}

static int set_up(void **state)
{
    (void)state;
    memset(seen, 0, sizeof *seen);
    return 0;
}

/* ---- tests */

static void hand_out_three(void)
{
    fork_hand_out(0, number_in_memory(7));
    fork_hand_out(3, number_in_memory(8));
    fork_hand_out(1, number_in_memory(-1));
}

static void every_worker_gets_each(void **state)
{
    (void)state;
    assert_int_equal(run(3, hand_out_three, take_to_the_end), 0);
    for (int task = 0; task < 3; task++) {
        assert_int_equal(seen->last[task], 7);
        assert_int_equal(seen->last[3 * MOST_WORKERS + task], 8);
        assert_int_equal(seen->taken[task], 1);
        assert_int_equal(seen->taken[2 * MOST_WORKERS + task], 0);
    }
}

static void hand_out_many(void)
{
    int before = count_fds();
    for (int i = 0; i < 1000; i++)
        fork_hand_out(0, number_in_memory(i));
    assert_true(count_fds() - before <= 1); /* what could not be sent is held once */
    fork_hand_out(1, number_in_memory(-1));
    kill(getpid(), SIGUSR2); /* goes to the workers, who look only then */
}

static void look_away(int signal)
{
    (void)signal;
}

static int take_late(void)
{
    sigset_t mask;
    sigemptyset(&mask);
    signal(SIGUSR2, look_away);
    fork_ready();
    sigsuspend(&mask);
    int status = take_to_the_end();
    while (seen->last[task_id()] != 999) { /* a kind does not wait for another: -1 may have come first */
        wait_for_inbox();
        take_all();
    }
    return status;
}

/* The parent never waits; who looks late gets the latest, and few of those before. */
static void the_latest_arrives_however_late(void **state)
{
    (void)state;
    sigset_t usr2, before;
    sigemptyset(&usr2);
    sigaddset(&usr2, SIGUSR2);
    sigprocmask(SIG_BLOCK, &usr2, &before);
    assert_int_equal(run(2, hand_out_many, take_late), 0);
    sigprocmask(SIG_SETMASK, &before, NULL);
    for (int task = 0; task < 2; task++) {
        assert_int_equal(seen->last[task], 999);
        assert_in_range(seen->taken[task], 1, 20);
    }
}

static int take_without_room(void)
{
    while (dup(0) >= 0)
        ;
    return take_to_the_end();
}

static void a_worker_without_descriptors_gets_its_own(void **state)
{
    (void)state;
    struct rlimit before, few;
    getrlimit(RLIMIT_NOFILE, &before);
    few = before;
    few.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &few);
    int status = run(1, hand_out_three, take_without_room);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(status, 0);
    assert_int_equal(seen->last[0], 7);
    assert_int_equal(seen->last[3 * MOST_WORKERS], 8);
}

/* In its first life it is killed with everything unread; in its second there is nothing for it. */
static int die_before_taking(void)
{
    if (task_id() != 0)
        return take_to_the_end();
    fork_ready();
    if (seen->lives[0] == 1) {
        wait_for_inbox();
        raise(SIGKILL);
    }
    take_all();
    return 0;
}

static void a_dead_worker_is_in_nobodys_way(void **state)
{
    (void)state;
    assert_int_equal(run(2, hand_out_three, die_before_taking), 0);
    assert_int_equal(seen->lives[0], 2);
    assert_int_equal(seen->taken[0], 0);
    assert_int_equal(seen->last[1], 7);
}

static void nothing(void)
{
}

/* ---- that it was taken ---- */

static struct taken {
    volatile bool told;
    volatile int late;
} * taken; /* that workers see, too */

static void on_taken(void *unused, int late)
{
    (void)unused;
    assert_false(taken->told);
    taken->told = true;
    taken->late = late;
    kill(getpid(), SIGTERM);
}

static void hand_out_two(void *unused)
{
    (void)unused;
    fork_hand_out(0, number_in_memory(1));
    fork_hand_out(0, number_in_memory(2));
}

static void hand_out_nothing(void *unused)
{
    (void)unused;
    fork_hand_out(0, -1);
}

/* It is not told before the last call, which finds nothing. */
static void take_one_by_one(void)
{
    int kind;
    for (int i = 0; i < 3; i++) {
        if (taken->told)
            _exit(7);
        if (i < 2)
            wait_for_inbox();
        int fd = fork_take(&kind);
        if ((fd >= 0) != (i < 2))
            _exit(8);
        close(fd);
    }
}

static int hear_of_it(void (*hand_out)(void *), double seconds, void (*work)(void))
{
    int exit_status = -1;
    const struct fork_options options = {
        .max_restarts = 0, .ready = hand_out, .hands_out = true, .taken = on_taken, .taken_seconds = seconds};
    *taken = (struct taken){0};
    signal(SIGTERM, SIG_DFL);
    if (fork_processes(2, &options, &exit_status) >= 0) {
        alarm(SAFETY_SECONDS);
        fork_ready();
        work();
        for (;;)
            pause();
    }
    assert_int_equal(exit_status, 0);
    assert_true(taken->told);
    return taken->late;
}

static void the_parent_hears_when_all_have_taken_it(void **state)
{
    (void)state;
    assert_int_equal(hear_of_it(hand_out_two, SAFETY_SECONDS, take_one_by_one), 0);
    assert_int_equal(hear_of_it(hand_out_nothing, SAFETY_SECONDS, nothing), 0);
}

static void take_if_first(void)
{
    if (task_id() == 0)
        take_one_by_one();
}

static void take_but_do_not_come_back(void)
{
    int kind;
    wait_for_inbox();
    close(fork_take(&kind));
}

static void who_does_not_take_it_is_late(void **state)
{
    (void)state;
    assert_int_equal(hear_of_it(hand_out_two, 0.3, take_if_first), 1);
    assert_int_equal(hear_of_it(hand_out_two, 0.3, take_but_do_not_come_back), 2);
}

static int see_the_parent_end(void)
{
    int kind;
    return fork_inbox() >= 0 && fork_take(&kind) == -1 && errno == EAGAIN ? 0 : 1;
}

static void without_anything_there_is_nothing_to_take(void **state)
{
    (void)state;
    assert_int_equal(fork_inbox(), -1);
    assert_int_equal(run(1, nothing, see_the_parent_end), 0);
}

static struct shared *limits;

static int fail_for_all(void)
{
    shared_end(limits);
    return 1;
}

/* What one worker cannot do another could not either. */
static void a_worker_that_ends_the_server_and_fails_is_not_started_again(void **state)
{
    (void)state;
    struct errbuf err;
    int exit_status;
    limits = shared_new(&(struct shared_options){.processes = 1, .supervised = true}, &err);
    for (int i = 0; i < 50; i++) {
        const struct fork_options options = {.max_restarts = 0, .shared = limits};
        if (fork_processes(1, &options, &exit_status) >= 0)
            _exit(fail_for_all());
        assert_int_equal(exit_status, 1);
    }
    shared_free(limits);
    limits = shared_new(&(struct shared_options){.processes = 1}, &err);
    assert_int_equal(shared_end_fd(limits), -1);
    shared_free(limits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_worker_gets_each, set_up),
        cmocka_unit_test_setup(the_latest_arrives_however_late, set_up),
        cmocka_unit_test_setup(a_worker_without_descriptors_gets_its_own, set_up),
        cmocka_unit_test_setup(a_dead_worker_is_in_nobodys_way, set_up),
        cmocka_unit_test(the_parent_hears_when_all_have_taken_it),
        cmocka_unit_test(who_does_not_take_it_is_late),
        cmocka_unit_test_setup(without_anything_there_is_nothing_to_take, set_up),
        cmocka_unit_test_setup(a_worker_that_ends_the_server_and_fails_is_not_started_again, set_up),
    };
    seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    taken = mmap(NULL, sizeof *taken, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (seen == MAP_FAILED || taken == MAP_FAILED)
        return 1;
    alarm(SAFETY_SECONDS);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
