/* loadstoned: parse arguments, wire the layers, wait for a signal, stop in order.
 *
 *   start:  io -> indexer -> catalog (which calls the indexer for every segment) -> server
 *   stop:   server -> indexer -> catalog -> io
 *
 * Threads: the main thread waits on an event that the signal handler raises; everything else runs
 * on threads of the layers.
 *
 * Failure: what keeps the daemon from starting is one sentence on standard error and exit status 1;
 * a wrong command line is status 2. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api/server.h"
#include "base/epoch.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/version.h"
#include "index/check.h"
#include "index/index.h"
#include "io/io.h"
#include "io/mapping.h"
#include "store/backup.h"
#include "store/catalog.h"

enum { EXIT_USAGE = 2, THREADS_MAX = 1024 };

static const char usage[] =
    "usage: loadstoned serve --data DIR [options]   serve the collections under DIR\n"
    "       loadstoned check DIR                    check all files under DIR while it is not "
    "served\n"
    "       loadstoned backup DATA DEST            copy DATA, which may be in use, to DEST\n"
    "       loadstoned --version | --help\n"
    "\n"
    "  --data DIR           where the collections live; made when missing\n"
    "  --listen HOST:PORT   address to listen on (127.0.0.1:7700); port 0 takes a free one\n"
    "  --allow-remote       listen on an address that other machines reach, without access "
    "control\n"
    "  --port-file FILE     write the port there once listening\n"
    "  --threads N          HTTP threads (one a core)\n"
    "  --build-threads N    threads of an index build (all cores)\n"
    "  --limit NAME=VALUE   set a limit; GET /v1/limits lists them\n"
    "  --log-level LEVEL    debug, info, warn or error (info)\n"
    "\n"
    "LOADSTONE_IO=uring|posix picks the way files are written; without it io_uring is probed.\n";

struct settings {
    const char *program; /* argv[0] */
    const char *data;
    const char *listen;
    const char *port_file;
    bool allow_remote;
    bool help;
    unsigned threads;
    unsigned build_threads;
    struct limits limits;
};

struct daemon {
    struct io *io;
    struct indexer *indexer;
    struct catalog *catalog;
    struct server *server;
};

/* ---- arguments ---- */

static int usage_error(const char *fmt, const char *arg)
{
    fprintf(stderr, "loadstoned: ");
    fprintf(stderr, fmt, arg);
    fprintf(stderr, "; loadstoned --help lists the options\n");
    return EXIT_USAGE;
}

static int value_error(const char *name, const char *value, const char *takes)
{
    fprintf(stderr, "loadstoned: %s takes %s, not '%s'\n", name, takes, value);
    return EXIT_USAGE;
}

static int parse_threads(const char *name, const char *text, unsigned *out)
{
    char takes[48];
    char *end;
    errno = 0;
    unsigned long n = strtoul(text, &end, 10);
    if (errno || end == text || *end || n < 1 || n > THREADS_MAX) {
        snprintf(takes, sizeof takes, "a whole number from 1 to %d", THREADS_MAX);
        return value_error(name, text, takes);
    }
    *out = (unsigned)n;
    return 0;
}

static int parse_log_level(const char *name, const char *text)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            log_set_level((enum log_level)i);
            return 0;
        }
    }
    return value_error(name, text, "debug, info, warn or error");
}

static int parse_limit(struct settings *s, const char *value)
{
    struct err_ctx err;
    err_clear(&err);
    if (limits_set(&s->limits, value, &err) == ERR_OK)
        return 0;
    fprintf(stderr, "loadstoned: %s\n", err.detail);
    return EXIT_USAGE;
}

/* An option with its value; 0 when it is taken. */
static int parse_option(struct settings *s, const char *name, const char *value)
{
    if (strcmp(name, "--threads") == 0)
        return parse_threads(name, value, &s->threads);
    if (strcmp(name, "--build-threads") == 0)
        return parse_threads(name, value, &s->build_threads);
    if (strcmp(name, "--log-level") == 0)
        return parse_log_level(name, value);
    if (strcmp(name, "--limit") == 0)
        return parse_limit(s, value);
    if (strcmp(name, "--data") == 0)
        s->data = value;
    else if (strcmp(name, "--listen") == 0)
        s->listen = value;
    else if (strcmp(name, "--port-file") == 0)
        s->port_file = value;
    else
        return usage_error("unknown option '%s'", name);
    return 0;
}

