/* A comparison becomes a term: its types are checked, its constants take the column's type.
 *
 *   price <= 5          FILTER_RANGE_FLOAT [-inf, 5]          "price <= 5"
 *   day in (3, 1.0, 9)  FILTER_IN_INT 1, 3, 9                 "day in (3, 1, 9)"
 *   ts > '2024-05-01'   FILTER_RANGE_INT [..., max]           "ts > '2024-05-01T00:00:00Z'"
 *
 * Threads: none; one parser. Failure: what the types do not allow is ERR_UNPROCESSABLE and names
 * the column, what it can be compared with, and the character. */
#include "store/filter_internal.h"

#include <math.h>

enum { NS_RANGE = 2, NS_KEY = 1, NS_BYTES = 8, NS_LIKE = 30, NS_LIST = 20, NS_COLUMNS = 10 };

/* ---- terms ---- */

static struct number number_of(const struct operand *o)
{
    return (struct number){o->literal != LITERAL_FLOAT, o->i, o->d};
}

enum err node_new(struct parser *p, enum filter_op op, uint32_t *out)
{
    struct filter *f = p->f;
    if (f->nnodes == f->nodes_max) {
        uint32_t max = f->nodes_max ? 2 * f->nodes_max : 8;
        struct filter_node *grown = realloc(f->nodes, max * sizeof(*grown));
        if (!grown)
            return err_no_memory(p->ctx, max * sizeof(*grown));
        f->nodes = grown;
        f->nodes_max = max;
    }
    *out = f->nnodes++;
    f->nodes[*out] =
        (struct filter_node){.op = (uint8_t)op, .child = FILTER_NONE, .next = FILTER_NONE};
    return ERR_OK;
}

static enum err term_new(struct parser *p, enum filter_op op, const struct operand *column,
                         uint32_t *out, struct filter_node **node)
{
    if (++p->terms > FILTER_TERMS_MAX)
        return err_set(
            p->ctx, ERR_INVALID,
            "filter: more than %d comparisons (filter_terms_max): write many values as in (..)",
            FILTER_TERMS_MAX);
    RETURN_NOT_OK(node_new(p, op, out));
    *node = &p->f->nodes[*out];
    (*node)->text.at = (uint32_t)p->f->texts.len;
    if (column) {
        (*node)->column = column->column;
        (*node)->type = column->type;
        text_column(p, column->column, &p->f->texts);
    }
    return ERR_OK;
}

/* The text written since term_new is that of the term. */
static enum err term_done(struct parser *p, struct filter_node *node)
{
    if (p->f->texts.failed)
        return err_no_memory(p->ctx, p->f->texts.len);
    node->text.len = (uint32_t)p->f->texts.len - node->text.at;
    return ERR_OK;
}

static void put(struct parser *p, const char *text)
{
    buf_put(&p->f->texts, text, strlen(text));
}

static enum err term_constant(struct parser *p, int64_t value, uint32_t *out)
{
    struct filter_node *node;
    RETURN_NOT_OK(term_new(p, FILTER_CONSTANT, NULL, out, &node));
    node->i.lo = value;
    put(p, value < 0 ? "null" : value ? "true" : "false");
    return term_done(p, node);
}

/* ---- comparing ---- */

static void set_range_int(struct filter_node *node, struct number n, uint8_t verdicts)
{
    int64_t min = INT64_MIN, max = INT64_MAX;
    if (node->type == FEATURE_INT32) {
        min = INT32_MIN;
        max = INT32_MAX;
    } else if (node->type == FEATURE_BOOL) {
        min = 0;
        max = 1;
    }
    node->op = FILTER_RANGE_INT;
    node->row_ns = node->column == COLUMN_KEY ? NS_KEY : NS_RANGE;
    range_int(n, verdicts, min, max, &node->i.lo, &node->i.hi);
}

static void set_range(struct filter_node *node, struct number n, uint8_t verdicts)
{
    if (verdicts & UNORDERED) { /* != */
        node->invert = true;
        verdicts = EQUAL;
    }
    if (node->type != FEATURE_FLOAT32 && node->type != FEATURE_FLOAT64) {
        set_range_int(node, n, verdicts);
        return;
    }
    node->op = FILTER_RANGE_FLOAT;
    node->row_ns = NS_RANGE;
    if (node->type == FEATURE_FLOAT32)
        range_float32(n, verdicts, &node->f.lo, &node->f.hi);
    else
        range_float64(n, verdicts, &node->f.lo, &node->f.hi);
}

