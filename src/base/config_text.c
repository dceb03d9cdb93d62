/* The texts about settings: help, sample file and tables, all from the rows.
 *
 * Threads: no state. Failure: memory running out shows in out->failed. */
#include "base/config.h"

#include <ctype.h>
#include <stdio.h>

enum { HELP_COLUMN = 34, HELP_WIDTH = 98 };

static void put_bytes(uint64_t n, struct buf *out)
{
    static const char suffixes[] = " KMGT";
    unsigned s = 0;
    while (n && n % 1024 == 0 && s < sizeof suffixes - 2) {
        n /= 1024;
        s++;
    }
    buf_printf(out, "%llu", (unsigned long long)n);
    if (s)
        buf_put_u8(out, (uint8_t)suffixes[s]);
}

static void put_choice(const char *choices, unsigned place, struct buf *out)
{
    while (place-- && *choices) {
        choices += strcspn(choices, " ");
        choices += *choices == ' ';
    }
    buf_put(out, choices, strcspn(choices, " "));
}

void config_put_value(const struct config_row *row, const void *values, struct buf *out)
{
    const void *slot = (const char *)values + row->offset;
    const char *text;
    switch (row->type) {
    case CONFIG_UINT:
        buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)slot);
        return;
    case CONFIG_BYTES:
        put_bytes(*(const uint64_t *)slot, out);
        return;
    case CONFIG_BOOL:
        buf_printf(out, "%s", *(const bool *)slot ? "true" : "false");
        return;
    case CONFIG_CHOICE:
        put_choice(row->choices, *(const unsigned *)slot, out);
        return;
    case CONFIG_TEXT:
    case CONFIG_SECRET:
        memcpy(&text, slot, sizeof text);
        if (text)
            buf_printf(out, "%s", row->type == CONFIG_SECRET ? "(hidden)" : text);
        return;
    }
}

static const char *takes(const struct config_row *row)
{
    static const char *const words[] = {
        [CONFIG_TEXT] = "TEXT",   [CONFIG_SECRET] = "TEXT", [CONFIG_UINT] = "N",
        [CONFIG_BYTES] = "BYTES", [CONFIG_BOOL] = "",       [CONFIG_CHOICE] = "",
    };
    return row->takes ? row->takes : words[row->type];
}

static void put_spelled(const char *name, char (*spell)(char), struct buf *out)
{
    for (; *name; name++)
        buf_put_u8(out, (uint8_t)spell(*name));
}

static char kebab(char c)
{
    return c == '_' ? '-' : c;
}

static char upper(char c)
{
    return (char)toupper((unsigned char)c);
}

static void put_choices(const struct config_row *row, const char *between, struct buf *out)
{
    for (const char *p = row->choices; *p; p++) {
        if (*p == ' ')
            buf_printf(out, "%s", between);
        else
            buf_put_u8(out, (uint8_t)*p);
    }
}

static bool is_number(const struct config_row *row)
{
    return row->type == CONFIG_UINT || row->type == CONFIG_BYTES;
}

void config_put_range(const struct config_row *row, struct buf *out)
{
    bool bytes = row->type == CONFIG_BYTES;
    if (!is_number(row))
        return;
    if (bytes)
        put_bytes(row->min, out);
    else
        buf_printf(out, "%llu", (unsigned long long)row->min);
    if (row->max == UINT64_MAX) {
        buf_printf(out, " or more");
        return;
    }
    buf_printf(out, " to ");
    if (bytes)
        put_bytes(row->max, out);
    else
        buf_printf(out, "%llu", (unsigned long long)row->max);
}

/* ---- help ---- */

static void put_padding(struct buf *out, size_t from, size_t column)
{
    if (out->len - from + 2 > column) {
        buf_put_u8(out, '\n');
        from = out->len;
    }
    while (out->len - from < column && !out->failed)
        buf_put_u8(out, ' ');
}

