/* The daemon's settings.
 *
 * The rows here and those of the limits (api/limits.c) are the one place that names a setting:
 * everything that reads or prints settings walks them (base/config).
 *
 * Threads: read before there are any. Failure: one sentence; contradictions that a single row
 * cannot see are found at the end, over all sources. */
#include "settings.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { THREADS_MAX = 1024 };

/* Columns after the type: default, min, max, choices, word for the value, what happens without. */
#define ROW(kind, key, field, ...)                                                                 \
    {                                                                                              \
        .name = key, .type = kind, .offset = offsetof(struct settings, field), __VA_ARGS__         \
    }

static const struct config_row server_rows[] = {
    ROW(CONFIG_TEXT, "data", data, .takes = "DIR", .unset = "required",
        .help = "where the collections live; made when missing"),
    ROW(CONFIG_TEXT, "config", config, .takes = "FILE", .unset = "none",
        .help = "file of settings, one 'name = value' a line"),
    ROW(CONFIG_TEXT, "listen", listen, .standard = "127.0.0.1:7700", .takes = "HOST:PORT",
        .help = "address to listen on; port 0 takes a free one"),
    ROW(CONFIG_BOOL, "allow_remote", allow_remote, .standard = "false",
        .help = "listen on an address that other machines reach though no token is set"),
    ROW(CONFIG_TEXT, "port_file", port_file, .takes = "FILE", .unset = "none",
        .help = "write the port there once listening"),
    ROW(CONFIG_UINT, "threads", threads, .min = 1, .max = THREADS_MAX, .unset = "one a core",
        .help = "HTTP threads"),
    ROW(CONFIG_UINT, "build_threads", build_threads, .min = 1, .max = THREADS_MAX,
        .unset = "all cores", .help = "threads of an index build"),
    ROW(CONFIG_BYTES, "memory", memory_bytes, .min = 16 << 20, .max = UINT64_MAX,
        .unset = "half of the machine's or the control group's",
        .help = "memory that indexes and their builds may take"),
    ROW(CONFIG_BOOL, "compaction", compaction, .standard = "true",
        .help = "merge segment files in the background, so that they stay few"),
    ROW(CONFIG_CHOICE, "io", io, .standard = "auto", .choices = "auto uring posix",
        .help = "how files are written; auto probes io_uring"),
    ROW(CONFIG_CHOICE, "isa", isa, .standard = "auto", .choices = "auto avx512 avx2 scalar",
        .help = "instruction set of the distance kernels; auto takes the best there is"),
};

static const struct config_row access_rows[] = {
    ROW(CONFIG_TEXT, "read_token_file", access.read_token_file, .takes = "FILE", .unset = "none",
        .help = "tokens that may read, one a line"),
    ROW(CONFIG_TEXT, "write_token_file", access.write_token_file, .takes = "FILE", .unset = "none",
        .help = "tokens that may write and read; with any token set, all calls but /, /healthz and "
                "/readyz need one; SIGHUP reads both files anew"),
    ROW(CONFIG_SECRET, "read_token", access.read_token, .unset = "none",
        .help = "a token that may read, instead of read_token_file"),
    ROW(CONFIG_SECRET, "write_token", access.write_token, .unset = "none",
        .help = "a token that may write and read, instead of write_token_file"),
};

static const struct config_row log_rows[] = {
    ROW(CONFIG_TEXT, "log_file", log_file, .takes = "FILE", .unset = "standard error",
        .help = "file to log to; SIGHUP opens it anew, after logrotate renamed it"),
    ROW(CONFIG_CHOICE, "log_format", log_format, .standard = "text", .choices = "text json",
        .help = "a line of the log: name=value pairs, or a JSON object"),
    ROW(CONFIG_CHOICE, "log_level", log_level, .standard = "info",
        .choices = "debug info warn error", .help = "what is logged: this and worse"),
};

#undef ROW

enum { GROUPS = 4 };
#define GROUP(title, rows, values)                                                                 \
    (struct config_group)                                                                          \
    {                                                                                              \
        title, rows, sizeof(rows) / sizeof((rows)[0]), values                                      \
    }

static struct settings shown; /* what the texts describe */

static void init(struct settings *s, struct config_group groups[GROUPS])
{
    groups[0] = GROUP("Server", server_rows, s);
    groups[1] = GROUP("Access", access_rows, s);
    groups[2] = GROUP("Log", log_rows, s);
    groups[3] = limits_group(&s->limits);
    config_init(&s->values, groups, GROUPS);
}

static enum err check(const struct settings *s, struct err_ctx *ctx)
{
    if (!s->data)
        return err_set(ctx, ERR_INVALID, "--data DIR is missing");
    return limits_check(&s->limits, ctx);
}

static struct config_group groups[GROUPS];

enum err settings_read_env(struct settings *s, struct err_ctx *ctx)
{
    *s = (struct settings){0};
    init(s, groups);
    return config_read_env(&s->values, environ, ctx);
}

/* Children that build indexes have no business with them. */
static void hide_tokens(void)
{
    unsetenv(CONFIG_ENV_PREFIX "READ_TOKEN");
    unsetenv(CONFIG_ENV_PREFIX "WRITE_TOKEN");
}

enum err settings_read(struct settings *s, int argc, char **argv, struct err_ctx *ctx)
{
    *s = (struct settings){0};
    init(s, groups);
    RETURN_NOT_OK(config_read_flags(&s->values, argc, argv, ctx));
    RETURN_NOT_OK(config_read_env(&s->values, environ, ctx));
    if (s->config)
        RETURN_NOT_OK(config_read_file(&s->values, s->config, ctx));
    hide_tokens();
    return check(s, ctx);
}

void settings_deinit(struct settings *s)
{
    config_deinit(&s->values);
}

static const char sample_head[] =
    "# Settings of loadstoned, each with its default. Take the '#' away and change the value, "
    "then\n"
    "# start with: loadstoned serve --config THIS_FILE\n"
    "# A flag or an environment variable of the same name overrides a line.\n";

static const char markdown_head[] =
    "# Settings\n"
    "\n"
    "Written by `loadstoned settings --markdown`. Every setting can be given in three ways, the\n"
    "stronger first:\n"
    "\n"
    "1. a flag of `loadstoned serve`: `--body-bytes-max 32G` (or `--body-bytes-max=32G`);\n"
    "2. an environment variable: `LOADSTONE_BODY_BYTES_MAX=32G`;\n"
    "3. a line of the file that `--config` or `LOADSTONE_CONFIG` names: `body_bytes_max = 32G`.\n"
    "\n"
    "Bytes take K, M, G and T, which count in 1024s. `loadstoned settings` prints a file to start\n"
    "from; `GET /v1/limits` tells the limits in force.\n";

void settings_print(enum settings_text which)
{
    struct config_group groups[GROUPS];
    struct buf out = {0};
    init(&shown, groups);
    if (which == SETTINGS_HELP) {
        config_help(&shown.values, &out);
    } else if (which == SETTINGS_SAMPLE) {
        buf_printf(&out, "%s", sample_head);
        config_sample(&shown.values, &out);
    } else {
        buf_printf(&out, "%s", markdown_head);
        config_markdown(&shown.values, &out);
    }
    ASSERT(!out.failed);
    fwrite(out.data, 1, out.len, stdout);
    buf_deinit(&out);
}
