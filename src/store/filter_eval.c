/* Evaluating a filter, 64 rows of a segment at a time.
 *
 *   bits:  t ─ rows for which the node is true      neither: unknown
 *          f ─ rows for which it is false
 *   not    t and f change places
 *   and    t = t1 & t2, f = f1 | f2; rows in f are settled and not shown to the members behind
 *   or     t = t1 | t2, f = f1 & f2; the same for rows in t
 *
 * A term reads its column for the rows asked for: strips of 64 rows follow each other in memory, in
 * files and in the tail alike. A feature that the segment is too old for is null.
 *
 * Threads: any number; nothing is written. The nodes' depth is bounded by the parser's. Failure:
 * none; a damaged cell reads as null. */
#include "store/filter_internal.h"

#include <math.h>

struct bits {
    uint64_t t, f;
};

/* What a term is evaluated on. */
struct rows {
    const struct filter *filter;
    const struct segment *segment;
    uint32_t first;      /* row of bit 0 */
    uint64_t candidates; /* bits to decide */
};

/* ---- columns of 64 rows ---- */

/* The values of a feature of fixed width. */
struct strips {
    const uint8_t *base; /* of row `first`; NULL: all null */
    uint32_t stride, offset, null_at;
    uint8_t null_bit;
};

static struct strips strips_of(const struct rows *r, int32_t feature)
{
    const struct schema *s = r->segment->schema;
    if ((uint32_t)feature >= s->nfeatures)
        return (struct strips){0};
    return (struct strips){.base = segment_strip(r->segment, r->first),
                           .stride = s->strip_bytes,
                           .offset = s->features[feature].strip_offset,
                           .null_at = (uint32_t)feature / 8,
                           .null_bit = (uint8_t)(1u << feature % 8)};
}

/* Bits of the candidates whose value is not null. */
static uint64_t present_bits(const struct strips *c, uint64_t candidates)
{
    uint64_t present = 0;
    if (!c->base)
        return 0;
    for (uint64_t left = candidates; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        uint64_t null = (c->base[(size_t)i * c->stride + c->null_at] & c->null_bit) != 0;
        present |= (null ^ 1) << i;
    }
    return present;
}

/* Loops over the candidates: `load` makes `v` of `p`, where the value of the row lies. */
#define STRIP_LOOP(load, test)                                                                     \
    for (uint64_t left = candidates; left; left &= left - 1) {                                     \
        unsigned i = (unsigned)__builtin_ctzll(left);                                              \
        const uint8_t *strip = c->base + (size_t)i * c->stride, *p = strip + c->offset;            \
        load;                                                                                      \
        uint64_t null = (strip[c->null_at] & c->null_bit) != 0;                                    \
        out.t |= (uint64_t)((test) & !null) << i;                                                  \
        present |= (null ^ 1) << i;                                                                \
    }

#define LOAD(type)                                                                                 \
    type v;                                                                                        \
    memcpy(&v, p, sizeof(v))

static struct bits range_int_strips(const struct strips *c, uint64_t candidates, uint8_t type,
                                    int64_t lo, int64_t hi)
{
    struct bits out = {0};
    uint64_t present = 0;
    if (type == FEATURE_INT32)
        STRIP_LOOP(LOAD(int32_t), v >= lo && v <= hi)
    else if (type == FEATURE_BOOL)
        STRIP_LOOP(int64_t v = *p != 0, v >= lo && v <= hi)
    else
        STRIP_LOOP(LOAD(int64_t), v >= lo && v <= hi)
    out.f = present & ~out.t;
    return out;
}

static struct bits range_float_strips(const struct strips *c, uint64_t candidates, uint8_t type,
                                      double lo, double hi)
{
    struct bits out = {0};
    uint64_t present = 0;
    if (type == FEATURE_FLOAT32)
        STRIP_LOOP(LOAD(float), v >= lo && v <= hi)
    else
        STRIP_LOOP(LOAD(double), v >= lo && v <= hi)
    out.f = present & ~out.t;
    return out;
}