static enum err compare_constant(struct parser *p, const struct operand *column,
                                 const struct operand *constant, uint8_t verdicts, uint32_t *out)
{
    struct operand o = *constant;
    struct filter_node *node;
    RETURN_NOT_OK(take_type(p, column, &o));
    if (o.literal == LITERAL_NULL)
        return term_constant(p, -1, out);
    RETURN_NOT_OK(term_new(p, FILTER_COMPARE, column, out, &node));
    enum family family = family_of(column);
    if (family == STRINGS || family == BYTES) {
        node->verdicts = verdicts;
        node->row_ns = NS_BYTES;
        node->data.at = o.slice.at;
        node->data.n = o.slice.len;
    } else {
        struct number n = number_of(&o);
        n.whole |= family != NUMBERS;
        set_range(node, n, verdicts);
    }
    buf_printf(&p->f->texts, " %s ", text_verdicts(verdicts));
    text_literal(p, &o, column->type, &p->f->texts);
    return term_done(p, node);
}

static enum err compare_columns(struct parser *p, const struct operand *a, const struct operand *b,
                                uint8_t verdicts, uint32_t *out)
{
    struct filter_node *node;
    enum family family = family_of(a);
    if (family != family_of(b) || family == LISTS || family == VECTORS)
        return mismatch(p, a, b);
    RETURN_NOT_OK(term_new(p, FILTER_COLUMNS, a, out, &node));
    node->verdicts = verdicts;
    node->column2 = b->column;
    node->type2 = b->type;
    node->row_ns = NS_COLUMNS;
    buf_printf(&p->f->texts, " %s ", text_verdicts(verdicts));
    text_column(p, b->column, &p->f->texts);
    return term_done(p, node);
}

static uint8_t compare_numbers(const struct operand *a, const struct operand *b)
{
    if (a->literal == LITERAL_INT && b->literal == LITERAL_INT)
        return a->i < b->i ? LESS : a->i > b->i ? GREATER : EQUAL;
    if (a->literal == LITERAL_INT)
        return compare_int_float(a->i, b->d);
    if (b->literal == LITERAL_INT) {
        uint8_t turned = compare_int_float(b->i, a->d);
        return turned == LESS ? GREATER : turned == GREATER ? LESS : EQUAL;
    }
    return a->d < b->d ? LESS : a->d > b->d ? GREATER : EQUAL;
}

static enum err compare_constants(struct parser *p, const struct operand *a,
                                  const struct operand *b, uint8_t verdicts, uint32_t *out)
{
    const uint8_t *bytes = p->f->bytes.data;
    bool numbers = (a->literal == LITERAL_INT || a->literal == LITERAL_FLOAT) &&
                   (b->literal == LITERAL_INT || b->literal == LITERAL_FLOAT);
    uint8_t verdict;
    if (a->literal == LITERAL_NULL || b->literal == LITERAL_NULL)
        return term_constant(p, -1, out);
    if (numbers)
        verdict = compare_numbers(a, b);
    else if (a->literal != b->literal)
        return err_set(p->ctx, ERR_UNPROCESSABLE,
                       "filter: %.*s and %.*s at character %u are not of the same type",
                       a->token.len > 60 ? 60 : (int)a->token.len, a->token.text,
                       b->token.len > 60 ? 60 : (int)b->token.len, b->token.text,
                       token_place(p, &a->token));
    else if (a->literal == LITERAL_BOOL)
        verdict = a->i < b->i ? LESS : a->i > b->i ? GREATER : EQUAL;
    else
        verdict =
            compare_bytes(bytes + a->slice.at, a->slice.len, bytes + b->slice.at, b->slice.len);
    return term_constant(p, (verdict & verdicts) != 0, out);
}

/* a < b is b > a. */
static uint8_t turned(uint8_t verdicts)
{
    return (uint8_t)((verdicts & (EQUAL | UNORDERED)) | (verdicts & LESS ? GREATER : 0) |
                     (verdicts & GREATER ? LESS : 0));
}

enum err term_compare(struct parser *p, const struct operand *a, uint8_t verdicts,
                      const struct operand *b, uint32_t *out)
{
    if (a->is_column)
        return b->is_column ? compare_columns(p, a, b, verdicts, out)
                            : compare_constant(p, a, b, verdicts, out);
    return b->is_column ? compare_constant(p, b, a, turned(verdicts), out)
                        : compare_constants(p, a, b, verdicts, out);
}

/* ---- in ---- */

static int by_int(const void *a, const void *b, void *unused)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    (void)unused;
    return (x > y) - (x < y);
}

static int by_float(const void *a, const void *b, void *unused)
{
    double x = *(const double *)a, y = *(const double *)b;
    (void)unused;
    return (x > y) - (x < y);
}

static int by_bytes(const void *a, const void *b, void *bytes)
{
    const struct filter_slice *x = a, *y = b;
    const uint8_t *base = bytes;
    uint8_t verdict = compare_bytes(base + x->at, x->len, base + y->at, y->len);
    return (verdict == GREATER) - (verdict == LESS);
}