static bool is_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

/* "--name value" or "--name=value". */
static int parse_serve(int argc, char **argv, struct settings *s)
{
    *s = (struct settings){.program = argv[0], .listen = "127.0.0.1:7700"};
    limits_init(&s->limits);
    for (int i = 2; i < argc; i++) {
        const char *arg = argv[i], *equals = strchr(arg, '=');
        char name[64];
        if (is_help(arg)) {
            s->help = true;
            return 0;
        }
        if (strcmp(arg, "--allow-remote") == 0) {
            s->allow_remote = true;
            continue;
        }
        if (strncmp(arg, "--", 2) != 0)
            return usage_error("unexpected argument '%s'", arg);
        if (!equals && i + 1 == argc)
            return usage_error("option '%s' is unknown or lacks its value", arg);
        snprintf(name, sizeof name, "%.*s", (int)strcspn(arg, "="), arg);
        int status = parse_option(s, name, equals ? equals + 1 : argv[++i]);
        if (status)
            return status;
    }
    return s->data ? 0 : usage_error("%s is missing", "--data DIR");
}

/* ---- signals ---- */

static int stop_event = -1;

static void on_stop(int signal)
{
    uint64_t one = 1;
    int saved = errno;
    (void)signal;
    ssize_t written = write(stop_event, &one, sizeof one);
    (void)written; /* the event is raised already when the counter is full */
    errno = saved;
}

static enum err catch_signals(struct err_ctx *ctx)
{
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    stop_event = eventfd(0, EFD_CLOEXEC);
    if (stop_event < 0)
        return err_system(ctx, errno, "making the stop event");
    if (sigaction(SIGTERM, &stop, NULL) != 0 || sigaction(SIGINT, &stop, NULL) != 0 ||
        sigaction(SIGPIPE, &ignore, NULL) != 0)
        return err_system(ctx, errno, "catching signals");
    return ERR_OK;
}

static void wait_for_stop(void)
{
    struct pollfd stop = {.fd = stop_event, .events = POLLIN};
    while (poll(&stop, 1, -1) < 1)
        ;
}

/* ---- start and stop ---- */

/* Connections, segments and indexes are a descriptor or two each. */
static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return;
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files) != 0)
        log_warn("the limit on open files stays as it is: %s", strerror(errno));
}

/* Buffers of uploads and answers are mapped one by one and go back to the system when freed; the
 * allocator would learn from their first free to keep them in its heaps. */
static void set_up_allocator(void)
{
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
}

static enum err pick_io(enum io_backend *out, struct err_ctx *ctx)
{
    const char *name = getenv("LOADSTONE_IO");
    *out = IO_AUTO;
    if (!name || !*name)
        return ERR_OK;
    if (strcmp(name, "uring") == 0)
        *out = IO_URING;
    else if (strcmp(name, "posix") == 0)
        *out = IO_POSIX;
    else
        return err_set(ctx, ERR_INVALID, "LOADSTONE_IO=%s: take uring or posix", name);
    return ERR_OK;
}

static enum err write_port_file(struct daemon *d, const char *path, struct err_ctx *ctx)
{
    char text[16];
    if (!path)
        return ERR_OK;
    int n = snprintf(text, sizeof text, "%u\n", server_port(d->server));
    return io_write_atomic(d->io, path, text, (size_t)n, ctx);
}

/* This program's file, which index builds run; a chroot may come without /proc. */
static enum err find_self(const char *program, char self[PATH_MAX], struct err_ctx *ctx)
{
    ssize_t n = readlink("/proc/self/exe", self, PATH_MAX - 1);
    if (n >= 0) {
        self[n] = 0;
        return ERR_OK;
    }
    if (strchr(program, '/') && realpath(program, self))
        return ERR_OK;
    return err_system(ctx, errno,
                      "cannot find this program's file for index builds: mount /proc, or start "
                      "loadstoned by its path");
}

static enum err start_indexer(const struct settings *s, struct daemon *d, struct err_ctx *ctx)
{
    char self[PATH_MAX];
    RETURN_NOT_OK(find_self(s->program, self, ctx));
    struct indexer_options o = {.self = self, .threads = s->build_threads};
    return indexer_new(&o, &d->indexer, ctx);
}

