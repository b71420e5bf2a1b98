/* TLS as a transport: handshakes in any pieces, bytes both ways, wants of every kind, new keys. The other end is OpenSSL itself. */
#include <openssl/err.h>

#include "tls_peer.h"

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

/* ---- handshakes ---- */

static void converse(struct meeting *m)
{
    read_bytes(m->party, 5);
    write_text(m->party, "welcome");
    peer_say(&m->peer, "hello");
    peer_settle(&m->peer);
    assert_string_equal(m->peer.got, "welcome");
    assert_non_null(strstr(m->party->diary, "read:hello"));
    assert_non_null(strstr(m->party->diary, "wrote"));
    *m->party->diary = '\0';
}

static void a_handshake_may_come_in_any_pieces(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 2, 3, 5, 64, 1000, 0};
    for (size_t v = 0; v < COUNT(versions); v++) {
        for (size_t i = 0; i < COUNT(pieces); i++) {
            static struct meeting m;
            meet_client(&m, versions[v]);
            m.peer.piece = pieces[i];
            peer_settle(&m.peer);
            expect(m.party, "open");
            converse(&m);
            end_meeting(&m);
        }
    }
}

static void every_call_may_have_to_wait(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        for (size_t piece = 0; piece < 8; piece++) {
            static struct meeting m;
            meet_client(&m, versions[v]);
            m.wire.balks = true;
            m.wire.read_piece = m.wire.write_piece = piece;
            peer_settle(&m.peer);
            expect(m.party, "open");
            converse(&m);
            end_meeting(&m);
        }
    }
}

/* The same with a wire so narrow that each flight has to wait for room, many times. */
static void a_handshake_may_wait_for_room(void **state)
{
    (void)state;
    for (size_t room = 1; room < 40; room += 13) {
        static struct meeting m;
        meet_client(&m, 0);
        m.wire.room = room;
        peer_settle(&m.peer);
        expect(m.party, "open");
        converse(&m);
        end_meeting(&m);
    }
}

/* The last flight of a handshake and what follows it at once, in one piece. */
static void bytes_may_come_with_the_end_of_the_handshake(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        static struct meeting m;
        meet_client(&m, versions[v]);
        read_bytes(m.party, 5);
        while (!SSL_is_init_finished(m.peer.ssl))
            peer_turn(&m.peer);
        peer_say(&m.peer, "hello");
        peer_settle(&m.peer);
        expect(m.party, "open read:hello");
        end_meeting(&m);
    }
}

static void a_client_speaks_first(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 7, 0};
    for (size_t i = 0; i < COUNT(pieces); i++) {
        struct errbuf err;
        static struct wire_transport w;
        static struct tls_peer peer;
        SSL_CTX *ctx = server_ctx("server");
        struct tls_context *context = tls_client_new(in_directory("ca.pem"), false, &err);
        wire_init(&w);
        peer_init(&peer, &w, ctx, false);
        SSL_CTX_free(ctx);
        peer.piece = pieces[i];
        struct party *p = host_tls(&w, context, "a.test");
        read_bytes(p, 7);
        peer_settle(&peer);
        expect(p, "open");
        peer_say(&peer, "welcome");
        peer_settle(&peer);
        expect(p, "read:welcome");
        assert_string_equal(SSL_get_servername(peer.ssl, TLSEXT_NAMETYPE_host_name), "a.test");
        dismiss_all();
        peer_release(&peer);
        tls_context_free(context);
    }
}

/* A close_notify is no handshake: it opened the stream, without the client's certificate (bytes of an alert in the clear). */
static void a_close_notify_does_not_open(void **state)
{
    (void)state;
    static const char close_notify[] = "\x15\x03\x03\x00\x02\x01\x00";
    for (size_t v = 0; v < COUNT(versions); v++) {
        static struct meeting m;
        meet_client(&m, versions[v]);
        while (buffer_length(&m.wire.out) == 0)
            peer_turn(&m.peer);
        m.peer.stalled = true;
        assert_int_equal(buffer_append(&m.wire.in, close_notify, sizeof close_notify - 1), 0);
        for (int i = 0; i < 5; i++)
            peer_turn(&m.peer);
        expect(m.party, "end:tls/EPROTO");
        end_meeting(&m);
    }
}

static void a_handshake_may_be_cut_off_anywhere(void **state)
{
    (void)state;
    for (size_t v = 0; v < COUNT(versions); v++) {
        for (int turns = 0; turns < 3; turns++) {
            static struct meeting m;
            meet_client(&m, versions[v]);
            m.peer.piece = 150;
            for (int i = 0; i < turns; i++)
                peer_turn(&m.peer);
            m.peer.stalled = true;
            m.wire.eof = true;
            for (int i = 0; i < 5; i++)
                peer_turn(&m.peer);
            expect(m.party, "end:tls/EPROTO");
            end_meeting(&m);
        }
    }
}

static void a_reset_ends_a_handshake(void **state)
{
    (void)state;
    static struct meeting m;
    meet_client(&m, 0);
    m.peer.stalled = true;
    m.wire.read_error = ECONNRESET;
    for (int i = 0; i < 5; i++)
        peer_turn(&m.peer);
    expect(m.party, "end:reset/ECONNRESET");
    end_meeting(&m);
}

