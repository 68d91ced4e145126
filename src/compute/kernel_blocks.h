/* The blocks of a matrix product, from memory to the caches: pack_a and pack_b lay out blocks of both operands,
 * block_product multiplies them; who includes this has them. pack_a returns the distance of rows that lie one below the
 * other, 0: of panels. */
enum { DEPTH_BLOCK = PX_DEPTH_BLOCK * STEP };

static void product(const px_product *job, px_real *block_a, px_real *block_b)
{
    bool in_place = px_product_in_place(job, STEP);
    bool halves = job->halves && in_place && job->rows < TILE_ROWS; /* more rows than a tile has share what is widened once */
    int row_block = in_place ? job->rows : PX_ROW_BLOCK;
    for (int i0 = 0; i0 < job->rows; i0 += row_block) {
        int rows = job->rows - i0 < row_block ? job->rows - i0 : row_block;
        for (int k0 = 0; k0 < job->depth; k0 += DEPTH_BLOCK) {
            int depth = job->depth - k0 < DEPTH_BLOCK ? job->depth - k0 : DEPTH_BLOCK, steps = steps_of(depth);
            bool load = job->add || k0 > 0, last = k0 + depth == job->depth;
            px_operand a = job->a;
            a.data += (size_t)i0 * a.row + (size_t)k0 * a.column;
            size_t lda = in_place ? a.row : pack_a(block_a, a, rows, depth);
            for (int j0 = 0; j0 < job->columns; j0 += PX_COLUMN_BLOCK) {
                int columns = job->columns - j0 < PX_COLUMN_BLOCK ? job->columns - j0 : PX_COLUMN_BLOCK;
                const px_real *panels = block_b;
                if (job->packed) {
                    panels = job->packed + (size_t)(k0 / STEP) * job->packed_columns + (size_t)(job->first + j0) * (size_t)steps;
                    if (job->halves && !halves) {
                        widen(block_b, panels, columns, steps);
                        panels = block_b;
                    }
                } else if (job->b16) {
                    pack_b16(block_b, job->b16, (size_t)job->depth, job->first + j0, columns, k0, depth);
                } else {
                    px_operand b = job->b;
                    b.data += (size_t)j0 * b.row + (size_t)k0 * b.column;
                    pack_b(block_b, b, columns, depth);
                }
                block_product(job->c + (size_t)i0 * job->ldc + j0, job->ldc, in_place ? a.data : block_a, lda, panels, halves,
                              rows, columns, steps, load, last && job->bias ? job->bias + j0 : NULL);
            }
        }
    }
}
