/* The words of a filter.
 *
 *   price<=5 and "a-b" in ('x', 'it''s')
 *   WORD  COMPARE  NUMBER  WORD  NAME  WORD  OPEN  STRING  COMMA  STRING  CLOSE
 *
 * The text is UTF-8 (filter_parse has checked) and may hold anything inside quotes but NUL. A token
 * borrows from it.
 *
 * Threads: none; one parser. Failure: a sentence with the character where it happened. */
#include "store/filter_internal.h"

#include <stdio.h>
#include <strings.h>

static const char *const reserved[] = {"and",    "or", "not",  "in",   "between", "like",
                                       "escape", "is", "null", "true", "false",   "contains"};

bool token_is(const struct token *t, const char *word)
{
    return t->kind == TOKEN_WORD && strlen(word) == t->len &&
           strncasecmp(t->text, word, t->len) == 0;
}

bool word_reserved(const char *word, size_t n)
{
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        if (strlen(reserved[i]) == n && strncasecmp(reserved[i], word, n) == 0)
            return true;
    }
    return false;
}

unsigned token_place(const struct parser *p, const struct token *t)
{
    unsigned n = 1;
    for (const char *c = p->start; c < t->text; c++)
        n += ((uint8_t)*c & 0xc0) != 0x80;
    return n;
}

enum err lex_expected(struct parser *p, const char *what)
{
    const struct token *t = &p->token;
    if (t->kind == TOKEN_END)
        return err_set(p->ctx, ERR_INVALID, "filter: expected %s, but the filter ends there", what);
    return err_set(p->ctx, ERR_INVALID, "filter: expected %s at character %u, not %.*s", what,
                   token_place(p, t), t->len > 60 ? 60 : (int)t->len, t->text);
}

/* ---- reading ---- */

static bool word_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_')
        return true;
    return !first && c >= '0' && c <= '9';
}

static bool digit(const char *c, const char *end)
{
    return c < end && *c >= '0' && *c <= '9';
}

static enum err bad_character(struct parser *p, const char *at, const char *what)
{
    const struct token t = {.text = at};
    return err_set(p->ctx, ERR_INVALID, "filter: %s at character %u", what, token_place(p, &t));
}

/* From the opening quote to behind the closing one. */
static enum err lex_quoted(struct parser *p, const char *quote, enum token_kind kind)
{
    const char *c = quote + 1;
    while ((c = memchr(c, *quote, (size_t)(p->end - c))) && c + 1 < p->end && c[1] == *quote)
        c += 2;
    if (!c)
        return bad_character(p, quote,
                             *quote == '"'
                                 ? "the name that begins is not closed by \""
                                 : "the string that begins is not closed by ' (write a quote "
                                   "inside as '')");
    p->token.kind = kind;
    p->token.len = (size_t)(c + 1 - p->token.text);
    return ERR_OK;
}

static const char *skip_digits(const char *c, const char *end)
{
    while (digit(c, end))
        c++;
    return c;
}

/* [-+] digits [. digits] [e [-+] digits], or . digits */
static enum err lex_number(struct parser *p)
{
    const char *c = p->p + (*p->p == '-' || *p->p == '+');
    const char *whole = c;
    c = skip_digits(c, p->end);
    bool some = c > whole;
    if (c < p->end && *c == '.') {
        const char *from = ++c;
        c = skip_digits(c, p->end);
        some |= c > from;
    }
    if (!some)
        return bad_character(
            p, p->p, "there is no arithmetic in filters, and no number right behind the sign");
    if (c < p->end && (*c == 'e' || *c == 'E')) {
        c += 1 + (c + 1 < p->end && (c[1] == '-' || c[1] == '+'));
        if (!digit(c, p->end))
            return bad_character(p, p->p, "the exponent has no digits in the number");
        c = skip_digits(c, p->end);
    }
    if (c < p->end && (word_char(*c, false) || *c == '.'))
        return bad_character(p, c, "a number goes on with something that is no digit");
    p->token.kind = TOKEN_NUMBER;
    p->token.len = (size_t)(c - p->token.text);
    return ERR_OK;
}

static void take(struct parser *p, enum token_kind kind, size_t len, uint8_t verdicts)
{
    p->token.kind = kind;
    p->token.len = len;
    p->token.verdicts = verdicts;
}

/* The character behind, or NUL. */
static char behind(const struct parser *p)
{
    return p->p + 1 < p->end ? p->p[1] : '\0';
}

static enum err lex_sign(struct parser *p)
{
    char c = *p->p, next = behind(p);
    if (c == '(')
        take(p, TOKEN_OPEN, 1, 0);
    else if (c == ')')
        take(p, TOKEN_CLOSE, 1, 0);
    else if (c == ',')
        take(p, TOKEN_COMMA, 1, 0);
    else if (c == '=')
        take(p, TOKEN_COMPARE, next == '=' ? 2 : 1, EQUAL);
    else if ((c == '!' && next == '=') || (c == '<' && next == '>'))
        take(p, TOKEN_COMPARE, 2, LESS | GREATER | UNORDERED);
    else if (c == '<')
        take(p, TOKEN_COMPARE, next == '=' ? 2 : 1, next == '=' ? LESS | EQUAL : LESS);
    else if (c == '>')
        take(p, TOKEN_COMPARE, next == '=' ? 2 : 1, next == '=' ? GREATER | EQUAL : GREATER);
    else if (c == '*' || c == '/' || c == '%')
        return bad_character(p, p->p, "there is no arithmetic in filters; found it");
    else if (c == '&' || c == '|' || c == '!')
        return bad_character(p, p->p, "write and, or, not in words; found a sign instead");
    else
        return bad_character(p, p->p, "there is something that no filter can have");
    return ERR_OK;
}

static enum err lex_word(struct parser *p)
{
    const char *c = p->p;
    while (c < p->end && word_char(*c, false))
        c++;
    if (c < p->end && *c == '-')
        return bad_character(p, c,
                             "there is no arithmetic in filters, and a name with '-' must stand in "
                             "double quotes; found '-'");
    take(p, TOKEN_WORD, (size_t)(c - p->p), 0);
    return ERR_OK;
}

enum err lex_next(struct parser *p)
{
    while (p->p < p->end && (*p->p == ' ' || (*p->p >= '\t' && *p->p <= '\r')))
        p->p++;
    p->token = (struct token){.kind = TOKEN_END, .text = p->p};
    if (p->p == p->end)
        return ERR_OK;
    char c = *p->p, next = behind(p);
    enum err e;
    if (c == '\'')
        e = lex_quoted(p, p->p, TOKEN_STRING);
    else if (c == '"')
        e = lex_quoted(p, p->p, TOKEN_NAME);
    else if ((c == 'x' || c == 'X') && next == '\'')
        e = lex_quoted(p, p->p + 1, TOKEN_BYTES);
    else if (word_char(c, true))
        e = lex_word(p);
    else if ((c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.')
        e = lex_number(p);
    else
        e = lex_sign(p);
    p->p += p->token.len;
    return e;
}

enum err token_unquote(struct parser *p, const struct token *t, struct filter_slice *out)
{
    struct buf *b = &p->f->bytes;
    char quote = t->text[t->len - 1];
    out->at = (uint32_t)b->len;
    for (const char *c = t->text + (t->kind == TOKEN_BYTES ? 2 : 1); c < t->text + t->len - 1;
         c++) {
        buf_put_u8(b, (uint8_t)*c);
        c += *c == quote; /* the second of a pair */
    }
    out->len = (uint32_t)b->len - out->at;
    return b->failed ? err_no_memory(p->ctx, b->len) : ERR_OK;
}