/* Appends the value of an item, if the column can have it. */
static void put_item(struct buf *b, const struct filter_node *node, const struct operand *o)
{
    int64_t lo = o->i, hi = o->i;
    double flo, fhi;
    struct number n = number_of(o);
    switch (node->op) {
    case FILTER_IN_BYTES:
        buf_put(b, &o->slice, sizeof(o->slice));
        break;
    case FILTER_IN_FLOAT:
        if (node->type == FEATURE_FLOAT32)
            range_float32(n, EQUAL, &flo, &fhi);
        else
            range_float64(n, EQUAL, &flo, &fhi);
        if (flo == fhi)
            buf_put(b, &flo, sizeof(flo));
        break;
    default:
        if (o->literal == LITERAL_FLOAT)
            range_int(n, EQUAL, INT64_MIN, INT64_MAX, &lo, &hi);
        if (lo == hi)
            buf_put(b, &lo, sizeof(lo));
        break;
    }
}

/* Sorts the list of a term of `in` that ends the constants. */
static void sort_items(struct parser *p, struct filter_node *node)
{
    static int (*const order[])(const void *, const void *, void *) = {
        [FILTER_IN_INT] = by_int, [FILTER_IN_FLOAT] = by_float, [FILTER_IN_BYTES] = by_bytes};
    struct buf *b = &p->f->bytes;
    node->data.n = (uint32_t)((b->len - node->data.at) / 8); /* every kind has 8 bytes */
    node->row_ns = 4 + 2 * (32 - (uint32_t)__builtin_clz(node->data.n | 1));
    if (node->op == FILTER_IN_BYTES)
        node->row_ns += 2 * NS_BYTES;
    if (node->data.n)
        qsort_r(b->data + node->data.at, node->data.n, 8, order[node->op], b->data);
}

static enum filter_op in_op(const struct operand *column)
{
    enum family family = family_of(column);
    if (family == STRINGS || family == BYTES)
        return FILTER_IN_BYTES;
    return column->type == FEATURE_FLOAT32 || column->type == FEATURE_FLOAT64 ? FILTER_IN_FLOAT
                                                                              : FILTER_IN_INT;
}

enum err term_in(struct parser *p, const struct operand *column, struct operand *items, size_t n,
                 uint32_t *out)
{
    struct buf *b = &p->f->bytes;
    struct filter_node *node;
    for (size_t i = 0; i < n; i++)
        RETURN_NOT_OK(take_type(p, column, &items[i]));
    RETURN_NOT_OK(term_new(p, in_op(column), column, out, &node));
    node->text_not = (uint32_t)p->f->texts.len + 1 - node->text.at;
    buf_align(b, 8);
    node->data.at = (uint32_t)b->len;
    put(p, " in (");
    for (size_t i = 0; i < n; i++) {
        put(p, i ? ", " : "");
        text_literal(p, &items[i], column->type, &p->f->texts);
        if (items[i].literal == LITERAL_NULL)
            node->with_null = true;
        else
            put_item(b, node, &items[i]);
    }
    put(p, ")");
    if (b->failed)
        return err_no_memory(p->ctx, b->len);
    sort_items(p, node);
    return term_done(p, node);
}

/* ---- the others ---- */

static enum err expect_string(struct parser *p, const struct operand *column,
                              const struct operand *o, const char *what)
{
    if (!o->is_column && o->literal == LITERAL_STRING)
        return ERR_OK;
    return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1, column_name(p, column),
                      "filter: %s at character %u must be a string in single quotes", what,
                      token_place(p, &o->token));
}

static enum err check_escape(struct parser *p, const struct operand *escape)
{
    const uint8_t *s = p->f->bytes.data + escape->slice.at;
    uint32_t n = escape->slice.len, points = 0;
    for (uint32_t i = 0; i < n; i++)
        points += (s[i] & 0xc0) != 0x80;
    if (points == 1)
        return ERR_OK;
    return err_set(p->ctx, ERR_INVALID,
                   "filter: the escape at character %u must be a single character",
                   token_place(p, &escape->token));
}

