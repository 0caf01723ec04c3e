// The calling thread's priority among this program's threads, as far as the system lets an ordinary user say
// it.
#pragma once

namespace mlxs {

void set_thread_priority(int level);  // -1 below the others, 0 as they, 1 above; a refusal changes nothing

}  // namespace mlxs
