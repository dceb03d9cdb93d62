/* The life of a collection's receipts; for collection.c. */
#ifndef LOADSTONE_STORE_RECEIPT_INTERNAL_H
#define LOADSTONE_STORE_RECEIPT_INTERNAL_H

struct receipts;

struct receipts *receipts_new(void); /* NULL: no memory */
void receipts_free(struct receipts *all);

#endif