static struct bits range_int_keys(const struct rows *r, int64_t lo, int64_t hi)
{
    struct bits out = {0};
    for (uint64_t left = r->candidates; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        int64_t v = segment_key_int(r->segment, r->first + i);
        out.t |= (uint64_t)(v >= lo && v <= hi) << i;
    }
    out.f = r->candidates & ~out.t;
    return out;
}

/* ---- values of one row ---- */

struct value {
    bool null;
    union {
        int64_t i;
        double d;
        struct {
            const uint8_t *p;
            size_t n;
        } s;
    };
};

static struct value number_value(const void *p, uint8_t type)
{
    struct value v = {0};
    int32_t i32;
    float f32;
    switch (type) {
    case FEATURE_BOOL:
        v.i = *(const uint8_t *)p != 0;
        break;
    case FEATURE_INT32:
        memcpy(&i32, p, sizeof(i32));
        v.i = i32;
        break;
    case FEATURE_FLOAT32:
        memcpy(&f32, p, sizeof(f32));
        v.d = f32;
        break;
    default: /* int64, timestamp, float64 */
        memcpy(&v.i, p, sizeof(v.i));
        break;
    }
    return v;
}

static struct value value_of(const struct segment *s, uint32_t row, int32_t column, uint8_t type)
{
    struct value v = {0};
    if (column == COLUMN_KEY) {
        if (s->schema->key == KEY_INT64)
            v.i = segment_key_int(s, row);
        else
            v.s.p = segment_key_str(s, row, &v.s.n);
        return v;
    }
    size_t n;
    const void *p = segment_cell(s, row, (uint32_t)column, &n);
    if (!p)
        return (struct value){.null = true};
    if (type < FEATURE_STRING)
        return number_value(p, type);
    v.s.p = p;
    v.s.n = n;
    return v;
}

/* ---- tests of one value ---- */

static inline bool in_ints(const struct filter *f, const struct filter_node *node, int64_t v)
{
    const int64_t *list = (const void *)(f->bytes.data + node->data.at);
    size_t n = node->data.n, at = 0;
    for (size_t step = n; step > 1; step -= step / 2)
        at += list[at + step / 2] <= v ? step / 2 : 0;
    return n && list[at] == v;
}

static inline bool in_floats(const struct filter *f, const struct filter_node *node, double v)
{
    const double *list = (const void *)(f->bytes.data + node->data.at);
    size_t n = node->data.n, at = 0;
    for (size_t step = n; step > 1; step -= step / 2)
        at += list[at + step / 2] <= v ? step / 2 : 0;
    return n && list[at] == v;
}

static bool in_bytes(const struct filter *f, const struct filter_node *node, const uint8_t *p,
                     size_t n)
{
    const struct filter_slice *list = (const void *)(f->bytes.data + node->data.at);
    size_t lo = 0, hi = node->data.n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        uint8_t verdict = compare_bytes(f->bytes.data + list[mid].at, list[mid].len, p, n);
        if (verdict == EQUAL)
            return true;
        if (verdict == LESS)
            lo = mid + 1;
        else
            hi = mid;
    }
    return false;
}

/* Lists as they are stored: see enum feature_type. */

static bool list_has_int(const uint8_t *p, size_t n, int64_t item)
{
    for (size_t at = 0; at + 8 <= n; at += 8) {
        int64_t v;
        memcpy(&v, p + at, sizeof(v));
        if (v == item)
            return true;
    }
    return false;
}

static bool list_has_float(const uint8_t *p, size_t n, double item)
{
    for (size_t at = 0; at + 4 <= n; at += 4) {
        float v;
        memcpy(&v, p + at, sizeof(v));
        if (v == item)
            return true;
    }
    return false;
}

static bool list_has_bytes(const uint8_t *p, size_t n, const uint8_t *item, uint32_t item_len)
{
    for (size_t at = 0; n - at >= 4;) {
        uint32_t len;
        memcpy(&len, p + at, sizeof(len));
        at += 4;
        if (len > n - at)
            return false;
        if (len == item_len && memcmp(p + at, item, len) == 0)
            return true;
        at += len;
    }
    return false;
}

static uint8_t turn(uint8_t verdict)
{
    return verdict == LESS ? GREATER : verdict == GREATER ? LESS : verdict;
}