/* Words of `text` from the help column on, broken before the width is passed. */
static void put_wrapped(const char *text, struct buf *out)
{
    size_t at = HELP_COLUMN;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (at > HELP_COLUMN && at + 1 + n > HELP_WIDTH) {
            buf_printf(out, "\n%*s", HELP_COLUMN, "");
            at = HELP_COLUMN;
        } else if (at > HELP_COLUMN) {
            buf_put_u8(out, ' ');
            at++;
        }
        buf_put(out, text, n);
        at += n;
        text += n + (text[n] == ' ');
    }
    buf_put_u8(out, '\n');
}

static void help_row(const struct config_row *row, struct buf *out)
{
    size_t from = out->len;
    struct buf what = {0};
    if (row->type == CONFIG_SECRET) {
        buf_printf(out, "  " CONFIG_ENV_PREFIX);
        put_spelled(row->name, upper, out);
    } else {
        buf_printf(out, "  --");
        put_spelled(row->name, kebab, out);
        buf_printf(out, "%s%s", *takes(row) || row->choices ? " " : "", takes(row));
    }
    if (row->choices)
        put_choices(row, "|", out);
    put_padding(out, from, HELP_COLUMN);
    buf_printf(&what, "%s", row->help);
    if (row->standard && row->type != CONFIG_BOOL)
        buf_printf(&what, " (%s)", row->standard);
    else if (row->unset)
        buf_printf(&what, " (%s)", row->unset);
    buf_put_u8(&what, 0);
    if (what.failed)
        out->failed = true;
    else
        put_wrapped((const char *)what.data, out);
    buf_deinit(&what);
}

void config_help(const struct config *c, struct buf *out)
{
    for (unsigned g = 0; g < c->ngroups; g++) {
        buf_printf(out, "%s%s:\n", g ? "\n" : "", c->groups[g].title);
        for (unsigned r = 0; r < c->groups[g].nrows; r++)
            help_row(&c->groups[g].rows[r], out);
    }
}

/* ---- a config file to start from ---- */

static void sample_row(const struct config_row *row, struct buf *out)
{
    if (row->type == CONFIG_SECRET || strcmp(row->name, "config") == 0)
        return;
    buf_printf(out, "\n# %s", row->help);
    if (row->choices) {
        buf_printf(out, ": ");
        put_choices(row, ", ", out);
    }
    if (is_number(row)) {
        buf_printf(out, "; ");
        config_put_range(row, out);
    }
    if (row->unset)
        buf_printf(out, " (%s)", row->unset);
    buf_printf(out, "\n#%s = %s\n", row->name, row->standard ? row->standard : "");
}

void config_sample(const struct config *c, struct buf *out)
{
    for (unsigned g = 0; g < c->ngroups; g++) {
        buf_printf(out, "\n# ---- %s ----\n", c->groups[g].title);
        for (unsigned r = 0; r < c->groups[g].nrows; r++)
            sample_row(&c->groups[g].rows[r], out);
    }
}

/* ---- tables ---- */

static void table_row(const struct config_row *row, struct buf *out)
{
    if (row->type == CONFIG_SECRET) {
        buf_printf(out, "| `" CONFIG_ENV_PREFIX);
        put_spelled(row->name, upper, out);
    } else {
        buf_printf(out, "| `%s", row->name);
    }
    buf_printf(out, "` | ");
    if (row->choices)
        put_choices(row, ", ", out);
    else if (is_number(row))
        config_put_range(row, out);
    else
        buf_printf(out, "%s", row->type == CONFIG_BOOL ? "true, false" : takes(row));
    if (row->standard)
        buf_printf(out, " | `%s`", row->standard);
    else
        buf_printf(out, " | %s", row->unset ? row->unset : "");
    buf_printf(out, " | %s |\n", row->help);
}

void config_markdown(const struct config *c, struct buf *out)
{
    for (unsigned g = 0; g < c->ngroups; g++) {
        buf_printf(out,
                   "\n## %s\n\n| setting | takes | default | what it does |\n"
                   "| --- | --- | --- | --- |\n",
                   c->groups[g].title);
        for (unsigned r = 0; r < c->groups[g].nrows; r++)
            table_row(&c->groups[g].rows[r], out);
    }
}
