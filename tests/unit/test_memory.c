/* Memory runs out: every allocation of a scenario fails once, the first in the first run, the second in the second, until a run needs no
 * more of them. Whoever allocated it, hark, libev, c-ares or the C library: at most that connection ends, the next one is served,
 * nothing leaks. */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "loop.h"

/* ---- the allocator ---- */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif
void *REAL(malloc)(size_t);
void *REAL(calloc)(size_t, size_t);
void *REAL(realloc)(void *, size_t);
void REAL(free)(void *);

static int countdown; /* 1: the next allocation fails; 0: none does */
static bool hit;      /* one has failed */
static int blocks;    /* allocated and not freed */
static bool dry;      /* there is only what is given back from now on */
static size_t given_back;

static bool fails(size_t size)
{
    if (dry && size > given_back) {
        errno = ENOMEM;
        return true;
    }
    given_back -= dry ? size : 0;
    if (countdown == 0 || --countdown > 0)
        return false;
    hit = true;
    errno = ENOMEM;
    return true;
}

static void *counted(void *block)
{
    blocks += block != NULL;
    return block;
}

void *malloc(size_t size)
{
    return fails(size) ? NULL : counted(REAL(malloc)(size));
}

void *calloc(size_t count, size_t size)
{
    return fails(count * size) ? NULL : counted(REAL(calloc)(count, size));
}

void *realloc(void *block, size_t size)
{
    if (fails(size))
        return NULL;
    blocks -= block != NULL;
    return counted(REAL(realloc)(block, size));
}

void free(void *block)
{
    blocks -= block != NULL;
    given_back += dry && block ? malloc_usable_size(block) : 0;
    REAL(free)(block);
}

char *strdup(const char *text) /* AddressSanitizer's own would not come by here */
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

/* ---- the walk ---- */

enum { MOST_ALLOCATIONS = 3000, TURNS = 2000 };

static ev_timer tick;

static void on_tick(struct ev_loop *l, ev_timer *timer, int events)
{
    (void)l, (void)timer, (void)events;
}

static void run_until_set(const bool *condition)
{
    for (int i = 0; i < TURNS && !*condition; i++)
        ev_run(loop, EVRUN_ONCE);
    assert_true(*condition);
}

/* One run of a scenario on a loop of its own, of which nothing may be left. */
static void run(void (*scenario)(void), int n)
{
    int open = count_descriptors();
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    ev_timer_init(&tick, on_tick, 0.002, 0.002);
    ev_timer_start(loop, &tick);
    ev_unref(loop);
    hit = false;
    countdown = n;
    scenario();
    countdown = 0;
    for (int i = 0; i < TURNS && ev_run(loop, EVRUN_ONCE); i++)
        ;
    ev_ref(loop);
    ev_timer_stop(loop, &tick);
    assert_false(ev_run(loop, EVRUN_NOWAIT));
    ev_loop_destroy(loop);
    assert_int_equal(count_descriptors(), open);
}

static void walk(void (*scenario)(void))
{
    signal(SIGPIPE, SIG_IGN);
    alarm(110);
    run(scenario, 0); /* what is allocated once and kept */
    run(scenario, 0);
    int before = blocks, n = 0;
    do {
        run(scenario, ++n);
        assert_true(n < MOST_ALLOCATIONS);
        if (blocks != before)
            print_error("after allocation %d has failed, %d blocks are left\n", n, blocks - before);
        assert_int_equal(blocks, before);
    } while (hit);
    print_message("# %d allocations\n", n - 1);
    alarm(0);
}

/* ---- a server and its clients ---- */

enum { CLIENTS = 3 };
static const char greeting[] = "hello\n";

static struct scene {
    struct tcpserver *server;
    struct spawner *spawner;
    int port, open, served;
    bool empty;
    int (*serve)(struct iostream *);
} scene;

static int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server, (void)arg;
    scene.served++;
    return scene.serve(s);
}

static void on_empty(void *arg)
{
    (void)arg;
    scene.empty = true;
}

/* The client gets its greeting back, or is cut off. */
static bool talk(int fd)
{
    char answer[sizeof greeting];
    size_t got = 0;
    for (int i = 0; i < TURNS; i++) {
        ev_run(loop, EVRUN_ONCE);
        ssize_t n = recv(fd, answer + got, sizeof answer - got, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            break;
        got += n > 0 ? (size_t)n : 0;
        if (got == sizeof greeting - 1) {
            assert_memory_equal(answer, greeting, got);
            return true;
        }
    }
    return false;
}

static int dial(void)
{
    struct address a = inet("127.0.0.1", (unsigned)scene.port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &a.any, a.length), 0);
    assert_int_equal(send(fd, greeting, sizeof greeting - 1, MSG_NOSIGNAL), sizeof greeting - 1);
    return fd;
}

