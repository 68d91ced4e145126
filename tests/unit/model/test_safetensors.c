/* The safetensors reader against bad files, and reader and writer against each other in each format. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "model/half.h"
#include "model/safetensors.h"
#include "scratch.h"

/* A file of 8 length bytes, the header and `data` zero bytes. */
static void write_file(const char *name, const char *header, int64_t length, size_t data)
{
    size_t text = strlen(header), size = 8 + text + data;
    unsigned char *bytes = calloc(1, size);
    for (int i = 0; i < 8; i++) bytes[i] = (unsigned char)((uint64_t)length >> (8 * i));
    memcpy(bytes + 8, header, text);
    scratch_write(name, bytes, size);
    free(bytes);
}

static px_status open_header(const char *header, size_t data)
{
    px_tensors tensors;
    write_file("t.safetensors", header, (int64_t)strlen(header), data);
    px_status status = px_tensors_open_file(&tensors, scratch_path("t.safetensors"));
    if (status == PX_OK) px_tensors_close(&tensors);
    return status;
}

static void test_bad_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *part;
    } cases[] = {
        {"[]", 0, "not a JSON object"},
        {"{\"a\":", 0, "not valid JSON"},
        {"{\"a\":1}", 0, "dtype"},
        {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, "too large"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0, "do not fit"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9223372036854775807]}}", 4, "outside the file"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "do not fit"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[2,6]}}",
         6, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[0,4]}}",
         4, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, "after the last tensor"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
         "\"data_offsets\":[4,8]}}",
         8, "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_refused(open_header(cases[i].header, cases[i].data), cases[i].header, cases[i].part);
    }
    assert_done(open_header(
        "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}   ",
        8));
}

static void test_bad_lengths(void **state)
{
    (void)state;
    static const int64_t lengths[] = {0, 1, 3, 1000, -1, INT64_MIN, INT64_MAX, (int64_t)101 << 20};
    px_tensors tensors;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        write_file("t.safetensors", "{}", lengths[i], 0);
        assert_refused(px_tensors_open_file(&tensors, scratch_path("t.safetensors")), "length",
                       "not a safetensors file");
    }
    for (size_t size = 0; size < 8; size++) {
        scratch_write("t.safetensors", "\2\0\0\0\0\0\0", size);
        assert_refused(px_tensors_open_file(&tensors, scratch_path("t.safetensors")), "short",
                       "not a safetensors file");
    }
    char *deep = malloc(200001);
    memset(deep, '[', 200000);
    deep[200000] = 0;
    assert_refused(open_header(deep, 0), "deep", "depth");
    free(deep);
    assert_int_equal(px_tensors_open_file(&tensors, scratch_path("absent")), PX_IO);
}

static void test_bad_values(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        uint32_t word;
        size_t size;
        const char *part;
    } cases[] = {{"F32", 0x7f800000, 4, "\"a\" holds inf"},
                 {"F32", 0x7fc00000, 4, "nan"},
                 {"F16", 0x7c00, 2, "inf"},
                 {"BF16", 0xff80, 2, "-inf"},
                 {"I32", 1, 4, "dtype I32"},
                 {"F64", 0, 8, "dtype F64"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char header[128];
        unsigned char file[256] = {0};
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%zu]}}",
                 cases[i].dtype, cases[i].size);
        size_t length = strlen(header);
        file[0] = (unsigned char)length;
        memcpy(file + 8, header, length);
        memcpy(file + 8 + length, &cases[i].word, cases[i].size < 4 ? cases[i].size : 4);
        scratch_write("v.safetensors", file, 8 + length + cases[i].size);
        px_tensors tensors;
        px_real value[1];
        assert_done(px_tensors_open_file(&tensors, scratch_path("v.safetensors")));
        assert_refused(px_tensor_read(&tensors.list[0], false, value), cases[i].dtype, cases[i].part);
        px_tensors_close(&tensors);
    }
}

