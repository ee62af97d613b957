/* libFuzzer target: whatever plan_open accepts can be read to the end. */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    struct plan plan;
    char *block = aligned_alloc(64, (size + 63) / 64 * 64 + 64);
    volatile size_t sink = 0;

    memcpy(block, data, size);
    if (size >= sizeof(struct plan_header)) {
        /* past the checks that chance would never pass */
        struct plan_header *header = (struct plan_header *)block;
        header->magic = PLAN_MAGIC;
        header->version = PLAN_VERSION;
        header->size = (uint32_t)size;
    }
    if (plan_open(&plan, block, size) == 0)
        for (uint32_t i = 0; i < plan.header->n_ops; i++)
            for (int s = 0; s < OP_STRINGS; s++) {
                const char *list[65];
                sink += strlen(plan_string(&plan, &plan.ops[i], s));
                if (plan_list(&plan, &plan.ops[i], s, plan.ops[i].args[0] % 64, list) == 0)
                    for (uint64_t n = 0; n < plan.ops[i].args[0] % 64; n++)
                        sink += strlen(list[n]);
            }
    free(block);
    return 0;
}
