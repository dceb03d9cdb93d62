/* Cuts a stream into rows.
 *
 *   {  "rows"  :  [  {..}  ,  {..}  ]  }
 *   OPEN NAME COLON ARRAY FIRST ROW AFTER NEXT ROW AFTER CLOSE END
 *
 * Between rows every byte is a step of that machine. Inside a row only quotes, escapes and the
 * depth of brackets are followed; whether the text is JSON is found by the row's parser, which sees
 * it whole. A bracket of the wrong kind inside a row therefore still counts as a bracket.
 *
 * Threads: one framer, one thread. Failure: the first error is final; its sentence names the byte
 * or the row. */
#include "api/framer.h"

#include "api/json_scan.h"

enum state { OPEN, NAME, IN_NAME, COLON, ARRAY, FIRST, NEXT, ROW, AFTER, CLOSE, END };

enum { NAME_CHARS_MAX = 64 };

void framer_init(struct framer *f, enum framer_shape shape, size_t row_bytes_max, framer_row row,
                 void *arg)
{
    *f = (struct framer){
        .shape = shape, .row_bytes_max = row_bytes_max, .row = row, .arg = arg, .state = OPEN};
}

void framer_deinit(struct framer *f)
{
    buf_deinit(&f->carry);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Keeps [from, to) for the next piece. */
static enum err keep(struct framer *f, const char *from, const char *to, struct err_ctx *ctx)
{
    size_t n = (size_t)(to - from);
    if (f->carry.len + n > f->row_bytes_max)
        return err_set_at(ctx, ERR_TOO_LARGE, (int64_t)f->rows, NULL,
                          "row %llu is longer than row_bytes_max (%zu bytes)",
                          (unsigned long long)f->rows, f->row_bytes_max);
    buf_put(&f->carry, from, n);
    return f->carry.failed ? err_no_memory(ctx, f->carry.len) : ERR_OK;
}

/* Hands over the row that ends at `to`: carried bytes, if any, and [from, to). */
static enum err emit(struct framer *f, const char *from, const char *to, struct err_ctx *ctx)
{
    const char *text = from;
    size_t n = (size_t)(to - from);
    if (f->carry.len || n > f->row_bytes_max) {
        RETURN_NOT_OK(keep(f, from, to, ctx));
        text = (const char *)f->carry.data;
        n = f->carry.len;
    }
    RETURN_NOT_OK(f->row(f->arg, text, n, f->row_offset, ctx));
    f->rows++;
    buf_reset(&f->carry);
    return ERR_OK;
}

/* ---- {"rows":[..]} ---- */

static enum err unexpected(const struct framer *f, char c, uint64_t at, struct err_ctx *ctx)
{
    static const char *const wanted[] = {
        [OPEN] = "'{' of {\"rows\":[...]}",    [NAME] = "a name in quotes", [COLON] = "':'",
        [ARRAY] = "'[' of the rows",           [AFTER] = "',' or ']'",      [CLOSE] = "'}'",
        [END] = "nothing after the JSON value"};
    if (c < 0x20 || c == 0x7f)
        return err_set(ctx, ERR_INVALID, "expected %s, found byte 0x%02x at byte %llu",
                       wanted[f->state], (unsigned char)c, (unsigned long long)at);
    return err_set(ctx, ERR_INVALID, "expected %s, found '%c' at byte %llu", wanted[f->state], c,
                   (unsigned long long)at);
}

static enum err end_name(struct framer *f, struct err_ctx *ctx)
{
    bool known = f->carry.len == 4 && memcmp(f->carry.data, "rows", 4) == 0;
    if (!known || f->rows_seen)
        return err_set(ctx, ERR_INVALID,
                       "%s field '%.*s' in the body; known: rows (or, as columns: keys, vectors, "
                       "features)",
                       known ? "repeated" : "unknown", (int)f->carry.len,
                       f->carry.data ? (const char *)f->carry.data : "");
    buf_reset(&f->carry);
    f->rows_seen = true;
    f->state = COLON;
    return ERR_OK;
}

static enum err step_name(struct framer *f, const char *p, struct err_ctx *ctx)
{
    if (*p == '"')
        return end_name(f, ctx);
    if (f->carry.len < NAME_CHARS_MAX)
        return keep(f, p, p + 1, ctx);
    return end_name(f, ctx);
}

static enum err start_row(struct framer *f, char c, uint64_t at, struct err_ctx *ctx)
{
    if (c != '{')
        return err_set_at(ctx, c == ',' || c == ']' ? ERR_INVALID : ERR_UNPROCESSABLE,
                          (int64_t)f->rows, NULL, "row %llu is not a JSON object at byte %llu",
                          (unsigned long long)f->rows, (unsigned long long)at);
    f->row_offset = at;
    f->depth = 0;
    f->in_string = f->escaped = false;
    f->state = ROW;
    return ERR_OK;
}

/* What the machine goes to when it stands in a state and meets its character. */
static bool advance(struct framer *f, char c)
{
    static const struct {
        unsigned state;
        char c;
        unsigned next;
    } moves[] = {{OPEN, '{', NAME},   {NAME, '"', IN_NAME}, {COLON, ':', ARRAY},
                 {ARRAY, '[', FIRST}, {FIRST, ']', CLOSE},  {AFTER, ',', NEXT},
                 {AFTER, ']', CLOSE}, {CLOSE, '}', END}};
    for (size_t i = 0; i < sizeof moves / sizeof moves[0]; i++) {
        if (moves[i].state == f->state && moves[i].c == c) {
            f->state = moves[i].next;
            return true;
        }
    }
    return false;
}

/* One byte outside rows. */
static enum err step(struct framer *f, const char *p, uint64_t at, struct err_ctx *ctx)
{
    if (f->state == IN_NAME)
        return step_name(f, p, ctx);
    if (is_space(*p) || advance(f, *p))
        return ERR_OK;
    if (f->state == FIRST || f->state == NEXT)
        return start_row(f, *p, at, ctx);
    if (f->state == CLOSE && *p == ',') {
        f->state = NAME;
        return ERR_OK;
    }
    if (f->state == NAME && *p == '}' && !f->rows_seen)
        return err_set(ctx, ERR_INVALID, "the body has no field \"rows\"");
    return unexpected(f, *p, at, ctx);
}

/* Moves over a string's bytes; returns where it stopped: behind the closing quote or at the end. */
static const char *skip_string(struct framer *f, const char *p, const char *end)
{
    bool high;
    for (; p < end; p++) {
        if (f->escaped) {
            f->escaped = false;
            continue;
        }
        p = json_scan_string(p, end, &high);
        if (p == end)
            break;
        f->escaped = *p == '\\';
        if (*p == '"') {
            f->in_string = false;
            return p + 1;
        }
    }
    return p;
}

/* Moves to behind the row's last bracket, or to the end of the piece. */
static const char *skip_row(struct framer *f, const char *p, const char *end)
{
    while (p < end) {
        if (f->in_string) {
            p = skip_string(f, p, end);
            continue;
        }
        char c = *p++;
        if (c == '"') {
            f->in_string = true;
        } else if (c == '{' || c == '[') {
            f->depth++;
        } else if (c == '}' || c == ']') {
            if (--f->depth == 0) {
                f->state = AFTER;
                break;
            }
        } else {
            p = json_scan_structure(p, end);
        }
    }
    return p;
}

static enum err feed_json(struct framer *f, const char *data, const char *end, struct err_ctx *ctx)
{
    for (const char *p = data; p < end;) {
        if (f->state != ROW) {
            RETURN_NOT_OK(step(f, p, f->offset + (uint64_t)(p - data), ctx));
            if (f->state != ROW)
                p++;
            continue;
        }
        const char *from = p;
        p = skip_row(f, p, end);
        RETURN_NOT_OK(f->state == ROW ? keep(f, from, p, ctx) : emit(f, from, p, ctx));
    }
    return ERR_OK;
}

/* ---- lines ---- */

static enum err end_line(struct framer *f, const char *from, const char *to, struct err_ctx *ctx)
{
    if (from == to && !f->carry.len)
        return ERR_OK;
    return emit(f, from, to, ctx);
}

/* Blanks before a row belong to none, and are no part of its length. */
static const char *skip_blanks(const char *p, const char *end)
{
    while (p < end && *p != '\n' && is_space(*p))
        p++;
    return p;
}

static enum err feed_lines(struct framer *f, const char *data, const char *end, struct err_ctx *ctx)
{
    for (const char *p = data; p < end;) {
        if (!f->carry.len) {
            p = skip_blanks(p, end);
            f->row_offset = f->offset + (uint64_t)(p - data);
        }
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        if (!newline)
            return keep(f, p, end, ctx);
        RETURN_NOT_OK(end_line(f, p, newline, ctx));
        p = newline + 1;
    }
    return ERR_OK;
}

/* ---- both ---- */

enum err framer_feed(struct framer *f, const void *data, size_t n, struct err_ctx *ctx)
{
    const char *from = data;
    RETURN_NOT_OK(f->shape == FRAMER_JSON ? feed_json(f, from, from + n, ctx)
                                          : feed_lines(f, from, from + n, ctx));
    f->offset += n;
    return ERR_OK;
}

static enum err finish_json(struct framer *f, struct err_ctx *ctx)
{
    if (f->state == END)
        return ERR_OK;
    if (f->state == OPEN)
        return err_set(ctx, ERR_INVALID, "the body is empty: send {\"rows\":[...]}");
    if (f->state == ROW)
        return err_set_at(ctx, ERR_INVALID, (int64_t)f->rows, NULL,
                          "the JSON ends too early: row %llu is not complete at byte %llu",
                          (unsigned long long)f->rows, (unsigned long long)f->offset);
    return err_set(ctx, ERR_INVALID, "the JSON ends too early at byte %llu",
                   (unsigned long long)f->offset);
}

static enum err finish_lines(struct framer *f, struct err_ctx *ctx)
{
    if (f->carry.len) {
        const char *text = (const char *)f->carry.data;
        RETURN_NOT_OK(f->row(f->arg, text, f->carry.len, f->row_offset, ctx));
        f->rows++;
    }
    if (f->rows == 0)
        return err_set(ctx, ERR_INVALID, "the body is empty: send one JSON object a line");
    return ERR_OK;
}

enum err framer_finish(struct framer *f, struct err_ctx *ctx)
{
    return f->shape == FRAMER_JSON ? finish_json(f, ctx) : finish_lines(f, ctx);
}
