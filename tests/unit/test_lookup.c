/* test_lookup.c - how long an answer about a target's name is used, and what happens when there is no new one. */
#include <errno.h>
#include <stdlib.h>

#include "name_server.h"
#include "valgrind.h"

static struct name_server server;
static struct target *target;

static int begin(void **state)
{
    struct errbuf err;
    if (set_up(state) != 0)
        return -1;
    name_server_start(&server);
    server.moving = "127.0.0.1";
    target = target_parse("moving.test:80", &err);
    return target ? 0 : -1;
}

static int end(void **state)
{
    target_free(target);
    name_server_stop(&server);
    return tear_down(state);
}

#define LOOKUP_TEST(function) cmocka_unit_test_setup_teardown(function, begin, end)

struct result {
    struct lookup *lookup;
    unsigned calls;
    char text[ADDRESS_TEXT]; /* the first address, or why there is none */
};

static void on_result(void *arg, struct address_list *list, const char *why)
{
    struct result *r = arg;
    r->calls++;
    assert_true(!list != !why);
    if (list)
        address_text(&list->items[0].any, list->items[0].length, r->text, sizeof r->text);
    else
        snprintf(r->text, sizeof r->text, "%s", why);
    free(list);
}

static void ask(struct result *r)
{
    *r = (struct result){.calls = 0};
    r->lookup = lookup_start(engine, target, 5, on_result, r);
    assert_non_null(r->lookup);
    assert_int_equal(r->calls, 0); /* never inside the call */
}

static void wait_for(struct result *r)
{
    while (r->calls == 0)
        ev_run(loop, EVRUN_ONCE);
    assert_int_equal(r->calls, 1);
}

static const char *asked(void)
{
    static struct result r;
    ask(&r);
    wait_for(&r);
    return r.text;
}

static double fresh_seconds(void)
{
    return target->fresh_until - engine_now(engine);
}

static const char *known_at(double now)
{
    static char text[ADDRESS_TEXT];
    struct address_list *list = lookup_known(target, now);
    if (!list)
        return "";
    address_text(&list->items[0].any, list->items[0].length, text, sizeof text);
    free(list);
    return text;
}

static void test_fresh_as_long_as_it_says(void **state)
{
    (void)state;
    double now = engine_now(engine);
    assert_string_equal(known_at(now), "");
    server.ttl = 30;
    assert_string_equal(asked(), "127.0.0.1:80");
    assert_string_equal(known_at(now + 29), "127.0.0.1:80");
    assert_string_equal(known_at(now + 35), "");
}

static void test_bounds(void **state)
{
    (void)state;
    server.ttl = 0;
    asked();
    assert_true(fresh_seconds() > 0.5 && fresh_seconds() <= 1);
}

static void test_new_answer(void **state)
{
    (void)state;
    asked();
    server.moving = "127.0.0.9";
    assert_string_equal(asked(), "127.0.0.9:80");
    assert_string_equal(known_at(engine_now(engine)), "127.0.0.9:80");
}

/* The server says it has failed, or nothing at all: the old answer is used, and for a while not questioned. */
static void test_old_answer_is_kept(void **state)
{
    (void)state;
    asked();
    server.moving = NULL;
    assert_string_equal(asked(), "127.0.0.1:80");
    assert_true(fresh_seconds() > 8 && fresh_seconds() <= 10);

    ev_io_stop(loop, &server.io);
    ev_tstamp start = ev_time();
    assert_string_equal(asked(), "127.0.0.1:80");
    assert_true(ev_time() - start < 4); /* and not 5 s, with which it was asked */
    ev_io_start(loop, &server.io);
    server.moving = "127.0.0.2";
    assert_string_equal(asked(), "127.0.0.2:80");
}

static void test_no_answer_at_all(void **state)
{
    (void)state;
    server.moving = NULL;
    assert_non_null(strstr(asked(), "resolve moving.test: "));
    assert_string_equal(known_at(engine_now(engine)), "");
    server.moving = "127.0.0.3"; /* and asked again by the next one */
    assert_string_equal(asked(), "127.0.0.3:80");
}

