/* The grammar of filters (see filter.h): recursive descent, as deep as parentheses nest, and no
 * deeper than FILTER_DEPTH_MAX.
 *
 *   "a = 1 and not (b or c) and d"     OR of one = AND: a = 1, not OR: b, c     , d
 *
 * Lists of one member are that member; lists within lists of the same kind are joined; the members
 * of a list are put in the order of what they cost, cheap first, since a row that the first ones
 * settle is not shown to the others.
 *
 * Threads: none while parsing; the finished filter is immutable. Failure: the first error ends it,
 * and everything made is freed. */
#include "store/filter_internal.h"

static enum err parse_list(struct parser *p, enum filter_op op, uint32_t *out);
static void finish_list(struct filter *f, uint32_t list);

/* ---- predicates ---- */

/* Steps over a word if it is the next token. */
static enum err accept(struct parser *p, const char *word, bool *was)
{
    *was = token_is(&p->token, word);
    return *was ? lex_next(p) : ERR_OK;
}

static enum err expect(struct parser *p, enum token_kind kind, const char *what)
{
    return p->token.kind == kind ? lex_next(p) : lex_expected(p, what);
}

static enum err expect_word(struct parser *p, const char *word)
{
    return token_is(&p->token, word) ? lex_next(p) : lex_expected(p, word);
}

static enum err read_constant(struct parser *p, struct operand *o)
{
    RETURN_NOT_OK(operand_read(p, o));
    if (!o->is_column)
        return ERR_OK;
    return err_set(p->ctx, ERR_INVALID,
                   "filter: expected a constant at character %u, not %.*s: strings are written in "
                   "single quotes",
                   token_place(p, &o->token), o->token.len > 60 ? 60 : (int)o->token.len,
                   o->token.text);
}

static enum err parse_in(struct parser *p, const struct operand *a, uint32_t *out)
{
    struct buf items = {0};
    struct operand item;
    RETURN_NOT_OK(expect(p, TOKEN_OPEN, "( and a list of constants"));
    enum err e;
    for (;;) {
        e = read_constant(p, &item);
        if (e != ERR_OK)
            break;
        buf_put(&items, &item, sizeof(item));
        if (p->token.kind != TOKEN_COMMA)
            break;
        if ((e = lex_next(p)) != ERR_OK)
            break;
    }
    if (e == ERR_OK && items.failed)
        e = err_no_memory(p->ctx, items.len);
    if (e == ERR_OK)
        e = expect(p, TOKEN_CLOSE, "',' or ')'");
    if (e == ERR_OK)
        e = term_in(p, a, (struct operand *)items.data, items.len / sizeof(item), out);
    buf_deinit(&items);
    return e;
}

static enum err too_deep(struct parser *p)
{
    return err_set(p->ctx, ERR_INVALID,
                   "filter: parentheses nest deeper than %d (filter_depth_max) at character %u",
                   FILTER_DEPTH_MAX, token_place(p, &p->token));
}

/* a between b and c: (a >= b and a <= c), which may need its parentheses. */
static enum err parse_between(struct parser *p, const struct operand *a, uint32_t *out)
{
    struct operand lo, hi;
    uint32_t first, second;
    if (p->depth == FILTER_DEPTH_MAX)
        return too_deep(p);
    RETURN_NOT_OK(operand_read(p, &lo));
    RETURN_NOT_OK(expect_word(p, "and"));
    RETURN_NOT_OK(operand_read(p, &hi));
    RETURN_NOT_OK(term_compare(p, a, GREATER | EQUAL, &lo, &first));
    RETURN_NOT_OK(term_compare(p, a, LESS | EQUAL, &hi, &second));
    RETURN_NOT_OK(node_new(p, FILTER_AND, out));
    p->f->nodes[*out].child = first;
    p->f->nodes[first].next = second;
    finish_list(p->f, *out);
    return ERR_OK;
}

static enum err parse_like(struct parser *p, const struct operand *a, uint32_t *out)
{
    struct operand pattern, escape;
    bool escaped;
    RETURN_NOT_OK(operand_read(p, &pattern));
    RETURN_NOT_OK(accept(p, "escape", &escaped));
    if (escaped)
        RETURN_NOT_OK(operand_read(p, &escape));
    return term_like(p, a, &pattern, escaped ? &escape : NULL, out);
}

