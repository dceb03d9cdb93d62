/* Logs and checkpoints, opened as a start does, by a file backend that changes nothing.
 *
 *   op 0  a record, into the group at hand        op 3  ends the log file; the next one follows
 *   op 1  ends the group                          op 4  the body of a checkpoint for this file
 *   op 2  bytes as they are, where a group goes
 *
 * Beside the log lies one segment, number 2, with SEGMENT_ROWS rows, for records to refer to. */
#include "fuzz.h"

#include <sys/stat.h>

#include "base/epoch.h"
#include "log_seed.h"
#include "store/collection_internal.h"
#include "store/wal_format.h"

enum { FILES_MAX = 4, KEYS_READ_MAX = 200, VERSIONS_READ_MAX = 6 };

struct writing {
    unsigned number;
    uint64_t group;
    struct buf file, pending;
    uint32_t records;
    unsigned checkpoints; /* bit per number */
};

static char dir[300];
static struct io *io;

static void file_path(unsigned number, const char *suffix, char out[400])
{
    snprintf(out, 400, "%s/log/%016x.%s", dir, number, suffix);
}

static void remove_all(void)
{
    char command[400];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    (void)!system(command);
}

static void set_up(void)
{
    static const char *const folders[] = {"log", "segments", "index", "staging"};
    struct stat st;
    char path[400];
    fuzz_quiet();
    snprintf(dir, sizeof dir, "%s/fuzzlogXXXXXX", stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp");
    ASSERT(mkdtemp(dir));
    atexit(remove_all);
    for (size_t i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, folders[i]);
        ASSERT(mkdir(path, 0700) == 0);
    }
    snprintf(path, sizeof path, "%s/segments/%016x.seg", dir, SEGMENT_ID);
    write_seed_segment(path);
    ASSERT(io_new_readonly(NULL, NULL, &io, NULL) == ERR_OK);
}

/* ---- writing ---- */

static void start_file(struct writing *w)
{
    struct wal_header h = {
        .magic = WAL_MAGIC, .format_version = 1, .number = w->number, .first_group = w->group};
    memcpy(h.collection_id, FUZZ_ID, sizeof h.collection_id);
    h.crc = crc32c(0, &h, offsetof(struct wal_header, crc));
    buf_reset(&w->file);
    buf_put(&w->file, &h, sizeof h);
    buf_put_zeros(&w->file, WAL_HEADER_BYTES - sizeof h);
}

static void end_group(struct writing *w)
{
    struct wal_group h = {.magic = WAL_GROUP_MAGIC,
                          .group = w->group++,
                          .payload = (uint32_t)w->pending.len,
                          .records = w->records,
                          .payload_crc = crc32c(0, w->pending.data, w->pending.len)};
    memcpy(h.collection_id, FUZZ_ID, sizeof h.collection_id);
    h.crc = crc32c(0, &h, offsetof(struct wal_group, crc));
    buf_put(&w->file, &h, sizeof h);
    buf_put(&w->file, w->pending.data, w->pending.len);
    buf_align(&w->file, WAL_GROUP_ALIGN);
    buf_reset(&w->pending);
    w->records = 0;
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    ASSERT(f && fwrite(data, 1, n, f) == n && fclose(f) == 0);
}

static void end_file(struct writing *w)
{
    char path[400];
    if (w->records)
        end_group(w);
    file_path(w->number, "log", path);
    write_file(path, w->file.data, w->file.len);
}

static void put_checkpoint(struct writing *w, const struct fuzz_piece *p)
{
    char path[400];
    struct buf out = {0};
    buf_put(&out, "LSTNCKP\x1a", 8);
    buf_put_u32(&out, 2);
    buf_put(&out, FUZZ_ID, 16);
    buf_put_u64(&out, p->len);
    buf_put_u32(&out, crc32c(0, p->data, p->len));
    buf_put(&out, p->data, p->len);
    file_path(w->number, "ckpt", path);
    write_file(path, out.data, out.len);
    buf_deinit(&out);
    w->checkpoints |= 1u << w->number;
}

static void put(struct writing *w, const struct fuzz_piece *p)
{
    switch (p->op % 5) {
    case 0:
        buf_put_blob(&w->pending, p->data, p->len);
        w->records++;
        break;
    case 1:
        end_group(w);
        break;
    case 2:
        buf_put(&w->file, p->data, p->len);
        buf_align(&w->file, WAL_GROUP_ALIGN);
        break;
    case 3:
        if (w->number == FILES_MAX)
            break;
        end_file(w);
        w->number++;
        start_file(w);
        break;
    case 4:
        put_checkpoint(w, p);
        break;
    }
}

/* ---- reading ---- */

static void read_rows(const struct snapshot *s)
{
    struct row_builder rb;
    if (row_builder_init(&rb, s->schema, NULL) != ERR_OK)
        return;
    for (uint32_t i = 0; i < s->nviews; i++) {
        const struct view *v = &s->views[i];
        for (uint32_t row = 0; row < v->rows && row < KEYS_READ_MAX; row++) {
            struct row_ref ref;
            uint64_t version, ordinal;
            row_from_segment(&rb, v->segment, row);
            (void)row_digest(&rb.row);
            segment_seq(v->segment, row, &version, &ordinal);
            if (s->schema->key == KEY_INT64)
                (void)snapshot_find_int(s, rb.row.int_key, &ref);
            else
                (void)snapshot_find_str(s, rb.row.key, rb.row.key_len, &ref);
        }
    }
    row_builder_deinit(&rb);
}

/* Older versions, as far as what is there leads to them. */
static void read_versions(struct collection *c)
{
    uint64_t newest = collection_snapshot(c)->version;
    uint64_t from = newest > VERSIONS_READ_MAX ? newest - VERSIONS_READ_MAX : 0;
    for (uint64_t v = from; v <= newest; v++) {
        struct snapshot *s;
        if (collection_open_version(c, v, true, &s, NULL) != ERR_OK)
            continue;
        read_rows(s);
        snapshot_release(s);
    }
    (void)!history_verify(c, NULL);
}

static void open_and_read(void)
{
    struct collection *c;
    struct err_ctx ctx;
    err_clear(&ctx);
    if (collection_open(io, "c", dir, NULL, &c, &ctx) != ERR_OK) {
        ASSERT(ctx.detail[0]);
        return;
    }
    epoch_enter();
    read_rows(collection_snapshot(c));
    read_versions(c);
    epoch_leave();
    collection_release(c);
    epoch_drain();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct cursor c = cursor_over(data, n);
    struct writing w = {.number = 1, .group = 1};
    struct fuzz_piece p;
    char path[400];
    if (!dir[0])
        set_up();
    start_file(&w);
    while (next_piece(&c, &p))
        put(&w, &p);
    end_file(&w);
    open_and_read();
    for (unsigned i = 1; i <= w.number; i++) {
        file_path(i, "log", path);
        unlink(path);
        file_path(i, "ckpt", path);
        if (w.checkpoints >> i & 1)
            unlink(path);
    }
    buf_deinit(&w.file);
    buf_deinit(&w.pending);
    return 0;
}
