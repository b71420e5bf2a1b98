/* What processes share: places that are never too many and never lost, whoever is killed when; turns; counts of addresses. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/shared.h"

enum { WORKERS = 4, ROUNDS = 20000 };

static struct shared *make(struct shared_options options)
{
    struct errbuf err = {""};
    if (!options.processes)
        options.processes = WORKERS;
    struct shared *s = shared_new(&options, &err);
    assert_string_equal(err.text, "");
    return s;
}

static struct sockaddr_in address(uint32_t number)
{
    return (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(number)};
}

static double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static pid_t run_worker(struct shared *s, int task, void (*work)(struct shared *, int))
{
    pid_t pid = fork();
    if (pid == 0) {
        work(s, task);
        _exit(0);
    }
    return pid;
}

static void expect_exit(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static bool was_woken(const struct shared *s)
{
    uint64_t count;
    return read(s->wake_fd, &count, sizeof count) == sizeof count;
}

/* ---- places ---- */

static void places_are_as_many_as_there_are(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_connections = 3});
    for (int task = 0; task < 3; task++)
        assert_true(shared_take_place(s, task, false));
    assert_false(shared_take_place(s, 3, false));
    assert_int_equal(shared_connections(s), 3);
    assert_true(shared_take_place(s, 3, true)); /* of a drain */
    shared_give_place(s, 3, true);
    assert_false(shared_has_room(s));
    shared_give_place(s, 1, true);
    assert_true(shared_has_room(s));
    assert_true(shared_take_place(s, 3, false));
    assert_false(shared_take_place(s, 0, false));
    shared_free(s);
}

static void without_a_limit_there_is_always_room(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.processes = 1});
    for (int i = 0; i < 1000; i++)
        assert_true(shared_take_place(s, 0, false));
    assert_true(shared_has_room(s));
    assert_int_equal(shared_end_fd(s), -1);
    shared_free(s);
}

static void a_rest_ends_at_one_less_or_some_less(void **state)
{
    (void)state;
    static const unsigned cases[][2] = {{1, 0}, {2, 1}, {31, 30}, {32, 31}, {64, 62}, {100, 97}, {1000, 969}, {100000, 99936}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(resume_at(cases[i][0]), cases[i][1]);
}

/* max_connections, how many have a place now, and whether there ever were too many. */
static struct race {
    unsigned max;
    _Atomic unsigned inside, too_many;
    _Atomic unsigned long entered[WORKERS];
} * race;

static void enter(int task)
{
    if (++race->inside > race->max)
        race->too_many++;
    race->entered[task]++;
    race->inside--;
}

static void race_for_places(struct shared *s, int task)
{
    for (int i = 0; i < ROUNDS; i++) {
        if (!shared_take_place(s, task, false))
            continue;
        enter(task);
        shared_give_place(s, task, true);
    }
}

static void race_start(unsigned max)
{
    race = mmap(NULL, sizeof *race, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    race->max = max;
}

static void race_end(void)
{
    munmap(race, sizeof *race);
}

static void places_are_never_too_many_for_several(void **state)
{
    (void)state;
    for (unsigned max = 1; max <= 3; max++) {
        struct shared *s = make((struct shared_options){.max_connections = max});
        pid_t pids[WORKERS];
        race_start(max);
        for (int task = 0; task < WORKERS; task++)
            pids[task] = run_worker(s, task, race_for_places);
        for (int task = 0; task < WORKERS; task++)
            expect_exit(pids[task]);
        assert_int_equal(race->too_many, 0);
        assert_int_equal(shared_connections(s), 0);
        race_end();
        shared_free(s);
    }
}

/* Each waits as a server does: says that it rests, looks once more, and sleeps until it is woken. */
static void wait_for_places(struct shared *s, int task)
{
    struct pollfd woken = {.fd = s->wake_fd, .events = POLLIN};
    for (int i = 0; i < ROUNDS / 10; i++) {
        while (!shared_take_place(s, task, false)) {
            shared_set_resting(s, task, true);
            if (!shared_has_room(s) && poll(&woken, 1, 5000) == 0)
                _exit(1); /* nobody woke us */
            was_woken(s);
            shared_set_resting(s, task, false);
        }
        enter(task);
        shared_give_place(s, task, true);
    }
}

/* With two workers, since reading the eventfd, which servers do not do, takes the wake-up from the others. */
static void no_wake_up_is_lost(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_connections = 1});
    race_start(1);
    pid_t first = run_worker(s, 0, wait_for_places), second = run_worker(s, 1, wait_for_places);
    expect_exit(first);
    expect_exit(second);
    assert_int_equal(race->too_many, 0);
    race_end();
    shared_free(s);
}

