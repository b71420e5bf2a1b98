/* access_log.c - one line for each thing that becomes of a connection. */
#include "access_log.h"

#include <string.h>
#include <sys/wait.h>

#include "report.h"

static void report_peer(struct report *r, struct iostream *s)
{
    char text[ADDRESS_TEXT];
    socklen_t length;
    pid_t pid;
    uid_t uid;
    gid_t gid;
    const struct sockaddr *peer = iostream_peer(s, &length);

    report_number(r, "id", iostream_id(s));
    if (peer->sa_family != AF_UNIX) {
        report_text(r, "peer", address_text(peer, length, text, sizeof text));
        return;
    }
    report_text(r, "peer", "unix:");
    if (iostream_peer_credentials(s, &pid, &uid, &gid) != 0)
        return;
    report_number(r, "pid", (uint64_t)pid);
    report_number(r, "uid", uid);
    report_number(r, "gid", gid);
}

void access_log_accept(struct iostream *s)
{
    struct report r;
    struct sockaddr_storage local;
    socklen_t length;
    char text[ADDRESS_TEXT];
    if (!report_wants(REPORT_CONNECTIONS))
        return;
    report_begin(&r, "accept");
    report_peer(&r, s);
    if (iostream_local(s, &local, &length) == 0)
        report_text(&r, "local", address_text((struct sockaddr *)&local, length, text, sizeof text));
    report_end(&r);
}

static void report_child(struct report *r, const struct child_result *child)
{
    if (WIFSIGNALED(child->status))
        report_number(r, "signal", (uint64_t)WTERMSIG(child->status));
    else
        report_number(r, "status", (uint64_t)WEXITSTATUS(child->status));
    report_seconds(r, "cpu", child->cpu_seconds);
    report_number(r, "maxrss_kib", (uint64_t)child->max_rss_kib);
}

static void report_tls(struct report *r, const struct tls_info *tls)
{
    if (tls->version)
        report_text(r, "tls", tls->version);
    if (tls->cipher)
        report_text(r, "cipher", tls->cipher);
    if (tls->sni)
        report_text(r, "sni", tls->sni);
    if (tls->alpn)
        report_text(r, "alpn", tls->alpn);
    if (tls->client)
        report_text(r, "client", tls->client);
    if (report_wants(REPORT_DEBUG))
        report_text(r, "ktls",
                    tls->kernel_sends && tls->kernel_receives ? "both"
                    : tls->kernel_sends                       ? "send"
                    : tls->kernel_receives                    ? "receive"
                                                              : "off");
}

static void report_error_of(struct report *r, struct iostream *s)
{
    const struct tls_info *tls = iostream_tls(s);
    if (tls && tls->error)
        report_text(r, "error", tls->error);
    else if (iostream_error(s))
        report_text(r, "error", strerror(iostream_error(s)));
}

void access_log_reject(struct iostream *s, enum reject_reason reason)
{
    struct report r;
    if (!report_wants(REPORT_CONNECTIONS))
        return;
    report_begin(&r, "reject");
    report_peer(&r, s);
    report_text(&r, "reason", reject_reason_name(reason));
    if (iostream_tls(s) && iostream_tls(s)->sni)
        report_text(&r, "sni", iostream_tls(s)->sni);
    report_error_of(&r, s);
    report_end(&r);
}

void access_log_close(struct iostream *s, bool lends_sockets)
{
    struct report r;
    socklen_t length;
    const struct sockaddr *address = iostream_peer(s, &length);
    if (!report_wants(REPORT_CONNECTIONS))
        return;
    report_begin(&r, "close");
    report_peer(&r, s);
    report_text(&r, "reason", close_reason_name(iostream_reason(s)));
    if (!lends_sockets || address->sa_family != AF_UNIX) { /* what a child moves through a unix socket nobody counts */
        report_number(&r, "in", iostream_bytes_in(s));
        report_number(&r, "out", iostream_bytes_out(s));
    }
    report_seconds(&r, "seconds", iostream_seconds(s));
    if (iostream_tls(s))
        report_tls(&r, iostream_tls(s));
    if (iostream_child(s))
        report_child(&r, iostream_child(s));
    if (iostream_reason(s) == CLOSE_ERROR || iostream_reason(s) == CLOSE_TLS)
        report_error_of(&r, s);
    report_end(&r);
}

void access_log_refuse(const struct sockaddr *peer, socklen_t length, enum reject_reason reason)
{
    struct report r;
    char text[ADDRESS_TEXT];
    if (!report_wants(REPORT_CONNECTIONS))
        return;
    report_begin(&r, "reject");
    report_text(&r, "peer", address_text(peer, length, text, sizeof text));
    report_text(&r, "reason", reject_reason_name(reason));
    report_end(&r);
}
