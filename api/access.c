/* Bearer tokens (RFC 6750, section 2.1): read, kept, compared.
 *
 * Invariant: a set of tokens never changes once it is published. A reload publishes another; the
 * sets before it are kept until the end, since an HTTP thread may be reading one and rotations are
 * rare.
 *
 * A token is compared over its whole slot, padded with zeros, against every known one: the time
 * tells nothing about where they differ.
 *
 * Threads: checks from any; one reload at a time. Failure: a reload that fails leaves the tokens in
 * force. */
#include "api/access.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/log.h"

enum { TOKEN_MIN = 16, TOKEN_MAX = 256, TOKENS_MAX = 4, SCOPES = 2 };

static const char *const scope_names[SCOPES] = {[SCOPE_WRITE] = "write", [SCOPE_READ] = "read"};

struct tokens {
    struct tokens *before;
    unsigned n[SCOPES];
    char token[SCOPES][TOKENS_MAX][TOKEN_MAX]; /* padded with zeros */
};

struct access {
    struct access_options options;
    struct tokens *_Atomic tokens;
};

static bool same(const char a[TOKEN_MAX], const char b[TOKEN_MAX])
{
    unsigned char differs = 0;
    for (size_t i = 0; i < TOKEN_MAX; i++)
        differs |= (unsigned char)(a[i] ^ b[i]);
    return differs == 0;
}

static bool holds(const struct tokens *t, enum scope scope, const char token[TOKEN_MAX])
{
    bool found = false;
    for (unsigned i = 0; i < t->n[scope]; i++)
        found |= same(t->token[scope][i], token);
    return found;
}

/* ---- reading ---- */

static enum err add(struct tokens *t, enum scope scope, const char *token, const char *where,
                    struct err_ctx *ctx)
{
    static const char characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                     "0123456789-._~+/=";
    size_t n = strlen(token);
    if (n < TOKEN_MIN || n > TOKEN_MAX)
        return err_set(ctx, ERR_INVALID,
                       "%s: a token has %d to %d characters, this one has %zu: make one with "
                       "openssl rand -hex 32",
                       where, TOKEN_MIN, TOKEN_MAX, n);
    if (strspn(token, characters) != n)
        return err_set(ctx, ERR_INVALID,
                       "%s: a token consists of letters, digits and - . _ ~ + / =: make one with "
                       "openssl rand -hex 32",
                       where);
    if (t->n[scope] == TOKENS_MAX)
        return err_set(ctx, ERR_INVALID, "%s: more than %d tokens: take the old ones out", where,
                       TOKENS_MAX);
    memcpy(t->token[scope][t->n[scope]++], token, n);
    return ERR_OK;
}

static enum err read_lines(struct tokens *t, enum scope scope, FILE *f, const char *path,
                           struct err_ctx *ctx)
{
    char line[TOKEN_MAX * 2];
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\r\n")] = 0;
        if (*line)
            RETURN_NOT_OK(add(t, scope, line, path, ctx));
    }
    explicit_bzero(line, sizeof line);
    if (ferror(f))
        return err_system(ctx, errno, "reading the token file %s", path);
    if (t->n[scope] == 0)
        return err_set(ctx, ERR_INVALID, "the token file %s is empty: put a token in, one line",
                       path);
    return ERR_OK;
}

static void warn_if_open(FILE *f, const char *path)
{
    struct stat s;
    if (fstat(fileno(f), &s) == 0 && (s.st_mode & S_IROTH))
        log_warn("the token file %s can be read by every user of this machine: chmod o-r it", path);
}

static enum err read_file(struct tokens *t, enum scope scope, const char *path, struct err_ctx *ctx)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_system(ctx, errno, "opening the token file %s", path);
    warn_if_open(f, path);
    enum err e = read_lines(t, scope, f, path, ctx);
    fclose(f);
    return e;
}

static enum err read_scope(struct tokens *t, enum scope scope, const char *token, const char *path,
                           struct err_ctx *ctx)
{
    char where[32];
    const char *name = scope_names[scope];
    if (token && path)
        return err_set(ctx, ERR_INVALID,
                       "%s_token_file and the %s token in the environment exclude each other: "
                       "keep one",
                       name, name);
    if (path)
        return read_file(t, scope, path, ctx);
    snprintf(where, sizeof where, "the %s token", name);
    return token ? add(t, scope, token, where, ctx) : ERR_OK;
}

