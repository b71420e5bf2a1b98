/* spawn.c - starts one child program on a stream. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "child.h"

/* The descriptors of one child to be: its ends and ours; -1: none. */
struct plumbing {
    int child[3];
    int to_stdin, from_stdout, from_stderr;
};

static int open_pipe(int *read_fd, int *write_fd, int *ours)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return -1;
    *read_fd = ends[0];
    *write_fd = ends[1];
    return fcntl(*ours, F_SETFL, O_NONBLOCK); /* ours alone: the other end is the child's */
}

static int open_stderr(const struct spawner *spawner, struct plumbing *p)
{
    switch (spawner->options.stderr_to) {
    case SPAWN_STDERR_LINES:
        return open_pipe(&p->from_stderr, &p->child[2], &p->from_stderr);
    case SPAWN_STDERR_CLIENT:
        p->child[2] = fcntl(p->child[1], F_DUPFD_CLOEXEC, 3);
        break;
    case SPAWN_STDERR_NULL:
        p->child[2] = spawner->null_fd;
        break;
    }
    return p->child[2] < 0 ? -1 : 0;
}

static int open_plumbing(const struct spawner *spawner, int socket_fd, struct plumbing *p)
{
    *p = (struct plumbing){.child = {-1, -1, -1}, .to_stdin = -1, .from_stdout = -1, .from_stderr = -1};
    if (socket_fd >= 0) {
        p->child[0] = p->child[1] = socket_fd;
    } else if (open_pipe(&p->child[0], &p->to_stdin, &p->to_stdin) != 0 || open_pipe(&p->from_stdout, &p->child[1], &p->from_stdout) != 0) {
        return -1;
    }
    return open_stderr(spawner, p);
}

static void close_fd(int *fd)
{
    int saved = errno;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    errno = saved;
}

static void close_child_ends(const struct spawner *spawner, struct plumbing *p, int socket_fd)
{
    for (int i = 0; i < 3; i++) {
        if (p->child[i] != socket_fd && p->child[i] != spawner->null_fd)
            close_fd(&p->child[i]);
    }
}

static int attach_pipes(struct child *c, struct plumbing *p)
{
    struct errbuf unused;
    const struct iostream_options options = {.max_buffer_bytes = c->spawner->options.max_buffer_bytes};
    if (p->to_stdin < 0)
        return 0;
    c->pipes = iostream_new(c->spawner->engine->loop, p->from_stdout, p->to_stdin, &options, &unused);
    if (c->pipes)
        p->to_stdin = p->from_stdout = -1;
    return c->pipes ? 0 : -1;
}

static int attach_stderr(struct child *c, struct plumbing *p, uint64_t id)
{
    const struct spawner_options *options = &c->spawner->options;
    if (p->from_stderr < 0)
        return 0;
    c->stderr_reader = line_reader_new(c->spawner->engine, &c->spawner->readers, p->from_stderr, id, options->on_stderr, options->arg);
    if (!c->stderr_reader)
        return -1;
    p->from_stderr = -1;
    line_reader_on_end(c->stderr_reader, &c->stderr_reader);
    return 0;
}

static void abandon(struct child *c)
{
    int saved = errno;
    if (c->stderr_reader)
        line_reader_end(c->stderr_reader);
    if (c->pipes)
        iostream_abort(c->pipes, CLOSE_ERROR);
    free(c);
    errno = saved;
}

struct child *child_start(struct spawner *spawner, struct iostream *s, int socket_fd)
{
    struct plumbing p;
    struct child *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->spawner = spawner;
    int result = open_plumbing(spawner, socket_fd, &p);
    if (result == 0 && (result = attach_pipes(c, &p)) == 0)
        result = attach_stderr(c, &p, s ? s->id : 0);
    if (result == 0) {
        c->pid = launch(spawner->launcher, p.child, environment_for(spawner->environment, s));
        result = c->pid < 0 ? -1 : 0;
    }
    close_child_ends(spawner, &p, socket_fd);
    close_fd(&p.to_stdin);
    close_fd(&p.from_stdout);
    close_fd(&p.from_stderr);
    if (result == 0 && child_watch(c) == 0)
        return c;
    abandon(c);
    return NULL;
}

