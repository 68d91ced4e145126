/* Experiments written to a directory of their own. */
#ifndef CONFIG_FILES_H
#define CONFIG_FILES_H

#include "phalanx/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char files_dir[] = "/tmp/phalanx-config-XXXXXX";
static char files_path[PX_PATH_MAX];

static int files_begin(void **state)
{
    (void)state;
    return mkdtemp(files_dir) ? 0 : -1;
}

static int files_end(void **state)
{
    (void)state;
    return px_tree_remove(files_dir) == PX_OK ? 0 : -1;
}

/* Writes a file into the directory; the path stays valid until the next call. */
static const char *file_with(const char *name, const char *text)
{
    snprintf(files_path, sizeof files_path, "%s/%s", files_dir, name);
    if (px_file_write(files_path, text, strlen(text)) != PX_OK) abort();
    return files_path;
}

static px_status load_with(px_config **config, const char *path, const char *const *sets, int count)
{
    return px_config_load(config, &(px_config_source){path, sets, count});
}

#define SFT "algorithm: sft\nrl_module: {policy: {path: m}}\ndata: {train: t.jsonl}\n"
#define PPO "algorithm: ppo\nrl_module: {policy: {path: m}, reward: {path: r}}\nenvironment: {prompts: p.jsonl}\n"

#endif
