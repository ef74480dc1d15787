// Softmax read-out of queries from memories, never holding more than a tile of their products: energy, score,
// entropy of the weights and heaviest memory.
//
// The memories are cut into splits of `span`. For each split and query the first pass leaves running sums relative to
// a reference, the split's heaviest memory at the squared distance `near2`, with w_k = exp(-beta (d2_k - near2)):
//   sum = sum_k w_k, moment = sum_k w_k log w_k, product = the part of `sum` that went through the matrix product,
//   shift = sum of w_k (y_k - c) over that part, and of w_k (y_k - x) over all others, [width] numbers,
//   exact = number of memories whose distance was taken again in double.
// readout_merge puts the splits together, in an order that depends on nothing else. All of it is laid out
// [split, query].
#include "port.cuh"
#include "tile.cuh"

// Columns a chunk of the read-out.
constexpr int TILE_C = 128;

// Smallest energy, times beta, that tightens the tolerance further.
#define NEAR 1e-8f
#define LOG2_E 1.44269504088896f
#define LN_2 0.693147180559945f

// Where the sums of one split go.
struct Sums {
  double* near2;
  double* sum;
  double* moment;
  double* product;
  int* heaviest;
  int* exact;
  float* shift;
};

// Largest error of a logit that does not matter, times the sum of the weights. `top` is the largest logit -beta d^2, and
// `known` what is known of the sum of the weights relative to it. Where the energy is small, as beside an isolated
// memory, an error has to be smaller by as much.
__device__ __forceinline__ float error_allowed(float tolerance, float top, float known) {
  const float sum = fmaxf(known, 1.0f);
  return tolerance * fminf(fmaxf(fabsf(top + logf(sum)), NEAR), 1.0f) * sum;
}

// Sums of a block's queries, in shared memory. A query's belong to the warp that goes over its values.
struct BlockSums {
  double norm2[TILE_Q];
  double near2[TILE_Q];
  double sum[TILE_Q];
  double moment[TILE_Q];
  double product[TILE_Q];
  int heaviest[TILE_Q];
  int exact[TILE_Q];
  // By what the shift from earlier tiles is multiplied.
  float scale[TILE_Q];
  int any[TILE_WARPS];
};

