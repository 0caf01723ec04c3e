// Names the calling thread, as `top -H`, `perf` and debuggers show it: at most 15 characters.
#pragma once

#include <pthread.h>

namespace mlxs {

inline void name_this_thread(const char* name) {
#ifdef __APPLE__
  pthread_setname_np(name);
#else
  pthread_setname_np(pthread_self(), name);
#endif
}

}  // namespace mlxs
