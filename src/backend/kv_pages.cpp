#include "backend/ops.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::kInternal, "this backend gives no KV pages out", "this is a bug; please report it");
}

}  // namespace

void KvStore::read_page(PageId, std::span<std::byte>) const { refuse(); }
void KvStore::write_page(PageId, std::span<const std::byte>) { refuse(); }

}  // namespace mlxs
