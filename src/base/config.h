/* Settings from one table: each row is a flag `--body-bytes-max N`, an environment variable
 * `LOADSTONE_BODY_BYTES_MAX`, a line `body_bytes_max = N` of the config file, and a line of every
 * text about it (help, sample file, documentation).
 *
 * Precedence: flag, then environment, then file, then default. Whatever is given is checked, also
 * where something stronger overrides it. */
#ifndef LOADSTONE_BASE_CONFIG_H
#define LOADSTONE_BASE_CONFIG_H

#include "base/bytes.h"

#define CONFIG_ENV_PREFIX "LOADSTONE_"

enum config_type {
    CONFIG_TEXT,   /* const char *; NULL when not set */
    CONFIG_SECRET, /* the same, from the environment only, and never printed */
    CONFIG_UINT,   /* uint64_t */
    CONFIG_BYTES,  /* uint64_t; "64M" with K, M, G or T, which count in 1024s */
    CONFIG_BOOL,   /* bool; the flag may stand without a value */
    CONFIG_CHOICE, /* unsigned: place in `choices` */
};

struct config_row {
    const char *name; /* body_bytes_max */
    enum config_type type;
    size_t offset;        /* of the value in the struct that the group fills */
    const char *standard; /* as a user would write it; NULL: zero, see `unset` */
    uint64_t min, max;    /* of CONFIG_UINT and CONFIG_BYTES, when it is given */
    const char *choices;  /* "text json" */
    const char *takes;    /* word for the value in the help: DIR; NULL: by type */
    const char *unset;    /* what happens without it: "one a core"; NULL: nothing to say */
    const char *help;     /* one line, no full stop */
};

/* Rows that belong together and fill one struct. */
struct config_group {
    const char *title;
    const struct config_row *rows;
    unsigned nrows;
    void *values;
};

enum { CONFIG_ROWS_MAX = 128 };
enum config_source { CONFIG_DEFAULT, CONFIG_FILE, CONFIG_ENV, CONFIG_FLAG };

struct config {
    const struct config_group *groups; /* borrowed */
    unsigned ngroups, nrows;
    enum config_source source[CONFIG_ROWS_MAX]; /* where each value comes from */
    char *text[CONFIG_ROWS_MAX]; /* the value as it was written; CONFIG_TEXT points in here */
};

/* Puts the defaults in place. The groups must outlive `c`, and `c` the values of type text. */
void config_init(struct config *c, const struct config_group *groups, unsigned ngroups);
void config_deinit(struct config *c); /* frees the texts */

/* The sources, in any order. ERR_INVALID names the setting, what it takes, for an unknown name a
 * known one that is near, and for a file its line. */

/* "--name value" or "--name=value"; argv[0] is the first of them. */
WARN_UNUSED enum err config_read_flags(struct config *c, int argc, char **argv,
                                       struct err_ctx *ctx);
/* Every variable that begins with LOADSTONE_; one without a value counts as not set. */
WARN_UNUSED enum err config_read_env(struct config *c, char **environment, struct err_ctx *ctx);
/* `name = value` lines; `#` begins a comment at the start of a line or behind a space. */
WARN_UNUSED enum err config_read_file(struct config *c, const char *path, struct err_ctx *ctx);

enum config_source config_source_of(const struct config *c, const char *name);
/* How the user named it there: "--data", "LOADSTONE_DATA" or "data", for sentences. */
void config_written_name(const struct config *c, const char *name, char *out, size_t cap);

/* A value as a user would write it; a secret stays hidden. */
void config_put_value(const struct config_row *row, const void *values, struct buf *out);

/* "1 to 1024", "16M or more"; nothing for what has no bounds. */
void config_put_range(const struct config_row *row, struct buf *out);

/* What there is to set, with the defaults (config_text.c). */
void config_help(const struct config *c, struct buf *out);     /* for --help */
void config_sample(const struct config *c, struct buf *out);   /* a config file to start from */
void config_markdown(const struct config *c, struct buf *out); /* tables */

#endif