static enum err parse_contains(struct parser *p, uint32_t *out)
{
    struct operand list, item;
    RETURN_NOT_OK(expect(p, TOKEN_OPEN, "( behind contains"));
    RETURN_NOT_OK(operand_read(p, &list));
    RETURN_NOT_OK(expect(p, TOKEN_COMMA, "',' and what the list should hold"));
    RETURN_NOT_OK(operand_read(p, &item));
    RETURN_NOT_OK(expect(p, TOKEN_CLOSE, "')'"));
    return term_contains(p, &list, &item, out);
}

static enum err parse_is(struct parser *p, const struct operand *a, uint32_t *out)
{
    bool negated;
    RETURN_NOT_OK(accept(p, "not", &negated));
    RETURN_NOT_OK(expect_word(p, "null"));
    RETURN_NOT_OK(term_is_null(p, a, out));
    p->f->nodes[*out].negate = negated;
    return ERR_OK;
}

/* in, between, like, and their opposites; what stands before them is a column. */
static enum err parse_word_operator(struct parser *p, const struct operand *a, uint32_t *out)
{
    bool negated, is, in, between, like;
    RETURN_NOT_OK(accept(p, "is", &is));
    if (is)
        return parse_is(p, a, out);
    RETURN_NOT_OK(accept(p, "not", &negated));
    RETURN_NOT_OK(accept(p, "in", &in));
    if (in)
        RETURN_NOT_OK(parse_in(p, a, out));
    else {
        RETURN_NOT_OK(accept(p, "between", &between));
        if (between)
            RETURN_NOT_OK(parse_between(p, a, out));
        else {
            RETURN_NOT_OK(accept(p, "like", &like));
            if (!like)
                return lex_expected(p, "in, between or like");
            RETURN_NOT_OK(parse_like(p, a, out));
        }
    }
    p->f->nodes[*out].negate = negated;
    return ERR_OK;
}

static bool word_operator(const struct token *t)
{
    return token_is(t, "is") || token_is(t, "not") || token_is(t, "in") || token_is(t, "between") ||
           token_is(t, "like");
}

static enum err parse_predicate(struct parser *p, uint32_t *out)
{
    struct operand a, b;
    bool contains;
    RETURN_NOT_OK(accept(p, "contains", &contains));
    if (contains)
        return parse_contains(p, out);
    RETURN_NOT_OK(operand_read(p, &a));
    if (p->token.kind == TOKEN_COMPARE) {
        uint8_t verdicts = p->token.verdicts;
        RETURN_NOT_OK(lex_next(p));
        RETURN_NOT_OK(operand_read(p, &b));
        return term_compare(p, &a, verdicts, &b, out);
    }
    if (!word_operator(&p->token))
        return term_alone(p, &a, out);
    if (!a.is_column)
        return err_set(p->ctx, ERR_INVALID,
                       "filter: %.*s at character %u needs a feature or key before it, not a "
                       "constant (to look into a list: contains(list, item))",
                       (int)p->token.len, p->token.text, token_place(p, &p->token));
    return parse_word_operator(p, &a, out);
}

/* ---- lists ---- */

static enum err parse_enclosed(struct parser *p, uint32_t *out)
{
    if (++p->depth > FILTER_DEPTH_MAX)
        return too_deep(p);
    RETURN_NOT_OK(lex_next(p));
    RETURN_NOT_OK(parse_list(p, FILTER_OR, out));
    p->depth--;
    return expect(p, TOKEN_CLOSE, "and, or, or ')'");
}

static enum err parse_not(struct parser *p, uint32_t *out)
{
    bool negated = false, more;
    do {
        RETURN_NOT_OK(accept(p, "not", &more));
        negated ^= more;
    } while (more);
    RETURN_NOT_OK(p->token.kind == TOKEN_OPEN ? parse_enclosed(p, out) : parse_predicate(p, out));
    p->f->nodes[*out].negate ^= negated;
    return ERR_OK;
}

/* Hangs `member` behind `last`, the end of the list; a list of the same kind gives its members.
 * Returns the end. */
static uint32_t append(struct filter *f, uint32_t list, uint32_t last, uint32_t member)
{
    const struct filter_node *n = &f->nodes[member];
    uint32_t i = n->op == f->nodes[list].op && !n->negate ? n->child : member;
    *(last == FILTER_NONE ? &f->nodes[list].child : &f->nodes[last].next) = i;
    while (f->nodes[i].next != FILTER_NONE)
        i = f->nodes[i].next;
    return i;
}

