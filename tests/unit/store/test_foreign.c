/* HDF5 files from elsewhere whose tables are not in them: links to other files, data kept in other files, links by name.
 * None is followed, though what they point at is there and fits. */
#include "phalanx/store.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <hdf5.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256], path[300], other[300], raw[300];

/* A table of one column, eight numbers, where `make` puts the column's data set. */
static void write_file(const char *name, void (*make)(hid_t file, hid_t space))
{
    hsize_t rows = 8;
    hid_t file = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), space = H5Screate_simple(1, &rows, NULL);
    hid_t type = H5Tcopy(H5T_C_S1), text = H5Screate_simple(1, (hsize_t[]){1}, NULL);
    H5Tset_size(type, 8);
    hid_t group = H5Gcreate2(file, "/t", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    hid_t columns = H5Acreate2(group, "columns", type, text, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(columns, type, "x\0\0\0\0\0\0") >= 0);
    make(file, space);
    H5Aclose(columns);
    H5Gclose(group);
    H5Sclose(text);
    H5Tclose(type);
    H5Sclose(space);
    assert_true(H5Fclose(file) >= 0);
}

static void write_column(hid_t file, const char *name, hid_t space, hid_t list)
{
    static const int64_t numbers[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    hid_t id = H5Dcreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(id >= 0 && H5Dwrite(id, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers) >= 0);
    H5Dclose(id);
}

static void own(hid_t file, hid_t space)
{
    write_column(file, "/t/x", space, H5P_DEFAULT);
}

static void external_link(hid_t file, hid_t space)
{
    (void)space;
    assert_true(H5Lcreate_external(other, "/t/x", file, "/t/x", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void soft_link(hid_t file, hid_t space)
{
    write_column(file, "/y", space, H5P_DEFAULT);
    assert_true(H5Lcreate_soft("/y", file, "/t/x", H5P_DEFAULT, H5P_DEFAULT) >= 0);
}

static void external_storage(hid_t file, hid_t space)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(list, raw, 0, H5F_UNLIMITED);
    write_column(file, "/t/x", space, list);
    H5Pclose(list);
}

static void virtual_data(hid_t file, hid_t space)
{
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(list, space, other, "/t/x", space);
    hid_t id = H5Dcreate2(file, "/t/x", H5T_STD_I64LE, space, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(id >= 0);
    H5Dclose(id);
    H5Pclose(list);
}

/* Rows of a claim that nothing backs: eight terabytes. */
static void huge(hid_t file, hid_t space)
{
    (void)space;
    hid_t wide = H5Screate_simple(1, (hsize_t[]){1ull << 40}, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(list, 1, (hsize_t[]){1024});
    hid_t id = H5Dcreate2(file, "/t/x", H5T_STD_I64LE, wide, H5P_DEFAULT, list, H5P_DEFAULT);
    assert_true(id >= 0);
    H5Dclose(id);
    H5Pclose(list);
    H5Sclose(wide);
}

static void test_nothing_is_followed(void **state)
{
    (void)state;
    static const struct {
        void (*make)(hid_t file, hid_t space);
        const char *said;
    } cases[] = {{external_link, "has no data set /t/x of its own"},
                 {soft_link, "has no data set /t/x of its own"},
                 {external_storage, "lies in another file"},
                 {virtual_data, "lies in another file"},
                 {huge, "claims"}};
    px_frame frame;
    write_file(other, own);
    assert_int_equal(px_frame_read(other, "/t", &frame), PX_OK); /* the table itself is one that is read */
    assert_int_equal(frame.rows, 8);
    px_frame_free(&frame);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_file(path, cases[i].make);
        assert_int_equal(px_frame_read(path, "/t", &frame), PX_DATA);
        if (!strstr(px_error_text(), cases[i].said)) fail_msg("case %zu: %s", i, px_error_text());
        px_error_clear();
    }
}

/* Ends every other child of a process, for as long as it lives. */
static void end_children_of(pid_t parent)
{
    char list[64];
    snprintf(list, sizeof list, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    while (getppid() == parent) {
        int pid;
        FILE *file = fopen(list, "r");
        while (file && fscanf(file, "%d", &pid) == 1) {
            if (pid != getpid()) kill(pid, SIGTERM);
        }
        if (file) fclose(file);
    }
    _exit(0);
}

/* A launcher that ends a job also ends the child that reads the file first: the file is none the worse for it. */
static void test_a_check_that_is_ended(void **state)
{
    (void)state;
    write_file(path, own);
    pid_t test = getpid(), killer = fork();
    if (killer == 0) end_children_of(test);
    px_status status = PX_OK;
    for (int i = 0; status == PX_OK && i < 2000; i++) {
        px_frame frame;
        status = px_frame_read(path, "/t", &frame);
        if (status == PX_OK) px_frame_free(&frame);
    }
    kill(killer, SIGKILL);
    waitpid(killer, NULL, 0);
    assert_int_equal(status, PX_IO);
    assert_non_null(strstr(px_error_text(), "was ended by signal 15"));
    px_error_clear();
}

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/px_foreign_XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/run.h5", dir);
    snprintf(other, sizeof other, "%s/other.h5", dir);
    snprintf(raw, sizeof raw, "%s/raw", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    return px_tree_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nothing_is_followed), cmocka_unit_test(test_a_check_that_is_ended)};
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
