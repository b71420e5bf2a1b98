/* What a server answers to whom: certificates by name and kind of key, protocols, and whose tickets are good where. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdio.h>

#include "tls_peer.h"

/* ---- one visit of a client ---- */

struct visit {
    const char *sni, *certificate, *groups, *sigalgs; /* of the client; each may be NULL */
    const char *alpn;                                 /* on the wire */
    SSL_SESSION *session;                             /* to resume */
    int version;
    /* what came of it */
    char said[256];                                        /* "open", or why not */
    char subject[64], chosen[64], client[64], refused[64]; /* refused: the name it asked for in vain */
    bool resumed;
    SSL_SESSION *next; /* the caller's */
};

static void note_why(struct party *p, const char *word)
{
    struct visit *v = p->arg;
    if (strcmp(word, "end") == 0 && !*v->said) {
        const struct tls_info *info = iostream_tls(p->stream);
        snprintf(v->refused, sizeof v->refused, "%s", info && info->sni ? info->sni : "");
        snprintf(v->said, sizeof v->said, "%s", info && info->error ? info->error : close_reason_name(iostream_reason(p->stream)));
    }
}

static SSL_CTX *dress(const struct visit *v)
{
    char name[64];
    SSL_CTX *ctx = client_ctx(v->version);
    if (v->certificate) {
        snprintf(name, sizeof name, "%s.pem", v->certificate);
        assert_int_equal(SSL_CTX_use_certificate_file(ctx, in_directory(name), SSL_FILETYPE_PEM), 1);
        snprintf(name, sizeof name, "%s.key", v->certificate);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, in_directory(name), SSL_FILETYPE_PEM), 1);
    }
    if (v->groups)
        assert_int_equal(SSL_CTX_ctrl(ctx, SSL_CTRL_SET_GROUPS_LIST, 0, (void *)(uintptr_t)v->groups), 1);
    if (v->sigalgs)
        assert_int_equal(SSL_CTX_ctrl(ctx, SSL_CTRL_SET_SIGALGS_LIST, 0, (void *)(uintptr_t)v->sigalgs), 1);
    return ctx;
}

static void note_success(struct visit *v, struct party *p, SSL *ssl)
{
    const struct tls_info *info = iostream_tls(p->stream);
    const unsigned char *alpn;
    unsigned length;
    strcpy(v->said, "open");
    v->resumed = info->resumed;
    assert_int_equal(v->resumed, SSL_session_reused(ssl));
    snprintf(v->client, sizeof v->client, "%s", info->client ? info->client : "");
    X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(ssl)), NID_commonName, v->subject, sizeof v->subject);
    SSL_get0_alpn_selected(ssl, &alpn, &length);
    snprintf(v->chosen, sizeof v->chosen, "%.*s", (int)length, length ? (const char *)alpn : "");
    v->next = SSL_get1_session(ssl);
}

static void visit(struct tls_context *context, struct visit *v)
{
    static struct wire_transport w;
    static struct tls_peer peer;
    SSL_CTX *ctx = dress(v);
    *v->said = '\0';
    v->resumed = false;
    v->next = NULL;
    wire_init(&w);
    peer_init(&peer, &w, ctx, true);
    SSL_CTX_free(ctx);
    if (v->sni)
        assert_int_equal(SSL_ctrl(peer.ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, (void *)(uintptr_t)v->sni), 1);
    if (v->alpn)
        assert_int_equal(SSL_set_alpn_protos(peer.ssl, (const unsigned char *)v->alpn, (unsigned)strlen(v->alpn)), 0);
    if (v->session)
        assert_int_equal(SSL_set_session(peer.ssl, v->session), 1);
    struct party *p = host_tls(&w, context, NULL);
    p->arg = v;
    p->inside = note_why;
    peer_settle(&peer);
    if (p->stream && strcmp(p->diary, "open") == 0)
        note_success(v, p, peer.ssl);
    run_until(*p->diary);
    *p->diary = '\0';
    SSL_shutdown(peer.ssl); /* else its session is thought bad */
    dismiss_all();
    peer_release(&peer);
}

