// Runs kernels that were compiled for the processor: one fiber for each CUDA thread, one block after the other.
//
// This file is compiled without sanitizers, so that only the kernels are checked; it announces its fibers to the
// sanitizers (M2G_ASAN, M2G_TSAN). It reads requests from standard input and answers on standard output. Every error
// ends the process with a line on standard error.

#include <dlfcn.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "emulator.hpp"

#if !defined(__x86_64__) && !defined(M2G_UCONTEXT)
#define M2G_UCONTEXT
#endif
#ifdef M2G_UCONTEXT
#include <ucontext.h>
#else
extern "C" void mem2gen_jump(void** from, void* to);
asm(R"(
.text
.type mem2gen_jump, @function
mem2gen_jump:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size mem2gen_jump, .-mem2gen_jump
)");
#endif

#ifdef M2G_ASAN
extern "C" void __sanitizer_start_switch_fiber(void** fake, const void* bottom, size_t size);
extern "C" void __sanitizer_finish_switch_fiber(void* fake, const void** bottom, size_t* size);
#endif
#ifdef M2G_TSAN
extern "C" void* __tsan_get_current_fiber(void);
extern "C" void* __tsan_create_fiber(unsigned flags);
extern "C" void __tsan_switch_to_fiber(void* fiber, unsigned flags);
extern "C" void __tsan_set_fiber_name(void* fiber, const char* name);
extern "C" void __tsan_acquire(void* at);
extern "C" void __tsan_release(void* at);
#else
static void __tsan_acquire(void*) {}
static void __tsan_release(void*) {}
#endif

