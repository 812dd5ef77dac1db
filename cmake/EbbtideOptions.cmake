# The language level, warnings and sanitizers of every target of ours: link ebbtide_options.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
# A hook runs between other code that has taken the caches: the less of it there is, the faster it is. Measured beside -O3
# with bench/host_time.py.
string(REPLACE "-O3" "-O2" CMAKE_CXX_FLAGS_RELEASE "${CMAKE_CXX_FLAGS_RELEASE}")
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

# For what every request goes through: the compiler sees it whole. Tests and tools need no such thing. What is compiled
# when it is linked is compiled as the rest.
# Nobody replaces a function of ours by one of that name: calls inside a library are direct, and can be inlined.
add_link_options($<$<CONFIG:Release>:-O2> $<$<CONFIG:Release>:-fno-plt> $<$<CONFIG:Release>:-fno-semantic-interposition>)
set(EBBTIDE_HAS_IPO FALSE)
if(EBBTIDE_IPO AND CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT EBBTIDE_SANITIZE)
  include(CheckIPOSupported)
  check_ipo_supported(RESULT EBBTIDE_HAS_IPO OUTPUT EBBTIDE_IPO_TEXT LANGUAGES CXX)
endif()

add_library(ebbtide_options INTERFACE)
target_compile_features(ebbtide_options INTERFACE cxx_std_20)
target_include_directories(ebbtide_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(ebbtide_options INTERFACE
  -fno-plt -fno-semantic-interposition -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wundef
  $<$<COMPILE_LANGUAGE:CXX>:-Wold-style-cast -Wnon-virtual-dtor>)
if(EBBTIDE_WERROR)
  target_compile_options(ebbtide_options INTERFACE -Werror)
endif()
if(EBBTIDE_SANITIZE)
  # A report fails the test. Less optimised and with lines only: it compiles in 2/5 of the time.
  add_compile_options(-fsanitize=${EBBTIDE_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -O1 -g1)
  add_link_options(-fsanitize=${EBBTIDE_SANITIZE})
  target_compile_definitions(ebbtide_options INTERFACE EBBTIDE_DEBUG_CHECKS)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_definitions(ebbtide_options INTERFACE EBBTIDE_DEBUG_CHECKS)
endif()
