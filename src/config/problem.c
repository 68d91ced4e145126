/* Everything that is wrong with a configuration, each with its place. */
#include "node.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PX_MOST_PROBLEMS 50

static void add(px_problems *problems, const char *file, int line, int column, const char *format, va_list list)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, list);
    for (int i = 0; i < problems->count; i++) {
        const struct px_problem *known = &problems->list[i];
        if (known->line == line && known->column == column && !strcmp(known->file, file) && !strcmp(known->text, text)) {
            return;
        }
    }
    if (problems->count == PX_MOST_PROBLEMS) {
        problems->dropped++;
        return;
    }
    if (problems->count == problems->capacity) {
        problems->capacity = PX_MOST_PROBLEMS;
        problems->list = px_pool_take(problems->pool, PX_MOST_PROBLEMS * sizeof *problems->list);
    }
    problems->list[problems->count] = (struct px_problem){
        .file = file, .text = px_pool_text(problems->pool, text), .line = line, .column = column,
        .order = problems->count};
    problems->count++;
}

void px_problem_at(px_problems *problems, const char *file, int line, int column, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    add(problems, file, line, column, format, list);
    va_end(list);
}

void px_problem_node(px_problems *problems, const px_node *node, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    add(problems, node->file, node->line, node->column, format, list);
    va_end(list);
}

void px_problem_entry(px_problems *problems, const px_entry *entry, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    add(problems, entry->file, entry->line, entry->column, format, list);
    va_end(list);
}

/* By line within a file; files stay in the order in which they first had a problem. */
static int by_place(const void *a, const void *b)
{
    const struct px_problem *x = a, *y = b;
    if (strcmp(x->file, y->file) == 0) {
        if (x->line != y->line) return x->line < y->line ? -1 : 1;
        if (x->column != y->column) return x->column < y->column ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

px_status px_problems_end(px_problems *problems)
{
    if (problems->count == 0) return PX_OK;
    /* insertion sort: the order above is not total over several files */
    for (int i = 1; i < problems->count; i++) {
        struct px_problem moving = problems->list[i];
        int j = i;
        for (; j > 0 && strcmp(problems->list[j - 1].file, moving.file) == 0 && by_place(&problems->list[j - 1], &moving) > 0;
             j--) {
            problems->list[j] = problems->list[j - 1];
        }
        problems->list[j] = moving;
    }
    px_buf text = {0};
    px_status status = PX_OK;
    for (int i = 0; i < problems->count && status == PX_OK; i++) {
        const struct px_problem *one = &problems->list[i];
        const char *newline = i ? "\n" : "";
        if (one->line) {
            status = px_buf_printf(&text, "%s%s:%d:%d: %s", newline, one->file, one->line, one->column, one->text);
        } else {
            status = px_buf_printf(&text, "%s%s: %s", newline, one->file, one->text);
        }
    }
    if (status == PX_OK && problems->dropped) {
        status = px_buf_printf(&text, "\n... and %d more problems", problems->dropped);
    }
    if (status == PX_OK) status = px_fail(PX_CONFIG, "%s", text.data);
    px_buf_free(&text);
    return status;
}
