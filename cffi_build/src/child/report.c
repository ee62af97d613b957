/* Reports: what failed goes to the parent as numbers and names; the words are made there. */
#include "child.h"

int failed(struct child *c, const char *call, const char *object, long error)
{
    copy_text(c->call, sizeof(c->call), call);
    c->detail_size = 0;
    if (object != NULL) {
        size_t n = copy_text(c->detail, sizeof(c->detail), object);
        c->detail_size = (uint32_t)(n < sizeof(c->detail) ? n : sizeof(c->detail) - 1);
    }
    return (int)error;
}

static void fill(const struct child *c, struct message *m, uint32_t type, int error)
{
    memset(m, 0, sizeof(*m));
    m->type = type;
    m->op = c->op;
    m->error = error < 0 ? -error : error;
    m->value = c->value;
    m->value2 = c->value2;
    memcpy(m->call, c->call, sizeof(m->call));
    m->detail_size = c->detail_size;
    memcpy(m->detail, c->detail, sizeof(m->detail));
}

void report(struct child *c, uint32_t type, int error)
{
    struct message m;
    if (c->report < 0)
        return;
    fill(c, &m, type, error);
    send_message(c->report, &m, sizeof(m));
}

void warn(struct child *c, const char *call, const char *object, long error)
{
    failed(c, call, object, error);
    report(c, MSG_WARNING, (int)error);
}
