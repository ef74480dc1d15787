// Products of a block of queries with a tile of memories, which the read-out and the distances share.
//
// Rows are raw: [count, stride] floats, 16-byte aligned, stride a multiple of 4, of which the first `width` count.
// width is the number of dimensions rounded up to a multiple of 4, and what it adds holds zeros. The memories'
// centre is subtracted on the way to shared memory.
#pragma once

// Queries a block, memories a tile, dimensions a chunk.
constexpr int TILE_Q = 64;
constexpr int TILE_K = 128;
constexpr int TILE_D = 16;
constexpr int TILE_THREADS = 128;
constexpr int TILE_WARPS = TILE_THREADS / M2G_WARP;
// A warp goes over the values of its queries four queries at a time, eight lanes for each.
constexpr int PASSES = TILE_Q / TILE_WARPS / 4;
constexpr int LANE_VALUES = TILE_K / 8;

// Floats of shared memory: two chunks in flight, and the tile's values.
constexpr int STAGE = (TILE_Q + TILE_K) * TILE_D;
constexpr int STAGE_FLOATS = 2 * STAGE;
constexpr int VALUE_FLOATS = TILE_K * TILE_Q;

struct Rows {
  const float* at;
  long long stride;
  int count;
};

__device__ __forceinline__ float4 load4(const float* at) { return *reinterpret_cast<const float4*>(at); }
__device__ __forceinline__ void store4(float* at, float4 v) { *reinterpret_cast<float4*>(at) = v; }
__device__ __forceinline__ float4 minus(float4 a, float4 b) {
  return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
}

// Four columns of a row; rows past the end are answered with the last one, columns past it with zeros.
__device__ __forceinline__ float4 load_row(const Rows& rows, int row, int column, int width) {
  if (column >= width) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  return load4(rows.at + (row < rows.count ? row : rows.count - 1) * rows.stride + column);
}

// Where the value of a memory and a query lies. Groups of four queries are exchanged so that neither writing eight
// memories a thread nor reading eight memories a query meets a bank twice.
__device__ __forceinline__ int place(int memory, int query) {
  return memory * TILE_Q + (((query >> 2) ^ ((memory ^ (memory >> 3)) & 7)) << 2) + (query & 3);
}

// ||x - y||^2 of two rows in double, by a whole warp; every lane has the same sum.
__device__ __forceinline__ double distance2(const float* x, const float* y, int width) {
  double sum = 0.0;
  for (int column = 4 * (threadIdx.x % M2G_WARP); column < width; column += 4 * M2G_WARP) {
    const float4 a = load4(x + column), b = load4(y + column);
    double d = (double)a.x - (double)b.x;
    sum += d * d;
    d = (double)a.y - (double)b.y;
    sum += d * d;
    d = (double)a.z - (double)b.z;
    sum += d * d;
    d = (double)a.w - (double)b.w;
    sum += d * d;
  }
  for (int step = M2G_WARP / 2; step > 0; step /= 2) sum += __shfl_xor_sync(M2G_ALL, sum, step);
  return sum;
}

// out[8][8] += outer product of two pairs of four, or with DIRECT the squares of their differences.
template <bool DIRECT>
__device__ __forceinline__ void rank_one(float (&out)[8][8], float4 a0, float4 a1, float4 b0, float4 b1) {
  const float a[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
  const float b[8] = {b0.x, b0.y, b0.z, b0.w, b1.x, b1.y, b1.z, b1.w};
#pragma unroll
  for (int i = 0; i < 8; i++) {
#pragma unroll
    for (int j = 0; j < 8; j++) {
      out[i][j] = DIRECT ? fmaf(a[i] - b[j], a[i] - b[j], out[i][j]) : fmaf(a[i], b[j], out[i][j]);
    }
  }
}

// values[place(k, q)] = (x_q - c).(y_k - c) - half_norms[k], and -inf for k past the end of the memories. With DIRECT
// -||x_q - y_k||^2 / 2 from differences, which costs twice as much and rounds relative to itself; neither centre nor
// half_norms are looked at.
//
// A thread has queries 4 ty.. and 32 + 4 ty.., memories 4 tx.. and 64 + 4 tx... Ends with a barrier.
template <bool DIRECT>
__device__ __forceinline__ void tile_values(const Rows& queries, const Rows& memories, const float* centre,
                                            const float* half_norms, int width, float* stage, float* values) {
  const float4 none = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  // Loads: four lanes for 64 bytes of a row.
  const int part = threadIdx.x % 4, row = threadIdx.x / 4;
  float4 x[2], y[4], c;
  float sums[8][8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
#pragma unroll
    for (int j = 0; j < 8; j++) sums[i][j] = 0.0f;
  }
  const auto fetch = [&](int column) {
    column += 4 * part;
    c = !DIRECT && column < width ? load4(centre + column) : none;
#pragma unroll
    for (int i = 0; i < 2; i++) x[i] = load_row(queries, row + 32 * i, column, width);
#pragma unroll
    for (int i = 0; i < 4; i++) y[i] = load_row(memories, row + 32 * i, column, width);
  };
  // Turned, so that a dimension's numbers lie side by side. Each of the four lanes of a row exchanges blocks of
  // eight rows in its own way, which keeps their banks apart.
  const auto turn = [&](float* to, int rows, int r, float4 v) {
    to += 4 * part * rows + (r ^ (8 * part));
    to[0] = v.x;
    to[rows] = v.y;
    to[2 * rows] = v.z;
    to[3 * rows] = v.w;
  };
  const auto put = [&](float* buffer) {
#pragma unroll
    for (int i = 0; i < 2; i++) turn(buffer, TILE_Q, row + 32 * i, minus(x[i], c));
#pragma unroll
    for (int i = 0; i < 4; i++) turn(buffer + TILE_Q * TILE_D, TILE_K, row + 32 * i, minus(y[i], c));
  };
  fetch(0);
  put(stage);
  __syncthreads();
  int buffer = 0;
  for (int column = 0; column < width; column += TILE_D) {
    const bool more = column + TILE_D < width;
    if (more) fetch(column + TILE_D);
    const float* a = stage + buffer * STAGE;
    const float* b = a + TILE_Q * TILE_D;
#pragma unroll
    for (int d = 0; d < TILE_D; d++) {
      const int i = (4 * ty) ^ (8 * (d / 4)), j = (4 * tx) ^ (8 * (d / 4));
      rank_one<DIRECT>(sums, load4(a + d * TILE_Q + i), load4(a + d * TILE_Q + 32 + i), load4(b + d * TILE_K + j),
                       load4(b + d * TILE_K + 64 + j));
    }
    buffer ^= 1;
    if (more) put(stage + buffer * STAGE);
    __syncthreads();
  }
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const int memory = 64 * (j / 4) + 4 * tx + j % 4;
    const bool there = memory < memories.count;
    const float half = !DIRECT && there ? half_norms[memory] : 0.0f;
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = !there ? -M2G_INF : DIRECT ? -0.5f * sums[i][j] : sums[i][j] - half;
    store4(values + place(memory, 4 * ty), make_float4(v[0], v[1], v[2], v[3]));
    store4(values + place(memory, 32 + 4 * ty), make_float4(v[4], v[5], v[6], v[7]));
  }
  __syncthreads();
}
