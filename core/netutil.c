/* netutil.c - addresses as text, and listening sockets. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "internal.h"

enum { PORT_ATTEMPTS = 32 }; /* numbers to try until one is free in every family */

/* ---- addresses as text ---- */

static void unix_text(const struct sockaddr_un *address, socklen_t length, char *text, size_t size)
{
    const char *path = address->sun_path;
    size_t used = length > offsetof(struct sockaddr_un, sun_path) ? length - offsetof(struct sockaddr_un, sun_path) : 0;
    bool abstract = used > 0 && path[0] == '\0'; /* then NULs are part of the name */
    size_t i = 0;

    for (; i < used && i + 1 < size && (path[i] || abstract); i++)
        text[i] = path[i] ? path[i] : '@';
    text[i] = '\0';
}

const char *address_host(const struct sockaddr *address, socklen_t length, char *text, size_t size)
{
    sa_family_t family = length >= sizeof family ? address->sa_family : AF_UNSPEC;
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;

    if (family == AF_UNIX)
        unix_text((const struct sockaddr_un *)address, length, text, size);
    else if (family == AF_INET6 && length >= sizeof(struct sockaddr_in6) && IN6_IS_ADDR_V4MAPPED(in6))
        inet_ntop(AF_INET, &in6->s6_addr[12], text, (socklen_t)size);
    else if (getnameinfo(address, length, text, (socklen_t)size, NULL, 0, NI_NUMERICHOST) != 0)
        snprintf(text, size, "unknown");
    return text;
}

static bool has_port(sa_family_t family, socklen_t length)
{
    return (family == AF_INET && length >= sizeof(struct sockaddr_in)) || (family == AF_INET6 && length >= sizeof(struct sockaddr_in6));
}

const char *address_text(const struct sockaddr *address, socklen_t length, char *text, size_t size)
{
    char host[ADDRESS_TEXT];
    sa_family_t family = length >= sizeof family ? address->sa_family : AF_UNSPEC;

    address_host(address, length, host, sizeof host);
    if (family == AF_UNIX)
        snprintf(text, size, "unix:%s", host);
    else if (has_port(family, length))
        snprintf(text, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, address_port(address));
    else
        snprintf(text, size, "%s", host);
    return text;
}

unsigned address_port(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)address)->sin_port);
    if (address->sa_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)address)->sin6_port);
    return 0;
}

bool address_key(const struct sockaddr *address, struct in6_addr *key)
{
    *key = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    if (address->sa_family == AF_INET)
        memcpy(&key->s6_addr[12], &((const struct sockaddr_in *)address)->sin_addr, 4);
    else if (address->sa_family == AF_INET6)
        *key = ((const struct sockaddr_in6 *)address)->sin6_addr;
    return address->sa_family == AF_INET || address->sa_family == AF_INET6;
}

/* ---- TCP ---- */

union inet_address {
    struct sockaddr any;
    struct sockaddr_in in4;
    struct sockaddr_in6 in6;
};

static void set_port(union inet_address *address, unsigned port)
{
    if (address->any.sa_family == AF_INET)
        address->in4.sin_port = htons((uint16_t)port);
    else
        address->in6.sin6_port = htons((uint16_t)port);
}

/* getaddrinfo takes whatever strtoul takes, and cuts it down to 16 bits. */
static bool port_in_range(const char *port)
{
    char *end;
    unsigned long number = strtoul(port, &end, 10);

    return *end || (isdigit((unsigned char)port[0]) && number <= UINT16_MAX);
}

static struct addrinfo *look_up(const char *host, const char *port, int family, struct errbuf *err)
{
    struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;

    if (!port_in_range(port)) {
        errno = EINVAL;
        errbuf_set(err, "port \"%s\" is not a number from 0 to %d, nor the name of a service", port, UINT16_MAX);
        return NULL;
    }
    int status = getaddrinfo(host, port, &hints, &list);
    if (status == 0)
        return list;
    if (status != EAI_SYSTEM)
        errno = EINVAL;
    if (status == EAI_SERVICE)
        errbuf_set(err, "unknown service \"%s\": give a port number, or a name from /etc/services", port);
    else if (status == EAI_ADDRFAMILY || status == EAI_NODATA)
        errbuf_set(err, "host \"%s\" has no %s address", host, family == AF_INET ? "IPv4" : family == AF_INET6 ? "IPv6" : "IP");
    else
        errbuf_set(err, "unknown host \"%s\": %s", host, status == EAI_SYSTEM ? strerror(errno) : gai_strerror(status));
    return NULL;
}

static const char *bind_failure(const union inet_address *address, int error)
{
    if (error == EACCES && address_port(&address->any) < IPPORT_RESERVED)
        return "Permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)";
    if (error == EADDRNOTAVAIL)
        return "not an address of this machine";
    if (error == EINVAL && address->any.sa_family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&address->in6.sin6_addr))
        return "a link-local address needs its interface, as in fe80::1%eth0";
    return strerror(error);
}

static int set_flag(int fd, int level, int option)
{
    static const int on = 1;

    return setsockopt(fd, level, option, &on, sizeof on);
}

