// Scratch memory at a 64-byte boundary that stays for the next use. One owner at a time; throws bad_alloc.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace mlxs::cpu {

struct AlignedFree {
  void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
};

// Grows, never shrinks; contents are lost on growth.
class AlignedBuffer {
 public:
  std::byte* reserve(std::size_t bytes) {
    if (bytes > size_) {
      memory_.reset();
      memory_.reset(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{64})));
      size_ = bytes;
    }
    return memory_.get();
  }
  std::byte* data() const { return memory_.get(); }

 private:
  std::unique_ptr<std::byte[], AlignedFree> memory_;
  std::size_t size_ = 0;
};

}  // namespace mlxs::cpu
