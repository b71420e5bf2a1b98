/* world.c - streams among chance, and the model that judges them. */
#include "world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 120, MAX_MARKS = 512, LONGEST_WRITE = 60, TURNS_UNTIL_STUCK = 3000 };

/* What the user of one stream has done, and so may expect. */
struct user {
    struct peer peer;
    struct iostream *stream; /* NULL after on_close */
    size_t max_buffer_bytes;

    /* Reading. */
    enum read_kind reading; /* what was asked for last and has not been answered */
    size_t count;
    char delimiter[3];
    size_t delimiter_length;
    uint64_t delivered; /* how many of the peer's bytes were handed out, dropped or relayed */
    bool dropped;       /* some were dropped: close, or discard */
    bool eof_told, wants_eof, owed_eof;

    /* Writing. */
    uint64_t queued; /* accepted by iostream_write */
    struct user *fed_by;
    uint64_t fed_at, fed_from; /* where its bytes begin here, and in what it reads */
    bool fed_all;              /* to its EOF */
    uint64_t marks[MAX_MARKS]; /* positions whose callback is due */
    unsigned first_mark, last_mark;

    /* The end. */
    bool finished, closed, joined;
    enum close_reason aborted;
    double seconds[IOSTREAM_TIMERS], since[IOSTREAM_TIMERS];
    bool timed; /* one of them was set */
    double close_began, handshake_seconds;
};

static struct ev_loop *loop;
static struct engine *engine;
static struct choices *chance;
static struct user users[WORLD_STREAMS];
static int user_count;
static bool in_call, in_callback, ending;

static void act(void);

/* ---- what the model knows ---- */

static char expected_byte(struct peer *p, uint64_t offset)
{
    struct user *u = container_of(p, struct user, peer);
    if (offset < u->queued)
        return random_peer_byte(p->number + 32, offset);
    must(u->fed_by != NULL && offset >= u->fed_at);
    return random_peer_byte(u->fed_by->peer.number, u->fed_from + offset - u->fed_at);
}

static bool is_open(const struct user *u)
{
    return u->stream && iostream_reason(u->stream) == CLOSE_NONE;
}

/* A discard or a relay takes all that is read, up to EOF. */
static void keep_up(struct user *u)
{
    if (u->reading != DISCARD && u->reading != RELAY)
        return;
    u->delivered = u->peer.read;
    if (u->peer.eof_read)
        u->reading = NO_READ;
}

/* The end of the first match among the bytes that were read; 0: none. */
static size_t find_match(const struct user *u)
{
    size_t have = (size_t)(u->peer.read - u->delivered), same;
    for (size_t start = 0; start + u->delimiter_length <= have; start++) {
        for (same = 0; same < u->delimiter_length; same++) {
            if (random_peer_byte(u->peer.number, u->delivered + start + same) != u->delimiter[same])
                break;
        }
        if (same == u->delimiter_length)
            return start + same;
    }
    return 0;
}

static void must_be_satisfied(const struct user *u, size_t length)
{
    size_t have = (size_t)(u->peer.read - u->delivered);
    must(length <= have);
    if (u->reading == SOME)
        must(length > 0 && length <= u->count);
    else if (u->reading == BYTES)
        must(length == u->count);
    else if (u->reading == UNTIL)
        must(length > 0 && length == find_match(u) && length <= u->count);
    else
        must(u->reading == UNTIL_CLOSE && u->peer.eof_read && length == have);
}

static void must_be_beyond(const struct user *u)
{
    size_t have = (size_t)(u->peer.read - u->delivered), match = find_match(u);
    if (u->reading == UNTIL)
        must(match ? match > u->count : have > u->count);
    else
        must(have > u->max_buffer_bytes && (u->reading == UNTIL_CLOSE || (u->reading == BYTES && u->count > have)));
}

static void must_be_cut_short(const struct user *u)
{
    size_t have = (size_t)(u->peer.read - u->delivered);
    must(u->peer.eof_read);
    must(u->reading != UNTIL_CLOSE);
    must(u->reading != SOME || have == 0);
    must(u->reading != BYTES || have < u->count);
    must(u->reading != UNTIL || !find_match(u));
}

/* ---- callbacks ---- */

static struct user *callback_begins(struct iostream *s, void *arg)
{
    struct user *u = arg;
    keep_up(u);
    must(!in_call);       /* never inside the call that asked for it */
    must(!in_callback);   /* nor inside another */
    must(u->stream == s); /* nor after on_close */
    in_callback = true;
    return u;
}

