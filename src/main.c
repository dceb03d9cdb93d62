/* loadstoned: read the settings, wire the layers, wait for a signal, stop in order.
 *
 *   start:  io -> indexer -> catalog (which calls the indexer for every segment) -> server
 *   stop:   index builds -> server -> catalog -> indexer -> io
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
#include <stdatomic.h>
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
#include "settings.h"
#include "store/backup.h"
#include "store/catalog.h"
#include "store/upkeep.h"

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: loadstoned serve --data DIR [settings]   serve the collections under DIR\n"
    "       loadstoned settings [--markdown]         print a config file to start from, or tables\n"
    "       loadstoned check DIR                     check all files under DIR, which is not in "
    "use\n"
    "       loadstoned backup DATA DEST              copy DATA, which may be in use, to DEST\n"
    "       loadstoned --version | --help\n"
    "\n"
    "A setting is a flag, or a variable LOADSTONE_NAME, or a line 'name = value' of the config\n"
    "file; the flag is stronger than the variable, the variable than the file.\n"
    "\n";

struct daemon {
    struct io *io;
    struct indexer *indexer;
    struct catalog *catalog;
    struct access *access;
    struct server *server;
};

/* ---- signals ---- */

static int stop_event = -1, reload_event = -1;
static atomic_bool stopping, hurried; /* asked to stop; asked a second time */

static void on_signal(int signal)
{
    uint64_t one = 1;
    int saved = errno;
    if (signal != SIGHUP && atomic_exchange(&stopping, true))
        atomic_store(&hurried, true);
    ssize_t written = write(signal == SIGHUP ? reload_event : stop_event, &one, sizeof one);
    (void)written; /* the event is raised already when the counter is full */
    errno = saved;
}

static enum err catch_signals(struct err_ctx *ctx)
{
    struct sigaction note = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    stop_event = eventfd(0, EFD_CLOEXEC);
    reload_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_event < 0 || reload_event < 0)
        return err_system(ctx, errno, "making the events of signals");
    if (sigaction(SIGTERM, &note, NULL) != 0 || sigaction(SIGINT, &note, NULL) != 0 ||
        sigaction(SIGHUP, &note, NULL) != 0 || sigaction(SIGPIPE, &ignore, NULL) != 0)
        return err_system(ctx, errno, "catching signals");
    return ERR_OK;
}

/* SIGHUP: the log file, which may have been renamed, and the tokens, which may have been changed.
 */
static void reload(struct daemon *d)
{
    struct err_ctx err;
    err_clear(&err);
    if (log_reopen(&err) != ERR_OK)
        log_error("the log stays where it is: %s", err.detail);
    if (access_reload(d->access, &err) != ERR_OK)
        log_error("the tokens stay as they are: %s", err.detail);
    else
        log_info("log and tokens are reloaded");
}

