/* One HTTP request.
 *
 * Invariant: `phase` says who may touch the request. In every phase but WORKING that is the HTTP
 * thread of its connection; in WORKING the connection is suspended, so that the library calls
 * nothing for it until the worker resumes it.
 *
 * Framing that two servers could read differently (a repeated Content-Length, Transfer-Encoding
 * beside Content-Length) is refused and the connection closed.
 *
 * Failure: a sentence for the answer, which answer.c makes. */
#include "api/request.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "api/connection.h"
#include "api/number.h"
#include "api/responses.h"
#include "api/router.h"
#include "base/clock.h"
#include "base/epoch.h"

enum {
    FREE_REQUESTS_MAX = 64,       /* kept per thread */
    KEPT_BYTES_MAX = 256 * 1024,  /* a buffer that grew beyond is given back */
    INLINE_BODY_MAX = 128 * 1024, /* a longer body is parsed on a worker */
    INLINE_COST_US = 2000,
    GATHER_STEP_BYTES = 64 * 1024, /* first reservation of a body of unknown length */
};

/* ---- reuse ---- */

struct free_list {
    struct request *first;
    unsigned n;
};

static pthread_key_t free_list_key;
static pthread_once_t free_list_once = PTHREAD_ONCE_INIT;
static __thread struct free_list free_list;

static void request_destroy(struct request *r)
{
    struct buf *bufs[] = {&r->uri,  &r->body,   &r->out,     &r->queries, &r->refs,
                          &r->hits, &r->counts, &r->columns, &r->headers};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        buf_deinit(bufs[i]);
    json_deinit(&r->json);
    responses_free(r->responses);
    free(r);
}

static void free_list_drop(void *arg)
{
    struct free_list *list = arg;
    while (list->first) {
        struct request *r = list->first;
        list->first = r->next_free;
        request_destroy(r);
    }
}

static void free_list_init(void)
{
    ASSERT(pthread_key_create(&free_list_key, free_list_drop) == 0);
}

static struct request *take_free(void)
{
    struct request *r = free_list.first;
    if (!r)
        return calloc(1, sizeof *r);
    free_list.first = r->next_free;
    free_list.n--;
    return r;
}

static void trim(struct buf *b)
{
    if (b->cap > KEPT_BYTES_MAX)
        buf_deinit(b);
    buf_reset(b);
}

static void reset(struct request *r)
{
    struct buf *bufs[] = {&r->uri,  &r->body,   &r->out,     &r->queries, &r->refs,
                          &r->hits, &r->counts, &r->columns, &r->headers};
    for (size_t i = 0; i < sizeof bufs / sizeof bufs[0]; i++)
        trim(bufs[i]);
    trim(&r->json.name_scratch);
    trim(&r->json.text_scratch);
    r->conn = NULL;
    r->watched = NULL;
    r->route = NULL;
    r->phase = REQUEST_NEW;
    r->head = (struct request_head){.content_length = -1};
    r->target.nsegments = r->target.nparams = 0;
    r->media_in = r->media_out = MEDIA_NONE;
    r->head_only = r->selected = false;
    r->selector.kind = SELECT_NEWEST;
    r->stream = NULL;
    r->streamed = 0;
    r->trusted = r->settled = r->on_worker = r->defer = r->close = r->raw = false;
    r->upload = NULL;
    r->waits_for = NULL;
    r->waited = false;
    r->received = r->waited_us = r->waiting_since_us = r->queued_us = 0;
    r->plan_len = 0;
    r->drained = r->draining_since_us = r->reserved = 0;
    err_clear(&r->err);
    r->status = MHD_HTTP_OK;
    r->content_type = "application/json";
    r->version = -1;
    r->allow[0] = 0;
}

struct request *request_new(struct service *s, const char *uri)
{
    struct request *r = take_free();
    if (!r)
        return NULL;
    reset(r);
    r->service = s;
    r->uri_text = uri;
    r->started_us = clock_mono_us();
    buf_put(&r->uri, uri, strlen(uri) + 1);
    if (r->uri.failed) {
        request_destroy(r);
        return NULL;
    }
    return r;
}

void request_free(struct request *r)
{
    if (r->reserved)
        service_unreserve(r->service, r->reserved);
    r->reserved = 0;
    if (free_list.n == FREE_REQUESTS_MAX) {
        request_destroy(r);
        return;
    }
    pthread_once(&free_list_once, free_list_init);
    pthread_setspecific(free_list_key, &free_list);
    r->next_free = free_list.first;
    free_list.first = r;
    free_list.n++;
}