static void callback_acts(void)
{
    while (!ending && one_in(chance, 3))
        act();
    in_callback = false;
}

static void on_read(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    struct user *u = callback_begins(s, arg);
    trace("  %d: read ends: %d, %zu bytes", u->peer.number, status, length);
    must(u->reading != NO_READ);
    must(status == READ_OK || length == 0);
    if (status == READ_OK)
        must_be_satisfied(u, length);
    else if (status == READ_LIMIT)
        must_be_beyond(u);
    else if (status == READ_EOF)
        must_be_cut_short(u);
    else
        must(!is_open(u) || u->closed || u->joined);
    for (size_t i = 0; i < length; i++)
        must(data[i] == random_peer_byte(u->peer.number, u->delivered + i));
    u->delivered += length;
    u->reading = NO_READ;
    if (status == READ_LIMIT)
        u->aborted = u->aborted ? u->aborted : CLOSE_LIMIT;
    callback_acts();
}

static void on_wrote(struct iostream *s, void *arg, int error)
{
    struct user *u = callback_begins(s, arg);
    must(u->first_mark < u->last_mark);
    uint64_t position = u->marks[u->first_mark++];
    trace("  %d: written: %d", u->peer.number, error);
    if (error == 0)
        must(position <= u->peer.written);
    else
        must(!is_open(u) && position > u->peer.written);
    callback_acts();
}

static void on_eof(struct iostream *s, void *arg)
{
    struct user *u = callback_begins(s, arg);
    trace("  %d: eof", u->peer.number);
    must(u->wants_eof && !u->eof_told);
    must(u->peer.eof_read || u->closed || u->joined);
    must(u->delivered == u->peer.read || u->dropped || u->fed_by != NULL || u->joined || u->closed);
    u->eof_told = true;
    callback_acts();
}

static bool is_orderly(enum close_reason reason)
{
    return reason == CLOSE_EOF || reason == CLOSE_FINISHED;
}

/* How many of its bytes a stream was given by the one that is relayed to it. */
static uint64_t fed_bytes(const struct user *u)
{
    return u->fed_by && u->fed_all ? u->fed_by->peer.read - u->fed_from : 0;
}

static double latest(double a, double b)
{
    return a > b ? a : b;
}

static void must_have_a_reason(const struct user *u, enum close_reason reason, int error)
{
    must(reason != CLOSE_NONE);
    if (is_orderly(reason)) {
        must(u->peer.shut || (u->peer.eof_read && u->peer.error)); /* who has ended need not hear that we have */
        must(!u->peer.reset_sent);
        must(u->peer.written >= u->queued + fed_bytes(u)); /* nothing that was promised is missing */
        must(reason != CLOSE_EOF || u->peer.eof_read || u->closed || u->joined);
        must(u->finished || u->closed || u->joined); /* nothing ends by itself */
    }
    if (u->joined) /* it may be the other's reason */
        return;
    must(reason != CLOSE_TIMEOUT || u->timed || (u->peer.greeting && u->handshake_seconds > 0) ||
         (u->closed && !u->peer.shut && world_now() - latest(u->close_began, u->peer.moved_out) >= 30));
    must(reason != CLOSE_RESET || u->peer.error == ECONNRESET);
    must(reason != CLOSE_ERROR || (u->peer.error && error == u->peer.error));
    must(is_orderly(reason) || reason == CLOSE_TIMEOUT || reason == CLOSE_RESET || reason == CLOSE_ERROR || reason == u->aborted ||
         (reason == CLOSE_TLS && u->peer.greeting));
}

static void on_close(struct iostream *s, void *arg)
{
    struct user *u = callback_begins(s, arg);
    trace("  %d: end: %s", u->peer.number, close_reason_name(iostream_reason(s)));
    must(u->peer.freed);
    must(u->reading == NO_READ || u->reading == DISCARD || u->reading == RELAY); /* every read was answered, every write too */
    must(u->first_mark == u->last_mark);
    must(iostream_bytes_in(s) == u->peer.read && iostream_bytes_out(s) == u->peer.written);
    must(iostream_reason(s) != CLOSE_EOF || !u->owed_eof || u->eof_told);
    must_have_a_reason(u, iostream_reason(s), iostream_error(s));
    callback_acts();
    u->stream = NULL;
}

/* ---- the user's calls ---- */

static bool is_over(const struct user *u)
{
    return !is_open(u) || u->closed || u->joined || u->finished;
}

static bool calls(int result, const struct user *u)
{
    in_call = false;
    int error = result == 0 ? 0 : errno;
    trace("  %d: -> %d (%d)", u->peer.number, result, error);
    if (error == EPIPE)
        must(is_over(u));
    return result == 0;
}

