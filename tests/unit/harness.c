/* harness.c - what the tests of streams share. */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

enum { MAX_PARTIES = 64, QUIET_TURNS = 20, SAFETY_SECONDS = 120 };
static const double TICK_SECONDS = 0.005, PATIENCE_SECONDS = 30;

struct ev_loop *loop;
struct engine *engine;
enum wire wire;
void (*at_tear_down)(void);

static struct party parties[MAX_PARTIES];
static size_t party_count;
static int descriptors;
static ev_timer watchdog;
static double deadline;
static bool in_callback;

/* ---- time: the loop's clock is ours ---- */

static time_t later, day_ahead; /* seconds that have passed for all, and those that only the time of day has jumped */

int clock_gettime(clockid_t id, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, id, t);
    bool of_the_day = id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE;
    t->tv_sec += later + (of_the_day ? day_ahead : 0);
    return result;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone)
{
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    *t = (struct timeval){.tv_sec = precise.tv_sec, .tv_usec = precise.tv_nsec / 1000};
    return 0;
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

void pass_unseen(time_t seconds)
{
    later += seconds;
}

void pass(time_t seconds)
{
    pass_unseen(seconds);
    run_quietly();
}

void set_clock_ahead(time_t seconds)
{
    day_ahead += seconds;
}

/* ---- the loop ---- */

int count_descriptors(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* It only makes the loop look up from its descriptors. */
static void on_tick(struct ev_loop *l, ev_timer *timer, int events)
{
    (void)l, (void)timer, (void)events;
}

void watch_begin(void)
{
    deadline = seconds_now() + PATIENCE_SECONDS * (is_on_valgrind() ? 20 : 1);
    ev_timer_init(&watchdog, on_tick, TICK_SECONDS, TICK_SECONDS);
    ev_timer_start(loop, &watchdog);
}

void watch_turn(const char *what, const char *file, int line)
{
    ev_run(loop, EVRUN_ONCE);
    if (seconds_now() < deadline)
        return;
    print_error("waited in vain for: %s\n", what);
    _fail(file, line);
}

void watch_end(void)
{
    ev_timer_stop(loop, &watchdog);
}

void run_quietly(void)
{
    for (int i = 0; i < QUIET_TURNS; i++)
        ev_run(loop, EVRUN_NOWAIT);
}

int set_up(void **state)
{
    struct errbuf err;
    wire = (enum wire)(intptr_t)*state;
    signal(SIGPIPE, SIG_IGN);
    limit_time(SAFETY_SECONDS);
    memset(parties, 0, sizeof parties);
    party_count = 0;
    in_callback = false;
    at_tear_down = NULL;
    later = day_ahead = 0;
    descriptors = count_descriptors();
    loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    engine = engine_get(loop, &err);
    return engine ? 0 : -1;
}

void dismiss_all(void)
{
    for (size_t i = 0; i < party_count; i++) {
        struct party *p = &parties[i];
        p->inside = NULL;
        if (p->stream)
            iostream_abort(p->stream, CLOSE_SHUTDOWN);
        far_close(p);
    }
    for (size_t i = 0; i < party_count; i++) {
        run_until(!parties[i].stream);
        assert_int_equal(parties[i].ends, 1);
    }
    memset(parties, 0, sizeof parties);
    party_count = 0;
}

int tear_down(void **state)
{
    (void)state;
    char unexpected[DIARY_BYTES] = "";
    in_callback = false; /* a failed assertion may have left one */
    watch_end();
    for (size_t i = 0; i < party_count; i++)
        if (*parties[i].diary)
            strcpy(unexpected, parties[i].diary);
    dismiss_all();
    if (at_tear_down)
        at_tear_down();
    run_until(engine->users == 1);            /* no stream, server or child is left */
    assert_false(ev_run(loop, EVRUN_NOWAIT)); /* no watcher keeps the loop running */
    engine_put(engine);
    ev_loop_destroy(loop);
    assert_int_equal(count_descriptors(), descriptors);
    assert_string_equal(unexpected, "");
    alarm(0);
    return 0;
}

/* ---- the two ends of a connection ---- */

static void set_nonblocking(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

void connect_tcp(int fds[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, length), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &length), 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&address, length), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listener);
}

static void connect_pipes(struct ends *one, struct ends *other)
{
    int there[2], back[2];
    assert_int_equal(pipe2(there, O_NONBLOCK | O_CLOEXEC), 0);
    assert_int_equal(pipe2(back, O_NONBLOCK | O_CLOEXEC), 0);
    *one = (struct ends){.in = back[0], .out = there[1]};
    *other = (struct ends){.in = there[0], .out = back[1]};
}

