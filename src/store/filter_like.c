/* Patterns of `like`.
 *
 *   'ab%c_d%e'   ->   ab | c?d | e      the first is anchored at the start, the last at the end,
 *                                       each between is found as far left as it can be
 *
 * The leftmost place for each piece is as good as any other, so nothing is tried twice: a match
 * takes the text's length times that of a piece at most, and the length only (memmem) for pieces
 * without '_'.
 *
 * Threads: matching only reads. Failure: a pattern that is too long or ends in its escape. */
#include "store/filter_internal.h"

/* ---- compiling ---- */

static enum err add_piece(struct parser *p, struct buf *pieces, const struct filter_piece *piece)
{
    buf_put(pieces, piece, sizeof(*piece));
    return pieces->failed ? err_no_memory(p->ctx, pieces->len) : ERR_OK;
}

static bool at_escape(const uint8_t *s, const uint8_t *end, const uint8_t *escape, uint32_t len)
{
    return len > 0 && (size_t)(end - s) >= len && memcmp(s, escape, len) == 0;
}

static enum err check_pattern(struct parser *p, const struct operand *pattern)
{
    if (pattern->slice.len <= FILTER_LIKE_MAX)
        return ERR_OK;
    return err_set(p->ctx, ERR_INVALID,
                   "filter: the like pattern at character %u has %u bytes; the most is %d "
                   "(like_bytes_max)",
                   token_place(p, &pattern->token), pattern->slice.len, FILTER_LIKE_MAX);
}

/* Splits text[0, n) at its '%'s into `pieces`; the text of the pieces goes to filter->bytes. */
static enum err split(struct parser *p, const struct operand *pattern, const uint8_t *text,
                      size_t n, const uint8_t *escape, uint32_t escape_len, struct buf *pieces,
                      struct filter_node *node)
{
    struct buf *bytes = &p->f->bytes;
    struct filter_piece piece = {.text.at = (uint32_t)bytes->len};
    const uint8_t *end = text + n;
    for (const uint8_t *c = text; c < end;) {
        bool escaped = at_escape(c, end, escape, escape_len);
        if (escaped && (c += escape_len) == end)
            return err_set(p->ctx, ERR_INVALID,
                           "filter: the like pattern at character %u ends in its escape character, "
                           "which must stand before another one",
                           token_place(p, &pattern->token));
        if (*c == '%' && !escaped) {
            piece.text.len = (uint32_t)bytes->len - piece.text.at;
            node->open |= c == text;
            if (piece.text.len)
                RETURN_NOT_OK(add_piece(p, pieces, &piece));
            piece = (struct filter_piece){.text.at = (uint32_t)bytes->len};
            node->open_end = true; /* as far as one can see */
            c++;
            continue;
        }
        piece.wild |= *c == '_' && !escaped;
        buf_put_u8(bytes, *c == '_' && !escaped ? LIKE_ANY : *c);
        node->open_end = false;
        for (c++; c < end && (*c & 0xc0) == 0x80; c++)
            buf_put_u8(bytes, *c);
    }
    piece.text.len = (uint32_t)bytes->len - piece.text.at;
    bool whole = pieces->len == 0 && !node->open; /* no '%' at all, and maybe no text */
    return piece.text.len || whole ? add_piece(p, pieces, &piece) : ERR_OK;
}

enum err like_compile(struct parser *p, const struct operand *pattern, struct filter_slice escape,
                      struct filter_node *node)
{
    uint8_t text[FILTER_LIKE_MAX], escape_text[4];
    struct buf *bytes = &p->f->bytes, pieces = {0};
    RETURN_NOT_OK(check_pattern(p, pattern));
    memcpy(text, bytes->data + pattern->slice.at, pattern->slice.len); /* bytes will move */
    memcpy(escape_text, bytes->data + escape.at, escape.len);
    enum err e =
        split(p, pattern, text, pattern->slice.len, escape_text, escape.len, &pieces, node);
    buf_align(bytes, 8);
    node->data.at = (uint32_t)bytes->len;
    node->data.n = (uint32_t)(pieces.len / sizeof(struct filter_piece));
    buf_put(bytes, pieces.data, pieces.len);
    buf_deinit(&pieces);
    if (e == ERR_OK && bytes->failed)
        e = err_no_memory(p->ctx, bytes->len);
    return e;
}

/* ---- matching ---- */

static const uint8_t *skip_point(const uint8_t *s, const uint8_t *end)
{
    for (s++; s < end && (*s & 0xc0) == 0x80; s++)
        ;
    return s;
}

/* Behind the piece when it stands at s; else NULL. */
static const uint8_t *match_at(const uint8_t *piece, size_t n, const uint8_t *s, const uint8_t *end)
{
    for (size_t i = 0; i < n; i++) {
        if (s == end)
            return NULL;
        if (piece[i] == LIKE_ANY)
            s = skip_point(s, end);
        else if (*s++ != piece[i])
            return NULL;
    }
    return s;
}

/* Where the piece begins when it ends the text; else NULL. */
static const uint8_t *match_end(const uint8_t *piece, size_t n, const uint8_t *start,
                                const uint8_t *s)
{
    for (size_t i = n; i-- > 0;) {
        if (s == start)
            return NULL;
        s--;
        if (piece[i] == LIKE_ANY) {
            while (s > start && (*s & 0xc0) == 0x80)
                s--;
        } else if (*s != piece[i]) {
            return NULL;
        }
    }
    return s;
}

/* Behind the leftmost place of the piece; NULL when there is none. */
static const uint8_t *match_any(const uint8_t *piece, size_t n, bool wild, const uint8_t *s,
                                const uint8_t *end)
{
    if (!wild) {
        const uint8_t *at = memmem(s, (size_t)(end - s), piece, n);
        return at ? at + n : NULL;
    }
    for (; s < end; s = skip_point(s, end)) {
        const uint8_t *behind = match_at(piece, n, s, end);
        if (behind)
            return behind;
    }
    return NULL;
}

bool like_match(const struct filter *f, const struct filter_node *node, const uint8_t *text,
                size_t len)
{
    const struct filter_piece *piece = (const void *)(f->bytes.data + node->data.at);
    const uint8_t *s = text, *end = text + len, *bytes = f->bytes.data;
    uint32_t from = 0, to = node->data.n;
    if (!node->open && to > 0) { /* anchored at the start */
        s = match_at(bytes + piece->text.at, piece->text.len, s, end);
        if (!s)
            return false;
        if (to == 1 && !node->open_end)
            return s == end;
        from = 1;
    }
    if (!node->open_end && to > from) {
        to--;
        end = match_end(bytes + piece[to].text.at, piece[to].text.len, s, end);
        if (!end)
            return false;
    }
    for (; from < to && s; from++)
        s = match_any(bytes + piece[from].text.at, piece[from].text.len, piece[from].wild, s, end);
    return s != NULL;
}
