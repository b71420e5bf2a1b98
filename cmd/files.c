/* files.c - what is read from files. */
#include "files.h"

#include "report.h"

static int read_networks(struct networks **networks, const char *option, const char *const *rules, struct errbuf *err)
{
    struct errbuf why;
    if (!rules[0])
        return 0;
    *networks = networks_new(rules, &why);
    return *networks ? 0 : errbuf_set(err, "option --%s: %s", option, why.text);
}

int files_read(struct files *files, const struct settings *settings, struct errbuf *err)
{
    *files = (struct files){.settings = settings};
    if (read_networks(&files->allow, "allow", settings->allow, err) == 0 && read_networks(&files->deny, "deny", settings->deny, err) == 0 &&
        read_networks(&files->proxies, "proxy-protocol", settings->proxies, err) == 0)
        return 0;
    files_release(files);
    return -1;
}

void files_release(struct files *files)
{
    networks_free(files->allow);
    networks_free(files->deny);
    networks_free(files->proxies);
    *files = (struct files){0};
}

static void log_reload(const struct files *files, const struct ssl *ssl)
{
    struct report r;
    if (!report_wants(REPORT_NORMAL))
        return;
    report_begin(&r, "reload");
    if (ssl->context)
        report_number(&r, "certificates", ssl->identity ? 1 : (uint64_t)files->settings->certificate_count);
    if (files->allow)
        report_number(&r, "allow", networks_rules(files->allow));
    if (files->deny)
        report_number(&r, "deny", networks_rules(files->deny));
    if (files->proxies)
        report_number(&r, "proxies", networks_rules(files->proxies));
    report_end(&r);
}

static int read_again(struct files *files, struct ssl *ssl, struct errbuf *err)
{
    struct files fresh;
    if (files_read(&fresh, files->settings, err) != 0)
        return -1;
    if (ssl->context && ssl_reload(ssl, err) != 0) {
        files_release(&fresh);
        return -1;
    }
    files_release(files);
    *files = fresh;
    return 0;
}

int files_reload(struct files *files, struct ssl *ssl, bool one)
{
    struct errbuf err;
    if (!ssl->context && !files->allow && !files->deny && !files->proxies)
        return 0;
    if (read_again(files, ssl, &err) != 0) {
        report_error("reload: %s; everything stays as it was", err.text);
        return -1;
    }
    if (!one)
        return 0;
    ssl_rotate(ssl);
    log_reload(files, ssl);
    return 0;
}

bool files_admit(const struct files *files, const struct sockaddr *peer)
{
    if (peer->sa_family == AF_UNIX)
        return true;
    if (files->deny && networks_contain(files->deny, peer))
        return false;
    return !files->allow || networks_contain(files->allow, peer);
}
