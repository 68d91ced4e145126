/* Runs a target over every file of the folders and files that are named: what a fuzzer found stays found, with any
 * compiler. */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

static int replay(const char *path)
{
    px_buf text = {0};
    if (px_file_read(path, PX_TEXT_MOST, &text) != PX_OK) {
        fprintf(stderr, "%s\n", px_error_text());
        return 1;
    }
    uint8_t *exact = malloc(text.length + 1); /* a sanitizer sees a read past its end */
    memcpy(exact, text.length > 0 ? text.data : "", text.length);
    double start = px_now();
    LLVMFuzzerTestOneInput(exact, text.length);
    double seconds = px_now() - start;
    free(exact);
    px_buf_free(&text);
    if (seconds > 5.0) {
        fprintf(stderr, "%s: %.1f s\n", path, seconds);
    }
    return seconds > 5.0;
}

int main(int argc, char **argv)
{
    int failed = 0, count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *dir = opendir(argv[i]);
        struct dirent *entry;
        while (dir != NULL && (entry = readdir(dir)) != NULL) {
            char path[PX_PATH_MAX];
            if (entry->d_name[0] != '.' && px_path_join(path, sizeof path, argv[i], entry->d_name) == PX_OK) {
                failed += replay(path);
                count++;
            }
        }
        if (dir != NULL) {
            closedir(dir);
        }
    }
    px_tree_remove(fuzz_dir());
    printf("%d inputs, %d failed\n", count, failed);
    return failed > 0 || count == 0;
}
