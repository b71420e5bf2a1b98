/* How TLS begins on a stream that is plain, how it ends, and whom a client takes for the one it wanted. */
#include <fcntl.h>
#include <sys/socket.h>

#include "tls_peer.h"

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* ---- ends ---- */

static void each_side_may_end_first(void **state)
{
    (void)state;
    for (int ours_first = 0; ours_first < 2; ours_first++) {
        static struct meeting m;
        open_to_client(&m, versions[ours_first]);
        read_until_close(m.party);
        if (ours_first) {
            write_text(m.party, "all there is");
            iostream_finish(m.party->stream);
            peer_settle(&m.peer);
            expect(m.party, "wrote");
            assert_true(m.peer.ended);
            assert_true(m.wire.shut);
            peer_say(&m.peer, "and now the peer");
            SSL_shutdown(m.peer.ssl);
            peer_settle(&m.peer);
            expect(m.party, "read:and now the peer end:finished");
        } else {
            peer_say(&m.peer, "first");
            SSL_shutdown(m.peer.ssl);
            peer_settle(&m.peer);
            expect(m.party, "read:first");
            write_text(m.party, "all there is");
            peer_settle(&m.peer);
            expect(m.party, "wrote");
            iostream_finish(m.party->stream);
            peer_settle(&m.peer);
            expect(m.party, "end:eof");
        }
        assert_string_equal(m.peer.got, "all there is");
        assert_true(m.peer.ended);
        assert_false(m.wire.reset);
        end_meeting(&m);
    }
}

/* Data and close_notify in one segment, and the reader takes little at a time. */
static void an_end_that_comes_with_data_is_told(void **state)
{
    (void)state;
    static const size_t parts[] = {1, 2, 5, 100};
    for (size_t i = 0; i < COUNT(parts); i++) {
        static struct meeting m;
        open_to_client(&m, versions[i % 2]);
        peer_say(&m.peer, "hello");
        SSL_shutdown(m.peer.ssl);
        watch_eof(m.party);
        peer_settle(&m.peer);
        expect_nothing(m.party);
        for (size_t have = 0; have < 5; have += parts[i]) {
            read_some(m.party, parts[i]);
            run_until(*m.party->diary);
            run_quietly();
            assert_int_equal(strstr(m.party->diary, "eof") != NULL, have + parts[i] >= 5);
            if (have + parts[i] < 5)
                *m.party->diary = '\0';
        }
        *m.party->diary = '\0';
        iostream_finish(m.party->stream);
        expect(m.party, "end:eof");
        end_meeting(&m);
    }
}

static void an_end_that_comes_with_data_is_relayed(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        static struct meeting m;
        open_to_client(&m, versions[v]);
        peer_say(&m.peer, "hello");
        SSL_shutdown(m.peer.ssl);
        assert_int_equal(iostream_relay(m.party->stream, m.party->stream), 0);
        peer_settle(&m.peer);
        expect(m.party, "end:eof");
        assert_string_equal(m.peer.got, "hello");
        assert_true(m.peer.ended);
        end_meeting(&m);
    }
}

/* Without close_notify it may have been cut off by somebody in between: what came is delivered, and then that is said. */
static void a_truncated_end_is_an_error(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        static struct meeting m;
        open_to_client(&m, versions[v]);
        read_some(m.party, 100);
        watch_eof(m.party);
        peer_say(&m.peer, "hello");
        peer_settle(&m.peer);
        expect(m.party, "read:hello");
        m.wire.eof = true;
        read_until_close(m.party);
        for (int i = 0; i < 5; i++)
            peer_turn(&m.peer);
        expect(m.party, "read-closed end:tls/EPROTO");
        end_meeting(&m);
    }
}

/* The same in one segment. */
static void what_comes_before_a_truncated_end_is_delivered(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, 0);
    read_some(m.party, 100);
    peer_say(&m.peer, "hello");
    m.wire.eof = true;
    peer_turn(&m.peer);
    expect(m.party, "read:hello");
    read_some(m.party, 100);
    peer_turn(&m.peer);
    expect(m.party, "read-closed end:tls/EPROTO");
    end_meeting(&m);
}

static void garbage_after_data_is_an_error_after_data(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        static struct meeting m;
        char bytes[KIB(1)];
        open_to_client(&m, versions[v]);
        read_some(m.party, 100);
        peer_say(&m.peer, "hello");
        int n = BIO_read(m.peer.out, bytes, sizeof bytes);
        buffer_append(&m.wire.in, bytes, (size_t)n);
        peer_say(&m.peer, "hello");
        n = BIO_read(m.peer.out, bytes, sizeof bytes);
        bytes[n - 1] ^= 1;
        buffer_append(&m.wire.in, bytes, (size_t)n);
        peer_turn(&m.peer);
        expect(m.party, "read:hello");
        read_some(m.party, 100);
        expect(m.party, "read-closed end:tls/EPROTO");
        assert_false(m.wire.reset); /* the alert has to arrive */
        end_meeting(&m);
    }
}

