/* options.c - reads the command line by the table, and checks what one option means to another. */
#include "options.h"
#include "number.h"
#include "suggest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* ---- values: each sets what it is given, or says what would be right ---- */

typedef int set_value(struct settings *, const struct option *, const char *value, struct errbuf *);

/* Before the first certificate what is said is meant for all. */
static void *field_of(struct settings *settings, const struct option *option)
{
    void *base = option->of_certificate ? (void *)&settings->certificates[settings->certificate_count] : settings;
    return (char *)base + option->field;
}

static int set_flag(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    (void)value, (void)err;
    *(bool *)field_of(settings, option) = true;
    return 0;
}

static int set_int(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    (void)value, (void)err;
    *(int *)field_of(settings, option) = option->value;
    return 0;
}

static int count_up(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    int *count = field_of(settings, option);

    (void)value, (void)err;
    if (*count < option->high)
        ++*count;
    return 0;
}

static int set_number(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    long long number = whole_number(value, 10);

    if (number < option->low || number > option->high)
        return errbuf_set(err, "option --%s: \"%s\" is not a number from %lld to %lld", option->name, value, option->low, option->high);
    *(int *)field_of(settings, option) = (int)number;
    return 0;
}

static int set_descriptor(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    long long number = whole_number(value, 10);

    if (number < 0 || number > INT_MAX)
        return errbuf_set(err, "option --%s: \"%s\" is not the number of a descriptor", option->name, value);
    int flags = fcntl((int)number, F_GETFL);
    if (flags < 0)
        return errbuf_set(err, "option --%s: descriptor %lld is not open (in a shell: %lld> FILE)", option->name, number, number);
    if ((flags & O_ACCMODE) == O_RDONLY)
        return errbuf_set(err, "option --%s: descriptor %lld is not open for writing", option->name, number);
    *(int *)field_of(settings, option) = (int)number;
    return 0;
}

static int set_mode(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    long long mode = whole_number(value, 8);

    if (mode < option->low || mode > option->high)
        return errbuf_set(err, "option --%s: \"%s\" is not an octal mode (%llo to %llo)", option->name, value, option->low, option->high);
    *(mode_t *)field_of(settings, option) = (mode_t)mode;
    return 0;
}

static const char size_units[] = "kmgKMG";

/* Bytes, or with a unit; -1 if it is neither or does not fit. */
static long long size_number(const char *text)
{
    char digits[32];
    size_t length = strlen(text);
    const char *unit = length > 0 ? strchr(size_units, text[length - 1]) : NULL;
    int shift = unit ? 10 * (1 + (int)(unit - size_units) % 3) : 0;

    length -= unit != NULL;
    if (length >= sizeof(digits))
        return -1;
    memcpy(digits, text, length);
    digits[length] = '\0';
    long long number = whole_number(digits, 10);
    return number < 0 || number > LLONG_MAX >> shift ? -1 : number << shift;
}

static int set_size(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    long long size = size_number(value);

    if (size < option->low || size > option->high)
        return errbuf_set(err, "option --%s: \"%s\" is not a size from %lldk to %lldG, such as 64k or 1M", option->name, value,
                          option->low >> 10, option->high >> 30);
    *(size_t *)field_of(settings, option) = (size_t)size;
    return 0;
}

static int set_choice(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    const char *word = option->argument;

    for (int i = 0;; i++) {
        size_t length = strcspn(word, "|");
        if (strlen(value) == length && strncmp(value, word, length) == 0) {
            *(int *)field_of(settings, option) = option->value + i;
            return 0;
        }
        if (word[length] == '\0')
            return errbuf_set(err, "option --%s: \"%s\" is not one of %s", option->name, value, option->argument);
        word += length + 1;
    }
}

static int set_port(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    long long port = whole_number(value, 10);

    if (port > option->high || (port < 0 && !getservbyname(value, "tcp")))
        return errbuf_set(err, "option --%s: \"%s\" is not a port (0 to %lld, or a service name)", option->name, value, option->high);
    settings->endpoints[settings->endpoint_count++] = (struct endpoint){.port = value};
    return 0;
}

