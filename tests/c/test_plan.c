/* The plan reader: what fits is read, everything else is refused. */
#include <asm/errno.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"
#include "tap.h"

#define STRINGS "\0one\0two\0\0four\0"

struct block {
    struct plan_header header;
    struct plan_op ops[2];
    char strings[sizeof(STRINGS) - 1];
};

static struct block *good(void)
{
    struct block *b = aligned_alloc(64, (sizeof(*b) + 63) / 64 * 64);
    memset(b, 0, sizeof(*b));
    b->header.magic = PLAN_MAGIC;
    b->header.version = PLAN_VERSION;
    b->header.size = sizeof(*b);
    b->header.n_ops = 2;
    b->header.ops_offset = offsetof(struct block, ops);
    b->header.strings_offset = offsetof(struct block, strings);
    b->header.strings_size = sizeof(b->strings);
    b->header.n_fds = 1;
    b->ops[0] = (struct plan_op){ .kind = OP_HOSTNAME, .fd = -1, .strings = { 1 } };
    b->ops[1] = (struct plan_op){ .kind = OP_EXEC, .fd = 0, .strings = { 1 } };
    memcpy(b->strings, STRINGS, sizeof(b->strings));
    return b;
}

/* The block with one change is refused. */
#define refuse(change)                                           \
    do {                                                         \
        struct block *b = good();                                \
        struct plan p;                                           \
        change;                                                  \
        ok(plan_open(&p, b, sizeof(*b)) == -EINVAL && #change);  \
        free(b);                                                 \
    } while (0)

int main(void)
{
    struct block *b = good();
    struct plan plan;
    const char *list[5];

    ok(plan_open(&plan, b, sizeof(*b)) == 0);
    ok(strcmp(plan_string(&plan, &plan.ops[0], 0), "one") == 0);
    ok(strcmp(plan_string(&plan, &plan.ops[0], 1), "") == 0);
    ok(plan_list(&plan, &plan.ops[0], 0, 4, list) == 0);
    ok(strcmp(list[1], "two") == 0 && list[2][0] == '\0' && strcmp(list[3], "four") == 0 && list[4] == NULL);
    ok(plan_room(&plan, &plan.ops[0], 0) == sizeof(b->strings) - 1);
    {
        const char *many[16];
        ok(plan_list(&plan, &plan.ops[0], 0, 15, many) == -EINVAL);
    }
    free(b);

    refuse(b->header.magic++);
    refuse(b->header.version++);
    refuse(b->header.size--);
    refuse(b->header.n_ops = 3);
    refuse(b->header.n_ops = PLAN_MAX_OPS + 1);
    refuse(b->header.n_ops = 0xffffffff);
    refuse(b->header.ops_offset = 0);
    refuse(b->header.ops_offset++);
    refuse(b->header.ops_offset = 0xfffffff8);
    refuse(b->header.strings_offset -= 8);
    refuse(b->header.strings_offset++);
    refuse(b->header.strings_offset = 0xffffffff);
    refuse(b->header.strings_size += 64);
    refuse(b->header.strings_size = 0);
    refuse(b->strings[sizeof(b->strings) - 1] = 'x');
    refuse(b->strings[0] = 'x');
    refuse(b->ops[0].kind = OP_NONE);
    refuse(b->ops[0].kind = OP_COUNT);
    refuse(b->ops[1].fd = 1);
    refuse(b->ops[1].fd = -2);
    refuse(b->ops[1].strings[3] = sizeof(b->strings));
    refuse(b->ops[1].strings[3] = 0xffffffff);

    b = good();
    for (size_t size = 0; size < sizeof(*b); size++) {
        void *cut = aligned_alloc(64, (sizeof(*b) + 63) / 64 * 64);
        memcpy(cut, b, size);
        if (plan_open(&plan, cut, size) != -EINVAL)
            ok(!"a block that was cut off is refused");
        free(cut);
    }
    free(b);
    return tap_end();
}