/* ---- the head ---- */

static int64_t parse_length(const char *value)
{
    int64_t n;
    if (number_parse_int64(value, strlen(value), &n) != NUMBER_OK || n < 0)
        return -1;
    return n;
}

static void note_transfer(struct request_head *h, const char *value)
{
    if (strcasecmp(value, "chunked") == 0)
        h->chunked = true;
    else
        h->other_transfer = true;
}

/* "Transfer-Encoding :" is no header of that name to the library, but is to others. */
static bool is_token(const char *name, size_t len)
{
    static const bool known[256] = {
        ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true, ['!'] = true,
        ['#'] = true,         ['$'] = true,         ['%'] = true,         ['&'] = true,
        ['\''] = true,        ['*'] = true,         ['+'] = true,         ['-'] = true,
        ['.'] = true,         ['^'] = true,         ['_'] = true,         ['`'] = true,
        ['|'] = true,         ['~'] = true,
    };
    bool all = len > 0;
    for (size_t i = 0; i < len; i++)
        all &= known[(unsigned char)name[i]];
    return all;
}

/* Lengths first: they tell most headers apart. */
static inline bool is_named(const char *name, size_t len, const char *known)
{
    return len == strlen(known) && strcasecmp(name, known) == 0;
}

/* A header that a request has once, or none of them counts. */
static void take_once(struct request_head *h, const char **to, const char *name, const char *value)
{
    h->repeated = *to ? name : h->repeated;
    *to = value;
}

static enum MHD_Result note_header(void *arg, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct request_head *h = arg;
    (void)kind;
    size_t len = strlen(name);
    if (!value)
        value = "";
    h->bad_name |= !is_token(name, len);
    if (is_named(name, len, "Content-Length")) {
        h->content_lengths++;
        h->content_length = parse_length(value);
    } else if (is_named(name, len, "Transfer-Encoding")) {
        note_transfer(h, value);
    } else if (is_named(name, len, "Content-Type")) {
        h->content_type = value;
    } else if (is_named(name, len, "Accept")) {
        h->accept = value;
    } else if (is_named(name, len, "Content-Encoding")) {
        h->content_encoding = value;
    } else if (is_named(name, len, "Expect")) {
        h->expect_continue = strcasecmp(value, "100-continue") == 0;
    } else if (is_named(name, len, "Authorization")) {
        h->authorizations++;
        h->authorization = h->authorizations == 1 ? value : "";
    } else if (is_named(name, len, "Idempotency-Key")) {
        take_once(h, &h->idempotency_key, name, value);
    } else if (is_named(name, len, "Content-Digest")) {
        take_once(h, &h->content_digest, name, value);
    } else if (is_named(name, len, "If-Match")) {
        take_once(h, &h->if_match, name, value);
    } else if (is_named(name, len, "If-None-Match")) {
        take_once(h, &h->if_none_match, name, value);
    } else if (is_named(name, len, "If-Range")) {
        take_once(h, &h->if_range, name, value);
    } else if (is_named(name, len, "Range")) {
        take_once(h, &h->range, name, value);
    }
    return MHD_YES;
}

static enum err check_framing(struct request *r, struct err_ctx *ctx)
{
    const struct request_head *h = &r->head;
    const char *what = NULL;
    if (h->bad_name)
        what = "a header's name has spaces or other characters that none may have";
    else if (h->content_lengths > 1)
        what = "Content-Length is given more than once";
    else if (h->content_lengths && (h->chunked || h->other_transfer))
        what = "Content-Length and Transfer-Encoding exclude each other";
    else if (h->content_lengths && h->content_length < 0)
        what = "Content-Length is not a whole number of bytes";
    else if (h->other_transfer)
        what = "the only Transfer-Encoding taken is chunked";
    if (!what)
        return ERR_OK;
    r->close = true;
    return err_set(ctx, ERR_INVALID, "%s", what);
}

/* The library loses a header that is folded over two lines, so that a body can come unannounced:
 * what stands behind a call that usually has one is not taken for a request. */
static void distrust_missing_length(struct request *r, const char *method)
{
    const struct request_head *h = &r->head;
    bool bodyless = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    r->close |= !bodyless && !h->content_lengths && !h->chunked;
}

