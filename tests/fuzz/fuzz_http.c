/* Heads of HTTP requests: whatever comes, what is understood is whole, and what is refused does not keep the connection. */
#include <string.h>

#include "../../cmd/http.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request r;
    char *head = malloc(size ? size : 1); /* so that the sanitizer sees a byte too many */
    memcpy(head, data, size);
    int status = http_parse(&r, head, size);
    must_be(memchr(r.path, '\0', sizeof r.path) && memchr(r.host, '\0', sizeof r.host));
    must_be(strlen(http_phrase(status)) > 0);
    must_be(status == HTTP_OK || !r.keep_alive);
    must_be(status != HTTP_OK || r.path[0] == '/' || r.path[0] == '\0');
    must_be(!strpbrk(r.host, "ABCDEFGHIJKLMNOPQRSTUVWXYZ \r\n/@") || status != HTTP_OK);
    if (status == HTTP_OK && http_host_is_ours(r.host, NULL))
        must_be(strpbrk(r.host, ".:") || strcmp(r.host, "localhost") == 0);
    free(head);
    return 0;
}
