/* site.h - what the tests of the server share: one with its clients, in the order in which they have come, and callbacks that keep a diary
 * of the server's own. */
#ifndef TEST_SITE_H
#define TEST_SITE_H

#include <sys/resource.h>

#include "../../core/shared.h"
#include "harness.h"

enum { MANY = 40 };

struct site {
    struct tcpserver *server;
    int port;
    int clients[MANY]; /* those without a stream yet; -1: it is its party's far end now */
    int dialled, served;
    struct party *parties[MANY];
    int (*serve)(struct party *);
    char told[DIARY_BYTES]; /* by callbacks of the server */
    unsigned most;          /* connections at once */
    void (*inside)(const char *callback);
    struct iostream *subject; /* which the callback is about; NULL: none */
    bool refusing, proxied;
};
extern struct site site;

#define SITE_TEST(function) cmocka_unit_test_setup_teardown(function, set_up_site, tear_down)
int set_up_site(void **);
void close_site(void);
void open_site(const struct tcpserver_options *); /* it listens */
void open_site_on(struct ev_loop *, const struct tcpserver_options *);
void listen_on_any_port(void);

/* The server's diary: refuse:HOST refused:HOST:REASON closed:ID/REASON rejected:REASON exhausted:ERRNO empty */
void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));
void expect_told(const char *words); /* the loop runs until it is that long */

/* For tcpserver_new and its options; each looks inside, too. */
int handle_stream(struct tcpserver *, struct iostream *, void *arg);
bool refuse(const struct sockaddr *, socklen_t, void *arg);
void refused(const struct sockaddr *, socklen_t, enum reject_reason, void *arg);
bool is_proxied(const struct sockaddr *, socklen_t, void *arg);
void rejected(struct iostream *, void *arg);
void stream_closed(struct iostream *, void *arg);
void exhausted(void *arg, int error);
void empty(void *arg);
void look_inside(const char *callback);

int dial_port(int port);   /* -1 with errno */
void dial_site(int count); /* the kernel takes them in: the server may know of them or not */
void dial_and_serve(int count);
void hang_up(int i); /* a reset, which is noticed if somebody looks */
int watch(struct party *);
void assert_nobody_listens(void);
void limit_descriptors_to_what_is_open(struct rlimit *before);

#endif
