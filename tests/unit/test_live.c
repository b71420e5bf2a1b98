/* What a program sees that only looks: counts and connections of others, in memory that it cannot write to. */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../core/tcpserver.h"
#include "loop.h"
#include "valgrind.h"

enum { WORKERS = 3, LIVE = 4, MANY = 200 };

static struct shared *make(struct shared_options options)
{
    struct errbuf err = {""};
    options.processes = WORKERS;
    struct shared *s = shared_new(&options, &err);
    assert_string_equal(err.text, "");
    return s;
}

static const struct shared *look(const struct shared *s)
{
    struct errbuf err = {""};
    const struct shared *reader = shared_open(shared_memory_fd(s), &err);
    assert_string_equal(err.text, "");
    assert_ptr_not_equal(reader, s);
    return reader;
}

static void leave(const struct shared *reader, struct shared *s)
{
    munmap((void *)(uintptr_t)reader, reader->size);
    shared_free(s);
}

static void counts_are_seen_elsewhere(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = LIVE, .annex_bytes = 100, .max_rate = 7, .max_accepts = 2});
    const struct shared *reader = look(s);
    shared_add(s, 0, COUNT_CHILDREN, 3);
    shared_add(s, 2, COUNT_CHILDREN, 4);
    shared_take_place(s, 1, false);
    strcpy(shared_annex(s), "annex");
    assert_int_equal(shared_count(reader, -1, COUNT_CHILDREN), 7);
    assert_int_equal(shared_count(reader, 2, COUNT_CHILDREN), 4);
    assert_int_equal(shared_connections(reader), 1);
    assert_string_equal(shared_annex(reader), "annex");
    shared_add(s, 0, COUNT_ACCEPTS, 3); /* one of them is about to be taken back */
    assert_int_equal(shared_accepts(reader), 2);
    leave(reader, s);
}

static void nothing_can_be_written(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = LIVE});
    const struct shared *reader = look(s);
    int fd = shared_memory_fd(s);
    assert_int_equal(mprotect((void *)(uintptr_t)reader, reader->size, PROT_READ | PROT_WRITE), -1);
    assert_ptr_equal(mmap(NULL, reader->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    shared_add(s, 0, COUNT_CHILDREN, 1); /* whoever had it before still can */
    assert_int_equal(shared_count(reader, -1, COUNT_CHILDREN), 1);
    leave(reader, s);
}

static void other_descriptors_are_refused(void **state)
{
    (void)state;
    struct errbuf err;
    int fd = memfd_create("other", MFD_CLOEXEC);
    assert_null(shared_open(fd, &err));
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    assert_null(shared_open(fd, &err));
    assert_non_null(strstr(err.text, "is not the memory"));
    close(fd);
    assert_null(shared_open(fd, &err));
    struct shared *s = make((struct shared_options){0});
    assert_int_equal(shared_memory_fd(s), -1);
    shared_free(s);
}

/* ---- connections ---- */

static int accepted;

static int on_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server, (void)arg;
    accepted++;
    return iostream_relay(s, s);
}

static struct tcpserver *serve(struct shared *s)
{
    struct errbuf err = {""};
    struct tcpserver *server = tcpserver_new(loop, on_stream, NULL, &(struct tcpserver_options){.shared = s}, &err);
    assert_string_equal(err.text, "");
    return server;
}

/* A client of ours: its end of the connection. */
static int join(struct tcpserver *server)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    tcpserver_add_connection(server, fds[1]);
    return fds[0];
}

static void echo(int fd, size_t count)
{
    char bytes[512] = {0};
    size_t got = 0;
    assert_int_equal(write(fd, bytes, count), count);
    while (got < count) {
        ev_run(loop, EVRUN_NOWAIT);
        ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
    }
}

