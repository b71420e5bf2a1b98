/* test_options.c - what command lines mean, and what is said about those that mean nothing. */
#include "../../cmd/options.h"

#include <ctype.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_WORDS = 16, READ_ONLY_FD = 40, CLOSED_FD = 41, WRITE_FD = 42 };

struct command_line {
    char text[256];
    char *argv[MAX_WORDS + 1];
    int argc;
};

/* Splits at blanks; '' is an empty word. */
static void split(struct command_line *line, const char *text)
{
    char *rest = line->text;

    snprintf(line->text, sizeof(line->text), "hark %s", text);
    line->argc = 0;
    for (char *word; (word = strtok_r(rest, " ", &rest));) {
        assert_true(line->argc < MAX_WORDS);
        line->argv[line->argc++] = strcmp(word, "''") == 0 ? word + 2 : word;
    }
    line->argv[line->argc] = NULL;
}

/* ---- what command lines mean ---- */

__attribute__((format(printf, 2, 3))) static void add(char *text, const char *format, ...)
{
    size_t length = strlen(text);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text + length, 512 - length, format, arguments);
    va_end(arguments);
}

static void add_number(char *text, const char *name, long long value, long long initial)
{
    if (value != initial)
        add(text, " %s=%lld", name, value);
}

static void add_rules(char *text, const char *name, const char *const *rules)
{
    for (; *rules; rules++)
        add(text, " %s=%s", name, *rules);
}

/* What the settings say other than the defaults, in 512 bytes. */
static void describe(const struct settings *settings, char *text)
{
    text[0] = '\0';
    for (int i = 0; i < settings->endpoint_count; i++) {
        const struct endpoint *endpoint = &settings->endpoints[i];
        add(text, " %s%s", endpoint->port ? "" : "unix:", endpoint->port ? endpoint->port : endpoint->unix_path);
    }
    for (int i = 0; i < settings->bind_count; i++)
        add(text, " bind=%s", settings->binds[i]);
    if (settings->family != AF_UNSPEC)
        add(text, " family=%s", settings->family == AF_INET ? "ipv4" : settings->family == AF_INET6 ? "ipv6" : "?");
    if (settings->unix_mode != 0600)
        add(text, " unix_mode=%o", settings->unix_mode);
    add_number(text, "backlog", settings->backlog, 0);
    add_number(text, "reuse_port", settings->reuse_port, false);
    add_number(text, "ready_fd", settings->ready_fd, -1);
    add_number(text, "processes", settings->processes, 1);
    add_number(text, "max_restarts", settings->max_restarts, 100);
    add_number(text, "once", settings->once, false);
    if (settings->handler != &echo_handler)
        add(text, " handler=%s", settings->handler->name);
    for (char **argument = settings->handler_arguments; *argument; argument++)
        add(text, " <%s>", *argument);
    add_rules(text, "allow", settings->allow);
    add_rules(text, "deny", settings->deny);
    add_rules(text, "proxy", settings->proxies);
    add_number(text, "send_proxy", settings->send_proxy, 0);
    add_number(text, "recv_only", settings->recv_only, false);
    add_number(text, "send_only", settings->send_only, false);
    add_number(text, "max_buffer_bytes", (long long)settings->max_buffer_bytes, 1 << 20);
    add_number(text, "max_connections", settings->max_connections, -1);
    add_number(text, "verbosity", settings->verbosity, 0);
    add_number(text, "json", settings->json, 0);
    add_number(text, "check", settings->check, false);
}

