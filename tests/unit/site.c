#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>

#include "site.h"

struct site site;

void tell(const char *format, ...)
{
    size_t used = strlen(site.told);
    va_list arguments;
    if (used > 0)
        site.told[used++] = ' ';
    va_start(arguments, format);
    vsnprintf(site.told + used, sizeof site.told - used, format, arguments);
    va_end(arguments);
}

void expect_told(const char *words)
{
    run_until(strlen(site.told) >= strlen(words));
    assert_string_equal(site.told, words);
    *site.told = '\0';
}

void look_inside(const char *callback)
{
    if (site.inside)
        site.inside(callback);
}

static void look_inside_with(const char *callback, struct iostream *s)
{
    site.subject = s;
    look_inside(callback);
    site.subject = NULL;
}

static void in_stream(struct party *p, const char *word)
{
    look_inside_with(word, p->stream);
}

int handle_stream(struct tcpserver *server, struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    assert_ptr_equal(server, site.server);
    assert_ptr_equal(iostream_server(s), server);
    assert_true(site.served < site.dialled);
    unsigned connections = tcpserver_connections(server);
    site.most = connections > site.most ? connections : site.most;
    struct party *p = site.parties[site.served] = host(s);
    p->far = (struct ends){site.clients[site.served], site.clients[site.served]};
    site.clients[site.served++] = -1;
    p->inside = in_stream;
    int result = site.serve ? site.serve(p) : 0;
    look_inside_with("handle", s);
    return result;
}

bool refuse(const struct sockaddr *address, socklen_t length, void *arg)
{
    char text[ADDRESS_TEXT];
    assert_ptr_equal(arg, &site);
    tell("refuse:%s", address_host(address, length, text, sizeof text));
    look_inside("refuse");
    return site.refusing;
}

void refused(const struct sockaddr *address, socklen_t length, enum reject_reason reason, void *arg)
{
    char text[ADDRESS_TEXT];
    assert_ptr_equal(arg, &site);
    tell("refused:%s:%s", address_host(address, length, text, sizeof text), reject_reason_name(reason));
    look_inside("refused");
}

void stream_closed(struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    tell("closed:%d/%s", (int)iostream_id(s), close_reason_name(iostream_reason(s)));
    look_inside_with("closed", s);
}

void rejected(struct iostream *s, void *arg)
{
    assert_ptr_equal(arg, &site);
    tell("rejected:%s", close_reason_name(iostream_reason(s)));
    look_inside_with("rejected", s);
}

bool is_proxied(const struct sockaddr *address, socklen_t length, void *arg)
{
    (void)address, (void)length;
    assert_ptr_equal(arg, &site);
    look_inside("is_proxied");
    return site.proxied;
}

void exhausted(void *arg, int error)
{
    assert_ptr_equal(arg, &site);
    tell("exhausted:%s", strerrorname_np(error));
    look_inside("exhausted");
}

void empty(void *arg)
{
    assert_ptr_equal(arg, &site);
    tell("empty");
    look_inside("empty");
}

void close_site(void)
{
    if (site.server)
        tcpserver_free(site.server);
    for (int i = 0; i < site.dialled; i++) {
        if (site.clients[i] >= 0)
            close(site.clients[i]);
    }
    memset(&site, 0, sizeof site);
}

int set_up_site(void **state)
{
    int result = set_up(state);
    memset(&site, 0, sizeof site);
    at_tear_down = close_site;
    return result;
}

void open_site_on(struct ev_loop *on, const struct tcpserver_options *options)
{
    struct errbuf err = {""};
    site.server = tcpserver_new(on, handle_stream, &site, options, &err);
    assert_string_equal(err.text, "");
    assert_ptr_equal(tcpserver_loop(site.server), on);
}

void listen_on_any_port(void)
{
    struct errbuf err = {""};
    site.port = tcpserver_listen(site.server, "127.0.0.1", "0", NULL, &err);
    assert_string_equal(err.text, "");
    assert_true(site.port > 0);
}

void open_site(const struct tcpserver_options *options)
{
    open_site_on(loop, options);
    listen_on_any_port();
}

int dial_port(int port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

/* The kernel takes them in: the server may know of them or not. */
void dial_site(int count)
{
    while (count-- > 0) {
        assert_true(site.dialled < MANY);
        site.clients[site.dialled] = dial_port(site.port);
        assert_true(site.clients[site.dialled++] >= 0);
    }
}

void dial_and_serve(int count)
{
    dial_site(count);
    run_until(site.served == site.dialled);
}

void assert_nobody_listens(void)
{
    errno = 0;
    assert_int_equal(dial_port(site.port), -1);
    assert_int_equal(errno, ECONNREFUSED);
}

void hang_up(int i)
{
    far_reset(site.parties[i]);
    expect(site.parties[i], "end:reset/ECONNRESET");
}

int watch(struct party *p)
{
    iostream_watch(p->stream);
    return 0;
}

void limit_descriptors_to_what_is_open(struct rlimit *before)
{
    int next = dup(STDIN_FILENO);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, before), 0);
    const struct rlimit now = {.rlim_cur = (rlim_t)next, .rlim_max = before->rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
}
