/* The header of a .npy file.
 *
 * The dict is a Python literal. Parsed is what numpy and those who follow its format write: the
 * three keys in any order, each once, quotes of either kind, white space and a last comma where
 * Python allows them, the long integers of Python 2. Anything else is refused: bytes behind a
 * misread header would be loaded as vectors.
 *
 * Threads: no state. Failure: the sentence quotes what was found. */
#include "api/npy.h"

#include <stdio.h>

enum { PREFIX_BYTES = 8, MAGIC_BYTES = 6, DIMENSIONS_MAX = 32, QUOTE_CHARS_MAX = 40 };

static const uint8_t magic[MAGIC_BYTES] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

/* ---- length ---- */

enum err npy_header_length(const void *data, size_t n, size_t *need, struct err_ctx *ctx)
{
    const uint8_t *p = data;
    if (memcmp(p, magic, n < MAGIC_BYTES ? n : MAGIC_BYTES) != 0)
        return err_set(ctx, ERR_INVALID,
                       "the body is no .npy file: it does not start with \\x93NUMPY (write it with "
                       "numpy.save)");
    *need = PREFIX_BYTES;
    if (n < PREFIX_BYTES)
        return ERR_OK;
    if (p[6] < 1 || p[6] > 3 || p[7] != 0)
        return err_set(ctx, ERR_INVALID,
                       "version %u.%u of the .npy format is not known: 1.0, 2.0 "
                       "and 3.0 are",
                       p[6], p[7]);
    size_t field = p[6] == 1 ? 2 : 4;
    *need += field;
    if (n < *need)
        return ERR_OK;
    struct cursor c = cursor_over(p + PREFIX_BYTES, field);
    size_t length = field == 2 ? cursor_u16(&c) : cursor_u32(&c);
    if (length > NPY_HEADER_BYTES_MAX)
        return err_set(ctx, ERR_INVALID, "the .npy header has %zu bytes; the most is %d", length,
                       NPY_HEADER_BYTES_MAX);
    *need += length;
    return ERR_OK;
}

/* ---- the dict ---- */

struct text {
    const char *p, *end;
};

/* What the dict says. */
struct dict {
    bool descr, fortran_order, shape; /* keys that came */
    bool fortran;
    bool structured; /* descr is a list of fields */
    char dtype[QUOTE_CHARS_MAX + 1];
    unsigned dimensions;
    uint64_t sizes[2];
};

static enum err malformed(const struct text *t, const char *wanted, struct err_ctx *ctx)
{
    if (t->p == t->end)
        return err_set(ctx, ERR_INVALID, "the .npy header ends where %s is due", wanted);
    if (*t->p < 0x20 || *t->p > 0x7e)
        return err_set(ctx, ERR_INVALID, "the .npy header has byte 0x%02x where %s is due",
                       (uint8_t)*t->p, wanted);
    return err_set(ctx, ERR_INVALID, "the .npy header has '%c' where %s is due", *t->p, wanted);
}

static void skip_space(struct text *t)
{
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\t' || *t->p == '\n' || *t->p == '\r'))
        t->p++;
}

static bool take(struct text *t, char c)
{
    skip_space(t);
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    return true;
}

static enum err read_string(struct text *t, char out[QUOTE_CHARS_MAX + 1], const char *what,
                            struct err_ctx *ctx)
{
    skip_space(t);
    if (t->p == t->end || (*t->p != '\'' && *t->p != '"'))
        return malformed(t, what, ctx);
    char quote = *t->p++;
    const char *from = t->p;
    while (t->p < t->end && *t->p != quote && *t->p != '\\')
        t->p++;
    if (t->p == t->end || *t->p == '\\')
        return malformed(t, "the end of a string", ctx);
    snprintf(out, QUOTE_CHARS_MAX + 1, "%.*s", (int)(t->p - from), from);
    t->p++;
    return ERR_OK;
}

static enum err read_descr(struct text *t, struct dict *d, struct err_ctx *ctx)
{
    skip_space(t);
    d->structured = t->p < t->end && *t->p == '[';
    if (d->structured) {
        t->p = t->end; /* refused all the same */
        return ERR_OK;
    }
    return read_string(t, d->dtype, "the name of a dtype", ctx);
}

static enum err read_fortran_order(struct text *t, struct dict *d, struct err_ctx *ctx)
{
    skip_space(t);
    size_t left = (size_t)(t->end - t->p);
    d->fortran = left >= 4 && memcmp(t->p, "True", 4) == 0;
    if (!d->fortran && (left < 5 || memcmp(t->p, "False", 5) != 0))
        return malformed(t, "True or False", ctx);
    t->p += d->fortran ? 4 : 5;
    return ERR_OK;
}

static enum err read_size(struct text *t, uint64_t *out, struct err_ctx *ctx)
{
    const char *from = t->p;
    bool fits = true;
    *out = 0;
    for (; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++)
        fits = fits && !__builtin_mul_overflow(*out, 10, out) &&
               !__builtin_add_overflow(*out, (uint64_t)(*t->p - '0'), out);
    if (t->p == from)
        return malformed(t, "a number of the shape", ctx);
    if (!fits)
        return err_set(ctx, ERR_UNPROCESSABLE, "the .npy header claims %.*s rows or columns",
                       t->p - from > QUOTE_CHARS_MAX ? QUOTE_CHARS_MAX : (int)(t->p - from), from);
    if (t->p < t->end && *t->p == 'L')
        t->p++;
    return ERR_OK;
}