static const struct {
    const char *line, *meaning;
} accepted[] = {
    /* the forms of an option */
    {"--port 80", " 80"},
    {"--port=80", " 80"},
    {"-p 80", " 80"},
    {"-p80", " 80"},
    {"-vp80", " 80 verbosity=1"},
    {"-vvp 80", " 80 verbosity=2"},
    {"-p 80 --unix=a=b", " 80 unix:a=b"},
    {"-p 80 --bind --odd", " 80 bind=--odd"},
    /* the last one counts, or each does */
    {"-p 80 --processes 4 --processes=8", " 80 processes=8"},
    {"-p 80 -4 -4 --once --once", " 80 family=ipv4 once=1"},
    {"-p 80 -H discard -H echo", " 80"},
    {"-p 80 -vvvv", " 80 verbosity=2"},
    {"-p 80 -U /s -p 443 --unix @t", " 80 unix:/s 443 unix:@t"},
    {"-p 80 -b 127.0.0.1 -b ::1", " 80 bind=127.0.0.1 bind=::1"},
    /* the end of the options */
    {"-p 1 -H exec grep -v x", " 1 handler=exec <grep> <-v> <x>"},
    {"-p 1 -H exec -- grep -v -- x", " 1 handler=exec <grep> <-v> <--> <x>"},
    {"-p 1 -H exec -- --odd", " 1 handler=exec <--odd>"},
    {"-p 1 -H exec -", " 1 handler=exec <->"},
    {"-p 1 -H exec cat -p 2", " 1 handler=exec <cat> <-p> <2>"},
    {"-p 1 -H exec ''", " 1 handler=exec <>"},
    {"-p 1 --", " 1"},
    /* values */
    {"-p 0 -p 65535", " 0 65535"},
    {"-p 080", " 080"},
    {"-p http", " http"},
    {"-p 1 -b [::1]", " 1 bind=::1"},
    {"-p 1 -b [fe80::1%lo] -b fe80::1%lo", " 1 bind=fe80::1%lo bind=fe80::1%lo"},
    {"-p 1 -6 -b ::1 -b localhost", " 1 bind=::1 bind=localhost family=ipv6"},
    {"-p 1 -4 -b 127.0.0.1 -b localhost", " 1 bind=127.0.0.1 bind=localhost family=ipv4"},
    {"-U s --unix-mode 0666", " unix:s unix_mode=666"},
    {"-U s --unix-mode=0", " unix:s unix_mode=0"},
    {"-U @a -U s --unix-mode 770", " unix:@a unix:s unix_mode=770"},
    {"-p 1 --backlog 7", " 1 backlog=7"},
    {"-p 1 --reuse-port", " 1 reuse_port=1"},
    {"-p 1 --ready-fd 42", " 1 ready_fd=42"},
    {"-p 1 -H stdio --ready-fd 42", " 1 ready_fd=42 handler=stdio"},
    {"-p 1 --processes 0", " 1 processes=0"},
    {"-p 1 --processes 1024 --max-restarts 0", " 1 processes=1024 max_restarts=0"},
    {"-p 1 --processes 1 --once", " 1 once=1"},
    {"-p 1 -H discard", " 1 handler=discard"},
    {"-p 1 -H forward h:1", " 1 handler=forward <h:1>"},
    {"-p 1 --allow ::1 --deny=10.0.0.0/8 --allow @f", " 1 allow=::1 allow=@f deny=10.0.0.0/8"},
    {"-p 1 --proxy-protocol ::1", " 1 proxy=::1"},
    {"-p 1 -H forward --send-proxy 2 h:1", " 1 handler=forward <h:1> send_proxy=2"},
    {"-p 1 -H stdio --recv-only", " 1 handler=stdio recv_only=1"},
    {"--send-only -p 1 --handler=stdio", " 1 handler=stdio send_only=1"},
    {"-p 1 --max-buffer-size 64k", " 1 max_buffer_bytes=65536"},
    {"-p 1 --max-buffer-size 64K", " 1 max_buffer_bytes=65536"},
    {"-p 1 --max-buffer-size 2m", " 1 max_buffer_bytes=2097152"},
    {"-p 1 --max-buffer-size 2G", " 1 max_buffer_bytes=2147483648"},
    {"-p 1 --max-buffer-size 1024", " 1 max_buffer_bytes=1024"},
    {"-p 1 --max-connections 0", " 1 max_connections=0"},
    {"-p 1 --max-connections 7", " 1 max_connections=7"},
    {"-p 1 -q", " 1 verbosity=-1"},
    {"-p 1 --log-format text --log-format json", " 1 json=1"},
    {"-p 1 --log-format json --log-format text", " 1"},
    {"-p 1 --check", " 1 check=1"},
};

static void test_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
        struct command_line line;
        struct settings settings;
        struct errbuf err = {""};
        char meaning[512];
        split(&line, accepted[i].line);
        if (options_parse(line.argc, line.argv, &settings, &err) != OPTIONS_RUN)
            fail_msg("hark %s: %s", accepted[i].line, err.text);
        describe(&settings, meaning);
        if (strcmp(meaning, accepted[i].meaning) != 0)
            fail_msg("hark %s means%s, not%s", accepted[i].line, meaning, accepted[i].meaning);
        settings_release(&settings);
    }
}

/* ---- what is said about the others ---- */