/* A stable sort of a list by cost (insertion from the front; lists are short, sorted ones are one
 * pass, and FILTER_TERMS_MAX bounds the rest). */
static uint32_t sort_list(struct filter *f, uint32_t head)
{
    uint32_t sorted = FILTER_NONE, last = FILTER_NONE;
    for (uint32_t i = head, next; i != FILTER_NONE; i = next) {
        next = f->nodes[i].next;
        uint32_t *at = &sorted;
        if (last != FILTER_NONE && f->nodes[last].row_ns <= f->nodes[i].row_ns)
            at = &f->nodes[last].next;
        while (*at != FILTER_NONE && f->nodes[*at].row_ns <= f->nodes[i].row_ns)
            at = &f->nodes[*at].next;
        f->nodes[i].next = *at;
        if (*at == FILTER_NONE)
            last = i;
        *at = i;
    }
    return sorted;
}

static void finish_list(struct filter *f, uint32_t list)
{
    struct filter_node *n = &f->nodes[list];
    n->child = sort_list(f, n->child);
    for (uint32_t i = n->child; i != FILTER_NONE; i = f->nodes[i].next)
        n->row_ns += f->nodes[i].row_ns;
}

/* or := and { "or" and },  and := not { "and" not } */
static enum err parse_list(struct parser *p, enum filter_op op, uint32_t *out)
{
    uint32_t list = FILTER_NONE, last = FILTER_NONE, member;
    for (bool more = true; more;) {
        RETURN_NOT_OK(op == FILTER_OR ? parse_list(p, FILTER_AND, &member) : parse_not(p, &member));
        RETURN_NOT_OK(accept(p, op == FILTER_OR ? "or" : "and", &more));
        if (list == FILTER_NONE && !more) {
            *out = member;
            return ERR_OK;
        }
        if (list == FILTER_NONE)
            RETURN_NOT_OK(node_new(p, op, &list));
        last = append(p->f, list, last, member);
    }
    finish_list(p->f, list);
    *out = list;
    return ERR_OK;
}

/* ---- a filter ---- */

static enum err parse_all(struct parser *p)
{
    size_t n = (size_t)(p->end - p->start);
    if (n > UINT32_MAX / 4)
        return err_set(p->ctx, ERR_TOO_LARGE, "filter: %zu bytes are too many", n);
    if (!utf8_valid(p->start, n) || memchr(p->start, 0, n))
        return err_set(p->ctx, ERR_INVALID, "filter: the text is not UTF-8, or it holds a NUL");
    RETURN_NOT_OK(lex_next(p));
    if (p->token.kind == TOKEN_END)
        return err_set(p->ctx, ERR_INVALID,
                       "filter: it is empty; write a condition like price < 20, or leave it out");
    RETURN_NOT_OK(parse_list(p, FILTER_OR, &p->f->root));
    return p->token.kind == TOKEN_END ? ERR_OK : lex_expected(p, "and, or, or the end");
}

static enum err set_id(struct filter *f, struct err_ctx *ctx)
{
    struct buf normal = {0};
    filter_normal(f, &normal);
    enum err e = normal.failed ? err_no_memory(ctx, normal.len) : ERR_OK;
    f->id = hash128(normal.data, normal.len);
    buf_deinit(&normal);
    return e;
}

enum err filter_parse(const struct schema *s, const char *text, size_t n, struct filter **out,
                      struct err_ctx *ctx)
{
    struct filter *f = calloc(1, sizeof(*f));
    if (!f)
        return err_no_memory(ctx, sizeof(*f));
    struct parser p = {.f = f, .schema = s, .start = text, .p = text, .end = text + n, .ctx = ctx};
    /* so that an offset into the constants never meets NULL */
    enum err e = buf_reserve(&f->bytes, 64) ? parse_all(&p) : err_no_memory(ctx, 64);
    if (e == ERR_OK)
        e = set_id(f, ctx);
    if (e != ERR_OK) {
        filter_free(f);
        return e;
    }
    *out = f;
    return ERR_OK;
}

void filter_free(struct filter *f)
{
    if (!f)
        return;
    free(f->nodes);
    buf_deinit(&f->bytes);
    buf_deinit(&f->texts);
    free(f);
}

struct hash128 filter_id(const struct filter *f)
{
    return f->id;
}

double filter_row_ns(const struct filter *f)
{
    return f->nodes[f->root].row_ns;
}
