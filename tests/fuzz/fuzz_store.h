/* A real collection for targets that end in a load: made once in a directory of its own, which goes
 * when the process ends. Loads are never committed. */
#ifndef LOADSTONE_TESTS_FUZZ_STORE_H
#define LOADSTONE_TESTS_FUZZ_STORE_H

#include <stdlib.h>
#include <sys/stat.h>

#include "base/epoch.h"
#include "fuzz.h"
#include "store/catalog.h"
#include "store/load.h"

static char fuzz_dir[64];
static struct catalog *fuzz_catalog;

static inline void fuzz_store_close(void)
{
    char command[100];
    catalog_close(fuzz_catalog);
    snprintf(command, sizeof command, "rm -rf %s", fuzz_dir);
    (void)!system(command);
}

static inline void fuzz_store_open(void)
{
    static struct io *io;
    struct stat st;
    fuzz_quiet();
    snprintf(fuzz_dir, sizeof fuzz_dir, "%s/fuzzXXXXXX",
             stat("/dev/shm", &st) == 0 ? "/dev/shm" : "/tmp");
    ASSERT(mkdtemp(fuzz_dir));
    ASSERT(io_new(IO_POSIX, &io, NULL) == ERR_OK);
    ASSERT(catalog_open(fuzz_dir, io, NULL, &fuzz_catalog, NULL) == ERR_OK);
    atexit(fuzz_store_close);
    while (!catalog_ready(fuzz_catalog))
        usleep(500);
}

/* A load into the collection with keys of this type and a feature of every type. */
static inline struct load *fuzz_load(enum key_type key)
{
    static const char *const names[] = {"strings", "ints"};
    static struct collection *collections[2];
    struct load_options o = {.mode = LOAD_UPSERT, .expected_version = -1};
    struct load *l;
    bool created;
    if (!fuzz_catalog)
        fuzz_store_open();
    if (!collections[key]) {
        struct schema *s = fuzz_schema(key);
        ASSERT(catalog_create(fuzz_catalog, names[key], s, &created, NULL) == ERR_OK);
        ASSERT(catalog_find(fuzz_catalog, names[key], &collections[key], NULL) == ERR_OK);
        schema_release(s);
    }
    ASSERT(load_new(collections[key], &o, &l, NULL) == ERR_OK);
    return l;
}

#endif
