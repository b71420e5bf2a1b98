/* What a server is made of: files, lists and names, each mistake said once; and what it answers to whom. */
#include <fcntl.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "../../core/tls.h"
#include "tls_peer.h"

/* ---- making one ---- */

static struct tls_certificate usual(void)
{
    return (struct tls_certificate){.cert_file = in_directory("server.pem"), .key_file = in_directory("server.key")};
}

/* In the text, %s stands for the path. */
static const char *with_path(const char *text, const char *path)
{
    static char whole[1024];
    const char *place = strstr(text, "%s");
    int before = place ? (int)(place - text) : (int)strlen(text);
    snprintf(whole, sizeof whole, "%.*s%s%s", before, text, place ? path : "", place ? place + 2 : "");
    return whole;
}

static void complaint_is(const struct tls_options *options, const char *expected)
{
    struct errbuf err = {""};
    struct tls_context *context = tls_server_new(options, &err);
    assert_int_equal(ERR_peek_error(), 0); /* nothing is left for others to stumble over */
    tls_context_free(context);
    const char *text = with_path(expected, in_directory(""));
    if (context || strcmp(err.text, text) != 0)
        fail_msg("\"%s\" instead of \"%s\"", context ? "(made)" : err.text, text);
}

static struct tls_options with(const struct tls_certificate *certificate)
{
    return (struct tls_options){.certificates = certificate, .count = 1};
}

