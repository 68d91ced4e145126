/* Included once by each kernels_*.c: all kernels for one instruction set, and their table. */
#include "kernel_activation.h"
#include "kernel_attention.h"
#include "kernel_norm.h"
#include "kernel_product.h"
#include "kernel_peak.h"
#include "kernel_softmax.h"

const px_kernels PX_ISA_TABLE = {
    .isa = PX_ISA_NAME,
    .products = {PX_ISA_NAME, TILE_ROWS, STEP, product, pack_b, pack_b16, peak, HALVE},
    .layernorm = layernorm,
    .layernorm_backward = layernorm_backward,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward = rmsnorm_backward,
    .column_sums = column_sums,
    .add = add,
    .activation = activation,
    .activation_backward = activation_backward,
    .softmax_row = softmax_row,
    .softmax_draw = softmax_draw,
    .softmax_row_backward = softmax_row_backward,
    .attention_rows = attention_rows,
    .row_dots = row_dots,
    .key_block = key_block,
    .round_bf16 = round_bf16,
    .narrow = narrow,
    .attention_scores = attention_scores,
};
