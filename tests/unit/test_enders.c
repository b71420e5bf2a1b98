/* Every callback, and in it every call that ends something: a matrix, whose cells are in enders.c. */
#include <stdio.h>

#include "enders.h"
#include "tls_peer.h"

static size_t cells;

/* ---- the rows ---- */

static void come(void)
{
    dial_site(3);
}

static void come_and_be_refused(void)
{
    site.refusing = true;
    dial_site(3);
}

static void come_to_a_drain(void)
{
    dial_site(3);
    tcpserver_drain(site.server);
}

static void come_to_a_drain_and_be_refused(void)
{
    site.refusing = true;
    come_to_a_drain();
}

static void come_and_say(const char *text)
{
    for (int i = 0; i < 2; i++) {
        dial_site(1);
        int fd = site.clients[site.dialled - 1];
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    }
}

static void come_by_proxy(void)
{
    site.proxied = true;
    come_and_say("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
}

static void come_by_proxy_and_be_refused(void)
{
    site.refusing = true;
    come_by_proxy();
}

static void come_by_no_proxy(void)
{
    site.proxied = true;
    come_and_say("GET / HTTP/1.0\r\n");
}

static void talk_no_tls(void)
{
    come_and_say("GET / HTTP/1.0\r\n\r\n");
}

static int have_no_descriptors(struct party *p)
{
    (void)p;
    errno = EMFILE;
    return -1;
}

static void come_when_the_handler_is_short(void)
{
    site.serve = have_no_descriptors;
    dial_site(1);
}

static void come_to_a_drain_when_the_handler_is_short(void)
{
    site.serve = have_no_descriptors;
    come_to_a_drain();
}

static void serve_now(struct iostream *s, void *arg)
{
    (void)arg;
    in_callback_of("again", s);
}

static int serve_later(struct party *p)
{
    iostream_try_again(p->stream, EMFILE, serve_now, NULL);
    return 0;
}

static void come_and_wait(void)
{
    site.serve = serve_later;
    dial_site(1); /* accepting rests for the others */
    run_until(site.served == 2);
    dial_site(2);
}

static void come_without_descriptors(void)
{
    dial_site(1);
    let_descriptors_run_out();
}

static void guest_resets(void)
{
    iostream_watch(cell.guest->stream);
    far_reset(cell.guest);
}

static void guest_ends(void)
{
    watch_eof(cell.guest);
    far_finish(cell.guest);
}

static void guest_is_late(void)
{
    assert_int_equal(iostream_set_timer(cell.guest->stream, TIMER_LIFETIME, 1), 0);
    pass(2);
}

static void all_go(void)
{
    cell.guest = meet(0); /* who is nobody's guest */
    far_reset(site.parties[0]);
    iostream_watch(site.parties[0]->stream);
    tcpserver_stop(site.server);
}

static void guest_is_written_to(void)
{
    write_text(cell.guest, "hello");
}

static void guest_cannot_be_written_to(void)
{
    write_text(cell.guest, "hello");
    iostream_abort(cell.guest->stream, CLOSE_DENIED);
}

static void read_of_some(void)
{
    read_some(cell.guest, 3);
    far_send(cell.guest, "hello\n");
}

static void read_of_bytes(void)
{
    read_bytes(cell.guest, 4);
    far_send(cell.guest, "hello\n");
}

static void read_of_a_line(void)
{
    read_until(cell.guest, "\n", 100);
    far_send(cell.guest, "hello\nworld\n");
}

static void read_of_too_long_a_line(void)
{
    read_until(cell.guest, "\n", 3);
    far_send(cell.guest, "hello\n");
}

static void read_into_memory(void)
{
    static char memory[4];
    assert_int_equal(iostream_read_into(cell.guest->stream, memory, sizeof memory, false, on_read, cell.guest), 0);
    far_send(cell.guest, "hello\n");
}

static size_t match_newline(void *arg, const char *data, size_t length, size_t seen)
{
    const char *found = memchr(data + seen, '\n', length - seen);
    (void)arg;
    return found ? (size_t)(found - data) + 1 : 0;
}

static void read_of_a_match(void)
{
    assert_int_equal(iostream_read_until_match(cell.guest->stream, match_newline, 100, on_read, cell.guest), 0);
    far_send(cell.guest, "hello\nworld\n");
}

static void read_of_all(void)
{
    read_until_close(cell.guest);
    far_send(cell.guest, "hello\n");
    far_finish(cell.guest);
}

static void read_that_meets_the_end(void)
{
    read_bytes(cell.guest, 100);
    far_send(cell.guest, "hello\n");
    far_finish(cell.guest);
}

static void read_that_is_cut_off(void)
{
    read_bytes(cell.guest, 100);
    iostream_abort(cell.guest->stream, CLOSE_DENIED);
}

/* Who comes has no bare descriptor at the far end. */
static void expect_another(void)
{
    site.clients[site.dialled++] = -1;
}

static void connect_and_succeed(void)
{
    expect_another();
    connect_to(&cell.dialling, "127.0.0.1", site.port, NULL);
}

static void connect_by_name(void)
{
    expect_another();
    connect_to(&cell.dialling, "localhost", site.port, NULL);
}

static void connect_and_fail(void)
{
    connect_to(&cell.dialling, "127.0.0.1", 1, NULL);
}

static void connect_over_tls(void)
{
    expect_another();
    connect_to(&cell.dialling, "127.0.0.1", site.port, tls_client);
}

static void connect_over_no_tls(void)
{
    expect_another();
    connect_to(&cell.dialling, "127.0.0.1", site.port, tls_client);
    run_until(site.served == site.dialled);
    iostream_write(site.parties[1]->stream, "hello\n", 6, NULL, NULL);
}

static void two_meet_over_tls(void)
{
    struct party *p, *q;
    meet_pair(&p, &q);
    assert_int_equal(iostream_start_tls(p->stream, tls_server, NULL, 10, on_secure, NULL), 0);
    assert_int_equal(iostream_start_tls(q->stream, tls_client, "a.test", 10, on_secure, NULL), 0);
}

static void guest_talks_no_tls(void)
{
    assert_int_equal(iostream_start_tls(cell.guest->stream, tls_server, NULL, 10, on_secure, NULL), 0);
    far_send(cell.guest, "GET / HTTP/1.0\r\n\r\n");
}

static void guest_gets_a_child(void)
{
    assert_int_equal(spawner_start(cell.spawner, cell.guest->stream), 0);
}

static void guest_gets_a_child_and_ends(void)
{
    guest_gets_a_child();
    far_finish(cell.guest);
}

static void come_to_the_door(void)
{
    for (int i = 0; i < 2; i++)
        close(dial_port(port_at(cell.door)));
}

static void come_to_the_door_without_descriptors(void)
{
    cell.caller = dial_port(port_at(cell.door));
    let_descriptors_run_out();
}

/* Told once it has been reaped: until then somebody else may end the line. */
static const char last_words[] = "(while kill -0 $$; do :; done 2> /dev/null) > /dev/null < /dev/null & printf one >&2";

#define DENYING .options = {.refuse = refuse, .refused = refused}
static const struct row rows[] = {
    {"handle_stream", "handle", .provoke = come},
    {"handle_stream, in a drain", "handle", .provoke = come_to_a_drain},
    {"handle_stream, after a PROXY header", "handle", .provoke = come_by_proxy},
    {"handle_stream, over TLS", "handle", .provoke = connect_over_tls, .over_tls = true},
    {"handle_stream, which fails", "handle", .provoke = come_when_the_handler_is_short},
    {"handle_stream, which fails in a drain", "handle", .provoke = come_to_a_drain_when_the_handler_is_short},
    {"iostream_try_again", "again", .provoke = come_and_wait},
    {"refuse, which does not", "refuse", .provoke = come, DENYING},
    {"refuse, which does", "refuse", .provoke = come_and_be_refused, DENYING},
    {"refuse, in a drain", "refuse", .provoke = come_to_a_drain, DENYING},
    {"refuse, which does, in a drain", "refuse", .provoke = come_to_a_drain_and_be_refused, DENYING},
    {"refuse, after a PROXY header", "refuse", .provoke = come_by_proxy, DENYING},
    {"refuse, which does, after a PROXY header", "refuse", .provoke = come_by_proxy_and_be_refused, DENYING},
    {"refused, denied", "refused", .provoke = come_and_be_refused, DENYING},
    {"refused, denied in a drain", "refused", .provoke = come_to_a_drain_and_be_refused, DENYING},
    {"refused, denied after a PROXY header", "refused", .provoke = come_by_proxy_and_be_refused, DENYING},
    {"refused, at a limit", "refused", .provoke = come, DENYING, .max_per_ip = 1},
    {"refused, at a limit after a PROXY header", "refused", .provoke = come_by_proxy, DENYING, .max_per_ip = 1},
    {"is_proxied", "is_proxied", .provoke = come, DENYING},
    {"is_proxied, which is", "is_proxied", .provoke = come_by_proxy, DENYING},
    {"rejected, denied after a PROXY header", "rejected", .provoke = come_by_proxy_and_be_refused, DENYING},
    {"rejected, no PROXY header", "rejected", .provoke = come_by_no_proxy, DENYING},
    {"rejected, no TLS", "rejected", .provoke = talk_no_tls, .over_tls = true},
    {"stream_closed, reset", "closed", .provoke = guest_resets},
    {"stream_closed, timeout", "closed", .provoke = guest_is_late},
    {"stream_closed, error", "closed", .provoke = come_when_the_handler_is_short},
    {"exhausted", "exhausted", .provoke = come_without_descriptors},
    {"exhausted, by the handler", "exhausted", .provoke = come_when_the_handler_is_short},
    {"empty", "empty", .provoke = all_go},
    {"read_some", "read", .provoke = read_of_some},
    {"read_bytes", "read", .provoke = read_of_bytes},
    {"read_until", "read", .provoke = read_of_a_line},
    {"read_until, limit", "read", .provoke = read_of_too_long_a_line},
    {"read_into", "read", .provoke = read_into_memory},
    {"read_until_match", "read", .provoke = read_of_a_match},
    {"read_until_close", "read", .provoke = read_of_all},
    {"a read, EOF", "read", .provoke = read_that_meets_the_end},
    {"a read, closed", "read", .provoke = read_that_is_cut_off},
    {"write", "wrote", .provoke = guest_is_written_to},
    {"write, failed", "wrote", .provoke = guest_cannot_be_written_to},
    {"on_eof", "eof", .provoke = guest_ends},
    {"on_close, reset", "end", .provoke = guest_resets},
    {"on_close, timeout", "end", .provoke = guest_is_late},
    {"on_close, error", "end", .provoke = come_when_the_handler_is_short},
    {"on_close, TLS failed", "end", .provoke = guest_talks_no_tls},
    {"start_tls", "secure", .provoke = two_meet_over_tls},
    {"connect", "connected", .provoke = connect_and_succeed},
    {"connect, by name", "connected", .provoke = connect_by_name},
    {"connect, refused", "connected", .provoke = connect_and_fail},
    {"connect, over TLS", "connected", .provoke = connect_over_tls, .over_tls = true},
    {"connect, TLS failed", "connected", .provoke = connect_over_no_tls},
    {"on_stderr", "line", .provoke = guest_gets_a_child, .script = "echo one >&2; echo two >&2; read x", .has_child = true},
    {"on_stderr, last words", "line", .provoke = guest_gets_a_child, .script = last_words},
    {"on_stderr, of one that waits", "line", .script = "echo one >&2; printf two >&2; read x", .warm = 2},
    {"on_failure", "failure", .script = "exit 3", .warm = 2},
    {"on_close, the child exited", "end", .provoke = guest_gets_a_child_and_ends, .script = "exit 3"},
    {"accept_cb", "accepted", .provoke = come_to_the_door},
    {"accept handler's exhausted", "short", .provoke = come_to_the_door_without_descriptors},
};

static void play_row(void **state)
{
    const struct row *row = *state;
    for (size_t i = 0; i < COUNT(columns); i++) {
        if (!is_legal(row, &columns[i]))
            continue;
        play_cell(row, &columns[i]);
        cells++;
    }
}

/* ---- all of them ---- */

static void close_what_failed(void)
{
    if (cell.row)
        close_cell();
}

static int tear_down_row(void **state)
{
    if (cell.row)
        print_error("%s inside %s\n", cell.column->name, cell.row->name);
    return tear_down(state);
}

static int set_up_row(void **state)
{
    void *row = *state, *over = (void *)(intptr_t)TCP;
    int result = set_up_site(&over);
    at_tear_down = close_what_failed;
    *state = row;
    return result;
}

static int tear_down_all(void **state)
{
    print_message("# note: %zu cells, of %zu calls inside %zu callbacks\n", cells, COUNT(columns), COUNT(rows));
    return close_cells(state);
}

int main(void)
{
    struct CMUnitTest tests[COUNT(rows)];
    for (size_t i = 0; i < COUNT(rows); i++)
        tests[i] = (struct CMUnitTest){rows[i].name, play_row, set_up_row, tear_down_row, (void *)(uintptr_t)&rows[i]};
    return cmocka_run_group_tests_name("enders", tests, open_cells, tear_down_all);
}
