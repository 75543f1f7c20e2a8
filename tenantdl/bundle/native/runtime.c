/* Runs a list of kernel calls; linked, with pool.c, into every bundle's kernel library. TVM's
 * kernels need nothing else: no runtime of TVM's is loaded to serve.
 */
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORKSPACES 4

/* TVMFFIAny and TVMFFISafeCallType of tvm/ffi/c_api.h. */
typedef struct {
  int32_t type;
  uint32_t padding;
  union {
    int64_t integer;
    void *pointer;
  };
} Value;

typedef int (*Kernel)(void *self, const Value *args, int32_t count, Value *result);

typedef struct {
  Kernel kernel;
  const Value *args;
  int32_t count;
  Part part; /* of the kernel's only loop */
  uint32_t padding;
} Call;

static __thread Pool *current;
static __thread int32_t extent; /* of the parallel loop to come; 0: not known */
static __thread Part part;      /* of that loop; only calls of kernels that are one loop have parts */
static __thread char message[512];

/* Run calls[begin:end] on the calling thread and the workers members[0:count] (indices from 1) of
 * `pool`, which may be NULL when count is 0. Where `ns` is not NULL, ns[i] is what calls[i] took.
 * 0, or not, with what went wrong in `error` (at most `room` bytes with the final NUL). */
EXPORT int tenantdl_run(Pool *pool, const int32_t *members, int32_t count, const Call *calls,
                        int64_t begin, int64_t end, int64_t *ns, char *error, int64_t room) {
  int status = count > 0 ? pool->choose(pool, members, count) : 0;
  if (status != 0) {
    snprintf(error, (size_t)room, "%d threads cannot be started: %s", count, strerror(status));
    return status;
  }
  uint64_t mode = flush_denormals();
  current = count > 0 ? pool : NULL;
  message[0] = '\0';
  for (int64_t i = begin; i < end && status == 0; i++) {
    int64_t start = ns ? now_ns() : 0;
    Value result = {0};
    part = calls[i].part;
    status = calls[i].kernel(NULL, calls[i].args, calls[i].count, &result);
    if (ns) ns[i] = now_ns() - start;
  }
  current = NULL;
  part = (Part){0, 0};
  restore_denormals(mode);
  if (status != 0)
    snprintf(error, (size_t)room, "%s", message[0] ? message : "a kernel failed in a parallel loop");
  return status;
}

/* --- the functions that kernels call. TVM's generated code reaches the first three through
 * pointers of its own, which its own loader would fill in. */

/* Kernels say before a parallel loop how many iterations it has: the code generator does not. */
EXPORT int32_t tenantdl_extent(int32_t iterations) {
  extent = iterations;
  return 0;
}

static int parallel_launch(ParallelTask task, void *data, int tasks) {
  (void)tasks; /* always 0: as many as suit */
  Pool *pool = current;
  Part own = part;
  int status = 0;
  part = (Part){0, 0}; /* a loop inside a chunk runs whole, */
  if (pool == NULL) {
    ParallelGroup alone = {NULL, own.count > 1 ? extent : 1};
    if (own.count <= 1) return task(0, &alone, data);
    int end = part_end(own, alone.tasks);
    for (int i = part_begin(own, alone.tasks); i < end && status == 0; i++) status = task(i, &alone, data);
    return status;
  }
  current = NULL; /* and on its thread alone */
  status = pool->launch(pool, task, data, extent, own);
  extent = 0;
  current = pool;
  return status;
}

/* Workspaces are needed again and again in the same sizes: a thread keeps a few. */
typedef struct {
  void *memory;
  uint64_t bytes;
  int used;
} Workspace;

static __thread Workspace workspaces[WORKSPACES];

static void *alloc_workspace(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device, (void)id, (void)code, (void)bits;
  uint64_t rounded = (bytes + LINE - 1) / LINE * LINE;
  for (int i = 0; i < WORKSPACES; i++)
    if (!workspaces[i].used && workspaces[i].memory && workspaces[i].bytes >= rounded) {
      workspaces[i].used = 1;
      return workspaces[i].memory;
    }
  void *memory = aligned_alloc(LINE, rounded ? rounded : LINE);
  for (int i = 0; memory && i < WORKSPACES; i++)
    if (!workspaces[i].used) {
      free(workspaces[i].memory);
      workspaces[i] = (Workspace){memory, rounded, 1};
      break;
    }
  return memory;
}

static int free_workspace(int device, int id, void *memory) {
  (void)device, (void)id;
  for (int i = 0; i < WORKSPACES; i++)
    if (workspaces[i].memory == memory) {
      workspaces[i].used = 0;
      return 0;
    }
  free(memory);
  return 0;
}

EXPORT __attribute__((weak)) void *__TVMBackendParallelLaunch;
EXPORT __attribute__((weak)) void *__TVMBackendAllocWorkspace;
EXPORT __attribute__((weak)) void *__TVMBackendFreeWorkspace;

__attribute__((constructor)) static void fill_in(void) {
  __TVMBackendParallelLaunch = (void *)parallel_launch;
  __TVMBackendAllocWorkspace = (void *)alloc_workspace;
  __TVMBackendFreeWorkspace = (void *)free_workspace;
}

__attribute__((visibility("hidden"))) void TVMFFIErrorSetRaisedFromCStrParts(const char *kind,
                                                                             const char **parts,
                                                                             int32_t count) {
  size_t used = (size_t)snprintf(message, sizeof message, "%s: ", kind);
  for (int32_t i = 0; i < count && used < sizeof message; i++)
    if (parts[i]) used += (size_t)snprintf(message + used, sizeof message - used, "%s", parts[i]);
}