static uint8_t compare_floats(double a, double b)
{
    return a < b ? LESS : a > b ? GREATER : a == b ? EQUAL : UNORDERED;
}

static bool is_float(uint8_t type)
{
    return type == FEATURE_FLOAT32 || type == FEATURE_FLOAT64;
}

static uint8_t compare_values(struct value a, uint8_t type_a, struct value b, uint8_t type_b)
{
    if (type_a >= FEATURE_STRING)
        return compare_bytes(a.s.p, a.s.n, b.s.p, b.s.n);
    if (is_float(type_a))
        return is_float(type_b) ? compare_floats(a.d, b.d) : turn(compare_int_float(b.i, a.d));
    if (is_float(type_b))
        return compare_int_float(a.i, b.d);
    return a.i < b.i ? LESS : a.i > b.i ? GREATER : EQUAL;
}

/* Whether a cell of variable width passes a term. */
static inline bool test_cell(const struct filter *f, const struct filter_node *n, const uint8_t *p,
                             size_t len)
{
    const uint8_t *bytes = f->bytes.data;
    switch ((enum filter_op)n->op) {
    case FILTER_IN_BYTES:
        return in_bytes(f, n, p, len);
    case FILTER_COMPARE:
        if (n->verdicts == EQUAL)
            return len == n->data.n && memcmp(p, bytes + n->data.at, len) == 0;
        return compare_bytes(p, len, bytes + n->data.at, n->data.n) & n->verdicts;
    case FILTER_LIKE:
        return like_match(f, n, p, len);
    case FILTER_HAS_INT:
        return n->i.lo <= n->i.hi && list_has_int(p, len, n->i.lo);
    case FILTER_HAS_FLOAT:
        return list_has_float(p, len, n->f.lo);
    case FILTER_HAS_BYTES:
        return list_has_bytes(p, len, bytes + n->data.at, n->data.n);
    default:
        ASSERT(false);
    }
}

/* ---- terms ---- */

static struct bits eval_range(const struct rows *r, const struct filter_node *n)
{
    if (n->column == COLUMN_KEY)
        return range_int_keys(r, n->i.lo, n->i.hi);
    const struct strips c = strips_of(r, n->column);
    if (!c.base)
        return (struct bits){0};
    return n->op == FILTER_RANGE_INT
               ? range_int_strips(&c, r->candidates, n->type, n->i.lo, n->i.hi)
               : range_float_strips(&c, r->candidates, n->type, n->f.lo, n->f.hi);
}

static struct bits eval_null(const struct rows *r, const struct filter_node *n)
{
    uint64_t null = 0;
    if (n->column == COLUMN_VECTOR) {
        null = segment_vector_nulls(r->segment, r->first / 64);
    } else if (n->column >= 0) {
        const struct strips c = strips_of(r, n->column);
        null = ~present_bits(&c, r->candidates);
    }
    return (struct bits){null & r->candidates, ~null & r->candidates};
}

static struct bits in_numbers_strips(const struct strips *c, uint64_t candidates,
                                     const struct filter *f, const struct filter_node *n)
{
    struct bits out = {0};
    uint64_t present = 0;
    if (n->type == FEATURE_INT32)
        STRIP_LOOP(LOAD(int32_t), in_ints(f, n, v))
    else if (n->type == FEATURE_BOOL)
        STRIP_LOOP(int64_t v = *p != 0, in_ints(f, n, v))
    else if (n->type == FEATURE_FLOAT32)
        STRIP_LOOP(LOAD(float), in_floats(f, n, v))
    else if (n->type == FEATURE_FLOAT64)
        STRIP_LOOP(LOAD(double), in_floats(f, n, v))
    else
        STRIP_LOOP(LOAD(int64_t), in_ints(f, n, v))
    out.f = n->with_null ? 0 : present & ~out.t;
    return out;
}

static struct bits eval_in_numbers(const struct rows *r, const struct filter_node *n)
{
    const struct strips c = strips_of(r, n->column);
    return c.base ? in_numbers_strips(&c, r->candidates, r->filter, n) : (struct bits){0};
}