void connect_ends(enum wire over, struct ends *one, struct ends *other)
{
    int fds[2];
    if (over == PIPES) {
        connect_pipes(one, other);
        return;
    }
    if (over == TCP)
        connect_tcp(fds);
    else
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    set_nonblocking(fds[0]);
    set_nonblocking(fds[1]);
    *one = (struct ends){fds[0], fds[0]};
    *other = (struct ends){fds[1], fds[1]};
}

/* ---- a stream and its diary ---- */

void write_down(struct party *p, const char *format, ...)
{
    size_t used = strlen(p->diary);
    va_list arguments;
    if (used > 0 && used < DIARY_BYTES - 1)
        p->diary[used++] = ' ';
    va_start(arguments, format);
    vsnprintf(p->diary + used, DIARY_BYTES - used, format, arguments);
    va_end(arguments);
}

static void begin_callback(const struct iostream *s, const struct party *p)
{
    assert_ptr_equal(s, p->stream); /* and none comes after the last one */
    assert_false(in_callback);      /* no call runs callbacks: they come from the loop */
    in_callback = true;
}

static void end_callback(struct party *p, const char *word)
{
    if (p->inside)
        p->inside(p, word);
    in_callback = false;
}

const char *digest(const char *bytes, size_t length)
{
    static char text[64];
    enum { LEGIBLE = 40 };
    if (length <= LEGIBLE) {
        snprintf(text, sizeof text, "%.*s", (int)length, bytes);
        return text;
    }
    uint32_t hash = 2166136261; /* FNV-1a */
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 16777619;
    snprintf(text, sizeof text, "#%zu,%08x", length, hash);
    return text;
}

void on_read(struct iostream *s, void *arg, enum read_status status, const char *data, size_t length)
{
    static const char *const words[] = {[READ_EOF] = "read-eof", [READ_LIMIT] = "read-limit", [READ_CLOSED] = "read-closed"};
    struct party *p = arg;
    begin_callback(s, p);
    assert_non_null(data);
    if (status == READ_OK) {
        write_down(p, "read:%s", digest(data, length));
    } else {
        write_down(p, length ? "%s:%.*s" : "%s", words[status], (int)length, data); /* length: what read_into had by then */
    }
    end_callback(p, "read");
}

void on_wrote(struct iostream *s, void *arg, int error)
{
    struct party *p = arg;
    begin_callback(s, p);
    write_down(p, error ? "wrote:%s" : "wrote", strerrorname_np(error));
    end_callback(p, "wrote");
}

void on_eof(struct iostream *s, void *arg)
{
    struct party *p = arg;
    begin_callback(s, p);
    assert_true(iostream_read_ended(s));
    write_down(p, "eof");
    end_callback(p, "eof");
}

static void on_close(struct iostream *s, void *arg)
{
    struct party *p = arg;
    int error = iostream_error(s);
    begin_callback(s, p);
    write_down(p, error ? "end:%s/%s" : "end:%s", close_reason_name(iostream_reason(s)), strerrorname_np(error));
    p->ends++;
    end_callback(p, "end");
    p->stream = NULL;
}

void expect_at(struct party *p, const char *words, const char *file, int line)
{
    watch_begin();
    while (strlen(p->diary) < strlen(words) && seconds_now() < deadline)
        ev_run(loop, EVRUN_ONCE);
    watch_end();
    _assert_string_equal(p->diary, words, file, line);
    *p->diary = '\0';
}

static struct party *new_party(void)
{
    assert_true(party_count < MAX_PARTIES);
    struct party *p = &parties[party_count++];
    p->far = (struct ends){-1, -1};
    return p;
}

struct party *host(struct iostream *s)
{
    struct party *p = new_party();
    assert_non_null(s);
    p->stream = s;
    iostream_on_close(s, on_close, p);
    return p;
}

static struct party *host_ends(struct ends near, const struct iostream_options *options)
{
    struct errbuf err = {""};
    struct iostream *s = iostream_new(loop, near.in, near.out, options, &err);
    assert_string_equal(err.text, "");
    return host(s);
}

struct party *adopt(int read_fd, int write_fd, unsigned flags)
{
    return host_ends((struct ends){read_fd, write_fd}, &(struct iostream_options){.flags = flags});
}

struct party *meet_over(enum wire over, size_t max_buffer_bytes)
{
    struct ends near, far;
    connect_ends(over, &near, &far);
    struct party *p = host_ends(near, &(struct iostream_options){.max_buffer_bytes = max_buffer_bytes});
    p->far = far;
    return p;
}

struct party *meet(size_t max_buffer_bytes)
{
    return meet_over(wire, max_buffer_bytes);
}

void meet_pair(struct party **one, struct party **other)
{
    struct ends a, b;
    connect_ends(wire, &a, &b);
    *one = host_ends(a, NULL);
    *other = host_ends(b, NULL);
}

/* ---- the calls ---- */

