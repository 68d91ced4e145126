/* Products on AMX tiles with the instructions done in C: what surrounds them is tested on every processor with AVX2, and where
 * it has tiles both have the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#ifdef __x86_64__
#define EMULATED
#define PX_KERNELS_X86
#define px_products_amx products_in_c
#include "compute/kernels_amx.c"
#undef px_products_amx
extern const px_products px_products_amx;

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))
enum { ROWS = 50, COLUMNS = 100, DEPTH = 1100 };

static float a[ROWS * DEPTH], b[COLUMNS * DEPTH], bias[COLUMNS], c[ROWS * COLUMNS], d[ROWS * COLUMNS];
static float packed[(COLUMNS + 31) / 32 * 32 * (DEPTH + 1)];
static float block_a[(ROWS + 32) * 400], block_b[COLUMNS * 500];

static void fill(float *x, size_t count)
{
    for (size_t i = 0; i < count; i++) x[i] = (float)(rand() % 2001 - 1000) / 512;
}

static px_product job(int rows, int columns, int depth, bool turned, bool ahead)
{
    px_product job = {.c = c, .ldc = COLUMNS, .rows = rows, .columns = columns, .depth = depth};
    job.a = turned ? (px_operand){a, 1, ROWS} : (px_operand){a, DEPTH, 1};
    job.b = turned ? (px_operand){b, 1, COLUMNS} : (px_operand){b, DEPTH, 1};
    if (!ahead) return job;
    float *to = packed;
    job.packed = packed;
    job.packed_columns = ((size_t)columns + PX_PANEL - 1) / PX_PANEL * PX_PANEL;
    for (int k = 0; k < depth; k += 2 * PX_DEPTH_BLOCK) {
        px_operand from = job.b;
        int left = depth - k < 2 * PX_DEPTH_BLOCK ? depth - k : 2 * PX_DEPTH_BLOCK;
        from.data += (size_t)k * from.column;
        products_in_c.pack_b(to, from, columns, left);
        to += job.packed_columns * (size_t)((left + 1) / 2);
    }
    return job;
}

static double element(const px_product *p, int i, int j)
{
    double sum = 0;
    for (int k = 0; k < p->depth; k++)
        sum += (double)emulated_from_bf16(emulated_to_bf16(p->a.data[(size_t)i * p->a.row + (size_t)k * p->a.column])) *
               emulated_from_bf16(emulated_to_bf16(p->b.data[(size_t)j * p->b.row + (size_t)k * p->b.column]));
    return sum;
}

static void compare(const px_product *p, const float *before)
{
    for (int i = 0; i < p->rows; i++) {
        for (int j = 0; j < p->columns; j++) {
            double want = element(p, i, j) + (p->bias ? p->bias[j] : 0) + (p->add ? before[i * COLUMNS + j] : 0);
            assert_float_equal(c[i * COLUMNS + j], want, 2e-3);
        }
        for (int j = p->columns; j < COLUMNS; j++) assert_true(c[i * COLUMNS + j] == before[i * COLUMNS + j]);
    }
}

static bool tiles_here(void) { return px_compute_bf16() && strcmp(px_compute_bf16(), "AMX") == 0; }

static void products(void **state)
{
    (void)state;
    static const int rows[] = {1, 2, 15, 16, 17, 32, 33, 50}, columns[] = {1, 16, 31, 32, 33, 100};
    static const int depths[] = {1, 2, 3, 31, 33, 64, 100, 384, 385, 768, 1100};
    fill(a, COUNT(a)), fill(b, COUNT(b)), fill(bias, COUNT(bias));
    for (int n = 0; n < COUNT(rows) * COUNT(columns) * COUNT(depths); n++) {
        px_product p = job(rows[n % COUNT(rows)], columns[n / COUNT(rows) % COUNT(columns)],
                           depths[n / COUNT(rows) / COUNT(columns)], n % 3 == 0, n % 2 == 0);
        p.bias = n % 5 < 2 ? bias : NULL;
        p.add = n % 7 < 3;
        fill(d, COUNT(d));
        memcpy(c, d, sizeof c);
        products_in_c.product(&p, block_a, block_b);
        compare(&p, d);
        if (!tiles_here()) continue;
        p.c = d;
        px_products_amx.product(&p, block_a, block_b);
        assert_memory_equal(c, d, sizeof c);
    }
}

static void rows_alone(void **state)
{
    (void)state;
    px_product all = job(ROWS, COLUMNS, DEPTH, false, true);
    products_in_c.product(&all, block_a, block_b);
    for (int i = 0; i < ROWS; i++) {
        px_product one = all;
        one.rows = 1;
        one.a.data += (size_t)i * DEPTH;
        one.c = d;
        products_in_c.product(&one, block_a, block_b);
        assert_memory_equal(d, c + i * COLUMNS, COLUMNS * sizeof *c);
    }
}

/* A matrix that lies in pieces as bf16 is packed to the words of the same matrix in float32, and multiplied to its bits. */
static void matrices_in_bf16(void **state)
{
    (void)state;
    static uint16_t halves[COLUMNS * DEPTH];
    static float words[COLUMNS * DEPTH], words16[COLUMNS * DEPTH];
    static const int columns[] = {1, 31, 32, 33, 100}, depths[] = {1, 2, 33, 63, 64, 65, 129, 768, 1100};
    fill(a, COUNT(a)), fill(b, COUNT(b));
    for (int i = 0; i < COUNT(b); i++) {
        halves[i] = (uint16_t)emulated_to_bf16(b[i]);
        b[i] = emulated_from_bf16(halves[i]);
    }
    for (int n = 0; n < COUNT(columns) * COUNT(depths); n++) {
        px_product p = job(ROWS, columns[n % COUNT(columns)], depths[n / COUNT(columns)], false, false);
        p.b.row = (size_t)p.depth;
        int cut = p.columns / 3; /* of three pieces, one may be empty */
        px_rows16 pieces = {.piece = {halves, halves + (size_t)cut * p.b.row, halves + (size_t)(p.columns - 1) * p.b.row},
                            .rows = {cut, p.columns - 1 - cut, 1}};
        int k = p.depth > 64 ? 32 : 0, panels = (p.columns + PX_PANEL - 1) / PX_PANEL;
        px_operand from = {b + k, p.b.row, 1};
        products_in_c.pack_b(words, from, p.columns, p.depth - k);
        products_in_c.pack_b16(words16, &pieces, p.b.row, 0, p.columns, k, p.depth - k);
        assert_memory_equal(words, words16, (size_t)panels * PX_PANEL * (size_t)((p.depth - k + 1) / 2) * sizeof *words);
        products_in_c.product(&p, block_a, block_b);
        memcpy(d, c, sizeof c);
        p.b = (px_operand){NULL, 0, 0};
        p.b16 = &pieces;
        products_in_c.product(&p, block_a, block_b);
        assert_memory_equal(d, c, sizeof c);
        if (!tiles_here()) continue;
        px_products_amx.product(&p, block_a, block_b);
        assert_memory_equal(d, c, sizeof c);
    }
}

int main(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        print_message("skipped: this processor has no AVX2\n");
        return 77;
    }
    print_message("tiles of the processor: %s\n", tiles_here() ? "compared too" : "none");
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(rows_alone), cmocka_unit_test(matrices_in_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    print_message("skipped: not an x86-64 processor\n");
    return 77;
}
#endif
