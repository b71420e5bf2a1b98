/* scenes.c - what hark does for its users, in short. */
#include "scenes.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "loop.h"

struct trouble trouble;

/* Nothing fails for a while; the result goes into trouble.on again. */
static bool calm(void)
{
    bool was = trouble.on;
    trouble.on = false;
    return was;
}

/* ---- one run ---- */

static ev_timer tick;

static void on_tick(struct ev_loop *l, ev_timer *timer, int events)
{
    (void)l, (void)timer, (void)events;
}

struct ev_loop *scene_loop(void)
{
    return loop;
}

static void run_until_set(const bool *condition)
{
    for (int i = 0; i < TURNS && !*condition; i++)
        ev_run(loop, EVRUN_ONCE);
    assert_true(*condition);
}

void play_scene(void (*play)(void), bool in_trouble)
{
    int open = count_descriptors();
    signal(SIGPIPE, SIG_IGN);
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    ev_timer_init(&tick, on_tick, 0.002, 0.002);
    ev_timer_start(loop, &tick);
    ev_unref(loop);
    trouble.hit = false;
    trouble.on = in_trouble;
    play();
    trouble.on = false;
    for (int i = 0; i < TURNS && ev_run(loop, EVRUN_ONCE); i++)
        ;
    ev_ref(loop);
    ev_timer_stop(loop, &tick);
    assert_false(ev_run(loop, EVRUN_NOWAIT));
    ev_loop_destroy(loop);
    assert_int_equal(count_descriptors(), open);
}

/* Something may have failed, and then it was said what. */
static void excuse(const char *why)
{
    if (!trouble.hit || trouble.harmless)
        fail_msg("nothing has failed, but: %s", why);
    assert_true(*why);
}

/* ---- a server and its clients ---- */

enum { CLIENTS = 3 };
static const char greeting[] = "hello\n";

static struct stage {
    struct tcpserver *server;
    struct spawner *spawner;
    int port;
    bool empty;
    int (*serve)(struct iostream *);
} stage;

static int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    (void)server, (void)arg;
    return stage.serve(s);
}

static void on_empty(void *arg)
{
    (void)arg;
    stage.empty = true;
}