/* Every 16-bit pattern survives, and rounding goes to the nearer neighbour, ties to the even one. */
static void test_halves(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = px_from_f16((uint16_t)h), b = px_from_bf16((uint16_t)h);
        if (!isnan(f)) assert_int_equal(px_to_f16(f), h);
        if (!isnan(b)) assert_int_equal(px_to_bf16(b), h);
        if (isnan(f)) assert_true(isnan(px_from_f16(px_to_f16(f))));
        if (isnan(b)) assert_true(isnan(px_from_bf16(px_to_bf16(b))));
    }
    for (uint32_t h = 0; h < 0x7bff; h++) { /* between neighbours of F16; the middle is exact in float */
        float low = px_from_f16((uint16_t)h), high = px_from_f16((uint16_t)(h + 1)), middle = low + (high - low) / 2;
        assert_int_equal(px_to_f16(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(px_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(px_to_f16(nextafterf(middle, INFINITY)), h + 1);
    }
    for (uint32_t h = 0; h < 0x7f7f; h += 7) {
        float middle = px_float_of_bits(h << 16 | 0x8000u);
        assert_int_equal(px_to_bf16(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(px_to_bf16(px_float_of_bits(h << 16 | 0x7fffu)), h);
        assert_int_equal(px_to_bf16(px_float_of_bits(h << 16 | 0x8001u)), h + 1);
    }
    assert_int_equal(px_to_f16(65504), 0x7bff);
    assert_int_equal(px_to_f16(65519), 0x7bff);
    assert_int_equal(px_to_f16(65520), 0x7c00);
    assert_int_equal(px_to_f16(-1e30f), 0xfc00);
    assert_true(px_from_f16(0x3555) == 0.333251953125f); /* nearest to 1/3 */
    assert_int_equal(px_to_bf16(3.14159265f), 0x4049);
}

static void fill(px_real *values, size_t count, px_dtype dtype) { /* exact in the format */
    px_rng rng = px_rng_make(3, "values", PX_RNG_NOISE);
    for (size_t i = 0; i < count; i++) {
        float value = (float)px_rng_normal(&rng, (uint32_t)i, 0, 0, 0);
        values[i] = dtype == PX_F16    ? px_from_f16(px_to_f16(value))
                    : dtype == PX_BF16 ? px_from_bf16(px_to_bf16(value))
                                       : value;
    }
}

/* What a process that was killed leaves of one file, and what belongs to another. */
static void leave_temporaries(void)
{
    assert_done(px_file_write(scratch_path("r.safetensors.px-00000000-1.tmp"), "x", 1));
    assert_done(px_file_write(scratch_path("q.safetensors.px-00000000-1.tmp"), "x", 1));
}

static void check_temporaries(void)
{
    char own[PX_PATH_MAX];
    assert_done(px_temporary_path(own, sizeof own, scratch_path("r.safetensors")));
    assert_false(px_file_exists(own));
    assert_false(px_file_exists(scratch_path("r.safetensors.px-00000000-1.tmp")));
    assert_true(px_file_exists(scratch_path("q.safetensors.px-00000000-1.tmp")));
}

static void test_round_trip(void **state)
{
    (void)state;
    enum { ROWS = 300, COLUMNS = 257 }; /* more than one write's piece, no multiple of a tile */
    static px_real matrix[ROWS * COLUMNS], vector[5], back[ROWS * COLUMNS];
    static const px_dtype dtypes[] = {PX_F32, PX_F16, PX_BF16};
    for (int d = 0; d < 3; d++) {
        fill(matrix, ROWS * COLUMNS, dtypes[d]);
        fill(vector, 5, dtypes[d]);
        for (int transposed = 0; transposed < 2; transposed++) {
            px_tensor_source sources[] = {{"m", 2, {ROWS, COLUMNS}, transposed, matrix, 0},
                                          {"v", 1, {5, 1}, false, vector, 0}};
            px_tensors tensors;
            leave_temporaries();
            assert_done(px_safetensors_write(scratch_path("r.safetensors"), sources, 2, dtypes[d]));
            check_temporaries();
            assert_done(px_tensors_open_file(&tensors, scratch_path("r.safetensors")));
            assert_int_equal(tensors.count, 2);
            assert_int_equal(tensors.list[0].shape[0], transposed ? COLUMNS : ROWS);
            assert_int_equal((uintptr_t)tensors.list[0].data % 8, 0);
            assert_done(px_tensor_read(&tensors.list[0], transposed, back));
            assert_memory_equal(back, matrix, sizeof matrix);
            assert_done(px_tensor_read(&tensors.list[1], false, back));
            assert_memory_equal(back, vector, sizeof vector);
            if (transposed) { /* the file's first row is our first column */
                assert_done(px_tensor_read(&tensors.list[0], false, back));
                for (int r = 0; r < ROWS; r++) assert_true(back[r] == matrix[r * COLUMNS]);
            }
            px_tensors_close(&tensors);
        }
    }
    vector[2] = 70000; /* over the range of F16: the old file stays */
    px_tensor_source source = {"v", 1, {5, 1}, false, vector, 0};
    assert_refused(px_safetensors_write(scratch_path("r.safetensors"), &source, 1, PX_F16), "range", "f16 cannot hold");
    assert_true(px_file_exists(scratch_path("r.safetensors")));
    check_temporaries();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad_headers), cmocka_unit_test(test_bad_lengths), cmocka_unit_test(test_bad_values),
        cmocka_unit_test(test_halves),      cmocka_unit_test(test_round_trip),
    };
    return cmocka_run_group_tests(tests, scratch_open, scratch_close);
}
