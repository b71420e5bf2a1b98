/* sandbox.c - what a serving process of echo, discard or forward needs, and what it was given up with. */
#include "sandbox.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "report.h"

static const char unix_prefix[] = "unix:";

bool sandbox_target_is_unix(const char *target)
{
    return strncmp(target, unix_prefix, strlen(unix_prefix)) == 0;
}

/* Targets have been checked: after the last colon there is a number or the name of a service. */
int sandbox_target_port(const char *target)
{
    const char *colon = strrchr(target, ':');
    if (!colon || sandbox_target_is_unix(target))
        return -1;
    const struct servent *service = getservbyname(colon + 1, "tcp");
    return service ? ntohs((in_port_t)service->s_port) : atoi(colon + 1);
}

/* Not [IPV6]:PORT and not IPV4:PORT. */
static bool is_name(const char *target)
{
    char host[INET_ADDRSTRLEN];
    struct in_addr address;
    size_t length = strcspn(target, ":");
    if (target[0] == '[')
        return false;
    if (length >= sizeof host)
        return true;
    memcpy(host, target, length);
    host[length] = '\0';
    return inet_pton(AF_INET, host, &address) != 1;
}

static struct sandbox_needs find_needs(const struct settings *s)
{
    struct sandbox_needs needs = {.settings = s, .local = !strcmp(s->log_to, "syslog")}; /* which may be started again */
    for (char **target = s->handler_arguments; *target; target++) {
        bool local = sandbox_target_is_unix(*target);
        needs.local |= local;
        needs.abstract |= local && (*target)[strlen(unix_prefix)] == '@';
        needs.tcp |= !local;
        needs.names |= !local && is_name(*target);
    }
    needs.system_authorities = s->forward_ssl && !s->forward_ca && !s->forward_insecure;
    return needs;
}

/* Adds to a sentence's list. */
__attribute__((format(printf, 2, 3))) static void lacks(struct errbuf *list, const char *format, ...)
{
    size_t length = strlen(list->text);
    va_list arguments;
    va_start(arguments, format);
    length += (size_t)snprintf(list->text + length, sizeof list->text - length, "%s", length ? "; " : "");
    if (length < sizeof list->text)
        vsnprintf(list->text + length, sizeof list->text - length, format, arguments);
    va_end(arguments);
}

static void log_sandbox(int landlock, bool seccomp, bool no_new_privs)
{
    struct report r;
    if (!report_wants(REPORT_DEBUG))
        return;
    report_begin(&r, "sandbox");
    if (landlock)
        report_number(&r, "landlock", (uint64_t)landlock);
    else
        report_text(&r, "landlock", "no");
    report_text(&r, "seccomp", seccomp ? "yes" : "no");
    report_text(&r, "no_new_privs", no_new_privs ? "yes" : "no");
    report_end(&r);
}

static void enter(const struct sandbox_needs *needs)
{
    struct errbuf why, missing = {.text = ""};

    bool no_new_privs = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0; /* the other two want it */
    if (!no_new_privs)
        lacks(&missing, "no_new_privs (%s)", strerror(errno));
    int landlock = landlock_enter(needs, &why);
    if (!landlock)
        lacks(&missing, "Landlock, all files and ports are as open as before (%s)", why.text);
    else if (landlock < LANDLOCK_ABI_PORTS && needs->tcp)
        lacks(&missing, "limits on TCP ports (the kernel's Landlock has ABI %d, they come with %d)", landlock, LANDLOCK_ABI_PORTS);
    bool seccomp = seccomp_enter(needs, &why) == 0; /* last: it forbids what the others do */
    if (!seccomp)
        lacks(&missing, "a filter of system calls (%s)", why.text);
    if (missing.text[0] && task_id() <= 0 && !needs->answers_only)
        report_warning("--sandbox has to do without %s", missing.text);
    log_sandbox(landlock, seccomp, no_new_privs);
}

void sandbox_enter(const struct settings *s)
{
    const struct sandbox_needs needs = find_needs(s);
    enter(&needs);
}

void sandbox_enter_to_answer(void)
{
    char *no_targets[] = {NULL};
    const struct settings none = {.handler_arguments = no_targets};
    enter(&(struct sandbox_needs){.settings = &none, .answers_only = true});
}