static void streams_are_told_of_the_newest_first(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = LIVE});
    const struct shared *reader = look(s);
    struct tcpserver *server = serve(s);
    struct live_stream streams[2 * LIVE];
    int fds[LIVE + 2];
    assert_int_equal(shared_live_streams(reader, streams, 2 * LIVE), 0);
    for (int i = 0; i < LIVE + 2; i++)
        fds[i] = join(server);
    echo(fds[LIVE + 1], 100);
    echo(fds[0], 7); /* not among the newest, but its bytes count */
    assert_int_equal(shared_live_streams(reader, streams, 2 * LIVE), 0);
    tcpserver_publish(server);
    assert_int_equal(shared_live_streams(reader, streams, 2 * LIVE), LIVE);
    for (unsigned i = 0; i < LIVE; i++)
        assert_int_equal(streams[i].id, LIVE + 2 - i);
    assert_int_equal(streams[0].bytes_in, 100);
    assert_int_equal(streams[0].bytes_out, 100);
    assert_true(streams[0].open && streams[0].accepted_at > 0);
    assert_int_equal(streams[0].peer.any.sa_family, AF_UNIX);
    assert_int_equal(shared_count(reader, -1, COUNT_BYTES_IN), 107);
    assert_int_equal(shared_live_streams(reader, streams, 2), 2);
    assert_int_equal(streams[1].id, LIVE + 1);
    tcpserver_free(server);
    for (int i = 0; i < LIVE + 2; i++)
        close(fds[i]);
    leave(reader, s);
}

/* However often and whenever it is told, each byte counts once. */
static void bytes_count_once(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = LIVE});
    struct tcpserver *server = serve(s);
    uint64_t in, out;
    int one = join(server), other = join(server);
    echo(one, 100);
    tcpserver_publish(server);
    tcpserver_publish(server);
    echo(one, 10);
    echo(other, 3);
    close(one);
    while (tcpserver_connections(server) > 1)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_OUT), 110); /* the other's were not looked at yet */
    tcpserver_bytes(server, &in, &out);
    assert_int_equal(in, 113);
    tcpserver_publish(server);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 113);
    close(other);
    while (tcpserver_connections(server) > 0)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 113);
    assert_int_equal(shared_count(s, -1, COUNT_CLOSES + CLOSE_EOF), 2);
    tcpserver_bytes(server, &in, &out);
    assert_int_equal(out, 113);
    tcpserver_free(server);
    shared_free(s);
}

static void times_are_counted_by_their_limits(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = LIVE});
    struct tcpserver *server = serve(s);
    uint64_t ended = 0;
    close(join(server));
    while (tcpserver_connections(server) > 0)
        ev_run(loop, EVRUN_ONCE);
    for (int i = 0; i < TIME_LIMITS; i++)
        ended += shared_count(s, -1, (enum shared_count)(COUNT_TIMES + i));
    assert_int_equal(ended, 1);
    assert_true(isinf(shared_time_limits[TIME_LIMITS - 1]));
    for (int i = 1; i < TIME_LIMITS; i++)
        assert_true(shared_time_limits[i] > shared_time_limits[i - 1]);
    tcpserver_free(server);
    shared_free(s);
}

static void without_it_nothing_is_counted(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){0});
    struct tcpserver *server = serve(s);
    int one = join(server);
    echo(one, 5);
    tcpserver_publish(server);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 0);
    close(one);
    while (tcpserver_connections(server) > 0)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 5);
    for (int i = COUNT_HANDSHAKES; i < SHARED_COUNTS; i++)
        assert_int_equal(shared_count(s, -1, (enum shared_count)i), 0);
    tcpserver_free(server);
    shared_free(s);
}

static void who_has_ended_is_forgotten(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = LIVE});
    struct tcpserver *server = serve(s);
    struct live_stream streams[LIVE];
    int one = join(server);
    echo(one, 5);
    tcpserver_publish(server);
    assert_int_equal(shared_live_streams(s, streams, LIVE), 1);
    shared_worker_gone(s, shared_task(s));
    assert_int_equal(shared_live_streams(s, streams, LIVE), 0);
    assert_int_equal(shared_count(s, -1, COUNT_BYTES_IN), 5);
    tcpserver_publish(server);
    assert_int_equal(shared_live_streams(s, streams, LIVE), 1);
    close(one);
    tcpserver_free(server);
    shared_free(s);
}