static enum err check_together(const struct tokens *t, struct err_ctx *ctx)
{
    if (t->n[SCOPE_READ] && !t->n[SCOPE_WRITE])
        return err_set(ctx, ERR_INVALID,
                       "with a read token alone nobody could write: give write_token_file too");
    for (unsigned i = 0; i < t->n[SCOPE_READ]; i++)
        if (holds(t, SCOPE_WRITE, t->token[SCOPE_READ][i]))
            return err_set(ctx, ERR_INVALID,
                           "a read token is a write token too: make another one for reading");
    return ERR_OK;
}

static void forget(struct tokens *t)
{
    explicit_bzero(t, sizeof *t);
    free(t);
}

enum err access_reload(struct access *a, struct err_ctx *ctx)
{
    const struct access_options *o = &a->options;
    struct tokens *t = calloc(1, sizeof *t);
    if (!t)
        return err_no_memory(ctx, sizeof *t);
    enum err e = read_scope(t, SCOPE_READ, o->read_token, o->read_token_file, ctx);
    if (e == ERR_OK)
        e = read_scope(t, SCOPE_WRITE, o->write_token, o->write_token_file, ctx);
    if (e == ERR_OK)
        e = check_together(t, ctx);
    if (e != ERR_OK) {
        forget(t);
        return e;
    }
    t->before = atomic_load(&a->tokens);
    atomic_store(&a->tokens, t);
    return ERR_OK;
}

enum err access_new(const struct access_options *o, struct access **out, struct err_ctx *ctx)
{
    struct access *a = calloc(1, sizeof *a);
    if (!a)
        return err_no_memory(ctx, sizeof *a);
    a->options = *o;
    enum err e = access_reload(a, ctx);
    if (e != ERR_OK) {
        access_free(a);
        return e;
    }
    *out = a;
    return ERR_OK;
}

void access_free(struct access *a)
{
    if (!a)
        return;
    for (struct tokens *t = atomic_load(&a->tokens), *before; t; t = before) {
        before = t->before;
        forget(t);
    }
    free(a);
}

bool access_has_tokens(const struct access *a)
{
    return atomic_load(&a->tokens)->n[SCOPE_WRITE] > 0;
}

/* ---- checking ---- */

/* The token of "Bearer TOKEN", padded; false when there is none that could be one. */
static bool take_token(const char *authorization, char out[TOKEN_MAX])
{
    static const char scheme[] = "Bearer ";
    memset(out, 0, TOKEN_MAX);
    if (!authorization || strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return false;
    const char *token = authorization + sizeof scheme - 1;
    token += strspn(token, " ");
    size_t n = strlen(token);
    if (n < TOKEN_MIN || n > TOKEN_MAX)
        return false;
    mempcpy(out, token, n);
    return true;
}

enum err access_check(const struct access *a, const char *authorization, enum scope wanted,
                      struct err_ctx *ctx)
{
    const struct tokens *t = atomic_load_explicit(&a->tokens, memory_order_acquire);
    char token[TOKEN_MAX];
    if (wanted == SCOPE_NONE || t->n[SCOPE_WRITE] == 0)
        return ERR_OK;
    bool given = take_token(authorization, token);
    bool writes = given && holds(t, SCOPE_WRITE, token);
    bool reads = given && holds(t, SCOPE_READ, token);
    if (writes || (reads && wanted == SCOPE_READ))
        return ERR_OK;
    if (reads)
        return err_set(ctx, ERR_FORBIDDEN,
                       "this token may read only: use the write token for this call");
    if (!authorization)
        return err_set(ctx, ERR_UNAUTHORIZED,
                       "this server asks for a token: send the header Authorization: Bearer TOKEN");
    return err_set(ctx, ERR_UNAUTHORIZED,
                   "the Authorization header holds no valid token: send Bearer and a token that "
                   "this server knows");
}
