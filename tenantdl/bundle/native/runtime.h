/* What the pool and the runner of calls share. See pool.c and runtime.c. */
#ifndef TENANTDL_RUNTIME_H_
#define TENANTDL_RUNTIME_H_

#include <stdint.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#define LINE 128 /* two cache lines: adjacent-line prefetch makes neighbours interfere */

/* What TVM's code generator passes (tvm/runtime/c_backend_api.h). */
typedef struct {
  void *sync;
  int32_t tasks;
} ParallelGroup;

typedef int (*ParallelTask)(int index, ParallelGroup *group, void *data);

/* Part `index` of `count` equal ones of a loop; count 0 or 1: all of it. */
typedef struct {
  int32_t index, count;
} Part;

static inline int part_begin(Part part, int iterations) {
  return (int)((int64_t)iterations * part.index / part.count);
}

static inline int part_end(Part part, int iterations) {
  return (int)((int64_t)iterations * (part.index + 1) / part.count);
}

/* The first member is the same in every version of this file: libraries run each other's pools. */
typedef struct Pool Pool;
struct Pool {
  int (*launch)(Pool *pool, ParallelTask task, void *data, int32_t extent, Part part);
  int (*choose)(Pool *pool, const int32_t *members, int32_t count);
};

static inline int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* A denormal number costs over a hundred cycles an operation: flush them to zero. */
static inline uint64_t flush_denormals(void) {
#if defined(__x86_64__)
  uint32_t before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);
  return before;
#elif defined(__aarch64__)
  uint64_t before;
  __asm__ volatile("mrs %0, fpcr" : "=r"(before));
  __asm__ volatile("msr fpcr, %0" ::"r"(before | (1 << 24)));
  return before;
#else
  return 0;
#endif
}

static inline void restore_denormals(uint64_t before) {
#if defined(__x86_64__)
  _mm_setcsr((uint32_t)before);
#elif defined(__aarch64__)
  __asm__ volatile("msr fpcr, %0" ::"r"(before));
#else
  (void)before;
#endif
}

#endif