static void what_is_wrong_with_a_file_is_said(void **state)
{
    (void)state;
    make_certificate(&(struct certificate_wish){.file = "other", .subject = "other", .names = "DNS:other.test", .issuer = "ca"});
    write_file("empty", "");
    write_file("torn.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
    static const struct {
        const char *cert, *key, *ocsp, *ca, *crl, *complaint;
        enum tls_verify verify;
    } cases[] = {
        {"missing", "server.key", 0, 0, 0, "\"%smissing\": No such file or directory", 0},
        {"", "server.key", 0, 0, 0, "\"%s\": Is a directory", 0},
        {"empty", "server.key", 0, 0, 0, "\"%sempty\" holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", 0},
        {"torn.pem", "server.key", 0, 0, 0, "\"%storn.pem\" holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", 0},
        {"server.key", "server.key", 0, 0, 0, "\"%sserver.key\" holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", 0},
        {"server.pem", 0, 0, 0, 0, "\"%sserver.pem\" holds no private key in PEM (-----BEGIN PRIVATE KEY-----)", 0},
        {"server.pem", "missing", 0, 0, 0, "\"%smissing\": No such file or directory", 0},
        {"server.pem", "server.key", "empty", 0, 0, "\"%sempty\" is no OCSP response in DER that says anything (openssl ocsp -respout)", 0},
        {"server.pem", "server.key", 0, "missing", 0, "\"%smissing\": No such file or directory", 0},
        {"server.pem", "server.key", 0, "empty", 0, "\"%sempty\" holds no certificate in PEM (-----BEGIN CERTIFICATE-----)", 0},
        {"server.pem", "server.key", 0, "ca.pem", "ca.pem", "\"%sca.pem\" holds no revocation list in PEM (-----BEGIN X509 CRL-----)", 0},
        {"server.pem", "server.key", 0, 0, 0, "client certificates cannot be verified without a certificate authority", TLS_VERIFY_REQUIRE},
        {"server.pem", "server.key", 0, 0, 0, "client certificates cannot be verified without a certificate authority",
         TLS_VERIFY_OPTIONAL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tls_certificate c = {.cert_file = in_directory(cases[i].cert), .verify = cases[i].verify};
        c.key_file = cases[i].key ? in_directory(cases[i].key) : NULL;
        c.ocsp_file = cases[i].ocsp ? in_directory(cases[i].ocsp) : NULL;
        c.ca = cases[i].ca ? in_directory(cases[i].ca) : NULL;
        c.crl = cases[i].crl ? in_directory(cases[i].crl) : NULL;
        const struct tls_options options = with(&c);
        complaint_is(&options, cases[i].complaint);
    }
}

static void a_key_of_another_is_refused(void **state)
{
    (void)state;
    char expected[512];
    struct tls_certificate c = usual();
    c.key_file = in_directory("other.key");
    snprintf(expected, sizeof expected, "the key in \"%s\" is not that of the certificate in \"%s\"", c.key_file, c.cert_file);
    const struct tls_options options = with(&c);
    complaint_is(&options, expected);
}

static void what_is_wrong_with_a_setting_is_said(void **state)
{
    (void)state;
    const struct tls_certificate c = usual();
    char long_name[300];
    memset(long_name, 'x', sizeof long_name - 1);
    long_name[sizeof long_name - 1] = '\0';
#define ALPN "ALPN: a protocol has 1 to 255 bytes, as in h2,http/1.1"
    const struct {
        struct tls_options options;
        const char *complaint;
    } cases[] = {
        {{.alpn = ""}, ALPN},
        {{.alpn = ","}, ALPN},
        {{.alpn = "h2,"}, ALPN},
        {{.alpn = ",h2"}, ALPN},
        {{.alpn = "h2,,h1"}, ALPN},
        {{.alpn = long_name}, ALPN},
        {{.ciphers = "ECDHE+AESGCM:NOPE"}, "unknown cipher \"NOPE\""},
        {{.ciphers = "!NOPE:ALL"}, "unknown cipher \"NOPE\""},
        {{.ciphers = "TLS_AES_128_GCM_SHA256"}, "unknown cipher \"TLS_AES_128_GCM_SHA256\""},
        {{.ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_NOPE"}, "unknown ciphersuite \"TLS_NOPE\""},
        {{.ciphersuites = "ECDHE-RSA-AES128-GCM-SHA256"}, "unknown ciphersuite \"ECDHE-RSA-AES128-GCM-SHA256\""},
        {{.groups = "X25519:NOPE"}, "unknown group \"NOPE\""},
        {{.min_version = 13, .max_version = 12}, "the lowest TLS version is above the highest"},
        {{.ticket_keys_file = "/nowhere/at/all"}, "\"/nowhere/at/all\": No such file or directory"},
        {{.key_pass_file = "/nowhere/at/all"}, "\"/nowhere/at/all\": No such file or directory"},
        {{.key_pass_file = "/dev/null"}, "\"/dev/null\" holds no passphrase"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct tls_options options = cases[i].options;
        options.certificates = &c;
        options.count = 1;
        complaint_is(&options, cases[i].complaint);
    }
    complaint_is(&(struct tls_options){.certificates = &c}, "no certificate is given");
}

static void lists_of_every_kind_are_good(void **state)
{
    (void)state;
    const struct tls_certificate c = usual();
    const struct tls_options good[] = {
        {.ciphers = "ECDHE+AESGCM"},
        {.ciphers = "ALL:!aNULL:-AESCCM:+AES256:@STRENGTH"},
        {.ciphers = "DEFAULT@SECLEVEL=1"},
        {.ciphersuites = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256"},
        {.groups = "X25519:P-256"},
        {.groups = "P-384"},
        {.alpn = "h2"},
        {.alpn = "h2,http/1.1,a b"},
        {.min_version = 12, .max_version = 12},
        {.min_version = 13, .max_version = 13},
    };
    for (size_t i = 0; i < COUNT(good); i++) {
        struct errbuf err = {""};
        struct tls_options options = good[i];
        options.certificates = &c;
        options.count = 1;
        struct tls_context *context = tls_server_new(&options, &err);
        assert_string_equal(err.text, "");
        assert_non_null(context);
        tls_context_free(context);
    }
}

/* As in --ssl-cert <(command): what is written to it is there a moment later. */
static void a_pipe_is_waited_for(void **state)
{
    (void)state;
    char path[64], bytes[KIB(4)];
    struct errbuf err = {""};
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid_t writer = fork();
    if (writer == 0) {
        FILE *f = fopen(in_directory("server.pem"), "r");
        size_t n = fread(bytes, 1, sizeof bytes, f);
        poll(NULL, 0, 100); /* sure to be late */
        _exit(write(fds[1], bytes, n) == (ssize_t)n ? 0 : 1);
    }
    close(fds[1]);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fds[0]);
    const struct tls_certificate c = {.cert_file = path, .key_file = in_directory("server.key")};
    const struct tls_options options = with(&c);
    struct tls_context *context = tls_server_new(&options, &err);
    assert_string_equal(err.text, "");
    tls_context_free(context);
    close(fds[0]);
    waitpid(writer, NULL, 0);
}

/* ---- keys of tickets ---- */

static const char *ticket_line(int i) /* 80 bytes in base64 */
{
    static char line[128];
    unsigned char bytes[80];
    memset(bytes, i + 1, sizeof bytes);
    EVP_EncodeBlock((unsigned char *)line, bytes, sizeof bytes);
    return line;
}

static void load_tickets(const char *text, const char *complaint)
{
    struct errbuf err = {""};
    write_file("tickets", text);
    struct tls_tickets *tickets = tls_tickets_new(&err);
    struct bundle *files = bundle_new(&err);
    int result = tls_tickets_load(tickets, files, in_directory("tickets"), &err);
    bundle_free(files);
    tls_tickets_free(tickets);
    assert_string_equal(err.text, with_path(complaint, in_directory("tickets")));
    assert_int_equal(result, *complaint ? -1 : 0);
}

static void files_of_ticket_keys_are_looked_at(void **state)
{
    (void)state;
#define NO_KEY "not a ticket key (80 bytes in base64: openssl rand -base64 80 | tr -d '\\n')"
    char text[KIB(4)] = "", bad[KIB(1)];
    load_tickets("", "\"%s\" holds no ticket key");
    load_tickets("\n\r\n\n", "\"%s\" holds no ticket key");
    load_tickets("short\n", "\"%s\", line 1: " NO_KEY);
    for (int i = 0; i < 16; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%s", ticket_line(i), i % 2 ? "\r\n" : "\n\n");
        load_tickets(text, "");
    }
    strcat(text, ticket_line(16));
    load_tickets(text, "\"%s\": more than 16 ticket keys");
    load_tickets(ticket_line(0), "");      /* no newline at the end */
    for (size_t i = 0; i < 108; i += 13) { /* a bad character anywhere, the padding included */
        snprintf(bad, sizeof bad, "\n%s\n", ticket_line(0));
        bad[i + 1] = i % 2 ? '!' : ' ';
        load_tickets(bad, "\"%s\", line 2: " NO_KEY);
    }
    snprintf(bad, sizeof bad, "%s", ticket_line(0));
    bad[107] = 'A';
    load_tickets(bad, "\"%s\", line 1: " NO_KEY);
    bad[107] = bad[106] = '=';
    load_tickets(bad, "\"%s\", line 1: " NO_KEY);
    memset(bad, 'A', 600);
    bad[600] = '\0';
    load_tickets(bad, "\"%s\", line 1: " NO_KEY);
}

/* ---- names ---- */

static void names_match_as_wildcards_do(void **state)
{
    (void)state;
    char *items[] = {(char *)(uintptr_t) "a.test", (char *)(uintptr_t) "*.b.test", (char *)(uintptr_t) "x.b.test", (char *)(uintptr_t) "*"};
    const struct tls_names names = {items, COUNT(items)};
    static const struct {
        const char *name;
        enum tls_match match;
    } cases[] = {
        {"a.test", TLS_EXACT_MATCH},   {"b.a.test", TLS_NO_MATCH},   {"b.test", TLS_NO_MATCH},  {"y.b.test", TLS_WILDCARD_MATCH},
        {"x.b.test", TLS_EXACT_MATCH}, {"y.x.b.test", TLS_NO_MATCH}, {".b.test", TLS_NO_MATCH}, {"", TLS_NO_MATCH},
        {"test", TLS_NO_MATCH},        {".", TLS_NO_MATCH},          {"a.tes", TLS_NO_MATCH},   {"a.testx", TLS_NO_MATCH},
        {"y.b.test.", TLS_NO_MATCH},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        if (tls_names_match(&names, cases[i].name) != cases[i].match)
            fail_msg("\"%s\"", cases[i].name);
    }
}

static void names_are_those_of_the_certificate(void **state)
{
    (void)state;
    struct errbuf err;
    STACK_OF(X509) * chain;
    struct tls_names names;
    make_certificate(&(struct certificate_wish){.file = "san",
                                                .subject = "not.this",
                                                .names = "DNS:One.Test,IP:10.0.0.1,email:a@b.test,DNS:*.Two.Test,IP:2001:DB8:0:0::1",
                                                .issuer = "ca"});
    struct bundle *files = bundle_new(&err);
    X509 *certificate = tls_file_chain(files, in_directory("san.pem"), &chain, &err);
    assert_int_equal(tls_names_of(certificate, &names), 0);
    assert_int_equal(names.count, 4);
    assert_string_equal(names.items[0], "one.test");
    assert_string_equal(names.items[1], "*.two.test");
    assert_string_equal(names.items[2], "10.0.0.1");
    assert_string_equal(names.items[3], "2001:db8::1");
    tls_names_release(&names);
    X509_free(certificate);
    sk_X509_pop_free(chain, X509_free);

    certificate = tls_file_chain(files, in_directory("ca.pem"), &chain, &err); /* no alternatives: the common name */
    assert_int_equal(tls_names_of(certificate, &names), 0);
    assert_int_equal(names.count, 1);
    assert_string_equal(names.items[0], "authority");
    tls_names_release(&names);
    X509_free(certificate);
    sk_X509_pop_free(chain, X509_free);
    bundle_free(files);
}

/* ---- one made up at start ---- */

static void a_certificate_can_be_made_up(void **state)
{
    (void)state;
    struct errbuf err = {""};
    static const struct {
        const char *name, *names;
    } good[] = {{NULL, "localhost,127.0.0.1,::1"},
                {"my.test", "localhost,127.0.0.1,::1,my.test"},
                {"*.my.test", "localhost,127.0.0.1,::1,*.my.test"},
                {"10.1.2.3", "localhost,127.0.0.1,::1,10.1.2.3"},
                {"fe80::1", "localhost,127.0.0.1,::1,fe80::1"}};
    static const char *const bad[] = {"", "a b", "a,DNS:evil", "a\nb", "fe80::1%eth0", "a/b"};
    char long_name[255];
    for (size_t i = 0; i < COUNT(good); i++) {
        struct tls_identity *identity = tls_self_signed(good[i].name, &err);
        assert_non_null(identity);
        assert_string_equal(tls_identity_names(identity), good[i].names);
        assert_int_equal(strlen(tls_identity_sha256(identity)), 64);
        char *pem = tls_identity_pem(identity);
        assert_int_equal(strncmp(pem, "-----BEGIN CERTIFICATE-----\n", 28), 0);
        assert_null(strstr(pem, "PRIVATE"));
        free(pem);
        tls_identity_free(identity);
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_null(tls_self_signed(bad[i], &err));
        assert_non_null(strstr(err.text, "is neither a host name nor an address"));
    }
    memset(long_name, 'x', sizeof long_name);
    long_name[254] = '\0';
    assert_null(tls_self_signed(long_name, &err));
    long_name[253] = '\0';
    struct tls_identity *identity = tls_self_signed(long_name, &err);
    assert_non_null(identity);
    tls_identity_free(identity);
    assert_int_equal(ERR_peek_error(), 0);
}

static void warnings_name_the_file(void *arg, const char *text)
{
    strcat(strcat(arg, text), "|");
}

static void a_bad_date_and_an_open_key_are_warned_of(void **state)
{
    (void)state;
    char said[512] = "", expected[512];
    struct errbuf err = {""};
    make_certificate(&(struct certificate_wish){"old", "old", NULL, "ca", -20, -10, KEY_EC});
    chmod(in_directory("old.key"), 0644);
    const struct tls_certificate c = {.cert_file = in_directory("old.pem"), .key_file = in_directory("old.key")};
    struct tls_options options = with(&c);
    options.warning = warnings_name_the_file;
    options.arg = said;
    tls_context_free(tls_server_new(&options, &err));
    snprintf(expected, sizeof expected, "\"%s\": everyone can read this private key (chmod o-r)|\"%s\": the certificate has expired|",
             c.key_file, c.cert_file);
    assert_string_equal(said, expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOP_TEST(what_is_wrong_with_a_file_is_said),
        LOOP_TEST(a_key_of_another_is_refused),
        LOOP_TEST(what_is_wrong_with_a_setting_is_said),
        LOOP_TEST(lists_of_every_kind_are_good),
        LOOP_TEST(a_pipe_is_waited_for),
        LOOP_TEST(files_of_ticket_keys_are_looked_at),
        LOOP_TEST(names_match_as_wildcards_do),
        LOOP_TEST(names_are_those_of_the_certificate),
        LOOP_TEST(a_certificate_can_be_made_up),
        LOOP_TEST(a_bad_date_and_an_open_key_are_warned_of),
    };
    return cmocka_run_group_tests_name("tls_context", tests, make_directory, remove_directory);
}