/* Some clients at once, and one more when memory is there again. */
static void serve_clients(void)
{
    int fds[CLIENTS], happy = 0;
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = dial();
    for (int i = 0; i < CLIENTS; i++)
        happy += talk(fds[i]);
    assert_true(happy >= CLIENTS - hit);
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    countdown = 0;
    int last = dial();
    assert_true(talk(last));
    close(last);
}

static void run_server(int (*serve)(struct iostream *), bool blocking)
{
    struct errbuf err = {.text = ""};
    const struct tcpserver_options options = {.count_addresses = true, .empty = on_empty, .blocking = blocking};
    scene.serve = serve;
    scene.empty = false;
    scene.server = tcpserver_new(loop, handle_stream, NULL, &options, &err);
    if (!scene.server) {
        assert_true(hit && *err.text);
        return;
    }
    scene.port = tcpserver_listen(scene.server, "127.0.0.1", "0", NULL, &err);
    assert_true(scene.port > 0 || (hit && *err.text));
    if (scene.port > 0)
        serve_clients();
    tcpserver_stop(scene.server);
    run_until_set(&scene.empty);
    tcpserver_free(scene.server);
}

/* ---- what a connection is used for: each allocates as it goes ---- */

static int serve_relay(struct iostream *s)
{
    return iostream_relay(s, s);
}

static void accept_and_relay(void)
{
    run_server(serve_relay, false);
}

static void on_line(struct iostream *, void *, enum read_status, const char *, size_t);

static int ask_for_line(struct iostream *s)
{
    return iostream_read_until(s, "\n", 1, 0, on_line, NULL);
}

static void on_written(struct iostream *s, void *arg, int error)
{
    (void)arg;
    if (!error && ask_for_line(s) != 0)
        iostream_abort(s, CLOSE_ERROR);
}

static void on_line(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    (void)arg;
    if (status == READ_OK && iostream_write(s, data, length, on_written, NULL) == 0)
        return;
    iostream_close(s);
}

/* Two reads, so that one of them finds bytes left over. */
static void on_first(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    (void)arg;
    if (status != READ_OK || iostream_write(s, data, length, NULL, NULL) != 0 || ask_for_line(s) != 0)
        iostream_close(s);
}

static int serve_lines(struct iostream *s)
{
    if (iostream_set_timer(s, TIMER_IDLE, 100) != 0 || iostream_set_timer(s, TIMER_LIFETIME, 200) != 0 ||
        iostream_set_timer(s, TIMER_HALF_CLOSE, 300) != 0)
        return -1;
    return iostream_read_bytes(s, 2, on_first, NULL);
}

static void accept_read_and_write(void)
{
    run_server(serve_lines, false);
}

static int serve_program(struct iostream *s)
{
    return spawner_start(scene.spawner, s);
}

static void on_stderr(void *arg, uint64_t id, const char *line, size_t length)
{
    (void)arg, (void)id, (void)line, (void)length;
}

static void run_spawner(enum spawn_io io, unsigned warm)
{
    struct errbuf err = {.text = ""};
    char sh[] = "sh", c[] = "-c", script[] = "echo on stderr >&2; exec cat";
    char *argv[] = {sh, c, script, NULL};
    const struct spawner_options options = {
        .argv = argv, .io = io, .stderr_to = SPAWN_STDERR_LINES, .on_stderr = on_stderr, .warm = warm, .kill_after_seconds = 5};
    scene.spawner = spawner_new(loop, &options, &err);
    if (!scene.spawner) {
        assert_true(hit && *err.text);
        return;
    }
    run_server(serve_program, io == SPAWN_SOCKET);
    spawner_free(scene.spawner);
}

static void spawn_on_sockets(void)
{
    run_spawner(SPAWN_SOCKET, 0);
}

static void spawn_on_pipes(void)
{
    run_spawner(SPAWN_PIPES, 0);
}

static void spawn_ahead(void)
{
    run_spawner(SPAWN_PIPES, 2);
}

/* ---- libev's arrays ---- */

static int shortage; /* what `exhausted` was told */

static void on_exhausted(void *arg, int error)
{
    (void)arg;
    assert_int_equal(shortage, 0); /* once */
    shortage = error;
}

static void on_event(struct ev_loop *l, ev_io *io, int events)
{
    (void)l, (void)io, (void)events;
}

/* A descriptor whose number is beyond all that libev has an array for. */
static void watch_high_descriptor(ev_io *io, int number)
{
    int never_ready = eventfd(0, EFD_CLOEXEC), fd = fcntl(never_ready, F_DUPFD_CLOEXEC, number);
    close(never_ready);
    assert_true(fd >= number);
    ev_io_init(io, on_event, fd, EV_READ);
    ev_io_start(loop, io);
}