static struct bits in_numbers_keys(const struct rows *r, const struct filter_node *n)
{
    struct bits out = {0};
    for (uint64_t left = r->candidates; left; left &= left - 1) {
        unsigned i = (unsigned)__builtin_ctzll(left);
        int64_t v = segment_key_int(r->segment, r->first + i);
        out.t |= (uint64_t)in_ints(r->filter, n, v) << i;
    }
    out.f = n->with_null ? 0 : r->candidates & ~out.t;
    return out;
}

static struct bits eval_cells(const struct rows *r, const struct filter_node *n)
{
    const struct segment *s = r->segment;
    struct bits out = {0};
    for (uint64_t left = r->candidates; left; left &= left - 1) {
        uint64_t bit = left & -left;
        uint32_t row = r->first + (uint32_t)__builtin_ctzll(left);
        size_t len;
        const uint8_t *p = n->column == COLUMN_KEY
                               ? segment_key_str(s, row, &len)
                               : segment_cell(s, row, (uint32_t)n->column, &len);
        if (!p)
            continue;
        if (test_cell(r->filter, n, p, len))
            out.t |= bit;
        else if (!n->with_null)
            out.f |= bit;
    }
    return out;
}

static struct bits eval_columns(const struct rows *r, const struct filter_node *n)
{
    struct bits out = {0};
    for (uint64_t left = r->candidates; left; left &= left - 1) {
        uint64_t bit = left & -left;
        uint32_t row = r->first + (uint32_t)__builtin_ctzll(left);
        struct value a = value_of(r->segment, row, n->column, n->type);
        struct value b = value_of(r->segment, row, n->column2, n->type2);
        if (a.null || b.null)
            continue;
        if (compare_values(a, n->type, b, n->type2) & n->verdicts)
            out.t |= bit;
        else
            out.f |= bit;
    }
    return out;
}

static struct bits eval_term(const struct rows *r, const struct filter_node *n)
{
    switch ((enum filter_op)n->op) {
    case FILTER_CONSTANT:
        return (struct bits){n->i.lo > 0 ? r->candidates : 0, n->i.lo == 0 ? r->candidates : 0};
    case FILTER_RANGE_INT:
    case FILTER_RANGE_FLOAT:
        return eval_range(r, n);
    case FILTER_IS_NULL:
        return eval_null(r, n);
    case FILTER_COLUMNS:
        return eval_columns(r, n);
    case FILTER_IN_INT:
    case FILTER_IN_FLOAT:
        return n->column == COLUMN_KEY ? in_numbers_keys(r, n) : eval_in_numbers(r, n);
    default:
        return eval_cells(r, n);
    }
}

/* ---- the tree ---- */

static struct bits eval(const struct rows *r, uint32_t node);

static struct bits eval_and(const struct rows *r, uint32_t member)
{
    struct rows left = *r;
    struct bits out = {r->candidates, 0};
    for (; member != FILTER_NONE && left.candidates; member = r->filter->nodes[member].next) {
        struct bits b = eval(&left, member);
        out.t &= b.t;
        out.f |= b.f;
        left.candidates &= ~b.f;
    }
    return out;
}

static struct bits eval_or(const struct rows *r, uint32_t member)
{
    struct rows left = *r;
    struct bits out = {0, r->candidates};
    for (; member != FILTER_NONE && left.candidates; member = r->filter->nodes[member].next) {
        struct bits b = eval(&left, member);
        out.t |= b.t;
        out.f &= b.f;
        left.candidates &= ~b.t;
    }
    return out;
}

static struct bits eval(const struct rows *r, uint32_t node)
{
    const struct filter_node *n = &r->filter->nodes[node];
    struct bits b = n->op == FILTER_AND  ? eval_and(r, n->child)
                    : n->op == FILTER_OR ? eval_or(r, n->child)
                                         : eval_term(r, n);
    return n->negate != n->invert ? (struct bits){b.f, b.t} : b;
}

uint64_t filter_word(const struct filter *f, const struct segment *seg, uint32_t w,
                     uint64_t candidates)
{
    if (!candidates)
        return 0;
    const struct rows r = {.filter = f, .segment = seg, .first = w * 64, .candidates = candidates};
    return eval(&r, f->root).t;
}