static int set_number(int fd, int level, int option, int value)
{
    return value ? setsockopt(fd, level, option, &value, sizeof value) : 0;
}

/* What is accepted inherits it. */
static int set_keepalive(int fd, const struct bind_options *o)
{
    if (!o->keepalive_idle)
        return 0;
    if (set_flag(fd, SOL_SOCKET, SO_KEEPALIVE) == 0 && set_number(fd, IPPROTO_TCP, TCP_KEEPIDLE, o->keepalive_idle) == 0 &&
        set_number(fd, IPPROTO_TCP, TCP_KEEPINTVL, o->keepalive_interval) == 0)
        return set_number(fd, IPPROTO_TCP, TCP_KEEPCNT, o->keepalive_count);
    return -1;
}

static int set_interface(int fd, const char *name)
{
    return name ? setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, (socklen_t)strlen(name)) : 0;
}

static int open_listener(const union inet_address *address, socklen_t length, const struct bind_options *options, struct errbuf *err)
{
    int family = address->any.sa_family;
    int backlog = options->backlog ? options->backlog : SOMAXCONN;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && set_flag(fd, SOL_SOCKET, SO_REUSEADDR) == 0 && set_flag(fd, IPPROTO_TCP, TCP_NODELAY) == 0 &&
        (!options->reuse_port || set_flag(fd, SOL_SOCKET, SO_REUSEPORT) == 0) &&
        (family != AF_INET6 || set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0) && set_keepalive(fd, options) == 0 &&
        set_interface(fd, options->interface) == 0 && bind(fd, &address->any, length) == 0 && listen(fd, backlog) == 0)
        return fd;

    int error = errno;
    char host[ADDRESS_TEXT];
    if (fd >= 0)
        close(fd);
    address_host(&address->any, length, host, sizeof host);
    errno = error;
    return errbuf_set(err, "cannot listen on %s port %u: %s", host, address_port(&address->any), bind_failure(address, error));
}

/* The kernel lacks the family, or it is one of two places where resolvers promise an IPv6 that is not there: the default of every
 * interface, and the ::1 of "localhost" in containers. */
static bool may_be_missing(const union inet_address *address, const char *host, int error)
{
    if (error == EAFNOSUPPORT)
        return true;
    return error == EADDRNOTAVAIL && address->any.sa_family == AF_INET6 &&
           (!host || (strcmp(host, "localhost") == 0 && IN6_IS_ADDR_LOOPBACK(&address->in6.sin6_addr)));
}

static bool is_duplicate(const struct addrinfo *list, const struct addrinfo *ai)
{
    for (; list != ai; list = list->ai_next)
        if (list->ai_addrlen == ai->ai_addrlen && memcmp(list->ai_addr, ai->ai_addr, ai->ai_addrlen) == 0)
            return true;
    return false;
}

static unsigned bound_port(int fd)
{
    union inet_address address = {.any.sa_family = AF_UNSPEC};
    socklen_t length = sizeof address;

    getsockname(fd, &address.any, &length);
    return address_port(&address.any);
}

struct binding {
    const char *host;
    const struct addrinfo *list;
    const struct bind_options *options;
    unsigned port; /* the one asked for; the first socket turns 0 into the number for all */
    int *fds;
    int count, max_fds;
};

static int bind_family(struct binding *b, int family, struct errbuf *err)
{
    for (const struct addrinfo *ai = b->list; ai; ai = ai->ai_next) {
        union inet_address address;

        if (ai->ai_family != family || is_duplicate(b->list, ai))
            continue;
        if (b->count == b->max_fds) {
            errno = E2BIG;
            return errbuf_set(err, "host \"%s\" has more than %d addresses", b->host ? b->host : "*", b->max_fds);
        }
        memcpy(&address, ai->ai_addr, ai->ai_addrlen);
        set_port(&address, b->port);
        int fd = open_listener(&address, ai->ai_addrlen, b->options, err);
        if (fd >= 0) {
            b->fds[b->count++] = fd;
            b->port = bound_port(fd);
        } else if (!may_be_missing(&address, b->host, errno)) {
            return -1;
        }
    }
    return 0;
}

/* IPv4 first: of two processes that bind the same set, one gets all of it. */
static int bind_all(struct binding *b, struct errbuf *err)
{
    b->port = address_port(b->list->ai_addr);
    b->count = 0;
    if (bind_family(b, AF_INET, err) == 0 && bind_family(b, AF_INET6, err) == 0 && b->count > 0)
        return b->count;

    int error = errno; /* with nothing bound it is that of the last address left out, and so is the text */
    while (b->count > 0)
        close(b->fds[--b->count]);
    errno = error;
    return -1;
}

