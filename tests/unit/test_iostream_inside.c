/* What streams may be told inside their callbacks, and those of others: everything. */
#include "harness.h"

static const char zeros[KIB(64)];

/* ---- every function inside every callback ---- */

/* Each returns how many callbacks that makes due, one or none, or -1 if it took one back. */
struct act {
    const char *name;
    int (*call)(struct party *, struct party *other);
};

static int accepted(int result)
{
    return result == 0 ? 1 : 0;
}

static char memory[5]; /* more than comes */

static size_t match_c(void *arg, const char *data, size_t length, size_t seen)
{
    const char *c = memchr(data + seen, 'c', length - seen);
    (void)arg;
    return c ? (size_t)(c - data) + 1 : 0;
}

#define ACT(name, expression)                                   \
    static int act_##name(struct party *p, struct party *other) \
    {                                                           \
        struct iostream *s = p->stream, *o = other->stream;     \
        (void)s, (void)o;                                       \
        return expression;                                      \
    }
ACT(finish, (iostream_finish(s), 0))
ACT(close, (iostream_close(s), 0))
ACT(abort, (iostream_abort(s, CLOSE_ERROR), 0))
ACT(stop_reading, (iostream_stop_reading(s), 0))
ACT(write, accepted(iostream_write(s, "abc", 3, on_wrote, p)))
ACT(write_nothing, accepted(iostream_write(s, "", 0, on_wrote, p)))
ACT(write_much, accepted(iostream_write(s, zeros, sizeof zeros, on_wrote, p)))
ACT(read_some, accepted(iostream_read_some(s, 2, on_read, p)))
ACT(read_bytes, accepted(iostream_read_bytes(s, 2, on_read, p)))
ACT(read_nothing, accepted(iostream_read_bytes(s, 0, on_read, p)))
ACT(read_until, accepted(iostream_read_until(s, "c", 1, 2, on_read, p)))
ACT(read_into, accepted(iostream_read_into(s, memory, sizeof memory, false, on_read, p)))
ACT(read_until_match, accepted(iostream_read_until_match(s, match_c, 2, on_read, p)))
ACT(read_until_close, accepted(iostream_read_until_close(s, on_read, p)))
ACT(cancel, s->read.callback ? -accepted(iostream_read_cancel(s)) : (iostream_read_cancel(s), 0))
ACT(discard, (iostream_discard(s), 0))
ACT(relay_to_itself, (iostream_relay(s, s), 0))
ACT(relay_to, o ? (iostream_relay(s, o), 0) : 0)
ACT(relay_from, o ? (iostream_relay(o, s), 0) : 0)
ACT(on_eof, (iostream_on_eof(s, on_eof, p), 0))
ACT(no_on_eof, (iostream_on_eof(s, NULL, NULL), 0))
ACT(watch, (iostream_watch(s), 0))
ACT(timer, (iostream_set_timer(s, TIMER_IDLE, 1000), 0))
ACT(nodelay, (iostream_set_nodelay(s, true), 0))
ACT(finish_other, o ? (iostream_finish(o), 0) : 0)
ACT(close_other, o ? (iostream_close(o), 0) : 0)
ACT(abort_other, o ? (iostream_abort(o, CLOSE_DENIED), 0) : 0)

static int act_look(struct party *p, struct party *other)
{
    struct sockaddr_storage address;
    socklen_t length;
    (void)other;
    assert_ptr_equal(iostream_loop(p->stream), loop);
    assert_true(iostream_seconds(p->stream) >= 0);
    assert_true(iostream_bytes_in(p->stream) + iostream_bytes_out(p->stream) + iostream_write_pending(p->stream) < KIB(1024));
    iostream_peer(p->stream, &length);
    iostream_local(p->stream, &address, &length);
    return 0;
}

enum { ENDERS = 4 }; /* how many of them are first */
static const struct act acts[] = {
    {"nothing", act_look},
    {"finish", act_finish},
    {"close", act_close},
    {"abort", act_abort},
    {"stop_reading", act_stop_reading},
    {"write", act_write},
    {"write_nothing", act_write_nothing},
    {"write_much", act_write_much},
    {"read_some", act_read_some},
    {"read_bytes", act_read_bytes},
    {"read_nothing", act_read_nothing},
    {"read_until", act_read_until},
    {"read_into", act_read_into},
    {"read_until_match", act_read_until_match},
    {"read_until_close", act_read_until_close},
    {"cancel", act_cancel},
    {"discard", act_discard},
    {"relay_to_itself", act_relay_to_itself},
    {"relay_to", act_relay_to},
    {"relay_from", act_relay_from},
    {"on_eof", act_on_eof},
    {"no_on_eof", act_no_on_eof},
    {"watch", act_watch},
    {"timer", act_timer},
    {"nodelay", act_nodelay},
    {"finish_other", act_finish_other},
    {"close_other", act_close_other},
    {"abort_other", act_abort_other},
};

/* Two acts in a row, in the first callback of that name. */
struct play {
    const char *moment;
    const struct act *acts[2];
    struct party *other;
    bool done;
    int due; /* callbacks of reads and writes that were promised */
};

static void perform(struct party *p, const char *word)
{
    struct play *play = p->arg;
    if (play->done || strcmp(word, play->moment) != 0)
        return;
    play->done = true;
    play->due += play->acts[0]->call(p, play->other);
    play->due += play->acts[1]->call(p, play->other);
}

