#include "runtime/allocator.h"

#include <stdlib.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace polystill {

void KeepFreedMemory() {
#ifdef __GLIBC__
  constexpr int kMiB = 1 << 20;
  mallopt(M_MMAP_THRESHOLD, 32 * kMiB);  // the most that it takes; larger ones are mapped and unmapped
  mallopt(M_TRIM_THRESHOLD, 256 * kMiB);
#endif
}

}  // namespace polystill
