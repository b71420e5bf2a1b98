/* launch.h - starting a program on a socket or pipes as cheaply as Linux allows. */
#ifndef HARK_LAUNCH_H
#define HARK_LAUNCH_H

#include <sys/types.h>

struct launcher;
/* What stays the same from child to child; the pointers stay the caller's. */
struct launch_options {
    const char *path;
    char *const *argv;
    const char *directory;   /* to run in; NULL: ours */
    unsigned long max_files; /* soft descriptor limit; 0: ours */
};
struct launcher *launcher_new(const struct launch_options *); /* NULL with errno */
void launcher_free(struct launcher *);

/* Runs the program in a process group of its own with fds as its stdin, stdout and stderr; nothing else is open (everything of ours is
 * close-on-exec), signals are as a new process expects them, SIGTERM comes when this process dies. Returns the pid, or -1 with errno,
 * also that of a failed chdir or execve. */
pid_t launch(struct launcher *, const int fds[3], char **environment);

#endif