static bool is_mixed(const struct live_stream *streams, unsigned count)
{
    bool mixed = false;
    for (unsigned i = 1; i < count; i++)
        mixed |= streams[i].bytes_in != streams[0].bytes_in;
    return mixed;
}

static void move_a_byte_each(struct tcpserver *server)
{
    struct iostream *each;
    LIST_FOREACH (each, &server->streams, server_entry)
        each->bytes_in++;
    tcpserver_publish(server);
}

static struct {
    struct tcpserver *server;
    void *page; /* where the reader is stopped */
} meanwhile;

static void on_fault(int unused)
{
    (void)unused;
    mprotect(meanwhile.page, (size_t)getpagesize(), PROT_READ);
    move_a_byte_each(meanwhile.server);
}

/* The reader has half of it when it is written anew: a page in the middle is out of its reach until then. */
static void what_changes_meanwhile_is_read_again(void **state)
{
    (void)state;
    if (is_on_valgrind())
        skip(); /* it does not go on where a fault was */
    struct shared *s = make((struct shared_options){.live = MANY});
    const struct shared *reader = look(s);
    struct tcpserver *server = meanwhile.server = serve(s);
    struct live_stream streams[MANY];
    struct sigaction before;
    int fds[MANY];
    for (int i = 0; i < MANY; i++)
        fds[i] = join(server);
    tcpserver_publish(server);
    uintptr_t middle = (uintptr_t)reader + s->live_at + live_size(MANY) / 2;
    meanwhile.page = (void *)(middle - middle % (uintptr_t)getpagesize());
    sigaction(SIGSEGV, &(struct sigaction){.sa_handler = on_fault}, &before);
    mprotect(meanwhile.page, (size_t)getpagesize(), PROT_NONE);
    unsigned count = shared_live_streams(reader, streams, MANY);
    sigaction(SIGSEGV, &before, NULL);
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    tcpserver_free(server);
    leave(reader, s);
    assert_int_equal(count, MANY);
    assert_int_equal(streams[0].bytes_in, 1);
    assert_false(is_mixed(streams, count));
}

/* Another process writes all the time: what is read is of one moment, that is all rows have as many bytes. */
static void what_is_read_is_of_one_moment(void **state)
{
    (void)state;
    struct shared *s = make((struct shared_options){.live = MANY});
    struct tcpserver *server = serve(s);
    struct live_stream streams[MANY];
    int fds[MANY], mixed = 0;
    for (int i = 0; i < MANY; i++)
        fds[i] = join(server);
    pid_t writer = fork();
    if (writer == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the test fails */
    while (writer == 0)
        move_a_byte_each(server);
    while (shared_live_streams(s, streams, MANY) == 0) /* it has not begun */
        ;
    for (int looks = 0; looks < 20000; looks++)
        mixed += is_mixed(streams, shared_live_streams(s, streams, MANY));
    kill(writer, SIGKILL);
    waitpid(writer, NULL, 0);
    live_forget(s, shared_task(s)); /* it may have been killed while it wrote */
    tcpserver_publish(server);
    assert_int_equal(shared_live_streams(s, streams, MANY), MANY);
    for (int i = 0; i < MANY; i++)
        close(fds[i]);
    tcpserver_free(server);
    shared_free(s);
    assert_int_equal(mixed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(counts_are_seen_elsewhere),
        LOOP_TEST(nothing_can_be_written),
        LOOP_TEST(other_descriptors_are_refused),
        LOOP_TEST(streams_are_told_of_the_newest_first),
        LOOP_TEST(bytes_count_once),
        LOOP_TEST(times_are_counted_by_their_limits),
        LOOP_TEST(without_it_nothing_is_counted),
        LOOP_TEST(who_has_ended_is_forgotten),
        LOOP_TEST(what_changes_meanwhile_is_read_again),
        LOOP_TEST(what_is_read_is_of_one_moment),
    };
    limit_time(60);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
