/* values.c - the values of options: each function sets what it is given, or says what would be right. */
#include "values.h"

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

#include "number.h"
#include "suggest.h"

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

bool is_ipv4(const char *text)
{
    struct in_addr address;

    return inet_pton(AF_INET, text, &address) == 1;
}

bool is_ipv6(const char *text)
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

static const double SHORTEST_SECONDS = 0.001; /* timers are no finer, and 0 would be another thing */

static int set_time(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    double seconds = seconds_number(value);

    if (seconds < 0)
        return errbuf_set(err, "option --%s: \"%s\" is not a time, such as 500ms, 1.5s, 10s, 5m or 1h", option->name, value);
    if (seconds < SHORTEST_SECONDS && value[strspn(value, "0.hms")])
        return errbuf_set(err, "option --%s: \"%s\" is less than 1ms, the shortest time there is (0 is no limit)", option->name, value);
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

/* Where the host ends in HOST:PORT; 0: there is none, a port alone. NULL: it is neither. */
static const char *end_of_host(const char *value)
{
    const char *colon = strrchr(value, ':');
    long long port = whole_number(colon ? colon + 1 : value, 10);

    if (port < 0 || port > 65535 || colon == value)
        return NULL;
    return colon ? colon : value;
}

static int set_metrics(struct settings *settings, const struct option *option, const char *value, struct errbuf *err)
{
    static const char unix_prefix[] = "unix:", *const this_machine = "127.0.0.1";
    bool is_unix = strncmp(value, unix_prefix, strlen(unix_prefix)) == 0;
    const char *path = value + strlen(unix_prefix), *end = is_unix ? value : end_of_host(value);
    bool brackets = end && value[0] == '[' && end > value + 1 && end[-1] == ']';
    char *host = end == value ? strdup(this_machine) : end ? strndup(value + brackets, (size_t)(end - value) - 2 * (size_t)brackets) : NULL;

    free(settings->metrics_host);
    settings->metrics_host = host;
    if (!host || (is_unix && (path[0] == '\0' || strcmp(path, "@") == 0)) || (brackets ? !is_ipv6(host) : strpbrk(host, ":[]") != NULL))
        return errbuf_set(err, "option --%s: \"%s\" is not ADDRESS:PORT, PORT (for this machine only) or unix:PATH", option->name, value);
    settings->metrics = (struct endpoint){0};
    if (is_unix)
        settings->metrics.unix_path = path;
    else
        settings->metrics.port = end == value ? value : end + 1;
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

set_value *const option_setters[] = {
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
    [TYPE_METRICS] = set_metrics,
    [TYPE_INTERFACE] = set_interface,
    [TYPE_HANDLER] = set_handler,
};