/* The client gets its greeting back, or is cut off. */
bool talk(int fd)
{
    char answer[sizeof greeting];
    size_t got = 0;
    for (int i = 0; i < TURNS; i++) {
        ev_run(loop, EVRUN_ONCE);
        bool was = calm();
        ssize_t n = recv(fd, answer + got, sizeof answer - got, MSG_DONTWAIT);
        trouble.on = was;
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

int dial(void)
{
    bool was = calm();
    struct address a = inet("127.0.0.1", (unsigned)stage.port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &a.any, a.length), 0);
    assert_int_equal(send(fd, greeting, sizeof greeting - 1, MSG_NOSIGNAL), sizeof greeting - 1);
    trouble.on = was;
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
    assert_true(happy >= CLIENTS - (trouble.hit && !trouble.harmless));
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    for (int i = 0; i < TURNS && tcpserver_connections(stage.server); i++)
        ev_run(loop, EVRUN_ONCE);
    trouble.on = false;
    int last = dial();
    assert_true(talk(last));
    close(last);
}

struct tcpserver *open_server(int (*serve)(struct iostream *), const struct tcpserver_options *options, struct errbuf *err)
{
    err->text[0] = '\0';
    stage.serve = serve;
    stage.empty = false;
    struct tcpserver *server = tcpserver_new(loop, handle_stream, NULL, options, err);
    if (!server)
        return NULL;
    stage.port = tcpserver_listen(server, "127.0.0.1", "0", NULL, err);
    stage.server = server;
    if (stage.port > 0)
        return server;
    tcpserver_free(server);
    return NULL;
}

static void run_server_for(void (*clients)(void), int (*serve)(struct iostream *), struct tcpserver_options options)
{
    struct errbuf err;
    options.count_addresses = true;
    options.empty = on_empty;
    struct tcpserver *server = open_server(serve, &options, &err);
    if (!server) {
        excuse(err.text);
        return;
    }
    clients();
    tcpserver_stop(server);
    run_until_set(&stage.empty);
    tcpserver_free(server);
}

static void run_server(int (*serve)(struct iostream *), bool blocking)
{
    run_server_for(serve_clients, serve, (struct tcpserver_options){.blocking = blocking});
}

/* ---- what a connection is used for: each allocates as it goes ---- */

int serve_relay(struct iostream *s)
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
    return spawner_start(stage.spawner, s);
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
    stage.spawner = spawner_new(loop, &options, &err);
    if (!stage.spawner) {
        excuse(err.text);
        return;
    }
    run_server(serve_program, io == SPAWN_SOCKET);
    spawner_free(stage.spawner);
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

/* ---- TLS, both sides of it ours ---- */

static struct tls_context *server_tls, *client_tls;

static struct caller {
    bool done, happy;
} caller;

static void on_call_over(struct iostream *s, void *arg)
{
    (void)s, (void)arg;
    caller.done = true;
}

static void on_answer(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    (void)arg;
    caller.happy = status == READ_OK && memcmp(data, greeting, length) == 0;
    iostream_close(s);
}

static void on_call(struct iostream *s, void *arg, const char *why)
{
    (void)arg;
    caller.done = !s;
    if (!s) {
        assert_true(*why);
        return;
    }
    iostream_on_close(s, on_call_over, NULL);
    if (iostream_write(s, greeting, sizeof greeting - 1, NULL, NULL) != 0 ||
        iostream_read_bytes(s, sizeof greeting - 1, on_answer, NULL) != 0)
        iostream_abort(s, CLOSE_ERROR);
}

/* One after the other, so that the descriptors' numbers, and with them the allocations, are the same each time. */
static bool call_over_tls(void)
{
    const struct connect_options options = {.tls = client_tls, .tls_name = "localhost"};
    struct errbuf err;
    char text[64];
    caller = (struct caller){.done = false};
    snprintf(text, sizeof text, "127.0.0.1:%d", stage.port);
    struct target *target = target_parse(text, &err);
    if (target && iostream_connect(loop, target, &options, on_call, NULL))
        run_until_set(&caller.done);
    target_free(target);
    return caller.happy;
}

static void serve_tls_clients(void)
{
    bool happy = call_over_tls();
    assert_true(happy || (trouble.hit && !trouble.harmless));
    for (int i = 0; i < TURNS && tcpserver_connections(stage.server); i++)
        ev_run(loop, EVRUN_ONCE);
    trouble.on = false;
    assert_true(call_over_tls());
}

static void make_tls_contexts(void)
{
    struct errbuf err = {.text = ""};
    struct tls_identity *identity = tls_self_signed("localhost", &err);
    const struct tls_options options = {.certificates = &(struct tls_certificate){.verify_depth = 0}, .count = 1, .identity = identity};
    server_tls = identity ? tls_server_new(&options, &err) : NULL;
    client_tls = server_tls ? tls_client_new(NULL, true, &err) : NULL;
    if (!client_tls)
        excuse(err.text);
    tls_identity_free(identity);
}

static void free_tls_contexts(void)
{
    tls_context_free(server_tls);
    tls_context_free(client_tls);
}

static void serve_tls(void)
{
    bool was = calm();
    make_tls_contexts();
    trouble.on = was;
    run_server_for(serve_tls_clients, serve_relay, (struct tcpserver_options){.tls = server_tls});
    free_tls_contexts();
}

static void prepare_tls(void)
{
    make_tls_contexts();
    free_tls_contexts();
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
        excuse(err.text);
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
        bool was = calm();
        while ((n = recv(fds[1], taken, sizeof taken, MSG_DONTWAIT)) > 0)
            received += (size_t)n;
        assert_true(n == 0 || errno == EAGAIN || trouble.hit);
        trouble.on = was;
    }
    assert_true(received == queued || (trouble.hit && !trouble.harmless));
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

static void connect_to(int listener, const char *text)
{
    struct errbuf err = {.text = ""};
    outcome = (struct outcome){.known = false};
    struct target *target = target_parse(text, &err);
    if (target && iostream_connect(loop, target, NULL, on_connected, NULL)) {
        run_until_set(&outcome.known);
        if (*outcome.why)
            excuse(outcome.why);
        bool was = calm();
        close(accept(listener, NULL, NULL)); /* its FIN ends ours */
        trouble.on = was;
        run_until_set(&outcome.ended);
    } else {
        excuse(target ? "errno" : err.text);
    }
    target_free(target);
    calm();
    close(listener);
}

static int listen_at(const struct address *a, int family)
{
    bool was = calm();
    int listener = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, &a->any, a->length), 0);
    assert_int_equal(listen(listener, 5), 0);
    stage.port = family == AF_INET ? (int)port_of(listener) : 0;
    trouble.on = was;
    return listener;
}

static void connect_to_host(const char *host)
{
    char text[64];
    struct address a = inet("127.0.0.1", 0);
    int listener = listen_at(&a, AF_INET);
    snprintf(text, sizeof text, "%s:%d", host, stage.port);
    connect_to(listener, text);
}

static void connect_to_address(void)
{
    connect_to_host("127.0.0.1");
}

static void connect_to_name(void)
{
    connect_to_host("localhost");
}

static void connect_to_unix_socket(void)
{
    char text[64];
    struct address a = {.local.sun_family = AF_UNIX};
    int length = snprintf(text, sizeof text, "unix:@hark-test-%d", (int)getpid());
    memcpy(a.local.sun_path + 1, text + 6, (size_t)length - 6);
    a.length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)length - 5);
    connect_to(listen_at(&a, AF_UNIX), text);
}

const struct scene scenes[SCENES] = {
    {.name = "accept_and_relay", .play = accept_and_relay},
    {.name = "accept_read_and_write", .play = accept_read_and_write},
    {.name = "spawn_on_sockets", .play = spawn_on_sockets},
    {.name = "spawn_on_pipes", .play = spawn_on_pipes},
    {.name = "spawn_ahead", .play = spawn_ahead},
    {.name = "write_and_queue", .play = write_and_queue},
    {.name = "connect_to_address", .play = connect_to_address},
    {.name = "connect_to_name", .play = connect_to_name},
    {.name = "connect_to_unix_socket", .play = connect_to_unix_socket},
    {.name = "prepare_tls", .play = prepare_tls, .caches = true},
    {.name = "serve_tls", .play = serve_tls, .caches = true},
};
