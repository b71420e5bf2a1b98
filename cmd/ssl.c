/* ssl.c - what the command line says of TLS, made into a context; and made again on reload. */
#include "ssl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "report.h"
#include "sink.h"

static void on_warning(void *unused, const char *text)
{
    (void)unused;
    report_warning("%s", text);
}

struct tls_context *ssl_renew(const struct ssl *ssl, struct bundle *files, bool tell, struct errbuf *err)
{
    const struct settings *s = ssl->settings;
    struct tls_options options = s->tls;
    options.certificates = ssl->identity ? s->certificates : s->certificates + 1;
    options.count = ssl->identity ? 1 : (unsigned)s->certificate_count;
    options.identity = ssl->identity;
    options.tickets = ssl->tickets;
    options.keylog_fd = ssl->keylog_fd;
    options.files = files;
    options.warning = tell ? on_warning : NULL;
    struct errbuf why;
    struct tls_context *context = tls_server_new(&options, &why);
    if (!context)
        errbuf_set(err, "TLS: %s", why.text);
    return context;
}

/* Once, since it may be for others to say where files can be made later. A pipe that nobody reads is an error, and does not hold us up. */
static int open_keylog(struct ssl *ssl, const char *path, bool check, struct errbuf *err)
{
    struct stat st;
    if (check && file_can_be_made(path))
        return 0;
    ssl->keylog_fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NONBLOCK | (check ? 0 : O_CREAT), 0600);
    if (ssl->keylog_fd < 0)
        return errbuf_set(err, "TLS: \"%s\": %s", path, strerror(errno));
    if (fstat(ssl->keylog_fd, &st) == 0 && !S_ISCHR(st.st_mode) && st.st_mode & S_IROTH)
        report_warning("\"%s\": everyone can read these secrets (chmod o-r)", path);
    return 0;
}

int ssl_open(struct ssl *ssl, const struct settings *settings, struct errbuf *err)
{
    *ssl = (struct ssl){.settings = settings};
    if (!settings_use_tls(settings))
        return 0;
    struct errbuf why;
    if (settings->self_signed && !(ssl->identity = tls_self_signed(settings->self_signed_name, &why)))
        return errbuf_set(err, "option --ssl-self-signed: %s", why.text);
    if (!settings->tls.ticket_keys_file && !(ssl->tickets = tls_tickets_new(err)))
        return -1;
    if (settings->keylog && open_keylog(ssl, settings->keylog, settings->check, err) != 0)
        return -1;
    ssl->context = ssl_renew(ssl, NULL, true, err);
    return ssl->context ? 0 : -1;
}

void ssl_log_certificate(const struct ssl *ssl)
{
    struct report r;
    if (!ssl->identity || !report_wants(REPORT_NORMAL))
        return;
    report_begin(&r, "certificate");
    report_text(&r, "names", tls_identity_names(ssl->identity));
    report_text(&r, "sha256", tls_identity_sha256(ssl->identity));
    report_end(&r);
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    bool written = write_all(fd, text, strlen(text));
    int error = errno;
    if (close(fd) == 0 && written)
        return 0;
    if (!written)
        errno = error;
    return -1;
}

int ssl_save_certificate(const struct ssl *ssl, struct errbuf *err)
{
    const char *path = ssl->settings->save_cert;
    if (!path)
        return 0;
    char *text = tls_identity_pem(ssl->identity);
    int result = text ? write_file(path, text) : -1;
    if (result != 0)
        errbuf_set(err, "option --ssl-save-cert: \"%s\": %s", path, strerror(errno));
    free(text);
    return result;
}

void ssl_use(struct ssl *ssl, struct tls_context *fresh)
{
    tls_context_free(ssl->context);
    ssl->context = fresh;
}

void ssl_rotate(struct ssl *ssl)
{
    if (ssl->tickets && tls_tickets_rotate(ssl->tickets) != 0)
        report_error("cannot make a new ticket key; the old ones stay");
}

void ssl_close(struct ssl *ssl)
{
    tls_context_free(ssl->context);
    tls_tickets_free(ssl->tickets);
    tls_identity_free(ssl->identity);
    if (ssl->keylog_fd > 0)
        close(ssl->keylog_fd);
    *ssl = (struct ssl){0};
}
