// Stands in for NVIDIA's libcuda in tests of the driver layer: the few calls that the layer makes, with memory of
// the host, and `half_norms` as the only kernel that does anything. It is linked against nothing, so that what a
// real one would refuse is refused here: copies past the end, freed memory, shared memory that was not opted in to.
// As on a device, a launch that goes wrong is told of by the call after it, and by every later one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long Pointer;
enum { OK, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_IMAGE = 200, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700 };

static const size_t TOTAL = 1 << 20;
static struct { char* at; size_t bytes; } blocks[64];
static size_t used;
static int stopped;
static struct Function { char name[64]; int shared; } functions[64];

static int inside(Pointer p, size_t bytes) {
  for (int b = 0; b < 64; ++b) {
    const Pointer start = (Pointer)blocks[b].at;
    if (start && p >= start && p + bytes <= start + blocks[b].bytes) return 1;
  }
  return 0;
}

int cuInit(unsigned flags) { return OK; }
int cuDeviceGetCount(int* count) { return *count = 1, OK; }
int cuDeviceGet(int* device, int number) { return *device = number, number == 0 ? OK : 101; }
int cuDeviceGetName(char* name, int bytes, int device) { return snprintf(name, bytes, "stand-in"), OK; }
int cuDeviceGetAttribute(int* value, int which, int device) {
  // Capability 8.0, 4 multiprocessors, 99 KiB of shared memory, no memory pools.
  *value = which == 75 ? 8 : which == 16 ? 4 : which == 97 ? 99 << 10 : 0;
  return OK;
}
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = &used, OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
static _Thread_local void* current;
int cuCtxGetCurrent(void** context) { return *context = current, OK; }
int cuCtxSetCurrent(void* context) { return current = context, OK; }
int cuCtxSynchronize(void) { return stopped; }
int cuStreamCreate(void** stream, unsigned flags) { return *stream = &stopped, OK; }
int cuStreamDestroy_v2(void* stream) { return OK; }
int cuStreamSynchronize(void* stream) { return stopped; }
int cuGetErrorString(int code, const char** text) { return *text = "", OK; }

int cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = TOTAL - used, *total = TOTAL, stopped; }
// For the tests: calls of cuMemAlloc so far.
int stand_in_allocations;
int cuMemAlloc_v2(Pointer* pointer, size_t bytes) {
  ++stand_in_allocations;
  if (stopped || bytes == 0) return stopped ? stopped : INVALID_VALUE;
  if (bytes > TOTAL - used) return OUT_OF_MEMORY;
  for (int b = 0; b < 64; ++b) {
    if (blocks[b].at) continue;
    blocks[b].at = malloc(bytes);
    blocks[b].bytes = bytes;
    used += bytes;
    return *pointer = (Pointer)blocks[b].at, OK;
  }
  return OUT_OF_MEMORY;
}
int cuMemFree_v2(Pointer pointer) {
  for (int b = 0; b < 64; ++b) {
    if (!pointer || (Pointer)blocks[b].at != pointer) continue;
    free(blocks[b].at);
    used -= blocks[b].bytes;
    blocks[b].at = NULL;
    return stopped;
  }
  return INVALID_VALUE;
}
int cuMemcpyHtoDAsync_v2(Pointer to, const void* from, size_t bytes, void* stream) {
  if (stopped || !inside(to, bytes)) return stopped ? stopped : INVALID_VALUE;
  return memcpy((void*)to, from, bytes), OK;
}
int cuMemcpyDtoHAsync_v2(void* to, Pointer from, size_t bytes, void* stream) {
  if (stopped || !inside(from, bytes)) return stopped ? stopped : INVALID_VALUE;
  return memcpy(to, (void*)from, bytes), OK;
}

int cuModuleLoadData(void** module, const void* data) {
  // PTX, up to its null byte.
  if (!strstr(data, ".target sm_")) return INVALID_IMAGE;
  return *module = strdup(data), OK;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  char entry[128];
  snprintf(entry, sizeof entry, ".entry %s(", name);
  if (!strstr(module, entry)) return NOT_FOUND;
  for (int f = 0; f < 64; ++f) {
    if (functions[f].name[0]) continue;
    snprintf(functions[f].name, sizeof functions[f].name, "%s", name);
    functions[f].shared = 48 << 10;
    return *function = &functions[f], OK;
  }
  return NOT_FOUND;
}
int cuFuncSetAttribute(struct Function* function, int which, int value) {
  if (which != 8 || value > 99 << 10) return INVALID_VALUE;
  return function->shared = value, OK;
}
int cuLaunchKernel(struct Function* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared, void* stream, void** arguments, void** extra) {
  if (stopped) return stopped;
  if (bx * by * bz > 1024 || gx * gy * gz == 0 || (int)shared > function->shared) return INVALID_VALUE;
  if (strcmp(function->name, "half_norms")) return OK;
  const float* rows = *(float**)arguments[0];
  const float* centre = *(float**)arguments[1];
  float* out = *(float**)arguments[2];
  const long long count = *(long long*)arguments[3], stride = *(long long*)arguments[5];
  const int n = *(int*)arguments[4];
  if (!inside((Pointer)rows, 4 * ((count - 1) * stride + n)) || !inside((Pointer)centre, 4 * n) ||
      !inside((Pointer)out, 4 * count)) {
    stopped = ILLEGAL_ADDRESS;
    return OK;
  }
  for (long long row = 0; row < count; ++row) {
    double sum = 0;
    for (int k = 0; k < n; ++k) {
      const double d = (double)rows[row * stride + k] - centre[k];
      sum += d * d;
    }
    out[row] = (float)(0.5 * sum);
  }
  return OK;
}