static enum err start_server(const struct settings *s, struct daemon *d, struct err_ctx *ctx)
{
    struct server_options o = {
        .listen = s->listen,
        .allow_remote = s->allow_remote,
        .threads = s->threads,
        .limits = s->limits,
        .catalog = d->catalog,
        .indexer = d->indexer,
        .io_backend = io_backend_name(d->io),
    };
    RETURN_NOT_OK(server_start(&o, &d->server, ctx));
    return write_port_file(d, s->port_file, ctx);
}

static enum err start(const struct settings *s, struct daemon *d, struct err_ctx *ctx)
{
    enum io_backend backend;
    set_up_allocator();
    raise_file_limit();
    RETURN_NOT_OK(catch_signals(ctx));
    RETURN_NOT_OK(mapping_catch_faults(ctx));
    RETURN_NOT_OK(pick_io(&backend, ctx));
    RETURN_NOT_OK(io_new(backend, &d->io, ctx));
    RETURN_NOT_OK(start_indexer(s, d, ctx));
    struct store_hooks hooks = {.arg = d->indexer, .segment_added = indexer_segment_added};
    RETURN_NOT_OK(catalog_open(s->data, d->io, &hooks, &d->catalog, ctx));
    return start_server(s, d, ctx);
}

static void stop(struct daemon *d)
{
    server_stop(d->server);
    if (d->indexer)
        indexer_free(d->indexer);
    if (d->catalog)
        catalog_close(d->catalog);
    epoch_drain();
    if (d->io)
        io_free(d->io);
}

static int serve(int argc, char **argv)
{
    struct settings s;
    struct daemon d = {0};
    struct err_ctx err;
    int status = parse_serve(argc, argv, &s);
    if (status)
        return status;
    if (s.help) {
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    err_clear(&err);
    if (start(&s, &d, &err) != ERR_OK) {
        fprintf(stderr, "loadstoned: %s\n", err.detail);
        status = EXIT_FAILURE;
    } else {
        log_info("loadstoned %s serves %s on http://%s (io %s, kernels %s)", version_number(),
                 s.data, server_address(d.server), io_backend_name(d.io), index_isa());
        notify_manager("READY=1");
        wait_for_stop();
        notify_manager("STOPPING=1");
        log_info("stopping");
    }
    stop(&d);
    return status;
}

/* ---- backup ---- */

static void print_line(void *arg, const struct backup_line *line)
{
    (void)arg;
    if (line->fault)
        fprintf(stderr, "loadstoned: %s: not copied: %s\n", line->collection, line->fault);
    else
        printf("%s: version %llu, %llu rows, %llu bytes\n", line->collection,
               (unsigned long long)line->version, (unsigned long long)line->rows,
               (unsigned long long)line->bytes);
}

static enum err back_up(const char *data, const char *dest, struct err_ctx *ctx)
{
    enum io_backend backend;
    struct io *io;
    RETURN_NOT_OK(pick_io(&backend, ctx));
    RETURN_NOT_OK(io_new(backend, &io, ctx));
    enum err e = backup_run(io, data, dest, print_line, NULL, ctx);
    io_free(io);
    return e;
}

static int backup(int argc, char **argv)
{
    struct err_ctx err;
    if (argc != 4)
        return usage_error("%s takes a data directory and a name for the copy", "backup");
    err_clear(&err);
    log_set_level(LOG_ERROR); /* of the copy's log the end is cut off, as a matter of course */
    if (back_up(argv[2], argv[3], &err) == ERR_OK)
        return EXIT_SUCCESS;
    fprintf(stderr, "loadstoned: %s\n", err.detail);
    return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "serve") == 0)
        return serve(argc, argv);
    if (strcmp(command, "check") == 0)
        return check_main(argc - 1, argv + 1);
    if (strcmp(command, "backup") == 0)
        return backup(argc, argv);
    if (strcmp(command, "build-index") == 0)
        return build_index_main(argc - 1, argv + 1);
    if (strcmp(command, "--version") == 0) {
        printf("loadstoned %s (commit %s)\n", version_number(), version_commit());
        return EXIT_SUCCESS;
    }
    if (is_help(command) || strcmp(command, "help") == 0) {
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    if (!*command) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return usage_error("unknown command '%s'", command);
}
