#include "phalanx/base.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* In front of every allocation: its size and how it was taken. Large blocks are maps of their own, so that zeroed memory
 * costs nothing until it is touched and goes back to the system when freed. */
typedef struct header {
    size_t bytes;  /* as asked for */
    size_t mapped; /* length of the map; 0: from aligned_alloc */
    char fill[48];
} header;
_Static_assert(sizeof(header) == 64, "keeps the payload 64-byte aligned");

enum { MAP_FROM = 1 << 20, HUGE_FROM = 1 << 22, PAGE = 4096 };

static atomic_size_t allocations, live, peak;

static void count_up(size_t bytes)
{
    atomic_fetch_add(&allocations, 1);
    size_t now = atomic_fetch_add(&live, bytes) + bytes;
    size_t top = atomic_load(&peak);
    while (now > top && !atomic_compare_exchange_weak(&peak, &top, now)) {
    }
}

static atomic_bool eager;

void px_alloc_eager(bool on)
{
    atomic_store(&eager, on);
}

/* Takes all pages of a fresh map. */
static void touch(void *map, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PAGE) {
        ((volatile char *)map)[at] = 0;
    }
}

static header *take(size_t bytes)
{
    size_t total = sizeof(header) + bytes;
    if (total < bytes) {
        return NULL;
    }
    header *h;
    if (bytes >= MAP_FROM) {
        total = (total + PAGE - 1) & ~(size_t)(PAGE - 1);
        h = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (h == MAP_FAILED) {
            return NULL;
        }
        if (total >= HUGE_FROM) { /* 512 times fewer page faults; a kernel without huge pages refuses, which is fine */
            madvise(h, total, MADV_HUGEPAGE);
        }
        if (atomic_load(&eager)) {
            touch(h, total);
        }
        h->mapped = total;
    } else {
        total = (total + 63) & ~(size_t)63;
        h = aligned_alloc(64, total);
        if (h == NULL) {
            return NULL;
        }
        memset(h, 0, total);
    }
    h->bytes = bytes;
    return h;
}

void *px_alloc(size_t bytes, const char *what)
{
    header *h = px_fault("memory") ? NULL : take(bytes);
    if (h == NULL) {
        bool small = bytes < MAP_FROM;
        px_fail(PX_CONFIG, "out of memory: %s %d: %s: %.*f %s wanted, %.1f MiB are free", px_log_role_name(),
                px_log_rank_number(), what, small ? 0 : 1, small ? (double)bytes : (double)bytes / 1048576.0,
                small ? "bytes" : "MiB", (double)px_memory_available() / 1048576.0);
        return NULL;
    }
    count_up(bytes);
    return h + 1;
}

void *px_alloc_array(size_t count, size_t size, const char *what)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) {
        px_fail(PX_CONFIG, "out of memory: %s %d: %s: %zu x %zu bytes wanted, more than an address space",
                px_log_role_name(), px_log_rank_number(), what, count, size);
        return NULL;
    }
    return px_alloc(bytes, what);
}

void *px_realloc(void *pointer, size_t bytes, const char *what)
{
    if (pointer == NULL) {
        return px_alloc(bytes, what);
    }
    void *fresh = px_alloc(bytes, what);
    if (fresh == NULL) {
        return NULL;
    }
    size_t old = ((header *)pointer - 1)->bytes;
    memcpy(fresh, pointer, old < bytes ? old : bytes);
    px_free(pointer);
    return fresh;
}

void px_free(void *pointer)
{
    if (pointer == NULL) {
        return;
    }
    header *h = (header *)pointer - 1;
    atomic_fetch_sub(&live, h->bytes);
    if (h->mapped > 0) {
        munmap(h, h->mapped);
    } else {
        free(h);
    }
}

char *px_strdup(const char *text)
{
    size_t length = strlen(text);
    char *copy = px_alloc(length + 1, "a copy of a string");
    if (copy != NULL) {
        memcpy(copy, text, length);
    }
    return copy;
}

size_t px_alloc_count(void)
{
    return atomic_load(&allocations);
}

size_t px_alloc_live(void)
{
    return atomic_load(&live);
}

size_t px_alloc_peak(void)
{
    return atomic_load(&peak);
}

px_status px_arena_init(px_arena *arena, size_t bytes, const char *what)
{
    *arena = (px_arena){.size = (bytes + 63) & ~(size_t)63};
    if (arena->size == 0) {
        return PX_OK;
    }
    arena->base = px_alloc(arena->size, what);
    return arena->base != NULL ? PX_OK : px_error_code();
}

void px_arena_free(px_arena *arena)
{
    px_free(arena->base);
    *arena = (px_arena){0};
}

void *px_arena_push(px_arena *arena, size_t bytes)
{
    size_t step = (bytes + 63) & ~(size_t)63;
    PX_CHECK(step <= arena->size - arena->used);
    void *p = arena->base + arena->used;
    arena->used += step;
    return p;
}

px_status px_buf_reserve(px_buf *buf, size_t capacity)
{
    if (capacity < buf->capacity) {
        return PX_OK;
    }
    size_t grown = buf->capacity < 64 ? 64 : buf->capacity;
    while (grown <= capacity) {
        grown += grown / 2;
    }
    char *data = px_realloc(buf->data, grown, "a text buffer");
    if (data == NULL) {
        return px_error_code();
    }
    buf->data = data;
    buf->capacity = grown;
    return PX_OK;
}

px_status px_buf_add(px_buf *buf, const void *bytes, size_t length)
{
    PX_TRY(px_buf_reserve(buf, buf->length + length));
    if (length > 0) {
        memcpy(buf->data + buf->length, bytes, length);
    }
    buf->length += length;
    buf->data[buf->length] = '\0';
    return PX_OK;
}

px_status px_buf_text(px_buf *buf, const char *text)
{
    return px_buf_add(buf, text, strlen(text));
}

px_status px_buf_printf(px_buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    px_status status = length < 0 ? px_fail(PX_BUG, "a text cannot be formatted") : PX_OK;
    if (status == PX_OK) {
        status = px_buf_reserve(buf, buf->length + (size_t)length);
    }
    if (status == PX_OK) {
        vsnprintf(buf->data + buf->length, (size_t)length + 1, format, again);
        buf->length += (size_t)length;
    }
    va_end(again);
    return status;
}

void px_buf_clear(px_buf *buf)
{
    buf->length = 0;
    if (buf->data != NULL) {
        buf->data[0] = '\0';
    }
}

void px_buf_free(px_buf *buf)
{
    px_free(buf->data);
    *buf = (px_buf){0};
}
