/* The server: whatever ends it, or a stream of it, may be called inside every callback of its own and of its streams. */
#include "site.h"

/* ---- what is called ---- */

static struct shared *all;    /* what the server counts in */
static struct iostream *here; /* the stream that the callback is about, if it may still be told anything */

static void ender_stop(void)
{
    tcpserver_stop(site.server);
}

static void ender_drain(void)
{
    tcpserver_drain(site.server);
}

static void ender_abort(void)
{
    tcpserver_abort(site.server);
}

static void ender_abort_handshakes(void)
{
    tcpserver_abort_handshakes(site.server);
}

static void ender_listen_again(void)
{
    tcpserver_stop(site.server);
    listen_on_any_port();
    tcpserver_drain(site.server);
    listen_on_any_port();
}

static void ender_free(void)
{
    struct tcpserver *server = site.server;
    site.server = NULL;
    tcpserver_free(server);
}

static void ender_free_all(void)
{
    ender_free();
    shared_free(all);
    all = NULL;
}

static void ender_close_stream(void)
{
    if (here)
        iostream_close(here);
}

static void ender_abort_stream(void)
{
    if (here)
        iostream_abort(here, CLOSE_ERROR);
}

static const struct ender {
    const char *name;
    void (*call)(void);
} enders[] = {
    {"stop", ender_stop},
    {"drain", ender_drain},
    {"abort", ender_abort},
    {"abort handshakes", ender_abort_handshakes},
    {"stop, listen, drain, listen", ender_listen_again},
    {"free", ender_free},
    {"free, and what it counted in", ender_free_all},
    {"close the stream", ender_close_stream},
    {"abort the stream", ender_abort_stream},
};

static const struct ender *ender;
static const char *where;

static void end_there(const char *callback)
{
    if (site.server && strcmp(callback, where) == 0) {
        site.inside = NULL;
        ender->call();
    }
}

/* ---- the callbacks, each of which is sure to come ---- */

enum { CLIENTS = 3 };

static bool behind_proxies;

static bool is_proxied(const struct sockaddr *address, socklen_t length, void *arg)
{
    (void)address, (void)length;
    assert_ptr_equal(arg, &site);
    look_inside("is_proxied");
    return behind_proxies;
}

static void rejected(struct iostream *s, void *arg)
{
    (void)s;
    assert_ptr_equal(arg, &site);
    look_inside("rejected");
}

static int serve_all(struct party *p)
{
    here = p->stream;
    iostream_watch(p->stream);
    watch_eof(p);
    read_some(p, 1);
    write_text(p, "x");
    return 0;
}

static int serve_none(struct party *p)
{
    (void)p;
    errno = EMFILE;
    return -1;
}

static void come(void)
{
    dial_site(CLIENTS);
}

static void drain_with_some(void)
{
    dial_site(CLIENTS);
    tcpserver_drain(site.server);
}

static void say_all(const char *text)
{
    for (int i = 0; i < site.served; i++)
        far_send(site.parties[i], text);
}

static void come_and(void (*then)(struct party *))
{
    dial_and_serve(CLIENTS);
    for (int i = 0; i < site.served; i++) {
        here = site.parties[i]->stream;
        then(site.parties[i]);
    }
    here = site.parties[0]->stream;
}

static void come_and_ask(void)
{
    dial_and_serve(CLIENTS);
    here = site.parties[0]->stream;
    say_all("a");
}

static void come_and_finish(void)
{
    dial_and_serve(CLIENTS);
    here = site.parties[0]->stream;
    say_all("a");
    run_quietly();
    for (int i = 0; i < site.served; i++)
        far_finish(site.parties[i]);
}

static void come_and_reset(void)
{
    come_and(far_reset);
    here = NULL;
}

static void give_no_time(struct party *p)
{
    assert_int_equal(iostream_set_timer(p->stream, TIMER_LIFETIME, 10), 0);
}

static void come_and_take_too_long(void)
{
    come_and(give_no_time);
    here = NULL;
    pass(11);
}

static void go_away(void)
{
    tcpserver_stop(site.server);
}

static struct rlimit descriptors_before;

static void find_no_descriptor(void)
{
    dial_site(CLIENTS);
    limit_descriptors_to_what_is_open(&descriptors_before);
    run_until(!site.inside);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &descriptors_before), 0);
}