enum err term_like(struct parser *p, const struct operand *column, const struct operand *pattern,
                   const struct operand *escape, uint32_t *out)
{
    struct filter_node *node;
    struct filter_slice escaped = {0};
    if (family_of(column) != STRINGS)
        return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1, column_name(p, column),
                          "filter: like is for strings, and '%s' is none (character %u)",
                          column_name(p, column), token_place(p, &column->token));
    RETURN_NOT_OK(expect_string(p, column, pattern, "the pattern"));
    if (escape) {
        RETURN_NOT_OK(expect_string(p, column, escape, "the escape"));
        RETURN_NOT_OK(check_escape(p, escape));
        escaped = escape->slice;
    }
    RETURN_NOT_OK(term_new(p, FILTER_LIKE, column, out, &node));
    node->row_ns = NS_LIKE;
    node->text_not = (uint32_t)p->f->texts.len + 1 - node->text.at;
    put(p, " like ");
    text_literal(p, pattern, FEATURE_STRING, &p->f->texts);
    put(p, escape ? " escape " : "");
    if (escape)
        text_literal(p, escape, FEATURE_STRING, &p->f->texts);
    RETURN_NOT_OK(like_compile(p, pattern, escaped, node));
    return term_done(p, node);
}

enum err term_is_null(struct parser *p, const struct operand *column, uint32_t *out)
{
    struct filter_node *node;
    RETURN_NOT_OK(term_new(p, FILTER_IS_NULL, column, out, &node));
    node->row_ns = NS_RANGE;
    put(p, " is ");
    node->text_not = (uint32_t)p->f->texts.len - node->text.at;
    put(p, "null");
    return term_done(p, node);
}

static enum err not_in_list(struct parser *p, const struct operand *list,
                            const struct operand *item, const char *needs)
{
    return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1, column_name(p, list),
                      "filter: '%s' is of type %s, so contains looks for %s in it (character %u)",
                      column_name(p, list), feature_type_name((enum feature_type)list->type), needs,
                      token_place(p, &item->token));
}

static enum err set_item(struct parser *p, const struct operand *list, const struct operand *item,
                         struct filter_node *node)
{
    bool number = item->literal == LITERAL_INT || item->literal == LITERAL_FLOAT;
    double hi;
    if (list->type == FEATURE_STRING_LIST) {
        if (item->literal != LITERAL_STRING)
            return not_in_list(p, list, item, "a string");
        node->op = FILTER_HAS_BYTES;
        node->data.at = item->slice.at;
        node->data.n = item->slice.len;
        return ERR_OK;
    }
    if (!number)
        return not_in_list(p, list, item, "a number");
    if (list->type == FEATURE_FLOAT32_LIST) {
        node->op = FILTER_HAS_FLOAT;
        range_float32(number_of(item), EQUAL, &node->f.lo, &hi);
        if (node->f.lo != hi)
            node->f.lo = NAN;
        return ERR_OK;
    }
    range_int(number_of(item), EQUAL, INT64_MIN, INT64_MAX, &node->i.lo, &node->i.hi);
    return ERR_OK;
}

enum err term_contains(struct parser *p, const struct operand *list, const struct operand *item,
                       uint32_t *out)
{
    struct filter_node *node;
    if (!list->is_column || family_of(list) != LISTS) {
        bool text = list->is_column && family_of(list) == STRINGS;
        return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1,
                          list->is_column ? column_name(p, list) : "",
                          "filter: contains looks into lists, and %.*s at character %u is none%s",
                          list->token.len > 60 ? 60 : (int)list->token.len, list->token.text,
                          token_place(p, &list->token),
                          text ? ": write like '%text%' to look into a string" : "");
    }
    if (item->is_column)
        return not_in_list(p, list, item, "a constant");
    if (item->literal == LITERAL_NULL)
        return term_constant(p, -1, out);
    RETURN_NOT_OK(term_new(p, FILTER_HAS_INT, NULL, out, &node));
    node->column = list->column;
    node->type = list->type;
    node->row_ns = NS_LIST;
    RETURN_NOT_OK(set_item(p, list, item, node));
    put(p, "contains(");
    text_column(p, list->column, &p->f->texts);
    put(p, ", ");
    text_literal(p, item, FEATURE_STRING, &p->f->texts);
    put(p, ")");
    return term_done(p, node);
}

enum err term_alone(struct parser *p, const struct operand *a, uint32_t *out)
{
    static const struct operand is_true = {.literal = LITERAL_BOOL, .i = 1};
    if (!a->is_column && a->literal == LITERAL_NULL)
        return term_constant(p, -1, out);
    if (!a->is_column && a->literal == LITERAL_BOOL)
        return term_constant(p, a->i, out);
    if (a->is_column && family_of(a) == BOOLS)
        return compare_constant(p, a, &is_true, EQUAL, out);
    if (a->is_column)
        return err_set_at(p->ctx, ERR_UNPROCESSABLE, -1, column_name(p, a),
                          "filter: '%s' at character %u is no condition by itself: compare it with "
                          "something",
                          column_name(p, a), token_place(p, &a->token));
    return err_set(p->ctx, ERR_INVALID,
                   "filter: the constant at character %u is no condition by itself: compare it "
                   "with a feature",
                   token_place(p, &a->token));
}