static void grow_array(void)
{
    struct errbuf err;
    ev_io high;
    const struct tcpserver_options options = {.exhausted = on_exhausted};
    scene.serve = serve_relay;
    scene.server = tcpserver_new(loop, handle_stream, NULL, &options, &err);
    scene.port = tcpserver_listen(scene.server, "127.0.0.1", "0", NULL, &err);
    shortage = 0;
    dry = true;
    given_back = 0;
    watch_high_descriptor(&high, 500);
    int client = dial();
    while (!shortage)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(shortage, ENOMEM);
    dry = false;
    assert_true(talk(client)); /* it has waited in the backlog */
    close(client);
    ev_io_stop(loop, &high);
    close(high.fd);
    tcpserver_free(scene.server);
}

static void listeners_rest_when_libev_used_up_its_reserve(void **state)
{
    (void)state;
    alarm(60);
    run(grow_array, 0);
    alarm(0);
}

/* ---- queues: a stream whose peer takes nothing, and then all ---- */

static void on_end(struct iostream *s, void *arg)
{
    (void)s;
    *(bool *)arg = true;
}

static void write_and_queue(void)
{
    enum { PIECES = 24 };
    static char piece[64 * 1024], taken[64 * 1024];
    struct errbuf err = {.text = ""};
    int fds[2];
    bool ended = false;
    size_t queued = 0, received = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const struct iostream_options options = {.max_buffer_bytes = sizeof piece * PIECES};
    struct iostream *s = iostream_new(loop, fds[0], fds[0], &options, &err);
    if (!s) {
        assert_true(hit && *err.text);
        close(fds[0]);
        close(fds[1]);
        return;
    }
    iostream_on_close(s, on_end, &ended);
    for (int i = 0; i < PIECES && iostream_write(s, piece, sizeof piece, NULL, NULL) == 0; i++)
        queued += sizeof piece;
    iostream_close(s);
    for (ssize_t n = 1; n != 0 && !ended;) {
        ev_run(loop, EVRUN_ONCE);
        while ((n = recv(fds[1], taken, sizeof taken, MSG_DONTWAIT)) > 0)
            received += (size_t)n;
        assert_true(n == 0 || errno == EAGAIN);
    }
    assert_true(received == queued || hit);
    close(fds[1]);
    run_until_set(&ended);
}

/* ---- connecting ---- */

static struct outcome {
    bool known, ended;
    char why[256];
} outcome;

static void on_connected(struct iostream *s, void *arg, const char *why)
{
    (void)arg;
    outcome.known = true;
    outcome.ended = !s;
    snprintf(outcome.why, sizeof outcome.why, "%s", why ? why : "");
    if (s) {
        iostream_on_close(s, on_end, &outcome.ended);
        iostream_close(s);
    }
}

static void connect_to(const char *host)
{
    struct errbuf err = {.text = ""};
    char text[64];
    struct address a = inet("127.0.0.1", 0);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, &a.any, a.length), 0);
    assert_int_equal(listen(listener, 5), 0);
    snprintf(text, sizeof text, "%s:%u", host, port_of(listener));
    outcome = (struct outcome){.known = false};

    struct target *target = target_parse(text, &err);
    assert_true(target || (hit && *err.text));
    if (target && iostream_connect(loop, target, NULL, on_connected, NULL)) {
        run_until_set(&outcome.known);
        assert_true(!*outcome.why || hit);
        close(accept(listener, NULL, NULL)); /* its FIN ends ours */
        run_until_set(&outcome.ended);
    } else {
        assert_true(hit);
    }
    target_free(target);
    close(listener);
}

static void connect_to_address(void)
{
    connect_to("127.0.0.1");
}

static void connect_to_name(void)
{
    connect_to("localhost");
}

#define WALK(scenario)                        \
    static void test_##scenario(void **state) \
    {                                         \
        (void)state;                          \
        walk(scenario);                       \
    }
WALK(accept_and_relay)
WALK(accept_read_and_write)
WALK(spawn_on_sockets)
WALK(spawn_on_pipes)
WALK(spawn_ahead)
WALK(write_and_queue)
WALK(connect_to_address)
WALK(connect_to_name)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept_and_relay),
        cmocka_unit_test(test_accept_read_and_write),
        cmocka_unit_test(test_spawn_on_sockets),
        cmocka_unit_test(test_spawn_on_pipes),
        cmocka_unit_test(test_spawn_ahead),
        cmocka_unit_test(test_write_and_queue),
        cmocka_unit_test(test_connect_to_address),
        cmocka_unit_test(test_connect_to_name),
        cmocka_unit_test(listeners_rest_when_libev_used_up_its_reserve),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
