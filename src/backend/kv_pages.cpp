#include "backend/ops.h"
#include "mlxs/error.h"

namespace mlxs {
namespace {

[[noreturn]] void refuse() {
  throw Error(ErrorCode::kInternal, "this backend gives no KV pages out", "this is a bug; please report it");
}

}  // namespace

void KvStore::read_page(PageId, PageId, std::span<std::byte>) const { refuse(); }
void KvStore::write_page(PageId, PageId, std::span<const std::byte>) { refuse(); }

void Backend::copy_window_page(KvStore&, PageId, PageId) {
  throw Error(ErrorCode::kInternal, "this backend's layers share their KV pages",
              "this is a bug; please report it");
}

}  // namespace mlxs
