/* program.c - finds a program in PATH and says at start what would go wrong at every connection. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

enum { LONGEST_INTERPRETER = 256 };

/* Where a child looks for programs; NULL: where its C library says. */
static const char *path_of_child(const struct spawner_options *options)
{
    const char *path = options->clear_environment ? NULL : getenv("PATH");
    for (char *const *variable = options->variables; variable && *variable; variable++) {
        if (strncmp(*variable, "PATH=", 5) == 0)
            path = *variable + 5; /* the last one counts */
    }
    return path;
}

static bool is_program(const char *path)
{
    struct stat st;
    return access(path, X_OK) == 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* Whether env(1) will find it there, as far as can be said from here: a child may run in another directory. */
static bool may_be_found(const char *name, const char *directories)
{
    char path[PATH_MAX];
    if (strchr(name, '/'))
        return name[0] != '/' || is_program(name);
    for (const char *next = directories; next;) {
        size_t length = strcspn(next, ":");
        int n = snprintf(path, sizeof path, "%.*s/%s", (int)length, next, name);
        if (*next != '/' || n >= (int)sizeof path || is_program(path))
            return true;
        next = next[length] ? next + length + 1 : NULL;
    }
    return !directories;
}

/* "#!/usr/bin/env NAME": the kernel gives it the rest of the line as one word. words: after the name of env. */
static int check_env(const char *path, const char *words, const struct spawner_options *options, struct errbuf *err)
{
    char name[LONGEST_INTERPRETER];
    size_t length = strcspn(words, "\n");
    bool whole = words[length] == '\n';
    while (length > 0 && (words[length - 1] == ' ' || words[length - 1] == '\t'))
        length--;
    snprintf(name, sizeof name, "%.*s", (int)length, words);
    if (!whole || name[0] == '-' || name[0] == '\0' || strchr(name, '=') || may_be_found(name, path_of_child(options)))
        return 0;
    if (name[length - 1] == '\r')
        return errbuf_set(err, "cannot run \"%s\": its first line ends in a carriage return (convert it to Unix line ends)", path);
    return errbuf_set(err, "cannot run \"%s\": its interpreter \"%s\": not found in PATH%s", path, name,
                      strpbrk(name, " \t") ? " (env takes that for one word; env -S splits it)" : "");
}

static int check_interpreter(const char *path, const char *line, const struct spawner_options *options, struct errbuf *err)
{
    char interpreter[LONGEST_INTERPRETER];
    struct stat st;
    size_t skip = strspn(line, " \t");
    size_t length = strcspn(line + skip, " \t\r\n");
    snprintf(interpreter, sizeof interpreter, "%.*s", (int)length, line + skip);
    if (line[skip + length] == '\r')
        return errbuf_set(err, "cannot run \"%s\": its first line ends in a carriage return (convert it to Unix line ends)", path);
    if (access(interpreter, X_OK) != 0)
        return errbuf_set(err, "cannot run \"%s\": its interpreter \"%s\": %s", path, interpreter, strerror(errno));
    if (stat(interpreter, &st) == 0 && !S_ISREG(st.st_mode))
        return errbuf_set(err, "cannot run \"%s\": its interpreter \"%s\": not a program", path, interpreter);
    const char *slash = strrchr(interpreter, '/'), *words = line + skip + length;
    return slash && strcmp(slash, "/env") == 0 ? check_env(path, words + strspn(words, " \t"), options, err) : 0;
}

/* execve(2) would fail with ENOEXEC on a script without an interpreter line, at the first connection. */
static int check_format(const char *path, const struct spawner_options *options, struct errbuf *err)
{
    char head[LONGEST_INTERPRETER + 2] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0; /* a program may be executable and not readable */
    ssize_t n = read(fd, head, sizeof head - 1);
    close(fd);
    if (n >= 2 && memcmp(head, "#!", 2) == 0)
        return check_interpreter(path, head + 2, options, err);
    if (n == 0)
        return errbuf_set(err, "cannot run \"%s\": the file is empty", path);
    if (n > 0 && (isprint((unsigned char)head[0]) || isspace((unsigned char)head[0])))
        return errbuf_set(err, "cannot run \"%s\": a script without an interpreter line (begin it with #!/bin/sh, or run: sh %s)", path,
                          path);
    return 0;
}

static int check_file(const char *path, const struct spawner_options *options, struct errbuf *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return errbuf_set(err, "cannot run \"%s\": %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return errbuf_set(err, "cannot run \"%s\": it is a directory", path);
    if (!S_ISREG(st.st_mode))
        return errbuf_set(err, "cannot run \"%s\": it is not a regular file", path);
    if (access(path, X_OK) != 0)
        return errbuf_set(err, "cannot run \"%s\": no execute permission (chmod +x %s)", path, path);
    return check_format(path, options, err);
}

/* Absolute, since a child may run in another directory. -1: too long. */
static int make_path(char *path, size_t size, const char *directory, size_t length, const char *name)
{
    char *here = (length ? *directory : *name) == '/' ? NULL : getcwd(NULL, 0);
    int n = snprintf(path, size, "%s%s%.*s%s%s", here ? here : "", here ? "/" : "", (int)length, directory, length ? "/" : "", name);
    free(here);
    return n < 0 || (size_t)n >= size ? -1 : 0;
}

static int search_path(const struct spawner_options *options, char *path, size_t size, struct errbuf *err)
{
    const char *name = options->argv[0];
    const char *directories = getenv("PATH");
    const char *next = directories && *directories ? directories : "/usr/local/bin:/usr/bin:/bin";
    bool found = false;

    while (next) {
        size_t length = strcspn(next, ":");
        int made = make_path(path, size, next, length, name);
        next = next[length] ? next + length + 1 : NULL;
        if (made != 0 || access(path, F_OK) != 0)
            continue;
        if (check_file(path, options, err) == 0)
            return 0;
        found = true; /* said if no better one comes */
    }
    if (found)
        return -1;
    bool here = access(name, F_OK) == 0;
    return errbuf_set(err, "cannot run \"%s\": not found in PATH%s%s%s", name, here ? " (the one in this directory is ./" : "",
                      here ? name : "", here ? ")" : "");
}

int spawn_find_program(const struct spawner_options *options, char *path, size_t size, struct errbuf *err)
{
    const char *name = options->argv[0];
    if (!*name)
        return errbuf_set(err, "the program's name is empty");
    if (!strchr(name, '/'))
        return search_path(options, path, size, err);
    if (make_path(path, size, "", 0, name) != 0)
        return errbuf_set(err, "cannot run \"%.40s...\": %s", name, strerror(ENAMETOOLONG));
    return check_file(path, options, err);
}