static int count_words(const char *diary, const char *word)
{
    int count = 0;
    for (const char *at = diary; (at = strstr(at, word)); at += strlen(word))
        count++;
    return count;
}

/* A life with every callback in it. However the acts change it: what was promised is told, once, the end once and last. */
static void perform_once(struct play *play)
{
    struct party *p = meet(0), *q = play->other = meet(0);
    p->inside = perform;
    p->arg = play;
    watch_eof(p);
    watch_eof(q);
    play->due = act_write(p, q) + act_read_some(p, q);
    read_some(q, 1);
    far_send(p, "abcd");
    far_send(q, "efgh");
    run_quietly();
    far_finish(p);
    far_finish(q);
    run_quietly();
    if (p->stream)
        iostream_finish(p->stream);
    run_quietly();
    if (p->stream)
        iostream_abort(p->stream, CLOSE_SHUTDOWN);
    run_until(!p->stream);
    assert_true(play->done || strcmp(play->moment, "end") != 0);
    assert_int_equal(count_words(p->diary, "read") + count_words(p->diary, "wrote"), play->due);
    assert_true(count_words(p->diary, "eof") - count_words(p->diary, "read-eof") - count_words(p->diary, "end:eof") <= 1);
    assert_int_equal(count_words(p->diary, "end:"), 1);
    assert_null(strchr(strstr(p->diary, "end:"), ' '));
    dismiss_all();
}

static void every_two_functions_inside_every_callback(void **state)
{
    (void)state;
    static const char *const moments[] = {"read", "wrote", "eof", "end"};
    const size_t seconds = wire == UNIX ? COUNT(acts) : ENDERS; /* all pairs where it is cheapest */
    for (size_t m = 0; m < COUNT(moments); m++) {
        for (size_t i = 0; i < COUNT(acts) * seconds; i++) {
            struct play play = {.moment = moments[m], .acts = {&acts[i / seconds], &acts[i % seconds]}};
            perform_once(&play);
        }
    }
}

/* ---- one stream's end in the hands of another ---- */

static void end_the_other(struct party *p, const char *word)
{
    struct party *other = p->arg;
    (void)word;
    other->inside = NULL;
    iostream_abort(other->stream, CLOSE_DENIED);
}

/* Both have something to tell in the same turn of the loop; whichever comes first ends the other. */
static void one_may_end_the_other_in_its_callback(void **state)
{
    (void)state;
    struct party *p = meet(0), *q = meet(0);
    p->inside = q->inside = end_the_other;
    p->arg = q;
    q->arg = p;
    far_send(p, "hello");
    far_send(q, "hello");
    read_some(p, 10);
    read_some(q, 10);
    run_until(!p->stream || !q->stream);
    struct party *first = p->stream ? p : q, *second = p->stream ? q : p;
    expect(first, "read:hello");
    expect(second, "read-closed end:denied");
}

static void abort_when_written(struct party *p, const char *word)
{
    if (strcmp(word, "wrote") == 0)
        iostream_abort(p->stream, CLOSE_ERROR);
}

/* A read that was satisfied, and whose turn comes after the end. */
static void after_the_end_no_read_succeeds(void **state)
{
    (void)state;
    struct party *p = meet(0);
    watch_eof(p);
    far_send(p, "read ahead");
    run_quietly();
    p->inside = abort_when_written;
    write_text(p, "x");
    read_some(p, 100);
    expect(p, "wrote read-closed end:error");
}

static void answer_and_close(struct party *p, const char *word)
{
    if (strcmp(word, "read") == 0) {
        write_text(p, "400 too long\n");
        iostream_close(p->stream);
    }
}

static void who_goes_over_a_limit_may_be_told(void **state)
{
    (void)state;
    struct party *p = meet(0);
    p->inside = answer_and_close;
    far_send(p, "a line that is far too long\n");
    read_until(p, "\n", 10);
    far_receive(p, "400 too long\n");
    far_receive_end(p);
    far_close(p);
    expect(p, "read-limit wrote end:finished");
}

static void on_close_counted(struct iostream *s, void *arg)
{
    (void)s;
    ++*(int *)arg;
}

static void a_later_on_close_replaces_the_earlier_one(void **state)
{
    (void)state;
    struct errbuf err;
    struct ends near, far;
    int first = 0, second = 0;
    connect_ends(TCP, &near, &far);
    struct iostream *s = iostream_new(loop, near.in, near.out, NULL, &err);
    iostream_on_close(s, on_close_counted, &first);
    iostream_on_close(s, on_close_counted, &second);
    iostream_abort(s, CLOSE_ERROR);
    assert_int_equal(second, 0);
    run_until(second > 0);
    run_quietly();
    assert_int_equal(first, 0);
    assert_int_equal(second, 1);
    close(far.in);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        STREAM_TEST(every_two_functions_inside_every_callback),
        STREAM_TEST(one_may_end_the_other_in_its_callback),
        STREAM_TEST(after_the_end_no_read_succeeds),
        STREAM_TEST(who_goes_over_a_limit_may_be_told),
        LOOP_TEST(a_later_on_close_replaces_the_earlier_one),
    };
    return cmocka_run_group_tests_name("iostream_inside", tests, NULL, NULL);
}