// Turns a tile's values (|x|^2 - d^2)/2 into weights, and adds them to the sums.
//
// Rounding of a logit is bounded by `bound`. Memories whose share of the weights could carry it into the result have
// their distance taken again in double; they go into sums and shift here and leave a weight of 0 in the tile. Where
// rounding can't matter, the reference rises to the tile's peak as it is.
template <bool SCORE>
__device__ __forceinline__ void fold(BlockSums& sums, float* values, const Rows& queries, const Rows& memories,
                                     int first, int width, double beta, float rounding, float tolerance, float reach,
                                     float* shift) {
  const int lane = threadIdx.x % M2G_WARP, warp = threadIdx.x / M2G_WARP;
  const float two_beta = (float)(2.0 * beta);
  bool any = false;
#pragma unroll 1
  for (int pass = 0; pass < PASSES; pass++) {
    const int low = 4 * (PASSES * warp + pass);
    const int q = low + lane % 4;
    const bool live = q < queries.count;
    const double norm2 = sums.norm2[q];
    double near2 = sums.near2[q], sum = sums.sum[q], moment = sums.moment[q], product = sums.product[q];
    int heaviest = sums.heaviest[q], exact = 0;
    float mark = (float)(0.5 * (norm2 - near2)), rescale = 1.0f;

    float peak = -M2G_INF;
    int highest = TILE_K;
    for (int j = 0; j < LANE_VALUES; j++) {
      const float v = values[place(8 * j + lane / 4, q)];
      if (v > peak) {
        peak = v;
        highest = 8 * j + lane / 4;
      }
    }
    for (int step = 4; step < M2G_WARP; step *= 2) {
      const float other = __shfl_xor_sync(M2G_ALL, peak, step);
      const int there = __shfl_xor_sync(M2G_ALL, highest, step);
      if (other > peak || (other == peak && there < highest)) {
        peak = other;
        highest = there;
      }
    }

    // Sums of n roundings grow as their root. norm2 / sqrt(n) is for centring the query.
    const float norm = sqrtf((float)norm2), root = sqrtf((float)width);
    const float bound = two_beta * rounding *
                        ((4.0f + 0.5f * root) * norm * reach + 4.0f * reach * reach + 4.0f * norm * norm / root);
    const float reference = fmaxf(peak, mark);
    const float top = -(float)beta * fminf((float)near2, (float)(norm2 - 2.0 * (double)peak));
    float known = sum > 0.0 ? (float)sum * exp2f((mark - reference) * two_beta * LOG2_E) : 0.0f;
    float allowed = error_allowed(tolerance, top, known);
    // The weight of the whole tile says how much the error of one memory matters.
    const bool open = live && known < 4.0f && bound > allowed;
    if (__any_sync(M2G_ALL, open)) {
      float own = 0.0f;
      for (int j = 0; j < LANE_VALUES; j++)
        own += exp2f((values[place(8 * j + lane / 4, q)] - reference) * two_beta * LOG2_E);
      for (int step = 4; step < M2G_WARP; step *= 2) own += __shfl_xor_sync(M2G_ALL, own, step);
      if (open) {
        // At least this much of it is there whatever the rounding.
        known += own * exp2f(-2.0f * bound * LOG2_E);
        allowed = error_allowed(tolerance, top, known);
      }
    }
    float floor = M2G_INF;
    if (live && bound > allowed) {
      // Of logarithms, as the ratio itself may overflow.
      floor = reference - (logf(bound) - logf(allowed) + 2.0f * bound) / two_beta;
      if ((peak - mark) * two_beta + bound > 0.0f) floor = fminf(floor, peak);
    } else if (live && peak > mark) {
      const double d2 = norm2 - 2.0 * (double)peak, logit = -beta * (near2 - d2);
      // The first finds no sums.
      const double weight = sum > 0.0 ? exp(logit) : 0.0;
      moment = weight > 0.0 ? weight * (moment + logit * sum) : 0.0;
      sum *= weight;
      product *= weight;
      rescale = (float)weight;
      near2 = d2;
      heaviest = first + highest;
    }
    if (__any_sync(M2G_ALL, floor < M2G_INF)) {
#pragma unroll 1
      for (int j = 0; j < LANE_VALUES; j++) {
        const int at = place(8 * j + lane / 4, q);
        // Memories past the end have no distance, however low the floor.
        const bool chosen = values[at] >= floor && values[at] > -M2G_INF;
        if (chosen) values[at] = -M2G_INF;
        exact += chosen;
        unsigned left = __ballot_sync(M2G_ALL, chosen);
        while (left) {
          const int from = __ffs(left) - 1;
          left &= left - 1;
          const int query = low + from % 4, memory = 8 * j + from / 4;
          const float* x = queries.at + query * queries.stride;
          const float* y = memories.at + memory * memories.stride;
          const double d2 = distance2(x, y, width);
          const double near = __shfl_sync(M2G_ALL, near2, from);
          const bool raise = d2 < near;
          const double logit = raise ? -beta * (near - d2) : -beta * (d2 - near);
          const double weight = exp(logit);
          // Raised, the old sums shrink by `weight` and the memory's own weight is 1. The first finds no sums.
          const double scale = raise ? weight : 1.0, own = raise ? 1.0 : weight;
          if (lane % 4 == from % 4) {
            if (raise) {
              moment = sum > 0.0 && weight > 0.0 ? weight * (moment + logit * sum) : 0.0;
              heaviest = first + memory;
              near2 = d2;
            } else if (weight > 0.0) {
              moment += weight * logit;
            }
            sum = sum * scale + own;
            product *= scale;
          }
          if (SCORE && own > 0.0) {
            float* out = shift + (long long)query * width;
            const float s = (float)scale, w = (float)own;
            for (int column = lane; column < width; column += M2G_WARP)
              out[column] = fmaf(w, y[column] - x[column], out[column] * s);
          }
        }
      }
      for (int step = 4; step < M2G_WARP; step *= 2) exact += __shfl_xor_sync(M2G_ALL, exact, step);
    }
    mark = (float)(0.5 * (norm2 - near2));
    float total = 0.0f, spread = 0.0f;
    for (int j = 0; j < LANE_VALUES; j++) {
      const int at = place(8 * j + lane / 4, q);
      const float v = values[at];
      float w = 0.0f;
      if (live && v > -M2G_INF) {
        const float logit = (v - mark) * two_beta;
        w = exp2f(logit * LOG2_E);
        total += w;
        // A logit may be -inf.
        if (w > 0.0f) spread = fmaf(w, logit, spread);
      }
      if (SCORE) values[at] = w;
    }
    for (int step = 4; step < M2G_WARP; step *= 2) {
      total += __shfl_xor_sync(M2G_ALL, total, step);
      spread += __shfl_xor_sync(M2G_ALL, spread, step);
    }
    any |= total > 0.0f;
    // All lanes have read the sums; shuffles don't order memory.
    __syncwarp();
    if (live && lane < 4) {
      sums.near2[q] = near2;
      sums.sum[q] = sum + total;
      sums.moment[q] = moment + spread;
      sums.product[q] = product + total;
      sums.heaviest[q] = heaviest;
      sums.exact[q] += exact;
      sums.scale[q] = rescale;
    }
    __syncwarp();
  }
  if (SCORE) {
    any = __any_sync(M2G_ALL, any);
    if (lane == 0) sums.any[warp] = any;
  }
}

