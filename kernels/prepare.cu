// What the other kernels want to know of rows beforehand.
#include "port.cuh"

// ||row - centre||^2 summed in double, by a whole warp; every lane has the same sum.
__device__ __forceinline__ double centred_norm2(const float* row, const float* centre, int n) {
  double sum = 0.0;
  for (int k = threadIdx.x % M2G_WARP; k < n; k += M2G_WARP) {
    const double d = (double)row[k] - (double)centre[k];
    sum += d * d;
  }
  for (int step = M2G_WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(M2G_ALL, sum, step);
  return sum;
}

// out[k] = ||rows_k - centre||^2 / 2, one warp a row.
//
// rows: [count, stride] of which the first n columns count; centre: [n]; out: [count].
// Block: any multiple of 32 threads in x. Grid: x such that there is a warp for every row.
extern "C" __global__ void half_norms(const float* __restrict__ rows, const float* __restrict__ centre,
                                      float* __restrict__ out, long long count, int n, long long stride) {
  const long long row = (long long)blockIdx.x * (blockDim.x / M2G_WARP) + threadIdx.x / M2G_WARP;
  if (row >= count) return;
  const double norm2 = centred_norm2(rows + row * stride, centre, n);
  if (threadIdx.x % M2G_WARP == 0) out[row] = (float)(0.5 * norm2);
}

// out[k] = ||rows_k - centre||^2 in double; all else as half_norms.
extern "C" __global__ void norms2(const float* __restrict__ rows, const float* __restrict__ centre,
                                  double* __restrict__ out, long long count, int n, long long stride) {
  const long long row = (long long)blockIdx.x * (blockDim.x / M2G_WARP) + threadIdx.x / M2G_WARP;
  if (row >= count) return;
  const double norm2 = centred_norm2(rows + row * stride, centre, n);
  if (threadIdx.x % M2G_WARP == 0) out[row] = norm2;
}

// part[slab, column] = sum of a column over a slab of `span` rows, one thread a column.
//
// rows: [count, stride] of which the first n columns count; part: [slabs, n].
// Block: any number of threads in x. Grid: x such that there is a thread for every column, y a slab.
extern "C" __global__ void column_sums(const float* __restrict__ rows, double* __restrict__ part, long long count,
                                       int n, long long stride, int span) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= n) return;
  const long long start = (long long)blockIdx.y * span;
  const long long end = start + span < count ? start + span : count;
  double sum = 0.0;
  for (long long row = start; row < end; row++) sum += (double)rows[row * stride + column];
  part[(long long)blockIdx.y * n + column] = sum;
}

// centre[column] = the mean of a column from the sums over its slabs, taken in their order, and 0 from n to width.
//
// Block: any number of threads in x. Grid: x such that there is a thread for each of `width` columns.
extern "C" __global__ void column_means(const double* __restrict__ part, float* __restrict__ centre, long long count,
                                        int n, int width, int slabs) {
  const int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= width) return;
  double sum = 0.0;
  if (column < n) {
    for (int slab = 0; slab < slabs; slab++) sum += part[(long long)slab * n + column];
  }
  centre[column] = (float)(sum / (double)count);
}
