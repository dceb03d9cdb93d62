/* Settings: values from flags, environment and file.
 *
 * Invariant: a value in a struct that a group fills has passed the check of its row, so that no
 * user of it checks again; it comes from the strongest source that named it, whatever the order in
 * which the sources were read. One source may name a setting twice only with the same value.
 *
 * Threads: read before there are any. Failure: one sentence in the words of the source. */
#include "base/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>

enum { NAME_BYTES = 64, LINE_BYTES = 8192, NEAREST_NAME_MAX = 48 };

/* ---- rows ---- */

static const struct config_row *row_at(const struct config *c, unsigned i, void **values)
{
    for (unsigned g = 0; g < c->ngroups; i -= c->groups[g++].nrows) {
        if (i < c->groups[g].nrows) {
            *values = c->groups[g].values;
            return &c->groups[g].rows[i];
        }
    }
    return NULL;
}

static int find(const struct config *c, const char *name)
{
    void *values;
    for (unsigned i = 0; i < c->nrows; i++)
        if (strcmp(row_at(c, i, &values)->name, name) == 0)
            return (int)i;
    return -1;
}

/* Levenshtein's distance, one row of his matrix at a time. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[NEAREST_NAME_MAX + 1];
    size_t n = strnlen(b, NEAREST_NAME_MAX);
    for (size_t j = 0; j <= n; j++)
        row[j] = (unsigned)j;
    for (unsigned i = 1; *a; a++, i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            unsigned swap = diagonal + (*a != b[j - 1]);
            unsigned drop = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = swap < drop ? swap : drop;
        }
    }
    return row[n];
}

/* The known name that `name` was meant to be: at most a third of it differs. NULL without one. */
static const char *nearest(const struct config *c, const char *name)
{
    const char *best = NULL;
    unsigned least = (unsigned)strlen(name) / 3 + 1;
    void *values;
    for (unsigned i = 0; i < c->nrows; i++) {
        const char *known = row_at(c, i, &values)->name;
        unsigned d = distance(name, known);
        if (d < least) {
            least = d;
            best = known;
        }
    }
    return best;
}

/* ---- names as each source writes them ---- */

static void spell(enum config_source source, const char *name, char *out, size_t cap)
{
    static const char *const before[] = {"", "", CONFIG_ENV_PREFIX, "--"};
    int n = snprintf(out, cap, "%s", before[source]);
    for (; *name && (size_t)n + 1 < cap; name++, n++) {
        out[n] = *name;
        if (source == CONFIG_ENV)
            out[n] = (char)toupper((unsigned char)*name);
        if (source == CONFIG_FLAG && *name == '_')
            out[n] = '-';
    }
    out[n] = 0;
}

/* Back to the name of the row; false when the source writes no name like that. */
static bool unspell(enum config_source source, const char *given, size_t n, char out[NAME_BYTES])
{
    if (n >= NAME_BYTES)
        n = NAME_BYTES - 1;
    for (size_t i = 0; i < n; i++) {
        unsigned char ch = (unsigned char)given[i];
        bool other_case = source == CONFIG_ENV ? islower(ch) : isupper(ch);
        if (other_case || (source == CONFIG_FLAG && ch == '_'))
            return false;
        out[i] = source == CONFIG_FLAG && ch == '-' ? '_' : (char)tolower(ch);
    }
    out[n] = 0;
    return true;
}

static enum err unknown(const struct config *c, enum config_source source, const char *given,
                        size_t n, struct err_ctx *ctx)
{
    char lower[NAME_BYTES], known[NAME_BYTES + 16];
    size_t i;
    for (i = 0; i < n && i < NAME_BYTES - 1; i++)
        lower[i] = given[i] == '-' ? '_' : (char)tolower((unsigned char)given[i]);
    lower[i] = 0;
    const char *before = source == CONFIG_ENV    ? CONFIG_ENV_PREFIX
                         : source == CONFIG_FLAG ? "--"
                                                 : "";
    const char *meant = nearest(c, lower);
    int shown = (int)(n < 80 ? n : 80);
    if (!meant)
        return err_set(ctx, ERR_INVALID,
                       "unknown setting '%s%.*s'; loadstoned --help lists the known ones", before,
                       shown, given);
    spell(source, meant, known, sizeof known);
    return err_set(ctx, ERR_INVALID, "unknown setting '%s%.*s'; the nearest known one is %s",
                   before, shown, given, known);
}