namespace emulator {

const uint3* thread;
uint3 block;
dim3 block_shape, grid_shape;
unsigned char* shared;

namespace {

constexpr unsigned WARP = 32;
constexpr size_t STACK = 256 << 10;
// New memory is NaN as float and as double, and outside any array as an integer.
constexpr unsigned char POISON[4] = {0xa5, 0xa5, 0xf7, 0x7f};
// AddressSanitizer has its own zones around memory, to the byte.
#ifdef M2G_ASAN
constexpr size_t GUARD = 0;
#else
constexpr size_t GUARD = 1024;
#endif

enum Schedule { FORWARD, REVERSE, RANDOM };

Schedule schedule;
long seconds;
std::mt19937_64 chance;
std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}
const char* running = "no kernel";

[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...) {
  va_list args;
  va_start(args, format);
  fputs("emulator: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  fflush(stderr);
  _exit(1);
}

// ---- Memory between guard zones ----

struct Guarded {
  unsigned char* at = nullptr;
  size_t size = 0;
  unsigned serial;

  explicit Guarded(size_t size) : size(size) {
    static unsigned count;
    serial = ++count;
    void* whole = nullptr;
    if (posix_memalign(&whole, 256, GUARD + size + GUARD + (size == 0)) != 0) fail("out of memory");
    at = static_cast<unsigned char*>(whole) + GUARD;
    for (size_t k = 0; k < GUARD; ++k) {
      at[size + k] = guard(k);
      at[k - GUARD] = guard(GUARD + k);
    }
    fill();
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { free(at - GUARD); }

  // NaN as well, but of other bits at each place, so that a NaN that was read in one zone is seen in another.
  unsigned char guard(size_t k) const {
    const unsigned word = 0x7ff00001u | ((serial * 40503u + unsigned(k / 4) * 2u) & 0xfffffu);
    return word >> 8 * (k % 4);
  }
  void fill() {
    for (size_t k = 0; k < size; ++k) at[k] = POISON[k % 4];
  }
  // The first byte past the end, or before the start, that was written to; 0 if none.
  long overrun() const {
    for (size_t k = 0; k < GUARD; ++k) {
      if (at[size + k] != guard(k)) return long(k) + 1;
      if (at[k - GUARD] != guard(GUARD + k)) return long(k) - long(GUARD);
    }
    return 0;
  }
};

std::map<uint64_t, Guarded> buffers;

// ---- Fibers ----

#ifdef M2G_UCONTEXT
using Context = ucontext_t;
void jump(Context& from, Context& to) { swapcontext(&from, &to); }
void prepare(Context& context, unsigned char* stack, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}
#else
using Context = void*;
void jump(Context& from, Context& to) { mem2gen_jump(&from, to); }
void prepare(Context& context, unsigned char* stack, void (*entry)()) {
  // Six registers, where to return to, and a word that puts the stack where the ABI wants it at an entry.
  uint64_t* top = reinterpret_cast<uint64_t*>(stack + STACK) - 8;
  memset(top, 0, 8 * sizeof(uint64_t));
  top[6] = reinterpret_cast<uint64_t>(entry);
  context = top;
}
#endif

struct Fiber {
  Context context;
  unsigned char* stack = nullptr;  // nullptr: the process's own
  void* fake = nullptr;            // AddressSanitizer's
  void* tsan = nullptr;
};

#ifdef M2G_ASAN
const void* own_stack;
size_t own_size;
#endif

void switch_fibers(Fiber& from, Fiber& to, [[maybe_unused]] bool last) {
#ifdef M2G_ASAN
  __sanitizer_start_switch_fiber(last ? nullptr : &from.fake, to.stack ? to.stack : own_stack,
                                 to.stack ? STACK : own_size);
#endif
#ifdef M2G_TSAN
  __tsan_switch_to_fiber(to.tsan, 1);  // no order between the two
#endif
  jump(from.context, to.context);
#ifdef M2G_ASAN
  __sanitizer_finish_switch_fiber(from.fake, nullptr, nullptr);
#endif
}

// ---- Threads of one block ----

enum State { READY, AT_BARRIER, AT_WARP, ENDED };

struct Thread {
  Fiber fiber;
  uint3 index;
  State state;
  Site site;
  unsigned mask;   // lanes waited for
  unsigned slot;   // of the warp operation
  unsigned from;   // lane to read, or BALLOT
  uint64_t value;  // brought, then taken
};

constexpr unsigned BALLOT = ~0u;
// More than a warp has lanes, and in turn: ThreadSanitizer must not take what a late lane finds for done.
constexpr unsigned SLOTS = 64;

struct Warp {
  unsigned waiting = 0, ended = 0;  // lanes
  unsigned last = 0;                    // slot
  unsigned arrived[SLOTS] = {};         // lanes; none where a slot is free
};

std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<uint64_t> ready;  // a bit for each thread
Fiber home;
size_t current, ended;
unsigned generation;
char start_tag, end_tag;
// Blocks that are neighbours take different sides, with a stack, a fiber and a ThreadSanitizer's thread of their own
// for each CUDA thread. Nothing orders the two sides within a launch, so that races between blocks are seen.
struct Side {
  unsigned char* stacks = nullptr;
  std::vector<void*> tsan;
  char tags[2];  // blocks of one side come after each other: in turn the one before, and this one
  unsigned blocks = 0;
  // Barriers in turn, too: with one tag, a thread that leaves late would take for done what others do after it.
  char barriers[2];
  char warps[1024 / WARP][SLOTS];
} sides[2];
Side* side;
const Kernel* kernel;
const uint64_t* arguments;

void set_ready(size_t t) {
  threads[t].state = READY;
  ready[t / 64] |= 1ull << (t % 64);
}

std::string places() {
  std::string text;
  for (size_t from = 0, to; from < threads.size(); from = to) {
    const Thread& a = threads[from];
    for (to = from + 1; to < threads.size(); ++to) {
      const Thread& b = threads[to];
      if (a.state != b.state || (a.state != ENDED && !(a.site == b.site && a.mask == b.mask))) break;
    }
    char line[256];
    const char* s = to - from > 1 ? "s" : "";
    std::string who = std::to_string(from) + (to - from > 1 ? "-" + std::to_string(to - 1) : "");
    if (a.state == ENDED) snprintf(line, sizeof line, "\n  thread%s %s ended", s, who.c_str());
    else if (a.state == AT_BARRIER)
      snprintf(line, sizeof line, "\n  thread%s %s at %s, %s:%d", s, who.c_str(), a.site.op, a.site.file, a.site.line);
    else
      snprintf(line, sizeof line, "\n  thread%s %s at %s, %s:%d, for lanes %08x", s, who.c_str(), a.site.op,
               a.site.file, a.site.line, a.mask);
    text += line;
  }
  return text;
}

// Every thread waits or has ended. A barrier opens if all threads of the block stand at it. CUDA lets ended
// threads leave a barrier; here that is an error, because a barrier in a branch looks the same.
void open_barrier() {
  bool all = true;
  for (const Thread& t : threads) all &= t.state == AT_BARRIER && t.site == threads[0].site;
  if (!all) {
    bool warp = false;
    for (const Thread& t : threads) warp |= t.state == AT_WARP;
    fail("%s of %s in block (%u,%u,%u)%s", warp ? "deadlock" : "divergent barrier", running, block.x, block.y, block.z,
         places().c_str());
  }
  ++generation;
  for (size_t t = 0; t < threads.size(); ++t) set_ready(t);
}

// Makes one of the threads that are ready the current one: the first, the last, or the first from a random one on.
bool pick() {
  const size_t words = ready.size();
  const size_t start = schedule == RANDOM ? chance() % (words * 64) : 0;
  for (size_t k = 0; k <= words; ++k) {
    const size_t w = schedule == REVERSE ? (2 * words - 1 - k) % words : (start / 64 + k) % words;
    const uint64_t bits = k == 0 ? ready[w] & ~0ull << (start % 64) : ready[w];
    if (bits == 0) continue;
    const unsigned bit = schedule == REVERSE ? 63 - __builtin_clzll(bits) : __builtin_ctzll(bits);
    ready[w] &= ~(1ull << bit);
    current = w * 64 + bit;
    thread = &threads[current].index;
    return true;
  }
  return false;
}

// Switches to another thread, from one that waits or has ended.
void yield() {
  Thread& from = threads[current];
  const bool last = from.state == ENDED;
  if (last && ++ended == threads.size()) switch_fibers(from.fiber, home, true);
  if (!pick()) {
    open_barrier();
    pick();
  }
  Thread& to = threads[current];
  if (&to != &from) switch_fibers(from.fiber, to.fiber, last);
}

// Completes a warp operation if all lanes that have not ended have reached it.
void settle(size_t w, unsigned slot) {
  Warp& warp = warps[w];
  const unsigned arrived = warp.arrived[slot];
  Thread* lanes = &threads[w * WARP];
  const Thread& any = lanes[__builtin_ctz(arrived)];
  if ((any.mask & ~(arrived | warp.ended)) != 0) return;
  uint64_t brought[WARP], poison;
  for (size_t k = 0; k < 8; ++k) reinterpret_cast<unsigned char*>(&poison)[k] = POISON[k % 4];
  unsigned votes = 0;
  for (unsigned left = arrived; left; left &= left - 1) {
    const unsigned l = __builtin_ctz(left);
    brought[l] = lanes[l].value;
    if (lanes[l].value) votes |= 1u << l;
  }
  for (unsigned left = arrived; left; left &= left - 1) {
    const unsigned l = __builtin_ctz(left);
    Thread& t = lanes[l];
    if (t.from == BALLOT) t.value = votes;
    // A read from a lane that does not take part is undefined.
    else t.value = t.from < WARP && (arrived >> t.from & 1) ? brought[t.from] : poison;
    set_ready(w * WARP + l);
  }
  warp.waiting &= ~arrived;
  warp.arrived[slot] = 0;
}

uint64_t meet(Site at, unsigned mask, uint64_t value, unsigned from) {
  const size_t w = current / WARP;
  const unsigned own = current % WARP;
  Warp& warp = warps[w];
  Thread& t = threads[current];
  if ((mask >> own & 1) == 0) {
    fail("%s of %s at %s:%d, block (%u,%u,%u): lane %u is not in its own mask %08x", at.op, running, at.file, at.line,
         block.x, block.y, block.z, own, mask);
  }
  unsigned slot = SLOTS;
  for (unsigned left = warp.waiting & mask; left && slot == SLOTS; left &= left - 1) {
    const Thread& other = threads[w * WARP + __builtin_ctz(left)];
    if (other.mask == mask && other.site == at) slot = other.slot;
  }
  if (slot == SLOTS) {
    do slot = warp.last = (warp.last + 1) % SLOTS;
    while (warp.arrived[slot] != 0);
  }
  warp.arrived[slot] |= 1u << own;
  warp.waiting |= 1u << own;
  t.state = AT_WARP;
  t.site = at;
  t.mask = mask;
  t.slot = slot;
  t.from = from;
  t.value = value;
  __tsan_release(&side->warps[w][slot]);
  settle(w, slot);
  yield();
  __tsan_acquire(&side->warps[w][slot]);
  return t.value;
}

void fiber_main() {
#ifdef M2G_ASAN
  // The first time, this tells where the process's own stack is.
  const void* bottom;
  size_t size;
  __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
  if (own_stack == nullptr) {
    own_stack = bottom;
    own_size = size;
  }
#endif
  __tsan_acquire(&start_tag);
  __tsan_acquire(&side->tags[side->blocks % 2]);
  kernel->call(arguments);
  __tsan_release(&side->tags[(side->blocks + 1) % 2]);
  __tsan_release(&end_tag);
  const size_t w = current / WARP;
  threads[current].state = ENDED;
  warps[w].ended |= 1u << (current % WARP);
  for (unsigned left = warps[w].waiting; left; left = left & warps[w].waiting & (left - 1)) {
    settle(w, threads[w * WARP + __builtin_ctz(left)].slot);
  }
  yield();
  fail("an ended thread ran again");
}

void run_block() {
  const size_t count = threads.size();
  warps.assign((count + WARP - 1) / WARP, Warp());
  // Lanes beyond the end of the block count as ended.
  if (count % WARP) warps.back().ended = ~0u << (count % WARP);
  generation = 0;
  ended = 0;
  for (size_t t = 0; t < count; ++t) {
    Thread& thread = threads[t];
    thread.index = {unsigned(t % block_shape.x), unsigned(t / block_shape.x % block_shape.y),
                    unsigned(t / block_shape.x / block_shape.y)};
    thread.fiber.stack = side->stacks + t * STACK;
    prepare(thread.fiber.context, thread.fiber.stack, fiber_main);
#ifdef M2G_TSAN
    if (t == side->tsan.size()) {
      side->tsan.push_back(__tsan_create_fiber(0));
      __tsan_set_fiber_name(side->tsan[t], ("CUDA thread " + std::to_string(t)).c_str());
    }
    thread.fiber.tsan = side->tsan[t];
#endif
    set_ready(t);
  }
  pick();
  switch_fibers(home, threads[current].fiber, false);
}

void check_guards() {
  for (const auto& [number, buffer] : buffers) {
    if (const long at = buffer.overrun()) {
      fail("%s wrote to byte %ld %s a buffer of %zu bytes", running, labs(at), at > 0 ? "past the end of" : "before",
           buffer.size);
    }
  }
}

unsigned char* stacks() {
  void* at = mmap(nullptr, 1024 * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) fail("out of memory");
  return static_cast<unsigned char*>(at);
}

void launch(const Kernel& what, dim3 grid, dim3 shape, size_t shared_bytes, const uint64_t* args) {
  running = what.name;
  kernel = &what;
  arguments = args;
  block_shape = shape;
  grid_shape = grid;
  const size_t count = size_t(shape.x) * shape.y * shape.z;
  threads = std::vector<Thread>(count);
  ready.assign((count + 63) / 64, 0);
#ifdef M2G_TSAN
  home.tsan = __tsan_get_current_fiber();
#endif
  std::vector<uint64_t> order(uint64_t(grid.x) * grid.y * grid.z);
  std::iota(order.begin(), order.end(), 0);
  if (schedule == REVERSE) std::reverse(order.begin(), order.end());
  if (schedule == RANDOM) std::shuffle(order.begin(), order.end(), chance);

  Guarded spaces[2] = {Guarded(shared_bytes), Guarded(shared_bytes)};
  __tsan_release(&start_tag);
  for (const uint64_t number : order) {
    block = {unsigned(number % grid.x), unsigned(number / grid.x % grid.y), unsigned(number / grid.x / grid.y)};
    const unsigned which = (block.x + block.y + block.z) % 2;
    side = &sides[which];
    if (side->stacks == nullptr) side->stacks = stacks();
    Guarded& space = spaces[which];
    space.fill();
    shared = space.at;
    run_block();
    ++side->blocks;
    if (const long at = space.overrun()) {
      fail("%s in block (%u,%u,%u) wrote to byte %ld %s its %zu bytes of shared memory", running, block.x, block.y,
           block.z, labs(at), at > 0 ? "past the end of" : "before", shared_bytes);
    }
  }
  __tsan_acquire(&end_tag);
  check_guards();
  running = "no kernel";
}

// ---- Requests ----

void take(void* to, size_t bytes) {
  if (fread(to, 1, bytes, stdin) != bytes) fail("a request was cut off");
}
template <class T>
T take() {
  T value;
  take(&value, sizeof(T));
  return value;
}
std::string take_text() {
  std::string text(take<uint64_t>(), '\0');
  take(text.data(), text.size());
  return text;
}
void give(const void* from, size_t bytes) { fwrite(from, 1, bytes, stdout); }

Guarded& take_buffer() {
  const auto found = buffers.find(take<uint64_t>());
  if (found == buffers.end()) fail("no such buffer");
  return found->second;
}

void take_launch() {
  const std::string name = take_text();
  const dim3 grid = take<dim3>(), shape = take<dim3>();
  const size_t shared_bytes = take<uint64_t>(), count = take<uint64_t>();
  const auto found = kernels().find(name);
  if (found == kernels().end()) fail("no kernel %s", name.c_str());
  const Kernel& what = found->second;
  if (count != strlen(what.kinds)) fail("%s takes %zu arguments, given %zu", what.name, strlen(what.kinds), count);
  std::vector<uint64_t> args(count);
  for (size_t k = 0; k < count; ++k) {
    const char kind = take<char>();
    // A pointer comes as its buffer and the bytes past its start; null as n.
    if (what.kinds[k] != kind && !(what.kinds[k] == 'p' && kind == 'n')) {
      fail("argument %zu of %s is of kind %c, given %c", k, what.name, what.kinds[k], kind);
    }
    if (kind == 'p') {
      Guarded& buffer = take_buffer();
      const uint64_t offset = take<uint64_t>();
      if (offset > buffer.size) fail("argument %zu of %s points %zu bytes into %zu", k, what.name, offset, buffer.size);
      args[k] = reinterpret_cast<uint64_t>(buffer.at + offset);
    } else {
      args[k] = take<uint64_t>();
    }
  }
  itimerval limit = {};
  limit.it_value.tv_sec = seconds;
  setitimer(ITIMER_PROF, &limit, nullptr);
  launch(what, grid, shape, shared_bytes, args.data());
  limit.it_value.tv_sec = 0;
  setitimer(ITIMER_PROF, &limit, nullptr);
}

void on_signal(int signal) {
  const char* what = signal == SIGPROF ? "ran out of time" : "crashed";
  fail("%s %s in block (%u,%u,%u), thread %zu", running, what, block.x, block.y, block.z, current);
}

void serve() {
  static uint64_t last = 0;
  for (int request; (request = fgetc(stdin)) != EOF;) {
    switch (request) {
      case 'm': {  // a module
        const std::string path = take_text();
        if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) fail("%s", dlerror());
        break;
      }
      case 'a': {
        const size_t size = take<uint64_t>();
        buffers.try_emplace(++last, size);
        give(&last, sizeof last);
        break;
      }
      case 'f': {
        const uint64_t number = take<uint64_t>();
        if (buffers.erase(number) == 0) fail("no such buffer to free");
        break;
      }
      case 'w': {
        Guarded& buffer = take_buffer();
        const size_t offset = take<uint64_t>(), bytes = take<uint64_t>();
        if (offset > buffer.size || bytes > buffer.size - offset) fail("a copy past the end of a buffer");
        take(buffer.at + offset, bytes);
        break;
      }
      case 'r': {
        Guarded& buffer = take_buffer();
        const size_t offset = take<uint64_t>(), bytes = take<uint64_t>();
        if (offset > buffer.size || bytes > buffer.size - offset) fail("a copy past the end of a buffer");
        give(buffer.at + offset, bytes);
        break;
      }
      case 'x': take_launch(); break;
      default: fail("no such request");
    }
    fputc('.', stdout);
    fflush(stdout);
  }
}

}  // namespace

void barrier(Site at) {
  Thread& t = threads[current];
  t.state = AT_BARRIER;
  t.site = at;
  t.mask = 0;
  char* tag = &side->barriers[generation % 2];
  __tsan_release(tag);
  yield();
  __tsan_acquire(tag);
}

uint64_t exchange(Site at, unsigned mask, uint64_t value, unsigned from) { return meet(at, mask, value, from); }
unsigned ballot(Site at, unsigned mask, bool value) { return unsigned(meet(at, mask, value, BALLOT)); }
unsigned lane() { return current % WARP; }

bool enlist(Kernel kernel) { return kernels().emplace(kernel.name, kernel).second; }

}  // namespace emulator

// SCHEDULE SEED SECONDS: order of threads and blocks, its seed, and how long one launch may compute.
int main(int count, char** words) {
  using namespace emulator;
  if (count != 4) fail("takes a schedule, a seed and seconds");
  const std::string order = words[1];
  if (order != "forward" && order != "reverse" && order != "random") fail("no schedule %s", words[1]);
  schedule = order == "forward" ? FORWARD : order == "reverse" ? REVERSE : RANDOM;
  chance.seed(strtoull(words[2], nullptr, 10));
  signal(SIGPROF, on_signal);
#if !defined(M2G_ASAN) && !defined(M2G_TSAN)
  for (const int what : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) signal(what, on_signal);
#endif
  seconds = atol(words[3]);
  serve();
}