static void read_something(struct user *u)
{
    size_t count = choose(chance, 2) ? 1 + choose(chance, 30) : 1 + choose(chance, 2 * (unsigned)u->max_buffer_bytes);
    char delimiter[sizeof u->delimiter];
    size_t length = 1 + choose(chance, sizeof delimiter);
    static const enum read_kind kinds[] = {SOME, BYTES, UNTIL, UNTIL_CLOSE, DISCARD};
    enum read_kind kind = kinds[choose(chance, sizeof kinds / sizeof *kinds)];
    int result;

    keep_up(u);
    for (size_t i = 0; i < length; i++)
        delimiter[i] = random_peer_byte(0, choose(chance, 200));
    trace("%d: read %d, %zu", u->peer.number, kind, count);
    in_call = !in_callback;
    if (kind == SOME)
        result = iostream_read_some(u->stream, count, on_read, u);
    else if (kind == BYTES)
        result = iostream_read_bytes(u->stream, count, on_read, u);
    else if (kind == UNTIL)
        result = iostream_read_until(u->stream, delimiter, length, count, on_read, u);
    else if (kind == UNTIL_CLOSE)
        result = iostream_read_until_close(u->stream, on_read, u);
    else
        result = iostream_discard(u->stream);
    if (!calls(result, u)) {
        must(errno != EBUSY || u->reading != NO_READ || u->joined);
        return;
    }
    must(is_open(u) && !u->closed && u->reading == NO_READ);
    u->reading = kind;
    u->count = kind == UNTIL && count > u->max_buffer_bytes ? u->max_buffer_bytes : count;
    memcpy(u->delimiter, delimiter, length);
    u->delimiter_length = length;
    u->dropped |= kind == DISCARD;
}

static void cancel(struct user *u)
{
    keep_up(u);
    trace("%d: cancel", u->peer.number);
    if (iostream_read_cancel(u->stream) != 0) {
        must(errno == ENOENT);
        return;
    }
    must(u->reading != NO_READ || u->joined); /* a stream whose relay ended discards */
    u->reading = NO_READ;
}

static void write_something(struct user *u)
{
    char bytes[LONGEST_WRITE];
    size_t length = choose(chance, LONGEST_WRITE), pending = iostream_write_pending(u->stream);
    bool marked = choose(chance, 2) && u->last_mark < MAX_MARKS;
    for (size_t i = 0; i < length; i++)
        bytes[i] = random_peer_byte(u->peer.number + 32, u->queued + i);
    trace("%d: write %zu", u->peer.number, length);
    in_call = !in_callback;
    u->queued += length; /* some may go through at once */
    if (marked)
        u->marks[u->last_mark++] = u->queued;
    if (calls(iostream_write(u->stream, bytes, length, marked ? on_wrote : NULL, u), u))
        return;
    u->queued -= length;
    u->last_mark -= marked;
    must(errno == EPIPE || (errno == ENOBUFS && pending + length > u->max_buffer_bytes));
}

static void close_stream(struct user *u)
{
    if (!u->closed)
        u->close_began = world_now();
    u->closed = u->dropped = true;
    iostream_close(u->stream);
}

static void end_somehow(struct user *u)
{
    in_call = !in_callback;
    switch (choose(chance, 6)) {
    default:
        trace("%d: finish", u->peer.number);
        u->finished = true;
        iostream_finish(u->stream);
        break;
    case 1:
        trace("%d: close", u->peer.number);
        close_stream(u);
        break;
    case 2:
        trace("%d: abort", u->peer.number);
        if (is_open(u))
            u->aborted = CLOSE_SHUTDOWN;
        iostream_abort(u->stream, CLOSE_SHUTDOWN);
        break;
    }
    in_call = false;
}

static void join(struct user *from, struct user *to)
{
    keep_up(from);
    bool fresh = from->reading == NO_READ;
    trace("%d: relay to %d", from->peer.number, to->peer.number);
    struct user before = *to;
    if (!to->fed_by) { /* bytes go through at once */
        to->fed_by = from;
        to->fed_at = to->queued;
        to->fed_from = from->delivered;
    }
    in_call = !in_callback;
    if (!calls(iostream_relay(from->stream, to->stream), is_over(to) ? to : from)) {
        to->fed_by = before.fed_by;
        return;
    }
    must(fresh || from->joined);
    must(!before.fed_by && !before.finished && !before.closed);
    from->reading = RELAY;
    from->joined = to->joined = true;
}

