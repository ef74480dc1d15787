// What a device can do at most, as measured beside the other kernels: not used by any operation.
#include "port.cuh"

// to = from, in pieces of 16 bytes.
//
// from, to: [count] pieces. Any block and grid in x.
extern "C" __global__ void peak_copy(const float4* __restrict__ from, float4* __restrict__ to, long long count) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) to[i] = from[i];
}

// Eight chains of fused multiply-adds a thread, each `steps` long and independent of the others.
//
// out: one number a thread, so that nothing of it can be left out. Any block and grid in x.
extern "C" __global__ void peak_fma(float* __restrict__ out, float factor, float term, int steps) {
  const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  float chain[8];
#pragma unroll
  for (int c = 0; c < 8; ++c) chain[c] = (float)(threadIdx.x + c);
#pragma unroll 16
  for (int s = 0; s < steps; ++s) {
#pragma unroll
    for (int c = 0; c < 8; ++c) chain[c] = fmaf(chain[c], factor, term);
  }
  float sum = 0.0f;
#pragma unroll
  for (int c = 0; c < 8; ++c) sum += chain[c];
  out[thread] = sum;
}
