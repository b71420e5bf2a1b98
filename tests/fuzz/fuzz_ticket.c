/* Files of ticket keys: whatever is in them, they are taken or there is a reason. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../core/tls.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tls_tickets *tickets;
    struct errbuf err = {.text = ""};
    char path[64];
    if (!tickets)
        tickets = tls_tickets_new(&err);
    must_be(tickets);
    int fd = memfd_create("ticket keys", MFD_CLOEXEC);
    must_be(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct bundle *files = bundle_new(&err);
    must_be(files);
    int result = tls_tickets_load(tickets, files, path, &err);
    bundle_free(files);
    must_be(result == 0 ? !*err.text : *err.text && memchr(err.text, '\0', sizeof err.text));
    close(fd);
    return 0;
}
