/* Work done, counted where it is asked for. */
#include "kernels.h"

static double flops;

void px_flops_add(double count) { flops += count; }

double px_compute_flops(void) { return flops; }
