/* The HDF5 library trusts what it reads: a flipped bit in the heap that holds the texts of attributes can lead it out of
 * its buffers or round in circles. A child of this process therefore reads a file first. */
#include "frame.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_DEPTH = 3, MAX_LINKS = 10000 }; /* tables lie in the root; their columns at most two groups below */
/* Of the child's processor time, and a second more for every ten megabytes: a hundred times what is usual. The clock on the
 * wall says nothing of a file: on a busy node, or from a busy file system, a good one takes its time. */
enum { PATIENCE_S = 4, LONGEST_S = 600 };

/* What any reader of this room could read below a group: attributes, texts, the table it may be. */
static void read_group(const px_h5 *file, const char *group, int depth)
{
    H5G_info_t info;
    hid_t id = px_h5_find(file, group, H5I_GROUP);
    if (id < 0) return;
    json_t *json = json_object();
    px_h5_read_group(file, id, group, json);
    json_decref(json);
    if (H5Aexists(id, "columns") > 0) {
        px_frame frame;
        if (px_table_read(file, group, &frame) == PX_OK) px_frame_free(&frame);
    }
    if (depth < MAX_DEPTH && H5Gget_info(id, &info) >= 0) {
        for (hsize_t i = 0; i < info.nlinks && i < MAX_LINKS; i++) {
            char name[256], path[PX_PATH_MAX];
            ssize_t n = H5Lget_name_by_idx(id, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name, H5P_DEFAULT);
            if (n <= 0 || (size_t)n >= sizeof name || px_path_join(path, sizeof path, group, name) != PX_OK) continue;
            read_group(file, path, depth + 1);
        }
    }
    H5Gclose(id);
}

/* Never returns, nor outlives its parent. What is wrong without a crash is for the parent to find and to tell. */
static void read_all(const char *path, const char *table, rlim_t seconds, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    const struct rlimit no_core = {0, 0}, cpu = {seconds, seconds + 1};
    const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGXCPU, SIGTERM, SIGINT};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_CPU, &cpu);
    int nothing = open("/dev/null", O_WRONLY); /* a message of the C library about its heap is not for the user */
    if (nothing >= 0) dup2(nothing, STDERR_FILENO);
    px_h5 file;
    if (px_h5_open_unprobed(&file, path) == PX_OK) {
        px_frame frame;
        if (!table) {
            read_group(&file, "/", 0);
        } else if (px_table_read(&file, table, &frame) == PX_OK) {
            px_frame_free(&frame);
        }
        H5Fclose(file.id); /* goes round in circles on some of them */
    }
    _exit(0);
}

/* The wait status of the child; it is killed when it takes far too long. */
static int wait_for(pid_t child)
{
    const struct timespec nap = {0, 1000000};
    double end = px_now() + LONGEST_S;
    int status = 0;
    for (;;) {
        pid_t got = waitpid(child, &status, WNOHANG);
        if (got == child) return status;
        if (got < 0 && errno != EINTR) return 0; /* somebody ignores SIGCHLD: it has ended */
        if (px_now() > end) kill(child, SIGKILL);
        nanosleep(&nap, NULL);
    }
}

/* What the end of the child says of the file: SIGTERM and SIGKILL came from elsewhere, and say nothing. */
static px_status judge(const char *path, int number)
{
    switch (number) {
    case SIGSEGV: case SIGBUS: case SIGFPE: case SIGILL: case SIGABRT: case SIGXCPU:
        return px_fail(PX_DATA, "%s: is damaged: the HDF5 library %s reading it; restore the file from a copy", path,
                       number == SIGXCPU ? "does not come to an end" : "crashes");
    default:
        return px_fail(PX_IO, "%s: the process that checks the file was ended by signal %d (%s)", path, number, strsignal(number));
    }
}

px_status px_h5_probe(const char *path, const char *table)
{
    struct stat info;
    double size = stat(path, &info) == 0 ? (double)info.st_size : 0;
    pid_t self = getpid(), child = fork();
    if (child < 0) return px_fail(PX_IO, "%s: cannot start a process to check the file: %s", path, strerror(errno));
    if (child == 0) read_all(path, table, (rlim_t)(PATIENCE_S + size / 1e7), self);
    int status = wait_for(child);
    if (WIFSIGNALED(status)) return judge(path, WTERMSIG(status));
    return WEXITSTATUS(status) == 0 ? PX_OK : judge(path, SIGABRT); /* the library, or what watches over it, has called exit */
}