static int parse(const char *text, struct errbuf *err)
{
    struct command_line line;
    struct settings settings;

    err->text[0] = '\0';
    split(&line, text);
    int status = options_parse(line.argc, line.argv, &settings, err);
    settings_release(&settings);
    return status;
}

struct rejection {
    const char *line, *error;
};

static void assert_rejected(const struct rejection *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct errbuf err;
        if (parse(rows[i].line, &err) != OPTIONS_BAD)
            fail_msg("hark %s is accepted", rows[i].line);
        if (strcmp(err.text, rows[i].error) != 0)
            fail_msg("hark %s says \"%s\",\n not \"%s\"", rows[i].line, err.text, rows[i].error);
    }
}

#define PORT_RIGHT "is not a port (0 to 65535, or a service name)"
#define SIZE_RIGHT "is not a size from 1k to 64G, such as 64k or 1M"

static const struct rejection malformed[] = {
    {"--port", "option --port needs a value: --port PORT"},
    {"-p", "option --port needs a value: --port PORT"},
    {"-vp", "option --port needs a value: --port PORT"},
    {"-p 1 --once=yes", "option --once takes no value"},
    {"-p 70000", "option --port: \"70000\" " PORT_RIGHT},
    {"-p 65536", "option --port: \"65536\" " PORT_RIGHT},
    {"-p -1", "option --port: \"-1\" " PORT_RIGHT},
    {"-p +1", "option --port: \"+1\" " PORT_RIGHT},
    {"-p 80x", "option --port: \"80x\" " PORT_RIGHT},
    {"-p 0x50", "option --port: \"0x50\" " PORT_RIGHT},
    {"-p=80", "option --port: \"=80\" " PORT_RIGHT},
    {"--port=", "option --port: \"\" " PORT_RIGHT},
    {"-p no-such-service", "option --port: \"no-such-service\" " PORT_RIGHT},
    {"-p 99999999999999999999", "option --port: \"99999999999999999999\" " PORT_RIGHT},
    {"-p 1 -b ''", "option --bind: \"\" is not an IP address or host name"},
    {"-p 1 -b []", "option --bind: \"[]\" is not an IP address or host name"},
    {"-p 1 -b [", "option --bind: \"[\" is not an IP address or host name"},
    {"-p 1 -b [::1", "option --bind: \"[::1\" is not an IP address or host name (a port goes into --port)"},
    {"-p 1 -b x::1]", "option --bind: \"x::1]\" is not an IP address or host name (a port goes into --port)"},
    {"-p 1 -b [localhost]", "option --bind: \"[localhost]\" is not an IP address or host name"},
    {"-p 1 -b ::1::", "option --bind: \"::1::\" is not an IP address or host name (a port goes into --port)"},
    {"-p 1 -b 127.0.0.1:80", "option --bind: \"127.0.0.1:80\" is not an IP address or host name (a port goes into --port)"},
    {"-p 1 -b [::1]:80", "option --bind: \"[::1]:80\" is not an IP address or host name (a port goes into --port)"},
    {"-U ''", "option --unix: \"\" is not a path (or @NAME)"},
    {"-U @", "option --unix: \"@\" is not a path (or @NAME)"},
    {"-U s --unix-mode 8", "option --unix-mode: \"8\" is not an octal mode (0 to 777)"},
    {"-U s --unix-mode 1777", "option --unix-mode: \"1777\" is not an octal mode (0 to 777)"},
    {"-U s --unix-mode u=rw", "option --unix-mode: \"u=rw\" is not an octal mode (0 to 777)"},
    {"-p 1 --backlog many", "option --backlog: \"many\" is not a number from 0 to 1000000"},
    {"-p 1 --processes 1025", "option --processes: \"1025\" is not a number from 0 to 1024"},
    {"-p 1 --processes -1", "option --processes: \"-1\" is not a number from 0 to 1024"},
    {"-p 1 --processes 1.5", "option --processes: \"1.5\" is not a number from 0 to 1024"},
    {"-p 1 --processes=", "option --processes: \"\" is not a number from 0 to 1024"},
    {"-p 1 --max-buffer-size 1023", "option --max-buffer-size: \"1023\" " SIZE_RIGHT},
    {"-p 1 --max-buffer-size 65G", "option --max-buffer-size: \"65G\" " SIZE_RIGHT},
    {"-p 1 --max-buffer-size k", "option --max-buffer-size: \"k\" " SIZE_RIGHT},
    {"-p 1 --max-buffer-size -1k", "option --max-buffer-size: \"-1k\" " SIZE_RIGHT},
    {"-p 1 --max-buffer-size 1kB", "option --max-buffer-size: \"1kB\" " SIZE_RIGHT},
    {"-p 1 --max-buffer-size 1.5M", "option --max-buffer-size: \"1.5M\" " SIZE_RIGHT},
    {"-p 1 --max-buffer-size 9007199254740993k", "option --max-buffer-size: \"9007199254740993k\" " SIZE_RIGHT},
    {"-p 1 --log-format xml", "option --log-format: \"xml\" is not one of text|json"},
    {"-p 1 --log-format tex", "option --log-format: \"tex\" is not one of text|json"},
    {"-p 1 --log-format text|json", "option --log-format: \"text|json\" is not one of text|json"},
    {"-p 1 --log-format=", "option --log-format: \"\" is not one of text|json"},
    {"-p 1 --ready-fd out", "option --ready-fd: \"out\" is not the number of a descriptor"},
    {"-p 1 --ready-fd 4294967296", "option --ready-fd: \"4294967296\" is not the number of a descriptor"},
    {"-p 1 --ready-fd 41", "option --ready-fd: descriptor 41 is not open (in a shell: 41> FILE)"},
    {"-p 1 --ready-fd 40", "option --ready-fd: descriptor 40 is not open for writing"},
};