void read_some(struct party *p, size_t max_bytes)
{
    assert_int_equal(iostream_read_some(p->stream, max_bytes, on_read, p), 0);
}

void read_bytes(struct party *p, size_t count)
{
    assert_int_equal(iostream_read_bytes(p->stream, count, on_read, p), 0);
}

void read_until(struct party *p, const char *delimiter, size_t max_bytes)
{
    assert_int_equal(iostream_read_until(p->stream, delimiter, strlen(delimiter), max_bytes, on_read, p), 0);
}

void read_until_close(struct party *p)
{
    assert_int_equal(iostream_read_until_close(p->stream, on_read, p), 0);
}

void write_text(struct party *p, const char *text)
{
    assert_int_equal(iostream_write(p->stream, text, strlen(text), on_wrote, p), 0);
}

void watch_eof(struct party *p)
{
    iostream_on_eof(p->stream, on_eof, p);
}

/* ---- the far end ---- */

void far_send(struct party *p, const char *text)
{
    assert_int_equal(write(p->far.out, text, strlen(text)), strlen(text));
}

void far_finish(struct party *p)
{
    if (p->far.in == p->far.out) {
        shutdown(p->far.out, SHUT_WR); /* ENOTCONN: the connection is no more */
    } else {
        close(p->far.out);
        p->far.out = -1;
    }
}

void far_close(struct party *p)
{
    if (p->far.out >= 0 && p->far.out != p->far.in)
        close(p->far.out);
    if (p->far.in >= 0)
        close(p->far.in);
    p->far = (struct ends){-1, -1};
}

void far_reset(struct party *p)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(p->far.in, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    far_close(p);
}

/* What read(2) says once it does not say EAGAIN any more. */
static ssize_t far_read(struct party *p, char *bytes, size_t size)
{
    ssize_t n;
    run_until((n = read(p->far.in, bytes, size)) >= 0 || errno != EAGAIN);
    return n;
}

void far_receive(struct party *p, const char *text)
{
    char bytes[DIARY_BYTES];
    size_t have = 0, wanted = strlen(text);
    while (have < wanted) {
        ssize_t n = far_read(p, bytes + have, sizeof bytes - 1 - have);
        assert_true(n > 0);
        have += (size_t)n;
    }
    bytes[have] = '\0';
    assert_string_equal(bytes, text);
}

void far_receive_end(struct party *p)
{
    char byte;
    assert_int_equal(far_read(p, &byte, 1), 0);
}

void far_receive_reset(struct party *p)
{
    char byte;
    assert_int_equal(far_read(p, &byte, 1), -1);
    assert_int_equal(errno, ECONNRESET);
}

void pattern(char *bytes, size_t length, uint64_t position)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)(((position + i) * 2654435761U) >> 16);
}

size_t far_pour(struct party *p, size_t limit)
{
    char bytes[KIB(64)];
    size_t done = 0;
    ssize_t n = 1;
    while (n > 0 && done < limit) {
        size_t size = limit - done < sizeof bytes ? limit - done : sizeof bytes;
        pattern(bytes, size, p->poured);
        n = write(p->far.out, bytes, size);
        if (n > 0) {
            p->poured += (size_t)n;
            done += (size_t)n;
        }
    }
    assert_true(n > 0 || errno == EAGAIN);
    return done;
}

size_t far_drain(struct party *p, size_t limit)
{
    char bytes[KIB(64)], right[KIB(64)];
    size_t done = 0;
    ssize_t n = 1;
    while (n > 0 && done < limit) {
        n = read(p->far.in, bytes, limit - done < sizeof bytes ? limit - done : sizeof bytes);
        if (n > 0) {
            pattern(right, (size_t)n, p->drained);
            assert_memory_equal(bytes, right, (size_t)n);
            p->drained += (size_t)n;
            done += (size_t)n;
        }
    }
    assert_true(n >= 0 || errno == EAGAIN);
    return done;
}

/* ---- relayed parties ---- */

void relay(struct party *from, struct party *to)
{
    assert_int_equal(iostream_relay(from->stream, to->stream), 0);
}

void join(struct party *p, struct party *q)
{
    relay(p, q);
    relay(q, p);
}

void jam(struct party *from)
{
    while (far_pour(from, KIB(8192)) > 0)
        run_quietly();
}

void drain(struct party *from, struct party *to)
{
    run_until(far_drain(to, KIB(8192)) + 1 && to->drained == from->poured);
}

void carry(struct party *from, struct party *to, size_t length)
{
    watch_begin();
    for (uint64_t end = from->poured + length; to->drained < end;) {
        far_pour(from, (size_t)(end - from->poured));
        far_drain(to, KIB(8192));
        watch_turn("the bytes to be carried", __FILE__, __LINE__);
    }
    watch_end();
}