// shift[q, :] = scale[q] shift[q, :] + sum_k weight(k, q) (y_k - c). Starts after a barrier, ends with one.
__device__ __forceinline__ void add_products(const float* weights, const float* scale, const Rows& memories,
                                             const float* centre, int width, int queries, float* stage,
                                             float* shift) {
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const int row = threadIdx.x / 32, part = 4 * (threadIdx.x % 32);
  for (int start = 0; start < width; start += TILE_C) {
    float4 y[4];
    const int column = start + part;
    const float4 c = column < width ? load4(centre + column) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    float sums[8][8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
#pragma unroll
      for (int j = 0; j < 8; j++) sums[i][j] = 0.0f;
    }
    const auto fetch = [&](int memory) {
#pragma unroll
      for (int i = 0; i < 4; i++) y[i] = load_row(memories, memory + row + 4 * i, column, width);
    };
    const auto put = [&](float* buffer) {
#pragma unroll
      for (int i = 0; i < 4; i++) store4(buffer + (row + 4 * i) * TILE_C + part, minus(y[i], c));
    };
    const int end = memories.count < TILE_K ? memories.count : TILE_K;
    fetch(0);
    put(stage);
    __syncthreads();
    int buffer = 0;
    for (int memory = 0; memory < end; memory += TILE_D) {
      const bool more = memory + TILE_D < end;
      if (more) fetch(memory + TILE_D);
      const float* b = stage + buffer * TILE_D * TILE_C;
#pragma unroll
      for (int u = 0; u < TILE_D; u++) {
        rank_one<false>(sums, load4(weights + place(memory + u, 4 * ty)),
                        load4(weights + place(memory + u, 32 + 4 * ty)), load4(b + u * TILE_C + 4 * tx),
                        load4(b + u * TILE_C + 64 + 4 * tx));
      }
      buffer ^= 1;
      if (more) put(stage + buffer * TILE_D * TILE_C);
      __syncthreads();
    }
    const float4 low = load4(scale + 4 * ty), high = load4(scale + 32 + 4 * ty);
    const float by[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const int query = 32 * (i / 4) + 4 * ty + i % 4;
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int at = start + 64 * j + 4 * tx;
        if (query < queries && at < width) {
          float* out = shift + (long long)query * width + at;
          const float4 old = load4(out);
          const float s = by[i];
          store4(out, make_float4(fmaf(old.x, s, sums[i][4 * j]), fmaf(old.y, s, sums[i][4 * j + 1]),
                                  fmaf(old.z, s, sums[i][4 * j + 2]), fmaf(old.w, s, sums[i][4 * j + 3])));
        }
      }
    }
  }
}

