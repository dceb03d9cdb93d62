/* The part of FAISS's C API that we call, over a FAISS that was built without it: Debian's
 * libfaiss-dev has the headers <faiss/c_api/...> but not their object code. Left out of the build
 * when a real libfaiss_c is linked (faiss.mk).
 *
 * A handle of the C API is a pointer to the C++ object. No exception leaves this file: guard()
 * turns it into the code that faiss/c_api/error_c.h names and keeps its text for the thread.
 *
 * Threads: as FAISS; the last error belongs to the calling thread. */
#include <exception>
#include <new>
#include <string>

#include <faiss/AutoTune.h>
#include <faiss/Clustering.h>
#include <faiss/Index.h>
#include <faiss/impl/FaissException.h>
#include <faiss/index_factory.h>
#include <faiss/index_io.h>

extern "C" {
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Clustering_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
}

namespace
{

thread_local std::string last_error;

template <class Call> int guard(Call call)
{
    try {
        call();
        return OK;
    } catch (const faiss::FaissException &e) {
        last_error = e.msg;
        return FAISS_EXCEPT;
    } catch (const std::bad_alloc &) {
        last_error = "out of memory";
        return STD_EXCEPT;
    } catch (const std::exception &e) {
        last_error = e.what();
        return STD_EXCEPT;
    } catch (...) {
        last_error = "unknown exception";
        return UNKNOWN_EXCEPT;
    }
}

faiss::Index *native(FaissIndex *index)
{
    return reinterpret_cast<faiss::Index *>(index);
}

const faiss::Index *native(const FaissIndex *index)
{
    return reinterpret_cast<const faiss::Index *>(index);
}

FaissIndex *handle(faiss::Index *index)
{
    return reinterpret_cast<FaissIndex *>(index);
}

faiss::Clustering *native(FaissClustering *clustering)
{
    return reinterpret_cast<faiss::Clustering *>(clustering);
}

} // namespace

extern "C" {

const char *faiss_get_last_error()
{
    return last_error.c_str();
}

int faiss_index_factory(FaissIndex **out, int d, const char *description, FaissMetricType metric)
{
    return guard([&] {
        *out = handle(faiss::index_factory(d, description, static_cast<faiss::MetricType>(metric)));
    });
}

void faiss_Index_free(FaissIndex *index)
{
    delete native(index);
}

int faiss_Index_d(const FaissIndex *index)
{
    return native(index)->d;
}

idx_t faiss_Index_ntotal(const FaissIndex *index)
{
    return native(index)->ntotal;
}

int faiss_Index_add(FaissIndex *index, idx_t n, const float *x)
{
    return guard([&] { native(index)->add(n, x); });
}

int faiss_Index_search(const FaissIndex *index, idx_t n, const float *x, idx_t k, float *distances,
                       idx_t *labels)
{
    return guard([&] { native(index)->search(n, x, k, distances, labels); });
}

void faiss_ClusteringParameters_init(FaissClusteringParameters *out)
{
    faiss::ClusteringParameters p;
    *out = {p.niter,
            p.nredo,
            p.verbose,
            p.spherical,
            p.int_centroids,
            p.update_index,
            p.frozen_centroids,
            p.min_points_per_centroid,
            p.max_points_per_centroid,
            p.seed,
            p.decode_block_size};
}

int faiss_Clustering_new_with_params(FaissClustering **out, int d, int k,
                                     const FaissClusteringParameters *given)
{
    return guard([&] {
        faiss::ClusteringParameters p;
        p.niter = given->niter;
        p.nredo = given->nredo;
        p.verbose = given->verbose;
        p.spherical = given->spherical;
        p.int_centroids = given->int_centroids;
        p.update_index = given->update_index;
        p.frozen_centroids = given->frozen_centroids;
        p.min_points_per_centroid = given->min_points_per_centroid;
        p.max_points_per_centroid = given->max_points_per_centroid;
        p.seed = given->seed;
        p.decode_block_size = given->decode_block_size;
        *out = reinterpret_cast<FaissClustering *>(new faiss::Clustering(d, k, p));
    });
}

int faiss_Clustering_train(FaissClustering *clustering, idx_t n, const float *x, FaissIndex *index)
{
    return guard([&] { native(clustering)->train(n, x, *native(index)); });
}

void faiss_Clustering_centroids(FaissClustering *clustering, float **centroids, size_t *size)
{
    *centroids = native(clustering)->centroids.data();
    *size = native(clustering)->centroids.size();
}

void faiss_Clustering_free(FaissClustering *clustering)
{
    delete native(clustering);
}

int faiss_ParameterSpace_new(FaissParameterSpace **space)
{
    return guard(
        [&] { *space = reinterpret_cast<FaissParameterSpace *>(new faiss::ParameterSpace()); });
}

void faiss_ParameterSpace_free(FaissParameterSpace *space)
{
    delete reinterpret_cast<faiss::ParameterSpace *>(space);
}

int faiss_ParameterSpace_set_index_parameter(const FaissParameterSpace *space, FaissIndex *index,
                                             const char *name, double value)
{
    return guard([&] {
        reinterpret_cast<const faiss::ParameterSpace *>(space)->set_index_parameter(native(index),
                                                                                    name, value);
    });
}

int faiss_write_index(const FaissIndex *index, FILE *f)
{
    return guard([&] { faiss::write_index(native(index), f); });
}

int faiss_write_index_fname(const FaissIndex *index, const char *path)
{
    return guard([&] { faiss::write_index(native(index), path); });
}

int faiss_read_index_fname(const char *path, int io_flags, FaissIndex **out)
{
    return guard([&] { *out = handle(faiss::read_index(path, io_flags)); });
}
}
