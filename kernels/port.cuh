// What NVRTC, nvcc and a processor's compiler name differently. Kernels include this file and nothing else.
#pragma once

#ifdef MEM2GEN_HOST
// The tests compile the kernels for the processor, with an emulation of blocks, warps and barriers that
// defines the CUDA names and the same macros as below.
#include "emulator.hpp"
#else

// Dynamic shared memory, once a kernel.
extern __shared__ __align__(16) unsigned char mem2gen_shared_[];
#define DYN_SHARED(type, name) type* name = reinterpret_cast<type*>(mem2gen_shared_)
#define M2G_INF __int_as_float(0x7f800000)

#endif

#define M2G_WARP 32
#define M2G_ALL 0xffffffffu
