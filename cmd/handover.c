/* handover.c - files and the log, from the supervisor to its workers. */
#include "handover.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "report.h"
#include "sink.h"

enum { FILES, LOG };

void handover_files(struct files *files, struct ssl *ssl)
{
    int sealed;
    fork_hand_out(FILES, files_reload(files, ssl, &sealed) == 0 ? sealed : -1);
}

void handover_log(void)
{
    report_reopen();
    fork_hand_out(LOG, sink_share());
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