bool request_has_body(const struct request *r)
{
    return r->head.chunked || r->head.content_length > 0;
}

static enum err check_media_in(struct request *r, struct err_ctx *ctx)
{
    char list[128];
    const struct request_head *h = &r->head;
    if (!r->route->takes) {
        if (request_has_body(r))
            return err_set(ctx, ERR_INVALID, "this call takes no body: leave it out");
        return ERR_OK;
    }
    if (h->content_encoding && strcasecmp(h->content_encoding, "identity") != 0)
        return err_set(ctx, ERR_UNSUPPORTED,
                       "Content-Encoding '%.40s' is not taken: send the body as it is",
                       h->content_encoding);
    r->media_in = media_of(h->content_type);
    if (r->media_in == MEDIA_NONE && !r->route->begin)
        r->media_in = MEDIA_JSON;
    if (r->media_in & r->route->takes)
        return ERR_OK;
    media_list(r->route->takes, list, sizeof list);
    if (!h->content_type)
        return err_set(ctx, ERR_UNSUPPORTED, "the request has no Content-Type; accepted: %s", list);
    bool form = strncasecmp(h->content_type, "application/x-www-form-urlencoded", 33) == 0;
    return err_set(ctx, ERR_UNSUPPORTED, "Content-Type '%.80s' is not taken; accepted: %s%s",
                   h->content_type, list,
                   form ? " (that type is what curl -d sends by itself: use --json, or name the "
                          "type with -H)"
                        : "");
}

static enum err check_media_out(struct request *r, struct err_ctx *ctx)
{
    char list[128];
    if (!r->route->offers)
        return ERR_OK;
    r->media_out = media_accepted(r->head.accept, r->route->offers);
    if (r->media_out != MEDIA_NONE)
        return ERR_OK;
    media_list(r->route->offers, list, sizeof list);
    return err_set(ctx, ERR_NOT_ACCEPTABLE, "Accept '%.80s' can't be met; available: %s",
                   r->head.accept, list);
}

static enum err check_once(const struct request_head *h, struct err_ctx *ctx)
{
    if (!h->repeated)
        return ERR_OK;
    return err_set(ctx, ERR_INVALID, "header %.40s is given more than once", h->repeated);
}

uint64_t request_body_max(const struct request *r)
{
    const struct limits *l = &r->service->limits;
    bool streams = r->route && r->route->begin && r->media_in != MEDIA_JSON;
    return streams ? l->body_bytes_max : l->json_body_bytes_max;
}

enum err request_too_large(const struct request *r, struct err_ctx *ctx)
{
    uint64_t max = request_body_max(r);
    bool streams = max == r->service->limits.body_bytes_max;
    return err_set(ctx, ERR_TOO_LARGE,
                   "the body is larger than %s (%llu bytes): send it in several requests%s",
                   streams ? "body_bytes_max" : "json_body_bytes_max", (unsigned long long)max,
                   streams ? "" : ", or rows as application/x-ndjson");
}

static enum err look_up(struct request *r, const char *method, struct err_ctx *ctx)
{
    RETURN_NOT_OK(target_parse((char *)r->uri.data, &r->target, ctx));
    return router_find(api_routes, &r->target, method, &r->route, r->allow, sizeof r->allow, ctx);
}

/* Who has no token learns nothing, not even that an address does not exist. */
static enum err find_route(struct request *r, const char *method, struct err_ctx *ctx)
{
    const struct access *access = r->service->access;
    struct err_ctx refusal;
    enum err found = look_up(r, method, ctx);
    enum err known = access_check(access, r->head.authorization, SCOPE_READ, &refusal);
    r->trusted = known == ERR_OK;
    if (found == ERR_OK && r->route->scope == SCOPE_NONE)
        return ERR_OK;
    if (known != ERR_OK) {
        err_clear(ctx);
        return err_set(ctx, known, "%s", refusal.detail);
    }
    RETURN_NOT_OK(found);
    return access_check(access, r->head.authorization, r->route->scope, ctx);
}

