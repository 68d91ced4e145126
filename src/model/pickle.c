#include "pickle.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOKED_AT 256 /* the name of the archive's first file is in them */

bool px_is_pickle(const void *bytes, size_t length)
{
    const unsigned char *b = bytes;
    if (length >= 2 && b[0] == 0x80 && b[1] >= 2 && b[1] <= 5) return true; /* PROTO and its version */
    return length >= 4 && memcmp(b, "PK\3\4", 4) == 0 &&
           memmem(b, length < LOOKED_AT ? length : LOOKED_AT, "data.pkl", 8) != NULL;
}

static bool has_pickle_name(const char *name)
{
    static const char *const ends[] = {".bin", ".pt", ".pth", ".ckpt", ".bin.index.json"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t tail = strlen(ends[i]);
        if (length > tail && strcmp(name + length - tail, ends[i]) == 0) return true;
    }
    return false;
}

px_status px_pickle_fail(const char *path, const char *dir)
{
    return px_fail(PX_DATA,
                   "%s: pickled weights are not read, since a pickle can run code; valid is model.safetensors "
                   "(where Python is: AutoModelForCausalLM.from_pretrained(\"%s\").save_pretrained(\"NEW\"))",
                   path, dir);
}

/* Weights before what else training left there; of several the first by name, whatever order the disk has. */
static bool is_better(const char *name, const char *than)
{
    bool weights = strncmp(name, "pytorch_model", 13) == 0, others = strncmp(than, "pytorch_model", 13) == 0;
    return !*than || (weights != others ? weights : strcmp(name, than) < 0);
}

static px_status refuse_directory(const char *path)
{
    char best[256] = "", file[PX_PATH_MAX];
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        if (has_pickle_name(entry->d_name) && is_better(entry->d_name, best)) {
            snprintf(best, sizeof best, "%s", entry->d_name);
        }
    }
    if (dir) closedir(dir);
    if (!*best) return PX_OK;
    PX_TRY(px_path_join(file, sizeof file, path, best));
    return px_pickle_fail(file, path);
}

px_status px_pickle_refuse(const char *path)
{
    if (px_dir_exists(path)) return refuse_directory(path);
    if (!px_file_exists(path)) return PX_OK;
    unsigned char start[LOOKED_AT];
    int fd;
    PX_TRY(px_file_open(path, &fd));
    ssize_t length = read(fd, start, sizeof start);
    close(fd);
    bool pickle = has_pickle_name(path) || (length > 0 && px_is_pickle(start, (size_t)length));
    return pickle ? px_pickle_fail(path, "DIRECTORY") : PX_OK;
}