/* ---- values ---- */

static enum err wrong_value(const char *spelled, const char *value, const char *takes,
                            struct err_ctx *ctx)
{
    return err_set(ctx, ERR_INVALID, "%s takes %s, not '%.200s'", spelled, takes, value);
}

static int suffix_shift(char suffix)
{
    switch (toupper((unsigned char)suffix)) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    case 'T':
        return 40;
    default:
        return -1;
    }
}

static bool parse_number(const char *text, bool bytes, uint64_t *out)
{
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno)
        return false;
    int shift = bytes && *end ? suffix_shift(*end++) : 0;
    if (shift < 0 || *end || (n << shift) >> shift != n)
        return false;
    *out = n << shift;
    return true;
}

static enum err set_number(const struct config_row *row, const char *text, const char *spelled,
                           uint64_t *slot, struct err_ctx *ctx)
{
    struct buf range = {0};
    char takes[160];
    uint64_t n;
    bool bytes = row->type == CONFIG_BYTES;
    if (parse_number(text, bytes, &n) && n >= row->min && n <= row->max) {
        *slot = n;
        return ERR_OK;
    }
    config_put_range(row, &range);
    snprintf(takes, sizeof takes, "a whole number%s from %.*s%s", bytes ? " of bytes" : "",
             (int)range.len, (const char *)range.data, bytes ? " (K, M, G and T for 1024s)" : "");
    buf_deinit(&range);
    return wrong_value(spelled, text, takes, ctx);
}

static enum err set_bool(const char *text, const char *spelled, bool *slot, struct err_ctx *ctx)
{
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    if (!yes && strcmp(text, "false") != 0 && strcmp(text, "0") != 0)
        return wrong_value(spelled, text, "true or false", ctx);
    *slot = yes;
    return ERR_OK;
}

/* "debug info warn error" as "debug, info, warn or error". */
static void list_choices(const char *choices, char *out, size_t cap)
{
    size_t n = 0;
    for (const char *p = choices; *p && n + 5 < cap; p++) {
        const char *gap = strchr(p + 1, ' ') ? ", " : " or ";
        n += (size_t)(*p == ' ' ? snprintf(out + n, cap - n, "%s", gap)
                                : snprintf(out + n, cap - n, "%c", *p));
    }
}

static enum err set_choice(const struct config_row *row, const char *text, const char *spelled,
                           unsigned *slot, struct err_ctx *ctx)
{
    char takes[160];
    unsigned place = 0;
    size_t len = strlen(text);
    for (const char *p = row->choices; *p; place++) {
        size_t n = strcspn(p, " ");
        if (n == len && memcmp(p, text, n) == 0) {
            *slot = place;
            return ERR_OK;
        }
        p += n + (p[n] == ' ');
    }
    list_choices(row->choices, takes, sizeof takes);
    return wrong_value(spelled, text, takes, ctx);
}

/* Checks `text` and puts the value at `slot`. */
static enum err set_value(const struct config_row *row, const char *text, const char *spelled,
                          void *slot, struct err_ctx *ctx)
{
    switch (row->type) {
    case CONFIG_UINT:
    case CONFIG_BYTES:
        return set_number(row, text, spelled, slot, ctx);
    case CONFIG_BOOL:
        return set_bool(text, spelled, slot, ctx);
    case CONFIG_CHOICE:
        return set_choice(row, text, spelled, slot, ctx);
    case CONFIG_TEXT:
    case CONFIG_SECRET:
        break;
    }
    if (!*text)
        return err_set(ctx, ERR_INVALID, "%s has an empty value: give one, or leave it out",
                       spelled);
    *(const char **)slot = text;
    return ERR_OK;
}