/* What a client that is wrong gets is an alert, and no reset that would destroy it. */
static void an_alert_is_not_reset(void **state)
{
    (void)state;
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    static struct meeting m;
    meet_client(&m, 0);
    assert_int_equal(buffer_append(&m.wire.in, request, sizeof request - 1), 0);
    m.peer.stalled = true;
    peer_settle(&m.peer);
    expect(m.party, "end:tls/EPROTO");
    assert_true(m.wire.freed);
    assert_false(m.wire.reset);
    end_meeting(&m);
}

/* ---- bytes ---- */

enum { MUCH = 300 * 1024 };

/* An echo through a narrow wire, in pieces that fit no record. */
static void everything_arrives_in_order(void **state)
{
    (void)state;
    static const size_t rooms[] = {100, 5000, KIB(64)};
    for (size_t i = 0; i < COUNT(rooms); i++) {
        static struct meeting m;
        char bytes[777], right[KIB(4)];
        size_t sent = 0, received = 0;
        open_to_client(&m, i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
        m.wire.room = rooms[i];
        m.wire.balks = i == 1;
        m.peer.piece = rooms[i];
        assert_int_equal(iostream_relay(m.party->stream, m.party->stream), 0);
        while (received < MUCH / (i == 0 ? 10 : 1)) {
            if (sent < received + KIB(40)) {
                pattern(bytes, sizeof bytes, sent);
                peer_send(&m.peer, bytes, sizeof bytes);
                sent += sizeof bytes;
            }
            peer_turn(&m.peer);
            pattern(right, m.peer.got_length, received);
            assert_memory_equal(m.peer.got, right, m.peer.got_length);
            received += m.peer.got_length;
            m.peer.got_length = 0;
        }
        end_meeting(&m);
    }
}

/* Several records in one segment, read in small parts: no event will tell of the rest. */
static void what_is_decrypted_is_delivered_without_an_event(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, 0);
    for (int i = 0; i < 3; i++)
        peer_say(&m.peer, "abcdef");
    read_bytes(m.party, 1);
    peer_settle(&m.peer);
    expect(m.party, "read:a");
    read_bytes(m.party, 7);
    expect(m.party, "read:bcdefab");
    read_bytes(m.party, 10);
    expect(m.party, "read:cdefabcdef");
    end_meeting(&m);
}

/* Half a record is nothing to be told of: the stream rests, and does not spin. */
static void half_a_record_is_waited_for(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, 0);
    read_bytes(m.party, 5);
    peer_say(&m.peer, "hello");
    m.peer.piece = 9;
    assert_true(peer_turn(&m.peer));
    m.peer.piece = 0;
    int reads = m.wire.reads;
    for (int i = 0; i < 50; i++)
        ev_run(loop, EVRUN_NOWAIT);
    assert_int_equal(m.wire.reads, reads);
    assert_int_equal(m.wire.watched, EV_READ);
    peer_settle(&m.peer);
    expect(m.party, "read:hello");
    end_meeting(&m);
}

/* One recv a record, and none that only finds nothing. */
static void a_short_read_is_the_last(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, TLS1_3_VERSION);
    for (int i = 0; i < 4; i++) {
        int reads = m.wire.reads;
        read_bytes(m.party, 5);
        peer_say(&m.peer, "hello");
        peer_settle(&m.peer);
        expect(m.party, "read:hello");
        assert_int_equal(m.wire.reads, reads + 1);
    }
    end_meeting(&m);
}

/* ---- new keys (TLS 1.3) ---- */

static void update_keys(struct meeting *m, int type)
{
    assert_int_equal(SSL_key_update(m->peer.ssl, type), 1);
    assert_int_equal(SSL_do_handshake(m->peer.ssl), 1);
}

static void keys_may_be_renewed_both_ways(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, TLS1_3_VERSION);
    assert_int_equal(iostream_relay(m.party->stream, m.party->stream), 0);
    for (int i = 0; i < 10; i++) {
        update_keys(&m, SSL_KEY_UPDATE_REQUESTED);
        peer_say(&m.peer, "x");
        peer_settle(&m.peer);
    }
    assert_string_equal(m.peer.got, "xxxxxxxxxx");
    end_meeting(&m);
}

/* The answer to a request for new keys finds no room; then our end comes. */
static void new_keys_may_be_asked_for_while_there_is_no_room(void **state)
{
    (void)state;
    for (int finish = 0; finish < 2; finish++) {
        static struct meeting m;
        open_to_client(&m, TLS1_3_VERSION);
        write_text(m.party, "first");
        expect(m.party, "wrote");
        m.peer.stalled = true;
        m.wire.room = buffer_length(&m.wire.out); /* not one byte more */
        read_bytes(m.party, 5);
        update_keys(&m, SSL_KEY_UPDATE_REQUESTED);
        peer_say(&m.peer, "hello");
        peer_settle(&m.peer);
        if (finish)
            iostream_finish(m.party->stream);
        else
            write_text(m.party, "second");
        peer_settle(&m.peer);
        m.wire.room = KIB(64);
        m.peer.stalled = false;
        peer_settle(&m.peer);
        expect(m.party, finish ? "read:hello" : "read:hello wrote");
        assert_string_equal(m.peer.got, finish ? "first" : "firstsecond");
        assert_int_equal(m.peer.ended, finish);
        end_meeting(&m);
    }
}