static void an_abort_resets(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, 0);
    write_text(m.party, "x");
    expect(m.party, "wrote");
    iostream_abort(m.party->stream, CLOSE_DENIED);
    expect(m.party, "end:denied");
    assert_true(m.wire.reset);
    assert_false(m.peer.ended);
    end_meeting(&m);
}

/* There is no room for close_notify at first. */
static void an_end_may_wait_for_room(void **state)
{
    (void)state;
    for (size_t room = 0; room < 24; room += 5) {
        static struct meeting m;
        open_to_client(&m, versions[room % 2]);
        m.peer.stalled = true;
        m.wire.room = room;
        iostream_finish(m.party->stream);
        for (int i = 0; i < 5; i++)
            peer_turn(&m.peer);
        assert_false(m.wire.shut);
        peer_say(&m.peer, "meanwhile");
        read_bytes(m.party, 9);
        peer_settle(&m.peer);
        expect(m.party, "read:meanwhile");
        m.peer.stalled = false;
        m.wire.room = 24;
        peer_settle(&m.peer);
        assert_true(m.peer.ended);
        assert_true(m.wire.shut);
        end_meeting(&m);
    }
}

static void a_close_flushes_and_drops(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, 0);
    write_text(m.party, "goodbye");
    iostream_close(m.party->stream);
    peer_say(&m.peer, "still talking");
    peer_settle(&m.peer);
    expect(m.party, "wrote");
    assert_string_equal(m.peer.got, "goodbye");
    assert_true(m.peer.ended);
    m.wire.eof = true; /* without close_notify: nothing is lost by it */
    peer_turn(&m.peer);
    expect(m.party, "end:finished");
    end_meeting(&m);
}

/* The client goes through the handshake, and then stays: not for ever. */
static void a_close_during_the_handshake_has_its_limit(void **state)
{
    (void)state;
    static struct meeting m;
    meet_client(&m, 0);
    peer_turn(&m.peer);
    write_text(m.party, "goodbye");
    iostream_close(m.party->stream);
    peer_settle(&m.peer);
    assert_string_equal(m.peer.got, "goodbye");
    assert_true(m.peer.ended);
    pass(40);
    expect(m.party, "wrote end:finished"); /* it is not opened any more */
    end_meeting(&m);
}

static void a_handshake_has_its_limit(void **state)
{
    (void)state;
    static struct meeting m;
    meet_client(&m, 0);
    pass(11);
    expect(m.party, "end:timeout/ETIMEDOUT");
    assert_true(m.wire.reset);
    end_meeting(&m);
    open_to_client(&m, 0);
    pass(60);
    expect_nothing(m.party);
    end_meeting(&m);
}

/* Somebody has written before; nothing is known of the errors of others. */
static void an_error_of_one_is_none_of_anothers(void **state)
{
    (void)state;
    static const char garbage[] = "no TLS at all, and long enough to be looked at";
    static struct meeting good, bad;
    open_to_client(&good, 0);
    meet_client(&bad, 0);
    read_bytes(good.party, 5);
    bad.peer.stalled = true;
    buffer_append(&bad.wire.in, garbage, sizeof garbage);
    transport_ready(&bad.wire.base, EV_READ);
    expect(bad.party, "end:tls/EPROTO");
    peer_turn(&good.peer);
    peer_say(&good.peer, "hello");
    peer_settle(&good.peer);
    expect(good.party, "read:hello");
    dismiss_all();
    peer_release(&good.peer);
    peer_release(&bad.peer);
    tls_context_free(good.context);
    tls_context_free(bad.context);
}

/* ---- starting TLS on a stream that there is ---- */

static void on_open(struct iostream *s, void *arg)
{
    (void)s;
    write_down(arg, "open");
}

static int start_server(struct party *p, struct tls_context *context)
{
    return iostream_start_tls(p->stream, context, NULL, 10, on_open, p);
}