template <bool SCORE>
__device__ __forceinline__ void readout_tiles(Rows queries, const double* norms2, Rows memories, const float* centre,
                                              const float* half_norms, int width, int span, double beta,
                                              float rounding, float tolerance, float reach, Sums out) {
  DYN_SHARED(float, stage);
  float* values = stage + STAGE_FLOATS;
  BlockSums& sums = *reinterpret_cast<BlockSums*>(values + VALUE_FLOATS);
  const long long first = (long long)blockIdx.x * TILE_Q, split = blockIdx.y;
  const long long to = split * queries.count + first;
  const long long start = split * span;
  const int end = memories.count < start + span ? memories.count : (int)(start + span);
  queries.at += first * queries.stride;
  queries.count = queries.count - first < TILE_Q ? (int)(queries.count - first) : TILE_Q;
  float* shift = SCORE ? out.shift + to * width : nullptr;
  for (int q = threadIdx.x; q < TILE_Q; q += TILE_THREADS) {
    sums.norm2[q] = q < queries.count ? norms2[first + q] : 0.0;
    sums.near2[q] = M2G_INF;
    sums.sum[q] = sums.moment[q] = sums.product[q] = 0.0;
    sums.heaviest[q] = sums.exact[q] = 0;
    sums.scale[q] = 1.0f;
  }
  if (SCORE) {
    for (int at = threadIdx.x; at < queries.count * width; at += TILE_THREADS) shift[at] = 0.0f;
  }
  // The barriers in tile_values are between this and its first use.
  for (int at = (int)start; at < end; at += TILE_K) {
    Rows tile = memories;
    tile.at += at * memories.stride;
    tile.count = end - at;
    tile_values<false>(queries, tile, centre, half_norms + at, width, stage, values);
    fold<SCORE>(sums, values, queries, tile, at, width, beta, rounding, tolerance, reach, shift);
    __syncthreads();
    if (SCORE && (sums.any[0] | sums.any[1] | sums.any[2] | sums.any[3]))
      add_products(values, sums.scale, tile, centre, width, queries.count, stage, shift);
  }
  for (int q = threadIdx.x; q < queries.count; q += TILE_THREADS) {
    out.near2[to + q] = sums.near2[q];
    out.sum[to + q] = sums.sum[q];
    out.moment[to + q] = sums.moment[q];
    out.product[to + q] = sums.product[q];
    out.heaviest[to + q] = sums.heaviest[q];
    out.exact[to + q] = sums.exact[q];
  }
}

// First pass for more than a few dimensions, with the shift.
//
// queries: [m, stride_q], norms2: [m] squared norms about the centre, memories: [count, stride], centre: [width],
// half_norms: [count]; sums as above. `rounding` is half a unit in the last place of 1, `tolerance` the error that a
// weight may bring, `reach` the largest norm of a centred memory.
// Block: 128 threads. Grid: x a block for 64 queries, y a split. Shared memory: readout_shared() of the engine.
extern "C" __global__ void __launch_bounds__(128)
    score_tiles(const float* __restrict__ queries, long long stride_q, int m, const double* __restrict__ norms2,
                const float* __restrict__ memories, long long stride, int count, const float* __restrict__ centre,
                const float* __restrict__ half_norms, int width, int span, double beta, float rounding,
                float tolerance, float reach, double* near2, double* sum, double* moment, double* product,
                int* heaviest, int* exact, float* shift) {
  readout_tiles<true>({queries, stride_q, m}, norms2, {memories, stride, count}, centre, half_norms, width, span,
                      beta, rounding, tolerance, reach, {near2, sum, moment, product, heaviest, exact, shift});
}