static void test_malformed(void **state)
{
    (void)state;
    assert_rejected(malformed, sizeof(malformed) / sizeof(malformed[0]));
}

static const struct rejection contradictory[] = {
    {"", "nothing to listen on: give --port PORT or --unix PATH (hark --help shows more)"},
    {"-v", "nothing to listen on: give --port PORT or --unix PATH (hark --help shows more)"},
    {"-H exec cat -p 80", "nothing to listen on: give --port PORT or --unix PATH, before \"cat\""},
    {"-p 1 -H exec", "handler exec needs arguments: --handler exec PROGRAM [ARG]..."},
    {"-p 1 --recv-only", "option --recv-only is for --handler stdio, not for echo"},
    {"-p 1 --send-only -H discard", "option --send-only is for --handler stdio, not for discard"},
    {"-p 1 -H stdio --recv-only --send-only", "options --recv-only and --send-only contradict each other"},
    {"-p 1 -H stdio --send-only --recv-only", "options --recv-only and --send-only contradict each other"},
    {"-p 1 -q -v", "options --verbose and --quiet contradict each other"},
    {"-p 1 -vq", "options --verbose and --quiet contradict each other"},
    {"-p 1 -4 -6", "options --ipv4 and --ipv6 contradict each other"},
    {"-p 1 -64", "options --ipv4 and --ipv6 contradict each other"},
    {"-p 1 --unix-mode 600", "option --unix-mode has no effect without --unix"},
    {"-U @s --unix-mode 600", "option --unix-mode has no effect on abstract sockets"},
    {"-U s -b ::1", "option --bind has no effect without --port"},
    {"-U s -4", "option --ipv4 has no effect without --port"},
    {"-U s -6", "option --ipv6 has no effect without --port"},
    {"-U s --reuse-port", "option --reuse-port has no effect without --port"},
    {"-p 1 -4 -b localhost -b [::1]", "option --ipv4 rules out --bind ::1, an IPv6 address"},
    {"-p 1 -b 127.0.0.1 -6", "option --ipv6 rules out --bind 127.0.0.1, an IPv4 address"},
    {"-p 1 --max-restarts 5", "option --max-restarts has no effect with one process; give --processes 2 or more"},
    {"-p 1 --user=", "option --user: empty, and should be USER[:GROUP]"},
    {"-p 1 --max-restarts 100", "option --max-restarts has no effect with one process; give --processes 2 or more"},
    {"-p 1 --once --processes 2", "option --once needs --processes 1"},
    {"-p 1 --once --processes 0", "option --once needs --processes 1"},
    {"-p 1 -H stdio --processes 2", "handler stdio serves one connection at a time and needs --processes 1"},
    {"-p 1 -H stdio --processes 0", "handler stdio serves one connection at a time and needs --processes 1"},
    {"-p 1 -H stdio --max-connections 3", "option --max-connections has no effect with stdio, which serves one connection at a time"},
    {"-p 1 --once --max-connections 3", "option --max-connections has no effect with --once, which serves one connection at a time"},
    {"-p 1 -H stdio --ready-fd 1", "option --ready-fd: handler stdio uses descriptor 1 itself; take another, such as 3"},
};