/* (), (3,), (3, 4), (3, 4,): a single number needs its comma, else it is no tuple. */
static enum err read_shape(struct text *t, struct dict *d, struct err_ctx *ctx)
{
    bool comma = true;
    if (!take(t, '('))
        return malformed(t, "the '(' of a shape", ctx);
    while (!take(t, ')')) {
        uint64_t size;
        if (!comma)
            return malformed(t, "',' or ')'", ctx);
        if (d->dimensions == DIMENSIONS_MAX)
            return err_set(ctx, ERR_INVALID, "the .npy header has more than %d dimensions",
                           DIMENSIONS_MAX);
        RETURN_NOT_OK(read_size(t, &size, ctx));
        if (d->dimensions < 2)
            d->sizes[d->dimensions] = size;
        d->dimensions++;
        comma = take(t, ',');
    }
    if (d->dimensions == 1 && !comma)
        return err_set(ctx, ERR_INVALID, "the shape in the .npy header is not a tuple");
    return ERR_OK;
}

static const struct entry {
    const char *name;
    size_t seen; /* which flag of struct dict */
    enum err (*read)(struct text *t, struct dict *d, struct err_ctx *ctx);
} entries[] = {
    {"descr", offsetof(struct dict, descr), read_descr},
    {"fortran_order", offsetof(struct dict, fortran_order), read_fortran_order},
    {"shape", offsetof(struct dict, shape), read_shape},
};

enum { ENTRIES = sizeof entries / sizeof entries[0] };

static enum err read_entry(struct text *t, struct dict *d, struct err_ctx *ctx)
{
    char name[QUOTE_CHARS_MAX + 1];
    RETURN_NOT_OK(read_string(t, name, "a key in quotes, or '}',", ctx));
    if (!take(t, ':'))
        return malformed(t, "':'", ctx);
    for (size_t i = 0; i < ENTRIES; i++) {
        bool *seen = (bool *)((char *)d + entries[i].seen);
        if (strcmp(name, entries[i].name) != 0)
            continue;
        if (*seen)
            return err_set(ctx, ERR_INVALID, "the .npy header has '%s' twice", name);
        *seen = true;
        return entries[i].read(t, d, ctx);
    }
    return err_set(ctx, ERR_INVALID, "the .npy header has the unknown key '%s'", name);
}

static enum err read_dict(struct text *t, struct dict *d, struct err_ctx *ctx)
{
    bool comma = true;
    if (!take(t, '{'))
        return malformed(t, "'{'", ctx);
    while (!take(t, '}')) {
        if (!comma)
            return malformed(t, "',' or '}'", ctx);
        RETURN_NOT_OK(read_entry(t, d, ctx));
        if (d->structured)
            return ERR_OK;
        comma = take(t, ',');
    }
    skip_space(t);
    if (t->p < t->end)
        return malformed(t, "nothing but white space", ctx);
    for (size_t i = 0; i < ENTRIES; i++) {
        if (!*(bool *)((char *)d + entries[i].seen))
            return err_set(ctx, ERR_INVALID, "the .npy header has no '%s'", entries[i].name);
    }
    return ERR_OK;
}

/* ---- what is taken ---- */

static enum err check_array(const struct dict *d, struct err_ctx *ctx)
{
    if (d->structured)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the array is structured (records with fields): send plain vectors, dtype "
                       "'<f4'");
    if (strcmp(d->dtype, "<f4") != 0)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the array's dtype is '%s'; only '<f4' (little-endian float32) is taken: "
                       "save array.astype('<f4')",
                       d->dtype);
    if (d->dimensions == 1)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the array has one dimension; send rows x dim: a single vector is "
                       "array.reshape(1, -1)");
    if (d->dimensions != 2)
        return err_set(ctx, ERR_UNPROCESSABLE, "the array has %u dimensions; send two, rows x dim",
                       d->dimensions);
    if (d->fortran && d->sizes[0] > 1 && d->sizes[1] > 1)
        return err_set(ctx, ERR_UNPROCESSABLE,
                       "the array is in Fortran order, column by column: save "
                       "numpy.ascontiguousarray(array)");
    return ERR_OK;
}

enum err npy_header_read(const void *data, size_t n, struct npy_array *out, struct err_ctx *ctx)
{
    struct dict d = {0};
    size_t need;
    RETURN_NOT_OK(npy_header_length(data, n, &need, ctx));
    ASSERT(n == need);
    const char *from = data;
    struct text t = {from + (from[6] == 1 ? 10 : 12), from + n};
    RETURN_NOT_OK(read_dict(&t, &d, ctx));
    RETURN_NOT_OK(check_array(&d, ctx));
    *out = (struct npy_array){.rows = d.sizes[0], .dim = d.sizes[1]};
    return ERR_OK;
}
