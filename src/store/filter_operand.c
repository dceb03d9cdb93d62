/* The operands of comparisons: columns and constants, and which constant fits which column.
 *
 * A constant is read as what it looks like; with a column it becomes one of the column's family: a
 * string beside a timestamp becomes a time.
 *
 * Threads: none; one parser. Failure: what the types do not allow is ERR_UNPROCESSABLE and names
 * the column, what it can be compared with, and the character. */
#include "store/filter_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>

#include "base/clock.h"

/* ---- families of types ---- */

enum family family_of(const struct operand *column)
{
    if (column->column == COLUMN_VECTOR)
        return VECTORS;
    switch ((enum feature_type)column->type) {
    case FEATURE_BOOL:
        return BOOLS;
    case FEATURE_INT32:
    case FEATURE_INT64:
    case FEATURE_FLOAT32:
    case FEATURE_FLOAT64:
        return NUMBERS;
    case FEATURE_TIMESTAMP:
        return TIMES;
    case FEATURE_STRING:
        return STRINGS;
    case FEATURE_BYTES:
        return BYTES;
    default:
        return LISTS;
    }
}

/* What a column of the family is compared with. */
static const char *const compared_with[] = {
    [BOOLS] = "true or false",
    [NUMBERS] = "numbers",
    [TIMES] = "times like '2024-05-01T12:00:00Z'",
    [STRINGS] = "strings in single quotes",
    [BYTES] = "bytes like x'00ff'",
    [LISTS] = "nothing as a whole: use contains(list, item) or is null",
    [VECTORS] = "nothing: use is null or is not null",
};

const char *column_name(const struct parser *p, const struct operand *o)
{
    return o->column == COLUMN_KEY      ? "key"
           : o->column == COLUMN_VECTOR ? "vector"
                                        : p->schema->features[o->column].name;
}

enum err mismatch(struct parser *p, const struct operand *column, const struct operand *other)
{
    const struct token *t = &other->token;
    const char *name = column_name(p, column);
    bool vector = column->column == COLUMN_VECTOR;
    return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1, name,
                      "filter: '%s' is %s%s and is compared with %s; that is not what %.*s is "
                      "(character %u)",
                      name, vector ? "the vector" : "of type ",
                      vector ? "" : feature_type_name((enum feature_type)column->type),
                      compared_with[family_of(column)], t->len > 60 ? 60 : (int)t->len, t->text,
                      token_place(p, t));
}

/* ---- operands ---- */

static enum err unknown_feature(struct parser *p, const struct token *t, const char *name)
{
    return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1, name,
                      "filter: the collection has no feature '%s' (character %u)%s", name,
                      token_place(p, t),
                      t->kind == TOKEN_NAME ? "; strings are written in single quotes" : "");
}

static enum err read_column(struct parser *p, struct operand *o)
{
    struct filter_slice s = {0};
    const struct token *t = &o->token;
    char name[NAME_MAX_BYTES + 1];
    o->is_column = true;
    const char *text = t->text;
    size_t n = t->len, had = p->f->bytes.len;
    if (t->kind == TOKEN_NAME) {
        RETURN_NOT_OK(token_unquote(p, t, &s));
        text = (const char *)p->f->bytes.data + s.at;
        n = s.len;
        p->f->bytes.len = had;
    }
    snprintf(name, sizeof(name), "%.*s", n > NAME_MAX_BYTES ? NAME_MAX_BYTES : (int)n, text);
    if (strcmp(name, "key") == 0 && n == 3) {
        o->column = COLUMN_KEY;
        o->type = p->schema->key == KEY_INT64 ? FEATURE_INT64 : FEATURE_STRING;
        return ERR_OK;
    }
    if (strcmp(name, "vector") == 0 && n == 6 && p->schema->dim) {
        o->column = COLUMN_VECTOR;
        return ERR_OK;
    }
    int at = n <= NAME_MAX_BYTES ? schema_find(p->schema, text, n) : -1;
    if (at < 0)
        return unknown_feature(p, t, name);
    o->column = at;
    o->type = (uint8_t)p->schema->features[at].type;
    return ERR_OK;
}

/* 5.0 is 5, however long it is. */
static void cut_zeros(char *text)
{
    char *point = strchr(text, '.');
    if (point && !point[1 + strspn(point + 1, "0")])
        *point = '\0';
}