static void expect_visit(struct tls_context *context, struct visit v, const char *said, const char *subject)
{
    visit(context, &v);
    SSL_SESSION_free(v.next);
    if (strcmp(v.said, said) != 0 || (subject && strcmp(v.subject, subject) != 0))
        fail_msg("to %s: \"%s\" by %s, and not \"%s\" by %s", v.sni ? v.sni : "nobody", v.said, v.subject, said, subject ? subject : "-");
}

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static struct tls_certificate named(const char *name)
{
    char file[64];
    struct tls_certificate c = {0};
    snprintf(file, sizeof file, "%s.pem", name);
    c.cert_file = in_directory(file);
    snprintf(file, sizeof file, "%s.key", name);
    c.key_file = in_directory(file);
    return c;
}

static struct tls_context *context_of(const struct tls_options *options)
{
    struct errbuf err = {""};
    struct tls_context *context = tls_server_new(options, &err);
    assert_string_equal(err.text, "");
    return context;
}

static int make_certificates(void **state)
{
    if (make_directory(state) != 0)
        return -1;
    make_certificate(&(struct certificate_wish){.file = "ec", .subject = "ec", .names = "DNS:a.test", .issuer = "ca"});
    make_certificate(&(struct certificate_wish){.file = "rsa", .subject = "rsa", .names = "DNS:a.test", .issuer = "ca", .kind = KEY_RSA});
    make_certificate(&(struct certificate_wish){.file = "rsa2", .subject = "rsa2", .names = "DNS:a.test", .issuer = "ca", .kind = KEY_RSA});
    make_certificate(&(struct certificate_wish){.file = "wild", .subject = "wild", .names = "DNS:*.w.test", .issuer = "ca"});
    make_certificate(&(struct certificate_wish){.file = "exact", .subject = "exact", .names = "DNS:x.w.test", .issuer = "ca"});
    make_certificate(&(struct certificate_wish){.file = "client", .subject = "client", .issuer = "ca"});
    make_certificate(&(struct certificate_wish){.file = "ca2", .subject = "second authority"});
    make_certificate(&(struct certificate_wish){.file = "client2", .subject = "client2", .issuer = "ca2"});
    return 0;
}

/* ---- certificates ---- */

static void the_certificate_is_that_of_the_name(void **state)
{
    (void)state;
    const struct tls_certificate certificates[] = {named("ec"), named("wild"), named("exact")};
    struct tls_options options = {.certificates = certificates, .count = 3};
    for (int strict = 0; strict < 2; strict++) {
        options.strict_sni = strict;
        struct tls_context *context = context_of(&options);
        for (size_t v = 0; v < COUNT(versions); v++) {
            const int version = versions[v];
            expect_visit(context, (struct visit){.version = version}, "open", "ec");
            expect_visit(context, (struct visit){.sni = "a.test", .version = version}, "open", "ec");
            expect_visit(context, (struct visit){.sni = "A.Test.", .version = version}, "open", "ec");
            expect_visit(context, (struct visit){.sni = "y.w.test", .version = version}, "open", "wild");
            expect_visit(context, (struct visit){.sni = "x.w.test", .version = version}, "open", "exact");
            if (strict)
                expect_visit(context, (struct visit){.sni = "b.test", .version = version}, "tlsv1 unrecognized name", "");
            else
                expect_visit(context, (struct visit){.sni = "b.test", .version = version}, "open", "ec");
        }
        tls_context_free(context);
    }
}

static void who_asks_for_what_is_logged(void **state)
{
    (void)state;
    const struct tls_certificate c = named("ec");
    struct tls_context *context = context_of(&(struct tls_options){.certificates = &c, .count = 1, .strict_sni = true});
    for (size_t i = 0; i < COUNT(versions); i++) {
        struct visit v = {.sni = "b.test", .version = versions[i]};
        visit(context, &v);
        assert_string_equal(v.refused, "b.test");
    }
    tls_context_free(context);
}

static void a_name_may_have_several_kinds_of_keys(void **state)
{
    (void)state;
    const struct tls_certificate certificates[] = {named("wild"), named("ec"), named("rsa"), named("rsa2")};
    struct tls_context *context = context_of(&(struct tls_options){.certificates = certificates, .count = 4});
    for (size_t v = 0; v < COUNT(versions); v++) {
        const int version = versions[v];
        expect_visit(context, (struct visit){.sni = "a.test", .sigalgs = "ECDSA+SHA256", .version = version}, "open", "ec");
        expect_visit(context, (struct visit){.sni = "a.test", .sigalgs = "rsa_pss_rsae_sha256", .version = version}, "open", "rsa");
        expect_visit(context, (struct visit){.sni = "q.w.test", .version = version}, "open", "wild");
    }
    tls_context_free(context);
}

