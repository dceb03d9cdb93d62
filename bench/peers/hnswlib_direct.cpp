// hnswlib as a C++ program uses it, behind the line protocol of bench/peers (worker.py explains
// it).
//
//   hnswlib_direct BASE QUERIES DIM K
//
// M 16, ef_construction 200, l2, one thread; built for this machine's instructions, as its users
// build it. Failure: a sentence on standard error, status 1.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "hnswlib/hnswlib.h"

namespace
{

constexpr size_t kM = 16, kEfConstruction = 200;

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "hnswlib_direct: %s\n", what);
    exit(1);
}

double seconds(clockid_t id)
{
    timespec t;
    clock_gettime(id, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

std::vector<float> read_floats(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        die(path);
    std::vector<float> all(static_cast<size_t>(ftell(f)) / sizeof(float));
    rewind(f);
    if (fread(all.data(), sizeof(float), all.size(), f) != all.size())
        die(path);
    fclose(f);
    return all;
}

struct Bench {
    size_t dim, k;
    std::vector<float> queries;
    hnswlib::L2Space space;
    hnswlib::HierarchicalNSW<float> *graph = nullptr;

    void build(const char *path)
    {
        std::vector<float> base = read_floats(path);
        size_t n = base.size() / dim;
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        graph = new hnswlib::HierarchicalNSW<float>(&space, n, kM, kEfConstruction);
        for (size_t i = 0; i < n; i++)
            graph->addPoint(base.data() + i * dim, i);
        printf("%.3f %.3f\n", seconds(CLOCK_MONOTONIC) - wall,
               seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }

    void find(const char *path)
    {
        FILE *f = fopen(path, "wb");
        if (!f)
            die(path);
        for (size_t q = 0; q < queries.size() / dim; q++) {
            std::vector<int64_t> keys(k, -1);
            auto found = graph->searchKnn(queries.data() + q * dim, k);
            for (size_t i = found.size(); i-- > 0; found.pop())
                keys[i] = static_cast<int64_t>(found.top().second);
            fwrite(keys.data(), sizeof keys[0], k, f);
        }
        if (fclose(f) != 0)
            die(path);
        puts("ok");
    }

    // hnswlib has no call for several queries: a batch is a loop over them.
    void measure(size_t batch, double for_s)
    {
        std::vector<double> took_us;
        size_t q = 0, n = queries.size() / dim, sum = 0;
        double start = seconds(CLOCK_MONOTONIC), now = start;
        while (now - start < for_s) {
            for (size_t i = 0; i < batch; i++, q = (q + 1) % n)
                sum += graph->searchKnn(queries.data() + q * dim, k).size();
            double then = seconds(CLOCK_MONOTONIC);
            took_us.push_back((then - now) * 1e6);
            now = then;
        }
        if (sum == 0)
            die("nothing is found");
        std::sort(took_us.begin(), took_us.end());
        size_t c = took_us.size();
        printf("%.1f %.2f %.2f\n", static_cast<double>(c * batch) / (now - start), took_us[c / 2],
               took_us[c - 1 - c / 100]);
    }

    void disk(const char *path)
    {
        graph->saveIndex(path);
        puts("ok");
    }
};

} // namespace

int main(int argc, char **argv)
{
    if (argc != 5)
        die("usage: hnswlib_direct BASE QUERIES DIM K");
    size_t dim = strtoul(argv[3], nullptr, 10);
    Bench b{dim, strtoul(argv[4], nullptr, 10), read_floats(argv[2]), hnswlib::L2Space(dim)};
    char line[4096], word[16], path[4000];
    while (fgets(line, sizeof line, stdin)) {
        size_t ef, batch;
        double for_s;
        if (strcmp(line, "hello\n") == 0) {
            puts("ok");
        } else if (strcmp(line, "build\n") == 0) {
            b.build(argv[1]);
        } else if (sscanf(line, "find %zu %3999s", &ef, path) == 2) {
            b.graph->setEf(ef);
            b.find(path);
        } else if (sscanf(line, "measure %zu %zu %lf", &ef, &batch, &for_s) == 3) {
            b.graph->setEf(ef);
            b.measure(batch, for_s);
        } else if (sscanf(line, "%15s %3999s", word, path) == 2 && strcmp(word, "disk") == 0) {
            b.disk(path);
        } else {
            die(line);
        }
        fflush(stdout);
    }
    return 0;
}
