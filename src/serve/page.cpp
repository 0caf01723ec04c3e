#include "serve/page.h"

#include "page_assets.h"

namespace mlxs {
namespace {

// Nothing from elsewhere, no inline script: a model's answer cannot bring code in.
constexpr const char* kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

void add_asset(Router& router, const char* path, std::string_view body, const char* type) {
  router.add(
      "GET", path,
      [body, type](const HttpRequest&, std::string_view) -> Reply {
        return HttpResponse{.body = std::string(body),
                            .content_type = type,
                            .headers = {{"Content-Security-Policy", kPolicy},
                                        {"X-Content-Type-Options", "nosniff"},
                                        {"Referrer-Policy", "no-referrer"},
                                        {"Cache-Control", "no-cache"}}};
      },
      Access::kOpen);
}

}  // namespace

void add_page_routes(Router& router) {
  constexpr const char* kScript = "text/javascript; charset=utf-8";
  add_asset(router, "/", page::index_html, "text/html; charset=utf-8");
  add_asset(router, "/page.css", page::page_css, "text/css; charset=utf-8");
  add_asset(router, "/page.js", page::page_js, kScript);
  add_asset(router, "/markdown.js", page::markdown_js, kScript);
  add_asset(router, "/live.js", page::live_js, kScript);
}

}  // namespace mlxs