static void say_before_all_else(const char *text)
{
    dial_site(CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        assert_int_equal(write(site.clients[i], text, strlen(text)), (ssize_t)strlen(text));
}

static void announce(void)
{
    say_before_all_else("PROXY TCP4 192.0.2.1 198.51.100.2 51234 443\r\n");
}

static void announce_nonsense(void)
{
    say_before_all_else("hello\r\n");
}

static const struct scene {
    const char *name, *callback;
    void (*play)(void);
    int (*serve)(struct party *); /* NULL: serve_all */
    bool proxied, refusing;
    unsigned max_per_ip;
} scenes[] = {
    {.name = "is_proxied", .callback = "is_proxied", .play = come},
    {.name = "is_proxied, and it is", .callback = "is_proxied", .play = announce, .proxied = true},
    {.name = "refuse", .callback = "refuse", .play = come},
    {.name = "refuse, and it does", .callback = "refuse", .play = come, .refusing = true},
    {.name = "refuse in a drain", .callback = "refuse", .play = drain_with_some},
    {.name = "refuse and do so in a drain", .callback = "refuse", .play = drain_with_some, .refusing = true},
    {.name = "refuse who is announced", .callback = "refuse", .play = announce, .proxied = true},
    {.name = "refuse who is announced, and do so", .callback = "refuse", .play = announce, .proxied = true, .refusing = true},
    {.name = "refused: denied", .callback = "refused", .play = come, .refusing = true},
    {.name = "refused: denied in a drain", .callback = "refused", .play = drain_with_some, .refusing = true},
    {.name = "refused: at a limit", .callback = "refused", .play = come, .max_per_ip = 1},
    {.name = "refused: announced and denied", .callback = "refused", .play = announce, .proxied = true, .refusing = true},
    {.name = "refused: announced, at a limit", .callback = "refused", .play = announce, .proxied = true, .max_per_ip = 1},
    {.name = "rejected: no header", .callback = "rejected", .play = announce_nonsense, .proxied = true},
    {.name = "rejected: announced and denied", .callback = "rejected", .play = announce, .proxied = true, .refusing = true},
    {.name = "handle_stream", .callback = "handle", .play = come},
    {.name = "handle_stream of one announced", .callback = "handle", .play = announce, .proxied = true},
    {.name = "handle_stream in a drain", .callback = "handle", .play = drain_with_some},
    {.name = "handle_stream that fails", .callback = "handle", .play = come, .serve = serve_none},
    {.name = "handle_stream that fails in a drain", .callback = "handle", .play = drain_with_some, .serve = serve_none},
    {.name = "exhausted", .callback = "exhausted", .play = find_no_descriptor},
    {.name = "exhausted by the handler", .callback = "exhausted", .play = come, .serve = serve_none},
    {.name = "read", .callback = "read", .play = come_and_ask},
    {.name = "wrote", .callback = "wrote", .play = come},
    {.name = "eof", .callback = "eof", .play = come_and_finish},
    {.name = "stream_closed: reset", .callback = "closed", .play = come_and_reset},
    {.name = "stream_closed: time-out", .callback = "closed", .play = come_and_take_too_long},
    {.name = "stream_closed: error", .callback = "closed", .play = come, .serve = serve_none},
    {.name = "on_close: reset", .callback = "end", .play = come_and_reset},
    {.name = "on_close: time-out", .callback = "end", .play = come_and_take_too_long},
    {.name = "on_close: error", .callback = "end", .play = come, .serve = serve_none},
    {.name = "empty", .callback = "empty", .play = go_away},
};

/* ---- each in each ---- */

static void perform_cell(const struct scene *scene)
{
    struct errbuf err;
    all = shared_new(&(struct shared_options){.processes = 1, .max_connections = 100, .max_per_ip = scene->max_per_ip}, &err);
    assert_non_null(all);
    here = NULL;
    where = scene->callback;
    behind_proxies = scene->proxied;
    open_site(&(struct tcpserver_options){.shared = all,
                                          .is_proxied = is_proxied,
                                          .refuse = refuse,
                                          .refused = refused,
                                          .rejected = rejected,
                                          .stream_closed = stream_closed,
                                          .exhausted = exhausted,
                                          .empty = empty,
                                          .count_addresses = true});
    site.inside = end_there;
    site.serve = scene->serve ? scene->serve : serve_all;
    site.refusing = scene->refusing;
    scene->play();
    run_until(!site.inside); /* it was there, and has called */
    run_quietly();
    if (site.server)
        tcpserver_abort(site.server);
    run_until(!site.server || tcpserver_connections(site.server) == 0);
    dismiss_all();
    if (all)
        assert_int_equal(shared_connections(all), 0);
    close_site();
    shared_free(all);
}

static void everything_that_ends_is_legal_in_every_callback(void **state)
{
    (void)state;
    int cells = 0;
    for (size_t s = 0; s < COUNT(scenes); s++) {
        for (size_t e = 0; e < COUNT(enders); e++) {
            ender = &enders[e];
            perform_cell(&scenes[s]);
            cells++;
        }
    }
    print_message("# note: %d scenes, %d ways to end: %d lives\n", (int)COUNT(scenes), (int)COUNT(enders), cells);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(everything_that_ends_is_legal_in_every_callback),
    };
    return cmocka_run_group_tests_name("tcpserver_inside", tests, NULL, NULL);
}
