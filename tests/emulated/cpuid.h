/* A processor that has every instruction set the kernels know, to the one file that asks for it. */
#ifndef EMULATED_CPUID_H
#define EMULATED_CPUID_H

#define __builtin_cpu_supports(name) 1
#define __builtin_cpu_is(name) 0 /* not Intel's: pairs are as fast as they should be */
#define __get_cpuid_count(leaf, subleaf, a, b, c, d) (*(a) = *(b) = *(c) = 0, *(d) = ~0u, 1)
#include <sys/syscall.h>
#include <unistd.h>
#define syscall(number, ...) 0L /* the system grants tiles */

#endif
