/* The normal text of a filter.
 *
 * Every term has its own, made when it was parsed; the tree adds and, or, not and those parentheses
 * that it needs. Parsing it gives the same tree: lists within lists of the same kind were joined,
 * and the members of a list stand in the order in which they are tried.
 *
 * Threads: none; a filter is read only. Failure: memory, remembered by the buffer. */
#include "store/filter_internal.h"

#include <math.h>
#include <stdio.h>

#include "base/clock.h"

static void put(struct buf *out, const char *text)
{
    buf_put(out, text, strlen(text));
}

static bool name_plain(const char *name)
{
    for (const char *c = name; *c; c++) {
        if (*c == '-')
            return false;
    }
    return !word_reserved(name, strlen(name));
}

void text_column(const struct parser *p, int32_t column, struct buf *out)
{
    const char *name = column == COLUMN_KEY      ? "key"
                       : column == COLUMN_VECTOR ? "vector"
                                                 : p->schema->features[column].name;
    const char *quote = name_plain(name) ? "" : "\"";
    buf_printf(out, "%s%s%s", quote, name, quote);
}

static void text_string(struct buf *out, const uint8_t *s, size_t n)
{
    buf_put_u8(out, '\'');
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '\'')
            buf_put_u8(out, '\'');
        buf_put_u8(out, s[i]);
    }
    buf_put_u8(out, '\'');
}

/* The fewest digits that read back as the same number. */
static void text_double(struct buf *out, double d)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    put(out, text);
}

void text_literal(const struct parser *p, const struct operand *o, uint8_t type, struct buf *out)
{
    const uint8_t *bytes = p->f->bytes.data + o->slice.at;
    char time[32];
    switch (o->literal) {
    case LITERAL_NULL:
        put(out, "null");
        break;
    case LITERAL_BOOL:
        put(out, o->i ? "true" : "false");
        break;
    case LITERAL_INT:
        buf_printf(out, "%lld", (long long)o->i);
        break;
    case LITERAL_FLOAT:
        text_double(out, o->d);
        break;
    case LITERAL_STRING:
        if (type == FEATURE_TIMESTAMP) {
            clock_format_rfc3339(o->i, time);
            buf_printf(out, "'%s'", time);
        } else {
            text_string(out, bytes, o->slice.len);
        }
        break;
    case LITERAL_BYTES:
        put(out, "x'");
        for (uint32_t i = 0; i < o->slice.len; i++)
            buf_printf(out, "%02x", bytes[i]);
        put(out, "'");
        break;
    }
}

const char *text_verdicts(uint8_t verdicts)
{
    switch (verdicts & (LESS | EQUAL | GREATER)) {
    case LESS:
        return "<";
    case LESS | EQUAL:
        return "<=";
    case EQUAL:
        return "=";
    case GREATER | EQUAL:
        return ">=";
    case GREATER:
        return ">";
    default:
        return "!=";
    }
}

/* ---- the tree ---- */

static void put_term(const struct filter *f, const struct filter_node *n, struct buf *out)
{
    const uint8_t *text = f->texts.data + n->text.at;
    buf_put(out, text, n->negate ? n->text_not : n->text.len);
    if (!n->negate)
        return;
    put(out, "not ");
    buf_put(out, text + n->text_not, n->text.len - n->text_not);
}

static void put_node(const struct filter *f, uint32_t i, bool enclosed, struct buf *out)
{
    const struct filter_node *n = &f->nodes[i];
    if (n->op > FILTER_OR) {
        put_term(f, n, out);
        return;
    }
    if (n->negate)
        put(out, "not ");
    bool parentheses = n->negate || enclosed;
    if (parentheses)
        put(out, "(");
    for (uint32_t c = n->child; c != FILTER_NONE; c = f->nodes[c].next) {
        if (c != n->child)
            put(out, n->op == FILTER_AND ? " and " : " or ");
        put_node(f, c, n->op == FILTER_AND, out);
    }
    if (parentheses)
        put(out, ")");
}

void filter_normal(const struct filter *f, struct buf *out)
{
    put_node(f, f->root, false, out);
}