/* However many wait, it is one question (for each family). */
static void test_asked_once(void **state)
{
    (void)state;
    struct result many[20];
    for (size_t i = 0; i < COUNT(many); i++)
        ask(&many[i]);
    for (size_t i = 0; i < COUNT(many); i++) {
        wait_for(&many[i]);
        assert_string_equal(many[i].text, "127.0.0.1:80");
    }
    assert_int_equal(server.queries, 2);
}

static void test_doubt(void **state)
{
    (void)state;
    asked();
    assert_true(fresh_seconds() > 50);
    lookup_doubt(target);
    assert_true(fresh_seconds() <= 1); /* but not at once, lest every failed connection ask */
}

static void test_cancel(void **state)
{
    (void)state;
    struct result one, two;
    ask(&one);
    ask(&two);
    lookup_cancel(one.lookup);
    wait_for(&two);
    assert_int_equal(one.calls, 0);

    ask(&one);
    ask(&two);
    lookup_cancel(one.lookup);
    lookup_cancel(two.lookup);
    assert_null(target->resolving);
    ev_run(loop, EVRUN_NOWAIT);
    assert_int_equal(one.calls + two.calls, 0);
}

/* Both are about to be told; the first one's callback cancels the second. */
static struct result second;

static void on_first(void *arg, struct address_list *list, const char *why)
{
    on_result(arg, list, why);
    lookup_cancel(second.lookup);
}

static void test_cancel_from_a_callback(void **state)
{
    (void)state;
    struct result first = {.calls = 0};
    ask(&second);
    first.lookup = lookup_start(engine, target, 5, on_first, &first); /* it is told first */
    wait_for(&first);
    ev_run(loop, EVRUN_NOWAIT);
    assert_int_equal(second.calls, 0);
}

/* ---- seen from outside */

struct outcome {
    unsigned calls;
    bool connected;
};

static void on_connected(struct iostream *stream, void *arg, const char *why)
{
    (void)why;
    struct outcome *o = arg;
    o->calls++;
    o->connected = stream != NULL;
    if (stream)
        iostream_abort(stream, CLOSE_FINISHED);
}

static bool connects(struct target *t)
{
    struct outcome o = {.calls = 0};
    assert_non_null(iostream_connect(loop, t, NULL, on_connected, &o));
    while (o.calls == 0)
        ev_run(loop, EVRUN_ONCE);
    return o.connected;
}

static void test_connecting(void **state)
{
    (void)state;
    struct errbuf err;
    char text[64];
    struct address a = inet("127.0.0.2", 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, &a.any, a.length), 0);
    assert_int_equal(listen(fd, 5), 0);
    snprintf(text, sizeof text, "moving.test:%u", port_of(fd));
    struct target *t = target_parse(text, &err);

    server.moving = "127.0.0.2";
    assert_true(connects(t));
    assert_true(connects(t));
    assert_int_equal(server.queries, 2);
    assert_true(t->fresh_until - engine_now(engine) > 50);

    t->fresh_until = 0; /* time passes, and it moves to where nobody listens */
    server.moving = "127.0.0.3";
    assert_false(connects(t));
    assert_true(t->fresh_until - engine_now(engine) <= 1); /* such an answer is not relied on */

    t->fresh_until = 0;
    server.moving = "127.0.0.2";
    assert_true(connects(t));
    target_free(t);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        LOOKUP_TEST(test_fresh_as_long_as_it_says),
        LOOKUP_TEST(test_bounds),
        LOOKUP_TEST(test_new_answer),
        LOOKUP_TEST(test_old_answer_is_kept),
        LOOKUP_TEST(test_no_answer_at_all),
        LOOKUP_TEST(test_asked_once),
        LOOKUP_TEST(test_doubt),
        LOOKUP_TEST(test_cancel),
        LOOKUP_TEST(test_cancel_from_a_callback),
        LOOKUP_TEST(test_connecting),
    };
    limit_time(30);
    return cmocka_run_group_tests_name("lookup", tests, NULL, NULL);
}