static void both_roles_secure_a_stream(void **state)
{
    (void)state;
    struct errbuf err;
    struct tls_context *ours = new_server_context(NULL), *theirs = tls_client_new(in_directory("ca.pem"), false, &err);
    struct party *server, *client;
    meet_pair(&server, &client);
    write_text(client, "STARTTLS\n");
    read_until(server, "\n", 100);
    expect(client, "wrote");
    expect(server, "read:STARTTLS\n");
    assert_null(iostream_tls(server->stream));
    assert_int_equal(start_server(server, ours), 0);
    assert_null(iostream_tls(server->stream)); /* under way */
    assert_int_equal(iostream_start_tls(client->stream, theirs, "a.test", 10, on_open, client), 0);
    read_bytes(server, 5);
    write_text(client, "hello"); /* waits for the handshake */
    write_text(server, "welcome");
    read_bytes(client, 7);
    run_until(strstr(server->diary, "read:") && strstr(client->diary, "read:"));
    assert_non_null(strstr(server->diary, "open"));
    assert_non_null(strstr(server->diary, "read:hello"));
    assert_non_null(strstr(client->diary, "read:welcome"));
    assert_string_equal(iostream_tls(server->stream)->sni, "a.test");
    assert_non_null(iostream_tls(server->stream)->version);
    assert_null(iostream_tls(server->stream)->error);
    *server->diary = *client->diary = '\0';
    iostream_finish(client->stream);
    watch_eof(server);
    read_some(client, 1);
    expect(server, "eof");
    iostream_finish(server->stream);
    expect(server, "end:eof");
    expect(client, "read-eof end:finished");
    tls_context_free(ours);
    tls_context_free(theirs);
}

static void refuse_to_start(struct party *p, struct tls_context *context, int error)
{
    errno = 0;
    assert_int_equal(start_server(p, context), -1);
    assert_int_equal(errno, error);
}

static void nothing_may_be_under_way(void **state)
{
    (void)state;
    struct tls_context *context = new_server_context(NULL);
    struct party *p = meet(0), *other = meet(0);
    read_some(p, 1);
    refuse_to_start(p, context, EBUSY);
    far_send(p, "some plain text");
    expect(p, "read:s");
    refuse_to_start(p, context, EBUSY); /* what was sent in the clear is still here (CVE-2011-0411) */
    read_some(p, 100);
    expect(p, "read:ome plain text");
    iostream_relay(other->stream, p->stream);
    refuse_to_start(p, context, EBUSY);
    refuse_to_start(other, context, EBUSY);
    dismiss_all();

    p = meet(KIB(8192));
    char *bytes = calloc(1, KIB(8000));
    iostream_write(p->stream, bytes, KIB(8000), NULL, NULL);
    free(bytes);
    refuse_to_start(p, context, EBUSY);
    dismiss_all();

    p = meet(0);
    assert_int_equal(start_server(p, context), 0);
    refuse_to_start(p, context, EBUSY);
    dismiss_all();

    p = meet(0);
    iostream_finish(p->stream);
    refuse_to_start(p, context, EPIPE);
    iostream_close(p->stream);
    refuse_to_start(p, context, EPIPE);
    iostream_abort(p->stream, CLOSE_DENIED);
    refuse_to_start(p, context, EPIPE);
    expect(p, "end:denied");
    p = meet(0);
    watch_eof(p);
    far_finish(p);
    expect(p, "eof");
    refuse_to_start(p, context, EPIPE);
    dismiss_all();
    tls_context_free(context);
}

/* ---- whom a client takes for the one it wanted ---- */

static const char *outcome_for(const char *certificate, const char *ca, const char *name, bool insecure)
{
    static char text[DIARY_BYTES + 256];
    struct errbuf err;
    static struct wire_transport w;
    static struct tls_peer peer;
    SSL_CTX *ctx = server_ctx(certificate);
    struct tls_context *context = tls_client_new(ca ? in_directory(ca) : NULL, insecure, &err);
    assert_non_null(context);
    wire_init(&w);
    peer_init(&peer, &w, ctx, false);
    SSL_CTX_free(ctx);
    struct party *p = host_tls(&w, context, name);
    peer_settle(&peer);
    run_until(*p->diary);
    run_quietly();
    const struct tls_info *info = p->stream ? iostream_tls(p->stream) : NULL;
    snprintf(text, sizeof text, "%s%s", p->diary, info && info->error ? info->error : "");
    *p->diary = '\0';
    dismiss_all();
    peer_release(&peer);
    tls_context_free(context);
    return text;
}