static size_t value_size(enum config_type type)
{
    static const size_t sizes[] = {
        [CONFIG_TEXT] = sizeof(char *),   [CONFIG_SECRET] = sizeof(char *),
        [CONFIG_UINT] = sizeof(uint64_t), [CONFIG_BYTES] = sizeof(uint64_t),
        [CONFIG_BOOL] = sizeof(bool),     [CONFIG_CHOICE] = sizeof(unsigned),
    };
    return sizes[type];
}

/* One assignment from a source. */
static enum err assign(struct config *c, enum config_source source, unsigned i, const char *value,
                       struct err_ctx *ctx)
{
    union {
        uint64_t number;
        const char *text;
        bool flag;
        unsigned place;
    } checked = {0};
    char spelled[NAME_BYTES + 16];
    void *values;
    const struct config_row *row = row_at(c, i, &values);
    spell(source, row->name, spelled, sizeof spelled);
    RETURN_NOT_OK(set_value(row, value, spelled, &checked, ctx));
    if (c->source[i] > source)
        return ERR_OK;
    if (c->source[i] == source && strcmp(c->text[i], value) != 0)
        return err_set(ctx, ERR_INVALID, "%s is given twice, as '%.200s' and as '%.200s': keep one",
                       spelled, c->text[i], value);
    char *copy = strdup(value);
    if (!copy)
        return err_no_memory(ctx, strlen(value));
    free(c->text[i]);
    c->text[i] = copy;
    c->source[i] = source;
    if (row->type == CONFIG_TEXT || row->type == CONFIG_SECRET)
        checked.text = copy;
    memcpy((char *)values + row->offset, &checked, value_size(row->type));
    return ERR_OK;
}

void config_init(struct config *c, const struct config_group *groups, unsigned ngroups)
{
    *c = (struct config){.groups = groups, .ngroups = ngroups};
    for (unsigned g = 0; g < ngroups; g++) {
        c->nrows += groups[g].nrows;
        for (unsigned r = 0; r < groups[g].nrows; r++) {
            const struct config_row *row = &groups[g].rows[r];
            void *slot = (char *)groups[g].values + row->offset;
            memset(slot, 0, value_size(row->type));
            if (row->standard)
                ASSERT(set_value(row, row->standard, row->name, slot, NULL) == ERR_OK);
        }
    }
    ASSERT(c->nrows <= CONFIG_ROWS_MAX);
}

void config_deinit(struct config *c)
{
    for (unsigned i = 0; i < c->nrows; i++)
        free(c->text[i]);
}

enum config_source config_source_of(const struct config *c, const char *name)
{
    int i = find(c, name);
    ASSERT(i >= 0);
    return c->source[i];
}

void config_written_name(const struct config *c, const char *name, char *out, size_t cap)
{
    enum config_source source = config_source_of(c, name);
    spell(source == CONFIG_DEFAULT ? CONFIG_FLAG : source, name, out, cap);
}

/* ---- flags ---- */

static enum err flag_lacks_value(const char *flag, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_INVALID, "%s lacks its value", flag);
}

static enum err read_flag(struct config *c, int argc, char **argv, int *at, struct err_ctx *ctx)
{
    char name[NAME_BYTES];
    void *values;
    const char *arg = argv[*at], *value = strchr(arg, '=');
    size_t n = value ? (size_t)(value - arg) : strlen(arg);
    if (strncmp(arg, "--", 2) != 0)
        return err_set(ctx, ERR_INVALID, "unexpected argument '%.200s'", arg);
    int i = unspell(CONFIG_FLAG, arg + 2, n - 2, name) ? find(c, name) : -1;
    if (i < 0)
        return unknown(c, CONFIG_FLAG, arg + 2, n - 2, ctx);
    const struct config_row *row = row_at(c, (unsigned)i, &values);
    if (row->type == CONFIG_SECRET)
        return err_set(ctx, ERR_INVALID,
                       "%.*s would show in the list of processes: set it in a file or in the "
                       "environment",
                       (int)n, arg);
    if (value)
        value++;
    else if (row->type == CONFIG_BOOL)
        value = "true";
    else if (*at + 1 == argc)
        return flag_lacks_value(arg, ctx);
    else
        value = argv[++*at];
    return assign(c, CONFIG_FLAG, (unsigned)i, value, ctx);
}