enum err request_parse_head(struct request *r, const char *method, struct err_ctx *ctx)
{
    MHD_get_connection_values(r->conn, MHD_HEADER_KIND, note_header, &r->head);
    RETURN_NOT_OK(check_framing(r, ctx));
    distrust_missing_length(r, method);
    r->head_only = strcmp(method, "HEAD") == 0;
    RETURN_NOT_OK(find_route(r, method, ctx));
    RETURN_NOT_OK(router_check_params(r->route, &r->target, ctx));
    RETURN_NOT_OK(check_media_in(r, ctx));
    RETURN_NOT_OK(check_media_out(r, ctx));
    RETURN_NOT_OK(check_once(&r->head, ctx));
    if (r->route->takes && r->head.content_length > 0 &&
        (uint64_t)r->head.content_length > request_body_max(r))
        return request_too_large(r, ctx);
    return ERR_OK;
}

/* ---- the body ---- */

static enum err grow_body(struct request *r, size_t n, struct err_ctx *ctx)
{
    size_t before = r->body.cap;
    size_t step = r->body.cap ? n : GATHER_STEP_BYTES;
    if (r->head.content_length > (int64_t)r->body.len)
        step = (size_t)r->head.content_length - r->body.len;
    if (step > INLINE_BODY_MAX && step > r->body.len)
        step = r->body.len > INLINE_BODY_MAX ? r->body.len : INLINE_BODY_MAX;
    if (step < n)
        step = n;
    if (!buf_reserve(&r->body, step))
        return err_no_memory(ctx, r->body.len + step);
    size_t grown = r->body.cap - before;
    RETURN_NOT_OK(service_reserve(r->service, r->reserved, grown, ctx));
    r->reserved += grown;
    return ERR_OK;
}

enum err request_gather(struct request *r, const void *data, size_t n, struct err_ctx *ctx)
{
    if (r->body.len + n > request_body_max(r))
        return request_too_large(r, ctx);
    if (r->body.cap - r->body.len < n)
        RETURN_NOT_OK(grow_body(r, n, ctx));
    buf_put(&r->body, data, n);
    return ERR_OK;
}

bool request_defers(struct request *r, double cost_us)
{
    if (r->on_worker)
        return false;
    r->defer = cost_us > INLINE_COST_US || r->body.len > INLINE_BODY_MAX;
    return r->defer;
}

/* ---- for handlers ---- */

const struct target_segment *request_segment(const struct request *r, unsigned i)
{
    ASSERT(i < r->target.nsegments);
    return &r->target.segments[i];
}

enum err request_collection_name(struct request *r, const char **out, struct err_ctx *ctx)
{
    *out = request_segment(r, 2)->text;
    if (name_valid(*out))
        return ERR_OK;
    return err_set(ctx, ERR_INVALID,
                   "'%.128s' is not a name of a collection: a letter or '_', then letters, digits, "
                   "'_' and '-', at most %d characters",
                   *out, NAME_MAX_BYTES);
}

enum err request_collection(struct request *r, struct collection **out, struct err_ctx *ctx)
{
    const char *name;
    RETURN_NOT_OK(request_collection_name(r, &name, ctx));
    return catalog_find(r->service->catalog, name, out, ctx);
}

enum err request_hold_collection(struct request *r, struct collection **out, struct err_ctx *ctx)
{
    epoch_enter();
    enum err e = request_collection(r, out, ctx);
    if (e == ERR_OK)
        collection_acquire(*out);
    epoch_leave();
    return e;
}

/* An old version, by reference; from files only on a worker. */
static enum err open_selected(struct request *r, struct collection *c, struct snapshot **out,
                              struct err_ctx *ctx)
{
    uint64_t version;
    RETURN_NOT_OK(collection_resolve(c, &r->selector, r->on_worker, &version, ctx));
    RETURN_NOT_OK(collection_open_version(c, version, r->on_worker, out, ctx));
    r->selected = true;
    return ERR_OK;
}

/* Outside of the epoch section, which reading files would keep open. */
static enum err open_waiting(struct request *r, struct snapshot **out, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_hold_collection(r, &c, ctx));
    enum err e = open_selected(r, c, out, ctx);
    collection_release(c);
    return e;
}

/* Inside the epoch section, or with a reference. */
static enum err open_at_hand(struct request *r, struct snapshot **out, struct err_ctx *ctx)
{
    struct collection *c;
    RETURN_NOT_OK(request_collection(r, &c, ctx));
    if (r->selector.kind != SELECT_NEWEST)
        return open_selected(r, c, out, ctx);
    *out = collection_snapshot(c);
    if (r->on_worker)
        snapshot_acquire(*out);
    r->selected = r->on_worker;
    return ERR_OK;
}