// score_tiles without the shift: its last argument is not used.
extern "C" __global__ void __launch_bounds__(128)
    energy_tiles(const float* __restrict__ queries, long long stride_q, int m, const double* __restrict__ norms2,
                 const float* __restrict__ memories, long long stride, int count, const float* __restrict__ centre,
                 const float* __restrict__ half_norms, int width, int span, double beta, float rounding,
                 float tolerance, float reach, double* near2, double* sum, double* moment, double* product,
                 int* heaviest, int* exact, float* shift) {
  readout_tiles<false>({queries, stride_q, m}, norms2, {memories, stride, count}, centre, half_norms, width, span,
                       beta, rounding, tolerance, reach, {near2, sum, moment, product, heaviest, exact, shift});
}

// Memories a tile of readout_few.
constexpr int FEW_K = 128;
// Largest logarithm, to base 2, of a weight relative to the reference. Beyond it the reference moves.
#define FEW_RISE 16.0f

// One query a thread, differences directly, N dimensions or fewer.
//
// Weights other than the reference's are summed apart from it: beside a memory they are what counts. Where rounding
// could show, distances are taken again in double, and the reference moves to every nearer memory; elsewhere a nearer
// one only weighs more than 1, and the sums move to the heaviest memory at the end.
template <int N>
__device__ __forceinline__ void readout_few(const Rows& queries, const Rows& memories, int n, int span, double beta,
                                            float rounding, float tolerance, const Sums& out) {
  DYN_SHARED(float, tile);
  const long long q = (long long)blockIdx.x * blockDim.x + threadIdx.x, split = blockIdx.y;
  const bool live = q < queries.count;
  const long long start = split * span;
  const int end = memories.count < start + span ? memories.count : (int)(start + span);
  const float c2 = (float)(beta * 1.4426950408889634);
  // Rounding of a logit is at most this times d^2.
  const float relative = (float)beta * rounding * (N + 6);
  float x[N], shift[N];
#pragma unroll
  for (int i = 0; i < N; i++) {
    x[i] = live && i < n ? queries.at[q * queries.stride + i] : 0.0f;
    shift[i] = 0.0f;
  }
  // `best` is the heaviest memory's distance as the loop computes it, `mark` the reference's; `base` is the sum of the
  // weights without `rest`.
  float mark = M2G_INF, best = M2G_INF, base = 1.0f, rest = 0.0f, spread = 0.0f, allowed = 0.0f;
  double near2 = M2G_INF, others = 0.0, moment = 0.0;
  int heaviest = 0, exact = 0;
  for (int at = (int)start; at < end; at += FEW_K) {
    const int size = end - at < FEW_K ? end - at : FEW_K;
    __syncthreads();
    for (int i = threadIdx.x; i < size * N; i += blockDim.x) {
      const int row = i / N, column = i % N;
      tile[i] = column < n ? memories.at[(at + row) * memories.stride + column] : 0.0f;
    }
    __syncthreads();
    for (int k = 0; k < size; k++) {
      float y[N];
      if (N % 4 == 0) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
          const float4 v = load4(tile + k * N + i);
          y[i] = v.x, y[i + 1] = v.y, y[i + 2] = v.z, y[i + 3] = v.w;
        }
      } else {
#pragma unroll
        for (int i = 0; i < N; i++) y[i] = tile[k * N + i];
      }
      float d2 = 0.0f;
#pragma unroll
      for (int i = 0; i < N; i++) d2 = fmaf(y[i] - x[i], y[i] - x[i], d2);
      float logit = (mark - d2) * c2, w = exp2f(logit);
      bool raise = false;
      // Also where this memory outweighs all others before it, as the energy may then be small.
      if (logit > FEW_RISE || w > base + rest || relative * d2 * w > allowed) {
        double direct = 0.0;
#pragma unroll
        for (int i = 0; i < N; i++) {
          const double d = (double)y[i] - (double)x[i];
          direct += d * d;
        }
        exact++;
        raise = direct < near2;
        logit = (float)((near2 - direct) * (beta * 1.4426950408889634));
        if (raise) {
          // The reference moves here; from now on the memory before it is one of the others. At the first
          // memory all of this is 0.
          const float scale = exp2f(-logit);
          others = (others + rest + 1.0) * scale;
          moment = scale > 0.0f ? scale * (moment + spread) - logit * LN_2 * others : 0.0;
          base = 1.0f + (float)others;
          rest = 0.0f;
          spread = 0.0f;
          near2 = direct;
          mark = d2;
          if (d2 <= best) {
            best = d2;
            heaviest = at + k;
          }
          w = 1.0f;
#pragma unroll
          for (int i = 0; i < N; i++) shift[i] *= scale;
        } else {
          w = exp2f(logit);
        }
        allowed = error_allowed(tolerance, -(float)(beta * near2), base + rest);
      } else if (d2 < best) {
        best = d2;
        heaviest = at + k;
      }
      // A logit may be -inf.
      if (!raise && w > 0.0f) {
        rest += w;
        spread = fmaf(w, logit * LN_2, spread);
      }
      if (out.shift) {
#pragma unroll
        for (int i = 0; i < N; i++) shift[i] = fmaf(w, y[i] - x[i], shift[i]);
      }
    }
    others += rest;
    moment += spread;
    base = 1.0f + (float)others;
    rest = 0.0f;
    spread = 0.0f;
  }
  if (!live) return;
  if (best < mark) {
    // A nearer memory weighs more than the reference: its weight is one of the others, and becomes 1.
    const double d2 = best, logit = -beta * (near2 - d2), scale = exp(logit), sum = (1.0 + others) * scale;
    moment = scale * moment + logit * sum;
    others = sum - 1.0;
    near2 = d2;
#pragma unroll
    for (int i = 0; i < N; i++) shift[i] *= (float)scale;
  }
  const long long to = split * queries.count + q;
  out.near2[to] = near2;
  out.sum[to] = 1.0 + others;
  out.moment[to] = moment;
  out.product[to] = 0.0;
  out.heaviest[to] = heaviest;
  out.exact[to] = exact;
  if (out.shift) {
    const int width = (n + 3) / 4 * 4;
#pragma unroll
    for (int i = 0; i < (N < 4 ? 4 : N); i++) {
      if (i < width) out.shift[to * width + i] = i < N ? shift[i < N ? i : 0] : 0.0f;
    }
  }
}