/* The first ClientHello brings no share that the server knows, so there is a second one (HelloRetryRequest). */
static void a_second_client_hello_is_answered_as_the_first(void **state)
{
    (void)state;
    const struct tls_certificate certificates[] = {named("ec"), named("rsa")};
    struct tls_context *context = context_of(&(struct tls_options){.certificates = certificates, .count = 2, .groups = "P-256"});
    expect_visit(context, (struct visit){.sni = "a.test", .groups = "X25519:P-256", .version = TLS1_3_VERSION}, "open", "ec");
    expect_visit(context, (struct visit){.groups = "X25519:P-256", .version = TLS1_3_VERSION}, "open", "ec");
    expect_visit(context,
                 (struct visit){.sni = "a.test", .groups = "X25519:P-256", .sigalgs = "rsa_pss_rsae_sha256", .version = TLS1_3_VERSION},
                 "open", "rsa");
    tls_context_free(context);
}

static void a_made_up_certificate_may_have_others_beside_it(void **state)
{
    (void)state;
    struct errbuf err;
    struct tls_identity *identity = tls_self_signed("made.test", &err);
    const struct tls_certificate certificates[] = {{0}, named("ec")};
    struct tls_context *context = context_of(&(struct tls_options){.certificates = certificates, .count = 2, .identity = identity});
    tls_identity_free(identity); /* it has made its copy */
    expect_visit(context, (struct visit){.sni = "made.test"}, "open", "made.test");
    expect_visit(context, (struct visit){.sni = "a.test"}, "open", "ec");
    tls_context_free(context);
}

static void the_servers_order_of_protocols_counts(void **state)
{
    (void)state;
    const struct tls_certificate c = named("ec");
    struct tls_context *context = context_of(&(struct tls_options){.certificates = &c, .count = 1, .alpn = "h2,http/1.1"});
    static const struct {
        const char *offered, *chosen;
    } cases[] = {{NULL, ""}, {"\x02h2", "h2"}, {"\x08http/1.1\x02h2", "h2"}, {"\x08http/1.1", "http/1.1"}};
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct visit v = {.alpn = cases[i].offered, .version = versions[i % 2]};
        visit(context, &v);
        SSL_SESSION_free(v.next);
        assert_string_equal(v.said, "open");
        assert_string_equal(v.chosen, cases[i].chosen);
    }
    expect_visit(context, (struct visit){.alpn = "\x03xyz"}, "no application protocol", "");
    tls_context_free(context);
}

/* ---- clients that show who they are ---- */

static void clients_are_asked_as_the_name_asks(void **state)
{
    (void)state;
    struct tls_certificate certificates[] = {named("ec"), named("wild"), named("exact")};
    certificates[1].ca = certificates[2].ca = in_directory("ca.pem");
    certificates[2].verify = TLS_VERIFY_OPTIONAL;
    struct tls_context *context = context_of(&(struct tls_options){.certificates = certificates, .count = 3});
    for (size_t i = 0; i < COUNT(versions); i++) {
        const int version = versions[i];
        struct visit v = {.sni = "y.w.test", .certificate = "client", .version = version};
        visit(context, &v);
        SSL_SESSION_free(v.next);
        assert_string_equal(v.said, "open");
        assert_string_equal(v.client, "CN=client");
        expect_visit(context, (struct visit){.sni = "y.w.test", .version = version}, "peer did not return a certificate", NULL);
        expect_visit(context, (struct visit){.sni = "y.w.test", .certificate = "client2", .version = version},
                     "unable to get local issuer certificate", NULL);
        expect_visit(context, (struct visit){.sni = "x.w.test", .version = version}, "open", "exact");
        expect_visit(context, (struct visit){.sni = "x.w.test", .certificate = "client2", .version = version},
                     "unable to get local issuer certificate", NULL);
        expect_visit(context, (struct visit){.sni = "a.test", .certificate = "client2", .version = version}, "open", "ec");
    }
    tls_context_free(context);
}

static void a_name_cannot_ask_in_two_ways(void **state)
{
    (void)state;
    struct errbuf err;
    struct tls_certificate certificates[] = {named("ec"), named("rsa")};
    certificates[1].ca = in_directory("ca.pem");
    assert_null(tls_server_new(&(struct tls_options){.certificates = certificates, .count = 2}, &err));
    assert_string_equal(err.text, "two certificates for \"a.test\" do not ask the same of clients");
}

