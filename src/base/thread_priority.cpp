#include "base/thread_priority.h"

#if defined(__APPLE__)
#include <pthread.h>
#else
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mlxs {

void set_thread_priority(int level) {
  if (level == 0) return;
#if defined(__APPLE__)
  pthread_set_qos_class_self_np(level < 0 ? QOS_CLASS_UTILITY : QOS_CLASS_USER_INTERACTIVE, 0);
#else
  // Linux keeps a nice value for each thread, and takes its id here.
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  static_cast<void>(::setpriority(PRIO_PROCESS, thread, level < 0 ? 5 : -5));
#endif
}

}  // namespace mlxs
