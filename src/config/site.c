/* site.yaml: account, partition, modules and the like, once for all runs of a user. */
#include "stage.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum form { TEXT, TIME, LAUNCHER, COUNT, NUMBER, TRUTH, LINES } form;
typedef struct site_key {
    const char *name;
    form form;
    size_t at; /* in px_site */
    const char *valid;
} site_key;

#define AT(field) offsetof(px_site, field)
static const site_key keys[] = {
    {"account", TEXT, AT(account), "text"},
    {"partition", TEXT, AT(partition), "text"},
    {"qos", TEXT, AT(qos), "text"},
    {"constraint", TEXT, AT(constraint), "text"},
    {"modules", LINES, AT(modules), "a list of modules"},
    {"setup", LINES, AT(setup), "a list of shell lines"},
    {"sbatch", LINES, AT(sbatch), "a list of options such as --mail-type=END"},
    {"launcher", LAUNCHER, AT(launcher), "srun or mpirun"},
    {"mpi", TEXT, AT(mpi), "a type that 'srun --mpi=list' shows"},
    {"nodes", COUNT, AT(nodes), "a whole number from 1"},
    {"ntasks_per_node", COUNT, AT(ntasks_per_node), "a whole number from 1"},
    {"cpus_per_task", COUNT, AT(cpus_per_task), "a whole number from 1"},
    {"memory_gib", NUMBER, AT(memory_gib), "a number above 0"},
    {"network_gbit_s", NUMBER, AT(network_gbit_s), "a number above 0"},
    {"time", TIME, AT(time), "MINUTES, HH:MM:SS or D-HH:MM:SS"},
    {"max_time", TIME, AT(max_time), "MINUTES, HH:MM:SS or D-HH:MM:SS"},
    {"signal_s", COUNT, AT(signal_s), "a whole number from 1"},
    {"requeue", TRUTH, AT(requeue), "true or false"},
};
enum { KEYS = sizeof keys / sizeof *keys };

double px_site_seconds(const char *time)
{
    static const char digits[] = "0123456789";
    long part[4] = {0};
    int colons = 0, used = 0;
    bool days = strchr(time, '-') != NULL;
    for (const char *at = time; used < 4; at++) {
        size_t length = strspn(at, digits);
        if (length == 0 || length > 6) return -1.0;
        part[used++] = strtol(at, NULL, 10);
        at += length;
        if (!*at) break;
        if (days && used == 1 ? *at != '-' : *at != ':') return -1.0;
        colons += *at == ':';
        if (used == 4) return -1.0;
    }
    if (days) return 86400.0 * (double)part[0] + 3600.0 * (double)part[1] + 60.0 * (double)part[2] + (double)part[3];
    if (colons > 2) return -1.0;
    if (colons == 2) return 3600.0 * (double)part[0] + 60.0 * (double)part[1] + (double)part[2];
    return 60.0 * (double)part[0] + (double)part[1]; /* minutes, minutes:seconds */
}

static void bad(px_problems *problems, const site_key *key, const px_node *node)
{
    px_problem_node(problems, node, "%s: '%.80s' is not valid; valid is %s", key->name, node->kind == PX_SCALAR ? node->text : "...",
                    key->valid);
}

/* Text goes into a batch script's header or a command line of it. */
static bool is_plain(const char *text)
{
    return *text && strpbrk(text, "\n\r") == NULL;
}

static void read_lines(px_problems *problems, const site_key *key, const px_node *node, px_site_list *list)
{
    int count = node->kind == PX_SCALAR ? 1 : node->count;
    if (node->kind == PX_MAP || count > PX_SITE_LINES) {
        px_problem_node(problems, node, "%s: valid is %s, at most %d", key->name, key->valid, PX_SITE_LINES);
        return;
    }
    for (int i = 0; i < count; i++) {
        const px_node *one = node->kind == PX_SCALAR ? node : node->entries[i].node;
        if (one->kind != PX_SCALAR || !is_plain(one->text)) bad(problems, key, one);
        else list->line[list->count++] = one->text;
    }
}

