// Squared distances, and the k nearest memories.
//
// The nearest are found in two passes. knn_sieve keeps, for each query and split of the memories, the `keep` largest
// values (|x|^2 - d^2)/2 of the matrix product, or knn_sieve_few -d^2/2 of differences. knn_refine merges the splits,
// takes the distances of what is kept again in double, and says whether rounding could have hidden one of the k
// nearest.
#include "port.cuh"
#include "tile.cuh"

// Puts a value and its memory into a list of `keep` in falling order, by a whole warp. Equal values stay ahead.
__device__ __forceinline__ void insert(float* list, int* index, int keep, float value, int memory) {
  // From the end, so that nothing is written before it was read.
  for (int start = (keep - 1) / M2G_WARP * M2G_WARP; start >= 0; start -= M2G_WARP) {
    const int i = start + threadIdx.x % M2G_WARP;
    float here = 0.0f, before = 0.0f;
    int moved = 0;
    if (i < keep) {
      here = list[i];
      before = i > 0 ? list[i - 1] : M2G_INF;
      moved = i > 0 ? index[i - 1] : -1;
    }
    __syncwarp();
    if (i < keep && here < value) {
      list[i] = before < value ? before : value;
      index[i] = before < value ? moved : memory;
    }
    __syncwarp();
  }
}

// knn_sieve and knn_sieve_few: see there.
template <bool DIRECT>
__device__ __forceinline__ void sieve(const Rows& queries, const Rows& memories, const float* centre,
                                      const float* half_norms, int width, int span, long long self, int keep,
                                      float* stage, float* part_value, int* part_index) {
  const int m = queries.count, count = memories.count;
  float* values = stage + STAGE_FLOATS;
  float* lists = values + VALUE_FLOATS;
  int* indices = reinterpret_cast<int*>(lists + TILE_Q * keep);
  const int lane = threadIdx.x % M2G_WARP, warp = threadIdx.x / M2G_WARP;
  const long long first = (long long)blockIdx.x * TILE_Q, split = blockIdx.y;
  const long long start = split * span;
  const int end = count < start + span ? count : (int)(start + span);
  const int size = m - first < TILE_Q ? (int)(m - first) : TILE_Q;
  const Rows rows = {queries.at + first * queries.stride, queries.stride, size};
  for (int i = threadIdx.x; i < TILE_Q * keep; i += TILE_THREADS) {
    lists[i] = -M2G_INF;
    indices[i] = -1;
  }
  for (int at = (int)start; at < end; at += TILE_K) {
    tile_values<DIRECT>(rows, {memories.at + at * memories.stride, memories.stride, end - at}, centre, half_norms + at,
                        width, stage, values);
#pragma unroll 1
    for (int pass = 0; pass < PASSES; pass++) {
      const int low = 4 * (PASSES * warp + pass);
      const int q = low + lane % 4;
      const long long own = self < 0 ? -1 : self + first + q - at;
      float worst = q < size ? lists[q * keep + keep - 1] : M2G_INF;
#pragma unroll 1
      for (int j = 0; j < LANE_VALUES; j++) {
        const int memory = 8 * j + lane / 4;
        const float value = values[place(memory, q)];
        unsigned left = __ballot_sync(M2G_ALL, value > worst && memory != own);
        while (left) {
          const int from = __ffs(left) - 1;
          left &= left - 1;
          const float v = __shfl_sync(M2G_ALL, value, from);
          // The list may have risen since.
          if (v > __shfl_sync(M2G_ALL, worst, from)) {
            const int query = low + from % 4;
            insert(lists + query * keep, indices + query * keep, keep, v, at + 8 * j + from / 4);
            if (q == query) worst = lists[q * keep + keep - 1];
          }
        }
      }
    }
    // The next tile's first barrier is before its values are written, and after all of these are read.
  }
  __syncthreads();
  const long long to = (split * m + first) * keep;
  for (int i = threadIdx.x; i < size * keep; i += TILE_THREADS) {
    part_value[to + i] = lists[i];
    part_index[to + i] = indices[i];
  }
}

