/* Content-Digest, checked while a body streams.
 *
 *   Content-Digest: sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:, sha-512=:..:
 *
 * Both algorithms may be given; both must then be right. The hashes are nettle's, which uses the
 * CPU's SHA instructions where there are any.
 *
 * Threads: one. Failure: the body changes nothing. */
#include "api/content_digest.h"

#include <nettle/sha2.h>
#include <stdlib.h>

#include "api/base64.h"

struct algorithm {
    bool given;
    uint8_t wanted[SHA512_DIGEST_SIZE];
};

struct content_digest {
    struct algorithm sha256, sha512;
    struct sha256_ctx state256;
    struct sha512_ctx state512;
};

static enum err bad_syntax(const char *header, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_INVALID,
                   "Content-Digest '%.100s' does not parse: write sha-256=:BASE64: or "
                   "sha-512=:BASE64: (RFC 9530)",
                   header);
}

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

static enum err read_value(struct algorithm *a, const char *text, size_t n, size_t size,
                           const char *header, struct err_ctx *ctx)
{
    struct buf bytes = {0};
    bool ok = base64_decode(&bytes, text, n) && bytes.len == size && !a->given;
    if (ok)
        memcpy(a->wanted, bytes.data, size);
    a->given = true;
    bool failed = bytes.failed;
    buf_deinit(&bytes);
    return failed ? err_no_memory(ctx, n) : ok ? ERR_OK : bad_syntax(header, ctx);
}

/* One member, "name=:base64:" with parameters behind it that nobody uses; *p moves behind it. */
static enum err read_member(struct content_digest *d, const char **p, const char *header,
                            struct err_ctx *ctx)
{
    const char *name = *p;
    size_t name_len = strcspn(name, "=,; \t");
    const char *value = name + name_len;
    if (name_len == 0 || value[0] != '=' || value[1] != ':')
        return bad_syntax(header, ctx);
    value += 2;
    size_t n = strcspn(value, ":");
    if (!value[n])
        return bad_syntax(header, ctx);
    *p = value + n + 1;
    *p += strcspn(*p, ",");
    if (name_len == 7 && memcmp(name, "sha-256", 7) == 0)
        return read_value(&d->sha256, value, n, SHA256_DIGEST_SIZE, header, ctx);
    if (name_len == 7 && memcmp(name, "sha-512", 7) == 0)
        return read_value(&d->sha512, value, n, SHA512_DIGEST_SIZE, header, ctx);
    return ERR_OK;
}

static enum err read_header(struct content_digest *d, const char *header, struct err_ctx *ctx)
{
    const char *p = skip_blanks(header);
    for (;;) {
        RETURN_NOT_OK(read_member(d, &p, header, ctx));
        if (!*p)
            break;
        p = skip_blanks(p + 1);
    }
    if (d->sha256.given || d->sha512.given)
        return ERR_OK;
    return err_set(ctx, ERR_INVALID,
                   "Content-Digest '%.100s' holds neither sha-256 nor sha-512: only those are "
                   "checked",
                   header);
}

enum err content_digest_new(const char *header, struct content_digest **out, struct err_ctx *ctx)
{
    *out = NULL;
    if (!header)
        return ERR_OK;
    struct content_digest *d = calloc(1, sizeof *d);
    if (!d)
        return err_no_memory(ctx, sizeof *d);
    enum err e = read_header(d, header, ctx);
    if (e != ERR_OK) {
        free(d);
        return e;
    }
    sha256_init(&d->state256);
    sha512_init(&d->state512);
    *out = d;
    return ERR_OK;
}

void content_digest_put(struct content_digest *d, const void *data, size_t n)
{
    if (d && d->sha256.given)
        sha256_update(&d->state256, n, data);
    if (d && d->sha512.given)
        sha512_update(&d->state512, n, data);
}

static enum err mismatch(const char *name, struct err_ctx *ctx)
{
    return err_set(ctx, ERR_UNPROCESSABLE,
                   "the body's %s is not the one that Content-Digest says: it was damaged on its "
                   "way, send it again; nothing was changed",
                   name);
}

enum err content_digest_check(struct content_digest *d, struct err_ctx *ctx)
{
    uint8_t got[SHA512_DIGEST_SIZE];
    if (d && d->sha256.given) {
        sha256_digest(&d->state256, SHA256_DIGEST_SIZE, got);
        if (memcmp(got, d->sha256.wanted, SHA256_DIGEST_SIZE) != 0)
            return mismatch("SHA-256", ctx);
    }
    if (d && d->sha512.given) {
        sha512_digest(&d->state512, SHA512_DIGEST_SIZE, got);
        if (memcmp(got, d->sha512.wanted, SHA512_DIGEST_SIZE) != 0)
            return mismatch("SHA-512", ctx);
    }
    return ERR_OK;
}

void content_digest_free(struct content_digest *d)
{
    free(d);
}
