# Third-party packages, each behind one mlxs:: name so that modules do not care where a distribution puts it.
# Installed by scripts/bootstrap.sh; nothing is downloaded while building (cargo fetches the locked crates).
include(GNUInstallDirs)
if(APPLE)  # Homebrew keeps these out of the default search path because macOS has older ones
  find_program(MLXS_BREW brew REQUIRED)
  get_filename_component(brew_prefix ${MLXS_BREW} DIRECTORY)
  get_filename_component(brew_prefix ${brew_prefix} DIRECTORY)
  list(APPEND CMAKE_PREFIX_PATH ${brew_prefix} ${brew_prefix}/opt/openssl@3)
  set(ENV{PKG_CONFIG_PATH} "${brew_prefix}/opt/libarchive/lib/pkgconfig:${brew_prefix}/opt/libedit/lib/pkgconfig:$ENV{PKG_CONFIG_PATH}")
endif()
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)

find_package(spdlog REQUIRED)
add_library(mlxs_spdlog INTERFACE)
target_link_libraries(mlxs_spdlog INTERFACE spdlog::spdlog)
add_library(mlxs::spdlog ALIAS mlxs_spdlog)

find_package(nlohmann_json 3.11 REQUIRED)
add_library(mlxs::json ALIAS nlohmann_json::nlohmann_json)

find_package(yaml-cpp REQUIRED)
add_library(mlxs_yaml INTERFACE)
if(TARGET yaml-cpp::yaml-cpp)
  target_link_libraries(mlxs_yaml INTERFACE yaml-cpp::yaml-cpp)
else()  # before 0.8
  target_link_libraries(mlxs_yaml INTERFACE yaml-cpp)
endif()
add_library(mlxs::yaml ALIAS mlxs_yaml)

find_package(CLI11 REQUIRED)
add_library(mlxs::cli11 ALIAS CLI11::CLI11)

find_package(prometheus-cpp REQUIRED COMPONENTS core)
add_library(mlxs::prometheus ALIAS prometheus-cpp::core)

find_package(OpenSSL REQUIRED)
add_library(mlxs::crypto ALIAS OpenSSL::Crypto)

find_package(CURL 7.85 REQUIRED)
add_library(mlxs::curl ALIAS CURL::libcurl)
find_package(ZLIB REQUIRED)
add_library(mlxs::zlib ALIAS ZLIB::ZLIB)
find_package(Boost 1.81 REQUIRED)
add_library(mlxs_boost INTERFACE)
target_link_libraries(mlxs_boost INTERFACE Boost::headers OpenSSL::SSL Threads::Threads)
target_compile_definitions(mlxs_boost INTERFACE BOOST_ASIO_NO_DEPRECATED
  BOOST_ASIO_SEPARATE_COMPILATION BOOST_BEAST_SEPARATE_COMPILATION)
if(MLXS_SANITIZE STREQUAL "thread")  # TSan knows no fences; the queues' mutexes order handlers
  target_compile_definitions(mlxs_boost INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
endif()
add_library(mlxs::boost ALIAS mlxs_boost)

pkg_check_modules(NGHTTP2 REQUIRED IMPORTED_TARGET libnghttp2)
add_library(mlxs::nghttp2 ALIAS PkgConfig::NGHTTP2)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)
add_library(mlxs::libarchive ALIAS PkgConfig::ARCHIVE)
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit)
add_library(mlxs::edit ALIAS PkgConfig::EDIT)

find_path(HIREDIS_INCLUDE_DIR hiredis/hiredis.h REQUIRED)
find_library(HIREDIS_LIBRARY hiredis REQUIRED)
add_library(mlxs_hiredis INTERFACE)
target_include_directories(mlxs_hiredis SYSTEM INTERFACE ${HIREDIS_INCLUDE_DIR})
target_link_libraries(mlxs_hiredis INTERFACE ${HIREDIS_LIBRARY})
add_library(mlxs::hiredis ALIAS mlxs_hiredis)