// The `keep` largest values of every query in each split, in falling order; -inf and -1 where there are fewer.
//
// queries: [m, stride_q], memories: [count, stride], centre: [width], half_norms: [count]; query i passes over memory
// self + i where self is not negative. part_value, part_index: [splits, m, keep].
// Block: 128 threads. Grid: x a block for 64 queries, y a split of `span` memories. Shared memory: sieve_shared() of
// the engine.
extern "C" __global__ void __launch_bounds__(128)
    knn_sieve(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
              long long stride, int count, const float* __restrict__ centre, const float* __restrict__ half_norms,
              int width, int span, long long self, int keep, float* part_value, int* part_index) {
  DYN_SHARED(float, stage);
  sieve<false>({queries, stride_q, m}, {memories, stride, count}, centre, half_norms, width, span, self, keep,
              stage, part_value, part_index);
}

// knn_sieve for few dimensions, where neighbours lie closer than the product's rounding can tell.
extern "C" __global__ void __launch_bounds__(128)
    knn_sieve_few(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
                  long long stride, int count, const float* __restrict__ centre, const float* __restrict__ half_norms,
                  int width, int span, long long self, int keep, float* part_value, int* part_index) {
  DYN_SHARED(float, stage);
  sieve<true>({queries, stride_q, m}, {memories, stride, count}, centre, half_norms, width, span, self, keep,
             stage, part_value, part_index);
}

// The k nearest in order of (distance, index), one warp a query.
//
// norms2: [m] squared norms about the centre, `reach` the largest norm of a centred memory, `rounding` half a unit in
// the last place of 1, `eligible` how many memories a query may have for neighbours, `direct` whether the sieve took
// differences. squared: [m, k] doubles, index: [m, k]; certain[q] is 0 where rounding may have hidden a neighbour, or
// fewer than k are kept.
// Block: 128 threads. Grid: x a block for 4 queries. Shared memory: 16 bytes for each of 4 x keep.
extern "C" __global__ void __launch_bounds__(128, 8)
    knn_refine(const float* __restrict__ queries, long long stride_q, int m, const double* __restrict__ norms2,
               const float* __restrict__ memories, long long stride, int width, int splits, int keep, int k,
               int eligible, int direct, float rounding, double reach, const float* __restrict__ part_value,
               const int* __restrict__ part_index, double* squared, int* index, int* certain) {
  DYN_SHARED(double, shared);
  const int lane = threadIdx.x % M2G_WARP, warp = threadIdx.x / M2G_WARP;
  double* exact = shared + 2 * warp * keep;
  float* list = reinterpret_cast<float*>(exact + keep);
  int* kept = reinterpret_cast<int*>(list + keep);
  const long long q = (long long)blockIdx.x * 4 + warp;
  if (q >= m) return;
  for (int i = lane; i < keep; i += M2G_WARP) {
    list[i] = part_value[q * keep + i];
    kept[i] = part_index[q * keep + i];
  }
  __syncwarp();
  // The best of 32 splits at a time, as most are no better than the worst that is kept.
  for (int start = 1; start < splits; start += M2G_WARP) {
    const int own = start + lane;
    const float best = own < splits ? part_value[((long long)own * m + q) * keep] : -M2G_INF;
    for (unsigned left = __ballot_sync(M2G_ALL, best > list[keep - 1]); left; left &= left - 1) {
      const long long from = ((long long)(start + __ffs(left) - 1) * m + q) * keep;
      for (int i = 0; i < keep; i++) {
        const float value = part_value[from + i];
        if (!(value > list[keep - 1])) break;
        __syncwarp();
        insert(list, kept, keep, value, part_index[from + i]);
      }
    }
  }
  int found = 0;
  for (int i = 0; i < keep && kept[i] >= 0; i++) {
    const double d2 = distance2(queries + q * stride_q, memories + kept[i] * stride, width);
    if (lane == 0) exact[i] = d2;
    found++;
  }
  // Overwritten by the lane of the k-th: there is none when fewer are kept.
  if (lane == 0) certain[q] = 0;
  for (int i = found + lane; i < k; i += M2G_WARP) {
    squared[q * k + i] = 0.0;
    index[q * k + i] = 0;
  }
  __syncwarp();
  for (int i = lane; i < found; i += M2G_WARP) {
    int rank = 0;
    for (int j = 0; j < found; j++) rank += exact[j] < exact[i] || (exact[j] == exact[i] && kept[j] < kept[i]);
    if (rank < k) {
      squared[q * k + rank] = exact[i];
      index[q * k + rank] = kept[i];
    }
    if (rank == k - 1) {
      // A memory that is not kept lies no nearer than this.
      const double least = -2.0 * list[keep - 1], tiny = (width + 4) * 3e-45;
      double floor;
      if (direct) {
        // n roundings of the sum, two of each difference; and products that are no normal numbers.
        floor = least - rounding * (width + 4) * least - tiny;
      } else {
        // x.y - |y|^2/2 is wrong by n roundings of the product, and those of centring both sides. The norm is
        // rounded up.
        const double norm = (double)sqrtf((float)norms2[q]) * 1.000001;
        const double bound = rounding * ((width + 4) * norm * reach + 4.0 * (norm + reach) * (norm + reach));
        floor = norms2[q] + least - 2.0 * bound - tiny;
      }
      certain[q] = found >= eligible || exact[i] < floor;
    }
  }
}