enum err request_open_snapshot(struct request *r, struct snapshot **out, struct err_ctx *ctx)
{
    enum err e;
    *out = NULL;
    atomic_store_explicit(&r->service->read_us, r->started_us, memory_order_relaxed);
    if (r->on_worker && r->selector.kind != SELECT_NEWEST) {
        e = open_waiting(r, out, ctx);
    } else {
        epoch_enter();
        e = open_at_hand(r, out, ctx);
        if (e != ERR_OK || r->on_worker)
            epoch_leave();
    }
    if (e == ERR_OK)
        r->version = (int64_t)(*out)->version;
    return e;
}

void request_close_snapshot(struct request *r, struct snapshot *s)
{
    if (!s)
        return;
    if (r->selected)
        snapshot_release(s);
    if (!r->on_worker)
        epoch_leave();
}

enum err request_segment_version(const struct request *r, unsigned i, uint64_t *out,
                                 struct err_ctx *ctx)
{
    const struct target_segment *text = request_segment(r, i);
    int64_t v;
    if (number_parse_int64(text->text, text->len, &v) != NUMBER_OK || v < 0)
        return err_set_at(ctx, ERR_INVALID, -1, "version",
                          "'%.40s' is not the number of a version: they count from 1", text->text);
    *out = (uint64_t)v;
    return ERR_OK;
}

enum err request_param_int(struct request *r, const char *name, int64_t *v, struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, name);
    if (text && number_parse_int64(text->text, text->len, v) != NUMBER_OK)
        return err_set_at(ctx, ERR_INVALID, -1, name, "%s=%.40s is not a 64-bit whole number", name,
                          text->text);
    return ERR_OK;
}

enum err request_param_uint(struct request *r, const char *name, uint64_t min, uint64_t max,
                            uint64_t *v, struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, name);
    int64_t value;
    if (!text)
        return ERR_OK;
    if (number_parse_int64(text->text, text->len, &value) != NUMBER_OK || value < 0 ||
        (uint64_t)value < min || (uint64_t)value > max)
        return err_set_at(ctx, ERR_INVALID, -1, name,
                          "%s=%.40s is not a whole number from %llu to %llu", name, text->text,
                          (unsigned long long)min, (unsigned long long)max);
    *v = (uint64_t)value;
    return ERR_OK;
}

enum err request_param_bool(struct request *r, const char *name, bool *v, struct err_ctx *ctx)
{
    const struct target_segment *text = target_param(&r->target, name);
    if (!text)
        return ERR_OK;
    *v = strcmp(text->text, "true") == 0;
    if (*v || strcmp(text->text, "false") == 0)
        return ERR_OK;
    return err_set_at(ctx, ERR_INVALID, -1, name, "%s=%.40s: write true or false", name,
                      text->text);
}

struct buf *request_begin_header(struct request *r, const char *name)
{
    buf_put(&r->headers, name, strlen(name) + 1);
    return &r->headers;
}

void request_end_header(struct request *r)
{
    buf_put_u8(&r->headers, 0);
}

void request_add_header(struct request *r, const char *name, const char *fmt, ...)
{
    char value[512];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    ASSERT(n >= 0 && (size_t)n < sizeof value);
    buf_put(request_begin_header(r, name), value, (size_t)n);
    request_end_header(r);
}

enum err request_check_out(const struct request *r, struct err_ctx *ctx)
{
    uint64_t max = r->service->limits.result_bytes_max;
    if (r->out.failed)
        return err_no_memory(ctx, r->out.len);
    if (r->out.len > max)
        return err_set(ctx, ERR_TOO_LARGE,
                       "the result is larger than result_bytes_max (%llu bytes): ask for fewer "
                       "queries, keys, rows or features at a time",
                       (unsigned long long)max);
    return ERR_OK;
}

enum err request_unknown_field(struct json_slice name, const char *what, const char *known,
                               struct err_ctx *ctx)
{
    char field[NAME_MAX_BYTES + 1];
    snprintf(field, sizeof field, "%.*s",
             name.len > NAME_MAX_BYTES ? NAME_MAX_BYTES : (int)name.len, name.data);
    return err_set_at(ctx, ERR_INVALID, -1, field, "unknown field '%s' in %s; known: %s", field,
                      what, known);
}
