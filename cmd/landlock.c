/* landlock.c - which files can still be opened, and which TCP ports be reached (landlock(7)). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox.h"

/* The kernel's headers may be older than the kernel: what they lack is written here, from landlock(7). */
struct ruleset {
    uint64_t files, ports, scoped; /* what is forbidden where no rule allows it */
};

struct port_rule {
    uint64_t allowed, port;
};

enum {
    RULE_PORT = 2,
    BIND_TCP = 1 << 0,
    CONNECT_TCP = 1 << 1,
    SCOPE_ABSTRACT = 1 << 0, /* abstract sockets of others */
    SCOPE_SIGNAL = 1 << 1,   /* signals to others */
    DNS_PORT = 53            /* by TCP go answers that are too long for UDP */
};

enum { NEWEST = 6, ABI_SCOPES = 6 }; /* 7 and 8 bring nothing to forbid */

/* By ABI: how many rights there are to files, and how much of struct ruleset the kernel knows. */
static const struct {
    unsigned rights;
    size_t size;
} known[NEWEST + 1] = {{0, 0}, {13, 8}, {14, 8}, {15, 8}, {15, 16}, {16, 16}, {16, 24}};

static int make_ruleset(const struct sandbox_needs *needs, int abi)
{
    const struct ruleset ruleset = {.files = (1ULL << known[abi].rights) - 1,
                                    .ports = abi < LANDLOCK_ABI_PORTS ? 0 : BIND_TCP | CONNECT_TCP,
                                    .scoped = abi < ABI_SCOPES ? 0 : SCOPE_SIGNAL | (needs->abstract ? 0 : SCOPE_ABSTRACT)};
    return (int)syscall(SYS_landlock_create_ruleset, &ruleset, known[abi].size, 0);
}

/* What is not there cannot be allowed: it is as if it were forbidden. */
static void allow(int ruleset, const char *path, uint64_t rights)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = open(path, O_PATH | O_CLOEXEC)};
    if (rule.parent_fd < 0)
        return;
    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    close(rule.parent_fd);
}

/* OpenSSL opens them by name when a certificate asks for them; many are links that lead out of the directory. */
static void allow_authorities(int ruleset, const char *path)
{
    DIR *directory = path ? opendir(path) : NULL;
    if (!directory)
        return; /* a file, which has been read */
    allow(ruleset, path, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR);
    for (const struct dirent *entry; (entry = readdir(directory));) {
        char target[PATH_MAX];
        if (entry->d_name[0] != '.' && (size_t)snprintf(target, sizeof target, "%s/%s", path, entry->d_name) < sizeof target)
            allow(ruleset, target, LANDLOCK_ACCESS_FS_READ_FILE);
    }
    closedir(directory);
}

static void allow_all(int ruleset, const char *const *paths)
{
    for (; *paths; paths++)
        allow(ruleset, *paths, LANDLOCK_ACCESS_FS_READ_FILE);
}

/* Who writes it anew puts another file in its place. /etc is too much to allow for that, a directory as that of systemd-resolved is not. */
static void allow_name_servers(int ruleset)
{
    static const char link[] = "/etc/resolv.conf";
    char *path = realpath(link, NULL);
    const char *directory = path ? dirname(path) : "";
    bool own = strcmp(directory, "/etc") != 0 && strcmp(directory, "/") != 0;
    if (path)
        allow(ruleset, own ? directory : link, LANDLOCK_ACCESS_FS_READ_FILE);
    free(path);
}

static void allow_files(int ruleset, const struct sandbox_needs *needs)
{
    static const char *const always[] = {"/etc/localtime" /* syslog(3) */,
                                         "/proc/sys/net/ipv4/tcp_available_ulp" /* with new certificates: is there kernel TLS? */, NULL};
    static const char *const of_names[] = {"/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/dev/urandom", NULL};
    const char *system = getenv("SSL_CERT_DIR");

    allow_all(ruleset, always);
    if (needs->names) {
        allow_name_servers(ruleset);
        allow_all(ruleset, of_names);
    }
    if (needs->system_authorities)
        allow_authorities(ruleset, system ? system : "/etc/ssl/certs");
}

static bool allow_port(int ruleset, int port)
{
    const struct port_rule rule = {.allowed = CONNECT_TCP, .port = (uint64_t)port};
    return port < 0 || syscall(SYS_landlock_add_rule, ruleset, RULE_PORT, &rule, 0) == 0;
}

static bool allow_ports(int ruleset, const struct sandbox_needs *needs)
{
    bool all = true;
    for (char **target = needs->settings->handler_arguments; *target && all; target++)
        all = allow_port(ruleset, sandbox_target_port(*target));
    return all && (!needs->names || allow_port(ruleset, DNS_PORT));
}

int landlock_enter(const struct sandbox_needs *needs, struct errbuf *err)
{
    int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi > NEWEST)
        abi = NEWEST;
    int ruleset = abi > 0 ? make_ruleset(needs, abi) : -1;
    if (ruleset < 0) {
        errbuf_set(err, "the kernel has none, or it is turned off: %s", strerror(errno));
        return 0;
    }
    allow_files(ruleset, needs);
    /* Without a target's port no connection could be served. */
    bool complete = abi < LANDLOCK_ABI_PORTS || allow_ports(ruleset, needs);
    if (!complete || syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
        errbuf_set(err, "%s", strerror(errno));
        abi = 0;
    }
    close(ruleset);
    return abi;
}
