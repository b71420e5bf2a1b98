#include <arpa/inet.h>
#include <stdio.h>

#include "enders.h"
#include "tls_peer.h"

struct cell cell;
static int hole[3]; /* a listening socket that answers nobody, since these two fill its backlog; they outlive the cells */
struct tls_context *tls_server, *tls_client;

int port_at(int fd)
{
    struct sockaddr_in address;
    socklen_t length = sizeof address;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    return ntohs(address.sin_port);
}

static void give_descriptors_back(void)
{
    if (cell.no_files)
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &cell.files), 0);
    cell.no_files = false;
}

/* ---- the columns: what ends something, and the proof that it did ---- */

static void assert_nothing_can_be_written(void)
{
    assert_int_equal(iostream_write(cell.stream, "x", 1, NULL, NULL), -1);
    assert_int_equal(errno, EPIPE);
}

static void finish_stream(void)
{
    iostream_finish(cell.stream);
    assert_nothing_can_be_written();
}

static void close_stream(void)
{
    iostream_close(cell.stream);
    assert_nothing_can_be_written();
}

static void abort_stream(void)
{
    iostream_abort(cell.stream, CLOSE_DENIED);
    assert_int_not_equal(iostream_reason(cell.stream), CLOSE_NONE);
}

static void stop_server(void)
{
    tcpserver_stop(site.server);
    assert_false(tcpserver_listening(site.server));
}

static void drain_server(void)
{
    tcpserver_drain(site.server);
}

static void stop_listen_and_drain(void)
{
    stop_server();
    listen_on_any_port();
    tcpserver_drain(site.server);
}

static void abort_server(void)
{
    bool is_its_own = iostream_server(cell.stream) == site.server;
    tcpserver_abort(site.server);
    assert_true(!is_its_own || iostream_reason(cell.stream) != CLOSE_NONE);
}

static void abort_handshakes(void)
{
    tcpserver_abort_handshakes(site.server);
}

static void free_server(void)
{
    struct tcpserver *server = site.server;
    site.server = NULL;
    tcpserver_free(server);
    cell.places_left = shared_connections(cell.shared); /* it holds none any more, whatever is under way */
    cell.told = strlen(site.told);
}

static void free_server_and_shared(void)
{
    free_server();
    shared_free(cell.shared);
    cell.shared = NULL;
}

static void remove_acceptor(void)
{
    remove_accept_handler(cell.acceptor);
    cell.acceptor = NULL;
}

static void free_spawner(void)
{
    assert_int_equal(spawner_children(cell.spawner), 0);
    spawner_free(cell.spawner);
    cell.spawner = NULL;
}

static void cancel_connecting(void)
{
    connect_cancel(cell.dial->connecting);
    cell.dial->connecting = NULL;
}

const struct column columns[COLUMNS] = {
    {"iostream_finish", finish_stream, false},
    {"iostream_close", close_stream, false},
    {"iostream_abort", abort_stream, false},
    {"tcpserver_stop", stop_server, false},
    {"tcpserver_drain", drain_server, true},
    {"tcpserver_stop, listen, drain", stop_listen_and_drain, true},
    {"tcpserver_abort", abort_server, false},
    {"tcpserver_abort_handshakes", abort_handshakes, false},
    {"tcpserver_free", free_server, false},
    {"tcpserver_free, shared_free", free_server_and_shared, false},
    {"remove_accept_handler", remove_acceptor, false},
    {"spawner_free", free_spawner, true},
    {"connect_cancel", cancel_connecting, false},
};

bool is_legal(const struct row *row, const struct column *column)
{
    return !row->has_child || column->call != free_spawner;
}

/* ---- callbacks ---- */

void in_callback_of(const char *moment, struct iostream *s)
{
    assert_true(!cell.calling || cell.column->calls_back);
    if (!cell.armed || cell.done || strcmp(moment, cell.row->moment) != 0)
        return;
    give_descriptors_back();
    cell.done = cell.calling = true;
    cell.stream = s ? s : cell.guest->stream;
    cell.column->call();
    cell.calling = false;
}

static void on_site(const char *moment)
{
    in_callback_of(moment, site.subject);
}

static void on_accepted(void *arg, int fd, const struct sockaddr *address, socklen_t length)
{
    (void)arg, (void)address, (void)length;
    close(fd);
    assert_non_null(cell.acceptor);
    in_callback_of("accepted", NULL);
}

static void on_short(void *arg, int error)
{
    (void)arg, (void)error;
    in_callback_of("short", NULL);
}

static void on_connected(struct iostream *s, void *arg, const char *why)
{
    struct dial *dial = arg;
    (void)why;
    assert_non_null(dial->connecting);
    cell.dial = dial;
    in_callback_of("connected", s);
    cell.dial = &cell.waiting;
    dial->connecting = NULL;
    if (s)
        iostream_abort(s, CLOSE_ERROR);
}

void on_secure(struct iostream *s, void *arg)
{
    (void)arg;
    in_callback_of("secure", s);
}

static void on_line(void *arg, uint64_t id, const char *line, size_t length)
{
    (void)arg, (void)id, (void)line, (void)length;
    assert_non_null(cell.spawner);
    in_callback_of("line", NULL);
}

