/* sink.c - stderr (with the journal's priorities, if it is the journal), syslog, or a file that can be reopened. */
#include "sink.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

enum kind { TO_STDERR, TO_SYSLOG, TO_FILE };

static struct {
    enum kind kind, wanted;
    const char *path;
    int fd;
    bool journal; /* stderr is the journal's */
} sink = {.fd = -1};

static const char name[] = "hark", text_prefix[] = "hark: ";

/* systemd tells which stream is the journal's; stderr may have been redirected since. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device &&
           st.st_ino == inode;
}

/* The C library would say nothing if there were no one to listen. */
static int check_syslog(struct errbuf *err)
{
    const struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};
    int result = -1;
    for (int type = SOCK_DGRAM; result != 0 && type; type = type == SOCK_DGRAM ? SOCK_STREAM : 0) {
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
        result = connect(fd, (const struct sockaddr *)&address, sizeof address);
        close(fd);
    }
    return result == 0 ? 0 : errbuf_set(err, "cannot log to syslog: %s: %s", address.sun_path, strerror(errno));
}

/* Not waiting for a reader, should it be a FIFO; after that it may wait. */
static int open_file(const char *path, int flags, struct errbuf *err)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | flags, 0640);
    if (fd < 0)
        return errbuf_set(err, "cannot log to %s: %s", path, strerror(errno));
    fcntl(fd, F_SETFL, O_APPEND);
    return fd;
}

bool file_can_be_made(const char *path)
{
    char *copy = strdup(path);
    bool can_be_made = copy && access(path, F_OK) != 0 && errno == ENOENT && access(dirname(copy), W_OK | X_OK) == 0;
    free(copy);
    return can_be_made;
}

static int check_file(const char *path, struct errbuf *err)
{
    if (file_can_be_made(path))
        return 0;
    int fd = open_file(path, 0, err);
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

int sink_open(const char *to, bool check, struct errbuf *err)
{
    sink.journal = stderr_is_journal();
    sink.wanted = !strcmp(to, "stderr") ? TO_STDERR : !strcmp(to, "syslog") ? TO_SYSLOG : TO_FILE;
    if (sink.wanted == TO_SYSLOG)
        return check_syslog(err);
    if (sink.wanted == TO_STDERR)
        return 0;
    if (check)
        return check_file(to, err);
    sink.path = to;
    sink.fd = open_file(to, O_CREAT, err);
    return sink.fd < 0 ? -1 : 0;
}

void sink_use(void)
{
    sink.kind = sink.wanted;
    if (sink.kind == TO_SYSLOG)
        openlog(name, LOG_PID | LOG_NDELAY, LOG_DAEMON);
}

enum { JOURNAL = 1 << 8 }; /* beside the kind */

void sink_pass_on(int numbers[SINK_NUMBERS])
{
    numbers[0] = (int)sink.kind | (sink.journal ? JOURNAL : 0);
    numbers[1] = sink.fd;
    if (sink.fd >= 0)
        fcntl(sink.fd, F_SETFD, 0);
}

void sink_adopt(const int numbers[SINK_NUMBERS])
{
    sink.journal = numbers[0] & JOURNAL;
    sink.wanted = (enum kind)(numbers[0] & ~JOURNAL);
    sink.fd = numbers[1];
    sink_use();
}

void sink_leave(void)
{
    if (sink.fd >= 0)
        close(sink.fd);
    sink.fd = -1;
    closelog();
}

int sink_reopen(struct errbuf *err)
{
    if (sink.kind != TO_FILE)
        return 0;
    int fd = open_file(sink.path, O_CREAT, err);
    if (fd < 0)
        return -1;
    close(sink.fd);
    sink.fd = fd;
    return 0;
}

int sink_share(void)
{
    return sink.kind == TO_FILE ? fcntl(sink.fd, F_DUPFD_CLOEXEC, 0) : -1;
}

void sink_take(int fd)
{
    close(sink.fd);
    sink.fd = fd;
}

bool sink_wants_priority(void)
{
    return sink.kind == TO_STDERR && sink.journal;
}

bool sink_wants_time(void)
{
    return sink.kind == TO_FILE;
}

/* In one call, so that lines of several processes do not mix. */
bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

void sink_write(int priority, const char *line, size_t length)
{
    if (sink.kind != TO_SYSLOG) {
        write_all(sink.kind == TO_FILE ? sink.fd : STDERR_FILENO, line, length);
        return;
    }
    size_t skip = strncmp(line, text_prefix, strlen(text_prefix)) == 0 ? strlen(text_prefix) : 0; /* syslog says it itself */
    syslog(priority, "%.*s", (int)(length - skip - 1), line + skip);
}
