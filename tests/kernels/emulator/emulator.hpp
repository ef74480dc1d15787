// The CUDA names that kernels use, for a C++ compiler. Add a name here when a kernel needs it; static __shared__ arrays
// and float atomics are excluded on purpose.
//
// The runtime (runtime.cpp) runs each CUDA thread as a fiber until it waits or ends, one at a time.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace emulator {

// Where a thread waits.
struct Site {
  const char* op;
  const char* file;
  int line;
  // Equal texts are one in a library; strcmp would be looked at by ThreadSanitizer.
  bool operator==(const Site& o) const { return op == o.op && file == o.file && line == o.line; }
};

extern const uint3* thread;  // index of the thread that runs
extern uint3 block;
extern dim3 block_shape, grid_shape;
extern unsigned char* shared;

// Waits for all threads of the block.
void barrier(Site at);
// Waits for the lanes of a mask. The answer is the value that lane `from` brought.
uint64_t exchange(Site at, unsigned mask, uint64_t value, unsigned from);
// Waits for the lanes of a mask. The answer has a bit for each lane that brought true.
unsigned ballot(Site at, unsigned mask, bool value);
unsigned lane();

// Lane that a shuffle reads from: `to`, or the lane itself where that is outside of its group of `width`.
inline unsigned within(int to, int low, int high) { return to < low || to > high ? lane() : unsigned(to); }

template <class T>
T shuffle(Site at, unsigned mask, T value, unsigned from) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = exchange(at, mask, bits, from);
  memcpy(&value, &bits, sizeof(T));
  return value;
}

// A kernel as the runtime calls it: one letter for each argument's type, and the arguments as 8 bytes each.
struct Kernel {
  const char* name;
  const char* kinds;
  void (*call)(const uint64_t* args);
};
bool enlist(Kernel kernel);

template <class T>
constexpr char kind() {
  if constexpr (std::is_pointer_v<T>) return 'p';
  else if constexpr (std::is_same_v<T, float>) return 'f';
  else if constexpr (std::is_same_v<T, double>) return 'd';
  else {
    static_assert(std::is_integral_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "no such kernel argument");
    return sizeof(T) == 4 ? 'i' : 'l';
  }
}

template <class T>
T unpack(uint64_t bits) {
  T value;
  memcpy(&value, &bits, sizeof(T));
  return value;
}

template <auto F>
struct Entry;
template <class... A, void (*F)(A...)>
struct Entry<F> {
  static constexpr char kinds[] = {kind<A>()..., 0};
  template <size_t... I>
  static void spread(const uint64_t* args, std::index_sequence<I...>) { F(unpack<A>(args[I])...); }
  static void call(const uint64_t* args) { spread(args, std::index_sequence_for<A...>()); }
};

}  // namespace emulator

#define M2G_KERNEL(name) \
  static const bool enlisted_##name =  \
      emulator::enlist({#name, emulator::Entry<&name>::kinds, emulator::Entry<&name>::call});

#define DYN_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::shared)
#define M2G_INF __builtin_inff()

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define threadIdx (*emulator::thread)
#define blockIdx (emulator::block)
#define blockDim (emulator::block_shape)
#define gridDim (emulator::grid_shape)

// The line is that of the caller: default arguments are evaluated there.
#define M2G_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(M2G_AT) { emulator::barrier({"__syncthreads", file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, M2G_AT) {
  emulator::ballot({"__syncwarp", file, line}, mask, false);
}
inline unsigned __ballot_sync(unsigned mask, int p, M2G_AT) {
  return emulator::ballot({"__ballot_sync", file, line}, mask, p != 0);
}
inline int __any_sync(unsigned mask, int p, M2G_AT) {
  return emulator::ballot({"__any_sync", file, line}, mask, p != 0) != 0;
}
inline int __all_sync(unsigned mask, int p, M2G_AT) {
  return emulator::ballot({"__all_sync", file, line}, mask, p == 0) == 0;
}
template <class T>
T __shfl_sync(unsigned mask, T v, int from, int width = 32, M2G_AT) {
  const int low = emulator::lane() & ~(width - 1);
  return emulator::shuffle({"__shfl_sync", file, line}, mask, v, low | (from & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32, M2G_AT) {
  const int at = emulator::lane(), high = at | (width - 1);
  return emulator::shuffle({"__shfl_xor_sync", file, line}, mask, v, emulator::within(at ^ lanes, 0, high));
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, M2G_AT) {
  const int at = emulator::lane(), high = at | (width - 1);
  return emulator::shuffle({"__shfl_down_sync", file, line}, mask, v, emulator::within(at + by, 0, high));
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, M2G_AT) {
  const int at = emulator::lane(), low = at & ~(width - 1);
  return emulator::shuffle({"__shfl_up_sync", file, line}, mask, v, emulator::within(at - by, low, 31));
}

using std::max;
using std::min;

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
