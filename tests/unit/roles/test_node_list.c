/* Lists of nodes, as Slurm writes them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "roles/node_list.h"

static void test_valid(void **state)
{
    (void)state;
    const char *const good[] = {"a", "n1,n2", "cpu[001-016]", "cpu[1,3-5],old7", "r[1-2]-ib.site.org", "a,b[7]"};
    const char *const bad[] = {"", ",", "a,", "a,,b", "a[", "a[]", "a[1", "a]1", "a[1-]", "a[-1]", "a[1,]", "a[x]", "a[1]b[2]", "a b",
                               "a[1-2-3]", "a[1234567890]", "[[1]]", "a[1,2"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (!px_node_list_is_valid(good[i])) {
            fail_msg("'%s' is valid", good[i]);
        }
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (px_node_list_is_valid(bad[i])) {
            fail_msg("'%s' is not valid", bad[i]);
        }
    }
}

static void test_names(void **state)
{
    (void)state;
    const struct {
        const char *list, *node;
        bool in;
    } cases[] = {
        {"a", "a", true}, {"a", "ab", false}, {"ab", "a", false}, {"a,b", "b", true}, {"a", "a.site.org", true},
        {"a.site.org", "a.site.org", true}, {"n[1-3]", "n2", true}, {"n[1-3]", "n4", false}, {"n[1-3]", "n", false},
        {"n[1-3]", "n02", false}, {"n[01-03]", "n02", true}, {"n[01-03]", "n2", false}, {"n[8-12]", "n10", true},
        {"n[08-12]", "n10", true}, {"n[1,5-6],x", "n5", true}, {"n[1,5-6],x", "x", true}, {"n[1,5-6],x", "n3", false},
        {"r[1-2]-ib", "r2-ib", true}, {"r[1-2]-ib", "r2", false}, {"r[1-2]-ib", "r3-ib", false}, {"n[1-3]", "n2x", false},
        {"n[1-20]", "n99999999999999999999", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (px_node_list_has(cases[i].list, cases[i].node) != cases[i].in) {
            fail_msg("%s in %s", cases[i].node, cases[i].list);
        }
    }
}

static void test_counts(void **state)
{
    (void)state;
    assert_int_equal(px_node_list_count("a"), 1);
    assert_int_equal(px_node_list_count("a,b[7]"), 2);
    assert_int_equal(px_node_list_count("cpu[001-016],old7"), 17);
    assert_int_equal(px_node_list_count("n[1,5-6],r[08-12]-ib"), 8);
}

static void test_cpus(void **state)
{
    (void)state;
    const char *const bad[] = {"", "x", "0", "4,", ",4", "4(", "4(x)", "4(x0)", "4(x2", "4(x2)3", "4 (x2)", "4,-2"};
    assert_int_equal(px_cpus_per_node_sum("2"), 2);
    assert_int_equal(px_cpus_per_node_sum("72(x2),36"), 180);
    assert_int_equal(px_cpus_per_node_sum("1,4(x16),128(x3)"), 449);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (px_cpus_per_node_sum(bad[i]) != 0) {
            fail_msg("'%s' counts", bad[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_valid), cmocka_unit_test(test_names), cmocka_unit_test(test_counts),
                                       cmocka_unit_test(test_cpus)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