static void only_who_rests_is_woken(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_connections = 2});
    assert_true(shared_take_place(s, 0, false));
    shared_give_place(s, 0, true);
    assert_false(was_woken(s));
    assert_true(shared_take_place(s, 0, false));
    assert_true(shared_take_place(s, 0, false));
    shared_set_resting(s, 0, true); /* who gives it back sees for himself */
    shared_give_place(s, 0, true);
    assert_false(was_woken(s));
    shared_set_resting(s, 1, true);
    shared_give_place(s, 0, true);
    assert_true(was_woken(s));
    shared_free(s);
}

static void race_for_ever(struct shared *s, int task)
{
    struct sockaddr_in here = address(1);
    for (;;) {
        if (!shared_take_place(s, task, false))
            continue;
        if (peers_add(s->peers, task, (struct sockaddr *)&here, 2) == 0)
            peers_remove(s->peers, task, (struct sockaddr *)&here);
        here = address((uint32_t)task * 7 + (here.sin_addr.s_addr & 3));
        shared_give_place(s, task, true);
    }
}

static void who_is_killed_gives_back_all_he_held(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_connections = 3, .max_per_ip = 2});
    struct sockaddr_in here = address(9);
    pid_t pids[WORKERS];
    for (int i = 0; i < 100; i++) {
        for (int task = 0; task < WORKERS; task++)
            pids[task] = run_worker(s, task, race_for_ever);
        nanosleep(&(struct timespec){.tv_nsec = 1000000 + i * 10000}, NULL); /* what is tested is that they die anywhere */
        for (int task = 0; task < WORKERS; task++) {
            kill(pids[task], SIGKILL);
            waitpid(pids[task], NULL, 0);
            shared_worker_gone(s, task);
        }
        assert_int_equal(shared_connections(s), 0);
        assert_true(was_woken(s));
        for (uint32_t number = 0; number < 64; number++) {
            here = address(number);
            assert_int_equal(peers_count(s->peers, (struct sockaddr *)&here), 0);
        }
        for (int task = 0; task < 3; task++)
            assert_true(shared_take_place(s, task, false));
        assert_false(shared_take_place(s, 3, false));
        for (int task = 0; task < 3; task++)
            shared_give_place(s, task, true);
    }
    shared_free(s);
}

/* ---- accepts ---- */

static void accepts_end_at_their_number(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_accepts = 3});
    for (int task = 0; task < 4; task++)
        assert_true(shared_take_place(s, task, false)); /* handshakes may be under way */
    assert_true(shared_count_accept(s, 0));
    assert_true(shared_count_accept(s, 3));
    shared_give_place(s, 2, false);
    assert_true(shared_take_place(s, 2, false));
    assert_true(shared_count_accept(s, 2));
    assert_false(shared_count_accept(s, 1));
    assert_false(shared_take_place(s, 2, false));
    assert_false(shared_has_room(s));
    assert_int_equal(shared_count(s, -1, COUNT_ACCEPTS), 3);
    shared_free(s);
}

static void race_for_accepts(struct shared *s, int task)
{
    while (shared_take_place(s, task, false)) {
        race->entered[task] += shared_count_accept(s, task);
        shared_give_place(s, task, true);
    }
}

static void accepts_are_never_too_many_for_several(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_accepts = ROUNDS});
    pid_t pids[WORKERS];
    unsigned long accepts = 0;
    race_start(0);
    for (int task = 0; task < WORKERS; task++)
        pids[task] = run_worker(s, task, race_for_accepts);
    for (int task = 0; task < WORKERS; task++) {
        expect_exit(pids[task]);
        accepts += race->entered[task];
    }
    assert_int_equal(accepts, ROUNDS);
    assert_int_equal(shared_count(s, -1, COUNT_ACCEPTS), ROUNDS);
    race_end();
    shared_free(s);
}

