/* Lists of nodes as Slurm writes them: names separated by commas, a number of which may be a set in brackets, as in
 * "big1,cpu[001-016,020]". */
#include "node_list.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Does the number that `text` begins with, `digits` long, lie in the set between the brackets? */
static bool in_set(const char *set, const char *close, const char *text, size_t digits)
{
    long number = strtol(text, NULL, 10);
    while (set < close) {
        char *end;
        long low = strtol(set, &end, 10), high = low;
        size_t width = (size_t)(end - set);
        if (*end == '-') {
            high = strtol(end + 1, &end, 10);
        }
        if (number >= low && number <= high && (width == digits || (digits > width && text[0] != '0'))) {
            return true;
        }
        set = end + 1;
    }
    return false;
}

/* One name of a list, [item, end), against a node's. */
static bool item_matches(const char *item, const char *end, const char *node, size_t length)
{
    const char *open = memchr(item, '[', (size_t)(end - item)), *close = open != NULL ? strchr(open, ']') : NULL;
    if (open == NULL) {
        return (size_t)(end - item) == length && strncmp(item, node, length) == 0;
    }
    size_t before = (size_t)(open - item), after = (size_t)(end - close - 1), digits = 0;
    if (length < before + after || strncmp(item, node, before) != 0) {
        return false;
    }
    while (before + digits < length - after && isdigit((unsigned char)node[before + digits])) {
        digits++;
    }
    return digits > 0 && before + digits + after == length && strncmp(close + 1, node + length - after, after) == 0 &&
           in_set(open + 1, close, node + before, digits);
}

static const char *end_of_item(const char *item)
{
    bool inside = false;
    for (; *item != '\0' && (inside || *item != ','); item++) {
        inside = (inside || *item == '[') && *item != ']';
    }
    return item;
}

/* "1-3,7": what stands between brackets. */
static bool set_is_valid(const char *set, const char *close)
{
    enum { DIGITS = 9 };
    for (;;) {
        for (int number = 0; number < 2; number++) {
            size_t digits = strspn(set, "0123456789");
            set += digits;
            if (digits < 1 || digits > DIGITS || set > close) {
                return false;
            }
            if (*set != '-') {
                break;
            }
            set += number == 0;
        }
        if (set == close) {
            return true;
        }
        if (*set++ != ',') {
            return false;
        }
    }
}

bool px_node_list_is_valid(const char *list)
{
    for (const char *item = list, *end;; item = end + 1) {
        end = end_of_item(item);
        const char *open = memchr(item, '[', (size_t)(end - item));
        const char *close = open != NULL ? memchr(open, ']', (size_t)(end - open)) : NULL;
        size_t plain = strcspn(item, "[], \t");
        bool good = open == NULL ? item + plain == end && plain > 0
                                 : item + plain == open && close != NULL && set_is_valid(open + 1, close) &&
                                       close + 1 + strcspn(close + 1, "[], \t") == end;
        if (!good) {
            return false;
        }
        if (*end == '\0') {
            return true;
        }
    }
}

bool px_node_list_has(const char *list, const char *node)
{
    size_t length = strcspn(node, "."); /* Slurm's names have no domain */
    for (const char *item = list, *end;; item = end + 1) {
        end = end_of_item(item);
        if (item_matches(item, end, node, length) || item_matches(item, end, node, strlen(node))) {
            return true;
        }
        if (*end == '\0') {
            return false;
        }
    }
}

/* Numbers of a set between brackets. */
static int count_set(const char *set, const char *close)
{
    int count = 0;
    while (set < close) {
        char *end;
        long low = strtol(set, &end, 10), high = *end == '-' ? strtol(end + 1, &end, 10) : low;
        count += high >= low ? (int)(high - low + 1) : 0;
        set = end + 1;
    }
    return count;
}

int px_node_list_count(const char *list)
{
    int count = 0;
    for (const char *item = list, *end;; item = end + 1) {
        end = end_of_item(item);
        const char *open = memchr(item, '[', (size_t)(end - item));
        count += open != NULL ? count_set(open + 1, strchr(open, ']')) : 1;
        if (*end == '\0') {
            return count;
        }
    }
}

int px_cpus_per_node_sum(const char *text)
{
    int sum = 0;
    for (const char *at = text; *at != '\0';) {
        int cpus = 0, nodes = 1, used = 0;
        if (sscanf(at, "%5d%n", &cpus, &used) != 1 || cpus < 1) {
            return 0;
        }
        at += used;
        used = 0;
        if (*at == '(' && (sscanf(at, "(x%6d)%n", &nodes, &used) != 1 || used == 0 || nodes < 1)) {
            return 0;
        }
        at += used;
        if (*at != '\0' && (*at++ != ',' || *at == '\0')) {
            return 0;
        }
        sum += cpus * nodes;
    }
    return sum;
}