static void set_timer(struct user *u)
{
    static const double lengths[] = {0, 0.5, 3, 20};
    enum iostream_timer which = choose(chance, IOSTREAM_TIMERS);
    double seconds = lengths[choose(chance, 4)];
    trace("%d: timer %d: %g s", u->peer.number, which, seconds);
    u->seconds[which] = seconds;
    u->since[which] = world_now();
    u->timed |= seconds > 0;
    must(iostream_set_timer(u->stream, which, seconds) == 0);
}

static void act_on(struct user *u)
{
    switch (choose(chance, 16)) {
    case 0:
        end_somehow(u);
        break;
    case 1:
        cancel(u);
        break;
    case 2:
        set_timer(u);
        break;
    case 3: {
        struct user *to = &users[choose(chance, (unsigned)user_count)];
        if (to->stream && one_in(chance, 2))
            join(u, to);
        break;
    }
    case 4:
        trace("%d: on eof", u->peer.number);
        u->wants_eof = true;
        u->owed_eof |= is_open(u);
        iostream_on_eof(u->stream, on_eof, u);
        break;
    case 5:
        iostream_watch(u->stream);
        break;
    default:
        if (choose(chance, 2))
            read_something(u);
        else
            write_something(u);
    }
}

static void act(void)
{
    struct user *u = &users[choose(chance, (unsigned)user_count)];
    if (u->stream)
        act_on(u);
}

/* ---- what else happens ---- */

static void peer_acts(struct peer *p)
{
    unsigned n = 1 + choose(chance, one_in(chance, 8) ? 400 : 40);
    trace("%d: peer %u", p->number, n);
    switch (choose(chance, 8)) {
    case 0:
        p->finished = true;
        break;
    case 1:
        if (!p->error && one_in(chance, 6))
            p->error = one_in(chance, 4) ? EIO : ECONNRESET;
        break;
    case 2:
        p->answered = true;
        break;
    case 3:
    case 4:
        p->window += n;
        break;
    default:
        p->sent += p->finished || p->error || p->rounds > 0 ? 0 : n;
    }
}

static void report(struct peer *p)
{
    int events = p->freed ? 0 : random_peer_ready(p);
    if ((events & EV_READ) && (events & EV_WRITE) && one_in(chance, 2))
        events = EV_READ; /* libev has a watcher for each */
    if (events) {
        trace("%d: ready: %d", p->number, events);
        ev_now_update(loop); /* as the loop does before it calls */
        transport_ready(&p->base, events);
    }
}

static void turn(void)
{
    ev_run(loop, EVRUN_NOWAIT);
}

static void must_not_last(double since, double seconds)
{
    must(seconds == 0 || world_now() - since < seconds * (1 + 1.0 / 64) + 0.1); /* idle time is looked at so exactly */
}

/* What should be over by now is over. */
static void must_be_in_time(const struct user *u)
{
    const struct peer *p = &u->peer;
    must_not_last(latest(p->moved, u->since[TIMER_IDLE]), u->seconds[TIMER_IDLE]);
    must_not_last(u->since[TIMER_LIFETIME], u->seconds[TIMER_LIFETIME]);
    if (p->shut != p->eof_read)
        must_not_last(latest(latest(p->moved, p->ended), u->since[TIMER_HALF_CLOSE]), u->seconds[TIMER_HALF_CLOSE]);
    if (u->closed)
        must_not_last(latest(u->close_began, p->shut ? p->ended : p->moved_out), p->shut ? 2 : 30);
}

static void turns(void)
{
    for (int i = 0; i < 4; i++) {
        world_sleep(0.001); /* libev's timers are late by an instant */
        turn();
    }
}

/* The longest that an idle or half-close timer, which has found that bytes moved, waits before it looks again. */
static double second_look(void)
{
    double longest = 0;
    for (int i = 0; i < user_count; i++)
        longest = latest(longest, latest(users[i].seconds[TIMER_IDLE], users[i].seconds[TIMER_HALF_CLOSE]));
    return longest / 64;
}

static void time_passes(double seconds)
{
    trace("%g s pass", seconds);
    world_sleep(seconds);
    turns();
    world_sleep(second_look());
    turns();
    for (int i = 0; i < user_count; i++) {
        if (is_open(&users[i]))
            must_be_in_time(&users[i]);
    }
}

/* From here on a relay owes all that it has read, whoever closes what in order. */
static void note_feeding(void)
{
    for (int i = 0; i < user_count; i++) {
        struct user *to = &users[i], *from = to->fed_by;
        if (from && from->peer.eof_read && !to->fed_all && !to->finished && !to->closed && from->stream && !from->stream->dropping &&
            !from->dropped)
            to->fed_all = true;
    }
}

