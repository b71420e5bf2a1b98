/* launch.h - starting a program on a socket as cheaply as Linux allows. */
#ifndef HARK_LAUNCH_H
#define HARK_LAUNCH_H

#include <sys/types.h>

struct launcher;
/* path and argv stay the caller's. max_files: the child's soft descriptor limit, 0 = as it is. NULL with errno. */
struct launcher *launcher_new(const char *path, char *const *argv, unsigned long max_files);
void launcher_free(struct launcher *);

/* Runs the program in a process group of its own: the socket is its stdin and stdout, stderr_fd its stderr, nothing else is open
 * (everything of ours is close-on-exec), signals are as a new process expects them. SIGTERM when this process dies.
 * Returns the pid, or -1 with errno, also that of a failed execve. */
pid_t launch(struct launcher *, int socket_fd, int stderr_fd, char **environment);

#endif