static int set_path(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    if (value[0] == '\0' || strcmp(value, "@") == 0)
        return errbuf_set(err, "option --%s: \"%s\" is not a path (or @NAME)", option->name, value);
    settings->endpoints[settings->endpoint_count++] = (struct endpoint){.unix_path = value};
    return 0;
}

static bool is_ipv4(const char *text)
{
    struct in_addr address;

    return inet_pton(AF_INET, text, &address) == 1;
}

static bool is_ipv6(const char *text)
{
    char host[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "%"); /* a scope may follow */
    struct in6_addr address;

    if (length >= sizeof(host))
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    return inet_pton(AF_INET6, host, &address) == 1;
}

static int set_address(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    size_t length = strlen(value);
    bool brackets = value[0] == '[' && value[length - 1] == ']';
    char *host = brackets ? strndup(value + 1, length - 2) : strdup(value);

    if (!host)
        return errbuf_set(err, "out of memory");
    settings->binds[settings->bind_count++] = host;
    /* Host names have neither colons nor brackets; whether one exists is seen when it is bound. */
    if (is_ipv6(host) || (!brackets && length > 0 && !strpbrk(host, ":[]")))
        return 0;
    return errbuf_set(err, "option --%s: \"%s\" is not an IP address or host name%s", option->name, value,
                      strchr(host, ':') ? " (a port goes into --port)" : "");
}

static int set_directory(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    struct stat st;

    if (stat(value, &st) != 0)
        return errbuf_set(err, "option --%s: \"%s\": %s", option->name, value, strerror(errno));
    if (!S_ISDIR(st.st_mode))
        return errbuf_set(err, "option --%s: \"%s\" is not a directory", option->name, value);
    if (access(value, X_OK) != 0)
        return errbuf_set(err, "option --%s: \"%s\": %s", option->name, value, strerror(errno));
    *(const char **)field_of(settings, option) = value;
    return 0;
}

static int set_text(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    if (value[0] == '\0')
        return errbuf_set(err, "option --%s: empty, and should be %s", option->name, option->argument);
    *(const char **)field_of(settings, option) = value;
    return 0;
}

static int add_certificate(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    if (value[0] == '\0')
        return errbuf_set(err, "option --%s: empty, and should be %s", option->name, option->argument);
    settings->certificates[++settings->certificate_count] = settings->certificates[0];
    settings->certificates[settings->certificate_count].cert_file = value;
    return 0;
}

static int set_name(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    settings->self_signed = true;
    return value ? set_text(settings, option, value, err) : 0;
}

static int set_variable(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    struct errbuf why;

    if (spawn_check_variable(value, &why) != 0)
        return errbuf_set(err, "option --%s: %s", option->name, why.text);
    char *copy = strdup(value);
    if (!copy)
        return errbuf_set(err, "out of memory");
    settings->variables[settings->variable_count++] = copy;
    return 0;
}

/* Files are read when all is known: files.h. */
static int add_rule(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    const char **rules = *(const char ***)field_of(settings, option);

    if (value[0] == '\0' || strcmp(value, "@") == 0)
        return errbuf_set(err, "option --%s: \"%s\" is not an IP address, a network or @FILE", option->name, value);
    while (*rules)
        rules++;
    *rules = value;
    return 0;
}

/* Seconds, with a fraction if there is one and a unit if there is one; -1 if it is none of that. */
static double seconds_number(const char *text)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"", 1}, {"ms", 0.001}, {"s", 1}, {"m", 60}, {"h", 3600}};
    size_t whole = strspn(text, "0123456789");
    size_t fraction = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
    const char *unit = text + whole + (fraction ? fraction + 1 : 0);

    if (whole == 0 || whole > 9)
        return -1;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (strcmp(unit, units[i].unit) == 0)
            return strtod(text, NULL) * units[i].seconds;
    return -1;
}