static void the_end_is_seen_by_all(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_accepts = 1});
    struct pollfd end = {.fd = shared_end_fd(s), .events = POLLIN};
    assert_int_equal(poll(&end, 1, 0), 0);
    shared_add(s, 2, COUNT_ACCEPTS, 1);
    shared_worker_gone(s, 2); /* killed before it could say so */
    assert_int_equal(poll(&end, 1, 0), 1);
    assert_int_equal(poll(&end, 1, 0), 1);
    struct pollfd drain = {.fd = shared_drain_fd(s), .events = POLLIN};
    assert_int_equal(poll(&drain, 1, 0), 0); /* nobody has to hurry */
    shared_drain(s);
    assert_int_equal(poll(&drain, 1, 0), 1);
    shared_free(s);
    s = make((struct shared_options){0});
    end.fd = shared_end_fd(s);
    shared_drain(s);
    assert_int_equal(poll(&end, 1, 0), 1);
    shared_free(s);
}

/* ---- turns ---- */

static void a_turn_is_free_again_after_a_second(void **state)
{
    (void)state;
    struct turn turn;
    struct shared *s = make((struct shared_options){.max_rate = 3});
    double start = seconds_now();
    for (int i = 0; i < 3; i++)
        assert_true(shared_take_turn(s, &turn) == 0);
    double early = shared_take_turn(s, &turn);
    assert_true(early > 0 && early <= 1);
    nanosleep(&(struct timespec){.tv_nsec = (long)(early * 999999999)}, NULL); /* what is tested is the time */
    while (shared_take_turn(s, &turn) > 0)
        ;
    assert_true(seconds_now() - start >= 1);
    shared_free(s);
}

static void a_turn_can_be_given_back(void **state)
{
    (void)state;
    struct turn first, second;
    struct shared *s = make((struct shared_options){.max_rate = 2});
    assert_true(shared_take_turn(s, &first) == 0);
    shared_give_turn(s, &first);
    assert_true(shared_take_turn(s, &first) == 0);
    assert_true(shared_take_turn(s, &second) == 0);
    assert_true(shared_take_turn(s, &second) > 0);
    shared_free(s);
}

static void take_turns(struct shared *s, int task)
{
    struct turn turn;
    for (double end = seconds_now() + 2.5; seconds_now() < end;) {
        if (shared_take_turn(s, &turn) == 0)
            race->entered[task]++;
    }
}

static void turns_are_never_too_many_for_several(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.max_rate = 50});
    pid_t pids[WORKERS];
    unsigned long taken = 0;
    race_start(0);
    for (int task = 0; task < WORKERS; task++)
        pids[task] = run_worker(s, task, take_turns);
    for (int task = 0; task < WORKERS; task++) {
        expect_exit(pids[task]);
        taken += race->entered[task];
    }
    assert_in_range(taken, 100, 150); /* at 0, 1 and 2 seconds; fewer if the machine is slow */
    race_end();
    shared_free(s);
}

static void a_lost_step_does_not_stop_the_turns(void **state)
{
    (void)state;
    struct turn turn;
    struct shared *s = make((struct shared_options){.max_rate = 4});
    assert_true(shared_take_turn(s, &turn) == 0);
    s->next_turn--; /* as if its taker had been killed before he moved on */
    for (int i = 0; i < 3; i++)
        assert_true(shared_take_turn(s, &turn) == 0);
    assert_true(shared_take_turn(s, &turn) > 0);
    shared_free(s);
}

/* ---- peers ---- */

static void addresses_are_counted_over_all(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){0});
    struct sockaddr_in here = address(INADDR_LOOPBACK), there = address(7);
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6};
    const struct sockaddr local = {.sa_family = AF_UNIX};
    inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr);
    assert_int_equal(peers_add(s->peers, 0, (struct sockaddr *)&here, 3), 0);
    assert_int_equal(peers_add(s->peers, 1, (struct sockaddr *)&mapped, 3), 0);
    assert_int_equal(peers_add(s->peers, 1, (struct sockaddr *)&here, 3), 0);
    assert_int_equal(peers_add(s->peers, 2, (struct sockaddr *)&here, 3), -1);
    assert_int_equal(errno, EUSERS);
    assert_int_equal(peers_add(s->peers, 2, (struct sockaddr *)&there, 3), 0);
    assert_int_equal(peers_add(s->peers, 2, &local, 1), 0);
    assert_int_equal(peers_add(s->peers, 2, &local, 1), 0); /* no address: not counted */
    assert_int_equal(peers_count(s->peers, (struct sockaddr *)&mapped), 3);
    peers_forget(s->peers, 1);
    assert_int_equal(peers_count(s->peers, (struct sockaddr *)&here), 1);
    assert_int_equal(peers_count(s->peers, (struct sockaddr *)&there), 1);
    peers_remove(s->peers, 0, (struct sockaddr *)&here);
    peers_remove(s->peers, 0, (struct sockaddr *)&here); /* not there any more */
    assert_int_equal(peers_count(s->peers, (struct sockaddr *)&here), 0);
    shared_free(s);
}

