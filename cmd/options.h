/* options.h - the command line: read with the table in options.def into a struct settings.
 *
 * Adding an option: one row in options.def and the field it fills below. The parser, --help, the manual and the completions
 * follow (`make man` rewrites what is committed of them); what an option means together with others is checked in options.c. */
#ifndef HARK_OPTIONS_H
#define HARK_OPTIONS_H

#include "../handlers/handlers.h"
#include "activation.h"

#include <stdio.h>

/* One thing to listen on: a TCP port (number or service name) or a unix socket ("@name" when abstract). */
struct endpoint {
    const char *port, *unix_path; /* one of them is NULL */
};

struct settings {
    struct activation handed_over;
    struct endpoint *endpoints; /* --port and --unix, in the order of the command line */
    int endpoint_count;
    char **binds; /* --bind, without brackets; every port goes with every one of them; none: every interface */
    int bind_count;
    int family; /* AF_UNSPEC, AF_INET, AF_INET6 */
    mode_t unix_mode;
    int backlog; /* 0 = SOMAXCONN */
    bool reuse_port;
    int ready_fd;          /* -1 unless given */
    int processes;         /* 0 = one a CPU */
    int max_restarts;      /* 0 = no limit */
    const char *interface; /* --interface */
    bool once;
    int max_accepts;  /* 0 = no limit; 1 with --once */
    double exit_idle; /* seconds; 0 = never */
    const struct handler *handler;
    char **handler_arguments; /* the rest of argv, up to its NULL */
    int balance;              /* --balance: an enum balance_policy */
    double connect_timeout;   /* seconds */
    int send_proxy;           /* version of the PROXY header; 0 = none */
    bool recv_only, send_only;
    int exec_io;           /* --exec-io: 0 auto, 1 socket, 2 pipe */
    int stderr_to;         /* --stderr: an enum spawn_stderr */
    const char *directory; /* --chdir */
    char **variables;      /* --setenv, up to a NULL */
    int variable_count;
    bool clear_environment;
    double kill_after; /* seconds */
    int warm;
    /* --ssl-cert and what stands before and after each: [0] is what stands before the first, [1] the first itself; see ssl.h. */
    struct tls_certificate *certificates;
    int certificate_count;
    struct tls_options tls; /* what all certificates share */
    bool self_signed;
    const char *self_signed_name; /* NULL: none but the usual ones */
    const char *save_cert, *keylog;
    double handshake_timeout; /* seconds */
    int max_handshakes;
    bool forward_ssl, forward_insecure;
    const char *forward_ca, *forward_name;
    size_t max_buffer_bytes;
    const char **allow, **deny, **proxies; /* rules, up to a NULL */
    double timers[IOSTREAM_TIMERS];        /* --idle-timeout, --half-close-timeout, --max-lifetime */
    int max_connections;                   /* over all processes; 0 = no limit; -1 unless given: the handler's default */
    int max_per_ip, max_rate;              /* 0 = no limit */
    int keepalive[3];                      /* --keepalive: seconds idle, between probes, and how many; 0 = the system's */
    const char *user, *root;               /* --user, --chroot */
    struct endpoint metrics;               /* --metrics; both NULL: none */
    char *metrics_host;
    double drain_timeout; /* seconds; 0 = no limit */
    bool sandbox;
    int verbosity;      /* -1 quiet, 0, 1 connections, 2 debugging */
    int json;           /* --log-format: 0 text, 1 json */
    const char *log_to; /* stderr, syslog, or a path */
    bool check;
};

enum { OPTIONS_BAD = -1, OPTIONS_RUN, OPTIONS_HELP, OPTIONS_VERSION };

/* Reads and checks the command line; on OPTIONS_BAD errbuf says what is wrong and what would be right. The settings point into argv,
 * and are to be released whatever the result. --help and --version end the reading. */
int options_parse(int argc, char **argv, struct settings *, struct errbuf *);
void settings_release(struct settings *);
bool settings_have_metrics(const struct settings *);
bool settings_use_tls(const struct settings *);
/* There is a parent that keeps the rights and does what serving processes cannot: with several, and where they give rights up. */
bool settings_need_supervisor(const struct settings *);
void options_help(FILE *);
/* Time limits on unix sockets: the kernel does not tell when bytes moved there, so hark has to see them. */
bool settings_watch_bytes(const struct settings *);

/* ---- the table, for what is made from it (help.c, suggest.c, optdoc.c) ---- */

enum option_group { GROUP_LISTENING, GROUP_HANDLERS, GROUP_STREAMS, GROUP_TLS, GROUP_SAYING, OPTION_GROUPS };

enum option_type {
    TYPE_FLAG,        /* bool */
    TYPE_SET,         /* int: .value */
    TYPE_COUNT,       /* int: one more each time, up to .high */
    TYPE_NUMBER,      /* int */
    TYPE_DESCRIPTOR,  /* int: open for writing */
    TYPE_MODE,        /* mode_t, octal */
    TYPE_SIZE,        /* size_t */
    TYPE_CHOICE,      /* int: .value, plus which of the words in .argument, which `|` separates */
    TYPE_PORT,        /* an endpoint */
    TYPE_PATH,        /* an endpoint */
    TYPE_ADDRESS,     /* one more of binds */
    TYPE_DIRECTORY,   /* const char *: one that exists */
    TYPE_FILE,        /* const char *: a path */
    TYPE_TEXT,        /* const char * */
    TYPE_CERTIFICATE, /* one more of certificates */
    TYPE_NAME,        /* bool self_signed; its value is optional */
    TYPE_VARIABLE,    /* one more of variables */
    TYPE_RULE,        /* const char **: one more */
    TYPE_TIME,        /* double: seconds */
    TYPE_KEEPALIVE,   /* int[3] */
    TYPE_METRICS,     /* metrics and metrics_host */
    TYPE_INTERFACE,   /* const char *: of a network interface that exists */
    TYPE_HANDLER,
    TYPE_HELP,
    TYPE_VERSION
};

struct option {
    enum option_group group;
    char letter; /* 0: none */
    const char *name;
    const char *argument; /* what help calls it, in brackets if it may be left out; NULL: takes none */
    enum option_type type;
    size_t field;         /* offset in struct settings, where the type says no other place */
    const char *help;     /* one line of --help */
    const char *manual;   /* sentences that only the manual has, a line each */
    const char *initial;  /* the default, as one would type it */
    long long low, high;  /* bounds */
    int value;            /* of TYPE_SET; of TYPE_CHOICE the first word's */
    bool of_certificate;  /* field is in the certificate that it follows */
    const char *handler;  /* the handlers it belongs to, as words */
    const char *needs;    /* has no effect without that option, or one of those ("a or b") */
    const char *excludes; /* contradicts that option */
};

extern const struct option option_table[]; /* ends with a NULL name */

/* Whether it adds up when repeated; of other options the last one counts. */
bool option_repeats(const struct option *);
const char *option_group_title(enum option_group);
/* Its help, with its default. */
const char *option_summary(const struct option *, char *text, size_t size);
/* Its name as one types it: "--port PORT", "--name[=NAME]". */
const char *option_typed(const struct option *, char *text, size_t size);
/* Prints words, from column `column` on, in lines of at most `width` columns indented by `indent`. */
void print_wrapped(FILE *, const char *text, int column, int indent, int width);

#endif
