/* The daemon's settings: one table for flags, environment, config file, help and documentation. */
#ifndef LOADSTONE_SETTINGS_H
#define LOADSTONE_SETTINGS_H

#include "api/access.h"
#include "api/limits.h"
#include "base/log.h"
#include "io/io.h"

enum isa { ISA_AUTO, ISA_AVX512, ISA_AVX2, ISA_SCALAR };

struct settings {
    const char *data;
    const char *config;
    const char *listen;
    const char *port_file;
    bool allow_remote;
    uint64_t threads; /* 0: one a core */
    uint64_t build_threads;
    bool compaction;
    uint64_t memory_bytes; /* 0: half of the machine's or the control group's */
    enum io_backend io;
    enum isa isa;
    const char *log_file; /* NULL: standard error */
    enum log_format log_format;
    enum log_level log_level;
    struct access_options access;
    struct limits limits;
    struct config values; /* owns the texts above */
};

/* Reads the flags (argv behind the word "serve"), the environment and the config file. On error the
 * sentence is in `ctx`; settings_deinit is due in any case. */
WARN_UNUSED enum err settings_read(struct settings *s, int argc, char **argv, struct err_ctx *ctx);
/* Defaults and environment, for commands that take no flags. */
WARN_UNUSED enum err settings_read_env(struct settings *s, struct err_ctx *ctx);
void settings_deinit(struct settings *s);

/* The texts that are printed on request; each sets the defaults. */
enum settings_text { SETTINGS_HELP, SETTINGS_SAMPLE, SETTINGS_MARKDOWN };
void settings_print(enum settings_text which);

#endif
