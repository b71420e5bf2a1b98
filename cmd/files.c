/* files.c - what is read from files. */
#include "files.h"

#include <unistd.h>

#include "report.h"

static int read_networks(struct networks **networks, const char *option, const char *const *rules, struct bundle *from, struct errbuf *err)
{
    struct errbuf why;
    if (!rules[0])
        return 0;
    *networks = networks_new(rules, from, &why);
    return *networks ? 0 : errbuf_set(err, "option --%s: %s", option, why.text);
}

int files_read(struct files *files, const struct settings *settings, struct bundle *from, struct errbuf *err)
{
    *files = (struct files){.settings = settings};
    if (read_networks(&files->allow, "allow", settings->allow, from, err) == 0 &&
        read_networks(&files->deny, "deny", settings->deny, from, err) == 0 &&
        read_networks(&files->proxies, "proxy-protocol", settings->proxies, from, err) == 0)
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

/* sealed: where to put what was read, or NULL. */
static int renew(struct files *files, struct ssl *ssl, struct bundle *from, bool tell, int *sealed, struct errbuf *err)
{
    struct files fresh;
    struct tls_context *context = NULL;
    if (files_read(&fresh, files->settings, from, err) != 0)
        return -1;
    if ((ssl->context && !(context = ssl_renew(ssl, from, tell, err))) || (sealed && (*sealed = bundle_seal(from, err)) < 0)) {
        files_release(&fresh);
        tls_context_free(context);
        return -1;
    }
    files_release(files);
    *files = fresh;
    ssl_use(ssl, context);
    return 0;
}

static int say_failure(const struct errbuf *why)
{
    report_error("reload: %s; everything stays as it was", why->text);
    return -1;
}

int files_reload(struct files *files, struct ssl *ssl, int *sealed)
{
    struct errbuf err;
    if (sealed)
        *sealed = -1;
    if (!ssl->context && !files->allow && !files->deny && !files->proxies)
        return 0;
    struct bundle *disk = bundle_new(&err);
    int result = disk ? renew(files, ssl, disk, true, sealed, &err) : -1;
    bundle_free(disk);
    if (result != 0)
        return say_failure(&err);
    ssl_rotate(ssl);
    log_reload(files, ssl);
    return 0;
}

int files_take(struct files *files, struct ssl *ssl, int sealed)
{
    struct errbuf err;
    struct bundle *from = bundle_open(sealed, &err);
    int result = from ? renew(files, ssl, from, false, NULL, &err) : -1;
    bundle_free(from);
    return result == 0 ? 0 : say_failure(&err);
}

bool files_admit(const struct files *files, const struct sockaddr *peer)
{
    if (peer->sa_family == AF_UNIX)
        return true;
    if (files->deny && networks_contain(files->deny, peer))
        return false;
    return !files->allow || networks_contain(files->allow, peer);
}