static void test_contradictory(void **state)
{
    (void)state;
    assert_rejected(contradictory, sizeof(contradictory) / sizeof(contradictory[0]));
}

static const struct rejection unknown[] = {
    /* near misses */
    {"--prot 80", "unknown option --prot (did you mean --port?)"},
    {"--prot=80", "unknown option --prot (did you mean --port?)"},
    {"--ports 80", "unknown option --ports (did you mean --port?)"},
    {"--max-conections 3", "unknown option --max-conections (did you mean --max-connections?)"},
    {"--verb", "unknown option --verb (did you mean --verbose?)"},
    {"--Port 80", "unknown option --Port (did you mean --port?)"},
    {"-port 80", "unknown option -port (did you mean --port?)"},
    {"-port=80", "unknown option -port=80 (did you mean --port?)"},
    {"-help", "unknown option -help (did you mean --help?)"},
    {"-listen", "option -listen is not needed: hark always listens"},
    {"-p 1 -H exce", "option --handler: \"exce\" is not a handler (did you mean exec?)"},
    {"-p 1 -H forwards", "option --handler: \"forwards\" is not a handler (did you mean forward?)"},
    /* and far ones */
    {"--frobnicate", "unknown option --frobnicate (hark --help lists them all)"},
    {"--=1", "unknown option -- (hark --help lists them all)"},
    {"--this-is-no-option-and-longer-than-all-of-them", "unknown option --this-is-no-option-and-longer-than-all-of-them (hark --help lists "
                                                        "them all)"},
    {"-y", "unknown option -y (hark --help lists them all)"},
    {"-vyp 1", "unknown option -y (in -vyp) (hark --help lists them all)"},
    {"-\xc3\xa9", "unknown option -\xc3\xa9 (hark --help lists them all)"},
    {"-p 1 -H ''", "option --handler: \"\" is not a handler (echo, discard, exec, shell, forward, stdio)"},
    {"-p 1 -H mirror", "option --handler: \"mirror\" is not a handler (echo, discard, exec, shell, forward, stdio)"},
    /* habits */
    {"-l 8080", "option -l is not needed: hark always listens; type --port 8080"},
    {"-l -k 8080", "option -l is not needed: hark always listens; type --port 8080"},
    {"-lk 127.0.0.1 8080", "option -l (in -lk) is not needed: hark always listens; type --bind 127.0.0.1 --port 8080"},
    {"-l -p 8080", "option -l is not needed: hark always listens"},
    {"-lvnp 8080", "option -l (in -lvnp) is not needed: hark always listens; type -vp"},
    {"--listen 8080", "option --listen is not needed: hark always listens; type --port 8080"},
    {"-p 1 -k", "option -k is not needed: hark serves until it is stopped"},
    {"-p 1 --keep-open", "option --keep-open is not needed: hark serves until it is stopped"},
    {"-p 1 -e cat", "unknown option -e: type --handler exec PROGRAM [ARG]..., after all other options"},
    {"-p 1 --exec=cat", "unknown option --exec: type --handler exec PROGRAM [ARG]..., after all other options"},
    {"-u -p 1", "unknown option -u: hark serves TCP and unix sockets, not UDP"},
    {"-m 3", "unknown option -m: type --max-connections N"},
    {"-p 1 --ssl", "unknown option --ssl: type --ssl-cert FILE [--ssl-key FILE], or --ssl-self-signed for tests"},
    /* words that nobody takes */
    {"8080", "unexpected argument \"8080\": handler echo takes none; type --port 8080"},
    {"localhost 8080", "unexpected argument \"localhost\": handler echo takes none; type --bind localhost --port 8080"},
    {"-v 0 8080 ./serve x", "unexpected argument \"0\": handler echo takes none; type --port 8080 --handler exec ./serve ..."},
    {"::1 8080 cat", "unexpected argument \"::1\": handler echo takes none; type --bind ::1 --port 8080 --handler exec cat"},
    {"-q 1 -p 80", "unexpected argument \"1\": handler echo takes none, and options end there"},
    {"-p 80 -q 1", "unexpected argument \"1\": handler echo takes none"},
    {"-p 1 exec cat", "unexpected argument \"exec\": handler echo takes none; type --handler exec"},
    {"-p 1 ./serve", "unexpected argument \"./serve\": handler echo takes none; to run a program, type --handler exec ./serve"},
    {"-p 1 -H stdio x", "unexpected argument \"x\": handler stdio takes none; to run a program, type --handler exec x"},
    {"TCP-LISTEN:80,fork PIPE",
     "unexpected argument \"TCP-LISTEN:80,fork\": handler echo takes none; type --port PORT (or --unix PATH) and "
     "--handler NAME"},
};