static int start_on_socket(struct spawner *spawner, struct iostream *s)
{
    int fd = s->transport->read_fd;
    if (!s->lent && fcntl(fd, F_SETFL, 0) != 0) /* blocking, as programs expect it */
        return -1;
    struct child *c = child_start(spawner, s, fd);
    if (!c)
        return -1;
    c->stream = s;
    s->child = c;
    s->lent = s->was_lent = true;
    iostream_update(s);
    iostream_direction_ended(s); /* the kernel has to be asked from now on */
    return 0;
}

static int start_on_pipes(struct spawner *spawner, struct iostream *s)
{
    struct child *c = warm_take(spawner);
    if (!c && !(c = child_start(spawner, s, -1)))
        return -1;
    c->stream = s;
    s->child = c;
    if (c->stderr_reader)
        line_reader_set_id(c->stderr_reader, s->id);
    child_relay(c, s);
    return 0;
}

static bool is_fresh(const struct iostream *s)
{
    return !s->child && s->read.kind == NO_READ && !s->relay_from && buffer_length(&s->out) == 0 && buffer_length(&s->in) == 0;
}

int spawner_start(struct spawner *spawner, struct iostream *s)
{
    if (s->reason != CLOSE_NONE || s->dropping || s->out_state != OUT_OPEN) {
        errno = EPIPE;
        return -1;
    }
    if (!is_fresh(s)) {
        errno = EBUSY;
        return -1;
    }
    int result = spawner->options.io == SPAWN_SOCKET ? start_on_socket(spawner, s) : start_on_pipes(spawner, s);
    if (result == 0)
        spawner->children++;
    if (result == 0 && s->server)
        tcpserver_count_child(s->server);
    warm_hold_back(spawner);
    return result;
}

unsigned spawner_children(const struct spawner *spawner)
{
    return spawner->children;
}

/* ---- making one ---- */

static int prepare(struct spawner *spawner, struct errbuf *err)
{
    const struct spawner_options *o = &spawner->options;
    char path[PATH_MAX];
    if (spawn_find_program(o, path, sizeof path, err) != 0)
        return -1;
    if (o->stderr_to == SPAWN_STDERR_NULL) {
        spawner->null_fd = o->null_fd ? fcntl(o->null_fd, F_DUPFD_CLOEXEC, 3) : open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (spawner->null_fd < 0)
            return errbuf_set(err, "cannot open /dev/null: %s", strerror(errno));
    }
    spawner->path = strdup(path);
    spawner->environment = environment_new(o->clear_environment, o->variables);
    const struct launch_options launch_options = {
        .path = spawner->path, .argv = o->argv, .directory = o->directory, .max_files = o->max_files};
    spawner->launcher = launcher_new(&launch_options);
    if (!spawner->path || !spawner->environment || !spawner->launcher || reaper_get(spawner->engine) != 0)
        return errbuf_set(err, "cannot prepare to run \"%s\": %s", o->argv[0], strerror(errno));
    return 0;
}

static void release(struct deferred *d)
{
    struct spawner *spawner = container_of(d, struct spawner, release);
    launcher_free(spawner->launcher);
    environment_free(spawner->environment);
    engine_put(spawner->engine);
    if (spawner->null_fd >= 0)
        close(spawner->null_fd);
    free(spawner->path);
    free(spawner);
}

struct spawner *spawner_new(struct ev_loop *loop, const struct spawner_options *options, struct errbuf *err)
{
    struct spawner *spawner = calloc(1, sizeof *spawner);
    if (!spawner) {
        errbuf_set(err, "cannot prepare to run \"%s\": %s", options->argv[0], strerror(errno));
        return NULL;
    }
    spawner->engine = engine_get(loop, err);
    if (!spawner->engine) {
        free(spawner);
        return NULL;
    }
    spawner->options = *options;
    spawner->null_fd = -1;
    LIST_INIT(&spawner->warm);
    LIST_INIT(&spawner->readers);
    if (prepare(spawner, err) == 0) {
        warm_init(spawner);
        return spawner;
    }
    release(&spawner->release);
    return NULL;
}

void spawner_free(struct spawner *spawner)
{
    warm_release(spawner);
    line_readers_end(&spawner->readers);
    reaper_put(spawner->engine);
    spawner->freed = true;
    engine_let_go(spawner->engine, &spawner->release, release);
}
