/* environment.c - what a child finds in its environment: hark's own, less stale names, and the connection's variables in front. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_CONNECTION_VARIABLES = 24, VARIABLE_BYTES = 192 };

struct environment {
    char variables[MAX_CONNECTION_VARIABLES][VARIABLE_BYTES];
    char *long_variables[MAX_CONNECTION_VARIABLES]; /* in their place where they have no room there; from malloc, else NULL */
    unsigned count;
    char **block; /* MAX_CONNECTION_VARIABLES places, those that stay the same, NULL */
};

static bool begins_with_one_of(const char *variable, const char *const *names)
{
    for (; *names; names++) {
        if (strncmp(variable, *names, strlen(*names)) == 0)
            return true;
    }
    return false;
}

/* Names that mean one connection. */
static bool is_of_connection(const char *variable)
{
    static const char *const names[] = {
        "PROTO=",        "TCPCONNNUM=", "TCPCONCURRENCY=", "REMOTE_ADDR=", "REMOTE_PORT=",  "REMOTE_HOST=", "REMOTE_INFO=",
        "REMOTE_IDENT=", "HARK_ID=",    "SSL_ALPN=",       "SSL_CIPHER=",  "SSL_PROTOCOL=", "SSL_TLS_SNI=", "SSL_CLIENT_",
        "TCPLOCAL",      "TCPREMOTE",   "SSLLOCAL",        "SSLREMOTE",    "UNIXLOCAL",     "UNIXREMOTE",   NULL};
    return begins_with_one_of(variable, names);
}

/* Inherited from a server above us they would lie to the child, and so would what a service manager told this process alone. */
static bool is_stale(const char *variable)
{
    static const char *const names[] = {"NOTIFY_SOCKET=", "LISTEN_", "WATCHDOG_", "FDSTORE=", NULL};
    return is_of_connection(variable) || begins_with_one_of(variable, names);
}

int spawn_check_variable(const char *variable, struct errbuf *err)
{
    if (!strchr(variable, '=') || *variable == '=')
        return errbuf_set(err, "\"%s\" is not NAME=VALUE", variable);
    if (is_of_connection(variable))
        return errbuf_set(err, "\"%.*s\" is set by the connection", (int)strcspn(variable, "="), variable);
    return 0;
}

static bool same_name(const char *a, const char *b)
{
    size_t length = strcspn(a, "=");
    return strncmp(a, b, length + 1) == 0;
}

static bool is_replaced(const char *variable, char *const *variables)
{
    for (; variables && *variables; variables++) {
        if (same_name(*variables, variable))
            return true;
    }
    return false;
}

static size_t count(char *const *strings)
{
    size_t n = 0;
    while (strings && strings[n])
        n++;
    return n;
}

struct environment *environment_new(bool clear, char *const *variables)
{
    char *const *inherited = clear ? NULL : environ;
    struct environment *e = calloc(1, sizeof *e);
    char **block = calloc(MAX_CONNECTION_VARIABLES + count(inherited) + count(variables) + 1, sizeof *block);
    if (!e || !block) {
        free(e);
        free(block);
        return NULL;
    }
    e->block = block;
    char **next = block + MAX_CONNECTION_VARIABLES;
    for (; variables && *variables; variables++) {
        if (!is_replaced(*variables, variables + 1)) /* the last one counts */
            *next++ = *variables;
    }
    for (; inherited && *inherited; inherited++) {
        if (!is_stale(*inherited) && !is_replaced(*inherited, block + MAX_CONNECTION_VARIABLES))
            *next++ = *inherited;
    }
    return e;
}

static void forget_connection(struct environment *e)
{
    for (unsigned i = 0; i < e->count; i++) {
        free(e->long_variables[i]);
        e->long_variables[i] = NULL;
    }
    e->count = 0;
}

void environment_free(struct environment *e)
{
    if (!e)
        return;
    forget_connection(e);
    free(e->block);
    free(e);
}

static void __attribute__((format(printf, 2, 3))) set(struct environment *e, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(e->variables[e->count++], VARIABLE_BYTES, format, arguments);
    va_end(arguments);
}

static void set_long(void *arg, const char *name, const char *value)
{
    struct environment *e = arg;
    if (asprintf(&e->long_variables[e->count], "%s=%s", name, value) < 0)
        e->long_variables[e->count] = NULL;
    else
        e->count++;
}

static void set_remote(struct environment *e, const struct sockaddr *address, socklen_t length, bool secure)
{
    char host[ADDRESS_TEXT];
    unsigned port = address_port(address);
    address_host(address, length, host, sizeof host);
    set(e, "TCPREMOTEIP=%s", host);
    set(e, "TCPREMOTEPORT=%u", port);
    set(e, "REMOTE_ADDR=%s", host);
    set(e, "REMOTE_PORT=%u", port);
    if (!secure)
        return;
    set(e, "SSLREMOTEIP=%s", host);
    set(e, "SSLREMOTEPORT=%u", port);
}

static void set_local(struct environment *e, const struct sockaddr *address, socklen_t length, bool secure)
{
    char host[ADDRESS_TEXT];
    unsigned port = address_port(address);
    address_host(address, length, host, sizeof host);
    set(e, "TCPLOCALIP=%s", host);
    set(e, "TCPLOCALPORT=%u", port);
    if (!secure)
        return;
    set(e, "SSLLOCALIP=%s", host);
    set(e, "SSLLOCALPORT=%u", port);
}

static void set_tcp(struct environment *e, struct iostream *s, const struct sockaddr *peer, socklen_t length)
{
    struct sockaddr_storage local;
    socklen_t local_length;
    bool secure = iostream_tls(s);

    set(e, "PROTO=%s", secure ? "SSL" : "TCP");
    set_remote(e, peer, length, secure);
    if (iostream_server(s))
        set(e, "TCPCONNNUM=%u", tcpserver_connections_from(iostream_server(s), peer));
    if (iostream_local(s, &local, &local_length) == 0)
        set_local(e, (struct sockaddr *)&local, local_length, secure);
}

static void set_unix(struct environment *e, struct iostream *s)
{
    char path[ADDRESS_TEXT];
    struct sockaddr_storage local;
    socklen_t length;
    pid_t pid;
    uid_t uid;
    gid_t gid;

    set(e, "PROTO=%s", iostream_tls(s) ? "SSL" : "UNIX");
    if (iostream_local(s, &local, &length) == 0)
        set(e, "UNIXLOCALPATH=%s", address_host((struct sockaddr *)&local, length, path, sizeof path));
    if (iostream_peer_credentials(s, &pid, &uid, &gid) != 0)
        return;
    set(e, "UNIXREMOTEPID=%ld", (long)pid);
    set(e, "UNIXREMOTEEUID=%lu", (unsigned long)uid);
    set(e, "UNIXREMOTEEGID=%lu", (unsigned long)gid);
}

static void set_connection(struct environment *e, struct iostream *s)
{
    socklen_t length;
    const struct sockaddr *peer = iostream_peer(s, &length);
    if (peer->sa_family == AF_UNIX)
        set_unix(e, s);
    else
        set_tcp(e, s, peer, length);
    set(e, "HARK_ID=%llu", (unsigned long long)iostream_id(s));
    if (s->transport)
        tls_export(s->transport, set_long, e);
}

char **environment_for(struct environment *e, struct iostream *s)
{
    forget_connection(e);
    if (s)
        set_connection(e, s);
    char **block = e->block + MAX_CONNECTION_VARIABLES - e->count;
    for (unsigned i = 0; i < e->count; i++)
        block[i] = e->long_variables[i] ? e->long_variables[i] : e->variables[i];
    return block;
}