static int set_time(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    double seconds = seconds_number(value);

    if (seconds < 0)
        return errbuf_set(err, "option --%s: \"%s\" is not a time, such as 500ms, 1.5s, 10s, 5m or 1h", option->name, value);
    *(double *)field_of(settings, option) = seconds;
    return 0;
}

/* IDLE[,INTERVAL[,COUNT]], in whole seconds, as the kernel counts them. */
static int set_keepalive(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    static const int most[] = {32767, 32767, 127}; /* of TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT */
    int *numbers = field_of(settings, option);
    const char *rest = value;

    memset(numbers, 0, sizeof settings->keepalive);
    for (size_t i = 0; i < 3 && rest; i++) {
        char word[16];
        size_t length = strcspn(rest, ",");
        snprintf(word, sizeof word, "%.*s", (int)length, rest);
        double number = i < 2 ? seconds_number(word) : strspn(word, "0123456789") == length ? strtod(word, NULL) : -1;
        if (length >= sizeof word || number < 1 || number > most[i] || number != (int)number)
            break;
        numbers[i] = (int)number;
        rest = rest[length] ? rest + length + 1 : NULL;
    }
    if (rest)
        return errbuf_set(err, "option --%s: \"%s\" is not IDLE[,INTERVAL[,COUNT]] in whole seconds, such as 60,10,6", option->name, value);
    return 0;
}

static int set_interface(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    if (if_nametoindex(value) == 0)
        return errbuf_set(err, "option --%s: there is no network interface \"%s\" (ip link shows them)", option->name, value);
    *(const char **)field_of(settings, option) = value;
    return 0;
}

static int set_handler(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    const struct handler *handler = handler_find(value);

    if (!handler)
        return suggest_handler(option->name, value, err);
    settings->handler = handler;
    return 0;
}

static set_value *const setters[] = {
    [TYPE_FLAG] = set_flag,
    [TYPE_SET] = set_int,
    [TYPE_COUNT] = count_up,
    [TYPE_NUMBER] = set_number,
    [TYPE_DESCRIPTOR] = set_descriptor,
    [TYPE_MODE] = set_mode,
    [TYPE_SIZE] = set_size,
    [TYPE_CHOICE] = set_choice,
    [TYPE_PORT] = set_port,
    [TYPE_PATH] = set_path,
    [TYPE_ADDRESS] = set_address,
    [TYPE_DIRECTORY] = set_directory,
    [TYPE_FILE] = set_text,
    [TYPE_TEXT] = set_text,
    [TYPE_CERTIFICATE] = add_certificate,
    [TYPE_NAME] = set_name,
    [TYPE_VARIABLE] = set_variable,
    [TYPE_RULE] = add_rule,
    [TYPE_TIME] = set_time,
    [TYPE_KEEPALIVE] = set_keepalive,
    [TYPE_INTERFACE] = set_interface,
    [TYPE_HANDLER] = set_handler,
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
    return setters[option->type](parser->settings, option, value, parser->err) == 0 ? OPTIONS_RUN : OPTIONS_BAD;
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
    size_t length = strlen(word);

    for (words += strspn(words, " "); *words; words += strcspn(words, " "), words += strspn(words, " "))
        if (strcspn(words, " ") == length && strncmp(words, word, length) == 0)
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
    if (given(parser, "max-restarts") && settings->processes == 1)
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
    if (certificate->crl_file && !certificate->ca)
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
        if (option->initial && setters[option->type](settings, option, option->initial, err) != 0)
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

bool settings_use_tls(const struct settings *settings)
{
    return settings->self_signed || settings->certificate_count > 0;
}

void settings_release(struct settings *settings)
{
    for (int i = 0; i < settings->bind_count; i++)
        free(settings->binds[i]);
    free(settings->binds);
    free(settings->endpoints);
    for (int i = 0; i < settings->variable_count; i++)
        free(settings->variables[i]);
    free(settings->variables);
    free(settings->certificates);
    free(settings->allow);
    free(settings->deny);
    free(settings->proxies);
}