// First pass for N dimensions or fewer, `shift` being null where it is not wanted; other arguments as of score_tiles.
// Block: 128 threads. Grid: x a block for 128 queries, y a split. Shared memory: a tile of 128 x N floats.
extern "C" __global__ void __launch_bounds__(128)
    readout_2(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
              long long stride, int count, int n, int span, double beta, float rounding, float tolerance,
              double* near2, double* sum, double* moment, double* product, int* heaviest, int* exact,
              float* shift) {
  readout_few<2>({queries, stride_q, m}, {memories, stride, count}, n, span, beta, rounding, tolerance,
                 {near2, sum, moment, product, heaviest, exact, shift});
}

extern "C" __global__ void __launch_bounds__(128)
    readout_4(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
              long long stride, int count, int n, int span, double beta, float rounding, float tolerance,
              double* near2, double* sum, double* moment, double* product, int* heaviest, int* exact,
              float* shift) {
  readout_few<4>({queries, stride_q, m}, {memories, stride, count}, n, span, beta, rounding, tolerance,
                 {near2, sum, moment, product, heaviest, exact, shift});
}

extern "C" __global__ void __launch_bounds__(128)
    readout_8(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
              long long stride, int count, int n, int span, double beta, float rounding, float tolerance,
              double* near2, double* sum, double* moment, double* product, int* heaviest, int* exact,
              float* shift) {
  readout_few<8>({queries, stride_q, m}, {memories, stride, count}, n, span, beta, rounding, tolerance,
                 {near2, sum, moment, product, heaviest, exact, shift});
}

extern "C" __global__ void __launch_bounds__(128)
    readout_16(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
              long long stride, int count, int n, int span, double beta, float rounding, float tolerance,
              double* near2, double* sum, double* moment, double* product, int* heaviest, int* exact,
              float* shift) {
  readout_few<16>({queries, stride_q, m}, {memories, stride, count}, n, span, beta, rounding, tolerance,
                 {near2, sum, moment, product, heaviest, exact, shift});
}

