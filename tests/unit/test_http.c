/* test_http.c - the head of a request: what is understood, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../cmd/http.h"

static struct http_request request;

static int parse(const char *head)
{
    return http_parse(&request, head, strlen(head));
}

static void target_and_host_are_found(void **state)
{
    (void)state;
    static const struct {
        const char *head, *path, *host;
    } rows[] = {
        {"GET / HTTP/1.0\r\n\r\n", "/", ""},
        {"GET /metrics?x=/y?z HTTP/1.1\r\nHost: LocalHost:80\r\n\r\n", "/metrics", "localhost"},
        {"GET /a HTTP/1.1\r\nA:b\r\nhOST:\t [2001:DB8::1]:8 \t\r\n\r\n", "/a", "2001:db8::1"},
        {"GET /a HTTP/1.1\r\nHost: [::1]\r\nEmpty:\r\n\r\n", "/a", "::1"},
        {"GET HTTP://one/b HTTP/1.1\r\nHost: two\r\n\r\n", "/b", "one"},
        {"GET http://one:81/ HTTP/1.0\r\n\r\n", "/", "one"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(parse(rows[i].head), HTTP_OK);
        assert_string_equal(request.path, rows[i].path);
        assert_string_equal(request.host, rows[i].host);
        assert_false(request.head_only);
    }
    assert_int_equal(parse("HEAD / HTTP/1.0\r\n\r\n"), HTTP_OK);
    assert_true(request.head_only);
}

static void a_path_is_cut_nowhere(void **state)
{
    (void)state;
    char head[256];
    snprintf(head, sizeof head, "GET /%0*d HTTP/1.0\r\n\r\n", HTTP_PATH_BYTES - 2, 0);
    assert_int_equal(parse(head), HTTP_OK);
    assert_int_equal(strlen(request.path), HTTP_PATH_BYTES - 1);
    snprintf(head, sizeof head, "GET /%0*d HTTP/1.0\r\n\r\n", HTTP_PATH_BYTES - 1, 0); /* one more */
    assert_int_equal(parse(head), HTTP_OK);
    assert_string_equal(request.path, "");
}

static void connections_are_kept_as_was_agreed(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        bool keep;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nHost: a\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: a\r\nconnection: upgrade , CLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: closed,keep\r\n\r\n", true},
        {"POST / HTTP/1.1\r\nHost: a\r\n\r\n", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        parse(rows[i].head);
        assert_int_equal(request.keep_alive, rows[i].keep);
    }
}

static void what_is_wrong_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *head;
        int status;
    } rows[] = {
        {"", HTTP_BAD_REQUEST},
        {"\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: :80\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nA b\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET * HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET /\x80 HTTP/1.0\r\n\r\n", HTTP_BAD_REQUEST},
        {"GET / HTTP/1.2\r\nHost: a\r\n\r\n", HTTP_VERSION_NOT_SUPPORTED},
        {"DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", HTTP_METHOD_NOT_ALLOWED},
        {"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", HTTP_OK},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(parse(rows[i].head), rows[i].status);
    assert_int_equal(http_parse(&request, "GET / HTTP/1.0\r\nA: \0\r\n\r\n", 23), HTTP_BAD_REQUEST);
}

static void hosts_are_ours_or_not(void **state)
{
    (void)state;
    static const char *const ours[] = {"localhost", "127.0.0.1", "::1", "192.0.2.1", "2001:db8::7", "box.example"};
    static const char *const others[] = {"", "evil", "box.example.evil", "127.0.0.1.evil", "127.1", "localhost.", "::1.evil"};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        assert_true(http_host_is_ours(ours[i], "Box.Example"));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(http_host_is_ours(others[i], "box.example"));
    assert_false(http_host_is_ours("box.example", NULL));
}

static void every_status_has_its_words(void **state)
{
    (void)state;
    assert_string_equal(http_phrase(HTTP_OK), "OK");
    assert_string_equal(http_phrase(HTTP_FAILED), "Internal Server Error");
    assert_string_equal(http_phrase(HTTP_BAD_REQUEST), "Bad Request");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(target_and_host_are_found),
        cmocka_unit_test(a_path_is_cut_nowhere),
        cmocka_unit_test(connections_are_kept_as_was_agreed),
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(hosts_are_ours_or_not),
        cmocka_unit_test(every_status_has_its_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
