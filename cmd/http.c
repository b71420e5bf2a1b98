/* http.c - reads the head of a request. What is not exactly right is refused, and the connection with it. */
#include "http.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "values.h"

struct text {
    const char *bytes;
    size_t length;
};

const char *http_phrase(int status)
{
    switch (status) {
    case HTTP_OK:
        return "OK";
    case HTTP_NOT_FOUND:
        return "Not Found";
    case HTTP_METHOD_NOT_ALLOWED:
        return "Method Not Allowed";
    case HTTP_MISDIRECTED:
        return "Misdirected Request";
    case HTTP_HEAD_TOO_LARGE:
        return "Request Header Fields Too Large";
    case HTTP_FAILED:
        return "Internal Server Error";
    case HTTP_VERSION_NOT_SUPPORTED:
        return "HTTP Version Not Supported";
    default:
        return "Bad Request";
    }
}

static bool equals(struct text t, const char *word)
{
    return t.length == strlen(word) && memcmp(t.bytes, word, t.length) == 0;
}

static bool equals_in_any_case(struct text t, const char *word)
{
    return t.length == strlen(word) && strncasecmp(t.bytes, word, t.length) == 0;
}

/* RFC 9110, section 5.6.2 */
static bool is_token(struct text t)
{
    for (size_t i = 0; i < t.length; i++) {
        char c = t.bytes[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c))))
            return false;
    }
    return t.length > 0;
}

/* What stands before the separator, which is taken away with it; all of it if there is none. */
static struct text split(struct text *rest, char separator)
{
    const char *end = memchr(rest->bytes, separator, rest->length);
    struct text first = {rest->bytes, end ? (size_t)(end - rest->bytes) : rest->length};
    size_t taken = first.length + (end != NULL);
    *rest = (struct text){rest->bytes + taken, rest->length - taken};
    return first;
}

static struct text trim(struct text t)
{
    while (t.length && (t.bytes[0] == ' ' || t.bytes[0] == '\t'))
        t = (struct text){t.bytes + 1, t.length - 1};
    while (t.length && (t.bytes[t.length - 1] == ' ' || t.bytes[t.length - 1] == '\t'))
        t.length--;
    return t;
}

/* Host, or the authority of an absolute target: NAME, ADDRESS or [ADDRESS], and perhaps a port. */
static int take_host(struct http_request *r, struct text host)
{
    size_t end = host.length;
    while (end && host.bytes[end - 1] >= '0' && host.bytes[end - 1] <= '9')
        end--;
    if (end && host.bytes[end - 1] == ':')
        host.length = end - 1;
    if (host.length > 2 && host.bytes[0] == '[' && host.bytes[host.length - 1] == ']')
        host = (struct text){host.bytes + 1, host.length - 2};
    if (host.length == 0 || host.length >= sizeof r->host)
        return HTTP_BAD_REQUEST;
    for (size_t i = 0; i < host.length; i++) {
        char c = host.bytes[i];
        r->host[i] = (char)(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
        if (c <= ' ' || c > '~' || strchr("/\\@?#", c))
            return HTTP_BAD_REQUEST;
    }
    r->host[host.length] = '\0';
    return HTTP_OK;
}

static int take_target(struct http_request *r, struct text target)
{
    static const char scheme[] = "http://";
    int status = HTTP_OK;
    for (size_t i = 0; i < target.length; i++) {
        if (target.bytes[i] <= ' ' || target.bytes[i] > '~')
            return HTTP_BAD_REQUEST;
    }
    if (target.length > strlen(scheme) && strncasecmp(target.bytes, scheme, strlen(scheme)) == 0) { /* as proxies are asked */
        struct text rest = {target.bytes + strlen(scheme), target.length - strlen(scheme)};
        struct text authority = split(&rest, '/');
        status = take_host(r, authority);
        target = (struct text){authority.bytes + authority.length, target.length - strlen(scheme) - authority.length};
    }
    if (target.length == 0 || target.bytes[0] != '/')
        return HTTP_BAD_REQUEST;
    struct text path = split(&target, '?');
    if (path.length < sizeof r->path)
        memcpy(r->path, path.bytes, path.length);
    return status;
}

static int take_request_line(struct http_request *r, struct text line, bool *modern)
{
    struct text method = split(&line, ' '), target = split(&line, ' '), version = line;
    if (!is_token(method) || version.length != strlen("HTTP/1.1") || memcmp(version.bytes, "HTTP/", strlen("HTTP/")) != 0)
        return HTTP_BAD_REQUEST;
    *modern = equals(version, "HTTP/1.1");
    if (!*modern && !equals(version, "HTTP/1.0"))
        return HTTP_VERSION_NOT_SUPPORTED;
    r->head_only = equals(method, "HEAD");
    if (!r->head_only && !equals(method, "GET"))
        return HTTP_METHOD_NOT_ALLOWED;
    return take_target(r, target);
}

static void take_connection(struct http_request *r, struct text options)
{
    while (options.length) {
        struct text option = trim(split(&options, ','));
        if (equals_in_any_case(option, "close"))
            r->keep_alive = false;
        else if (equals_in_any_case(option, "keep-alive"))
            r->keep_alive = true;
    }
}

static int take_field(struct http_request *r, struct text line, int *hosts)
{
    struct text value = line, name = split(&value, ':');
    if (name.length == line.length || !is_token(name))
        return HTTP_BAD_REQUEST; /* folded lines, too */
    value = trim(value);
    if (memchr(value.bytes, '\n', value.length) || memchr(value.bytes, '\0', value.length))
        return HTTP_BAD_REQUEST;
    if (equals_in_any_case(name, "transfer-encoding") || (equals_in_any_case(name, "content-length") && !equals(value, "0")))
        return HTTP_BAD_REQUEST; /* what follows would be taken for the next request */
    if (equals_in_any_case(name, "connection"))
        take_connection(r, value);
    if (!equals_in_any_case(name, "host"))
        return HTTP_OK;
    if ((*hosts)++)
        return HTTP_BAD_REQUEST;
    return r->host[0] ? HTTP_OK : take_host(r, value); /* an absolute target goes before */
}

static int take_head(struct http_request *r, struct text head)
{
    bool modern = false;
    int hosts = 0;
    struct text line = split(&head, '\r');
    int status = take_request_line(r, line, &modern);
    r->keep_alive = modern;
    while (status == HTTP_OK && head.length >= 3) { /* "\n", and more than the empty line's "\r\n" */
        if (head.bytes[0] != '\n')
            return HTTP_BAD_REQUEST;
        head = (struct text){head.bytes + 1, head.length - 1};
        line = split(&head, '\r');
        if (line.length)
            status = take_field(r, line, &hosts);
    }
    if (status == HTTP_OK && modern && hosts != 1)
        return HTTP_BAD_REQUEST;
    return status;
}

int http_parse(struct http_request *r, const char *head, size_t length)
{
    *r = (struct http_request){0};
    int status = take_head(r, (struct text){head, length});
    if (status != HTTP_OK)
        r->keep_alive = false;
    return status;
}

bool http_host_is_ours(const char *host, const char *name)
{
    return is_ipv4(host) || is_ipv6(host) || strcmp(host, "localhost") == 0 || (name && strcasecmp(host, name) == 0);
}