static void wait_for_stop(struct daemon *d)
{
    uint64_t count;
    struct pollfd events[] = {{.fd = stop_event, .events = POLLIN},
                              {.fd = reload_event, .events = POLLIN}};
    while (!events[0].revents) {
        if (poll(events, 2, -1) < 1)
            events[0].revents = 0;
        else if (read(reload_event, &count, sizeof count) == sizeof count)
            reload(d);
    }
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

/* The kernels read the variable, here and in the children that build indexes. */
static enum err pick_kernels(const struct settings *s, struct err_ctx *ctx)
{
    static const char *const names[] = {
        [ISA_AUTO] = "auto", [ISA_AVX512] = "avx512", [ISA_AVX2] = "avx2", [ISA_SCALAR] = "scalar"};
    if (setenv("LOADSTONE_ISA", names[s->isa], 1) != 0)
        return err_system(ctx, errno, "setting LOADSTONE_ISA");
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

static enum err start_indexer(const struct settings *s, const char *program, struct daemon *d,
                              struct err_ctx *ctx)
{
    char self[PATH_MAX];
    RETURN_NOT_OK(find_self(program, self, ctx));
    RETURN_NOT_OK(pick_kernels(s, ctx));
    struct indexer_options o = {
        .self = self,
        .threads = (unsigned)s->build_threads,
        .memory_bytes = s->memory_bytes,
        .io = d->io,
    };
    return indexer_new(&o, &d->indexer, ctx);
}

static enum err start_server(const struct settings *s, struct daemon *d, struct err_ctx *ctx)
{
    struct server_options o = {
        .listen = s->listen,
        .allow_remote = s->allow_remote,
        .threads = (unsigned)s->threads,
        .limits = s->limits,
        .access = d->access,
        .catalog = d->catalog,
        .indexer = d->indexer,
        .io_backend = io_backend_name(d->io),
        .hurried = &hurried,
    };
    RETURN_NOT_OK(server_start(&o, &d->server, ctx));
    return write_port_file(d, s->port_file, ctx);
}

static enum err start_log(const struct settings *s, struct err_ctx *ctx)
{
    log_set_level(s->log_level);
    log_set_format(s->log_format);
    return s->log_file ? log_open(s->log_file, ctx) : ERR_OK;
}

static enum err start(const struct settings *s, const char *program, struct daemon *d,
                      struct err_ctx *ctx)
{
    RETURN_NOT_OK(start_log(s, ctx));
    set_up_allocator();
    raise_file_limit();
    RETURN_NOT_OK(catch_signals(ctx));
    RETURN_NOT_OK(mapping_catch_faults(ctx));
    RETURN_NOT_OK(access_new(&s->access, &d->access, ctx));
    RETURN_NOT_OK(io_new(s->io, &d->io, ctx));
    RETURN_NOT_OK(start_indexer(s, program, d, ctx));
    struct store_hooks hooks = {.arg = d->indexer,
                                .segment_added = indexer_segment_added,
                                .segment_opened = indexer_segment_opened,
                                .segment_build = indexer_segment_build,
                                .segment_removed = indexer_segment_removed};
    RETURN_NOT_OK(catalog_open(s->data, d->io, &hooks, &d->catalog, ctx));
    struct upkeep_options upkeep = {.compaction = s->compaction};
    RETURN_NOT_OK(catalog_start_upkeep(d->catalog, &upkeep, ctx));
    return start_server(s, d, ctx);
}

static void stop(struct daemon *d)
{
    if (d->indexer)
        indexer_stop(d->indexer);
    if (d->catalog)
        catalog_stop_upkeep(d->catalog);
    server_stop(d->server);
    access_free(d->access);
    if (d->catalog)
        catalog_close(d->catalog);
    indexer_free(d->indexer);
    epoch_drain();
    if (d->io)
        io_free(d->io);
}

/* ---- commands ---- */

static int usage_error(const char *sentence)
{
    fprintf(stderr, "loadstoned: %s; loadstoned --help lists what there is\n", sentence);
    return EXIT_USAGE;
}

static bool is_help(const char *arg)
{
    return strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0;
}

static int help(void)
{
    fputs(usage, stdout);
    settings_print(SETTINGS_HELP);
    return EXIT_SUCCESS;
}

static int run(const struct settings *s, const char *program)
{
    struct daemon d = {0};
    struct err_ctx err;
    int status = EXIT_SUCCESS;
    err_clear(&err);
    if (start(s, program, &d, &err) != ERR_OK) {
        fprintf(stderr, "loadstoned: %s\n", err.detail);
        status = EXIT_FAILURE;
    } else {
        log_info("loadstoned %s serves %s on http://%s (io %s, kernels %s)", version_number(),
                 s->data, server_address(d.server), io_backend_name(d.io), index_isa());
        notify_manager("READY=1");
        wait_for_stop(&d);
        notify_manager("STOPPING=1");
        log_info("stopping");
    }
    stop(&d);
    return status;
}

static int serve(int argc, char **argv)
{
    struct settings s;
    struct err_ctx err;
    for (int i = 2; i < argc; i++)
        if (is_help(argv[i]))
            return help();
    err_clear(&err);
    enum err e = settings_read(&s, argc - 2, argv + 2, &err);
    int status = e == ERR_OK ? run(&s, argv[0]) : usage_error(err.detail);
    settings_deinit(&s);
    return status;
}

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
    struct settings s;
    struct io *io = NULL;
    enum err e = settings_read_env(&s, ctx);
    if (e == ERR_OK)
        e = io_new(s.io, &io, ctx);
    settings_deinit(&s);
    RETURN_NOT_OK(e);
    e = backup_run(io, data, dest, print_line, NULL, ctx);
    io_free(io);
    return e;
}

static int backup(int argc, char **argv)
{
    struct err_ctx err;
    if (argc != 4)
        return usage_error("backup takes a data directory and a name for the copy");
    err_clear(&err);
    log_set_level(LOG_ERROR); /* of the copy's log the end is cut off, as a matter of course */
    if (back_up(argv[2], argv[3], &err) == ERR_OK)
        return EXIT_SUCCESS;
    fprintf(stderr, "loadstoned: %s\n", err.detail);
    return EXIT_FAILURE;
}

static int settings(int argc, char **argv)
{
    bool markdown = argc == 3 && strcmp(argv[2], "--markdown") == 0;
    if (argc > 2 && is_help(argv[2]))
        return help();
    if (argc > 2 && !markdown)
        return usage_error("settings takes --markdown or nothing");
    settings_print(markdown ? SETTINGS_MARKDOWN : SETTINGS_SAMPLE);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (strcmp(command, "serve") == 0)
        return serve(argc, argv);
    if (strcmp(command, "settings") == 0)
        return settings(argc, argv);
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
    if (is_help(command) || strcmp(command, "help") == 0)
        return help();
    if (!*command) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    fprintf(stderr, "loadstoned: unknown command '%s'; loadstoned --help lists what there is\n",
            command);
    return EXIT_USAGE;
}
