// What the emulation itself is tested with: kernels that are right, and one for each way in which one can be wrong.
#include "port.cuh"

// out[block] = sum of x over the block's part; a tree in shared memory, twice over so that it is used again.
extern "C" __global__ void sums(const float* x, float* out, int n) {
  DYN_SHARED(float, part);
  const int t = threadIdx.x;
  float twice[2];
  for (int pass = 0; pass < 2; ++pass) {
    const int k = blockIdx.x * blockDim.x + t;
    part[t] = k < n ? x[k] : 0.0f;
    __syncthreads();
    for (int step = blockDim.x / 2; step > 0; step /= 2) {
      if (t < step) part[t] += part[t + step];
      __syncthreads();
    }
    twice[pass] = part[0];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = twice[t % 2] + twice[1];
}

// The position of each thread, in order.
extern "C" __global__ void places(int* out) {
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int* at = out + 6 * (block * (int)(blockDim.x * blockDim.y * blockDim.z) + thread);
  at[0] = blockIdx.x;
  at[1] = blockIdx.y;
  at[2] = blockIdx.z;
  at[3] = threadIdx.x;
  at[4] = threadIdx.y;
  at[5] = threadIdx.z;
}

// One warp: every shuffle and vote, 8 answers a lane. The halves of the warp do different things in between.
extern "C" __global__ void shuffles(double* out) {
  const int lane = threadIdx.x;
  double* at = out + 8 * lane;
  const unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  at[0] = __shfl_sync(M2G_ALL, lane * 1.5, 5, 8);
  if (lane < 16) {
    at[1] = __shfl_xor_sync(half, lane, 3);
    at[2] = __shfl_down_sync(half, (float)lane, 3, 16);
  } else {
    for (int k = 0; k < 100; ++k) at[1] = __shfl_up_sync(half, (long long)lane, 2, 8);
    at[2] = __ballot_sync(half, lane % 3 == 0);
  }
  at[3] = __any_sync(half, lane == 7);
  at[4] = __all_sync(half, lane >= 16);
  at[5] = __shfl_xor_sync(M2G_ALL, lane, 16);
  at[6] = __ballot_sync(M2G_ALL, lane & 1);
  at[7] = __shfl_up_sync(M2G_ALL, lane, 1);
}

// Lanes past n have ended; the others still meet, and what they read from an ended lane is undefined.
extern "C" __global__ void early(float* out, int n) {
  const int lane = threadIdx.x;
  if (lane >= n) return;
  const float right = __shfl_down_sync(M2G_ALL, (float)lane, 1);
  out[lane] = __popc(__ballot_sync(M2G_ALL, 1)) + right;
}

// A write by one lane that the next reads, with the __syncwarp between that makes it right.
extern "C" __global__ void neighbours(float* out) {
  DYN_SHARED(float, box);
  const int t = threadIdx.x;
  for (int k = 0; k < 3; ++k) {
    box[t] = t + k;
    __syncwarp();
    out[t] = box[t ^ 1];
    __syncwarp();
  }
}

// blockDim.x: 64; out: 64 floats; shared: 64 floats.
extern "C" __global__ void faults(float* out, int which) {
  DYN_SHARED(float, box);
  const int t = threadIdx.x;
  float* const null = nullptr;
  volatile int forever = 1;
  box[t] = 1.0f;
  switch (which) {
    case 0:  // a barrier in a branch
      if (t < 32) __syncthreads();
      __syncthreads();
      break;
    case 1:  // a barrier in a branch, and none after it
      if (t < 32) __syncthreads();
      break;
    case 2:  // two barriers that are not the same
      if (t % 2) __syncthreads();
      else
        __syncthreads();
      break;
    case 3:  // a warp operation that one lane has left out
      if (t != 31) box[t] = __shfl_sync(M2G_ALL, box[t], 0);
      __syncthreads();
      break;
    case 4:  // a mask without the lane itself
      __syncwarp(0x1u);
      break;
    case 5: out[t + 1] = 1.0f; break;
    case 6: out[t - 1] = 1.0f; break;
    case 7: box[t + 1] = 1.0f; break;
    case 8:
      if (t == 5) null[0] = 1.0f;
      break;
    case 9:
      while (t == 7 && forever) {}
      break;
    case 10:  // read after write, no barrier
      out[t] = box[63 - t];
      break;
    case 11:  // write after read, no barrier
      __syncthreads();
      out[t] = box[63 - t];
      box[t] = 2.0f;
      break;
    case 12:  // every block writes the same, thread for thread
      __syncthreads();
      __syncwarp();
      out[t] = 3.0f;
      break;
    case 13:  // a sum that threads take turns at
      box[0] += 1.0f;
      break;
    case 14: out[t] = box[64 + t]; break;
    case 15: reinterpret_cast<float4*>(out + 1)[0].x = 1.0f; break;
    case 16:  // a warp's write and read with nothing between
      out[t] = box[t ^ 1];
      break;
    case 17: out[t] = t < 63 ? 1 << (t + which) : 0; break;
  }
}

extern "C" __global__ void unwritten(float* out) {
  DYN_SHARED(float, box);
  out[threadIdx.x] = box[threadIdx.x];
}
