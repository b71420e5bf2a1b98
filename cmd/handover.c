/* handover.c - files and the log, from the supervisor to its workers. */
#include "handover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "report.h"
#include "sink.h"

enum { FILES, LOG };

static void hand_out(int kind, int fd)
{
    if (fd >= 0)
        fork_hand_out(kind, fd);
}

void handover_files(struct files *files, struct ssl *ssl)
{
    int sealed;
    if (files_reload(files, ssl, &sealed) == 0)
        hand_out(FILES, sealed);
}

void handover_log(void)
{
    report_reopen();
    hand_out(LOG, sink_share());
}

int handover_take(struct files *files, struct ssl *ssl)
{
    int kind;
    for (int fd; (fd = fork_take(&kind)) >= 0;) {
        if (kind == LOG) {
            sink_take(fd);
        } else {
            files_take(files, ssl, fd);
            close(fd);
        }
    }
    if (errno == EMFILE)
        report_error("what the supervisor has read did not arrive: %s", strerror(errno));
    return errno == EPIPE ? -1 : 0;
}
