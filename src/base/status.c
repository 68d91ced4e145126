#include "phalanx/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static px_error record;

static void (*bug_hook)(int exit_code);

/* Keeps "src/room/file.c" of whatever path the compiler was given. */
static const char *short_path(const char *file)
{
    const char *src = NULL;
    for (const char *p = file; (p = strstr(p, "src/")) != NULL; p++) {
        src = p;
    }
    return src != NULL ? src : file;
}

static void set_text(const char *format, va_list args)
{
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) {
        text = NULL;
    }
    free(record.text);
    record.text = text;
}

px_status px_fail_at(const char *file, int line, px_status code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set_text(format, args);
    va_end(args);
    record.code = code;
    snprintf(record.where, sizeof record.where, "%s:%d", short_path(file), line);
    return code;
}

px_status px_fail_within(const char *format, ...)
{
    char *front = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&front, format, args) < 0) {
        front = NULL;
    }
    va_end(args);
    char *joined = NULL;
    if (front != NULL && asprintf(&joined, "%s: %s", front, px_error_text()) >= 0) {
        free(record.text);
        record.text = joined;
    }
    free(front);
    return record.code;
}

px_status px_error_code(void)
{
    return record.code;
}

const char *px_error_text(void)
{
    return record.text != NULL ? record.text : "";
}

const char *px_error_where(void)
{
    return record.where;
}

void px_error_clear(void)
{
    record.code = PX_OK;
    record.where[0] = '\0';
    free(record.text);
    record.text = NULL;
}

void px_error_set(px_status code, const char *where, const char *text)
{
    char *copy = strdup(text);
    record.code = code;
    snprintf(record.where, sizeof record.where, "%s", where);
    free(record.text);
    record.text = copy;
}

px_error px_error_keep(void)
{
    px_error kept = record;
    record = (px_error){0};
    return kept;
}

px_status px_error_restore(px_error *kept)
{
    free(record.text);
    record = *kept;
    *kept = (px_error){0};
    return record.code;
}

void px_bug_hook_set(void (*hook)(int exit_code))
{
    bug_hook = hook;
}

void px_bug(const char *file, int line, const char *text)
{
    fprintf(stderr, "phalanx: [rank %d] %s:%d: internal error: %s\n", px_log_rank_number(), short_path(file), line, text);
    fflush(NULL);
    if (bug_hook != NULL) {
        bug_hook(PX_BUG);
    }
    abort();
}

/* PHALANX_FAULT, read once: site, which pass (from 1; "3+": all from the third on), rank (-1: all). */
static struct {
    bool read, onward;
    char site[64];
    long pass, rank, seen;
} fault;

bool px_fault(const char *site)
{
    if (!fault.read) {
        fault.read = true;
        const char *text = getenv("PHALANX_FAULT");
        fault.pass = 1;
        fault.rank = -1;
        fault.onward = text != NULL && strchr(text, '+') != NULL;
        const char *form = fault.onward ? "%63[^:]:%ld+:%ld" : "%63[^:]:%ld:%ld";
        if (text != NULL && sscanf(text, form, fault.site, &fault.pass, &fault.rank) < 1) {
            fault.site[0] = '\0';
        }
    }
    if (fault.site[0] == '\0' || strcmp(fault.site, site) != 0) {
        return false;
    }
    if (fault.rank >= 0 && fault.rank != px_log_rank_number()) {
        return false;
    }
    fault.seen++;
    return fault.onward ? fault.seen >= fault.pass : fault.seen == fault.pass;
}