static void read_key(px_problems *problems, const site_key *key, const px_node *node, px_site *site)
{
    void *to = (char *)site + key->at;
    if (key->form == LINES) {
        if (!px_node_is_null(node)) read_lines(problems, key, node, to);
        return;
    }
    if (px_node_is_null(node)) return;
    if (node->kind != PX_SCALAR || !is_plain(node->text)) {
        bad(problems, key, node);
        return;
    }
    const char *text = node->text;
    char *end;
    double number = strtod(text, &end);
    bool numeric = *text && !*end && number > 0.0 && number < 1e9, fine = true;
    switch (key->form) {
    case TEXT: fine = strpbrk(text, " \t'\"") == NULL; break;
    case TIME: fine = px_site_seconds(text) > 0.0; break;
    case LAUNCHER: fine = strcmp(text, "srun") == 0 || strcmp(text, "mpirun") == 0; break;
    case COUNT: fine = numeric && number >= 1.0 && number == (double)(int64_t)number; break;
    case NUMBER: fine = numeric; break;
    case TRUTH: fine = strcmp(text, "true") == 0 || strcmp(text, "false") == 0; break;
    case LINES: break;
    }
    if (!fine) bad(problems, key, node);
    else if (key->form == COUNT) *(int64_t *)to = (int64_t)number;
    else if (key->form == NUMBER) *(double *)to = number;
    else if (key->form == TRUTH) *(bool *)to = strcmp(text, "true") == 0;
    else *(const char **)to = text;
}

static void read_site(px_problems *problems, const px_node *root, px_site *site)
{
    const char *names[KEYS];
    for (int k = 0; k < KEYS; k++) names[k] = keys[k].name;
    if (root->kind != PX_MAP) {
        px_problem_node(problems, root, "the file must be a map; valid is 'account: NAME' and the like");
        return;
    }
    for (int i = 0; i < root->count; i++) {
        const px_entry *entry = &root->entries[i];
        int k = 0;
        while (k < KEYS && strcmp(keys[k].name, entry->name) != 0) k++;
        if (k < KEYS) {
            read_key(problems, &keys[k], entry->node, site);
            continue;
        }
        const char *near = px_nearest_name(entry->name, names, KEYS);
        px_problem_entry(problems, entry, "unknown key '%s'; %s%s%s", entry->name, near ? "did you mean '" : "docs/hpc.md lists the valid ones",
                         near ? near : "", near ? "'?" : "");
    }
}

static px_status find(char path[PX_PATH_MAX], bool *named)
{
    const char *given = getenv("PHALANX_SITE"), *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    *named = given != NULL;
    int n = given ? snprintf(path, PX_PATH_MAX, "%s", given)
            : config && *config ? snprintf(path, PX_PATH_MAX, "%s/phalanx/site.yaml", config)
            : snprintf(path, PX_PATH_MAX, "%s/.config/phalanx/site.yaml", home ? home : "");
    return n < PX_PATH_MAX ? PX_OK : px_fail(PX_IO, "the path of site.yaml is too long");
}

static px_status load(px_site *site, const char *path)
{
    px_pool *pool = site->memory;
    jmp_buf exhausted;
    if (setjmp(exhausted)) return px_error_code();
    pool->exhausted = &exhausted;
    px_problems problems = {.pool = pool};
    px_yaml yaml = {.pool = pool, .problems = &problems, .expand = true};
    px_node *root = NULL;
    px_status status = px_yaml_file(&yaml, path, &root);
    if (status == PX_OK && root && !px_node_is_null(root)) read_site(&problems, root, site);
    pool->exhausted = NULL;
    return status == PX_OK ? px_problems_end(&problems) : status;
}

px_status px_site_load(px_site *site, const char *path)
{
    char found[PX_PATH_MAX];
    bool named = path != NULL;
    *site = (px_site){.launcher = "srun", .mpi = "pmix", .nodes = 1, .ntasks_per_node = 1, .network_gbit_s = 10.0,
                      .signal_s = 180, .requeue = true};
    if (!path) {
        PX_TRY(find(found, &named));
        path = found;
    }
    if (!named && !px_file_exists(path)) return PX_OK;
    site->memory = px_alloc(sizeof(px_pool), "site.yaml");
    px_status status = site->memory ? load(site, path) : px_error_code();
    if (status != PX_OK) px_site_free(site);
    return status;
}

void px_site_free(px_site *site)
{
    if (site->memory) {
        px_pool_free(site->memory);
        px_free(site->memory);
    }
    *site = (px_site){.memory = NULL};
}