static void test_unknown(void **state)
{
    (void)state;
    assert_rejected(unknown, sizeof(unknown) / sizeof(unknown[0]));
}

static bool is_option(const char *name, size_t length)
{
    for (const struct option *option = option_table; option->name; option++)
        if (strlen(option->name) == length && strncmp(option->name, name, length) == 0)
            return true;
    return false;
}

/* Whatever is suggested has to exist; the option complained about is not a suggestion. */
static void assert_advice_exists(const char *text)
{
    struct errbuf err;

    parse(text, &err);
    const char *advice = strchr(err.text, ':');
    while (advice && (advice = strstr(advice, "--"))) {
        advice += 2;
        size_t length = strspn(advice, "abcdefghijklmnopqrstuvwxyz0123456789-");
        if (length > 0 && !is_option(advice, length))
            fail_msg("hark %s suggests --%.*s: \"%s\"", text, (int)length, advice, err.text);
    }
}

static void test_advice_exists(void **state)
{
    static const char *const names[] = {"--listen", "--keep-open", "--exec x",  "--sh-exec x", "--max-conns 1", "--source a",
                                        "--udp",    "--ssl",       "--allow x", "--broker",    "--daemon",      "--wait 1",
                                        "--crlf",   "x",           "exec",      "1 2 3",       "X-LISTEN:"};
    char text[] = "-?";

    (void)state;
    for (text[1] = '0'; text[1] <= 'z'; text[1]++)
        if (isalnum((unsigned char)text[1]))
            assert_advice_exists(text);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_advice_exists(names[i]);
}

static void test_help_and_version(void **state)
{
    struct errbuf err;

    (void)state;
    assert_int_equal(parse("--help", &err), OPTIONS_HELP);
    assert_int_equal(parse("-p 1 -h --nonsense", &err), OPTIONS_HELP);
    assert_int_equal(parse("-vV", &err), OPTIONS_VERSION);
    assert_int_equal(parse("--nonsense --help", &err), OPTIONS_BAD);
    assert_int_equal(parse("-p 1 -H exec cat --help", &err), OPTIONS_RUN);
}

/* ---- the table itself ---- */

/* "exec or shell", "echo, discard or forward" */
static bool names_handlers(const char *words)
{
    char text[128], *rest = text;
    snprintf(text, sizeof text, "%s", words);
    for (char *word; (word = strtok_r(rest, " ,", &rest));)
        if (strcmp(word, "or") != 0 && !handler_find(word))
            return false;
    return true;
}

static bool names_options(const char *words)
{
    char text[128], *rest = text;
    snprintf(text, sizeof text, "%s", words);
    for (char *word; (word = strsep(&rest, " "));)
        if (strcmp(word, "or") != 0 && !is_option(word, strlen(word)))
            return false;
    return true;
}

static void test_table(void **state)
{
    (void)state;
    for (const struct option *option = option_table; option->name; option++) {
        for (const struct option *other = option_table; other != option; other++) {
            assert_string_not_equal(option->name, other->name);
            assert_true(!option->letter || option->letter != other->letter);
        }
        assert_true(option == option_table || option->group >= option[-1].group);
        assert_true(!option->handler || names_handlers(option->handler));
        assert_true(!option->needs || names_options(option->needs));
        assert_true(!option->excludes || is_option(option->excludes, strlen(option->excludes)));
        assert_true(option->help[0] && option->help[strlen(option->help) - 1] != '.');
    }
}

static int open_descriptors(void **state)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), writable = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)state;
    close(CLOSED_FD);
    return dup2(fd, READ_ONLY_FD) < 0 || dup2(writable, WRITE_FD) < 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepted), cmocka_unit_test(test_malformed),     cmocka_unit_test(test_contradictory),
        cmocka_unit_test(test_unknown),  cmocka_unit_test(test_advice_exists), cmocka_unit_test(test_help_and_version),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests_name("options", tests, open_descriptors, NULL);
}