extern "C" __global__ void __launch_bounds__(128)
    readout_32(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ memories,
              long long stride, int count, int n, int span, double beta, float rounding, float tolerance,
              double* near2, double* sum, double* moment, double* product, int* heaviest, int* exact,
              float* shift) {
  readout_few<32>({queries, stride_q, m}, {memories, stride, count}, n, span, beta, rounding, tolerance,
                 {near2, sum, moment, product, heaviest, exact, shift});
}

__device__ __forceinline__ double sum_of_lanes(double value) {
  for (int step = M2G_WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(M2G_ALL, value, step);
  return value;
}

// Second pass: puts the splits of a query together, one warp a query and 128 columns of the shift.
//
// energy, entropy, top_weight: [m] doubles; heaviest: [m]; exact: [m]; shift: [m, n], from part_shift, both null where
// not wanted.
// Block: 128 threads. Grid: x a block for 4 queries, y 128 columns of the shift, or 1. Shared memory: 4 doubles for
// every split.
extern "C" __global__ void __launch_bounds__(128)
    readout_merge(const float* __restrict__ queries, long long stride_q, int m, const float* __restrict__ centre,
                  int n, int splits, double beta, const double* __restrict__ near2, const double* __restrict__ sum,
                  const double* __restrict__ moment, const double* __restrict__ product,
                  const int* __restrict__ part_heaviest, const int* __restrict__ part_exact,
                  const float* __restrict__ part_shift, double* energy, double* entropy, double* top_weight,
                  int* heaviest, int* exact, float* shift) {
  DYN_SHARED(double, shared);
  const int lane = threadIdx.x % M2G_WARP, warp = threadIdx.x / M2G_WARP;
  double* scales = shared + warp * splits;
  const long long q = (long long)blockIdx.x * 4 + warp;
  if (q >= m) return;
  double least = M2G_INF;
  int best = 0;
  for (int s = lane; s < splits; s += M2G_WARP) {
    const double d2 = near2[s * (long long)m + q];
    if (d2 < least) {
      least = d2;
      best = s;
    }
  }
  for (int step = M2G_WARP / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(M2G_ALL, least, step);
    const int there = __shfl_xor_sync(M2G_ALL, best, step);
    if (other < least || (other == least && there < best)) {
      least = other;
      best = there;
    }
  }
  double total = 0.0, spread = 0.0, through = 0.0;
  int count = 0;
  for (int s = lane; s < splits; s += M2G_WARP) {
    const long long at = s * (long long)m + q;
    const double logit = -beta * (near2[at] - least), scale = exp(logit);
    total += scale * sum[at];
    through += scale * product[at];
    if (scale > 0.0) spread += scale * (moment[at] + logit * sum[at]);
    count += part_exact[at];
    scales[s] = scale;
  }
  __syncwarp();
  total = sum_of_lanes(total);
  spread = sum_of_lanes(spread);
  through = sum_of_lanes(through);
  for (int step = M2G_WARP / 2; step > 0; step /= 2) count += __shfl_xor_sync(M2G_ALL, count, step);
  if (lane == 0 && blockIdx.y == 0) {
    energy[q] = least - log(total) / beta;
    entropy[q] = fmax(log(total) - spread / total, 0.0);
    top_weight[q] = 1.0 / total;
    heaviest[q] = part_heaviest[best * (long long)m + q];
    exact[q] = count;
  }
  if (shift == nullptr) return;
  const int width = (n + 3) / 4 * 4, column = 128 * blockIdx.y + 4 * lane;
  if (column >= width) return;
  double value[4] = {0.0, 0.0, 0.0, 0.0};
#pragma unroll 4
  for (int s = 0; s < splits; s++) {
    const float4 part = load4(part_shift + (s * (long long)m + q) * width + column);
    value[0] += scales[s] * part.x;
    value[1] += scales[s] * part.y;
    value[2] += scales[s] * part.z;
    value[3] += scales[s] * part.w;
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if (column + i < n) {
      value[i] -= through * ((double)queries[q * stride_q + column + i] - (double)centre[column + i]);
      shift[q * n + column + i] = (float)(value[i] / total);
    }
  }
}
