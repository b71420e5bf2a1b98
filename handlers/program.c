/* program.c - runs a program on each connection; its stderr goes to the log. */
#include "program.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum exec_io { AUTO, SOCKET, PIPE };

static const char *name_of(const struct handler_run *run)
{
    char *const *argv = run->config;
    return argv[0];
}

static void on_failure(void *arg, const char *why)
{
    const struct handler_run *run = arg;
    run->host->error("cannot keep \"%s\" warm: %s", name_of(run), why);
}

static int check_directory(const char *directory, struct errbuf *err)
{
    struct stat st;
    int result = stat(directory, &st);
    if (result == 0 && !S_ISDIR(st.st_mode))
        return errbuf_set(err, "option --chdir: \"%s\" is not a directory", directory);
    if (result == 0)
        result = access(directory, X_OK);
    return result == 0 ? 0 : errbuf_set(err, "option --chdir: \"%s\": %s", directory, strerror(errno));
}

int program_examine(void *config, const struct handler_options *options, struct errbuf *err)
{
    char path[PATH_MAX];
    struct spawner_options spawn = options->spawn;
    spawn.argv = config;
    if (spawn_find_program(&spawn, path, sizeof path, err) != 0)
        return -1;
    return spawn.directory ? check_directory(spawn.directory, err) : 0;
}

int program_open(struct handler_run *run, struct errbuf *err)
{
    struct spawner_options options = run->options->spawn;
    bool bytes_are_seen = options.warm > 0 || run->options->tls || run->options->watch_bytes;
    options.argv = run->config;
    options.io = run->options->exec_io == PIPE || (run->options->exec_io == AUTO && bytes_are_seen) ? SPAWN_PIPES : SPAWN_SOCKET;
    options.max_buffer_bytes = run->options->max_buffer_bytes;
    options.on_stderr = run->host->child_line;
    options.on_failure = on_failure;
    options.arg = run;
    run->lends_sockets = options.io == SPAWN_SOCKET;
    run->state = spawner_new(run->loop, &options, err);
    return run->state ? 0 : -1;
}

static void serve_again(struct iostream *stream, void *arg)
{
    if (program_serve(arg, stream) != 0)
        iostream_abort(stream, CLOSE_ERROR);
}

int program_serve(struct handler_run *run, struct iostream *stream)
{
    if (spawner_start(run->state, stream) == 0)
        return 0;
    int error = errno;
    if (is_shortage(error)) {
        iostream_try_again(stream, error, serve_again, run);
        return 0;
    }
    const char *directory = run->options->spawn.directory;
    run->host->error("cannot run \"%s\"%s%s: %s", name_of(run), directory ? " in " : "", directory ? directory : "", strerror(error));
    errno = error;
    return -1;
}

void program_close(struct handler_run *run)
{
    spawner_free(run->state);
}
