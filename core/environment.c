/* environment.c - what a child finds in its environment: hark's own, less stale names, and the connection's variables in front. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { MAX_CONNECTION_VARIABLES = 12, VARIABLE_BYTES = 192 };

struct environment {
    char variables[MAX_CONNECTION_VARIABLES][VARIABLE_BYTES];
    unsigned count;
    size_t inherited_count;
    char **block; /* MAX_CONNECTION_VARIABLES places, the inherited ones, NULL */
};

/* Names that mean one connection or one process. Inherited from a server above us, they would lie to the child. */
static bool is_stale(const char *variable)
{
    static const char *const names[] = {"PROTO=",       "TCPCONNNUM=",  "TCPCONCURRENCY=", "REMOTE_ADDR=",  "REMOTE_PORT=",
                                        "REMOTE_HOST=", "REMOTE_INFO=", "REMOTE_IDENT=",   "HARK_ID=",      "NOTIFY_SOCKET=",
                                        "SSL_ALPN=",    "SSL_CIPHER=",  "SSL_PROTOCOL=",   "SSL_TLS_SNI=",  "SSL_CLIENT_",
                                        "TCPLOCAL",     "TCPREMOTE",    "SSLLOCAL",        "SSLREMOTE",     "UNIXLOCAL",
                                        "UNIXREMOTE",   "LISTEN_PID",   "LISTEN_FD",       "WATCHDOG_PID=", "WATCHDOG_USEC="};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strncmp(variable, names[i], strlen(names[i])) == 0)
            return true;
    }
    return false;
}

struct environment *environment_new(void)
{
    size_t count = 0;
    while (environ[count])
        count++;
    struct environment *e = calloc(1, sizeof *e);
    char **block = calloc(MAX_CONNECTION_VARIABLES + count + 1, sizeof *block);
    if (!e || !block) {
        free(e);
        free(block);
        return NULL;
    }
    e->block = block;
    for (size_t i = 0; i < count; i++) {
        if (!is_stale(environ[i]))
            block[MAX_CONNECTION_VARIABLES + e->inherited_count++] = environ[i];
    }
    return e;
}

void environment_free(struct environment *e)
{
    if (e)
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

static void set_tcp(struct environment *e, const struct iostream *s, const struct sockaddr *peer, socklen_t length)
{
    char host[ADDRESS_TEXT];
    struct sockaddr_storage local;
    socklen_t local_length;

    set(e, "PROTO=TCP");
    address_host(peer, length, host, sizeof host);
    set(e, "TCPREMOTEIP=%s", host);
    set(e, "TCPREMOTEPORT=%u", address_port(peer));
    set(e, "REMOTE_ADDR=%s", host);
    set(e, "REMOTE_PORT=%u", address_port(peer));
    if (iostream_local(s, &local, &local_length) != 0)
        return;
    address_host((struct sockaddr *)&local, local_length, host, sizeof host);
    set(e, "TCPLOCALIP=%s", host);
    set(e, "TCPLOCALPORT=%u", address_port((struct sockaddr *)&local));
}

char **environment_for(struct environment *e, const struct iostream *s)
{
    socklen_t length;
    const struct sockaddr *peer = iostream_peer(s, &length);

    e->count = 0;
    if (peer->sa_family == AF_UNIX)
        set(e, "PROTO=UNIX");
    else
        set_tcp(e, s, peer, length);
    set(e, "HARK_ID=%llu", (unsigned long long)iostream_id(s));
    char **block = e->block + MAX_CONNECTION_VARIABLES - e->count;
    for (unsigned i = 0; i < e->count; i++)
        block[i] = e->variables[i];
    return block;
}