/* ---- tickets ---- */

static bool resumes(struct tls_context *context, SSL_SESSION *session, const char *sni, const char *certificate)
{
    struct visit v = {.sni = sni, .session = session, .certificate = certificate, .version = SSL_SESSION_get_protocol_version(session)};
    visit(context, &v);
    SSL_SESSION_free(v.next);
    return v.resumed;
}

static SSL_SESSION *session_of(struct tls_context *context, const char *sni, const char *certificate, int version)
{
    struct visit v = {.sni = sni, .certificate = certificate, .version = version};
    visit(context, &v);
    assert_string_equal(v.said, "open");
    assert_non_null(v.next);
    return v.next;
}

/* CVE-2025-23419: a ticket that was given to anybody must not open a name that asks who it is. */
static void a_ticket_is_good_for_its_policy_only(void **state)
{
    (void)state;
    struct tls_certificate certificates[] = {named("ec"), named("wild"), named("exact")};
    certificates[1].ca = certificates[2].ca = in_directory("ca.pem");
    certificates[2].verify = TLS_VERIFY_OPTIONAL;
    struct tls_context *context = context_of(&(struct tls_options){.certificates = certificates, .count = 3});
    for (size_t i = 0; i < COUNT(versions); i++) {
        const int version = versions[i];
        SSL_SESSION *open = session_of(context, "a.test", NULL, version), *optional = session_of(context, "x.w.test", NULL, version),
                    *shut = session_of(context, "y.w.test", "client", version);
        assert_true(resumes(context, open, "a.test", NULL));
        assert_true(resumes(context, shut, "y.w.test", NULL));
        assert_false(resumes(context, open, "y.w.test", NULL));
        assert_false(resumes(context, optional, "y.w.test", NULL));
        assert_false(resumes(context, open, "x.w.test", NULL));
        expect_visit(context, (struct visit){.sni = "y.w.test", .session = open, .version = version}, "peer did not return a certificate",
                     NULL);
        SSL_SESSION_free(open);
        SSL_SESSION_free(optional);
        SSL_SESSION_free(shut);
    }
    tls_context_free(context);
}

/* Who renews its certificate keeps its clients' tickets; who asks for other authorities does not. */
static void tickets_outlive_a_reload_that_asks_the_same(void **state)
{
    (void)state;
    struct errbuf err;
    struct tls_tickets *tickets = tls_tickets_new(&err);
    struct tls_certificate c = named("ec");
    struct tls_options options = {.certificates = &c, .count = 1, .tickets = tickets};
    c.ca = in_directory("ca.pem");
    struct tls_context *before = context_of(&options);
    make_certificate(&(struct certificate_wish){.file = "ec-next", .subject = "ec", .names = "DNS:a.test", .issuer = "ca"});
    c.cert_file = in_directory("ec-next.pem");
    c.key_file = in_directory("ec-next.key");
    struct tls_context *renewed = context_of(&options);
    c.ca = in_directory("ca2.pem");
    struct tls_context *other = context_of(&options);
    for (size_t i = 0; i < COUNT(versions); i++) {
        SSL_SESSION *session = session_of(before, "a.test", "client", versions[i]);
        assert_true(resumes(renewed, session, "a.test", NULL));
        assert_false(resumes(other, session, "a.test", NULL));
        SSL_SESSION_free(session);
    }
    tls_context_free(before);
    tls_context_free(renewed);
    tls_context_free(other);
    tls_tickets_free(tickets);
}

static void put_authority(const char *from, const char *to)
{
    char bytes[KIB(8)] = "";
    FILE *f = fopen(in_directory(from), "r");
    assert_true(fread(bytes, 1, sizeof bytes - 1, f) > 0);
    fclose(f);
    write_file(to, bytes);
}

/* The authorities are files in a directory: one is taken away, and who it vouched for is out, whatever ticket he has. */
/* Under the name that OpenSSL looks for. */
static void put_hashed(const char *file, char hashed[64])
{
    FILE *f = fopen(in_directory(file), "r");
    X509 *authority = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    snprintf(hashed, 64, "%08lx.0", X509_NAME_hash_ex(X509_get_subject_name(authority), NULL, NULL, NULL));
    X509_free(authority);
    put_authority(file, hashed);
}

