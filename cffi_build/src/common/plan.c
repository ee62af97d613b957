/* The bounds-checked reader of the plan block. Used by the init process, by the C tests and by the fuzz target. */
#include "plan.h"

#include <asm/errno.h>

int plan_open(struct plan *plan, const void *block, size_t size)
{
    const struct plan_header *header = block;
    uint64_t ops_end, strings_end;

    if (size < sizeof(*header) || size > PLAN_MAX_SIZE || (uintptr_t)block % _Alignof(struct plan_op))
        return -EINVAL;
    if (header->magic != PLAN_MAGIC || header->version != PLAN_VERSION || header->size != size)
        return -EINVAL;
    if (header->n_ops > PLAN_MAX_OPS || header->ops_offset < sizeof(*header) ||
        header->ops_offset % _Alignof(struct plan_op))
        return -EINVAL;
    ops_end = header->ops_offset + (uint64_t)header->n_ops * sizeof(struct plan_op);
    strings_end = (uint64_t)header->strings_offset + header->strings_size;
    if (ops_end > size || header->strings_offset < ops_end || strings_end > size || header->strings_size == 0)
        return -EINVAL;

    plan->header = header;
    plan->ops = (const struct plan_op *)((const char *)block + header->ops_offset);
    plan->strings = (const char *)block + header->strings_offset;
    if (plan->strings[0] != '\0' || plan->strings[header->strings_size - 1] != '\0')
        return -EINVAL;

    for (uint32_t i = 0; i < header->n_ops; i++) {
        const struct plan_op *op = &plan->ops[i];
        if (op->kind == OP_NONE || op->kind >= OP_COUNT)
            return -EINVAL;
        if (op->fd < -1 || (op->fd >= 0 && (uint32_t)op->fd >= header->n_fds))
            return -EINVAL;
        for (int s = 0; s < OP_STRINGS; s++)
            if (op->strings[s] >= header->strings_size)
                return -EINVAL;
    }
    return 0;
}

const char *plan_string(const struct plan *plan, const struct plan_op *op, int i)
{
    return plan->strings + op->strings[i];
}

size_t plan_room(const struct plan *plan, const struct plan_op *op, int i)
{
    return plan->header->strings_size - op->strings[i];
}

int plan_list(const struct plan *plan, const struct plan_op *op, int i, uint64_t count, const char **vector)
{
    const char *at = plan_string(plan, op, i);
    const char *end = at + plan_room(plan, op, i);

    for (uint64_t n = 0; n < count; n++) {
        if (at >= end)
            return -EINVAL;
        vector[n] = at;
        while (*at != '\0') /* the table's last byte is NUL, so this ends inside it */
            at++;
        at++;
    }
    vector[count] = NULL;
    return 0;
}
