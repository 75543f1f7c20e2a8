/* A pool of pinned threads that shares out parallel loops.
 *
 * A loop is cut into CHUNKS chunks a thread. Each thread first takes the chunks of its own range
 * (neighbouring operators then find their data in the same core's cache), then what is left of the
 * others', so a core that the host slows down does not hold up the rest. Waiting threads spin for
 * SPIN_NS, then sleep in the kernel. Nobody waits for a thread that has not woken up yet: its
 * chunks are taken by those that have.
 *
 * A pool belongs to the thread that made it: one launch at a time. Workers are started when they
 * are first chosen, and woken only for launches that include them.
 */
#define _GNU_SOURCE
#include "runtime.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHUNKS 8
#define SPIN_NS 100000
#define THREADS_MAX 1024
#define BITS_18 0x3ffffu
#define BITS_28 0xfffffffu

typedef struct {
  _Alignas(LINE) _Atomic uint64_t range; /* this thread's chunks: see range() */
  _Alignas(LINE) _Atomic uint32_t order; /* newest launch this thread takes part in; a futex */
  _Atomic uint32_t asleep;
  struct Threads *threads;
  pthread_t thread;
  int core;
} Worker;

typedef struct Threads {
  Pool interface; /* first: a Pool * is a Threads * */
  int size;
  int active;                 /* threads of the present run; member[0] is the caller's */
  int member[THREADS_MAX];
  _Atomic int stop;
  _Atomic int resting;        /* who finds nothing to do goes to sleep at once */
  uint32_t number;            /* of the newest launch */
  ParallelTask task;
  void *data;
  ParallelGroup group;
  _Alignas(LINE) _Atomic uint32_t left; /* chunks of the launch not done yet; a futex */
  _Atomic uint32_t waiting;
  _Atomic int failed;
  Worker workers[];
} Threads;

