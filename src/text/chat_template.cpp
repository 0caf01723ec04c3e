#include "text/chat_template.h"

#include "text/rust_call.h"

namespace mlxs {

struct ChatTemplate::Impl {
  mlxs_template* handle = nullptr;
  Impl() = default;
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { mlxs_template_free(handle); }
};

ChatTemplate::ChatTemplate(std::string_view source, std::string_view bos_token, std::string_view eos_token)
    : impl_(std::make_unique<Impl>()) {
  call_rust([&](mlxs_text_error* error) {
    return mlxs_template_new(to_rust(source), to_rust(bos_token), to_rust(eos_token), &impl_->handle, error);
  });
}

ChatTemplate::~ChatTemplate() = default;

std::string ChatTemplate::render(std::string_view context_json,
                                 std::chrono::system_clock::time_point now) const {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()).count();
  mlxs_text_bytes text{};
  call_rust([&](mlxs_text_error* error) {
    return mlxs_template_render(impl_->handle, to_rust(context_json), seconds, &text, error);
  });
  return take_string(text);
}

}  // namespace mlxs