static void on_failure(void *arg, const char *why)
{
    (void)arg, (void)why;
    assert_non_null(cell.spawner);
    in_callback_of("failure", NULL);
}

void connect_to(struct dial *dial, const char *host, int port, struct tls_context *tls)
{
    struct errbuf err = {""};
    const struct connect_options options = {.timeout_seconds = 1000, .tls = tls, .tls_name = tls ? "a.test" : NULL};
    char text[64];
    snprintf(text, sizeof text, "%s:%d", host, port);
    dial->target = target_parse(text, &err);
    assert_string_equal(err.text, "");
    dial->connecting = iostream_connect(loop, dial->target, &options, on_connected, dial);
    assert_non_null(dial->connecting);
}

static void hang_up_dial(struct dial *dial)
{
    if (dial->connecting)
        connect_cancel(dial->connecting);
    target_free(dial->target);
}

void let_descriptors_run_out(void)
{
    limit_descriptors_to_what_is_open(&cell.files);
    cell.no_files = true;
}

/* ---- a cell ---- */

static void open_server(const struct row *row)
{
    struct errbuf err = {""};
    struct tcpserver_options options = row->options;
    cell.shared = shared_new(&(struct shared_options){.processes = 1, .max_per_ip = row->max_per_ip, .max_connections = 100}, &err);
    assert_non_null(cell.shared);
    options.shared = cell.shared;
    options.count_addresses = true;
    options.is_proxied = is_proxied;
    options.rejected = rejected;
    options.stream_closed = stream_closed;
    options.exhausted = exhausted;
    options.empty = empty;
    open_site(&options);
    listen_on_any_port(); /* a second one */
    dial_and_serve(1);
    cell.guest = site.parties[0];
    if (row->over_tls)
        tcpserver_set_tls(site.server, tls_server);
}

static void open_spawner(const struct row *row)
{
    struct errbuf err = {""};
    static char shell[] = "sh", option[] = "-c", script[256];
    static char *const argv[] = {shell, option, script, NULL};
    snprintf(script, sizeof script, "%s", row->script ? row->script : "true");
    const struct spawner_options options = {
        .argv = argv, .io = SPAWN_PIPES, .warm = row->warm, .on_stderr = on_line, .on_failure = on_failure};
    cell.spawner = spawner_new(loop, &options, &err);
    assert_string_equal(err.text, "");
}

static void open_cell(const struct row *row, const struct column *column)
{
    struct errbuf err = {""};
    memset(&cell, 0, sizeof cell);
    cell.row = row;
    cell.column = column;
    cell.caller = -1;
    open_server(row);
    open_spawner(row);
    assert_int_equal(bind_sockets("127.0.0.1", "0", NULL, &cell.door, 1, &err), 1);
    cell.acceptor = add_accept_handler(loop, cell.door, on_accepted, on_short, NULL, &err);
    assert_non_null(cell.acceptor);
    cell.dial = &cell.waiting;
    connect_to(&cell.waiting, "127.0.0.1", port_at(hole[0]), NULL);
    site.inside = on_site;
}

void close_cell(void)
{
    give_descriptors_back();
    site.inside = NULL;
    dismiss_all();
    close_site();
    shared_free(cell.shared);
    if (cell.acceptor)
        remove_acceptor();
    hang_up_dial(&cell.waiting);
    hang_up_dial(&cell.dialling);
    run_until(!cell.spawner || spawner_children(cell.spawner) == 0);
    if (cell.spawner)
        free_spawner();
    if (cell.caller >= 0)
        close(cell.caller);
    close(cell.door);
    cell.row = NULL;
}

void play_cell(const struct row *row, const struct column *column)
{
    open_cell(row, column);
    cell.armed = true;
    if (row->provoke)
        row->provoke();
    run_until(cell.done);
    run_quietly();
    if (column->call == drain_server || column->call == stop_listen_and_drain)
        run_until(!tcpserver_listening(site.server));
    assert_int_equal(cell.places_left, 0);
    assert_true(site.server || strlen(site.told) == cell.told);
    close_cell();
    run_until(engine->users == 1); /* no stream, server or child is left */
}

/* ---- what outlives the cells ---- */

int open_cells(void **state)
{
    struct errbuf err = {""};
    assert_int_equal(make_directory(state), 0);
    tls_server = new_server_context(NULL);
    tls_client = tls_client_new(in_directory("ca.pem"), false, &err);
    assert_non_null(tls_client);
    assert_int_equal(bind_sockets("127.0.0.1", "0", &(struct bind_options){.backlog = 1}, hole, 1, &err), 1);
    assert_int_equal(listen(hole[0], 0), 0);
    for (size_t i = 1; i < COUNT(hole); i++) {
        struct sockaddr_in address;
        socklen_t length = sizeof address;
        assert_int_equal(getsockname(hole[0], (struct sockaddr *)&address, &length), 0);
        hole[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        connect(hole[i], (struct sockaddr *)&address, length);
    }
    return 0;
}

int close_cells(void **state)
{
    for (size_t i = 0; i < COUNT(hole); i++)
        close(hole[i]);
    tls_context_free(tls_server);
    tls_context_free(tls_client);
    return remove_directory(state);
}