static void pause_core(void) {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Spin while *word == value, for SPIN_NS at most and not while *resting; whether it changed. */
static int spin(_Atomic uint32_t *word, uint32_t value, _Atomic int *resting) {
  int64_t until = 0;
  for (;;) {
    for (int i = 0; i < 64; i++) {
      if (atomic_load_explicit(word, memory_order_acquire) != value) return 1;
      pause_core();
    }
    if (atomic_load_explicit(resting, memory_order_relaxed)) return 0;
    int64_t now = now_ns();
    if (until == 0) until = now + SPIN_NS;
    if (now >= until) return 0;
  }
}

/* A range in one word, so that it is taken from and replaced as a whole: launch number (28 bits), its
 * end and its next chunk (18 bits each). The number keeps a late thread from taking chunks of a
 * launch that it knows nothing of. */
static uint64_t range(uint32_t number, int next, int end) {
  return (uint64_t)number << 36 | (uint64_t)end << 18 | (uint64_t)next;
}

/* The next chunk of `owner`'s range in launch `number`, or -1 when none is left. */
static int take(Worker *owner, uint32_t number) {
  uint64_t seen = atomic_load_explicit(&owner->range, memory_order_acquire);
  while (seen >> 36 == number && (seen & BITS_18) < (seen >> 18 & BITS_18)) {
    if (atomic_compare_exchange_weak_explicit(&owner->range, &seen, seen + 1, memory_order_acq_rel,
                                              memory_order_acquire))
      return (int)(seen & BITS_18);
  }
  return -1;
}

/* Run chunks of launch `number`, beginning with the range of the thread of rank `rank`. What is read
 * before a chunk is taken may be another launch's; then no chunk can be taken. */
static void work(Threads *pool, int rank, uint32_t number) {
  int active = pool->active;
  uint32_t done = 0;
  for (int step = 0; step < active; step++) {
    Worker *owner = &pool->workers[pool->member[(rank + step) % active]];
    for (int chunk; (chunk = take(owner, number)) >= 0; done++)
      if (pool->task(chunk, &pool->group, pool->data) != 0) atomic_store(&pool->failed, 1);
  }
  if (done && atomic_fetch_sub(&pool->left, done) == done && atomic_load(&pool->waiting))
    futex_wake(&pool->left);
}

/* How many chunks a loop of `extent` iterations (0: not known) is cut into. The kernel divides its
 * iterations by that number, rounding up: the answer leaves no chunk empty. */
static int chunks(int32_t extent, int threads) {
  int most = threads * CHUNKS;
  if (extent <= 0) return most;
  int size = extent > most ? extent / most : 1;
  int count = (extent + size - 1) / size;
  size = (extent + count - 1) / count;
  return (extent + size - 1) / size;
}

/* A part of a loop has a chunk an iteration: parts then meet, whoever runs them. */
static int launch(Pool *interface, ParallelTask task, void *data, int32_t extent, Part part) {
  Threads *pool = (Threads *)interface;
  int active = pool->active, split = part.count > 1;
  int tasks = split ? extent : chunks(extent, active);
  int first = split ? part_begin(part, extent) : 0;
  int count = (split ? part_end(part, extent) : tasks) - first;
  if (count == 0) return 0;
  uint32_t number = pool->number = (pool->number + 1) & BITS_28;
  pool->task = task;
  pool->data = data;
  pool->group.tasks = tasks;
  atomic_store_explicit(&pool->resting, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->failed, 0, memory_order_relaxed);
  atomic_store_explicit(&pool->left, (uint32_t)count, memory_order_relaxed);
  for (int rank = 0; rank < active; rank++) {
    int begin = first + (int)((int64_t)count * rank / active);
    int end = first + (int)((int64_t)count * (rank + 1) / active);
    atomic_store_explicit(&pool->workers[pool->member[rank]].range, range(number, begin, end),
                          memory_order_release);
  }
  for (int rank = 1; rank < active; rank++) {
    Worker *worker = &pool->workers[pool->member[rank]];
    atomic_store(&worker->order, number);
    if (atomic_load(&worker->asleep)) futex_wake(&worker->order);
  }
  work(pool, 0, number);
  for (uint32_t left; (left = atomic_load(&pool->left)) != 0;) {
    if (spin(&pool->left, left, &pool->resting)) continue;
    atomic_store(&pool->waiting, 1);
    if ((left = atomic_load(&pool->left)) != 0) futex_wait(&pool->left, left);
    atomic_store(&pool->waiting, 0);
  }
  return atomic_load_explicit(&pool->failed, memory_order_relaxed) ? -1 : 0;
}

static int rank_of(const Threads *pool, int index) {
  for (int rank = 1; rank < pool->active; rank++)
    if (pool->member[rank] == index) return rank;
  return 0;
}

static void *worker_main(void *argument) {
  Worker *self = argument;
  Threads *pool = self->threads;
  flush_denormals();
  for (uint32_t seen = 0;;) {
    if (!spin(&self->order, seen, &pool->resting)) {
      atomic_store(&self->asleep, 1);
      futex_wait(&self->order, seen);
      atomic_store(&self->asleep, 0);
    }
    uint32_t number = atomic_load_explicit(&self->order, memory_order_acquire);
    if (atomic_load(&pool->stop)) return NULL;
    if (number == seen) continue;
    seen = number;
    work(pool, rank_of(pool, (int)(self - pool->workers)), number);
  }
}

/* Start a worker where it belongs: on the caller's core it would wait until the caller is done. 0, or
 * an error number. */
static int start(Worker *worker) {
  pthread_attr_t attributes;
  int status = pthread_attr_init(&attributes);
  if (status != 0) return status;
  if (worker->core >= 0) {
    size_t size = CPU_ALLOC_SIZE(worker->core + 1);
    cpu_set_t *set = CPU_ALLOC(worker->core + 1);
    status = set == NULL ? ENOMEM : 0;
    if (set != NULL) {
      CPU_ZERO_S(size, set);
      CPU_SET_S(worker->core, size, set);
      status = pthread_attr_setaffinity_np(&attributes, size, set);
      CPU_FREE(set);
    }
  }
  if (status == 0) status = pthread_create(&worker->thread, &attributes, worker_main, worker);
  pthread_attr_destroy(&attributes);
  return status;
}

/* Who takes part in the launches to come: the caller and these workers (numbered from 1), started now
 * if need be. 0, or an error number when one cannot be. */
static int choose(Pool *interface, const int32_t *members, int32_t count) {
  Threads *pool = (Threads *)interface;
  for (int32_t i = 0; i < count; i++) {
    Worker *worker = &pool->workers[members[i]];
    if (worker->threads) continue;
    worker->threads = pool;
    int status = start(worker);
    if (status != 0) {
      worker->threads = NULL;
      return status;
    }
  }
  pool->active = 1 + count;
  for (int32_t i = 0; i < count; i++) pool->member[1 + i] = members[i];
  return 0;
}

/* No launch follows soon: spinning workers leave their cores to others. */
EXPORT void tenantdl_pool_rest(Pool *interface) {
  atomic_store_explicit(&((Threads *)interface)->resting, 1, memory_order_relaxed);
}

EXPORT void tenantdl_pool_free(Pool *interface) {
  Threads *pool = (Threads *)interface;
  atomic_store(&pool->stop, 1);
  pool->number = (pool->number + 1) & BITS_28;
  for (int i = 1; i < pool->size; i++) {
    if (!pool->workers[i].threads) continue;
    atomic_store(&pool->workers[i].order, pool->number);
    futex_wake(&pool->workers[i].order);
    pthread_join(pool->workers[i].thread, NULL);
  }
  free(pool);
}

/* A pool for the calling thread and up to size − 1 workers, on cores[1] … cores[size − 1] (−1: on
 * any). NULL when there is no memory for it, or size is out of bounds. */
EXPORT Pool *tenantdl_pool_new(const int32_t *cores, int32_t size) {
  if (size < 1 || size > THREADS_MAX) return NULL;
  size_t bytes = sizeof(Threads) + (size_t)size * sizeof(Worker);
  Threads *pool = aligned_alloc(LINE, (bytes + LINE - 1) / LINE * LINE);
  if (pool == NULL) return NULL;
  memset(pool, 0, bytes);
  pool->interface.launch = launch;
  pool->interface.choose = choose;
  pool->size = size;
  for (int i = 1; i < size; i++) pool->workers[i].core = cores[i];
  return &pool->interface;
}