int bind_sockets(const char *host, const char *port, const struct bind_options *options, int *fds, int max_fds, struct errbuf *err)
{
    static const struct bind_options defaults = {.family = AF_UNSPEC};

    if (!options)
        options = &defaults;
    struct addrinfo *list = look_up(host, port, options->family, err);
    if (!list)
        return -1;

    struct binding b = {.host = host, .list = list, .options = options, .fds = fds, .max_fds = max_fds};
    int attempts = address_port(list->ai_addr) == 0 ? PORT_ATTEMPTS : 1;
    int count;
    do /* again, since a number that is free in the first family may be taken in the next */
        count = bind_all(&b, err);
    while (count < 0 && errno == EADDRINUSE && --attempts > 0);

    int error = errno;
    freeaddrinfo(list);
    errno = error;
    return count;
}

/* ---- unix sockets ---- */

static bool is_file(const struct stat *status, const struct unix_file *file)
{
    return status->st_dev == file->device && status->st_ino == file->inode;
}

int unlink_unix_socket(const char *path, const struct unix_file *file)
{
    struct stat status;

    if (path[0] == '@')
        return 0;
    int result = lstat(path, &status);
    if (result == 0 && is_file(&status, file))
        result = unlink(path);
    return result != 0 && (errno == ENOENT || errno == ENOTDIR) ? 0 : result; /* whoever took it away did our work */
}

static int unix_failure(const char *path, int error, const char *reason, struct errbuf *err)
{
    errno = error;
    return errbuf_set(err, "cannot listen on unix socket \"%s\": %s", path, reason);
}

/* The length of the address, or 0. */
static socklen_t unix_address(const char *path, struct sockaddr_un *address, struct errbuf *err)
{
    size_t n = strlen(path), max = sizeof address->sun_path - 1;
    bool abstract = path[0] == '@';

    if (path[abstract] == '\0') {
        unix_failure(path, EINVAL, "it has no name", err);
        return 0;
    }
    if (n > max) {
        errno = ENAMETOOLONG;
        errbuf_set(err, "the path of unix socket \"%.64s...\" is too long: %zu bytes, and at most %zu fit", path, n, max);
        return 0;
    }
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, path, n);
    if (abstract)
        address->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + !abstract); /* a path counts with its NUL */
}

/* 0 when a server answered, or the error of the attempt. */
static int probe(const struct sockaddr_un *address, socklen_t length)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = fd < 0 || connect(fd, (const struct sockaddr *)address, length) != 0 ? errno : 0;

    if (fd >= 0)
        close(fd);
    return error;
}

/* Removes a socket that nobody answers on. `found` is open, so that its inode number cannot have become another file's meanwhile:
 * when two servers find the same stale socket, the slower one must not remove what the faster one has put in its place. */
static int remove_stale(int found, const struct sockaddr_un *address, socklen_t length, struct errbuf *err)
{
    const char *path = address->sun_path;
    struct stat status;

    if (fstat(found, &status) != 0)
        return unix_failure(path, errno, strerror(errno), err);
    if (!S_ISSOCK(status.st_mode))
        return unix_failure(path, EEXIST, "the file is not a socket", err);

    int error = probe(address, length);
    if (error == 0 || error == EAGAIN || error == EPROTOTYPE) /* accepted, in its backlog, or a live socket of another type */
        return unix_failure(path, EADDRINUSE, "a server is listening on it", err);
    if (error != ECONNREFUSED && error != ENOENT) {
        errno = error;
        return errbuf_set(err, "cannot tell if a server is listening on unix socket \"%s\": %s", path, strerror(error));
    }
    if (unlink_unix_socket(path, &(struct unix_file){status.st_dev, status.st_ino}) != 0)
        return errbuf_set(err, "cannot remove the stale unix socket \"%s\": %s", path, strerror(errno));
    return 0;
}

static int make_way(const struct sockaddr_un *address, socklen_t length, struct errbuf *err)
{
    int found = open(address->sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    if (found < 0)
        return errno == ENOENT ? 0 : unix_failure(address->sun_path, errno, strerror(errno), err);
    int result = remove_stale(found, address, length, err);
    close(found);
    return result;
}

/* Which file the socket was bound to, with exactly this mode. */
static int settle_file(const char *path, mode_t mode, struct unix_file *file)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        return -1;
    *file = (struct unix_file){status.st_dev, status.st_ino};
    /* bind took the umask away. Never through a symbolic link, which whoever owns the directory could have put there by now. */
    return (status.st_mode & ~S_IFMT) == mode ? 0 : fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW);
}

int bind_unix_socket(const char *path, mode_t mode, int backlog, struct unix_file *file, struct errbuf *err)
{
    struct sockaddr_un address;
    socklen_t length = unix_address(path, &address, err);
    bool abstract = path[0] == '@';

    *file = (struct unix_file){0};
    if (length == 0 || (!abstract && make_way(&address, length, err) != 0))
        return -1;

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* The file that bind makes takes its mode from the socket, so that it is never wider than asked for. */
    if (fd >= 0 && fchmod(fd, mode) == 0 && bind(fd, (struct sockaddr *)&address, length) == 0 &&
        (abstract || settle_file(path, mode, file) == 0) && listen(fd, backlog ? backlog : SOMAXCONN) == 0)
        return fd;

    int error = errno;
    unlink_unix_socket(path, file);
    if (fd >= 0)
        close(fd);
    return unix_failure(path, error, strerror(error), err);
}
