/* stdio.c - joins a connection with hark's own stdin and stdout, as nc -l does, but without losing either side's last bytes.
 *
 * stdin's end ends only our side of the connection, the peer's end only its own. stdin and stdout are one stream here, `io`; it may
 * outlive the connection while a slow reader empties our stdout, so the next connection waits for it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "progress.h"

struct stdio {
    struct handler_run *run;
    int in, out; /* descriptors */
    bool recv_only, send_only;
    struct iostream *client, *io; /* NULL when there is none */
    struct iostream *waiting;     /* accepted, but the io before is not done */
    struct progress *progress;
};

static bool is_null_device(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3);
}

static int configure(char **arguments, const struct handler_options *options, bool resolve, void **config, struct errbuf *err)
{
    (void)arguments, (void)options, (void)resolve, (void)config;
    struct stat st;
    if (fstat(STDIN_FILENO, &st) == 0 && S_ISDIR(st.st_mode))
        return errbuf_set(err, "stdin is a directory");
    return 0;
}

/* A terminal that says it can be written promises one byte, and blocks on the second. Opened anew it has a description of its own, which
 * may be non-blocking. */
static int own_terminal(int fd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return own < 0 ? fd : own;
}

/* With one connection to serve its end can be passed on to who reads our stdout. The numbers 0 and 1 stay taken. */
static int take_descriptors(struct stdio *h, struct errbuf *err)
{
    h->in = STDIN_FILENO;
    h->out = isatty(STDOUT_FILENO) ? own_terminal(STDOUT_FILENO) : STDOUT_FILENO;
    if (!h->run->options->once)
        return 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    h->in = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
    if (h->out == STDOUT_FILENO)
        h->out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (null < 0 || h->in < 0 || h->out < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        return errbuf_set(err, "cannot take over stdin and stdout: %s", strerror(errno));
    close(null);
    return 0;
}

static int open_stdio(struct handler_run *run, struct errbuf *err)
{
    struct stdio *h = calloc(1, sizeof *h);
    if (!h)
        return errbuf_set(err, "cannot prepare stdin and stdout: %s", strerror(errno));
    h->run = run;
    h->send_only = run->options->send_only;
    h->recv_only = run->options->recv_only || (is_null_device(STDIN_FILENO) && !h->send_only);
    run->state = h;
    return take_descriptors(h, err);
}

static void close_stdio(struct handler_run *run)
{
    free(run->state);
}

/* ---- progress ---- */

static void start_progress(struct stdio *h)
{
    struct stat in, out;
    bool from_file = !h->recv_only && fstat(h->in, &in) == 0 && S_ISREG(in.st_mode);
    bool to_file = !h->send_only && fstat(h->out, &out) == 0 && S_ISREG(out.st_mode);
    off_t position = from_file ? lseek(h->in, 0, SEEK_CUR) : 0;
    if (h->run->options->show_progress && (from_file || to_file))
        h->progress = progress_start(h->run, h->client, from_file && in.st_size > position ? (uint64_t)(in.st_size - position) : 0);
}

static void stop_progress(struct stdio *h)
{
    progress_stop(h->progress);
    h->progress = NULL;
}

/* ---- a connection ---- */

static int join(struct stdio *h, struct iostream *client);

static void serve_waiting(struct stdio *h)
{
    struct iostream *next = h->waiting;
    if (h->client || h->io)
        return;
    h->waiting = NULL;
    if (!next)
        h->run->host->idle();
    else if (join(h, next) != 0)
        iostream_abort(next, CLOSE_ERROR);
}

static void on_waiting_close(struct iostream *client, void *arg)
{
    (void)client;
    struct stdio *h = arg;
    h->waiting = NULL;
}

static void on_client_close(struct iostream *client, void *arg)
{
    (void)client;
    struct stdio *h = arg;
    stop_progress(h);
    h->client = NULL;
    serve_waiting(h);
}

static void on_io_close(struct iostream *io, void *arg)
{
    struct stdio *h = arg;
    int error = iostream_error(io);
    h->io = NULL;
    if (error) {
        h->run->host->error("stdin or stdout failed: %s", strerror(error));
        h->run->host->fail();
    }
    serve_waiting(h);
}

/* The client has ended. Without more to come from stdin that is the end of our side too. */
static void on_client_eof(struct iostream *client, void *arg)
{
    struct stdio *h = arg;
    if (h->recv_only)
        iostream_finish(client);
    else if (h->io && isatty(h->in)) /* who types does not hold a connection that has nobody at the other end */
        iostream_stop_reading(h->io);
}

/* --send-only: stdin has ended. */
static void on_stdin_eof(struct iostream *io, void *arg)
{
    (void)io;
    struct stdio *h = arg;
    if (h->client)
        iostream_close(h->client);
}

static int connect_sides(struct stdio *h)
{
    if (h->send_only ? iostream_discard(h->client) : iostream_relay(h->client, h->io))
        return -1;
    if (h->recv_only)
        iostream_stop_reading(h->io);
    else if (iostream_relay(h->io, h->client) != 0)
        return -1;
    if (h->send_only) {
        iostream_finish(h->io);
        iostream_on_eof(h->io, on_stdin_eof, h);
    }
    return 0;
}

static int join(struct stdio *h, struct iostream *client)
{
    struct errbuf err;
    const struct iostream_options options = {.max_buffer_bytes = h->run->options->max_buffer_bytes,
                                             .flags = IOSTREAM_SHARED | (h->run->options->once ? 0 : IOSTREAM_KEEP)};
    h->io = iostream_new(h->run->loop, h->in, h->out, &options, &err);
    if (!h->io) {
        h->run->host->error("%s", err.text);
        return -1;
    }
    h->client = client;
    iostream_on_close(h->io, on_io_close, h);
    iostream_on_close(client, on_client_close, h);
    iostream_on_eof(client, on_client_eof, h);
    start_progress(h);
    if (connect_sides(h) == 0)
        return 0;
    iostream_abort(h->io, CLOSE_ERROR);
    return -1;
}

static int serve(struct handler_run *run, struct iostream *client)
{
    struct stdio *h = run->state;
    if (!h->io && !h->client)
        return join(h, client);
    if (h->waiting)
        return -1;
    h->waiting = client;
    iostream_on_close(client, on_waiting_close, h);
    iostream_watch(client);
    return 0;
}

static bool busy(const struct handler_run *run)
{
    const struct stdio *h = run->state;
    return h->io != NULL;
}

const struct handler stdio_handler = {.name = "stdio",
                                      .arguments = "",
                                      .summary = "joins it with hark's own stdin and stdout",
                                      .flags = HANDLER_ONE_AT_A_TIME,
                                      .max_connections = 1,
                                      .descriptors = 1,
                                      .configure = configure,
                                      .open = open_stdio,
                                      .serve = serve,
                                      .busy = busy,
                                      .close = close_stdio};