/* A record is half out when the request comes. */
static void new_keys_may_be_asked_for_in_the_middle_of_a_record(void **state)
{
    (void)state;
    static const char text[] = "a text that is longer than the room there is, and its record is longer still";
    for (size_t room = 1; room < 90; room += 11) {
        static struct meeting m;
        open_to_client(&m, TLS1_3_VERSION);
        m.peer.stalled = true;
        m.wire.room = room;
        write_text(m.party, text);
        iostream_finish(m.party->stream);
        read_bytes(m.party, 5);
        update_keys(&m, SSL_KEY_UPDATE_REQUESTED);
        peer_say(&m.peer, "hello");
        peer_settle(&m.peer);
        m.peer.stalled = false;
        peer_settle(&m.peer);
        assert_string_equal(m.peer.got, text);
        assert_true(m.peer.ended);
        assert_non_null(strstr(m.party->diary, "wrote"));
        assert_non_null(strstr(m.party->diary, "read:hello"));
        *m.party->diary = '\0';
        end_meeting(&m);
    }
}

/* Our side has ended; the peer, which still sends, asks for new keys. There is nothing to answer with. */
static void new_keys_may_be_asked_for_after_our_end(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, TLS1_3_VERSION);
    iostream_finish(m.party->stream);
    peer_settle(&m.peer);
    assert_true(m.wire.shut);
    update_keys(&m, SSL_KEY_UPDATE_REQUESTED);
    peer_say(&m.peer, "hello");
    read_bytes(m.party, 5);
    peer_settle(&m.peer);
    expect(m.party, "read:hello");
    end_meeting(&m);
}

/* Requests come one an hour on a connection that lives for days, with small messages in between. */
static void new_keys_now_and_then_are_no_attack(void **state)
{
    (void)state;
    char bytes[500] = "";
    static struct meeting m;
    open_to_client(&m, TLS1_3_VERSION);
    assert_int_equal(iostream_discard(m.party->stream), 0);
    for (int i = 0; i < 200; i++) {
        update_keys(&m, SSL_KEY_UPDATE_NOT_REQUESTED);
        for (int j = 0; j < 5; j++) {
            peer_send(&m.peer, bytes, sizeof bytes);
            peer_settle(&m.peer);
        }
    }
    expect_nothing(m.party);
    end_meeting(&m);
}

/* They are refused before the loop is kept from other streams: not after all that has come. */
static void a_flood_of_new_keys_is_refused(void **state)
{
    (void)state;
    static struct meeting m;
    open_to_client(&m, TLS1_3_VERSION);
    assert_int_equal(iostream_discard(m.party->stream), 0);
    for (int i = is_on_valgrind() ? 18000 : 0; i < 20000; i++)
        update_keys(&m, SSL_KEY_UPDATE_NOT_REQUESTED);
    m.peer.piece = KIB(16);
    for (int i = 0; i < 100; i++) {
        char piece[KIB(16)];
        int n = BIO_read(m.peer.out, piece, sizeof piece);
        if (n > 0)
            assert_int_equal(buffer_append(&m.wire.in, piece, (size_t)n), 0);
    }
    size_t before = buffer_length(&m.wire.in);
    transport_ready(&m.wire.base, EV_READ);
    expect(m.party, "end:tls/EPROTO");
    assert_true(before - buffer_length(&m.wire.in) <= KIB(64) + KIB(256)); /* with what is dropped at the end */
    end_meeting(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(a_handshake_may_come_in_any_pieces),
        LOOP_TEST(every_call_may_have_to_wait),
        LOOP_TEST(a_handshake_may_wait_for_room),
        LOOP_TEST(bytes_may_come_with_the_end_of_the_handshake),
        LOOP_TEST(a_client_speaks_first),
        LOOP_TEST(a_close_notify_does_not_open),
        LOOP_TEST(a_handshake_may_be_cut_off_anywhere),
        LOOP_TEST(a_reset_ends_a_handshake),
        LOOP_TEST(an_alert_is_not_reset),
        LOOP_TEST(everything_arrives_in_order),
        LOOP_TEST(what_is_decrypted_is_delivered_without_an_event),
        LOOP_TEST(half_a_record_is_waited_for),
        LOOP_TEST(a_short_read_is_the_last),
        LOOP_TEST(keys_may_be_renewed_both_ways),
        LOOP_TEST(new_keys_may_be_asked_for_while_there_is_no_room),
        LOOP_TEST(new_keys_may_be_asked_for_in_the_middle_of_a_record),
        LOOP_TEST(new_keys_may_be_asked_for_after_our_end),
        LOOP_TEST(new_keys_now_and_then_are_no_attack),
        LOOP_TEST(a_flood_of_new_keys_is_refused),
    };
    return cmocka_run_group_tests_name("tls", tests, make_directory, remove_directory);
}
