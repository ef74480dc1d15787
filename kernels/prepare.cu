// What the other kernels want to know of the memories beforehand.
#include "port.cuh"

// out[k] = ||rows_k - centre||^2 / 2, one warp a row, summed in double.
//
// rows: [count, stride] of which the first n columns count; centre: [n]; out: [count].
// Block: any multiple of 32 threads in x. Grid: x such that there is a warp for every row.
extern "C" __global__ void half_norms(const float* __restrict__ rows, const float* __restrict__ centre,
                                      float* __restrict__ out, long long count, int n, long long stride) {
  const int lane = threadIdx.x % M2G_WARP;
  const long long row = (long long)blockIdx.x * (blockDim.x / M2G_WARP) + threadIdx.x / M2G_WARP;
  if (row >= count) return;
  const float* x = rows + row * stride;
  double sum = 0.0;
  for (int k = lane; k < n; k += M2G_WARP) {
    const double d = (double)x[k] - (double)centre[k];
    sum += d * d;
  }
  for (int step = M2G_WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(M2G_ALL, sum, step);
  if (lane == 0) out[row] = (float)(0.5 * sum);
}
