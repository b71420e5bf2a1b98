/* options.c - reads the command line by the table, and checks what one option means to another. */
#include "options.h"

#include <stdlib.h>
#include <string.h>

#include "suggest.h"
#include "values.h"

#define FIELD(member) offsetof(struct settings, member)
#define CERTIFICATE(member) offsetof(struct tls_certificate, member), .of_certificate = true
#define NONE 0
#define OPTION(group_, letter_, name_, argument_, type_, field_, help_, ...) \
    {.group = GROUP_##group_,                                                \
     .letter = letter_,                                                      \
     .name = name_,                                                          \
     .argument = argument_,                                                  \
     .type = TYPE_##type_,                                                   \
     .field = field_,                                                        \
     .help = help_,                                                          \
     __VA_ARGS__},
const struct option option_table[] = {
#include "options.def"
    {.name = NULL}};

struct parser {
    char **argv;
    int next; /* the word after the one being read; argv ends with NULL */
    struct settings *settings;
    struct errbuf *err;
    bool given[sizeof(option_table) / sizeof(option_table[0])];
};

bool option_repeats(const struct option *option)
{
    return option->type == TYPE_COUNT || option->type == TYPE_PORT || option->type == TYPE_PATH || option->type == TYPE_ADDRESS ||
           option->type == TYPE_VARIABLE || option->type == TYPE_RULE || option->type == TYPE_CERTIFICATE || option->of_certificate;
}

/* ---- words ---- */

static const struct option *find_name(const char *name, size_t length)
{
    for (const struct option *option = option_table; option->name; option++)
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0)
            return option;
    return NULL;
}

static const struct option *find_letter(char letter)
{
    for (const struct option *option = option_table; option->name; option++)
        if (option->letter && option->letter == letter)
            return option;
    return NULL;
}

static bool given(const struct parser *parser, const char *name)
{
    return parser->given[find_name(name, strlen(name)) - option_table];
}

static int apply(struct parser *parser, const struct option *option, const char *value)
{
    if (option->type == TYPE_HELP)
        return OPTIONS_HELP;
    if (option->type == TYPE_VERSION)
        return OPTIONS_VERSION;
    parser->given[option - option_table] = true;
    return option_setters[option->type](parser->settings, option, value, parser->err) == 0 ? OPTIONS_RUN : OPTIONS_BAD;
}

static int apply_next_word(struct parser *parser, const struct option *option)
{
    const char *value = parser->argv[parser->next];

    if (!value)
        return errbuf_set(parser->err, "option --%s needs a value: --%s %s", option->name, option->name, option->argument);
    parser->next++;
    return apply(parser, option, value);
}

/* --name, --name VALUE or --name=VALUE. */
static int parse_long(struct parser *parser, const char *word)
{
    const char *name = word + 2, *equals = strchr(name, '=');
    const struct option *option = find_name(name, strcspn(name, "="));

    if (!option)
        return suggest_long(word, parser->argv + parser->next, parser->err);
    if (!option->argument && equals)
        return errbuf_set(parser->err, "option --%s takes no value", option->name);
    if (option->argument && option->argument[0] != '[' && !equals)
        return apply_next_word(parser, option);
    return apply(parser, option, equals ? equals + 1 : NULL);
}

/* -p VALUE, -pVALUE, or letters that take no value, and then perhaps one that does: -vvp VALUE. */
static int parse_short(struct parser *parser, const char *word)
{
    for (const char *letter = word + 1; *letter; letter++) {
        const struct option *option = find_letter(*letter);
        if (!option || find_name(word + 1, strcspn(word + 1, "=")))
            return suggest_short(word, letter, parser->argv + parser->next, parser->err);
        if (option->argument)
            return letter[1] ? apply(parser, option, letter + 1) : apply_next_word(parser, option);
        int status = apply(parser, option, NULL);
        if (status != OPTIONS_RUN)
            return status;
    }
    return OPTIONS_RUN;
}

/* Options end at "--" or at the first word that is none. */
static int parse_words(struct parser *parser)
{
    char *word;
    int status = OPTIONS_RUN;

    while (status == OPTIONS_RUN && (word = parser->argv[parser->next]) && word[0] == '-' && word[1]) {
        parser->next++;
        if (strcmp(word, "--") == 0)
            break;
        status = word[1] == '-' ? parse_long(parser, word) : parse_short(parser, word);
    }
    parser->settings->handler_arguments = parser->argv + parser->next;
    return status;
}

/* ---- what options mean to each other ---- */