static void step(void)
{
    struct user *u = &users[choose(chance, (unsigned)user_count)];
    switch (choose(chance, 8)) {
    case 0:
    case 1:
        peer_acts(&u->peer);
        break;
    case 2:
    case 3:
        report(&u->peer);
        break;
    case 4:
        turn();
        break;
    case 5:
        if (one_in(chance, 4))
            time_passes(1 << choose(chance, 5));
        break;
    default:
        act();
    }
    note_feeding();
}

/* ---- the end ---- */

static bool all_ended(void)
{
    for (int i = 0; i < user_count; i++) {
        if (users[i].stream)
            return false;
    }
    return true;
}

/* Everything that can happen without time passing. */
static void settle(void)
{
    bool busy = true;
    int turns = 0;
    while (busy && !all_ended()) {
        must(turns++ < TURNS_UNTIL_STUCK);
        busy = !TAILQ_EMPTY(&engine->queue);
        for (int i = 0; i < user_count; i++) {
            busy |= !users[i].peer.freed && random_peer_ready(&users[i].peer);
            report(&users[i].peer);
        }
        turn();
        note_feeding();
    }
}

/* No wake-up may get lost: what can be answered is. */
static void must_be_waiting(const struct user *u)
{
    uint64_t there = u->peer.sent - u->delivered;
    if (!is_open(u) || u->peer.greeting)
        return;
    must(u->reading != SOME || there == 0);
    must(u->reading != BYTES || there < u->count);
    must(iostream_write_pending(u->stream) == 0 && u->first_mark == u->last_mark);
    if (u->peer.finished && u->peer.read == u->peer.sent)
        must(u->reading < SOME || u->reading > UNTIL_CLOSE);
}

/* The peers take everything, and then send no more. */
static void let_peers_finish(void)
{
    for (int round = 0; round < 4; round++) { /* of a handshake, in which nothing was sent yet */
        for (int i = 0; i < user_count; i++) {
            users[i].peer.answered = true;
            users[i].peer.window = FOREVER;
            users[i].peer.finished |= round == 3;
        }
        settle();
        for (int i = 0; i < user_count; i++)
            must_be_waiting(&users[i]);
    }
}

/* Every stream is read to its end and finished, which ends it; or closed. */
static void let_users_finish(void)
{
    for (int i = 0; i < user_count; i++) {
        struct user *u = &users[i];
        if (!is_open(u))
            continue;
        trace("%d: the last words", u->peer.number);
        bool closes = one_in(chance, 2) || u->reading == RELAY;
        if (!closes && iostream_discard(u->stream) == 0)
            u->reading = DISCARD;
        u->finished = u->dropped = true;
        iostream_finish(u->stream);
        if (closes) {
            close_stream(u);
        }
    }
    settle();
    must(all_ended());
}

/* ---- one schedule ---- */

static void on_open(struct iostream *s, void *arg)
{
    must(((struct user *)arg)->stream == s && iostream_reason(s) == CLOSE_NONE);
}

static void make_user(int number)
{
    struct user *u = &users[number];
    *u = (struct user){.max_buffer_bytes = 1 + choose(chance, 200)};
    const struct iostream_options options = {.max_buffer_bytes = u->max_buffer_bytes, .flags = choose(chance, 2) ? TRANSPORT_SOCKET : 0};
    random_peer_init(&u->peer, number, chance, one_in(chance, 2));
    u->peer.expected = expected_byte;
    u->stream = iostream_over(engine, &u->peer.base, &options);
    must(u->stream != NULL);
    iostream_on_close(u->stream, on_close, u);
    u->handshake_seconds = choose(chance, 2) ? 0 : 10;
    iostream_start(u->stream, u->handshake_seconds, on_open, u);
}

void world_run(struct choices *choices, int streams)
{
    chance = choices;
    user_count = streams;
    in_call = in_callback = ending = false;
    for (int i = 0; i < user_count; i++)
        make_user(i);
    for (int i = 0; i < MAX_STEPS && !all_ended() && (!choices->data || choices->left); i++)
        step();
    ending = true;
    let_peers_finish();
    let_users_finish();
    must(engine->users == 1);
    must(TAILQ_EMPTY(&engine->queue));
}

void world_begin(void)
{
    struct errbuf err;
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    engine = engine_get(loop, &err);
    must(engine != NULL);
}

void world_end(void)
{
    engine_put(engine);
    ev_loop_destroy(loop);
}