static enum err read_number(struct parser *p, struct operand *o)
{
    enum { MOST = 1024 };
    char text[MOST + 1];
    const struct token *t = &o->token;
    if (t->len > MOST)
        return err_set(p->ctx, ERR_INVALID, "filter: the number at character %u is too long",
                       token_place(p, t));
    memcpy(text, t->text, t->len);
    text[t->len] = '\0';
    o->d = strtod(text, NULL);
    if (isinf(o->d))
        return err_set(p->ctx, ERR_INVALID,
                       "filter: the number at character %u is beyond what float64 holds",
                       token_place(p, t));
    o->literal = LITERAL_FLOAT;
    cut_zeros(text);
    if (!text[strcspn(text, ".eE")]) {
        char *end;
        errno = 0;
        o->i = strtoll(text, &end, 10);
        if (errno == 0)
            o->literal = LITERAL_INT;
        else if (o->d == -0x1p63) /* below every int64, and not the least of them */
            o->d = nextafter(o->d, -INFINITY);
    } else if (o->d == floor(o->d) && fabs(o->d) < 9e15) { /* 5e0 is 5 */
        o->i = (int64_t)o->d;
        o->literal = LITERAL_INT;
    }
    return ERR_OK;
}

static enum err read_bytes(struct parser *p, struct operand *o)
{
    static const char digits[] = "0123456789abcdef";
    RETURN_NOT_OK(token_unquote(p, &o->token, &o->slice));
    uint8_t *b = p->f->bytes.data + o->slice.at;
    uint32_t n = o->slice.len;
    for (uint32_t i = 0; i < n; i++) {
        const char *digit =
            b[i] ? strchr(digits, b[i] >= 'A' && b[i] <= 'F' ? b[i] + 32 : b[i]) : NULL;
        if (!digit || n % 2)
            return err_set(p->ctx, ERR_INVALID,
                           "filter: the bytes at character %u must be pairs of hex digits, like "
                           "x'00ff'",
                           token_place(p, &o->token));
        uint8_t value = (uint8_t)(digit - digits);
        b[i / 2] = (uint8_t)(i % 2 ? b[i / 2] | value : value << 4);
    }
    o->slice.len = n / 2;
    o->literal = LITERAL_BYTES;
    return ERR_OK;
}

static enum err read_word(struct parser *p, struct operand *o)
{
    const struct token *t = &o->token;
    if (token_is(t, "null")) {
        o->literal = LITERAL_NULL;
    } else if (token_is(t, "true") || token_is(t, "false")) {
        o->literal = LITERAL_BOOL;
        o->i = token_is(t, "true");
    } else if (word_reserved(t->text, t->len)) {
        return lex_expected(p, "a feature, key or a constant");
    } else {
        return read_column(p, o);
    }
    return ERR_OK;
}

enum err operand_read(struct parser *p, struct operand *o)
{
    *o = (struct operand){.token = p->token};
    switch (p->token.kind) {
    case TOKEN_WORD:
        RETURN_NOT_OK(read_word(p, o));
        break;
    case TOKEN_NAME:
        RETURN_NOT_OK(read_column(p, o));
        break;
    case TOKEN_STRING:
        o->literal = LITERAL_STRING;
        RETURN_NOT_OK(token_unquote(p, &p->token, &o->slice));
        break;
    case TOKEN_BYTES:
        RETURN_NOT_OK(read_bytes(p, o));
        break;
    case TOKEN_NUMBER:
        RETURN_NOT_OK(read_number(p, o));
        break;
    default:
        return lex_expected(p, "a feature, key or a constant");
    }
    return lex_next(p);
}

/* A time, or a day, whose midnight in UTC is meant. */
static bool read_time(struct parser *p, struct operand *o)
{
    char text[48] = "";
    uint32_t n = o->slice.len;
    if (n > 40)
        return false;
    memcpy(text, p->f->bytes.data + o->slice.at, n);
    if (n == 10) {
        memcpy(text + n, "T00:00:00Z", 10);
        n += 10;
    }
    return clock_parse_rfc3339(text, n, &o->i) == 0;
}

/* Makes a constant one of the column's family; null fits every one that compares. */
enum err take_type(struct parser *p, const struct operand *column, struct operand *o)
{
    enum family family = family_of(column);
    static const bool fits[][LITERAL_BYTES + 1] = {
        [BOOLS] = {[LITERAL_NULL] = true, [LITERAL_BOOL] = true},
        [NUMBERS] = {[LITERAL_NULL] = true, [LITERAL_INT] = true, [LITERAL_FLOAT] = true},
        [TIMES] = {[LITERAL_NULL] = true, [LITERAL_STRING] = true},
        [STRINGS] = {[LITERAL_NULL] = true, [LITERAL_STRING] = true},
        [BYTES] = {[LITERAL_NULL] = true, [LITERAL_BYTES] = true},
        [LISTS] = {0},
        [VECTORS] = {0},
    };
    if (!fits[family][o->literal])
        return mismatch(p, column, o);
    if (family == TIMES && o->literal == LITERAL_STRING && !read_time(p, o))
        return mismatch(p, column, o);
    return ERR_OK;
}
