/* The handlers, by area; routes.c has the table. */
#ifndef LOADSTONE_API_ROUTES_H
#define LOADSTONE_API_ROUTES_H

#include "api/request.h"

/* route_collections.c */
enum err collections_list(struct request *r, struct err_ctx *ctx);
enum err collection_create(struct request *r, struct err_ctx *ctx);
enum err collection_describe(struct request *r, struct err_ctx *ctx);
enum err collection_patch(struct request *r, struct err_ctx *ctx);
enum err collection_drop(struct request *r, struct err_ctx *ctx);
enum err collection_reindex(struct request *r, struct err_ctx *ctx);
enum err collection_index(struct request *r, struct err_ctx *ctx);

/* route_rows.c */
enum err rows_begin(struct request *r, struct err_ctx *ctx);
enum err rows_answer(struct request *r, struct err_ctx *ctx);
enum err rows_delete(struct request *r, struct err_ctx *ctx);

/* route_loads.c */
enum err loads_open(struct request *r, struct err_ctx *ctx);
enum err loads_list(struct request *r, struct err_ctx *ctx);
enum err load_get(struct request *r, struct err_ctx *ctx);
enum err load_abort(struct request *r, struct err_ctx *ctx);
enum err load_commit_run(struct request *r, struct err_ctx *ctx);
enum err part_begin(struct request *r, struct err_ctx *ctx);
enum err part_answer(struct request *r, struct err_ctx *ctx);

/* route_page.c */
enum err rows_page(struct request *r, struct err_ctx *ctx);
enum err rows_count(struct request *r, struct err_ctx *ctx);

/* route_versions.c */
enum err versions_list(struct request *r, struct err_ctx *ctx);
enum err version_describe(struct request *r, struct err_ctx *ctx);
enum err list_tags(struct request *r, struct err_ctx *ctx);
enum err tag_get(struct request *r, struct err_ctx *ctx);
enum err tag_put(struct request *r, struct err_ctx *ctx);
enum err tag_drop(struct request *r, struct err_ctx *ctx);

/* route_restore.c */
enum err version_restore(struct request *r, struct err_ctx *ctx);

/* route_diff.c */
enum err versions_diff(struct request *r, struct err_ctx *ctx);

/* route_export.c */
enum err version_export(struct request *r, struct err_ctx *ctx);
enum err tag_export(struct request *r, struct err_ctx *ctx);

/* route_faiss.c */
enum err index_faiss_get(struct request *r, struct err_ctx *ctx);
enum err index_faiss_begin(struct request *r, struct err_ctx *ctx);
enum err index_faiss_answer(struct request *r, struct err_ctx *ctx);

/* route_search.c */
enum err search(struct request *r, struct err_ctx *ctx);

/* route_recall.c */
enum err collection_recall(struct request *r, struct err_ctx *ctx);

/* route_fetch.c */
enum err fetch_features(struct request *r, struct err_ctx *ctx);
enum err fetch_row(struct request *r, struct err_ctx *ctx);

/* route_upkeep.c */
enum err upkeep_compact(struct request *r, struct err_ctx *ctx);
enum err upkeep_vacuum(struct request *r, struct err_ctx *ctx);
enum err upkeep_purge(struct request *r, struct err_ctx *ctx);

/* route_ops.c */
enum err ops_root(struct request *r, struct err_ctx *ctx);
enum err ops_health(struct request *r, struct err_ctx *ctx);
enum err ops_ready(struct request *r, struct err_ctx *ctx);
enum err ops_limits(struct request *r, struct err_ctx *ctx);
enum err ops_openapi(struct request *r, struct err_ctx *ctx);

/* route_metrics.c */
enum err ops_metrics(struct request *r, struct err_ctx *ctx);

#endif