static void a_full_table_lets_nobody_in_and_recovers(void **state)
{
    (void)state;
    enum { CAPACITY = 100 };
    size_t size = peers_size(CAPACITY);
    struct peers *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(peers_init(p, CAPACITY), 0);
    for (int round = 0; round < 3; round++) {
        struct sockaddr_in a = address(CAPACITY);
        for (uint32_t i = 0; i < CAPACITY; i++) {
            struct sockaddr_in b = address(i);
            assert_int_equal(peers_add(p, (int)(i % WORKERS), (struct sockaddr *)&b, 0), 0);
        }
        assert_int_equal(peers_add(p, 0, (struct sockaddr *)&a, 0), -1);
        assert_int_equal(errno, ENOMEM);
        for (uint32_t i = 0; i < CAPACITY; i++) {
            struct sockaddr_in b = address(i);
            if (round != 1)
                peers_remove(p, (int)(i % WORKERS), (struct sockaddr *)&b);
        }
        for (int task = 0; task < WORKERS && round == 1; task++)
            peers_forget(p, task);
    }
    munmap(p, size);
}

/* ---- counters ---- */

static void counters_are_of_one_or_of_all(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){0});
    shared_add(s, 0, COUNT_BYTES_IN, 5);
    shared_add(s, 3, COUNT_BYTES_IN, 7);
    shared_add(s, 3, (enum shared_count)(COUNT_REJECTS + REJECT_LIMIT), 1);
    assert_int_equal(shared_count(s, 3, COUNT_BYTES_IN), 7);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 12);
    assert_int_equal(shared_count(s, -1, (enum shared_count)(COUNT_REJECTS + REJECT_LIMIT)), 1);
    assert_int_equal(shared_count(s, -1, (enum shared_count)(COUNT_REJECTS + REJECT_DENIED)), 0);
    assert_string_equal(reject_reason_name(REJECT_LIMIT), "limit");
    shared_worker_gone(s, 3); /* what was, was */
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 12);
    shared_free(s);
}

static void idle_is_when_nobody_has_a_place(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){0});
    double before = shared_idle_seconds(s);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* what is tested is the time */
    assert_true(shared_idle_seconds(s) - before >= 0.02);
    shared_take_place(s, 2, false);
    assert_true(shared_idle_seconds(s) == 0);
    shared_give_place(s, 2, false); /* nobody was there */
    assert_true(shared_idle_seconds(s) >= 0.02);
    shared_take_place(s, 2, false);
    shared_give_place(s, 2, true);
    assert_true(shared_idle_seconds(s) < 0.02);
    shared_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places_are_as_many_as_there_are),
        cmocka_unit_test(without_a_limit_there_is_always_room),
        cmocka_unit_test(a_rest_ends_at_one_less_or_some_less),
        cmocka_unit_test(places_are_never_too_many_for_several),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(only_who_rests_is_woken),
        cmocka_unit_test(who_is_killed_gives_back_all_he_held),
        cmocka_unit_test(accepts_end_at_their_number),
        cmocka_unit_test(accepts_are_never_too_many_for_several),
        cmocka_unit_test(the_end_is_seen_by_all),
        cmocka_unit_test(a_turn_is_free_again_after_a_second),
        cmocka_unit_test(a_turn_can_be_given_back),
        cmocka_unit_test(turns_are_never_too_many_for_several),
        cmocka_unit_test(a_lost_step_does_not_stop_the_turns),
        cmocka_unit_test(addresses_are_counted_over_all),
        cmocka_unit_test(a_full_table_lets_nobody_in_and_recovers),
        cmocka_unit_test(counters_are_of_one_or_of_all),
        cmocka_unit_test(idle_is_when_nobody_has_a_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