// squared[q, k] = ||x_q - y_k||^2 of a block of queries and a tile of memories. Where the product's rounding would show,
// the distance is taken directly in double, and so copies are at exactly 0.
//
// `allowed` is the largest relative error, `reach` the largest norm of a centred memory. squared: [m, count].
// Block: 128 threads. Grid: x a block for 64 queries, y a tile of 128 memories. Shared memory: tile_shared() of the
// engine.
extern "C" __global__ void __launch_bounds__(128)
    pairwise(const float* __restrict__ queries, long long stride_q, int m, const double* __restrict__ norms2,
             const float* __restrict__ memories, long long stride, int count, const float* __restrict__ centre,
             const float* __restrict__ half_norms, int width, float rounding, float allowed, float reach,
             float* squared) {
  DYN_SHARED(float, stage);
  float* values = stage + STAGE_FLOATS;
  const int lane = threadIdx.x % M2G_WARP, warp = threadIdx.x / M2G_WARP;
  const long long first = (long long)blockIdx.x * TILE_Q, start = (long long)blockIdx.y * TILE_K;
  const int size = m - first < TILE_Q ? (int)(m - first) : TILE_Q;
  const int memories_here = count - start < TILE_K ? (int)(count - start) : TILE_K;
  const Rows rows = {queries + first * stride_q, stride_q, size};
  const Rows tile = {memories + start * stride, stride, memories_here};
  tile_values<false>(rows, tile, centre, half_norms + start, width, stage, values);
  const float root = sqrtf((float)width);
#pragma unroll 1
  for (int pass = 0; pass < PASSES; pass++) {
    const int low = 4 * (PASSES * warp + pass);
    const int q = low + lane % 4;
    const double norm2 = q < size ? norms2[first + q] : 0.0;
    const float norm = sqrtf((float)norm2);
    // Of d^2 = |x|^2 - 2 value. Sums of n roundings grow as their root.
    const float bound =
        2.0f * rounding * ((8.0f + root) * norm * reach + 4.0f * (norm * norm + reach * reach));
#pragma unroll 1
    for (int j = 0; j < LANE_VALUES; j++) {
      const int memory = 8 * j + lane / 4;
      const bool there = q < size && memory < memories_here;
      float d2 = (float)(norm2 - 2.0 * (double)values[place(memory, q)]);
      unsigned left = __ballot_sync(M2G_ALL, there && !(bound <= allowed * d2));
      while (left) {
        const int from = __ffs(left) - 1;
        left &= left - 1;
        const double exact = distance2(rows.at + (low + from % 4) * stride_q,
                                       tile.at + (8 * j + from / 4) * stride, width);
        if (lane == from) d2 = (float)exact;
      }
      if (there) squared[(first + q) * count + start + memory] = d2;
    }
  }
}

// squared[q, k] = ||x_q - y_k||^2 in double, one warp a pair.
//
// queries: [m, stride_q], memories: [count, stride]; squared: [m, count].
// Block: 128 threads. Grid: x a block for 4 memories, y a query.
extern "C" __global__ void __launch_bounds__(128)
    distances(const float* __restrict__ queries, long long stride_q, const float* __restrict__ memories,
              long long stride, int count, int width, double* squared) {
  const long long memory = (long long)blockIdx.x * 4 + threadIdx.x / M2G_WARP, query = blockIdx.y;
  if (memory >= count) return;
  const double d2 = distance2(queries + query * stride_q, memories + memory * stride, width);
  if (threadIdx.x % M2G_WARP == 0) squared[query * count + memory] = d2;
}
