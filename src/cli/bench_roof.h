/* What this machine's floating-point units can do at most. */
#ifndef PHALANX_CLI_BENCH_ROOF_H
#define PHALANX_CLI_BENCH_ROOF_H

/* GFLOP/s of float32 multiply-adds between registers on `threads` threads, the best of a few runs. */
double px_roof_gflops(int threads);

#endif