enum err config_read_flags(struct config *c, int argc, char **argv, struct err_ctx *ctx)
{
    for (int at = 0; at < argc; at++)
        RETURN_NOT_OK(read_flag(c, argc, argv, &at, ctx));
    return ERR_OK;
}

/* ---- environment ---- */

/* Kubernetes and Docker announce a service called "loadstone" that way: LOADSTONE_SERVICE_HOST,
 * LOADSTONE_PORT, LOADSTONE_PORT_7700_TCP_ADDR. They are addresses of others, not settings. */
static bool announces_service(const char *name, size_t n)
{
    return strncmp(name, "SERVICE_", 8) == 0 || (n == 4 && memcmp(name, "PORT", 4) == 0) ||
           (strncmp(name, "PORT_", 5) == 0 && isdigit((unsigned char)name[5]));
}

enum err config_read_env(struct config *c, char **environment, struct err_ctx *ctx)
{
    const size_t prefix = strlen(CONFIG_ENV_PREFIX);
    char name[NAME_BYTES];
    for (char **e = environment; *e; e++) {
        const char *given = *e + prefix, *value = strchr(*e, '=');
        if (strncmp(*e, CONFIG_ENV_PREFIX, prefix) != 0 || !value || !value[1])
            continue;
        size_t n = (size_t)(value - given);
        if (announces_service(given, n))
            continue;
        int i = unspell(CONFIG_ENV, given, n, name) ? find(c, name) : -1;
        if (i < 0)
            return unknown(c, CONFIG_ENV, given, n, ctx);
        RETURN_NOT_OK(assign(c, CONFIG_ENV, (unsigned)i, value + 1, ctx));
    }
    return ERR_OK;
}

/* ---- file ---- */

static char *trim(char *text)
{
    text += strspn(text, " \t");
    size_t n = strlen(text);
    while (n && strchr(" \t\r\n", text[n - 1]))
        text[--n] = 0;
    return text;
}

static void cut_comment(char *line)
{
    for (char *p = line; *p; p++) {
        if (*p == '#' && (p == line || p[-1] == ' ' || p[-1] == '\t')) {
            *p = 0;
            return;
        }
    }
}

static enum err read_line(struct config *c, char *line, struct err_ctx *ctx)
{
    char name[NAME_BYTES];
    void *values;
    cut_comment(line);
    line = trim(line);
    if (!*line)
        return ERR_OK;
    char *equals = strchr(line, '=');
    if (!equals)
        return err_set(ctx, ERR_INVALID, "'%.80s' is no setting: write name = value", line);
    *equals = 0;
    char *given = trim(line), *value = trim(equals + 1);
    int i = unspell(CONFIG_FILE, given, strlen(given), name) ? find(c, name) : -1;
    if (i < 0)
        return unknown(c, CONFIG_FILE, given, strlen(given), ctx);
    if (strcmp(name, "config") == 0)
        return err_set(ctx, ERR_INVALID, "a config file names no other: put the lines in this one");
    if (row_at(c, (unsigned)i, &values)->type == CONFIG_SECRET)
        return err_set(ctx, ERR_INVALID, "%s belongs in the environment or in a file of its own",
                       given);
    return assign(c, CONFIG_FILE, (unsigned)i, value, ctx);
}

static enum err read_lines(struct config *c, FILE *f, const char *path, struct err_ctx *ctx)
{
    char line[LINE_BYTES];
    for (unsigned n = 1; fgets(line, sizeof line, f); n++) {
        enum err e = ERR_OK;
        if (!strchr(line, '\n') && !feof(f))
            e = err_set(ctx, ERR_INVALID, "the line is longer than %d bytes", LINE_BYTES - 2);
        else
            e = read_line(c, line, ctx);
        if (e != ERR_OK)
            return err_set(ctx, e, "%s, line %u: %s", path, n, ctx ? ctx->detail : "");
    }
    return ferror(f) ? err_system(ctx, errno, "reading the config file %s", path) : ERR_OK;
}

enum err config_read_file(struct config *c, const char *path, struct err_ctx *ctx)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_system(ctx, errno, "opening the config file %s", path);
    enum err e = read_lines(c, f, path, ctx);
    fclose(f);
    return e;
}