static int check_arguments(const struct settings *settings, struct errbuf *err)
{
    const struct handler *handler = settings->handler;
    bool takes = handler->arguments[0] != '\0', needs = takes && handler->arguments[0] != '[';

    if (!takes && settings->handler_arguments[0] && settings->self_signed && !settings->self_signed_name)
        return errbuf_set(err, "unexpected argument \"%s\": handler %s takes none; if the certificate is for it, type --ssl-self-signed=%s",
                          settings->handler_arguments[0], handler->name, settings->handler_arguments[0]);
    if (!takes && settings->handler_arguments[0])
        return suggest_words(handler->name, settings->endpoint_count > 0, settings->handler_arguments, err);
    if (needs && !settings->handler_arguments[0])
        return errbuf_set(err, "handler %s needs arguments: --handler %s %s", handler->name, handler->name, handler->arguments);
    return 0;
}

/* One that was accepted already. */
static int check_connection(const struct settings *settings, struct errbuf *err)
{
    const struct endpoint *e = &settings->endpoints[0];

    if (settings->endpoint_count > 0)
        return errbuf_set(err, "option --%s %s has no effect: a connection was handed over (LISTEN_FDS), which is all that will be served",
                          e->port ? "port" : "unix", e->port ? e->port : e->unix_path);
    if (settings_have_metrics(settings))
        return errbuf_set(err, "option --metrics does not go with a connection that was handed over (LISTEN_FDS)");
    if (settings->processes != 1)
        return errbuf_set(err, "option --processes has no effect: a connection was handed over (LISTEN_FDS)");
    return 0;
}

static int check_endpoints(struct settings *settings, struct errbuf *err)
{
    const char *first = settings->handler_arguments[0];

    if (activation_read(&settings->handed_over, err) != 0)
        return -1;
    if (settings->handed_over.connected >= 0)
        return check_connection(settings, err);
    if (settings->endpoint_count > 0 || settings->handed_over.listening > 0)
        return 0;
    if (first)
        return errbuf_set(err, "nothing to listen on: give --port PORT or --unix PATH, before \"%s\"", first);
    return errbuf_set(err, "nothing to listen on: give --port PORT or --unix PATH (hark --help shows more)");
}

static bool has_word(const char *words, const char *word)
{
    static const char between[] = " ,";
    size_t length = strlen(word);

    for (words += strspn(words, between); *words; words += strcspn(words, between), words += strspn(words, between))
        if (strcspn(words, between) == length && strncmp(words, word, length) == 0)
            return true;
    return false;
}

/* "a or b": is one of them given? */
static bool given_one_of(const struct parser *parser, const char *names)
{
    for (const struct option *option = option_table; option->name; option++)
        if (parser->given[option - option_table] && has_word(names, option->name))
            return true;
    return false;
}

static int lacks(const struct parser *parser, const struct option *option)
{
    const char *other = strstr(option->needs, " or ");
    int first = other ? (int)(other - option->needs) : (int)strlen(option->needs);

    return errbuf_set(parser->err, "option --%s has no effect without --%.*s%s%s", option->name, first, option->needs,
                      other ? " or --" : "", other ? other + strlen(" or ") : "");
}

/* What the table says of one option. */
static int check_option(const struct parser *parser, const struct option *option)
{
    const char *handler = parser->settings->handler->name;

    if (option->handler && !has_word(option->handler, handler))
        return errbuf_set(parser->err, "option --%s is for --handler %s, not for %s", option->name, option->handler, handler);
    if (option->needs && !given_one_of(parser, option->needs))
        return lacks(parser, option);
    if (option->excludes && given(parser, option->excludes))
        return errbuf_set(parser->err, "options --%s and --%s contradict each other", option->name, option->excludes);
    return 0;
}

static int check_table(const struct parser *parser)
{
    for (const struct option *option = option_table; option->name; option++)
        if (parser->given[option - option_table] && check_option(parser, option) != 0)
            return -1;
    return 0;
}

static int check_family(const struct settings *settings, struct errbuf *err)
{
    for (int i = 0; i < settings->bind_count; i++) {
        const char *host = settings->binds[i];
        if (settings->family == AF_INET && is_ipv6(host))
            return errbuf_set(err, "option --ipv4 rules out --bind %s, an IPv6 address", host);
        if (settings->family == AF_INET6 && is_ipv4(host))
            return errbuf_set(err, "option --ipv6 rules out --bind %s, an IPv4 address", host);
    }
    return 0;
}

