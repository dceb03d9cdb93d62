/* Power cuts: a store works on a disk whose trace is kept; then, for every point of the trace, the
 * disk is laid out as a power cut there may leave it (disk.h) and opened. Every acknowledged step
 * is there, the one at work whole or not at all, nothing is quarantined, the data directory passes
 * its check, and the store takes writes again. Some of the recoveries lose power themselves.
 *
 *   POWER_CUT_RUNS   workloads (default 2)          POWER_CUT_SEED    seed of the first (default 1)
 *   POWER_CUT_STEPS  steps of each (default 40)     POWER_CUT_STATES  layouts a point (default 2)
 */
#include "dirs.h"

#include "base/log.h"
#include "fault/disk.h"
#include "store/check.h"

static struct {
    uint64_t cuts, recoveries_cut, points, steps, checked;
} total;

/* ---- recording ---- */

enum { NOTE_BEGUN = 0, NOTE_ACKED = 1 };

static void note_begun(void *arg, uint32_t step)
{
    disk_note(arg, (uint64_t)step << 1 | NOTE_BEGUN);
}

static void note_acked(void *arg, uint32_t step)
{
    disk_note(arg, (uint64_t)step << 1 | NOTE_ACKED);
}

/* A directory with a FORMAT file: making that one is no part of the trace. */
static struct disk *record_in(struct fixture *f, enum io_backend backend)
{
    OK(io_new(IO_POSIX, &f->io, &f->ctx));
    fixture_open(f);
    catalog_close(f->cat);
    io_free(f->io);
    struct disk *d = disk_new(f->dir, backend);
    f->io = disk_io(d);
    fixture_open(f);
    return d;
}

/* ---- what a cut leaves ---- */

struct notes {
    uint32_t begun, acked;
};

static void take_note(struct notes *n, uint64_t note)
{
    uint32_t *which = (note & 1) == NOTE_ACKED ? &n->acked : &n->begun;
    *which = (uint32_t)(note >> 1);
}

static void say_finding(void *arg, enum check_kind kind, const char *collection, const char *text)
{
    if (kind == CHECK_DAMAGE)
        print_message("%s: %s: %s\n", (const char *)arg, collection, text);
}

static void say_done(void *arg, const struct check_collection *c)
{
    (void)arg;
    (void)c;
}

static void check_laid(struct fixture *f, const char *where)
{
    struct check_hooks hooks = {.arg = (void *)where, .found = say_finding, .done = say_done};
    bool damaged = false;
    OK(check_dir(f->dir, &hooks, &damaged, &f->ctx));
    if (damaged)
        fail_msg("%s: the check of %s finds damage", where, f->dir);
    total.checked++;
}

static void lay(const struct player *p, struct fixture *f, enum cut_style style, uint64_t seed)
{
    remove_dir(f->dir);
    player_cut(p, f->dir, style, seed);
}

/* Opens what was laid out in f->dir; the trace of the recovery is the caller's. */
static struct disk *recover(struct workload *w, struct fixture *f, const struct notes *n,
                            const char *where)
{
    struct disk *d = disk_new(f->dir, IO_POSIX);
    f->io = disk_io(d);
    fixture_open(f);
    workload_compare(w, f, n->acked, n->begun, where);
    disk_stop(d);
    workload_write_again(f, where);
    catalog_close(f->cat);
    return d;
}

/* The power fails during the recovery, too: the outcome may only be one that the first cut allows.
 */
static void cut_recovery(struct workload *w, const struct disk *d, const struct notes *n,
                         const char *where, uint64_t seed)
{
    struct fixture fx, *f = &fx;
    char again[4000];
    bool is_note;
    uint64_t note;
    base_dir(f, "again");
    struct player *p = player_new(d);
    while (player_step(p, &is_note, &note)) {
        if (!player_unsynced(p))
            continue;
        snprintf(again, sizeof again, "%s, then in recovery after %s", where, player_where(p));
        lay(p, f, CUT_ANY_KEPT, ++seed);
        disk_free(recover(w, f, n, again));
        total.recoveries_cut++;
    }
    player_free(p);
    remove_dir(f->dir);
}

static void cut_here(struct workload *w, const struct player *p, const struct notes *n,
                     enum cut_style style, uint64_t seed)
{
    struct fixture fx, *f = &fx;
    char where[1600];
    base_dir(f, "cut");
    snprintf(where, sizeof where, "cut after %s (style %d, cut seed %llu, step %u acknowledged)",
             player_where(p), style, (unsigned long long)seed, n->acked);
    lay(p, f, style, seed);
    if (seed % 3 == 0)
        check_laid(f, where);
    struct disk *d = recover(w, f, n, where);
    if (seed % 4 == 1)
        cut_recovery(w, d, n, where, seed * 1000);
    disk_free(d);
    remove_dir(f->dir);
    total.cuts++;
}

static void cut_everywhere(struct workload *w, const struct disk *d, uint64_t states)
{
    struct player *p = player_new(d);
    struct notes n = {0};
    bool is_note;
    uint64_t note, seed = w->seed * 1000000;
    while (player_step(p, &is_note, &note)) {
        if (is_note)
            take_note(&n, note);
        total.points++;
        for (uint64_t i = 0; i < (player_unsynced(p) ? states : 1); i++, seed++)
            cut_here(w, p, &n, (enum cut_style)(seed % CUT_STYLES), seed);
    }
    player_free(p);
}

static void one_run(uint64_t seed, enum io_backend backend)
{
    struct fixture fx, *f = &fx;
    struct workload w;
    uint64_t steps = setting("POWER_CUT_STEPS", 40);
    base_dir(f, "power");
    workload_new(&w, f, seed);
    struct disk *d = record_in(f, backend);
    for (uint64_t i = 0; i < steps; i++)
        workload_step(&w, note_begun, note_acked, d);
    disk_stop(d);
    catalog_close(f->cat);
    cut_everywhere(&w, d, setting("POWER_CUT_STATES", 2));
    total.steps += w.acknowledged;
    print_message("seed %llu: %zu events\n", (unsigned long long)seed, disk_events(d));
    disk_free(d);
    workload_free(&w);
    remove_dir(f->dir);
}

static void a_power_cut_at_any_point_loses_nothing_acknowledged(void **state)
{
    (void)state;
    uint64_t first = setting("POWER_CUT_SEED", 1), runs = setting("POWER_CUT_RUNS", 2);
    log_set_level(LOG_ERROR + 1);
    for (uint64_t i = 0; i < runs; i++)
        one_run(first + i, i % 2 ? IO_POSIX : IO_AUTO);
    log_set_level(LOG_INFO);
    print_message("power cuts: %llu points, %llu cuts, %llu more in recoveries, %llu directories "
                  "checked, %llu steps acknowledged, 0 lost\n",
                  (unsigned long long)total.points, (unsigned long long)total.cuts,
                  (unsigned long long)total.recoveries_cut, (unsigned long long)total.checked,
                  (unsigned long long)total.steps);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_at_any_point_loses_nothing_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
