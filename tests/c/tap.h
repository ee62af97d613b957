/* Test Anything Protocol in ten lines. */
#ifndef TAP_H
#define TAP_H
#include <stdio.h>

static int tap_count, tap_failed;

#define ok(condition)                                                                              \
    do {                                                                                           \
        int tap_result = !!(condition);                                                            \
        tap_failed += !tap_result;                                                                 \
        printf("%sok %d - %s:%d %s\n", tap_result ? "" : "not ", ++tap_count, __FILE__, __LINE__, #condition); \
    } while (0)

static inline int tap_end(void)
{
    printf("1..%d\n", tap_count);
    return tap_failed != 0;
}
#endif