static int check_unix_mode(const struct parser *parser)
{
    const struct settings *settings = parser->settings;

    if (!given(parser, "unix-mode"))
        return 0;
    for (int i = 0; i < settings->endpoint_count; i++)
        if (settings->endpoints[i].unix_path && settings->endpoints[i].unix_path[0] != '@')
            return 0;
    return errbuf_set(parser->err, "option --unix-mode has no effect on abstract sockets");
}

static int check_processes(const struct parser *parser)
{
    const struct settings *settings = parser->settings;
    bool one_at_a_time = settings->once || settings->handler->flags & HANDLER_ONE_AT_A_TIME;

    if (settings->once && settings->processes != 1)
        return errbuf_set(parser->err, "option --once needs --processes 1");
    if (one_at_a_time && settings->processes != 1)
        return errbuf_set(parser->err, "handler %s serves one connection at a time and needs --processes 1", settings->handler->name);
    if (given(parser, "max-restarts") && !settings_need_supervisor(settings))
        return errbuf_set(parser->err, "option --max-restarts has no effect with one process; give --processes 2 or more");
    return 0;
}

/* Limits that could never strike. */
static int check_limits(const struct parser *parser)
{
    static const char *const of_several[] = {"max-connections", "max-per-ip"};
    const struct settings *settings = parser->settings;
    bool one_at_a_time = settings->once || settings->handler->flags & HANDLER_ONE_AT_A_TIME;

    for (size_t i = 0; one_at_a_time && i < sizeof of_several / sizeof *of_several; i++)
        if (given(parser, of_several[i]))
            return errbuf_set(parser->err, "option --%s has no effect with %s, which serves one connection at a time", of_several[i],
                              settings->once ? "--once" : settings->handler->name);
    return 0;
}

static bool has_unix_socket(const struct settings *settings)
{
    for (int i = 0; i < settings->endpoint_count; i++)
        if (settings->endpoints[i].unix_path)
            return true;
    return false;
}

bool settings_watch_bytes(const struct settings *settings)
{
    return has_unix_socket(settings) && (settings->timers[TIMER_IDLE] > 0 || settings->timers[TIMER_HALF_CLOSE] > 0);
}

static int check_ready_fd(const struct settings *settings, struct errbuf *err)
{
    if (settings->handler == &stdio_handler && (settings->ready_fd == 0 || settings->ready_fd == 1))
        return errbuf_set(err, "option --ready-fd: handler stdio uses descriptor %d itself; take another, such as 3", settings->ready_fd);
    if (settings->ready_fd >= FIRST_HANDED_OVER && settings->ready_fd < FIRST_HANDED_OVER + settings->handed_over.listening)
        return errbuf_set(err, "option --ready-fd: descriptor %d is a socket to listen on (LISTEN_FDS)", settings->ready_fd);
    return 0;
}

static int check_programs(const struct settings *settings, struct errbuf *err)
{
    if (settings_use_tls(settings) && settings->exec_io == 1)
        return errbuf_set(err, "option --exec-io socket and TLS contradict each other: the program would get what is encrypted");
    if (settings->warm > 0 && settings->exec_io == 1)
        return errbuf_set(err, "options --warm and --exec-io socket contradict each other: a waiting program has pipes");
    if (settings->exec_io == 1 && settings_watch_bytes(settings))
        return errbuf_set(err,
                          "option --%s does not work with --exec-io socket on unix sockets, where nobody sees the bytes: leave "
                          "--exec-io out",
                          settings->timers[TIMER_IDLE] > 0 ? "idle-timeout" : "half-close-timeout");
    return 0;
}

/* A key or response that stands before the certificates belongs to the one there is. */
static int check_certificate_files(const struct settings *settings, struct errbuf *err)
{
    struct tls_certificate *before = &settings->certificates[0], *first = &settings->certificates[1];
    const char *what = before->key_file ? "key" : "ocsp";

    if (!before->key_file && !before->ocsp_file)
        return 0;
    if (settings->certificate_count > 1)
        return errbuf_set(err, "option --ssl-%s stands before the first of several --ssl-cert; write it after the one it belongs to", what);
    if (!first->key_file)
        first->key_file = before->key_file;
    if (!first->ocsp_file)
        first->ocsp_file = before->ocsp_file;
    return 0;
}

static int check_verify(const struct tls_certificate *certificate, struct errbuf *err)
{
    const char *of = certificate->cert_file ? certificate->cert_file : "the certificate";

    if (certificate->verify > TLS_VERIFY_NONE && !certificate->ca)
        return errbuf_set(err, "option --ssl-verify has no effect on %s without --ssl-ca", of);
    if (certificate->crl && !certificate->ca)
        return errbuf_set(err, "option --ssl-crl has no effect on %s without --ssl-ca", of);
    return 0;
}