static void a_client_verifies_whom_it_talks_to(void **state)
{
    (void)state;
    static const struct {
        const char *certificate, *ca, *name, *outcome;
        bool insecure;
    } cases[] = {
        {"server", "ca.pem", "a.test", "open", false},
        {"server", "ca.pem", "A.TEST", "open", false},
        {"server", "ca.pem", "a.test.", "open", false},
        {"server", "ca.pem", "localhost", "open", false},
        {"server", "ca.pem", "127.0.0.1", "open", false},
        {"server", "ca.pem", "127.0.0.2", "end:tls/EPROTO", false},
        {"server", "ca.pem", "::1", "end:tls/EPROTO", false},
        {"server", "ca.pem", "b.test", "end:tls/EPROTO", false},
        {"server", "ca.pem", "x.a.test", "end:tls/EPROTO", false},
        {"server", NULL, "a.test", "end:tls/EPROTO", false}, /* the system's authorities do not know ours */
        {"server", "other-ca.pem", "a.test", "end:tls/EPROTO", false},
        {"wild", "ca.pem", "one.wild.test", "open", false},
        {"wild", "ca.pem", "two.one.wild.test", "end:tls/EPROTO", false},
        {"wild", "ca.pem", "wild.test", "end:tls/EPROTO", false},
        {"v6", "ca.pem", "fe80::1%eth0", "open", false}, /* the scope is ours alone */
        {"expired", "ca.pem", "a.test", "end:tls/EPROTO", false},
        {"early", "ca.pem", "a.test", "end:tls/EPROTO", false},
        {"expired", NULL, "b.test", "open", true},
        {"server", NULL, NULL, "open", true},
    };
    make_certificate(&(struct certificate_wish){.file = "other-ca", .subject = "authority"});
    make_certificate(&(struct certificate_wish){.file = "wild", .subject = "w", .names = "DNS:*.wild.test", .issuer = "ca"});
    make_certificate(&(struct certificate_wish){.file = "v6", .subject = "v6", .names = "IP:fe80::1", .issuer = "ca"});
    make_certificate(&(struct certificate_wish){"expired", "e", "DNS:a.test", "ca", -20, -10, KEY_EC});
    make_certificate(&(struct certificate_wish){"early", "e", "DNS:a.test", "ca", 10, 20, KEY_EC});
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *outcome = outcome_for(cases[i].certificate, cases[i].ca, cases[i].name, cases[i].insecure);
        if (strcmp(outcome, cases[i].outcome) != 0)
            fail_msg("%s, asked for %s: %s", cases[i].certificate, cases[i].name ? cases[i].name : "nobody", outcome);
    }
}

/* Who verifies has to say whom: any certificate of the authority would do. */
static void a_client_that_verifies_needs_a_name(void **state)
{
    (void)state;
    struct errbuf err;
    struct tls_context *context = tls_client_new(in_directory("ca.pem"), false, &err);
    static const char *const names[] = {NULL, "", "%eth0",
                                        "a.name.that.is.far.too.long.a.name.that.is.far.too.long.a.name.that.is.far.too."
                                        "long.a.name.that.is.far.too.long.a.name.that.is.far.too.long.a.name.that.is.far.too.long.a.name."
                                        "that.is.far.too.long.a.name.that.is.far.too.long.a.name.that.is.far.too.long.a.name.that.is.far"};
    for (size_t i = 0; i < COUNT(names); i++) {
        struct party *p = meet(0);
        errno = 0;
        assert_int_equal(iostream_start_tls(p->stream, context, names[i], 10, on_open, p), -1);
        assert_int_equal(errno, EINVAL);
        write_text(p, "it is as it was");
        far_receive(p, "it is as it was");
        expect(p, "wrote");
    }
    tls_context_free(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(each_side_may_end_first),
        LOOP_TEST(an_end_that_comes_with_data_is_told),
        LOOP_TEST(an_end_that_comes_with_data_is_relayed),
        LOOP_TEST(a_truncated_end_is_an_error),
        LOOP_TEST(what_comes_before_a_truncated_end_is_delivered),
        LOOP_TEST(garbage_after_data_is_an_error_after_data),
        LOOP_TEST(an_abort_resets),
        LOOP_TEST(an_end_may_wait_for_room),
        LOOP_TEST(a_close_flushes_and_drops),
        LOOP_TEST(a_close_during_the_handshake_has_its_limit),
        LOOP_TEST(a_handshake_has_its_limit),
        LOOP_TEST(an_error_of_one_is_none_of_anothers),
        STREAM_TEST(both_roles_secure_a_stream),
        SOCKET_TEST(nothing_may_be_under_way),
        LOOP_TEST(a_client_verifies_whom_it_talks_to),
        LOOP_TEST(a_client_that_verifies_needs_a_name),
    };
    return cmocka_run_group_tests_name("tls_end", tests, make_directory, remove_directory);
}
