/* The scrub: block by block through the mappings, a share at a time.
 *
 * How far a file has been checked stands in the segment (`scrubbed`), touched by the scrubbing
 * thread alone. Reading goes through the page cache like a search does. A block that cannot be read
 * at all reads as zeros (io/mapping.h), which do not match. */
#include "store/scrub.h"

#include "base/hash.h"

enum err segment_verify_block(const struct segment *s, uint64_t block, struct err_ctx *ctx)
{
    uint64_t sum;
    memcpy(&sum, s->block_sums + block * 8, 8);
    if (hash64(s->map + block * IO_SUM_BLOCK, IO_SUM_BLOCK) == sum)
        return ERR_OK;
    return err_set(ctx, ERR_CORRUPT,
                   "%s: the checksum of the 64 KiB block at offset %llu does not match", s->path,
                   (unsigned long long)block * IO_SUM_BLOCK);
}

static enum err segment_scrub(struct segment *s, uint64_t *blocks, struct err_ctx *ctx)
{
    for (; *blocks && s->scrubbed < s->data_len / IO_SUM_BLOCK; s->scrubbed++, --*blocks)
        RETURN_NOT_OK(segment_verify_block(s, s->scrubbed, ctx));
    return ERR_OK;
}

enum err scrub_snapshot(const struct snapshot *s, uint64_t *blocks, struct err_ctx *ctx)
{
    for (uint32_t i = 0; i < s->nviews && *blocks; i++) {
        if (!s->views[i].segment->tail)
            RETURN_NOT_OK(segment_scrub(s->views[i].segment, blocks, ctx));
    }
    return ERR_OK;
}

enum err segment_verify(const struct segment *s, struct err_ctx *ctx)
{
    for (uint64_t block = 0; !s->tail && block < s->data_len / IO_SUM_BLOCK; block++)
        RETURN_NOT_OK(segment_verify_block(s, block, ctx));
    return ERR_OK;
}
