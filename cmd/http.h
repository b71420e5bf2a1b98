/* http.h - the head of an HTTP request, as much of it as a server needs that only shows things. Pure: bytes in, a verdict out. */
#ifndef HARK_HTTP_H
#define HARK_HTTP_H

#include <stdbool.h>
#include <stddef.h>

enum {
    HTTP_OK = 200,
    HTTP_BAD_REQUEST = 400,
    HTTP_NOT_FOUND = 404,
    HTTP_METHOD_NOT_ALLOWED = 405,
    HTTP_MISDIRECTED = 421,
    HTTP_HEAD_TOO_LARGE = 431,
    HTTP_FAILED = 500,
    HTTP_VERSION_NOT_SUPPORTED = 505
};
const char *http_phrase(int status);

enum { HTTP_PATH_BYTES = 64, HTTP_HOST_BYTES = 256 };

struct http_request {
    bool head_only;             /* HEAD */
    bool keep_alive;            /* the connection may be used again */
    char path[HTTP_PATH_BYTES]; /* without the query; "" if it is longer than any that there is */
    char host[HTTP_HOST_BYTES]; /* without port and brackets, in lower case; "": not said, in HTTP/1.0 */
};
/* The bytes up to and including the empty line (RFC 9112). HTTP_OK, or with what status to refuse it; keep_alive is false then. */
int http_parse(struct http_request *, const char *head, size_t length);

/* Whether a browser that believes to talk to `host` may be answered. A page from elsewhere whose name was made to point here (DNS
 * rebinding) has its own name there: so it has to be an address, localhost, or what this server is called (may be NULL). */
bool http_host_is_ours(const char *host, const char *name);

#endif