static void tickets_end_with_the_authority_in_a_directory(void **state)
{
    (void)state;
    struct errbuf err;
    char hashed[64], stays[64];
    struct tls_tickets *tickets = tls_tickets_new(&err);
    struct tls_certificate c = named("ec");
    struct tls_options options = {.certificates = &c, .count = 1, .tickets = tickets};
    put_hashed("ca.pem", stays);
    put_hashed("ca2.pem", hashed);
    c.ca = in_directory("");
    struct tls_context *before = context_of(&options);
    SSL_SESSION *session = session_of(before, "a.test", "client2", TLS1_3_VERSION);
    assert_true(resumes(before, session, "a.test", "client2"));
    unlink(in_directory(hashed));
    unlink(in_directory("ca2.pem"));
    struct tls_context *after = context_of(&options);
    assert_false(resumes(after, session, "a.test", "client2"));
    SSL_SESSION_free(session);
    tls_context_free(before);
    tls_context_free(after);
    tls_tickets_free(tickets);
}

static void a_ticket_lives_through_three_rotations(void **state)
{
    (void)state;
    struct errbuf err;
    struct tls_tickets *tickets = tls_tickets_new(&err);
    const struct tls_certificate c = named("ec");
    struct tls_context *context = context_of(&(struct tls_options){.certificates = &c, .count = 1, .tickets = tickets});
    for (size_t i = 0; i < COUNT(versions); i++) {
        SSL_SESSION *session = session_of(context, "a.test", NULL, versions[i]);
        for (int rotation = 0; rotation < 5; rotation++) {
            assert_int_equal(resumes(context, session, "a.test", NULL), rotation < 4);
            assert_int_equal(tls_tickets_rotate(tickets), 0);
        }
        SSL_SESSION_free(session);
    }
    tls_context_free(context);
    tls_tickets_free(tickets);
}

/* Two machines with the same file; then with one that has a key more. */
static void a_file_of_keys_is_shared_by_machines(void **state)
{
    (void)state;
    char text[KIB(1)] = "";
    const struct tls_certificate c = named("ec");
    const struct tls_options options = {.certificates = &c, .count = 1, .ticket_keys_file = in_directory("tickets")};
    unsigned char bytes[80];
    struct tls_context *contexts[3];
    for (int i = 0; i < 3; i++) {
        char line[128];
        memset(bytes, 'a' + i, sizeof bytes);
        EVP_EncodeBlock((unsigned char *)line, bytes, sizeof bytes);
        strcat(strcat(text, line), "\n");
        write_file("tickets", text);
        contexts[i] = context_of(&options);
    }
    SSL_SESSION *session = session_of(contexts[1], "a.test", NULL, TLS1_3_VERSION); /* the last but one, which is the only one of [0] */
    for (int i = 0; i < 3; i++)
        assert_true(resumes(contexts[i], session, "a.test", NULL));
    SSL_SESSION_free(session);
    session = session_of(contexts[2], "a.test", NULL, TLS1_3_VERSION);
    assert_false(resumes(contexts[0], session, "a.test", NULL));
    assert_true(resumes(contexts[1], session, "a.test", NULL));
    SSL_SESSION_free(session);
    for (int i = 0; i < 3; i++)
        tls_context_free(contexts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(the_certificate_is_that_of_the_name),
        LOOP_TEST(who_asks_for_what_is_logged),
        LOOP_TEST(a_name_may_have_several_kinds_of_keys),
        LOOP_TEST(a_second_client_hello_is_answered_as_the_first),
        LOOP_TEST(a_made_up_certificate_may_have_others_beside_it),
        LOOP_TEST(the_servers_order_of_protocols_counts),
        LOOP_TEST(clients_are_asked_as_the_name_asks),
        LOOP_TEST(a_name_cannot_ask_in_two_ways),
        LOOP_TEST(a_ticket_is_good_for_its_policy_only),
        LOOP_TEST(tickets_outlive_a_reload_that_asks_the_same),
        LOOP_TEST(a_ticket_lives_through_three_rotations),
        LOOP_TEST(a_file_of_keys_is_shared_by_machines),
        LOOP_TEST(tickets_end_with_the_authority_in_a_directory),
    };
    return cmocka_run_group_tests_name("tls_select", tests, make_certificates, remove_directory);
}
