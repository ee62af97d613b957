#ifndef OCIRUNTIME_PLAN_H
#define OCIRUNTIME_PLAN_H
#include "shim_guard.h"

/* A plan block after plan_open has checked it: every offset in it can be used without further checks. */
struct plan {
    const struct plan_header *header;
    const struct plan_op *ops;
    const char *strings;
};

/* Checks size bytes at block; fills plan. Returns 0, or -EINVAL for anything that does not fit. */
int plan_open(struct plan *plan, const void *block, size_t size);
/* String i of op. */
const char *plan_string(const struct plan *plan, const struct plan_op *op, int i);
/* The bytes from string i of op to the end of the table (for lists and blobs). */
size_t plan_room(const struct plan *plan, const struct plan_op *op, int i);
/* Fills vector[0..count] with pointers to the count NUL-terminated strings at string i; vector[count] = NULL.
   Returns 0, or -EINVAL when the table ends before the list does. */
int plan_list(const struct plan *plan, const struct plan_op *op, int i, uint64_t count, const char **vector);
#endif