static int check_tls(const struct parser *parser)
{
    const struct settings *settings = parser->settings;
    struct errbuf *err = parser->err;

    if (check_certificate_files(settings, err) != 0)
        return -1;
    for (int i = settings->self_signed ? 0 : 1; i <= settings->certificate_count; i++)
        if (check_verify(&settings->certificates[i], err) != 0)
            return -1;
    if (settings->tls.min_version && settings->tls.max_version && settings->tls.min_version > settings->tls.max_version)
        return errbuf_set(err, "option --ssl-min-version: 1.3 is above --ssl-max-version 1.2");
    if (settings->tls.ciphers && settings->tls.min_version == 13)
        return errbuf_set(err, "option --ssl-ciphers has no effect with --ssl-min-version 1.3, which has --ssl-ciphersuites");
    if (settings->tls.ciphersuites && settings->tls.max_version == 12)
        return errbuf_set(err, "option --ssl-ciphersuites has no effect with --ssl-max-version 1.2, which has --ssl-ciphers");
    return 0;
}

static int check_targets(const struct parser *parser)
{
    if (given(parser, "balance") && !parser->settings->handler_arguments[1])
        return errbuf_set(parser->err, "option --balance has no effect with one target");
    return 0;
}

static int check(const struct parser *parser)
{
    struct settings *settings = parser->settings;

    if (check_arguments(settings, parser->err) != 0 || check_table(parser) != 0 || check_endpoints(settings, parser->err) != 0 ||
        check_family(settings, parser->err) != 0 || check_unix_mode(parser) != 0 || check_processes(parser) != 0 ||
        check_limits(parser) != 0 || check_ready_fd(settings, parser->err) != 0 || check_programs(settings, parser->err) != 0 ||
        check_tls(parser) != 0 || check_targets(parser) != 0)
        return OPTIONS_BAD;
    return OPTIONS_RUN;
}

/* ---- the whole ---- */

static int settings_init(struct settings *settings, int argc, struct errbuf *err)
{
    /* There cannot be more of them than there are words. */
    *settings = (struct settings){.endpoints = calloc((size_t)argc + 1, sizeof(*settings->endpoints)),
                                  .binds = calloc((size_t)argc + 1, sizeof(*settings->binds)),
                                  .variables = calloc((size_t)argc + 1, sizeof(*settings->variables)),
                                  .certificates = calloc((size_t)argc + 1, sizeof(*settings->certificates)),
                                  .allow = calloc((size_t)argc + 1, sizeof(*settings->allow)),
                                  .deny = calloc((size_t)argc + 1, sizeof(*settings->deny)),
                                  .proxies = calloc((size_t)argc + 1, sizeof(*settings->proxies)),
                                  .family = AF_UNSPEC,
                                  .ready_fd = -1,
                                  .max_connections = -1,
                                  .handler = handlers[0]};
    if (!settings->endpoints || !settings->binds || !settings->variables || !settings->certificates || !settings->allow ||
        !settings->deny || !settings->proxies)
        return errbuf_set(err, "out of memory");
    for (const struct option *option = option_table; option->name; option++)
        if (option->initial && option_setters[option->type](settings, option, option->initial, err) != 0)
            return -1;
    return 0;
}

int options_parse(int argc, char **argv, struct settings *settings, struct errbuf *err)
{
    struct parser parser = {.argv = argv, .next = argc > 0, .settings = settings, .err = err};

    if (settings_init(settings, argc, err) != 0)
        return OPTIONS_BAD;
    int status = parse_words(&parser);
    if (settings->once)
        settings->max_accepts = 1;
    return status == OPTIONS_RUN ? check(&parser) : status;
}

bool settings_have_metrics(const struct settings *settings)
{
    return settings->metrics.port || settings->metrics.unix_path;
}

bool settings_use_tls(const struct settings *settings)
{
    return settings->self_signed || settings->certificate_count > 0;
}

bool settings_need_supervisor(const struct settings *settings)
{
    return settings->processes != 1 || settings->user || settings->root || settings->sandbox || settings_have_metrics(settings);
}

void settings_release(struct settings *settings)
{
    for (int i = 0; i < settings->bind_count; i++)
        free(settings->binds[i]);
    free(settings->binds);
    free(settings->metrics_host);
    free(settings->endpoints);
    for (int i = 0; i < settings->variable_count; i++)
        free(settings->variables[i]);
    free(settings->variables);
    free(settings->certificates);
    free(settings->allow);
    free(settings->deny);
    free(settings->proxies);
}
