/* Old versions are read, listed, tagged and pinned while commits, sealings, alterations and
 * compactions go on: each reader finds version v with its v rows. */
#include "history_rig.h"

#include <pthread.h>

enum { COMMITS = 400, READERS = 3 };

static struct shared {
    struct rig *r;
    atomic_bool done;
    atomic_uint reads;
    char error[1200]; /* of the first that found something wrong */
    atomic_flag said;
} shared;

static void complain(const char *what, uint64_t version, const struct err_ctx *ctx)
{
    if (!atomic_flag_test_and_set(&shared.said))
        snprintf(shared.error, sizeof shared.error, "%s, version %llu: %s", what,
                 (unsigned long long)version, ctx->detail);
    atomic_store(&shared.done, true);
}

/* Version v holds the keys 0 .. v - 1. */
static bool holds_its_rows(const struct snapshot *s)
{
    struct row_ref ref;
    uint64_t live = 0;
    for (uint32_t i = 0; i < s->nviews; i++)
        live += s->views[i].live;
    return s->rows == s->version && live == s->version &&
           (s->version == 0 || snapshot_find_int(s, (int64_t)s->version - 1, &ref)) &&
           !snapshot_find_int(s, (int64_t)s->version, &ref);
}

static uint64_t newest(struct collection *c)
{
    epoch_enter();
    uint64_t v = collection_snapshot(c)->version;
    epoch_leave();
    return v;
}

static bool contiguous(void *arg, const struct version_info *info)
{
    uint64_t *before = arg;
    bool ok = *before == 0 || info->version < *before;
    *before = info->version;
    return ok && info->live_rows == info->version;
}

static void *read_versions(void *arg)
{
    struct collection *c = shared.r->c;
    unsigned seed = (unsigned)(uintptr_t)arg;
    while (!atomic_load(&shared.done)) {
        struct err_ctx ctx;
        struct snapshot *s;
        uint64_t v = (uint64_t)rand_r(&seed) % (newest(c) + 1), before = 0;
        err_clear(&ctx);
        if (collection_pin(c, v, &ctx) != ERR_OK) {
            complain("no memory for a pin", v, &ctx);
            return NULL;
        }
        enum err e = collection_open_version(c, v, true, &s, &ctx);
        if (e == ERR_OK && !holds_its_rows(s))
            complain("rows are missing", v, &ctx);
        if (e != ERR_OK)
            complain("cannot be opened", v, &ctx);
        if (e == ERR_OK)
            snapshot_release(s);
        collection_unpin(c, v);
        atomic_fetch_add(&shared.reads, 1);
        if (v % 8 == 0 && collection_versions(c, 0, 50, contiguous, &before, &ctx) != ERR_OK)
            complain("cannot be listed", v, &ctx);
    }
    return NULL;
}

static void *set_tags(void *arg)
{
    (void)arg;
    struct collection *c = shared.r->c;
    while (!atomic_load(&shared.done)) {
        struct err_ctx ctx;
        bool created;
        uint64_t tagged, v = newest(c);
        err_clear(&ctx);
        if (collection_tag_set(c, "moving", v, &created, &ctx) != ERR_OK)
            complain("cannot be tagged", v, &ctx);
        if (collection_tag_get(c, "moving", &tagged, &ctx) != ERR_OK)
            complain("lost its tag", v, &ctx);
        usleep(500);
    }
    return NULL;
}

static void commit_all(struct rig *r)
{
    for (int i = 0; i < COMMITS && !atomic_load(&shared.done); i++) {
        load_range(&r->f, r->c, LOAD_UPSERT, i, i + 1, 0);
        if (i % 40 == 20)
            OK_RIG(collection_checkpoint(r->c, &r->f.ctx));
        if (i % 90 == 80)
            rig_compact(r);
        if (i % 150 == 149)
            OK_RIG(try_alter(r->c, i < 200 ? "one" : "two", FEATURE_INT64, &r->f.ctx));
    }
}

static void readers_find_every_version_whole(void **state)
{
    (void)state;
    struct rig rg, *r = &rg;
    pthread_t threads[READERS + 1];
    rig_new(r, IO_AUTO, KEY_INT64);
    memset(&shared, 0, sizeof shared);
    shared.r = r;
    for (int i = 0; i < READERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, read_versions, (void *)(uintptr_t)(i + 1)), 0);
    assert_int_equal(pthread_create(&threads[READERS], NULL, set_tags, NULL), 0);
    commit_all(r);
    atomic_store(&shared.done, true);
    for (int i = 0; i < READERS + 1; i++)
        pthread_join(threads[i], NULL);
    if (shared.error[0])
        fail_msg("%s", shared.error);
    printf("%u reads\n", atomic_load(&shared.reads));
    assert_int_equal(newest(r->c), COMMITS);
    OK_RIG(history_verify(r->c, &r->f.ctx));
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readers_find_every_version_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
