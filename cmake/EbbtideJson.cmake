# nlohmann/json, header-only, from the system: target ebbtide_json, absent where it is not installed.
find_path(EBBTIDE_JSON_INCLUDE nlohmann/json.hpp)
if(EBBTIDE_JSON_INCLUDE AND NOT TARGET ebbtide_json)
  add_library(ebbtide_json INTERFACE)
  if(NOT EBBTIDE_JSON_INCLUDE STREQUAL "/usr/include")
    target_include_directories(ebbtide_json SYSTEM INTERFACE ${EBBTIDE_JSON_INCLUDE})
  endif()
endif()
