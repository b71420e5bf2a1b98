/* metrics_start.c - from the supervisor's helper to a process that has nothing, and may do nothing, but answer. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "metrics.h"
#include "metrics_start.h"
#include "report.h"

enum { NOBODY = 65534, WORDS = 64, WORD_BYTES = 16 };

/* ---- sockets: those of a server like any other, of which the service knows nothing ---- */

static struct settings settings_for(const struct settings *s)
{
    return (struct settings){.handed_over.connected = -1,
                             .endpoints = (struct endpoint *)(uintptr_t)&s->metrics,
                             .endpoint_count = 1,
                             .binds = (char **)(uintptr_t)&s->metrics_host,
                             .bind_count = 1,
                             .family = AF_UNSPEC,
                             .unix_mode = 0600};
}

int metrics_open(struct metrics *m, const struct settings *s, struct errbuf *err)
{
    const struct settings own = settings_for(s);
    struct errbuf why;
    *m = (struct metrics){.program_fd = -1};
    if (!settings_have_metrics(s))
        return 0;
    m->program_fd = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (m->program_fd < 0)
        return errbuf_set(err, "option --metrics: cannot find this program itself, /proc/self/exe: %s", strerror(errno));
    if (listeners_open(&m->listeners, &own, 1, &why) == 0)
        return 0;
    metrics_close(m);
    return errbuf_set(err, "option --metrics: %s", why.text);
}

int metrics_check(const struct settings *s, struct errbuf *err)
{
    const struct settings own = settings_for(s);
    return settings_have_metrics(s) ? listeners_check(&own, 1, err) : 0;
}

void metrics_log(const struct metrics *m)
{
    const struct settings own = {0};
    listeners_log(&m->listeners, &own, 1);
}

void metrics_unlink(const struct metrics *m)
{
    listeners_unlink(&m->listeners);
}

void metrics_close(struct metrics *m)
{
    listeners_close(&m->listeners);
    if (m->program_fd >= 0)
        close(m->program_fd);
    m->program_fd = -1;
}

/* ---- the new program ---- */

/* It ends when the workers have ended, not by a signal that reaches all of hark's processes. */
static void ignore_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        signal(numbers[i], SIG_IGN);
}

/* Nobody who waits for the end of our stdin or stdout waits for this process. */
static void leave_descriptors(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    syscall(SYS_close_range, STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
}

int metrics_execute(const struct metrics *m, const struct shared *shared, int task)
{
    char words[WORDS][WORD_BYTES], name[] = METRICS_NAME, *arguments[WORDS + 2] = {name}, *nothing[] = {NULL};
    int numbers[WORDS] = {[METRICS_MEMORY] = shared_memory_fd(shared), [METRICS_END] = fork_helper_fd(), [METRICS_TASK] = task};
    int count = METRICS_LISTENERS;
    ignore_signals();
    leave_descriptors();
    sink_pass_on(numbers + METRICS_SINK);
    fcntl(numbers[METRICS_MEMORY], F_SETFD, 0);
    fcntl(numbers[METRICS_END], F_SETFD, 0);
    for (int i = 0; i < m->listeners.count && count < WORDS; i++)
        numbers[count++] = m->listeners.sockets[i].fd;
    for (int i = 0; i < count; i++) {
        snprintf(words[i], sizeof words[i], "%d", numbers[i]);
        arguments[i + 1] = words[i];
        if (i >= METRICS_LISTENERS)
            fcntl(numbers[i], F_SETFD, 0);
    }
    syscall(SYS_execveat, m->program_fd, "", arguments, nothing, AT_EMPTY_PATH);
    report_error("cannot start the metrics process: %s", strerror(errno));
    return 1;
}

/* ---- in it: privileges ---- */

static void become_nobody(void)
{
    if (geteuid() != 0)
        return;
    if (setgroups(0, NULL) != 0 || setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0)
        report_warning("the metrics process cannot become nobody (%d): %s", NOBODY, strerror(errno));
}

static bool has_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    syscall(SYS_capget, &header, data);
    return data[0].permitted || data[1].permitted || data[0].inheritable || data[1].inheritable;
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
    if (!has_capabilities())
        return; /* a service manager's filter may forbid to ask for it */
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 || syscall(SYS_capset, &header, none) != 0)
        report_warning("the metrics process cannot give its capabilities up: %s", strerror(errno));
}

void metrics_confine(void)
{
    const struct rlimit none = {0};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_NAME, "hark");
    if (chdir("/") != 0)
        report_warning("the metrics process cannot leave its directory: %s", strerror(errno));
    become_nobody();
    drop_capabilities();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    setrlimit(RLIMIT_NPROC, &none);
}
