/* Which features an answer shows, and rows written as JSON.
 *
 * Names of features need no escaping: they are letters, digits, '_' and '-'.
 *
 * Threads: no state. Failure: memory running out shows in the buffer. */
#include "api/columns.h"

#include <stdio.h>

#include "api/json_writer.h"

static bool has(const struct buf *list, uint32_t feature)
{
    for (size_t i = 0; i < columns_count(list); i++)
        if (columns_get(list, i) == feature)
            return true;
    return false;
}

static enum err add(struct buf *list, const struct schema *s, const char *name, size_t len,
                    struct err_ctx *ctx)
{
    int found = schema_find(s, name, len);
    if (found < 0) {
        char text[NAME_MAX_BYTES + 1];
        snprintf(text, sizeof text, "%.*s", len > NAME_MAX_BYTES ? NAME_MAX_BYTES : (int)len, name);
        return err_set_at(ctx, ERR_UNPROCESSABLE, -1, text, "the collection has no feature '%s'",
                          text);
    }
    if (!has(list, (uint32_t)found))
        buf_put_u32(list, (uint32_t)found);
    return list->failed ? err_no_memory(ctx, list->len) : ERR_OK;
}

enum err columns_read_json(struct json_reader *json, const struct schema *s, struct buf *list,
                           struct err_ctx *ctx)
{
    struct json_slice name;
    enum json_type type;
    bool more;
    RETURN_NOT_OK(json_peek(json, &type, ctx));
    if (type == JSON_NULL)
        return json_null(json, ctx);
    RETURN_NOT_OK(json_array(json, ctx));
    for (;;) {
        RETURN_NOT_OK(json_next_item(json, &more, ctx));
        if (!more)
            return ERR_OK;
        RETURN_NOT_OK(json_string(json, &name, ctx));
        RETURN_NOT_OK(add(list, s, name.data, name.len, ctx));
    }
}

enum err columns_read_text(const char *text, const struct schema *s, struct buf *list,
                           struct err_ctx *ctx)
{
    while (*text) {
        size_t n = strcspn(text, ",");
        RETURN_NOT_OK(add(list, s, text, n, ctx));
        text += n + (text[n] == ',');
    }
    return ERR_OK;
}

enum err columns_all(const struct schema *s, struct buf *list, struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < s->nfeatures; i++)
        buf_put_u32(list, i);
    return list->failed ? err_no_memory(ctx, list->len) : ERR_OK;
}

enum err columns_of_query(const struct target *t, const struct schema *s, struct buf *list,
                          struct err_ctx *ctx)
{
    const struct target_segment *names = target_param(t, "features");
    return names ? columns_read_text(names->text, s, list, ctx) : columns_all(s, list, ctx);
}

double columns_cost_us(const struct schema *s, const struct buf *list, bool with_vectors,
                       size_t rows)
{
    double row_us = 0.2 + 0.06 * (double)columns_count(list);
    if (with_vectors)
        row_us += 0.05 * s->dim;
    return row_us * (double)rows;
}

void columns_put_name(struct buf *out, const struct schema *s, uint32_t feature)
{
    const char *name = s->features[feature].name;
    size_t n = strlen(name);
    if (!buf_reserve(out, n + 3))
        return;
    uint8_t *to = out->data + out->len;
    to[0] = '"';
    uint8_t *end = mempcpy(to + 1, name, n);
    end[0] = '"';
    end[1] = ':';
    out->len += n + 3;
}

void row_put_key(struct buf *out, const struct snapshot *s, struct row_ref ref)
{
    const struct segment *g = s->views[ref.view].segment;
    size_t len;
    if (s->schema->key == KEY_INT64) {
        json_put_int(out, segment_key_int(g, ref.row));
        return;
    }
    const char *key = segment_key_str(g, ref.row, &len);
    json_put_string(out, key, len);
}

void row_put_cell(struct buf *out, const struct snapshot *s, struct row_ref ref, uint32_t feature)
{
    size_t len = 0;
    const void *data = segment_cell(s->views[ref.view].segment, ref.row, feature, &len);
    json_put_cell(out, s->schema->features[feature].type, data, len);
}

void row_put_features(struct buf *out, const struct snapshot *s, struct row_ref ref,
                      const struct buf *list)
{
    buf_put_u8(out, '{');
    for (size_t i = 0; i < columns_count(list); i++) {
        if (i)
            buf_put_u8(out, ',');
        columns_put_name(out, s->schema, columns_get(list, i));
        row_put_cell(out, s, ref, columns_get(list, i));
    }
    buf_put_u8(out, '}');
}

void row_put_vector(struct buf *out, const struct snapshot *s, struct row_ref ref)
{
    const float *v = segment_vector(s->views[ref.view].segment, ref.row);
    if (v)
        json_put_floats(out, v, s->schema->dim);
    else
        json_put_raw(out, "null");
}
